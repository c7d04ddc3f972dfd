"""What a driver promises: run other people's code under limits, and say truly how it ended.

It knows tasks (one command of one attempt), not jobs, leases or money. Rule: a limit that cannot be enforced refuses
the task before anything of it runs.

| reason of an exit | who ended it |
|-------------------|---------------------------------------------------------------------------|
| exited            | the task itself, by returning or by a signal of its own                    |
| oom               | the kernel: the task went over `memory_bytes`                              |
| timeout           | the supervisor: `wall_seconds` passed                                      |
| abandoned         | the supervisor: the agent gave no sign of life for `heartbeat_seconds`     |
| stopped           | the agent, by `stop()`                                                     |
| killed            | the agent, by `kill()`                                                     |
| lost              | nobody knows: the machine or the supervisor died; what was left was killed |
| failed            | nobody: the sandbox could not be set up and nothing of the task ran        |
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Protocol

from minga.core.errors import InvalidInput

Reason = Literal["exited", "oom", "timeout", "abandoned", "stopped", "killed", "lost", "failed"]

WORK = "/job"
"""Where a task finds its inputs and leaves its outputs; also its HOME."""

LOG_BYTES = 64 << 20
LOG_CHUNK_BYTES = 256 << 10
HEARTBEAT_SECONDS = 60
OUTPUT_COUNT_MAX = 100_000
OUTPUT_BYTES_MAX = 1 << 50

_TASK_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds. `None` asks for no bound; a number that the driver cannot enforce refuses the task.

    `cpus_milli` is thousandths of a CPU; `memory_bytes` counts the task's memory with its page cache and /dev/shm;
    `disk_bytes` is everything that it can write (/job and /tmp together); `pids` counts processes and threads;
    `log_bytes` is what is kept of its output. Without a `beat()` for `heartbeat_seconds` the task is ended.
    `gpus` are CDI device names (`nvidia.com/gpu=0`).
    """

    cpus_milli: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    pids: int | None = None
    wall_seconds: int | None = None
    log_bytes: int = LOG_BYTES
    heartbeat_seconds: int | None = HEARTBEAT_SECONDS
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int) and not 0 < value < 2**63:
                raise InvalidInput(f"limit {item.name} is {value}", "use a positive whole number")

    def asked(self) -> frozenset[str]:
        """Names of the bounds that are set."""
        return frozenset(item.name for item in fields(self) if getattr(self, item.name) not in (None, ()))

    def only(self, names: frozenset[str]) -> Limits:
        """These limits without those that are not in `names`: for a driver that is openly not a sandbox."""
        dropped: dict[str, Any] = dict.fromkeys(self.asked() - names - {"log_bytes", "gpus"})
        return replace(self, **dropped, gpus=self.gpus if "gpus" in names else ())


