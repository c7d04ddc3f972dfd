"""What ran, what is owed, what is unpaid. Pure: the monotonic clock is an argument.

| quantity   | rule                                                                              |
|------------|-----------------------------------------------------------------------------------|
| working    | whole seconds between resume and pause; what was cut off by a crash is not claimed |
| owed       | `cost_down` of all working seconds: never summed from parts                        |
| unpaid     | owed − the best voucher                                                            |
| limit      | the cost of one quantum: at it the job stands still until a voucher comes          |

Rule: every doubt goes to the tenant. Seconds beyond the limit are not counted, even if freezing took a moment.
"""

from __future__ import annotations

from minga.protocol.pricing import cost_down, cost_up

JOURNAL_SECONDS = 15
"""At most so many working seconds are lost to the provider by its own crash."""


class Stopwatch:
    """Counts running time from readings of a monotonic clock; starts standing still."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Begin with `seconds` already counted."""
        self._counted = seconds
        self._since: float | None = None

    @property
    def running(self) -> bool:
        """Whether it counts now."""
        return self._since is not None

    def go(self, reading: float) -> None:
        """Count from `reading` on; idempotent."""
        if self._since is None:
            self._since = reading

    def hold(self, reading: float, at_most: float | None = None) -> None:
        """Stop counting at `reading`, and forget what is over `at_most` seconds in all; idempotent."""
        self._counted, self._since = self.exact(reading), None
        if at_most is not None:
            self._counted = min(self._counted, at_most)

    def exact(self, reading: float) -> float:
        """Seconds counted until `reading`."""
        return self._counted + (max(0.0, reading - self._since) if self._since is not None else 0.0)

    def seconds(self, reading: float) -> int:
        """Whole seconds counted until `reading`."""
        return int(self.exact(reading))


def limit_of(price_per_hour: int, units: int, quantum: int) -> int:
    """Token units that may stand unpaid: the cost of one quantum, at least 1."""
    return max(1, cost_down(price_per_hour, units, quantum))


def exhausted_at(price_per_hour: int, units: int, quantum: int, paid: int) -> int | None:
    """The working seconds at which the unpaid part reaches the limit; None when the price is zero.

    Args:
        price_per_hour: token units per unit-hour.
        units: units leased.
        quantum: seconds that may stand unpaid.
        paid: the best voucher, token units.
    """
    rate = price_per_hour * units
    if rate == 0:
        return None
    target = paid + limit_of(price_per_hour, units, quantum)
    seconds = target * 3600 // rate
    while cost_down(price_per_hour, units, seconds) < target:
        seconds += 1
    return seconds


def next_due(working_s: int, quantum: int, exhausted: int | None) -> int:
    """The working seconds at which to write the meter next: each half quantum, at least every 15 s, and the limit."""
    half = max(1, quantum // 2)
    due = min((working_s // half + 1) * half, working_s + JOURNAL_SECONDS)
    return due if exhausted is None or exhausted <= working_s else min(due, exhausted)


def crosses(before_s: int, after_s: int, quantum: int) -> bool:
    """Whether a half quantum ended between two meter readings."""
    half = max(1, quantum // 2)
    return before_s // half != after_s // half


def deposit_least(price_per_hour: int, quantum: int) -> int:
    """The smallest deposit that pays one quantum of one unit, at least 1 token unit."""
    return max(1, cost_up(price_per_hour, 1, quantum))
