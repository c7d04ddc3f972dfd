"""What the tests of the drivers share: a sandbox driver on a fresh folder, emptied afterwards."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minga.runtimes.bubblewrap import BubblewrapRuntime, prerequisites
from minga.runtimes.runtime import Environment, Handle, Limits, Task

MIB = 1 << 20
LIMITS = Limits(cpus_milli=2000, memory_bytes=256 * MIB, disk_bytes=32 * MIB, pids=64, wall_seconds=60)

Run = Callable[..., Awaitable[Handle]]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[BubblewrapRuntime]:
    """The sandbox driver; whatever a test left is removed."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    runtime = BubblewrapRuntime(tmp_path / "tasks")
    yield runtime
    for task_id in await runtime.known():
        if (handle := await runtime.adopt(task_id)) is not None:
            await handle.remove()


@pytest.fixture
def run(sandbox: BubblewrapRuntime) -> Run:
    """`await run("shell script", limits={...}, **fields of Task)` starts a task and gives its handle."""

    async def start(script: str, task_id: str = "t", limits: dict[str, Any] | None = None, **fields: Any) -> Handle:
        environment = fields.pop("environment", Environment("system"))
        argv = ("sh", "-c", script)
        return await sandbox.start(Task(task_id, argv, environment, replace(LIMITS, **(limits or {})), **fields))

    return start


async def text_of(handle: Handle) -> str:
    """The whole log, once the task has ended."""
    return b"".join([chunk.data async for chunk in handle.follow_log()]).decode(errors="replace")


def living(uid: int) -> list[int]:
    """Processes of a uid that can still run; the dead that nobody has taken in do not count."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                with open(f"/proc/{pid}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] not in "ZX":
                        found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
