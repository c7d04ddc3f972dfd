"""The driver of simulations: tasks that play a script in memory, on a clock that is given.

It knows no process, file or real time, and promises what the real drivers promise: it passes the same conformance
kit. Rule: nothing happens but by the script, the handle and the clock.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from minga.core.effects import Clock
from minga.core.errors import Conflict, InvalidInput, LimitNotEnforceable, NotFound, TooLarge, UnsafePath
from minga.runtimes.runtime import (
    LOG_CHUNK_BYTES,
    OUTPUT_BYTES_MAX,
    OUTPUT_COUNT_MAX,
    Exit,
    Fact,
    Handle,
    LogChunk,
    OutputFile,
    Reason,
    Task,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Say:
    """Write to the log."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """Write a file under /job; over `disk_bytes` the task says so and ends with code 1."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Work:
    """Work for `seconds`, holding `memory_bytes`; over the limit the task is killed for it."""

    seconds: float
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """End with a code. A script without it ends with 0."""

    code: int


@dataclass(frozen=True, slots=True)
class Script:
    """What a task does, step by step; `ignores_term`: it does not end on SIGTERM."""

    steps: tuple[Say | Write | Work | End, ...]
    ignores_term: bool = False


class FakeRuntime:
    """Tasks that play `script_of(task)` on `clock`. See `Runtime`. Ports and egress are refused."""

    name = "fake"
    sandboxed = True

    def __init__(self, clock: Clock, script_of: Callable[[Task], Script]) -> None:
        self._clock = clock
        self._script_of = script_of
        self._tasks: dict[str, FakeHandle] = {}

    @property
    def enforces(self) -> frozenset[str]:
        """See `Runtime.enforces`."""
        return frozenset(
            ("cpus_milli", "memory_bytes", "disk_bytes", "pids", "wall_seconds", "log_bytes", "heartbeat_seconds")
        )

    async def check(self) -> tuple[Fact, ...]:
        """See `Runtime.check`."""
        return (Fact("fake", True, "scripts in memory"),)

    async def start(self, task: Task) -> Handle:
        """See `Runtime.start`."""
        if over := sorted(task.limits.asked() - self.enforces):
            raise LimitNotEnforceable(f"a script cannot hold {', '.join(over)}", "ask without")
        if task.ports or task.egress is not None:
            raise LimitNotEnforceable("a script has no network", "ask without")
        if task.task_id in self._tasks:
            raise Conflict(f"task {task.task_id} is known here already", "adopt it, or use a new id")
        files = {item.target: item.source.read_bytes() for item in task.inputs}
        handle = FakeHandle(task, self._script_of(task), self._clock, files, self._tasks)
        self._tasks[task.task_id] = handle
        handle.play()
        return handle

    async def adopt(self, task_id: str) -> Handle | None:
        """See `Runtime.adopt`."""
        return self._tasks.get(task_id)

    async def known(self) -> tuple[str, ...]:
        """See `Runtime.known`."""
        return tuple(sorted(self._tasks))


