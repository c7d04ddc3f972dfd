"""Small questions to the kernel about processes, for the supervisor. Rule: light imports only."""

from __future__ import annotations

import os
import signal

from minga.runtimes import launch

INIT, FIRST = 1, 2
"""What a pid namespace calls its first process (bwrap's own) and its second (the task's command)."""


def inner_number(pid: int) -> int:
    """What the innermost pid namespace of a process calls it; `INIT` for one that is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return int(next(line for line in file if line.startswith("NSpid:")).split()[-1])
    except (OSError, StopIteration):
        return INIT


def children() -> list[int]:
    """Our own children, living or not."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_group(leader: int, uid: int | None) -> None:
    """Kill a plain task: all that its uid owns, or its process group where it has no uid of its own."""
    if uid is None:
        try:
            os.killpg(leader, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return
    killer = os.fork()
    if killer == 0:
        try:
            launch.drop_to(uid, [])
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(killer, 0)
