"""The dedicated Python environment in which jobs run: built once from a lock file, then only read.

It is a virtual environment of its own, never the provider's: it holds what AI jobs import (PyTorch, transformers …)
and nothing of Minga. It knows nothing of sandboxes; a driver binds it read-only.

| step | what is installed                                 | pinned by                                             |
|------|---------------------------------------------------|-------------------------------------------------------|
| 1    | PyTorch alone                                     | version (each platform and accelerator has its build) |
| 2    | everything else, PyTorch's pure-Python needs too  | version and hash (`ai.txt`)                           |
| 3    | the CUDA libraries that a CUDA build names        | version, by PyTorch's own metadata; else nothing      |

Rule: an environment is used only if its marker file is there, and the marker is written last. Virtual environments
cannot be moved, so an unfinished one is deleted and built again in its place, under a lock held by one builder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from minga.core.errors import DiskFull, MingaError, MissingPrerequisite

TORCH = "torch==2.13.0"
"""The one requirement without a hash. The `ai` extra in pyproject.toml names the same version."""

DISK_BYTES = 3 * 1024**3
"""Free bytes asked for before a build; with PyTorch's CPU build the environment takes 1.2 GB."""

MARKER = ".complete"
"""The file in an environment that says, by being there, that it is whole; it holds PyTorch's requirement."""

_PROBE = "import torch, transformers, tokenizers, safetensors, numpy, cloudpickle"

Report = Callable[[str], None]
"""Receives one line of progress, without its newline."""


def ai_lock() -> str:
    """Return the text of the hash-locked requirements that this version of Minga ships."""
    return files("minga.runtimes").joinpath("ai.txt").read_text(encoding="utf-8")


def environments_dir() -> Path:
    """Return where environments are kept: `$MINGA_CACHE/envs`, or `~/.cache/minga/envs`."""
    named = os.environ.get("MINGA_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "minga") / "envs"


def ai_environment(root: Path | None = None) -> Path:
    """Return the folder of the AI environment, built or not.

    Its name carries a hash of the lock, PyTorch's version and this interpreter's, so a change of any of them is
    another environment, and running jobs keep theirs.

    Args:
        root: the folder of all environments; `environments_dir()` by default.
    """
    version = f"{sys.implementation.cache_tag}-{sys.platform}"
    digest = hashlib.sha256("\n".join((TORCH, version, ai_lock())).encode()).hexdigest()
    return (root or environments_dir()) / f"ai-{digest[:12]}"


def is_complete(environment: Path) -> bool:
    """Tell whether `environment` was built to its end."""
    return (environment / MARKER).is_file()


def build_ai_environment(root: Path | None = None, report: Report = lambda line: None) -> Path:
    """Build the AI environment unless it is there, and return its folder; its interpreter is `bin/python`.

    Idempotent. Blocking: a build takes a minute or two and downloads; a second builder waits for the first.

    Args:
        root: the folder of all environments; `environments_dir()` by default.
        report: called with each line of progress.

    Raises:
        MissingPrerequisite: no writable folder, no `venv` module, or pip could not download, verify or install.
        DiskFull: fewer than `DISK_BYTES` are free.
    """
    environment = ai_environment(root)
    if is_complete(environment):
        return environment
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingPrerequisite(f"no folder for environments: {error}", "set MINGA_CACHE to a writable one") from None
    with _exclusive(environment.with_suffix(".lock")):
        if not is_complete(environment):
            _build(environment, report)
    return environment


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the kernel frees it when a builder dies."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(environment: Path, report: Report) -> None:
    free = shutil.disk_usage(environment.parent).free
    if free < DISK_BYTES:
        raise DiskFull(
            f"{free / 1e9:.1f} GB free at {environment.parent}; the AI environment needs {DISK_BYTES / 1e9:.1f} GB",
            "free some disk, or set MINGA_CACHE to a folder on a larger one",
        )
    shutil.rmtree(environment, ignore_errors=True)
    report(f"creating {environment}")
    _run([sys.executable, "-m", "venv", str(environment)], report, "apt install python3-venv")
    python = str(environment / "bin" / "python")
    lock = environment / "ai.txt"
    lock.write_text(ai_lock(), encoding="utf-8")
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    retry = "see that pip reaches its package index, then run the same command again"
    _run([*pip, "--no-deps", TORCH], report, retry)
    _run([*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(lock)], report, retry)
    _run([*pip, "--quiet", TORCH], report, retry)
    _run([python, "-c", _PROBE], report, f"remove {environment} and run the same command again")
    with (environment / MARKER).open("w") as marker:
        marker.write(TORCH + "\n")
        marker.flush()
        os.fsync(marker.fileno())


def _run(argv: list[str], report: Report, remedy: str) -> None:
    """Run one step, its output line by line to `report`; a failure carries the last line that it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    last = ""
    # Jobs run under other uids, so what is installed must be readable by all whatever the caller's umask.
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env, umask=0o022
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                last = line.rstrip()
                report(last)
    if process.returncode != 0:
        raise MissingPrerequisite(f"building the AI environment failed: {last}", remedy, command=argv)


def main() -> int:
    """Build the AI environment and print its folder; the set-up calls this."""
    try:
        print(build_ai_environment(report=lambda line: print(line, file=sys.stderr, flush=True)))
    except MingaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
