"""Monthly price series, and what can be said of them: where they turned, how fast they move.

Does not know files, screens or today. Months are counted from year 0 (`12 · year + month − 1`).

Rule: prices are integer micro-dollars per GPU-hour; only changes (ratios, months) may be fractions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from minga.protocol.accelerators import Accelerator


@dataclass(frozen=True, slots=True)
class Point:
    """One month of one series. `usd_micro` is None where the source has no price."""

    gpu: Accelerator
    series: str
    month: int
    usd_micro: int | None
    source: str


Series = dict[int, int]
"""Month → micro-dollars per GPU-hour."""


def series_of(points: Iterable[Point]) -> dict[tuple[str, str], Series]:
    """(card, series) → its months, in order; the last point of a month counts."""
    found: dict[tuple[str, str], Series] = defaultdict(dict)
    for point in points:
        if point.usd_micro:
            found[str(point.gpu), point.series][point.month] = point.usd_micro
    return {key: dict(sorted(months.items())) for key, months in sorted(found.items())}


def month_name(month: int) -> str:
    """`2026-09`."""
    return f"{month // 12:04}-{month % 12 + 1:02}"


def typical_move(many: Iterable[Series], months: int) -> Fraction | None:
    """By what factor (at least 1) the middle one of all pairs that lie `months` apart has moved; None without pairs."""
    moves = sorted(
        Fraction(max(then, now), min(then, now))
        for series in many
        for month, then in series.items()
        if (now := series.get(month + months)) is not None
    )
    return moves[len(moves) // 2] if moves else None


@dataclass(frozen=True, slots=True)
class Turns:
    """The highest month of a series, the lowest after it, and the last; each as (month, micro-dollars)."""

    high: tuple[int, int]
    low: tuple[int, int]
    last: tuple[int, int]


def turns(series: Series) -> Turns:
    """The turns of a series that is not empty; of equals the first."""
    high = max(series.items(), key=lambda item: (item[1], -item[0]))
    after = {month: price for month, price in series.items() if month >= high[0]}
    low = min(after.items(), key=lambda item: (item[1], item[0]))
    return Turns(high, low, max(series.items()))


def change_ppm(first: int, last: int) -> int:
    """How much `last` is above `first` (over zero), in parts per million; negative when below."""
    return last * 10**6 // first - 10**6


def monthly_trend(series: Series) -> float | None:
    """The middle slope of the logarithm of the price per month over all pairs (Theil and Sen); None below two months.

    A price that halves in 30 months has −0.0231.
    """
    import math

    points = [(month, math.log(price)) for month, price in series.items()]
    slopes = sorted(
        (later[1] - point[1]) / (later[0] - point[0]) for i, point in enumerate(points) for later in points[i + 1 :]
    )
    return slopes[len(slopes) // 2] if slopes else None
