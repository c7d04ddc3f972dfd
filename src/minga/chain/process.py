"""One anvil process on one folder of state: start, adopt, watch, stop.

    folder/  state.json       anvil's state, dumped every few seconds and on SIGTERM
             state.good.json  the last dump that was whole (a kill during a dump leaves a torn one)
             running.json     process ids with their start times, port
             lock             held while somebody starts
             anvil.log

Knows processes and files; does not know contracts. Rules: loopback only; one anvil for one state; an anvil whose owner
was killed is taken over, not doubled; SIGTERM, so that it saves, before anything harsher.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from minga.chain.chain import write_private
from minga.core.errors import Conflict, InternalError, PortInUse

HOST = "127.0.0.1"
STOP_SECONDS = 10.0
# 'ming' as a number. Not 31337, which every developer's chain uses: a signature for one of those must not count here.
CHAIN_ID = 0x6D696E67


@dataclass(frozen=True, slots=True)
class Mark:
    """A process that cannot be confused with a later one of the same id."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Mark:
        """The mark of a living process; `psutil.NoSuchProcess` when there is none."""
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """Whether that very process runs."""
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, slots=True)
class Running:
    """What `running.json` says: the anvil, the process that started or adopted it, and the port."""

    anvil: Mark
    owner: Mark
    port: int

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        body = {
            "anvil": [self.anvil.pid, self.anvil.started],
            "owner": [self.owner.pid, self.owner.started],
            "port": self.port,
        }
        write_private(folder / "running.json", json.dumps(body).encode())


def read_record(folder: Path) -> Running | None:
    """What `running.json` says, living or dead; None when nobody started or everything was stopped."""
    try:
        body = json.loads((folder / "running.json").read_bytes())
        return Running(Mark(*body["anvil"]), Mark(*body["owner"]), int(body["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_running(folder: Path) -> Running | None:
    """What runs on this folder's state, if its anvil lives."""
    found = read_record(folder)
    return found if found and found.anvil.alive() else None


def strays(folder: Path) -> list[Mark]:
    """Anvils on this state that are not on record: their starter was killed between starting and writing it down."""
    state = str(folder / "state.json")
    found = []
    for process in psutil.process_iter(["cmdline", "create_time", "status"]):
        if state in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(Mark(process.pid, process.info["create_time"]))
    return found


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for starting; released by the system when this process dies.

    Raises:
        Conflict: another process is starting on it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a+b") as handle:
        if not _lock(handle):
            raise Conflict("another process is starting the embedded chain", "wait for it, then try again")
        yield


def _lock(handle: Any) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def choose_port(wanted: int | None, before: int | None) -> int:
    """The wanted port, else the one had before, else any that is free.

    Raises:
        PortInUse: the wanted one is taken.
    """
    if wanted is not None:
        if not _free(wanted):
            raise PortInUse(f"port {wanted} is taken", "name another one, or stop what listens there")
        return wanted
    if before is not None and _free(before):
        return before
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # there it would mean the opposite
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def launch(program: Path, folder: Path, port: int, state_interval: int) -> subprocess.Popen[bytes]:
    """Start anvil on the folder's state. It is in a session of its own: Ctrl-C is its owner's to handle."""
    command = [
        str(program), "--host", HOST, "--port", str(port), "--chain-id", str(CHAIN_ID), "--accounts", "0",
        "--state", str(folder / "state.json"), "--state-interval", str(state_interval), "--prune-history", "64",
        "--no-cors", "--quiet",
    ]  # fmt: skip
    mend_state(folder)
    with (folder / "anvil.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def died(folder: Path, code: int | None) -> Exception:
    """Why anvil ended by itself, from its log."""
    text = (folder / "anvil.log").read_text(errors="replace").strip()
    if "in use" in text:
        return PortInUse("the embedded chain's port was taken meanwhile", "try again, or name a port")
    last = text.splitlines()[-1][:200] if text else "it said nothing"
    return InternalError(f"anvil ended with code {code}: {last}", f"see {folder / 'anvil.log'}")


def terminate(mark: Mark, child: subprocess.Popen[bytes] | None = None) -> None:
    """SIGTERM and wait (anvil saves its state within milliseconds); SIGKILL after `STOP_SECONDS`. Blocking."""
    if mark.alive():
        process = psutil.Process(mark.pid)
        process.terminate()
        try:
            process.wait(STOP_SECONDS) if child is None else child.wait(STOP_SECONDS)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            process.kill()
    if child is not None:
        child.wait()


def is_whole(path: Path) -> bool:
    """Whether a dump was written to its end."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def keep_state(folder: Path) -> bool:
    """Copy the present dump to `state.good.json` if it is whole. Blocking."""
    state, good = folder / "state.json", folder / "state.good.json"
    copy = folder / ".state.copy"
    try:
        shutil.copyfile(state, copy)
    except OSError:
        return False
    if not is_whole(copy):
        return False
    os.replace(copy, good)
    return True


def mend_state(folder: Path) -> None:
    """Put the last whole dump in the place of a torn one; with none, senders' journals rebuild what there was."""
    state, good = folder / "state.json", folder / "state.good.json"
    if state.exists() and not is_whole(state):
        os.replace(state, folder / "state.torn.json")
        if is_whole(good):
            shutil.copyfile(good, state)
