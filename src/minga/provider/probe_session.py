"""One probe: a worker in a sandbox, spoken to over one port.

Knows: the runtime's tasks and ports, the worker's one JSON object a line. Does not know: leases or tenants. Rule: the
sandbox is removed on every way out.
"""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from minga.core.effects import Clock, Dice
from minga.core.errors import InvalidInput, SandboxFailed
from minga.core.spec import UnitSize
from minga.protocol.wire import ProbeAnswer, ProbeRequest
from minga.runtimes.launcher import environment_at
from minga.runtimes.runtime import Handle, Input, Limits, Runtime, Task
from minga.verify import hardware as hw

SOURCES = ("hardware_math.py", "hardware_engines.py", "hardware_torch.py", "hardware_worker.py")
PREFIX = "probe-"
PLACE = ".probe"
START_SECONDS = 15.0
ANSWER_SECONDS = 15.0
ANSWER_BYTES_MAX = 6 << 20
DISK_BYTES_MAX = 1 << 30
HEARTBEAT_SECONDS = 60
PORT_FIRST, PORTS, PORT_TRIES = 20_000, 12_000, 4
"""Below the ports that systems hand out by themselves."""
TAKEN = 75
"""The worker's exit code when its port is taken."""
_POLL_SECONDS = 0.01
_PIDS = 128


