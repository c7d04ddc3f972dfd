"""What every driver promises, tried on each: bubblewrap, a plain process, and the fake of the simulator.

A test says what the task does by name (`Deed`); each driver has its own way to do it. Limits are tried on the drivers
that claim them in `enforces`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import SystemClock
from minga.core.errors import Conflict, InvalidInput, LimitNotEnforceable, NotFound, TooLarge, UnsafePath
from minga.runtimes.bubblewrap import BubblewrapRuntime, prerequisites
from minga.runtimes.fake import End, FakeRuntime, Say, Script, Work, Write
from minga.runtimes.process import ProcessRuntime
from minga.runtimes.runtime import Environment, Handle, Input, Limits, Runtime, Task

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

MIB = 1 << 20
FULL = Limits(cpus_milli=2000, memory_bytes=128 * MIB, disk_bytes=16 * MIB, pids=64)

SHELL = {
    "greet": "echo hello; echo again >&2",
    "end 3": "exit 3",
    "crash": "kill -SEGV $$",
    "hang": "echo ready; exec sleep 1000",
    "ignore term": "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    "write": "mkdir -p out/deep; printf data > out/deep/a.txt; printf b > b.txt",
    "tick": "while :; do echo tick; sleep 0.05; done",
    "flood": "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last words",
    "hog": "exec tail /dev/zero",
    "fill": "exec head -c 32M /dev/zero > /job/big",
}

SCRIPTS = {
    "greet": Script((Say(b"hello\n"), Say(b"again\n"))),
    "end 3": Script((End(3),)),
    "crash": Script((End(139),)),
    "hang": Script((Say(b"ready\n"), Work(1000))),
    "ignore term": Script((Say(b"ready\n"), Work(1000)), ignores_term=True),
    "write": Script((Write("out/deep/a.txt", b"data"), Write("b.txt", b"b"))),
    "tick": Script(tuple(step for _ in range(1000) for step in (Say(b"tick\n"), Work(0.05)))),
    "flood": Script((Say(b"x" * 1_000_000), Say(b"\nlast words\n"))),
    "hog": Script((Work(1, memory_bytes=1 << 40),)),
    "fill": Script((Write("big", bytes(32 * MIB)),)),
}


class Subject:
    """One driver under test, with a way to make tasks and to come back after the agent's death."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._fake = FakeRuntime(SystemClock(), lambda task: SCRIPTS[task.argv[0]])

    def runtime(self) -> Runtime:
        """The driver, as a new agent makes it."""
        if self.name == "fake":
            return self._fake
        state = self._folder / "tasks"
        return BubblewrapRuntime(state) if self.name == "bubblewrap" else ProcessRuntime(state)

    def task(self, deed: str, task_id: str = "t", limits: Limits = FULL) -> Task:
        """A task that does `deed`, under those of `limits` that the driver claims."""
        argv = (deed,) if self.name == "fake" else ("sh", "-c", SHELL[deed])
        return Task(task_id, argv, Environment("system"), limits.only(self.runtime().enforces))

    async def start(self, deed: str, task_id: str = "t", limits: Limits = FULL) -> Handle:
        """Start `deed`."""
        return await self.runtime().start(self.task(deed, task_id, limits))

    def needs(self, *limits: str) -> None:
        """Leave the test where the driver does not claim a limit."""
        if missing := set(limits) - self.runtime().enforces:
            pytest.skip(f"{self.name} does not claim {', '.join(sorted(missing))}")


