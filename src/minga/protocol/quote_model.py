"""What an offer costs a job per unit of work: price, speed and expected rework in one number.

Of a job: how long it works on the *reference machine* (a `Belief`), how often it checkpoints (`Work`). Of an offer:
price, promised speed, notice, and how often its provider's leases break (`Risk`). For an offer with hourly price P,
with λ interruptions an hour of which those without enough notice lose work (λ'), checkpoints every c seconds and
restarts of r seconds:

    pace    f = time on this machine / time on the reference      (1 / speed; see `pace`)
    stretch s = (exp(λ'c) − 1) / (λ'c)                            ≈ 1 + λ'·c/2: work done once more
    cost of one reference hour = P·f·s                            the ranking key; restarts are free here
    rework  = s − 1 + λ·r                                         ≈ λ·(c/2 + r): time lost, per time of work

A job without checkpoints begins again: then c is its whole length, and the same formulas hold exactly.

Does not know: clocks, dice, histories (`minga.client.past`). Rule: what is not known is a prior that is written
down here, never a silent zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from minga.core.spec import Speed
from minga.core.units import HOUR
from minga.protocol.beliefs import Belief, Rate
from minga.protocol.matching import PPM, Ranked
from minga.protocol.reliability import Record

PACE_MOST = math.log(20)
STRETCH_MAX = 30.0
"""λ'·c beyond which no job ever ends: e³⁰ tries."""

PACE_UNKNOWN = 0.4
"""Spread of the logarithm of the pace of an offer that promises no speed where others do (prior)."""

NO_SPEED = Speed()

Source = Literal["history", "stated", "unknown"]


@dataclass(frozen=True)
class Work:
    """What is believed of a job. `seconds` of work on the reference machine, or None: nobody knows; `seen`: jobs that
    this rests on. `checkpoint_s`: between checkpoints, 0 without any. `pays_lost`: work that an interruption undoes was
    paid (it is not where only accepted checkpoints are). `grace_s`: what it needs to write a checkpoint when told to.
    `reference`: what the machine that `seconds` are counted on promises, all its leased units together.
    """

    seconds: Belief | None = None
    source: Source = "unknown"
    seen: int = 0
    checkpoint_s: int = 0
    pays_lost: bool = True
    grace_s: int = 30
    reference: Speed = NO_SPEED


@dataclass(frozen=True)
class Habits:
    """How long a start takes (order to running), and an end (exit to settled), in this tenant's experience."""

    start: Belief
    end: Belief


@dataclass(frozen=True)
class Risk:
    """How often leases of a provider break: `lost` without a word, `reclaimed` with the notice of its terms."""

    lost: Rate
    reclaimed: Rate


@dataclass(frozen=True)
class Limits:
    """Budget in token units and deadline in seconds from now; None: no limit."""

    budget: int | None = None
    deadline_s: int | None = None


Risks = Callable[[str], Risk]
"""Provider address → how often its leases break."""


def risk_of(record: Record) -> Risk:
    """The risk that a provider's public record tells.

    Its rate of interruptions is the record's; it is as uncertain as the events behind it are few (and one that the
    prior counts for). The share that came with notice is that of its reclaims, from a prior of one half.
    """
    events = 1.0 + record.left + record.reclaimed
    warned = (record.reclaimed + 0.5) / events
    mean = record.interruptions_ppm / PPM
    return Risk(Rate(events, events / (mean * (1 - warned))), Rate(events, events / (mean * warned)))


@dataclass(frozen=True)
class Side:
    """An offer as the arithmetic needs it. `pace` with the spread of its logarithm; rates by `Rate`; times seconds."""

    price: int
    pace: float
    spread: float
    losing: Rate
    kind: Rate
    lease_s: int
    quantum: int
    prepaid_s: int


# ------------------------------------------------------------------------------------------------------------- speed


def pace(speed: Speed | None, units: int, reference: Speed) -> tuple[float, float]:
    """Time on a machine per time on the reference, and the spread of its logarithm.

    A job may be bound by arithmetic or by memory: the truth is taken to lie between both ratios, at their geometric
    mean, with half their distance as spread. Where only one is known, the other could be 1.
    """
    ratios = []
    for name in ("gemm_mops", "memory_mbps"):
        wanted, each = getattr(reference, name), 0 if speed is None else getattr(speed, name)
        if wanted and each:
            ratios.append(max(-PACE_MOST, min(PACE_MOST, math.log(wanted / (each * units)))))
    if not ratios:
        known = bool(reference.gemm_mops or reference.memory_mbps)
        return 1.0, PACE_UNKNOWN if known else 0.0
    if len(ratios) == 1:
        return math.exp(ratios[0]), abs(ratios[0]) / 2
    return math.exp((ratios[0] + ratios[1]) / 2), abs(ratios[0] - ratios[1]) / 2


def reference_of(matches: Sequence[Ranked]) -> Speed:
    """The median promised speed of the matching offers' leases: what `duration` in a job file counts in."""

    def middle(name: str) -> int:
        promised = (item.bundle.terms.speed for item in matches)
        found = [getattr(speed, name) * item.units for speed, item in zip(promised, matches, strict=True) if speed]
        return int(median(value for value in found if value)) if any(found) else 0

    return Speed(gemm_mops=middle("gemm_mops"), memory_mbps=middle("memory_mbps"))


# ----------------------------------------------------------------------------------------------------------- ranking


def side_of(item: Ranked, work: Work, risk: Risk) -> Side:
    """What of an offer matters to the arithmetic. A notice that is too short for a checkpoint is none."""
    terms, offer = item.bundle.terms, item.bundle.offer
    factor, spread = pace(terms.speed, item.units, work.reference)
    warned = bool(work.checkpoint_s) and terms.notice_s >= max(1, work.grace_s)
    none = Rate(0.0, 1.0)
    losing = risk.lost if warned else both(risk.lost, risk.reclaimed)
    return Side(
        item.price_per_hour, factor, spread, losing, risk.reclaimed if warned else none, offer.seconds_max,
        offer.quantum, offer.quantum * terms.prepaid_quanta,
    )  # fmt: skip


def both(one: Rate, other: Rate) -> Rate:
    """The sum of two rates: the mean is exact, the relative spread that of the better known one's events."""
    mean = one.per_hour + other.per_hour
    events = max(one.events, other.events)
    return Rate(events, events / mean) if mean > 0 else Rate(0.0, 1.0)


def stretch(rate_per_s: float, checkpoint_s: float) -> float:
    """Seconds worked for each that counts, when an interruption undoes what came after the last checkpoint."""
    x = min(rate_per_s * checkpoint_s, STRETCH_MAX)
    return math.expm1(x) / x if x > 1e-9 else 1.0


def per_work_hour(side: Side, work: Work) -> float:
    """Expected token units for one hour of the reference machine's work."""
    again = stretch(side.losing.per_hour / HOUR, segment_s(side, work)) if work.pays_lost else 1.0
    return side.price * side.pace * again


def segment_s(side: Side, work: Work) -> float:
    """Seconds that an interruption undoes at most: up to the last checkpoint, or all; an hour if nobody knows."""
    whole = HOUR if work.seconds is None else work.seconds.median * side.pace
    return min(work.checkpoint_s, whole) if work.checkpoint_s else whole
