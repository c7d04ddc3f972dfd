"""Where a job's files stand and how it begins: the same for whoever runs it, provider or referee.

| inside the job    | what                                                          |
|-------------------|---------------------------------------------------------------|
| work              | where it starts; workdir and mounts under it                  |
| out               | $MINGA_OUTPUT_DIR: everything here comes back                 |
| checkpoint        | $MINGA_CHECKPOINT_DIR                                         |
| home, venv        | $HOME; packages that `setup` installs                         |
| progress.jsonl    | $MINGA_PROGRESS                                               |
| .minga            | launcher, the texts of `setup` and `run`, the started marker  |

Knows: paths and shell text. Does not know: where an input's bytes come from, who asks, or what a lease is. Rule: what
decides the result of a job is laid out here and nowhere else, so that a replay begins like the first run. Blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from minga.core.errors import InvalidInput
from minga.core.spec import Bundle
from minga.runtimes.runtime import WORK, Environment, Input, Mount

STARTED = ".minga/started"
LAUNCH = ("/bin/sh", ".minga/launch.sh")
"""The command of every job."""

_SYSTEM = frozenset(
    {
        "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys", "tmp",
        "usr", "var", "work",
    }
)  # fmt: skip
_OWN = frozenset({"work", "out", "checkpoint", "home"})

LAUNCHER = """\
cd "$(dirname "$0")/.." || exit 125
root=$(pwd)
umask 022
mkdir -p work out checkpoint home
export HOME="$root/home" MINGA_OUTPUT_DIR="$root/out" MINGA_CHECKPOINT_DIR="$root/checkpoint"
export MINGA_PROGRESS="$root/progress.jsonl"
case ${PYTHONPATH:-} in /job/*) export PYTHONPATH="$root${PYTHONPATH#/job}" ;; esac
case ${MINGA_TRACE_DIR:-} in /job/*) export MINGA_TRACE_DIR="$root${MINGA_TRACE_DIR#/job}" ;; esac
case ${MINGA_REPLAY_DIR:-} in /job/*) export MINGA_REPLAY_DIR="$root${MINGA_REPLAY_DIR#/job}" ;; esac
shell=$(command -v bash || echo /bin/sh)
cd work || exit 125
if [ -s ../.minga/setup.sh ]; then
  if [ -n "$VIRTUAL_ENV" ] && [ -n "$MINGA_EGRESS" ]; then
    python -m venv --without-pip "$root/venv" || exit 125
    site=$(echo "$root"/venv/lib/python3*/site-packages)
    echo "$VIRTUAL_ENV"/lib/python3*/site-packages > "$site/provider.pth"
    printf '#!/bin/sh\\nexec "%s/venv/bin/python" -m pip "$@"\\n' "$root" > "$root/venv/bin/pip"
    chmod 755 "$root/venv/bin/pip"
    export VIRTUAL_ENV="$root/venv" PATH="$root/venv/bin:$PATH"
  fi
  "$shell" ../.minga/setup.sh || exit
fi
: > ../.minga/started
exec "$shell" ../.minga/run.sh
"""
"""Runs before anything of the tenant's. `exit` after a failed set-up keeps its code.

Where the job's folder is not `/job` (a plain process), the trace's folders are beneath it all the same.
"""

Unpack = Callable[[Bundle, Path, int], None]
"""(input, folder that it makes, bytes that are left for it)"""


def place_of(bundle: Bundle) -> PurePosixPath:
    """Where an input goes: a path relative to the job's folder, or an absolute one for a read-only mount.

    Raises:
        InvalidInput: the target is a folder of the system, or the job's folder itself.
    """
    target = PurePosixPath(bundle.target)
    top = target.parts[1] if len(target.parts) > 1 else ""
    if top == "job":
        inside = target.relative_to(WORK)
        if inside.parts and inside.parts[0] in _OWN:
            return inside
    elif top and top not in _SYSTEM:
        return target
    raise InvalidInput(
        f"an input cannot be put at {bundle.target[:80]}", "use a folder under /job/work, or one of its own like /data"
    )


def lay_out(bundles: Iterable[Bundle], stage: Path, bytes_max: int, unpack: Unpack) -> tuple[list[Input], list[Mount]]:
    """Have every input unpacked under `stage`, and say where each goes: copied into the job, or mounted read-only.

    Args:
        bundles: the inputs.
        stage: a folder of the caller's; each input gets a new one in it.
        bytes_max: of all files of all inputs together.
        unpack: makes one input's files.

    Raises:
        InvalidInput: a target where none may be; and whatever `unpack` raises.
    """
    left = bytes_max
    inputs: list[Input] = []
    mounts: list[Mount] = []
    for index, bundle in enumerate(bundles):
        folder = stage / str(index)
        unpack(bundle, folder, left)
        left -= sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        target = place_of(bundle)
        if target.is_absolute():
            mounts.append(Mount(folder, str(target)))
        else:
            inputs.append(Input(folder, str(target)))
    return inputs, mounts


def environment_at(path: Path) -> Environment:
    """What a folder is to a job: `/` this machine's system, else a Python environment or a root file system."""
    if path == Path("/"):
        return Environment("system")
    return Environment("python" if (path / "pyvenv.cfg").is_file() else "rootfs", path)


def write_launcher(folder: Path, setup: str, run: str) -> Input:
    """Write the launcher and the job's two texts into `folder`; the input that brings them into the job.

    Not synced: whatever a crash leaves here is made anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("launch.sh", LAUNCHER), ("setup.sh", setup), ("run.sh", run)):
        (folder / name).write_text(text, encoding="utf-8")
    return Input(folder, ".minga")