class Session:
    """A worker with the limits of `units` units. `open`, any number of `ask`, `close`."""

    def __init__(
        self,
        runtime: Runtime,
        unit: UnitSize,
        units: int,
        environment: Path,
        folder: Path,
        clock: Clock,
        dice: Dice,
        *,
        gpus: tuple[str, ...] = (),
        memory: int | None = None,
    ) -> None:
        """For `units` units in `environment`; `folder` keeps the worker's source; `memory` bytes, or what was sold."""
        self._runtime = runtime
        self._clock = clock
        self._folder = folder
        self._dice = dice
        self._port = 0
        self._lock = anyio.Lock()
        self._handle: Handle | None = None
        self._stream: anyio.abc.SocketStream | None = None
        self._lines: BufferedByteReceiveStream | None = None
        self.is_over = False
        self.requests = 0
        limits = Limits(
            cpus_milli=unit.cpu_milli * units,
            memory_bytes=memory or unit.memory_bytes * units,
            disk_bytes=min(unit.disk_bytes * units, DISK_BYTES_MAX),
            pids=_PIDS,
            wall_seconds=120,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            gpus=gpus,
        ).only(runtime.enforces)
        self._environment, self._limits = environment_at(environment), limits
        self._words = (str(hw.threads_of(unit, units)), str(unit.gpus * units))

    def _task(self) -> Task:
        """A worker on another port: plain processes share theirs with the whole machine."""
        self._port = PORT_FIRST + int.from_bytes(self._dice.bytes(4), "little") % PORTS
        name = PREFIX + self._dice.bytes(6).hex()
        return Task(
            task_id=name,
            argv=("python3", "-B", f"{PLACE}/{SOURCES[-1]}", str(self._port), *self._words, name),
            environment=self._environment,
            limits=self._limits,
            inputs=(Input(self._folder, PLACE),),
            ports=(self._port,),
        )

    async def open(self) -> None:
        """Start the worker, and wait until it listens.

        Raises:
            LimitNotEnforceable: the runtime has no ports, or cannot hold a limit.
            SandboxFailed: it ended, or did not listen in time.
        """
        async with self._lock:
            if self._lines is not None:
                return
            try:
                await anyio.to_thread.run_sync(write_sources, self._folder)
                with anyio.fail_after(START_SECONDS):
                    for _ in range(PORT_TRIES):
                        task = self._task()
                        self._handle = await self._runtime.start(task)
                        reached = not self.is_over and await self._connect(self._handle, task.task_id)
                        if self.is_over:
                            raise SandboxFailed("the probe was ended before it began", "begin another")
                        if reached:
                            return
                        await self._handle.remove()
                    raise SandboxFailed(f"{PORT_TRIES} ports for the probe were all taken", "try again")
            except TimeoutError:
                await self._discard()
                raise SandboxFailed("the probe's worker did not listen in time", "see that python3 runs") from None
            except BaseException:
                await self._discard()
                raise

    async def _connect(self, handle: Handle, name: str) -> bool:
        """Whether the worker was reached; not so when its port belongs to somebody else."""
        path = str(handle.port_socket(self._port))
        while True:
            with suppress(OSError, anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                stream = await anyio.connect_unix(path)
                lines = BufferedByteReceiveStream(stream)
                await stream.send(_line(ProbeRequest(kind="start", what="ready", seed="0x" + "00" * 32)))
                answer = await lines.receive_until(b"\n", ANSWER_BYTES_MAX)
                if f'"{name}"'.encode() not in answer:
                    await anyio.aclose_forcefully(stream)
                    return False
                self._stream, self._lines = stream, lines
                return True
            with anyio.move_on_after(_POLL_SECONDS):
                end = await handle.wait()
                if end.code == TAKEN:
                    return False
                log = (await handle.read_log(0, 2000)).data.decode(errors="replace").strip()
                raise SandboxFailed(f"the probe's worker ended: {end.reason} {end.code} {log[-200:]}", "see its words")

    async def ask(self, request: ProbeRequest) -> ProbeAnswer:
        """Pose one challenge; one after the other.

        Raises:
            SandboxFailed: no answer in time, or it was none.
        """
        async with self._lock:
            self.requests += 1
            if self._stream is None or self._lines is None:
                raise SandboxFailed("the probe has ended", "begin another")
            try:
                with anyio.fail_after(ANSWER_SECONDS):
                    await self._stream.send(_line(request))
                    answer = json.loads(await self._lines.receive_until(b"\n", ANSWER_BYTES_MAX))
            except (TimeoutError, OSError, ValueError, anyio.EndOfStream, anyio.IncompleteRead,
                    anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.ClosedResourceError):  # fmt: skip
                await self._discard()
                raise SandboxFailed("the probe's worker did not answer", "begin another") from None
        if not isinstance(answer, dict):
            raise SandboxFailed("the probe's worker answered nonsense", "begin another")
        if "error" in answer:
            raise SandboxFailed(f"the probe's worker could not: {answer['error']}"[:300], "ask for less")
        answer.pop("name", None)
        try:
            return ProbeAnswer.parse(answer)
        except InvalidInput as error:
            raise SandboxFailed(f"the probe's worker answered nonsense: {error.fact}"[:300], "begin another") from None

    async def close(self) -> None:
        """Remove the sandbox; idempotent. A challenge or a start that is under way fails."""
        self.is_over = True
        with anyio.CancelScope(shield=True):
            if self._handle is not None:
                await self._handle.kill()
            async with self._lock:
                await self._discard()

    async def _discard(self) -> None:
        """Remove the sandbox, also when cancelled; whoever calls holds the lock."""
        self.is_over = True
        stream, handle = self._stream, self._handle
        self._stream = self._lines = self._handle = None
        with anyio.CancelScope(shield=True):
            if stream is not None:
                await anyio.aclose_forcefully(stream)
            if handle is not None:
                await handle.remove()


_writing = threading.Lock()


def write_sources(folder: Path) -> None:
    """The worker's files in `folder`, as this version of Minga has them. Blocking; one thread at a time."""
    with _writing:
        folder.mkdir(parents=True, exist_ok=True)
        for name in SOURCES:
            text = files("minga.verify").joinpath(name).read_text(encoding="utf-8")
            if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text:
                (folder / f"{name}.new").write_text(text, encoding="utf-8")
                (folder / f"{name}.new").replace(folder / name)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)


async def sweep(runtime: Runtime) -> None:
    """Remove the workers that an agent which is gone left behind."""
    for name in await runtime.known():
        if name.startswith(PREFIX) and (handle := await runtime.adopt(name)) is not None:
            await handle.remove()


def _line(request: ProbeRequest) -> bytes:
    return request.canonical() + b"\n"
