"""Processes that outlive the command that started them: found again, never confused, always stoppable.

A record names a process by pid *and* start time, so that a recycled pid is never signalled. A process says that it is
ready by writing its ready file (`announce_ready`); until then its starter waits, and shows the end of its log if it
dies. Records stand in one JSON file, written atomically.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga.core.codec import parse_json
from minga.core.errors import Conflict, InternalError, InvalidInput, MingaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

POLL_S = 0.02
AGAIN_S = 5.0
TAIL_BYTES = 2000


@dataclass(frozen=True)
class Record:
    """A started process: pid, start time (the system's, thousandths of a second), what it was told, where it logs.

    `ready` is what it announced, such as its url.
    """

    name: str
    pid: int
    started_ms: int
    argv: tuple[str, ...]
    log: str
    ready: dict[str, Any]

    def find(self) -> psutil.Process | None:
        """The living process, or None: gone, a zombie, or the pid is another process's now."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(int(process.create_time() * 1000) - self.started_ms) <= 20
            return process if same and _lives(process) else None
        except psutil.Error:
            return None


class Processes:
    """The processes of one folder (`processes.json`, `log/NAME.log`, `ready/NAME.json`)."""

    def __init__(self, folder: Path) -> None:
        """Keep records under `folder`, made if it is not there (mode 0700)."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def _file(self) -> Path:
        return self.folder / "processes.json"

    def records(self) -> list[Record]:
        """All records, in the order of their start; dead ones too."""
        try:
            value = parse_json(self._file.read_bytes())
            return [Record(**{**item, "argv": tuple(item["argv"])}) for item in value]
        except FileNotFoundError:
            return []
        except (MingaError, TypeError, KeyError):
            raise InvalidInput(f"{self._file} is damaged", "stop what runs there by hand, then delete it") from None

    def get(self, name: str) -> Record | None:
        """The record of that name."""
        return next((record for record in self.records() if record.name == name), None)

    def _save(self, records: Sequence[Record]) -> None:
        from minga.store.blobs import write_atomic

        write_atomic(self._file, json.dumps([asdict(record) for record in records], indent=1).encode())

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the folder: one command changes it at a time.

        Raises:
            Conflict: another does.
        """
        return _exclusive(self.folder / "lock")

    def ensure(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], wait_s: float, *, always: bool = False
    ) -> tuple[Record, bool]:
        """The process `name`, running and ready; started unless it runs already with the same arguments.

        Args:
            name: a file name; records, log and ready file carry it.
            argv: what to run; `{ready}` in it becomes the path of the ready file.
            env: variables to set besides this process's own.
            wait_s: seconds to wait until it is ready.
            always: start it anew even if it runs unchanged.

        Returns:
            Its record, and whether it was started now.

        Raises:
            MingaError: the error with which it ended, if it printed one.
            InternalError: it ended without one, or was not ready in time; the fact has the end of its log.
        """
        held = self.get(name)
        if held is not None and held.find() is not None:
            if held.argv == tuple(argv) and held.ready and not always:
                return held, False
            self.stop(name)
        ready_file = self.folder / "ready" / f"{name}.json"
        ready_file.parent.mkdir(exist_ok=True, mode=0o700)
        ready_file.unlink(missing_ok=True)
        log = self.folder / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True, mode=0o700)
        process, start = _spawn([part.replace("{ready}", str(ready_file)) for part in argv], env, log)
        record = Record(name, process.pid, _started_ms(process.pid), tuple(argv), str(log), {})
        self._save([*(other for other in self.records() if other.name != name), record])
        record = replace(record, ready=_await_ready(process, name, ready_file, log, start, wait_s))
        self._save([*(other for other in self.records() if other.name != name), record])
        return record, True

    def stop(self, name: str, wait_s: float = 60.0) -> str:
        """End a process with SIGTERM, after `wait_s` seconds with another, at last with SIGKILL; forget it. Idempotent.

        Returns:
            "was not running", "stopped" or "killed".
        """

        record = self.get(name)
        if record is None:
            return "was not running"
        process, verdict = record.find(), "was not running"
        if process is not None:
            verdict = "stopped" if _ended(process, signal.SIGTERM, wait_s) else "killed"
            if verdict == "killed" and not _ended(process, signal.SIGTERM, AGAIN_S):
                _ended(process, signal.SIGKILL, AGAIN_S)
        self._save([other for other in self.records() if other.name != name])
        return verdict


def announce_ready(path: Path | None, facts: Mapping[str, Any]) -> None:
    """Tell the starter that this process is ready, with facts such as its url; nothing without a path.

    The starter may be another user (a provider runs as root), so the file is for everybody who may enter its folder.
    """
    if path is None:
        return
    from minga.store.blobs import write_atomic

    write_atomic(path, json.dumps({"pid": os.getpid(), **facts}).encode(), mode=0o644)


def minga_argv(*words: str) -> list[str]:
    """A command line that runs this very Minga."""
    return [sys.executable, "-m", "minga", *words]


def _ended(process: psutil.Process, number: int, wait_s: float) -> bool:
    """Signal a process (through sudo when it is root's and we are not) and say whether it ended in time."""
    import psutil

    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        from minga.runtimes.probe import root_command

        command = root_command(["kill", f"-{int(number)}", str(process.pid)])
        if command is None:
            raise InvalidInput(f"process {process.pid} is root's", f"stop it with: sudo kill {process.pid}") from None
        subprocess.run(command, check=False, capture_output=True)
    deadline = time.monotonic() + wait_s
    while _lives(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _lives(process: psutil.Process) -> bool:
    """Whether it still runs; one that only waits for its parent to notice its end does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _spawn(argv: Sequence[str], env: Mapping[str, str], log: Path) -> tuple[subprocess.Popen[bytes], int]:
    with log.open("ab") as handle:
        start = handle.tell()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            env={**os.environ, **env},
            start_new_session=True,
        )
    return process, start


def _started_ms(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).create_time() * 1000)
    except psutil.Error:
        return 0


def _await_ready(
    process: subprocess.Popen[bytes], name: str, ready_file: Path, log: Path, start: int, wait_s: float
) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if ready_file.is_file():
            ready: dict[str, Any] = parse_json(ready_file.read_bytes())
            return ready
        code = process.poll()
        if code is not None:
            raise _death(name, code, log, start)
        time.sleep(POLL_S)
    process.send_signal(signal.SIGTERM)
    raise InternalError(f"{name} was not ready within {wait_s:.0f} s: {_tail(log, start)}", f"see {log}")


def _death(name: str, code: int, log: Path, start: int) -> MingaError:
    """The error that a dead process left in its log: its last JSON line, else the end of the log."""
    text = _tail(log, start)
    for line in reversed(text.splitlines()):
        try:
            body = parse_json(line)["error"]
            error = _Reported(f"{name}: {body['fact']}", body["remedy"])
        except (MingaError, TypeError, KeyError):
            continue
        error.code, error.exit_code = str(body["code"]), code if 0 < code < 126 else 1  # type: ignore[misc]
        return error
    return InternalError(f"{name} ended with code {code}: {text[-400:]}", f"see {log}")


class _Reported(MingaError):
    """An error of another process, told on."""


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as handle:
        handle.seek(max(start, log.stat().st_size - TAIL_BYTES))
        return handle.read().decode(errors="replace").strip()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: providers and local networks do not run there
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"another command works on {path.parent}", "wait until it is done") from None
        yield
