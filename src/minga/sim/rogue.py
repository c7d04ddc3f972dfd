"""The base of hostile providers: one that is like any other, and lies.

Rule: a rogue breaks its own side alone; it says what it likes and signs with its own keys.
"""

from __future__ import annotations

from typing import Any

from minga.provider.events import Emit
from minga.sim.lease import LeaseRun
from minga.sim.provider import Provider

FOREVER_S = 1e6


class Rogue(Provider):
    """The base: dishonest, and otherwise like any other."""

    honest = False

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        """What this one tells instead of `events`."""
        return events

    async def events(self, channel: str, token: str, after: int) -> tuple[list[Emit], bool]:
        """The events, as this one tells them."""
        events, over = await super().events(channel, token, after)
        return self.told(self.leases[channel], events), over


def altered(event: Emit, **data: Any) -> Emit:
    """The event with other data."""
    return Emit(event.number, event.at, event.kind, {**event.data, **data})


__all__ = ["FOREVER_S", "Rogue", "altered"]
