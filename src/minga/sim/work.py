"""The job itself, as it really runs on a simulated machine: the truth that meters and vouchers are judged by.

Knows: how much work is done, since when it runs, what it wrote. Does not know: money, leases, agents; it survives the
death of its provider's agent as a sandbox does. Rule: `ran` counts exactly the time in which it was neither frozen nor
over, whatever anybody says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minga.core.codec import canonical_json, parse_json
from minga.core.crypto import blake3_hex
from minga.core.errors import InvalidInput
from minga.sim.kernel import SECOND, Kernel, Signal

ABANDONED_S = 60.0
"""After so long without a sign of life from its agent the supervisor ends a job (`prepare.HEARTBEAT_SECONDS`)."""


@dataclass(frozen=True)
class Work:
    """What a job is: seconds of work in all, between checkpoints, and from SIGTERM to its exit (0: ignores it).

    `fails_at`: the second of work at which it ends with code 3; `idles_at`: at which it stops making progress.
    """

    job: str
    seconds: int
    every_s: int = 20
    term_s: int = 1
    fails_at: int | None = None
    idles_at: int | None = None


def content_of(job: str, done_s: int, by: str = "") -> bytes:
    """A checkpoint, or a result: how much of the job is done."""
    return canonical_json({"job": job, "done_s": done_s, "by": by})


def done_in(content: bytes | None, job: str) -> int:
    """The seconds of work in a checkpoint of `job`; 0 for none that counts."""
    if content is None:
        return 0
    try:
        body = parse_json(content)
        return int(body["done_s"]) if body["job"] == job else 0
    except (InvalidInput, KeyError, TypeError, ValueError):
        return 0


class Process:
    """One run of a job on one machine. `base_s` is the work that its checkpoint brought."""

    def __init__(self, kernel: Kernel, work: Work, base_s: int) -> None:
        """Runs from now on."""
        self.kernel = kernel
        self.work = work
        self.base_s = base_s
        self.changed = Signal(kernel)
        self.checkpoints: list[bytes] = []
        self.end: tuple[int, str] | None = None
        self.ended_at = 0.0
        self.wrote: Callable[[bytes], None] = lambda content: None
        self._ran = 0
        self._since: int | None = kernel.now
        self._version = 0
        self._terminated: int | None = None
        self._arm()

    @property
    def ran_s(self) -> float:
        """Seconds that it really ran."""
        return self._ran_now() / SECOND

    @property
    def done_s(self) -> int:
        """Whole seconds of work done, those of its checkpoint included."""
        done = self.base_s + self._ran_now() // SECOND
        idle = self.work.idles_at
        return min(done, self.work.seconds if idle is None else max(idle, self.base_s))

    def _ran_now(self) -> int:
        return self._ran + (self.kernel.now - self._since if self._since is not None else 0)

    def content(self) -> bytes:
        """What it would checkpoint now."""
        return content_of(self.work.job, self.done_s)

    def _write(self) -> None:
        content = self.content()
        self.wrote(content)
        self.checkpoints.append(content)

    # ------------------------------------------------------------------------------------------------------- control

    def freeze(self) -> None:
        """Stand still; idempotent."""
        if self._since is not None:
            self._ran, self._since = self._ran_now(), None
            self._arm()

    def thaw(self) -> None:
        """Go on; idempotent."""
        if self._since is None and self.end is None:
            self._since = self.kernel.now
            self._arm()

    def stop(self, grace_s: int) -> None:
        """SIGTERM now, SIGKILL after `grace_s`; 0 kills."""
        self.thaw()
        if grace_s == 0:
            self.kill("exited")
        elif self._terminated is None:
            self._terminated = self.kernel.now
            leaves = self.work.term_s if 0 < self.work.term_s <= grace_s else 0
            if leaves:
                self.kernel.after(leaves, lambda: self._leave(143))
            else:
                self.kernel.after(grace_s, lambda: self.kill("exited"))

    def kill(self, cause: str) -> None:
        """SIGKILL, or what `cause` says."""
        if self.end is None:
            self._finish(137, cause)

    def _leave(self, code: int) -> None:
        if self.end is None:
            self._write()
            self._finish(code, "exited")

    def _finish(self, code: int, cause: str) -> None:
        self._ran, self._since = self._ran_now(), None
        self._version += 1
        self.end, self.ended_at = (code, cause), self.kernel.seconds
        self.changed.notify()

    # ------------------------------------------------------------------------------------------------------- by itself

    def _arm(self) -> None:
        self._version += 1
        if self._since is None or self.end is not None:
            return
        version, left = self._version, self._next() - self._ran_now()
        self.kernel.at(self.kernel.now + max(1, left), lambda: self._wake(version))

    def _next(self) -> int:
        """When in running time something of its own happens next, in microseconds."""
        work, ran = self.work, self._ran_now()
        step = (ran // (work.every_s * SECOND) + 1) * work.every_s * SECOND
        return min(step, self._ends_at())

    def _ends_at(self) -> int:
        work = self.work
        if work.fails_at is not None and work.fails_at >= self.base_s:
            return (work.fails_at - self.base_s) * SECOND
        if work.idles_at is not None:
            return 1 << 60
        return max(0, work.seconds - self.base_s) * SECOND

    def _wake(self, version: int) -> None:
        if version != self._version:
            return
        if self._ran_now() >= self._ends_at():
            self._finish(0 if self.work.fails_at is None else 3, "exited")
            return
        idle = self.work.idles_at
        if idle is None or self.base_s + self._ran_now() // SECOND <= idle:
            self._write()
            self.changed.notify()
        self._arm()


def name_of(content: bytes) -> str:
    """The blob's name."""
    return blake3_hex(content)


__all__ = ["ABANDONED_S", "Process", "Work", "content_of", "done_in", "name_of"]
