"""Clock and dice as arguments: what an agent may ask of the world besides its effects.

Agents import neither `time` nor `random`; the command line hands in the real ones, tests and the simulator their own.
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time. `now` may jump (it is what the machine believes); `monotonic` never runs backwards."""

    def now(self) -> int:
        """Unix time in whole seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never decreases."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; returns early only by cancellation."""
        ...


class Dice(Protocol):
    """Unpredictable bytes."""

    def bytes(self, count: int) -> bytes:
        """`count` random bytes, fit for keys."""
        ...
