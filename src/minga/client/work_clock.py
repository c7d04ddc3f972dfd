"""Our own clock of one attempt: how long its job can have worked, and how long it has made no progress.

Does not know: what the provider claims. Rule: monotonic seconds; what went by while this process or machine was away
counts as little as the job's machine allows.
"""

from __future__ import annotations

from minga.core.effects import Clock

GPU_BUSY_PERCENT = 5
"""A GPU that is used less is not used."""


class WorkClock:
    """Seconds since the job was first seen running, and since it last made progress."""

    def __init__(self, clock: Clock, elapsed_s: int, base_s: int, idle_s: int) -> None:
        """Go on from what the journal knows; an `elapsed_s` of 0: it was not seen running yet."""
        self._clock = clock
        self._base_s = base_s
        now = clock.monotonic()
        self._running_since: float | None = now if elapsed_s else None
        self._moved_at = now - idle_s
        self._busy_at: float | None = None
        self._paused_at: float | None = None
        self._highest_step = -1

    @property
    def elapsed_s(self) -> int:
        """Seconds that the job can have worked."""
        if self._running_since is None:
            return self._base_s
        return self._base_s + int(self._clock.monotonic() - self._running_since)

    @property
    def idle_s(self) -> int:
        """Seconds without progress, or with a GPU that is there and not used; paused seconds are not counted."""
        last = self._moved_at if self._busy_at is None else min(self._moved_at, self._busy_at)
        return max(0, int(self._clock.monotonic() - last))

    def phase(self, phase: str) -> None:
        """The provider says so."""
        now = self._clock.monotonic()
        if phase == "running":
            if self._running_since is None:
                self._running_since = self._moved_at = now
            elif self._paused_at is not None:
                self._moved_at += now - self._paused_at
                self._busy_at = None if self._busy_at is None else self._busy_at + now - self._paused_at
            self._paused_at = None
        elif phase == "paused" and self._paused_at is None:
            self._paused_at = now

    def moved(self) -> None:
        """The job wrote a log or a checkpoint."""
        self._moved_at = self._clock.monotonic()

    def step(self, step: int | None) -> None:
        """The job says where it is; a step that it reached before is no progress."""
        if step is not None and step > self._highest_step:
            self._highest_step = step
            self.moved()

    def gpu_busy(self, percent: int) -> None:
        """The provider measured this since the last time."""
        now = self._clock.monotonic()
        if self._busy_at is None or percent >= GPU_BUSY_PERCENT:
            self._busy_at = now

    def slept(self, gap_s: int, unseen_max_s: int) -> None:
        """This machine slept for `gap_s`; at most `unseen_max_s` of that may have been worked."""
        self._base_s = self.elapsed_s + min(gap_s, unseen_max_s)
        if self._running_since is not None:
            self._running_since = self._clock.monotonic()
