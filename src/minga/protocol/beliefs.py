"""What is believed of a quantity that was seen a few times: a duration, a delay, a rate of interruptions.

A `Belief` is about positive seconds that spread by factors: their logarithms are taken as normal with unknown mean and
variance, under the conjugate prior (normal-inverse-gamma). What will be seen next then follows Student's t in the
logarithm, wide while little was seen. A `Rate` is about a Poisson process: a gamma distribution of events an hour.

| belief | prior: median (weight), spread (freedom) | after values x₁ … xₙ (logarithms, mean x̄)                      |
|--------|------------------------------------------|----------------------------------------------------------------|
| mean   | m (k)                                    | (k·m + n·x̄) / (k + n)                                          |
| spread | s (f)                                    | s² ← (f·s² + Σ(xᵢ−x̄)² + k·n/(k+n)·(x̄−m)²) / (f + n), f ← f + n |
| next   | t_f · s·√(1 + 1/k) around m              |                                                                |

Does not know: what the seconds are. Rule: no dice; a quantile is asked for by its *score*, the standard normal's.
Floats live here and never reach an amount unrounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

LEAST_S = 0.5
"""Times are kept in whole seconds: one that was under a second counts as half a one."""

SCORE_MAX = 3.5
"""Scores beyond ±3.5 (one in 4,000) are not believed to mean anything."""

FREEDOM_LEAST = 3.0

LOG_MAX = 40.0
"""Of seconds: longer than the universe."""


@dataclass(frozen=True)
class Belief:
    """Seconds, by their logarithm: `mean` of it, `weight` of that mean, `spread` (≥ 0), `freedom` (> 0)."""

    mean: float
    weight: float
    spread: float
    freedom: float

    @classmethod
    def of(cls, median_s: float, spread: float, weight: float = 1.0, freedom: float = 4.0) -> Belief:
        """A prior: its median in seconds, and the standard deviation of one value's logarithm."""
        return cls(math.log(max(median_s, LEAST_S)), weight, spread, freedom)

    def seen(self, values_s: Iterable[float]) -> Belief:
        """What is believed after some more values (seconds) were seen."""
        logs = [math.log(max(value, LEAST_S)) for value in values_s]
        count = len(logs)
        if not count:
            return self
        middle = math.fsum(logs) / count
        weight, freedom = self.weight + count, self.freedom + count
        squares = self.freedom * self.spread**2 + math.fsum((value - middle) ** 2 for value in logs)
        squares += self.weight * count / weight * (middle - self.mean) ** 2
        mean = (self.weight * self.mean + count * middle) / weight
        return Belief(mean, weight, math.sqrt(squares / freedom), freedom)

    def shifted(self, factor: float) -> Belief:
        """The same belief of values `factor` (> 0) times as long."""
        return Belief(self.mean + math.log(factor), self.weight, self.spread, self.freedom)

    def scale(self) -> float:
        """The scale of the next value's logarithm: its own spread, and how well the mean is known."""
        return self.spread * math.sqrt(1 + 1 / self.weight) if self.weight > 0 else self.spread

    def at(self, score: float, more: float = 0.0) -> float:
        """Seconds that the next value stays under with the probability of a normal `score`.

        Args:
            score: as of a standard normal; 0 the median, 1.2816 the 90th percentile.
            more: standard deviation of a further, independent cause (in logarithms).
        """
        width = math.hypot(self.scale(), more)
        return math.exp(min(self.mean + width * student(score, self.freedom), LOG_MAX))

    @property
    def median(self) -> float:
        """Seconds that the next value is as likely over as under."""
        return math.exp(min(self.mean, LOG_MAX))


def student(score: float, freedom: float) -> float:
    """Student's t with the same probability below it as a normal `score`; Hill's expansion to the third order."""
    z = max(-SCORE_MAX, min(SCORE_MAX, score))
    f = max(freedom, FREEDOM_LEAST)
    square = z * z
    first = (square + 1) / 4
    second = (5 * square * square + 16 * square + 3) / 96
    third = (3 * square**3 + 19 * square**2 + 17 * square - 15) / 384
    return z * (1 + first / f + second / f**2 + third / f**3)


@dataclass(frozen=True)
class Rate:
    """Events of a Poisson process: a gamma distribution of shape `events` (> 0) over `hours` (> 0)."""

    events: float
    hours: float

    def seen(self, events: float, hours: float) -> Rate:
        """What is believed after `events` in `hours` more."""
        return Rate(self.events + events, self.hours + hours)

    @property
    def per_hour(self) -> float:
        """The mean."""
        return self.events / self.hours

    def at(self, score: float) -> float:
        """Events an hour that the rate stays under with the probability of a normal `score`.

        Wilson and Hilferty's cube root; under a shape of one, where that is poor, the power law of the gamma's foot.
        """
        if self.events <= 0:
            return 0.0
        shape = max(self.events, 1.0)
        root = 1 - 1 / (9 * shape) + score / (3 * math.sqrt(shape))
        return shape * max(root, 0.0) ** 3 / self.hours * (self.events / shape)


def failures_at(share_below: float, runs: float, odds: float) -> int:
    """The number of failures before `runs` successes that has at most `share_below` (0 … 1) of probability below it.

    `odds` is failures per success of one run: (1 − p) / p. The law is the negative binomial; with many runs and small
    odds it is Poisson's. Past 40 expected failures a gamma of the same mean and variance stands for it.
    """
    mean = runs * odds
    if mean <= 0.0:
        return 0
    if mean > 40:
        shape = mean / (1 + odds)
        return round(Rate(shape, shape / mean).at(NormalDist().inv_cdf(min(max(share_below, 1e-4), 1 - 1e-4))))
    share = odds / (1 + odds)
    chance = below = math.exp(-runs * math.log1p(odds))
    count = 0
    while below < share_below and count < 1000:
        chance *= (runs + count) / (count + 1) * share
        below += chance
        count += 1
    return count