@dataclass(frozen=True, slots=True)
class Environment:
    """What the task sees as its system, read-only.

    `rootfs`: `path` is a directory with a whole root file system. `python`: `path` is a virtual environment made for
    jobs; the task sees it and its base interpreter at their own paths, and this machine's /usr. `system`: this
    machine's /usr alone; `path` is `/`.
    """

    kind: Literal["rootfs", "python", "system"]
    path: Path = Path("/")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine, shown to the task at the absolute path `target`; read-only unless `writable`.

    A writable mount is outside `disk_bytes`: the caller bounds it.
    """

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """A file or folder that is copied to `target`, a path relative to /job, before the task starts."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Task:
    """One command of one attempt.

    `task_id` is 1 to 64 of `a-z0-9_-`; `argv[0]` is found on the sandbox's PATH; `env` adds to a clean environment;
    `cwd` is a path inside. `egress` is the folder of the agent's `EgressProxy`, or `None` for no network at
    all; `ports` are TCP ports on which the task listens on its own loopback, reached through `Handle.port_socket`.

    Raises:
        InvalidInput: a field is out of its range.
    """

    task_id: str
    argv: tuple[str, ...]
    environment: Environment
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = WORK
    mounts: tuple[Mount, ...] = ()
    inputs: tuple[Input, ...] = ()
    egress: Path | None = None
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _TASK_ID.fullmatch(self.task_id):
            raise InvalidInput(f"task id {self.task_id!r}", "use 1 to 64 characters of a-z, 0-9, _ and -")
        if not self.argv or any("\0" in word for word in self.argv):
            raise InvalidInput("the command is empty or has a NUL byte", "give a program and its arguments")
        for name, value in self.env.items():
            if not _ENV_NAME.fullmatch(name) or "\0" in value:
                raise InvalidInput(f"environment variable {name!r}", "use a plain name and a value without NUL bytes")
        for path in (self.cwd, *(mount.target for mount in self.mounts)):
            if not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
                raise InvalidInput(f"{path!r} is not an absolute path", "write it from / without ..")
        if any(not 0 < port < 65536 for port in self.ports) or len(set(self.ports)) != len(self.ports):
            raise InvalidInput(f"ports {self.ports}", "use different numbers from 1 to 65535")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a task has used so far. `disk_bytes` is what its files hold now; the rest only grows."""

    cpu_usec: int = 0
    memory_peak_bytes: int = 0
    disk_bytes: int = 0
    wall_usec: int = 0
    log_bytes: int = 0
    log_dropped_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended: `code` 0 … 255 as a shell gives it (128 + n for signal n), `signal` when one ended it."""

    code: int
    reason: Reason
    signal: int | None = None
    detail: str = ""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Output of the task (stdout and stderr, in order) from stream offset `offset`.

    `dropped_bytes` were skipped just before `data`, because they were over the log's cap; `next_offset` is where to
    read on.
    """

    offset: int
    data: bytes
    dropped_bytes: int

    @property
    def next_offset(self) -> int:
        """The stream offset after `data`."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A regular file under /job: relative path with `/`, and its size in bytes when it was listed."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Fact:
    """Something checked about this machine: what was looked for, whether it is there, what was seen, what to do."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


class Handle(Protocol):
    """One started task. Every coroutine may be cancelled; none blocks the event loop."""

    task_id: str

    async def wait(self) -> Exit:
        """Return when nothing of the task runs any more. Any number of callers, also after the end."""
        ...

    async def stop(self, grace_seconds: int = 10) -> None:
        """Send SIGTERM to every process of the task; kill what is left after `grace_seconds`.

        Returns at once; again, it can only bring the kill forward; no effect after the end. Holds even if the agent
        dies meanwhile.
        """
        ...

    async def kill(self) -> None:
        """Kill every process of the task. Returns at once; idempotent; no effect after the end."""
        ...

    def beat(self) -> None:
        """Tell the supervisor that the agent lives and wants this task to go on. Never blocks, never raises."""
        ...

    async def pause(self) -> None:
        """Stop scheduling the task; returns when it stands still. Idempotent; no effect after the end.

        `wall_seconds` goes on. Raises `ProviderError` (sandbox-failed) when it does not stand still in 10 s.
        """
        ...

    async def resume(self) -> None:
        """Undo `pause`. Idempotent."""
        ...

    async def usage(self) -> Usage:
        """What was used until now, or in all after the end."""
        ...

    async def read_log(self, offset: int, limit: int = LOG_CHUNK_BYTES) -> LogChunk:
        """Up to `limit` bytes of output from stream offset `offset`; empty when there is nothing newer yet."""
        ...

    def follow_log(self, offset: int = 0) -> AsyncIterator[LogChunk]:
        """Chunks from `offset` on, as they appear, until the task has ended and all was given."""
        ...

    async def list_outputs(
        self, count_max: int = OUTPUT_COUNT_MAX, bytes_max: int = OUTPUT_BYTES_MAX
    ) -> list[OutputFile]:
        """Regular files under /job by path; symbolic links and special files are left out. Also while it runs.

        Raises `TooLarge` when there are more than `count_max` files or `bytes_max` bytes.
        """
        ...

    async def open_output(self, path: str) -> BinaryIO:
        """Open one file under /job for reading, following no symbolic link. The caller closes it.

        Raises `UnsafePath` for a path that leaves /job or meets a link or special file, `NotFound` for none.
        """
        ...

    def port_socket(self, port: int) -> Path:
        """Unix socket on this machine whose connections reach `port` of the task. Raises `NotFound`: not in `ports`."""
        ...

    async def remove(self) -> None:
        """Kill what runs, free everything the task held, forget it: outputs and log are gone. Idempotent."""
        ...


class Runtime(Protocol):
    """A driver. `enforces` names the `Limits` fields that it holds; `sandboxed` is what may be told to a tenant."""

    name: str
    sandboxed: bool

    @property
    def enforces(self) -> frozenset[str]:
        """Names of the `Limits` fields that hold here."""
        ...

    async def check(self) -> tuple[Fact, ...]:
        """What this driver needs, found or missing, by trying it. Runs nothing of anybody else's. Takes ≤ 2 s."""
        ...

    async def start(self, task: Task) -> Handle:
        """Start a task and return when its sandbox is entered.

        Raises, and leaves nothing behind:
            LimitNotEnforceable: a limit asked for cannot be held here, or the isolation itself cannot.
            OutOfCapacity: no free uid, or not enough disk to set `disk_bytes` aside.
            SandboxFailed: the sandbox could not be made. (A later failure shows as exit reason `failed`.)
            DiskFull: the inputs do not fit in `disk_bytes`.
            InvalidInput, UnsafePath: the environment, a mount or an input is not usable.
            Conflict: this task id is known here already; use `adopt`.
        """
        ...

    async def adopt(self, task_id: str) -> Handle | None:
        """The handle of a task started by an agent that is gone, running or ended; `None` if it is not known here.

        A task whose supervisor is gone is first killed to the last process and ends as `lost`. Idempotent.
        """
        ...

    async def known(self) -> tuple[str, ...]:
        """Ids of all tasks that hold anything here, in order. After a restart: adopt or remove each."""
        ...