@dataclass(eq=False)
class FakeHandle:
    """A `Handle` on a script."""

    _task: Task
    _script: Script
    _clock: Clock
    _files: dict[str, bytes]
    _registry: dict[str, FakeHandle]
    _log: bytearray = field(default_factory=bytearray)
    _total: int = 0
    _cpu: float = 0.0
    _peak: int = 0
    _exit: Exit | None = None
    _jobs: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.task_id = self._task.task_id
        self._ended, self._running, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._running.set()
        self._started = self._beaten = self._clock.monotonic()

    def play(self) -> None:
        """Start the script and its watch."""
        self._spawn(self._play())
        limits = self._task.limits
        if limits.wall_seconds is not None:
            self._spawn(self._end_after(limits.wall_seconds, "timeout"))
        if limits.heartbeat_seconds is not None:
            self._spawn(self._end_when_silent(limits.heartbeat_seconds))

    async def wait(self) -> Exit:
        """See `Handle.wait`."""
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    async def stop(self, grace_seconds: int = 10) -> None:
        """See `Handle.stop`."""
        if self._exit is not None:
            return
        if self._script.ignores_term:
            self._running.set()
            self._spawn(self._end_after(grace_seconds, "stopped"))
        else:
            self._finish(143, "stopped", 15)

    async def kill(self) -> None:
        """See `Handle.kill`."""
        self._finish(137, "killed", 9)

    def beat(self) -> None:
        """See `Handle.beat`."""
        self._beaten = self._clock.monotonic()

    async def pause(self) -> None:
        """See `Handle.pause`."""
        self._running.clear()

    async def resume(self) -> None:
        """See `Handle.resume`."""
        self._running.set()

    async def usage(self) -> Usage:
        """See `Handle.usage`."""
        return self._exit.usage if self._exit else self._usage()

    async def read_log(self, offset: int, limit: int = LOG_CHUNK_BYTES) -> LogChunk:
        """See `Handle.read_log`; the end of the log is kept, what is before it dropped."""
        if offset < 0 or limit <= 0:
            raise InvalidInput(f"log offset {offset}, limit {limit}", "use an offset from 0 and a limit from 1")
        first = self._total - len(self._log)
        start = min(max(offset, first), max(offset, self._total))
        data = bytes(self._log[max(0, start - first) : max(0, start - first) + limit])
        return LogChunk(start, data, start - offset) if data else LogChunk(offset, b"", 0)

    async def follow_log(self, offset: int = 0) -> AsyncIterator[LogChunk]:
        """See `Handle.follow_log`."""
        while True:
            ended = self._exit is not None
            self._news.clear()
            chunk = await self.read_log(offset)
            if chunk.data:
                yield chunk
                offset = chunk.next_offset
            elif ended:
                return
            else:
                await self._news.wait()

    async def list_outputs(
        self, count_max: int = OUTPUT_COUNT_MAX, bytes_max: int = OUTPUT_BYTES_MAX
    ) -> list[OutputFile]:
        """See `Handle.list_outputs`."""
        found = [OutputFile(path, len(data)) for path, data in sorted(self._files.items())]
        if len(found) > count_max or sum(file.size for file in found) > bytes_max:
            raise TooLarge(f"the task left more than {count_max} files or {bytes_max} bytes", "leave fewer")
        return found

    async def open_output(self, path: str) -> BinaryIO:
        """See `Handle.open_output`."""
        if any(name in ("", ".", "..") for name in path.split("/")):
            raise UnsafePath(f"{path!r} is not a path inside the folder", "write it relative, without . or ..")
        if path not in self._files:
            raise NotFound(f"there is no file {path!r}", "list the outputs first")
        return io.BytesIO(self._files[path])

    def port_socket(self, port: int) -> Path:
        """See `Handle.port_socket`."""
        raise NotFound(f"task {self.task_id} has no port {port}", "a script has none")

    async def remove(self) -> None:
        """See `Handle.remove`."""
        self._finish(137, "killed", 9)
        self._registry.pop(self.task_id, None)
        self._files.clear()
        self._log.clear()

    async def _play(self) -> None:
        for step in self._script.steps:
            await self._running.wait()
            if isinstance(step, End):
                self._finish(step.code, "exited", step.code - 128 if 128 < step.code <= 192 else None)
            elif isinstance(step, Say):
                self._say(step.data)
            elif isinstance(step, Write):
                self._write(step)
            else:
                await self._work(step)
            if self._exit is not None:
                return
        self._finish(0, "exited")

    async def _work(self, step: Work) -> None:
        self._peak = max(self._peak, step.memory_bytes)
        limit = self._task.limits.memory_bytes
        if limit is not None and step.memory_bytes > limit:
            self._finish(137, "oom", 9)
            return
        await self._clock.sleep(step.seconds)
        self._cpu += step.seconds

    def _write(self, step: Write) -> None:
        limit = self._task.limits.disk_bytes
        if limit is not None and self._usage().disk_bytes + len(step.data) > limit:
            self._say(b"No space left on device\n")
            self._finish(1, "exited")
        else:
            self._files[step.path] = step.data

    def _say(self, data: bytes) -> None:
        self._log += data
        self._total += len(data)
        del self._log[: max(0, len(self._log) - self._task.limits.log_bytes)]
        self._news.set()

    async def _end_after(self, seconds: float, reason: Reason) -> None:
        await self._clock.sleep(seconds)
        self._finish(137, reason, 9)

    async def _end_when_silent(self, seconds: float) -> None:
        while (silent := self._clock.monotonic() - self._beaten) < seconds:
            await self._clock.sleep(seconds - silent)
        self._finish(137, "abandoned", 9)

    def _usage(self) -> Usage:
        wall = int((self._clock.monotonic() - self._started) * 1e6)
        disk = sum(map(len, self._files.values()))
        return Usage(int(self._cpu * 1e6), self._peak, disk, wall, self._total, self._total - len(self._log))

    def _finish(self, code: int, reason: Reason, signal: int | None = None) -> None:
        if self._exit is not None:
            return
        self._exit = replace(Exit(code, reason, signal), usage=self._usage())
        self._ended.set()
        self._news.set()
        for job in self._jobs:
            if job is not asyncio.current_task():
                job.cancel()

    def _spawn(self, work: object) -> None:
        self._jobs.append(asyncio.ensure_future(work))  # type: ignore[call-overload]
