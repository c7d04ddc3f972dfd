"""What a job will cost and when it will end, on one offer or another, before anything is bought.

`order` ranks by expected cost per unit of work (`minga.protocol.quote_model`); `estimates` gives p50 and p90 of cost
and finish time. Those are quantiles over `POINTS` fixed points of a rank-1 lattice through what is not known (work,
rate, interruptions, losses, start, restarts, first interruption, end, moves), each of equal weight: no dice, and the
same question has the same answer everywhere, to the last digit.

Does not know: clocks, histories (`minga.client.past`). Rule: floats end here; amounts are rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from statistics import NormalDist

from minga.core.units import HOUR
from minga.protocol.beliefs import LOG_MAX, Belief, Rate, failures_at, student
from minga.protocol.matching import PPM, Ranked
from minga.protocol.quote_model import (
    STRETCH_MAX,
    Habits,
    Limits,
    Risks,
    Side,
    Work,
    per_work_hour,
    segment_s,
    side_of,
    stretch,
)

POINTS = 509
GENERATOR = 62
"""Of the lattice: among all generators of 509 points the one whose worst plane projection has the longest shortest
vector (15.3 of 24.2 possible)."""

HEARTBEAT_S = 15
"""A provider that vanishes is silent for so long before the job leaves it."""

SECONDS_MAX, COST_MAX = 2.0**40, 2.0**120


@dataclass(frozen=True)
class Estimate:
    """What a job would be on one offer; amounts are token units rounded up, times whole seconds from now.

    `per_work_hour`: expected cost of what the reference machine does in an hour. `pace_ppm`: time on this machine per
    time on the reference. `rework_ppm`: expected time lost to interruptions, per time of work. `breaks_per_day_ppm`:
    interruptions of a day's work. Costs and finish are None where the duration is not known; they are what the job
    needs to its end, whatever its budget: `within_budget_ppm` says how likely the budget is enough. The mean leaves out
    the dearest hundredth, where an average is one of what nobody would wait for.
    """

    item: Ranked
    per_work_hour: int
    pace_ppm: int
    rework_ppm: int
    breaks_per_day_ppm: int
    notice_s: int
    start_p50_s: int
    start_p90_s: int
    cost_mean: int | None = None
    cost_p50: int | None = None
    cost_p90: int | None = None
    finish_p50_s: int | None = None
    finish_p90_s: int | None = None
    within_budget_ppm: int | None = None
    within_deadline_ppm: int | None = None


def order(matches: Sequence[Ranked], work: Work, risks: Risks) -> list[Ranked]:
    """Matching offers, the least expected cost per unit of work first; ties as in `matching.rank`."""

    def key(item: Ranked) -> tuple[int, int, str]:
        side = side_of(item, work, risks(item.bundle.offer.provider))
        return math.ceil(per_work_hour(side, work)), item.quantum, item.offer_hash

    return sorted(matches, key=key)


# --------------------------------------------------------------------------------------------------------- estimates

WORK, RATE, LOSSES, LOST, START, RESTARTS, FIRST, END, MOVES = range(9)
"""Coordinates of a point."""

_SHARES = frozenset({LOSSES, FIRST, MOVES})


@cache
def grid(place: int) -> tuple[float, ...]:
    """One coordinate of every point: the score of a standard normal; the share of 1 for losses, first and moves."""
    stride = pow(GENERATOR, place, POINTS)
    shares = ((number * stride % POINTS + 0.5) / POINTS for number in range(POINTS))
    return tuple(shares) if place in _SHARES else tuple(NormalDist().inv_cdf(share) for share in shares)


@lru_cache(256)
def _students(place: int, freedom: float) -> tuple[float, ...]:
    return tuple(student(score, freedom) for score in grid(place))


def _seconds(belief: Belief, place: int, more: float = 0.0) -> list[float]:
    """A belief's seconds at every point, with the spread of one more cause."""
    mean, width = belief.mean, math.hypot(belief.scale(), more)
    return [math.exp(min(mean + width * score, LOG_MAX)) for score in _students(place, belief.freedom)]


def estimates(
    ordered: Sequence[Ranked], work: Work, habits: Habits, risks: Risks, limits: Limits, count: int = 1
) -> tuple[Estimate, ...]:
    """What the job would be on each of the first `count` offers.

    After its first interruption a job goes on at the best offer of another machine, at that one's price and pace.

    Args:
        ordered: the matching offers, as `order` gives them.
        work, habits, risks, limits: what is believed, and the job's limits.
        count: how many are estimated.
    """
    shown = min(len(ordered), count)
    sides = [side_of(item, work, risks(item.bundle.offer.provider)) for item in ordered[: shown + 1]]
    around = [start + end for start, end in zip(_seconds(habits.start, START), _seconds(habits.end, END), strict=True)]
    found = []
    for place in range(shown):
        here, there = sides[place], sides[_next(ordered[: shown + 1], place)]
        bare = _bare(ordered[place], here, work, habits)
        if work.seconds is not None:
            bare = _with_outcomes(bare, _outcomes(here, there, work, habits, around), limits)
        found.append(bare)
    return tuple(found)


def _bare(item: Ranked, here: Side, work: Work, habits: Habits) -> Estimate:
    """What can be said without the job's duration."""
    breaks = here.losing.per_hour + here.kind.per_hour
    again = stretch(here.losing.per_hour / HOUR, segment_s(here, work))
    return Estimate(
        item=item,
        per_work_hour=math.ceil(per_work_hour(here, work)),
        pace_ppm=math.ceil(here.pace * PPM),
        rework_ppm=math.ceil(PPM * (again - 1 + breaks / HOUR * (habits.start.median + HEARTBEAT_S))),
        breaks_per_day_ppm=math.ceil(breaks * 24 * PPM),
        notice_s=item.bundle.terms.notice_s,
        start_p50_s=math.ceil(habits.start.median),
        start_p90_s=math.ceil(habits.start.at(1.2816)),
    )


