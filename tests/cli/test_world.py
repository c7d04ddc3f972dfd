"""The real world: clock, dice, stop signals, kill points."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio

from minga.cli.world import RealClock, RealDice, run_until_signal

FAULTY = """
import os
from minga.cli.world import install_faults
from minga.core import faults
faults.declare({"test.a": "first", "test.b": "second"})
install_faults()
faults.reach("test.a"); print("passed a", flush=True)
faults.reach("test.b"); print("passed b", flush=True)
"""


def run(env: dict[str, str]) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTY], capture_output=True, text=True, env={**clean, **env}, check=False
    )
    return done.returncode, done.stdout


def test_a_named_point_kills_as_kill_9_does() -> None:
    assert run({}) == (0, "passed a\npassed b\n")
    assert run({"MINGA_FAULT": "test.b"}) == (-signal.SIGKILL, "passed a\n")


def test_a_mark_makes_it_once(tmp_path: Path) -> None:
    env = {"MINGA_FAULT": "test.a", "MINGA_FAULT_MARK": str(tmp_path / "mark")}
    assert run(env) == (-signal.SIGKILL, "")
    assert run(env) == (0, "passed a\npassed b\n")


def test_clock_and_dice_are_real() -> None:
    clock, dice = RealClock(), RealDice()
    assert clock.now() > 1_700_000_000
    before = clock.monotonic()
    anyio.run(clock.sleep, 0.01)
    assert clock.monotonic() - before >= 0.01
    assert len(dice.bytes(32)) == 32
    assert dice.bytes(32) != dice.bytes(32)


def test_sigterm_stops_softly_and_the_second_one_hard() -> None:
    seen: list[str] = []

    async def soft(stop: anyio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        seen.append("soft")

    async def stubborn(stop: anyio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await anyio.sleep(30)
        finally:
            seen.append("hard")

    anyio.run(run_until_signal, soft)
    anyio.run(run_until_signal, stubborn)
    assert seen == ["soft", "hard"]
