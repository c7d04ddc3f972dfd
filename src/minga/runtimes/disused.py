"""Which job environments nobody needs any more, and their removal: each takes more than a gigabyte.

An environment is disused when all of this is so:

| question                                   | answer                                                              |
|--------------------------------------------|---------------------------------------------------------------------|
| is it one of ours?                         | `ai-` and twelve hex digits, beside the present one                 |
| is it of another lock?                     | its `ai.txt` or its PyTorch is not what this version installs       |
| does a provider serve it?                  | nobody holds its lock (`hold`)                                      |
| does a task see it?                        | no process of this machine runs in it or has it mounted             |
| was it needed of late?                     | nobody held it for a day                                            |

Rule: where one answer is missing, it stays. At most `REMOVED_MAX` go at a time; the marker goes first, so that a
removal that was cut off leaves nothing that looks whole.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from minga.runtimes.environments import MARKER, TORCH, ai_environment, ai_lock, is_complete

REMOVED_MAX = 4
DISUSED_SECONDS = 86400
_OURS = re.compile(r"ai-[0-9a-f]{12}")


@contextmanager
def hold(environments: Iterable[Path], now: int) -> Iterator[None]:
    """Say that these folders are in use for as long as the block lasts (and a day longer); others' are left alone.

    Args:
        environments: folders, ours or not.
        now: Unix seconds.
    """
    with ExitStack() as stack:
        for environment in environments:
            marker = environment / MARKER
            try:
                os.utime(marker, (now, now))
                file = os.open(marker, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # not built by us, or not ours to touch
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def remove_disused(root: Path, now: int, report: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Delete at most `REMOVED_MAX` disused environments under `root`, oldest first; what was deleted. Blocks.

    Args:
        root: the folder of all environments.
        now: Unix seconds.
        report: is told each one.
    """
    try:
        found = [path for path in root.iterdir() if _is_of_another_lock(path)]
    except OSError:
        return []  # there are none, or they are not ours to see
    removed: list[Path] = []
    for path in sorted(found, key=_used_at):
        if len(removed) < REMOVED_MAX and _remove(path, now):
            removed.append(path)
            report(f"removed {path}: nothing needs it any more")
    return removed


def _is_of_another_lock(path: Path) -> bool:
    if not _OURS.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    if not is_complete(path):
        return path != ai_environment(path.parent)  # half built, or half removed
    try:
        torch, lock = (path / MARKER).read_text().strip(), (path / "ai.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return (torch, lock) != (TORCH, ai_lock())


def _used_at(path: Path) -> float:
    try:
        return (path / MARKER if is_complete(path) else path).stat().st_mtime
    except OSError:
        return float("inf")


def _remove(path: Path, now: int) -> bool:
    if now - _used_at(path) < DISUSED_SECONDS or _is_seen(path):
        return False
    with ExitStack() as stack:
        try:
            # The first is held by who builds it, the second by who serves it.
            for name in (path.with_suffix(".lock"), path / MARKER):
                if name.exists():
                    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                    stack.callback(os.close, file)
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / MARKER).unlink(missing_ok=True)
        except OSError:
            return False  # held, or not ours to delete
        shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def _is_seen(path: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a process runs a program of this folder, was started with it, or has it mounted."""
    name = os.fsencode(path.resolve())
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        for source in ("cmdline", "environ", "mountinfo"):
            try:
                if name in (process / source).read_bytes():
                    return True
            except OSError:
                continue  # gone, or another user's
    return False
