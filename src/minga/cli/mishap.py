"""The demo's accident: a provider that dies in the middle of the work, and whose owner starts it again later.

Knows processes and the job's screen. Does not know how a job survives: it only kills, as a power cut would (the agent
and everything it started, with SIGKILL), once a checkpoint has left the machine; and it starts the provider again when
the job works elsewhere, so that the lease it left is closed and all the money is back at the end.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from minga.cli.localnet import READY_WAIT_S, LocalNetwork
from minga.cli.output import tell
from minga.core.errors import MingaError

if TYPE_CHECKING:
    import psutil

    from minga.cli.live import JobView

KILL_AT = 0.4
"""The share of the job's progress at which its first provider is killed."""


class Mishap:
    """Kills the first provider of a job once, and revives it once."""

    def __init__(self, network: LocalNetwork, names: Mapping[str, str]) -> None:
        """`names` maps a provider's address to the name of its process in `network`."""
        self.network = network
        self.names = names
        self.state: dict[str, str] = {}
        self._victim = ""
        self._revival: threading.Thread | None = None

    def look(self, view: JobView) -> None:
        """After each event of the job: kill, or revive, when the time has come."""
        if not self._victim:
            step, total = int(view.progress.get("step") or 0), int(view.progress.get("total") or 0)
            if view.phase == "running" and view.checkpoints and total and step >= KILL_AT * total:
                self._kill(str(view.offer.get("provider")), step)
        elif self._revival is None and view.attempt > 0 and view.phase == "running":
            self._revival = threading.Thread(target=self._revive, name="revival", daemon=True)
            self._revival.start()

    def _kill(self, address: str, step: int) -> None:
        record = self.network.processes.get(self.names.get(address, ""))
        process = record.find() if record else None
        if record is None or process is None:
            return
        self._victim = record.name
        self.state[address] = f"killed -9 at step {step}"
        tell(f"[minga] the demo kills {record.name} with -9 at step {step}")
        kill_with_all(process)

    def _revive(self) -> None:
        record = self.network.processes.get(self._victim)
        if record is None:
            return
        address = next(known for known, name in self.names.items() if name == record.name)
        try:
            with self.network.processes.exclusive():
                self.network.processes.ensure(record.name, record.argv, {}, READY_WAIT_S)
        except MingaError as error:
            self.state[address] = "did not start again"
            tell(f"[minga] {record.name} did not start again: {error.fact}")
            return
        self.state[address] = "started again by its owner"
        tell(f"[minga] {record.name} was started again by its owner, and closes the lease that it left")

    def finish(self) -> None:
        """Wait until a revival that began is over."""
        if self._revival is not None:
            self._revival.join(READY_WAIT_S)


def kill_with_all(process: psutil.Process) -> None:
    """SIGKILL a process and everything that it started, as a power cut would."""
    import psutil

    for each in [process, *process.children(recursive=True)]:
        try:
            _kill_hard(each)
        except psutil.NoSuchProcess:
            pass


def _kill_hard(process: psutil.Process) -> None:
    """SIGKILL, through sudo when the process is root's and we are not."""
    import psutil

    try:
        process.send_signal(signal.SIGKILL)
    except psutil.AccessDenied:
        from minga.runtimes.probe import root_command

        command = root_command(["kill", "-9", str(process.pid)])
        if command is not None:
            subprocess.run(command, check=False, capture_output=True)


__all__ = ["KILL_AT", "Mishap", "kill_with_all"]
