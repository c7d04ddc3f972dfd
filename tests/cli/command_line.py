"""One way to run the command line in tests: as its users do, in a process, with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Minga = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home folder."""
    return tmp_path / "home"


@pytest.fixture(scope="session")
def jobs_python() -> Iterator[Path]:
    """A bare Python environment for jobs, where the users that jobs run as may enter (pytest's folders are ours)."""
    with tempfile.TemporaryDirectory(prefix="minga-test-python-") as folder:
        Path(folder).chmod(0o755)
        venv.create(Path(folder) / "python", with_pip=False)
        yield Path(folder) / "python"


@pytest.fixture
def minga(home: Path, tmp_path: Path) -> Minga:
    """Run `minga WORDS…` with an empty home and return how it ended."""

    def run(*words: str, stdin: str = "", env: dict[str, str] | None = None, cwd: Path = tmp_path) -> Ended:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
        done = subprocess.run(
            [sys.executable, "-m", "minga", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**clean, "MINGA_HOME": str(home), "COLUMNS": "80", **(env or {})},
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def one_error(ended: Ended, code: str, exit_code: int) -> None:
    """Exactly one error: its code, a fact, a remedy, the exit code, nothing on stdout and no traceback."""
    assert ended.code == exit_code, ended
    assert ended.err.count(f"{code}: ") == 1, ended
    assert ended.err.count("  → ") == 1, ended
    assert "Traceback" not in ended.err + ended.out
    assert ended.out == ""
