"""Which replica is asked next. Pure.

The replica with the shortest expected wait: requests under way there, times how long one took lately. One that failed
is left alone for a while that doubles with each failure in a row; if all have failed, the one that rests shortest is
tried, because an error now is worse than a slow answer. Ties go to the replica that was asked longest ago.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

SMOOTHING = 0.2
"""Weight of the newest time in the running mean."""
FIRST_SECONDS = 1.0
"""What a replica is expected to take before it was ever asked."""
REST_S, REST_MAX_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one replica: seconds a request took, requests under way, failures in a row, monotonic times."""

    name: str
    seconds: float = FIRST_SECONDS
    under_way: int = 0
    failures: int = 0
    rests_until: float = 0.0
    asked_at: float = 0.0

    def asked(self, now: float) -> Standing:
        """A request began."""
        return replace(self, under_way=self.under_way + 1, asked_at=now)

    def answered(self, seconds: float) -> Standing:
        """A request ended well."""
        mean = self.seconds + SMOOTHING * (seconds - self.seconds)
        return replace(self, under_way=self.under_way - 1, seconds=mean, failures=0, rests_until=0.0)

    def failed(self, now: float) -> Standing:
        """A request ended for the replica's fault."""
        rest = min(REST_MAX_S, REST_S * 2.0**self.failures)
        return replace(self, under_way=self.under_way - 1, failures=self.failures + 1, rests_until=now + rest)

    def left(self) -> Standing:
        """A request ended for no fault of the replica, and says nothing about its speed."""
        return replace(self, under_way=self.under_way - 1)


def choose(standings: Iterable[Standing], now: float, tried: frozenset[str] = frozenset()) -> Standing | None:
    """Who is asked next, of those not `tried`; None when there is nobody."""
    left = [item for item in standings if item.name not in tried]
    awake = [item for item in left if item.rests_until <= now]
    if awake:
        return min(awake, key=lambda item: ((item.under_way + 1) * item.seconds, item.asked_at, item.name))
    return min(left, key=lambda item: (item.rests_until, item.name), default=None)