@pytest.fixture(params=["bubblewrap", "process", "fake"])
async def subject(request: pytest.FixtureRequest, folder: Path):
    """Each driver that can run here; whatever a test left is removed."""
    if request.param == "bubblewrap" and (missing := [fact for fact in prerequisites() if not fact.ok]):
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    subject = Subject(request.param, folder)
    yield subject
    for task_id in await subject.runtime().known():
        handle = await subject.runtime().adopt(task_id)
        if handle is not None:
            await handle.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own is root's alone."""
    path = Path(tempfile.mkdtemp(prefix="minga-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def read_all(handle: Handle) -> bytes:
    """The whole log, once the task has ended."""
    return b"".join([chunk.data async for chunk in handle.follow_log()])


async def until(handle: Handle, text: bytes) -> int:
    """Wait until the log holds `text`; the offset after it."""
    seen = b""
    async for chunk in handle.follow_log():
        seen += chunk.data
        if text in seen:
            return seen.index(text) + len(text)
    raise AssertionError(f"the task ended without {text!r}: {seen!r}")


# ------------------------------------------------------------------------------------------------------- the ending


async def test_it_says_what_it_needs_and_has(subject: Subject) -> None:
    facts = await subject.runtime().check()
    assert facts
    assert all(fact.ok for fact in facts), facts
    assert await subject.runtime().known() == ()


async def test_a_task_runs_and_its_output_comes_in_order(subject: Subject) -> None:
    handle = await subject.start("greet")
    end = await handle.wait()
    assert (end.code, end.reason, end.signal) == (0, "exited", None)
    assert await read_all(handle) == b"hello\nagain\n"


async def test_its_own_code_is_its_end(subject: Subject) -> None:
    end = await (await subject.start("end 3")).wait()
    assert (end.code, end.reason) == (3, "exited")


async def test_its_own_signal_is_its_end(subject: Subject) -> None:
    end = await (await subject.start("crash")).wait()
    assert (end.code, end.reason, end.signal) == (139, "exited", 11)


async def test_everybody_may_wait_also_afterwards(subject: Subject) -> None:
    handle = await subject.start("greet")
    first = await handle.wait()
    assert await handle.wait() == first


async def test_stop_asks_first(subject: Subject) -> None:
    handle = await subject.start("hang")
    await until(handle, b"ready")
    await handle.stop(grace_seconds=30)
    await handle.stop(grace_seconds=30)
    end = await handle.wait()
    assert (end.code, end.reason, end.signal) == (143, "stopped", 15)


async def test_stop_kills_after_the_grace(subject: Subject) -> None:
    handle = await subject.start("ignore term")
    await until(handle, b"ready")
    await handle.stop(grace_seconds=1)
    end = await handle.wait()
    assert (end.code, end.reason) == (137, "stopped")
    assert end.usage.wall_usec >= 1_000_000


async def test_a_second_stop_only_brings_the_end_forward(subject: Subject) -> None:
    handle = await subject.start("ignore term")
    await until(handle, b"ready")
    await handle.stop(grace_seconds=3600)
    await handle.stop(grace_seconds=1)
    await handle.stop(grace_seconds=3600)
    end = await handle.wait()
    assert (end.code, end.reason) == (137, "stopped")


async def test_kill_does_not_ask(subject: Subject) -> None:
    handle = await subject.start("ignore term")
    await until(handle, b"ready")
    await handle.kill()
    await handle.kill()
    end = await handle.wait()
    assert (end.code, end.reason, end.signal) == (137, "killed", 9)


async def test_nothing_changes_an_end(subject: Subject) -> None:
    handle = await subject.start("end 3")
    end = await handle.wait()
    handle.beat()
    await handle.stop(0)
    await handle.kill()
    await handle.pause()
    await handle.resume()
    assert await handle.wait() == end


async def test_the_clock_ends_it(subject: Subject) -> None:
    handle = await subject.start("hang", limits=replace(FULL, wall_seconds=1))
    end = await handle.wait()
    assert (end.code, end.reason) == (137, "timeout")
    assert end.usage.wall_usec >= 1_000_000


async def test_it_lives_while_the_agent_beats_and_no_longer(subject: Subject) -> None:
    handle = await subject.start("tick", limits=replace(FULL, heartbeat_seconds=1))
    ticks = 0
    async for chunk in handle.follow_log():
        ticks += chunk.data.count(b"tick")
        if ticks < 40:
            handle.beat()
    end = await handle.wait()
    assert end.reason == "abandoned"
    assert end.usage.wall_usec >= 2_000_000, "it outlived two heartbeats, thanks to the beats"


# -------------------------------------------------------------------------------------------------- while it runs


async def test_a_paused_task_stands_still(subject: Subject) -> None:
    handle = await subject.start("tick")
    await until(handle, b"tick\ntick\n")
    await handle.pause()
    await handle.pause()
    # Two other tasks run from start to end: time in which a task that runs would tick.
    await (await subject.start("greet", "other-1")).wait()
    before = (await handle.usage()).log_bytes
    await (await subject.start("greet", "other-2")).wait()
    assert (await handle.usage()).log_bytes == before
    await handle.resume()
    async for _ in handle.follow_log(before):
        break
    assert (await handle.usage()).log_bytes > before


async def test_a_paused_task_can_be_stopped_and_killed(subject: Subject) -> None:
    for task_id, end_it in (("a", lambda handle: handle.stop(30)), ("b", lambda handle: handle.kill())):
        handle = await subject.start("hang", task_id)
        await until(handle, b"ready")
        await handle.pause()
        await end_it(handle)
        assert (await handle.wait()).reason in ("stopped", "killed")


async def test_the_log_is_read_from_any_offset(subject: Subject) -> None:
    handle = await subject.start("greet")
    await handle.wait()
    chunk = await handle.read_log(6, 3)
    assert (chunk.offset, chunk.data, chunk.next_offset, chunk.dropped_bytes) == (6, b"aga", 9, 0)
    assert (await handle.read_log(12)).data == b""
    assert (await handle.read_log(10**9)).data == b""
    for offset, limit in ((-1, 1), (0, 0)):
        with pytest.raises(InvalidInput):
            await handle.read_log(offset, limit)


async def test_a_log_over_its_cap_keeps_its_end_and_counts_the_rest(subject: Subject) -> None:
    handle = await subject.start("flood", limits=replace(FULL, log_bytes=80_000))
    end = await handle.wait()
    chunks = [chunk async for chunk in handle.follow_log()]
    kept = sum(len(chunk.data) for chunk in chunks)
    assert chunks[-1].data.endswith(b"\nlast words\n")
    assert kept <= 80_000
    assert kept + sum(chunk.dropped_bytes for chunk in chunks) == 1_000_012 == end.usage.log_bytes
    assert end.usage.log_dropped_bytes == 1_000_012 - kept


async def test_usage_is_told_during_and_after(subject: Subject) -> None:
    handle = await subject.start("tick")
    await until(handle, b"tick\n")
    during = await handle.usage()
    assert during.wall_usec > 0
    assert during.log_bytes >= 5
    await handle.kill()
    end = await handle.wait()
    assert end.usage.wall_usec >= during.wall_usec
    assert await handle.usage() == end.usage


# ----------------------------------------------------------------------------------------------------- what it left


async def test_outputs_are_listed_and_read(subject: Subject) -> None:
    handle = await subject.start("write")
    assert (await handle.wait()).code == 0
    assert [(file.path, file.size) for file in await handle.list_outputs()] == [("b.txt", 1), ("out/deep/a.txt", 4)]
    with await handle.open_output("out/deep/a.txt") as file:
        assert file.read() == b"data"
    with pytest.raises(NotFound):
        await handle.open_output("out/none")
    for path in ("../escape", "/etc/passwd", "out/../b.txt", ""):
        with pytest.raises(UnsafePath):
            await handle.open_output(path)
    with pytest.raises(TooLarge):
        await handle.list_outputs(count_max=1)
    with pytest.raises(TooLarge):
        await handle.list_outputs(bytes_max=3)


async def test_inputs_are_there_first(subject: Subject, folder: Path) -> None:
    (folder / "x.txt").write_bytes(b"input")
    task = replace(subject.task("greet"), inputs=(Input(folder / "x.txt", "in/x.txt"),))
    handle = await subject.runtime().start(task)
    await handle.wait()
    with await handle.open_output("in/x.txt") as file:
        assert file.read() == b"input"


async def test_a_port_that_was_not_asked_for_is_not_there(subject: Subject) -> None:
    handle = await subject.start("greet")
    with pytest.raises(NotFound):
        handle.port_socket(8000)


# ------------------------------------------------------------------------------------------------------ the agent


async def test_a_new_agent_finds_the_running_task(subject: Subject) -> None:
    first = await subject.start("hang")
    await until(first, b"ready")
    assert await subject.runtime().known() == ("t",)
    handle = await subject.runtime().adopt("t")
    assert handle is not None
    await handle.stop(30)
    assert (await handle.wait()).reason == "stopped"
    assert await read_all(handle) == b"ready\n"


async def test_a_new_agent_finds_the_ended_task(subject: Subject) -> None:
    end = await (await subject.start("end 3")).wait()
    handle = await subject.runtime().adopt("t")
    assert handle is not None
    assert await handle.wait() == end


async def test_nobody_adopts_what_is_not_there(subject: Subject) -> None:
    assert await subject.runtime().adopt("nobody") is None


async def test_a_known_id_is_not_started_again(subject: Subject) -> None:
    first = await subject.start("hang")
    with pytest.raises(Conflict):
        await subject.start("greet")
    await first.kill()
    assert (await first.wait()).reason == "killed"


async def test_removal_ends_and_forgets(subject: Subject) -> None:
    handle = await subject.start("ignore term")
    await handle.remove()
    await handle.remove()
    assert await subject.runtime().known() == ()
    again = await subject.start("end 3")
    assert (await again.wait()).code == 3


# ------------------------------------------------------------------------------------------------------- the limits


async def test_what_cannot_be_held_is_refused_and_leaves_nothing(subject: Subject) -> None:
    every = Limits(1000, 64 * MIB, 16 * MIB, 16, gpus=("nvidia.com/gpu=99",))
    with pytest.raises(LimitNotEnforceable):
        await subject.runtime().start(replace(subject.task("greet"), limits=every))
    assert await subject.runtime().known() == ()


async def test_memory_is_held(subject: Subject) -> None:
    subject.needs("memory_bytes")
    end = await (await subject.start("hog")).wait()
    assert (end.code, end.reason) == (137, "oom")


async def test_disk_is_held(subject: Subject) -> None:
    subject.needs("disk_bytes")
    handle = await subject.start("fill")
    end = await handle.wait()
    assert (end.code, end.reason) == (1, "exited")
    assert b"No space left on device" in await read_all(handle)
    assert end.usage.disk_bytes <= 16 * MIB


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "../x"},
        {"task_id": ""},
        {"argv": ()},
        {"argv": ("a\0b",)},
        {"env": {"A=B": "c"}},
        {"cwd": "work"},
        {"cwd": "/job/../etc"},
        {"ports": (0,)},
        {"ports": (80, 80)},
    ],
    ids=str,
)
async def test_a_bad_task_is_refused_where_it_is_made(change: dict[str, object]) -> None:
    good = Task("t", ("true",), Environment("system"), Limits())
    with pytest.raises(InvalidInput):
        replace(good, **change)


@pytest.mark.parametrize("name", ["cpus_milli", "memory_bytes", "disk_bytes", "pids", "wall_seconds", "log_bytes"])
async def test_a_limit_is_positive(name: str) -> None:
    for value in (0, -1, 1 << 63):
        with pytest.raises(InvalidInput):
            Limits(**{name: value})


async def test_as_root_no_task_is_root(subject: Subject) -> None:
    if subject.name == "fake" or os.geteuid() != 0:
        pytest.skip("needs real processes, and root")
    task = replace(subject.task("greet"), argv=("id", "-u"))
    handle = await subject.runtime().start(task)
    await handle.wait()
    assert int(await read_all(handle)) >= 64001
