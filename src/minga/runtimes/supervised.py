"""What the drivers with real processes share: a state folder for each task, a supervisor in it, a handle on both.

It knows how a task is found again by an agent that was killed, not how its sandbox is made. The state folder:

| file         | written by           | says                                                               |
|--------------|----------------------|--------------------------------------------------------------------|
| task.json    | driver, before all   | what the task holds: uid, groups, disk kind, ports                 |
| lock         | held by supervisor   | locked for exactly as long as the supervisor lives                 |
| pid          | supervisor, first    | its process id; only believed while the lock is held               |
| control      | agent → supervisor   | commands (a FIFO)                                                  |
| log.*        | supervisor           | the task's output                                                  |
| exit.json    | supervisor, last     | how it ended                                                       |

Rule: the folder is the truth; a handle holds nothing that cannot be read from it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import anyio
import anyio.to_thread

import minga
from minga.core.errors import Conflict, InvalidInput, NotFound, SandboxFailed
from minga.runtimes import logfile, outputs, slots
from minga.runtimes.cgroups import Cgroup
from minga.runtimes.runtime import (
    LOG_CHUNK_BYTES,
    OUTPUT_BYTES_MAX,
    OUTPUT_COUNT_MAX,
    Exit,
    LogChunk,
    OutputFile,
    Reason,
    Task,
    Usage,
)
from minga.runtimes.scratch import Kind, Scratch
from minga.runtimes.supervisor import CONTROL, EXIT, PID, write

START_SECONDS_MAX = 30.0
FREEZE_SECONDS_MAX = 10.0
SOCKET_PATH_MAX = 107
_RECORD, _LOCK, _ERRORS = "task.json", "lock", "supervisor.err"
_LOG_PAUSE_MIN, _LOG_PAUSE_MAX = 0.01, 0.2


@dataclass(frozen=True)
class Record:
    """What a task holds on this machine. `started_ns` is CLOCK_MONOTONIC."""

    task_id: str
    uid: int | None
    owns_uid: bool
    cgroup: dict[str, Any] | None
    scratch: Kind
    ports: tuple[int, ...]
    started_ns: int


class Start:
    """One task on its way: what was taken is written down before it is used, and given back when a step fails."""

    def __init__(self, root: Path, task: Task, scratch: Kind) -> None:
        self.task = task
        self.state = root / task.task_id
        self.scratch = Scratch(self.state, scratch)
        self._record = Record(task.task_id, None, False, None, scratch, task.ports, time.monotonic_ns())
        self._supervisor: subprocess.Popen[bytes] | None = None

    def open(self, mode: int = 0o700) -> None:
        """Make the state folder. Raises Conflict when there is one."""
        if self.task.ports and len(str(_port_path(self.state, 65535))) > SOCKET_PATH_MAX:
            raise InvalidInput(f"{self.state} is too long for unix sockets", "keep the state in a shorter path")
        try:
            self.state.mkdir()
            self.state.chmod(mode)
        except FileExistsError:
            raise Conflict(f"task {self.task.task_id} is known here already", "adopt it, or use a new id") from None
        self._note()

    def claim_uid(self) -> int:
        """A real uid of the task's own. Raises OutOfCapacity."""
        uid = slots.claim(self.state)
        self._record = replace(self._record, uid=uid, owns_uid=True)
        self._note()
        return uid

    def note_cgroup(self, cgroup: Cgroup) -> None:
        """Remember the task's groups."""
        self._record = replace(self._record, cgroup={"version": cgroup.version, "paths": cgroup.paths})
        self._note()

    def launch_supervisor(self) -> None:
        """Start the supervisor; it waits for its plan, so that it starts while the rest is prepared."""
        os.mkfifo(self.state / CONTROL, 0o600)
        source = Path(minga.__file__).parents[1]
        code = f"import sys; sys.path.insert(0, {str(source)!r}); from minga.runtimes.supervisor import main; main()"
        lock = os.open(self.state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        errors = os.open(self.state / _ERRORS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", code, str(self.state), str(lock)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(lock,),
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        finally:
            os.close(lock)
            os.close(errors)

    def run(self, plan: dict[str, Any]) -> SupervisedHandle:
        """Give the supervisor its plan and wait until the task is started. Raises SandboxFailed."""
        supervisor = self._supervisor
        assert supervisor is not None
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        limits = self.task.limits
        self._record = replace(self._record, started_ns=time.monotonic_ns())
        self._note()
        plan |= {
            "started_ns": self._record.started_ns,
            "cgroup": self._record.cgroup,
            "log_bytes": limits.log_bytes,
            "wall_seconds": limits.wall_seconds,
            "heartbeat_seconds": limits.heartbeat_seconds,
            "relay": self._relay_plan(),
        }
        try:
            supervisor.stdin.write(json.dumps(plan).encode())
            supervisor.stdin.close()
        except BrokenPipeError:
            pass  # its answer, or the lack of one, says why
        ready, _, _ = select.select([supervisor.stdout], [], [], START_SECONDS_MAX)
        answer = supervisor.stdout.readline() if ready else b""
        supervisor.stdout.close()
        if not answer:
            found = (self.state / _ERRORS).read_text(errors="replace").strip().splitlines()
            raise SandboxFailed(f"the supervisor did not start: {found[-1] if found else 'no answer'}", "try again")
        if (error := json.loads(answer).get("error")) is not None:
            raise SandboxFailed(f"the sandbox could not be made: {error}", "see `minga doctor`")
        return SupervisedHandle(self.state, self._record, supervisor)

    def undo(self) -> None:
        """Give back everything; nothing of the task runs after this."""
        if self._supervisor is not None:
            for pipe in (self._supervisor.stdin, self._supervisor.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._supervisor.kill()
            self._supervisor.wait()
        _remove(self.state, self._record)

    def _relay_plan(self) -> dict[str, Any] | None:
        if self.task.egress is None and not self.task.ports:
            return None
        ports = {str(port): str(_port_path(self.state, port)) for port in self.task.ports}
        return {"egress": str(self.task.egress) if self.task.egress else None, "ports": ports}

    def _note(self) -> None:
        # Not forced to the disk: what a power cut forgets here, it also ended.
        write(str(self.state), _RECORD, json.dumps(asdict(self._record)).encode())


class SupervisedHandle:
    """A `Handle` on a state folder."""

    def __init__(self, state: Path, record: Record, supervisor: subprocess.Popen[bytes] | None = None) -> None:
        self.task_id = record.task_id
        self._state = state
        self._record = record
        self._supervisor = supervisor
        self._scratch = Scratch(state, record.scratch)
        self._cgroup = Cgroup(**record.cgroup) if record.cgroup else None

    @property
    def uid(self) -> int | None:
        """The real uid that the task runs under; None: the agent's own."""
        return self._record.uid

    async def wait(self) -> Exit:
        """See `Handle.wait`."""
        while is_alive(self._state):
            pid = _supervisor_pid(self._state)
            try:
                file = os.pidfd_open(pid or 0)
            except OSError:
                # Not yet written, or just gone while its last child still holds the lock.
                await anyio.sleep(_LOG_PAUSE_MIN)
                continue
            try:
                await anyio.wait_readable(file)
            finally:
                os.close(file)
            if self._supervisor is not None:
                self._supervisor.wait()
        return await anyio.to_thread.run_sync(self._exit)

    async def stop(self, grace_seconds: int = 10) -> None:
        """See `Handle.stop`."""
        self._command(f"stop {max(0, grace_seconds)}")

    async def kill(self) -> None:
        """See `Handle.kill`."""
        self._command("kill")

    def beat(self) -> None:
        """See `Handle.beat`."""
        self._command("beat")

    async def pause(self) -> None:
        """See `Handle.pause`."""
        await self._freeze(True)

    async def resume(self) -> None:
        """See `Handle.resume`."""
        await self._freeze(False)

    async def usage(self) -> Usage:
        """See `Handle.usage`."""
        return await anyio.to_thread.run_sync(self._usage)

    async def read_log(self, offset: int, limit: int = LOG_CHUNK_BYTES) -> LogChunk:
        """See `Handle.read_log`."""
        if offset < 0 or limit <= 0:
            raise InvalidInput(f"log offset {offset}, limit {limit}", "use an offset from 0 and a limit from 1")
        if not self._state.is_dir():
            return LogChunk(offset, b"", 0)
        return LogChunk(*await anyio.to_thread.run_sync(logfile.read, str(self._state), offset, limit))

    async def follow_log(self, offset: int = 0) -> AsyncIterator[LogChunk]:
        """See `Handle.follow_log`."""
        pause = _LOG_PAUSE_MIN
        while True:
            ended = not is_alive(self._state)
            chunk = await self.read_log(offset)
            if chunk.data:
                yield chunk
                offset, pause = chunk.next_offset, _LOG_PAUSE_MIN
            elif ended:
                return
            else:
                await anyio.sleep(pause)
                pause = min(pause * 1.5, _LOG_PAUSE_MAX)

    async def list_outputs(
        self, count_max: int = OUTPUT_COUNT_MAX, bytes_max: int = OUTPUT_BYTES_MAX
    ) -> list[OutputFile]:
        """See `Handle.list_outputs`."""

        def work() -> list[OutputFile]:
            self._scratch.attach()
            return outputs.list_files(self._scratch.work, count_max, bytes_max)

        return await anyio.to_thread.run_sync(work)

    async def open_output(self, path: str) -> BinaryIO:
        """See `Handle.open_output`."""

        def work() -> BinaryIO:
            self._scratch.attach()
            return outputs.open_beneath(self._scratch.work, path)

        return await anyio.to_thread.run_sync(work)

    def port_socket(self, port: int) -> Path:
        """See `Handle.port_socket`."""
        if port not in self._record.ports:
            raise NotFound(f"task {self.task_id} has no port {port}", f"its ports are {self._record.ports}")
        return _port_path(self._state, port)

    async def remove(self) -> None:
        """See `Handle.remove`."""
        if self._state.is_dir():
            await self.kill()
            await self.wait()
            await anyio.to_thread.run_sync(_remove, self._state, self._record)

    def _command(self, line: str) -> None:
        # Atomic, as it is shorter than PIPE_BUF. No reader: the task has ended. A full pipe: it is told enough.
        try:
            file = os.open(self._state / CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(file, f"{line}\n".encode())
        except OSError:
            pass
        finally:
            os.close(file)

    async def _freeze(self, on: bool) -> None:
        deadline = time.monotonic() + FREEZE_SECONDS_MAX
        while is_alive(self._state):
            try:
                done = self._set_frozen(on)
            except (FileNotFoundError, ProcessLookupError):
                return  # ended meanwhile
            if done:
                return
            if time.monotonic() > deadline:
                raise SandboxFailed(f"task {self.task_id} does not stand still", "kill it")
            await anyio.sleep(0.002)

    def _set_frozen(self, on: bool) -> bool:
        if self._cgroup is not None:
            self._cgroup.freeze(on)
            return not on or self._cgroup.frozen()
        return _signal_group(self._state, on)

    def _exit(self) -> Exit:
        _settle(self._state, self._record)
        try:
            data = json.loads((self._state / EXIT).read_bytes())
        except FileNotFoundError:
            return Exit(137, "lost", 9, "the task was removed")
        usage = replace(Usage(**data["usage"]), disk_bytes=self._scratch.used_bytes())
        return Exit(data["code"], cast(Reason, data["reason"]), data["signal"], self._detail(data["reason"]), usage)

    def _detail(self, reason: str) -> str:
        if reason != "failed":
            return ""
        _, head, _ = logfile.read(str(self._state), 0, 2000)
        return head.decode(errors="replace").strip()

    def _usage(self) -> Usage:
        if not is_alive(self._state):
            return self._exit().usage
        cpu = peak = 0
        if self._cgroup is not None:
            with contextlib.suppress(OSError):
                cpu, peak = self._cgroup.cpu_usec(), self._cgroup.memory_peak_bytes()
        written, dropped = logfile.extent(str(self._state))
        wall = (time.monotonic_ns() - self._record.started_ns) // 1000
        return Usage(cpu, peak, self._scratch.used_bytes(), wall, written, dropped)


def known(root: Path) -> tuple[str, ...]:
    """Ids of the tasks that have a state folder."""
    return tuple(sorted(path.name for path in root.iterdir() if path.is_dir())) if root.is_dir() else ()


def adopt(root: Path, task_id: str) -> SupervisedHandle | None:
    """The handle of a task by its state folder; see `Runtime.adopt`. Blocks."""
    state = root / Path(task_id).name
    try:
        data = json.loads((state / _RECORD).read_bytes())
    except FileNotFoundError:
        # Killed between making the folder and writing the record: nothing is held yet.
        shutil.rmtree(state, ignore_errors=True)
        return None
    record = Record(**{**data, "ports": tuple(data["ports"])})
    _settle(state, record)
    return SupervisedHandle(state, record)


def _settle(state: Path, record: Record) -> None:
    """Where the supervisor died without a word: kill what it left, and say that the task is lost."""
    if is_alive(state) or (state / EXIT).exists() or not state.is_dir():
        return
    if record.cgroup is not None:
        Cgroup(**record.cgroup).kill()
        Cgroup(**record.cgroup).remove()
    lost = {"code": 137, "signal": 9, "reason": "lost", "usage": {}}
    write(str(state), EXIT, json.dumps(lost).encode(), durably=True)


def is_alive(state: Path) -> bool:
    """Whether the supervisor of a state folder lives."""
    try:
        file = os.open(state / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _supervisor_pid(state: Path) -> int | None:
    try:
        return int((state / PID).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _signal_group(state: Path, on: bool) -> bool:
    """Stop or continue a task that has no groups: the children of its supervisor, with their process groups."""
    import signal

    pid = _supervisor_pid(state)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
    for child in children:
        os.killpg(int(child), signal.SIGSTOP if on else signal.SIGCONT)
    return True


def _port_path(state: Path, port: int) -> Path:
    return state / f"port-{port}.sock"


def _remove(state: Path, record: Record) -> None:
    if record.cgroup is not None:
        cgroup = Cgroup(**record.cgroup)
        cgroup.kill()
        cgroup.remove()
    Scratch(state, record.scratch).remove()
    if record.uid is not None and record.owns_uid:
        slots.release(record.uid, state)
    shutil.rmtree(state, ignore_errors=True)
