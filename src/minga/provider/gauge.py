"""What a job uses while it is paid for: CPU time so far, and how busy its GPUs are; for the tenant's meter.

Knows: the runtime's handle and the lease's devices. Does not know: seconds or money. Rule: looking costs less than a
twentieth of the time, the meter never waits for it, and what cannot be told is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import anyio

from minga.core.effects import Clock
from minga.core.errors import MingaError
from minga.runtimes.gpu_busy import busy_percent
from minga.runtimes.runtime import Handle

LOOK_SECONDS = 1.0


class Reading(NamedTuple):
    """CPU milliseconds of the job so far, and per cent that its GPUs were busy since the last reading."""

    cpu_ms: int | None = None
    gpu_busy: int | None = None


class Gauge:
    """Looks again and again, and keeps what it saw for the next reading."""

    def __init__(self, clock: Clock, devices: Sequence[str]) -> None:
        """For a job with these GPUs (CDI names)."""
        self._clock = clock
        self._devices = tuple(devices)
        self._cpu_ms = 0
        self._busy: list[int] = []

    async def follow(self, handle: Handle) -> None:
        """Look until cancelled."""
        while True:
            began = self._clock.monotonic()
            with suppress(OSError, MingaError):  # it is just ending
                await self.look(handle)
            await self._clock.sleep(max(LOOK_SECONDS, 20 * (self._clock.monotonic() - began)))

    async def look(self, handle: Handle) -> None:
        """Look once."""
        self._cpu_ms = max(self._cpu_ms, (await handle.usage()).cpu_usec // 1000)
        if self._devices:
            busy = await anyio.to_thread.run_sync(busy_percent, self._devices)
            if busy is not None:
                self._busy.append(busy)

    def read(self) -> Reading:
        """What is known now; the next reading's GPU share begins here."""
        busy, self._busy = self._busy, []
        # Whatever ran has used some CPU; a driver that counts none says 0.
        return Reading(self._cpu_ms or None, sum(busy) // len(busy) if busy else None)
