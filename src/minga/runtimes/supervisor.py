"""One small process per task: it starts the task, keeps its output, and ends it when nobody wants it any more.

It outlives the agent, so that an agent that was killed finds its tasks again; it is also the watchdog that ends a
task whose agent does not come back. It knows one plan (JSON on stdin, so that secrets touch no disk), not what a
lease is. It talks back through its state folder: `control` (a FIFO of commands), `log.*`, `exit.json`.

| command       | effect                                                       |
|---------------|--------------------------------------------------------------|
| `beat`        | the agent lives                                              |
| `stop <s>`    | SIGTERM to every process now, SIGKILL to the rest after s    |
| `kill`        | SIGKILL to every process                                     |

Rule: the supervisor's death is the task's death (the kernel sees to it), and `exit.json` is written before it exits.
Standard library only, and single-threaded, because it forks.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any

from minga.runtimes import launch, processes
from minga.runtimes.cgroups import Cgroup
from minga.runtimes.logfile import LogWriter

CONTROL, EXIT, PID = "control", "exit.json", "pid"
LOG_BYTES_PER_SECOND = 256 << 20
DRAIN_SECONDS = 2.0
KILL_SECONDS = 5.0
_READ_BYTES = 1 << 20
_TICK_SECONDS = 0.25
_HELD_TICK_SECONDS = 0.02
_STOP_GRACE_SECONDS = 10
_EXEC_FAILED = b"bwrap: execvp "


def main() -> None:
    """Run the plan on stdin to its end. Says one line of JSON on stdout when the task is started, or why not."""
    folder, lock = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(lock, False)  # held by this process alone: the task must not keep us alive
    write(folder, PID, str(os.getpid()).encode())
    plan = json.load(sys.stdin)
    os.chdir("/")
    os.umask(0o077)
    launch.adopt_orphans()
    supervisor = Supervisor(folder, plan)
    try:
        supervisor.start()
    except OSError as error:
        supervisor.kill_all()
        _say({"error": f"{error.strerror or error}"})
        sys.exit(1)
    _say({"started": True})
    supervisor.run()


class Supervisor:
    """The life of one task. `start` then `run`."""

    def __init__(self, folder: str, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._state = folder
        self._cgroup = Cgroup(**plan["cgroup"]) if plan["cgroup"] else None
        self._log = LogWriter(self._state, plan["log_bytes"])
        self._poll = select.poll()
        self._child = self._relay = 0
        self._exit_status: int | None = None
        self._status_text = b""
        self._log_head = b""
        self._log_budget = float(LOG_BYTES_PER_SECOND)
        self._cause = ""
        self._cpu_usec = self._memory_peak_bytes = 0
        self._kill_at: float | None = None
        self._held = False
        self._started = plan["started_ns"] / 1e9
        self._last_beat = self._last_tick = time.monotonic()

    # ------------------------------------------------------------------------------------------------- starting

    def start(self) -> None:
        """Fork the task and wait until its sandbox is entered. Raises OSError."""
        self._control = os.open(f"{self._state}/{CONTROL}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = _wake_on_signals()
        self._output, output = os.pipe2(os.O_CLOEXEC)
        self._status, status = os.pipe2(os.O_CLOEXEC)
        failed, failure = os.pipe2(os.O_CLOEXEC)
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child == 0:
            self._become_task(output, status, failure, gate)
        for file in (output, status, failure, gate):
            os.close(file)
        with os.fdopen(failed, "rb") as pipe:
            if text := pipe.read():
                raise OSError(errno.EIO, text.decode(errors="replace"))
        for file in (self._output, self._status, self._control, self._wake):
            os.set_blocking(file, False)
            self._poll.register(file, select.POLLIN)
        if self._plan["relay"]:
            self._start_relay()
        os.close(self._gate)

    def _become_task(self, output: int, status: int, failure: int, gate: int) -> None:
        try:
            plan = self._plan
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            argv = list(plan["argv"])
            env = plan["env"]
            if plan["sandbox"] is not None:
                argv = self._sandbox_argv(status, gate)
                # The tenant's variables are set inside by bwrap: outside, LD_PRELOAD would be code of the tenant's.
                env = {}
            launch.exec_task(
                argv,
                env,
                "/" if plan["sandbox"] is not None else plan["cwd"],
                self._cgroup.join_files if self._cgroup else [],
                tuple(plan["stage"]) if plan["stage"] else None,
                plan["uid"],
                plan["groups"],
                plan["rlimits"],
            )
        except BaseException as error:
            os.write(failure, str(error).encode()[:4000])
        os._exit(127)

    def _sandbox_argv(self, status: int, gate: int) -> list[str]:
        """bwrap with its options in a file: a process listing then shows no paths of this machine."""
        sandbox = self._plan["sandbox"]
        options = [*sandbox["options"], "--chdir", self._plan["cwd"], "--json-status-fd", str(_passed_on(status))]
        options += [word for name, value in self._plan["env"].items() for word in ("--setenv", name, value)]
        options += ["--seccomp", str(_memory_file(bytes.fromhex(sandbox["seccomp"])))]
        if self._plan["relay"]:
            options += ["--block-fd", str(_passed_on(gate))]
        text = b"".join(option.encode() + b"\0" for option in options)
        return [sandbox["program"], "--args", str(_memory_file(text)), "--", *self._plan["argv"]]

    def _start_relay(self) -> None:
        """Bring the task's ports to unix sockets, and the agent's proxy to a port of the task. Raises OSError."""
        pid = self._sandbox_pid()
        ready, readiness = os.pipe2(os.O_CLOEXEC)
        self._relay = os.fork()
        if self._relay == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.close(self._gate)
                from minga.runtimes import relay

                relay.run(self._plan["relay"], pid, self._plan["uid"], readiness)
            except BaseException as error:
                os.write(readiness, str(error).encode()[:4000])
            os._exit(1)
        os.close(readiness)
        with os.fdopen(ready, "rb") as pipe:
            answer = pipe.read()
        if answer != b"ready":
            raise OSError(errno.EIO, f"relay: {answer.decode(errors='replace')}")

    def _sandbox_pid(self) -> int | None:
        """The first process inside, whose network the relay enters; None without a sandbox. Raises OSError."""
        if self._plan["sandbox"] is None:
            return None
        os.set_blocking(self._status, True)
        while b"\n" not in self._status_text:
            data = os.read(self._status, 4096)
            if not data:
                raise OSError(errno.EIO, _read_now(self._output).decode(errors="replace").strip() or "no sandbox")
            self._status_text += data
        os.set_blocking(self._status, False)
        return int(json.loads(self._status_text.splitlines()[0])["child-pid"])

    # -------------------------------------------------------------------------------------------------- running

    def run(self) -> None:
        """Watch until the task has ended, then leave its exit behind."""
        while self._exit_status is None:
            self._read_ready(self._pause_seconds())
            self._watch()
        exit_at = time.monotonic()
        self.kill_all()
        self._end_children()
        self._drain()
        self._leave(exit_at)

    def kill_all(self) -> None:
        """Kill every process of the task; they may still be leaving when this returns."""
        deadline = time.monotonic() + KILL_SECONDS
        if self._cgroup:
            # The dead may count as members until we take them in.
            while not self._cgroup.kill(0.02) and time.monotonic() < deadline:
                self._reap()
        elif self._child:
            processes.kill_group(self._child, self._plan["uid"])

    def _read_ready(self, seconds: float) -> None:
        for file, _ in self._poll.poll(seconds * 1000):
            if file == self._output:
                self._read_output()
            elif file == self._status:
                data = _read_now(file)
                self._status_text += data
                if not data:
                    self._poll.unregister(file)
            elif file == self._control:
                for line in _read_now(file).decode(errors="replace").splitlines():
                    self._obey(line.split())
            else:
                self._on_signal(_read_now(file))

    def _read_output(self) -> None:
        data = os.read(self._output, _READ_BYTES)
        if not data:
            self._poll.unregister(self._output)
        self._keep(data)
        self._log_budget -= len(data)
        if self._log_budget < 0 and data:
            # A flood waits in the pipe, so that it costs the task time and not this machine.
            self._poll.unregister(self._output)

    def _keep(self, data: bytes) -> None:
        self._log_head += data[: len(_EXEC_FAILED) - len(self._log_head)]
        try:
            self._log.write(data)
        except OSError:
            # A full disk costs output, not the task: its own files are on a disk of their own.
            self._log.dropped_bytes += len(data)

    def _obey(self, words: list[str]) -> None:
        if words == ["beat"]:
            self._last_beat = time.monotonic()
        elif words == ["kill"]:
            self._end("killed")
        elif len(words) == 2 and words[0] == "stop" and words[1].isdigit():
            self._stop(int(words[1]))

    def _on_signal(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers and self._cause == "":
            self._stop(_STOP_GRACE_SECONDS)
        self._reap()

    def _reap(self) -> bool:
        """Take in children that have ended, our own and orphans of the task; whether any child is left."""
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                self._exit_status = status
                self._cpu_usec = int((used.ru_utime + used.ru_stime) * 1e6)
                self._memory_peak_bytes = used.ru_maxrss * 1024

    def _stop(self, grace_seconds: int) -> None:
        if self._cause == "stopped" and self._kill_at is not None:
            self._kill_at = min(self._kill_at, time.monotonic() + grace_seconds)
        if self._cause:
            return
        self._cause, self._kill_at = "stopped", time.monotonic() + grace_seconds
        if self._cgroup:
            # bwrap would end everybody as soon as the first process ends (a shell that waits for the one that is
            # saving, say), so it is held until the last has ended or the grace is over.
            self._held = self._plan["sandbox"] is not None
            if self._held:
                os.kill(self._child, signal.SIGSTOP)
            for pid in self._inside():
                processes.send(pid, signal.SIGTERM)
            self._cgroup.freeze(False)
        else:
            os.killpg(self._child, signal.SIGTERM)
            os.killpg(self._child, signal.SIGCONT)

    def _inside(self) -> dict[int, int]:
        """The task's own processes, and what each is numbered inside; without bwrap's two."""
        pids = self._cgroup.pids() if self._cgroup else []
        numbered = {pid: processes.inner_number(pid) for pid in pids if pid != self._child}
        return {pid: number for pid, number in numbered.items() if number != processes.INIT}

    def _watch_stop(self, now: float) -> None:
        """Let bwrap go on when nothing is left inside; after the grace, kill what is."""
        left = self._inside() if self._held else {}
        over = self._kill_at is not None and now >= self._kill_at
        if self._held and (not left or (over and processes.FIRST not in left.values())):
            # It exits with the first process's code, and takes the rest with it.
            self._held = False
            os.kill(self._child, signal.SIGCONT)
            self._kill_at = now + KILL_SECONDS
        elif over:
            self._kill_at = None
            self.kill_all()

    def _end(self, cause: str) -> None:
        self._cause = self._cause or cause
        self.kill_all()

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self._last_tick >= _TICK_SECONDS:
            budget = self._log_budget + (now - self._last_tick) * LOG_BYTES_PER_SECOND
            if self._log_budget < 0 <= budget:
                self._poll.register(self._output, select.POLLIN)
            self._log_budget, self._last_tick = min(budget, LOG_BYTES_PER_SECOND), now
        wall, heartbeat = self._plan["wall_seconds"], self._plan["heartbeat_seconds"]
        if self._kill_at is not None:
            self._watch_stop(now)
        elif wall is not None and now - self._started >= wall and self._cause == "":
            self._end("timeout")
        elif heartbeat is not None and now - self._last_beat >= heartbeat and self._cause == "":
            self._end("abandoned")

    def _pause_seconds(self) -> float:
        """How long nothing can fall due: a second at most, a tick while a flood is held back."""
        now, due = time.monotonic(), [1.0]
        if self._log_budget < LOG_BYTES_PER_SECOND / 2:
            due.append(_TICK_SECONDS)
        if self._kill_at is not None:
            due.append(_HELD_TICK_SECONDS if self._held else self._kill_at - now)
        if self._plan["wall_seconds"] is not None:
            due.append(self._started + self._plan["wall_seconds"] - now)
        return max(0.01, min(due))

    # --------------------------------------------------------------------------------------------------- ending

    def _end_children(self) -> None:
        """Kill what is left below us (the relay, and what slipped out of a plain task's group) and take it in."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._reap() and time.monotonic() < deadline:
            for pid in processes.children():
                processes.send(pid, signal.SIGKILL)
            select.select([self._wake], [], [], 0.01)

    def _drain(self) -> None:
        """Keep what the task wrote last. A process that escaped a plain process's group could hold the pipe open."""
        deadline = time.monotonic() + DRAIN_SECONDS
        self._status_text += _read_now(self._status)
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            data = os.read(self._output, _READ_BYTES)
            if not data:
                break
            self._keep(data)

    def _leave(self, exit_at: float) -> None:
        code, signal_number, reason = self._outcome()
        usage = {
            "cpu_usec": self._cgroup.cpu_usec() if self._cgroup else self._cpu_usec,
            "memory_peak_bytes": self._cgroup.memory_peak_bytes() if self._cgroup else self._memory_peak_bytes,
            "wall_usec": int((exit_at - self._started) * 1e6),
            "log_bytes": self._log.total_bytes,
            "log_dropped_bytes": self._log.dropped_bytes,
        }
        try:
            self._log.close()
        except OSError:
            pass
        record = {"code": code, "signal": signal_number, "reason": reason, "usage": usage}
        write(self._state, EXIT, json.dumps(record).encode(), durably=True)
        if self._cgroup:
            self._cgroup.remove()

    def _outcome(self) -> tuple[int, int | None, str]:
        code = os.waitstatus_to_exitcode(self._exit_status or 0)
        by_signal = code < 0
        code = 128 - code if by_signal else code
        signal_number = code - 128 if 128 < code <= 128 + 64 else None
        if self._cause:
            return code, signal_number, self._cause
        if code == 128 + signal.SIGKILL and self._cgroup and self._cgroup.oom_kills():
            return code, signal_number, "oom"
        if self._plan["sandbox"] is not None and not by_signal and b"exit-code" not in self._status_text:
            # bwrap ended without having run the command: as a shell would say it, or a failure of ours.
            return (127, None, "exited") if self._log_head == _EXEC_FAILED else (code, None, "failed")
        return code, signal_number, "exited"


def write(folder: str, name: str, data: bytes, durably: bool = False) -> None:
    """Replace a file so that a crash leaves the old or the new one; `durably`: the new one, once this returned."""
    file = os.open(f"{folder}/{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, data)
        if durably:
            os.fsync(file)
    finally:
        os.close(file)
    os.rename(f"{folder}/{name}.new", f"{folder}/{name}")
    if not durably:
        return
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _wake_on_signals() -> int:
    """A pipe that says which of our signals came."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return reader


def _read_now(file: int) -> bytes:
    """What can be read without waiting, up to 64 KiB."""
    os.set_blocking(file, False)
    try:
        return os.read(file, 1 << 16)
    except BlockingIOError:
        return b""


def _passed_on(file: int) -> int:
    fcntl.fcntl(file, fcntl.F_SETFD, 0)
    return file


def _memory_file(data: bytes) -> int:
    file = os.memfd_create("minga", 0)
    os.write(file, data)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _say(message: dict[str, Any]) -> None:
    """Answer the agent, and let go of it."""
    data = json.dumps(message).encode() + b"\n"
    try:
        os.write(1, data)
    except OSError:
        pass  # the agent died meanwhile; the watchdog decides
    null = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1):
        os.dup2(null, file)
    os.close(null)
