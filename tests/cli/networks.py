"""A network of this machine under a home of its own, driven by the command line as its users drive it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended

UP = ("up", "--providers", "2", "--driver", "process", "--quantum", "2s")


class Net:
    """A home folder and the words that act on it."""

    def __init__(self, home: Path, cwd: Path, environment: Path) -> None:
        self.home = home
        self.cwd = cwd
        self.environment = environment

    def up(self, *words: str) -> Ended:
        return self(*UP, "--environment", f"python={self.environment}", *words)

    def popen(self, *words: str, extra: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
        return subprocess.Popen(
            [sys.executable, "-m", "minga", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.cwd,
            env={**env, "MINGA_HOME": str(self.home), "COLUMNS": "80", **(extra or {})}, **more,
        )  # fmt: skip

    def __call__(self, *words: str) -> Ended:
        process = self.popen(*words)
        try:
            out, err = process.communicate(timeout=90)
        finally:
            process.kill()
        return Ended(process.returncode, out, err)

    def json(self, *words: str) -> Any:
        at = words.index("--") if "--" in words else len(words)
        ended = self(*words[:at], "--json", *words[at:])
        assert ended.code == 0, ended
        return json.loads(ended.out)

    def processes(self) -> dict[str, dict[str, Any]]:
        return {item["name"]: item for item in self.json("status")["processes"]}

    def run(self, *words: str) -> Any:
        return self.json("run", "--budget", "0.05", "--no-workdir", *words)


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `holds()`, or fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the deadline passed"
        time.sleep(0.05)  # between two looks at a condition, with a deadline


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, jobs_python: Path) -> Iterator[Net]:
    """A chain, a board and two providers, each a process, for one module of tests; both offer."""
    folder = tmp_path_factory.mktemp("net")
    made = Net(folder / "home", folder, jobs_python)
    ended = made.up()
    try:
        assert ended.code == 0, ended
        eventually(lambda: len(made.json("offers")) == 2)
        yield made
    finally:
        assert made("down").code == 0