def _next(ordered: Sequence[Ranked], place: int) -> int:
    """The best offer of another machine; the same one when there is none (it may be taken again after a while)."""
    machine = ordered[place].bundle.offer.machine
    others = (index for index, item in enumerate(ordered) if item.bundle.offer.machine != machine)
    return next(others, place)


def _with_outcomes(found: Estimate, outcomes: list[tuple[int, int]], limits: Limits) -> Estimate:
    costs, ends = sorted(cost for cost, _ in outcomes), sorted(end for _, end in outcomes)
    half, most, last = (POINTS - 1) // 2, math.ceil(POINTS * 0.9) - 1, POINTS - POINTS // 100
    budget, deadline = limits.budget, limits.deadline_s
    return replace(
        found,
        cost_mean=-(-sum(costs[:last]) // last), cost_p50=costs[half], cost_p90=costs[most],
        finish_p50_s=ends[half], finish_p90_s=ends[most],
        within_budget_ppm=None if budget is None else PPM * sum(cost <= budget for cost in costs) // POINTS,
        within_deadline_ppm=None if deadline is None else PPM * sum(end <= deadline for end in ends) // POINTS,
    )  # fmt: skip


def _outcomes(here: Side, there: Side, work: Work, habits: Habits, around: list[float]) -> list[tuple[int, int]]:
    """Token units and seconds to the end, at every point of the grid."""
    assert work.seconds is not None
    wholes = _seconds(work.seconds, WORK, here.spread)
    losing, kind = _rates(here.losing), _rates(here.kind)
    least, price, factor = math.ceil(here.prepaid_s), here.price, here.pace
    found = []
    for number, (seconds, breaks, moves, untouched, unmoved) in enumerate(
        zip(wholes, losing, kind, grid(LOSSES), grid(MOVES), strict=True)
    ):
        whole = seconds * factor
        loses, moved = untouched > math.exp(-breaks * whole), unmoved > math.exp(-moves * whole) or whole > here.lease_s
        paid, paid_there, taken = whole, 0.0, whole
        if loses or moved:
            losses, lost = _losses(number, breaks, whole, work) if loses else (0, 0.0)
            others = _moves(unmoved, moves * whole, whole, here)
            if losses + others:
                job = whole, losses, lost, losses + others
                paid, paid_there, taken = _broken(number, here, there, job, work, habits)
        cost = (price * max(math.ceil(paid), least) + there.price * math.ceil(paid_there)) / HOUR
        found.append((math.ceil(min(cost, COST_MAX)), math.ceil(min(around[number] + taken, SECONDS_MAX))))
    return found


@lru_cache(64)
def _gammas(shape: float) -> tuple[float, ...]:
    return tuple(Rate(shape, shape).at(score) for score in grid(RATE))


def _rates(rate: Rate) -> list[float]:
    """A rate at every point, per second."""
    scale = rate.per_hour / HOUR
    return [scale * value for value in _gammas(rate.events)] if scale else [0.0] * POINTS


def _moves(share: float, expected: float, whole: float, side: Side) -> int:
    """How often the job moves and loses nothing: reclaims with notice, leases that end."""
    return failures_at(share, 1e9, expected / 1e9) + int(whole / max(side.lease_s, 1))


def _broken(
    number: int, here: Side, there: Side, job: tuple[float, int, float, int], work: Work, habits: Habits
) -> tuple[float, float, float]:
    """Seconds paid at the first offer and after it, and seconds taken in all, of a job that was interrupted."""
    whole, losses, lost, breaks = job
    share = 1 - (1 - grid(FIRST)[number]) ** (1 / breaks)
    again = there.pace / here.pace
    lost_here = lost / losses if losses else 0.0
    lost_there = (lost - lost_here) * again
    worked_here, worked_there = whole * share, whole * (1 - share) * again
    paid_here = worked_here + _paid(lost_here, min(losses, 1), here, work)
    paid_there = worked_there + _paid(lost_there, losses - 1, there, work)
    restarts = breaks * habits.start.at(grid(RESTARTS)[number] / math.sqrt(breaks)) + losses * HEARTBEAT_S
    return paid_here, paid_there, worked_here + worked_there + lost_here + lost_there + restarts


def _paid(lost_s: float, losses: int, side: Side, work: Work) -> float:
    """Seconds paid of those lost: vouchers come each half quantum, so the last quarter on average was not paid yet."""
    return max(0.0, lost_s - losses * side.quantum / 4) if work.pays_lost else 0.0


def _losses(number: int, rate: float, whole: float, work: Work) -> tuple[int, float]:
    """How often work is lost, and how many seconds of it in all; `rate` is per second, over zero.

    Each part (from checkpoint to checkpoint) is tried until it passes: the failures before that are negative binomial,
    and each loses a time of the exponential law cut off at the part's length.
    """
    part = min(work.checkpoint_s, whole) if work.checkpoint_s else whole
    x = min(rate * part, STRETCH_MAX)
    odds = math.expm1(x)
    count = failures_at(grid(LOSSES)[number], whole / part, odds)
    mean = part * (1 / x - 1 / odds) if x > 1e-3 else part / 2
    variance = part * part * (1 / (x * x) - (1 + odds) / (odds * odds) if x > 1e-2 else 1 / 12)
    total = count * mean + grid(LOST)[number] * math.sqrt(count * max(variance, 0.0))
    return count, min(max(total, 0.0), count * part)
