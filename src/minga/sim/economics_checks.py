"""Those who check: what validators and referees earn by work, and by everything that only looks like it.

Knows: `protocol.audit_pay`'s rules for votes, canaries and retained pay; Disputes' seat fees and fines. Does not know:
who cheats: no provider does here, so that nobody lives on finder's rewards (a careful cheat challenges itself first
and leaves none). Needs numpy.

Rule: pay counts when it is released; a barred name is replaced by a new one at once, for the price of joining.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minga.core.units import BPS
from minga.protocol import audit_pay
from minga.sim import economics_games as games
from minga.sim.economics_world import (
    SEATS,
    Dice,
    Floats,
    Ints,
    Jobs,
    Terms,
    drawn_jobs,
    leaves_owed,
    pay_down,
    work_cost,
)

OVERHEAD = 2_000
"""Token units that two messages and being on line cost for each audit, whoever does nothing else."""

CANARY_FAKES = (1_000, 3_000, 5_000)
"""Shares of leaves that planters spoil, basis points, each as often as the others."""

JOIN_GAS = 4
"""Moves that a new name costs: leave, withdraw, approve, join."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a validator audits: the share of its leaves that it does again, and what it says without."""

    name: str
    story: str
    work: int = 0
    accuses: bool = False
    silent: bool = False
    told: bool = False
    """Whether corrupt planters (the terms' share of all) tell it which canaries are theirs, and where."""


VALIDATORS = (
    Way("honest", "does all of its leaves again", work=BPS),
    Way("half", "does half of them, and trusts the rest", work=BPS // 2),
    Way("nine-tenths", "does nine in ten", work=9 * BPS // 10),
    Way("lazy", "says that all follow"),
    Way("copying", "repeats another's opened vote under its own name, of other leaves"),
    Way("accusing", "says that nothing follows", accuses=True),
    Way("silent", "does not vote", silent=True),
    Way("ring", "does nothing, and knows the canaries of corrupt planters", told=True),
)


@dataclass(frozen=True, slots=True)
class Earned:
    """What a way of checking earned, token units for each audit or seat: one mean for each name, shape (names,)."""

    name: str
    profit: Floats
    released: float
    barred: float


def audit_for_pay(way: Way, jobs: Jobs, terms: Terms, seed: int) -> Earned:
    """Let each provider's row of jobs be the audits of one validator's name; only those that the fund pays for."""
    dice = np.random.default_rng([seed, 3])
    names, audits = jobs.shape
    retained, profit = np.zeros((2, names), dtype=np.int64)
    released, barred = np.zeros((2, names), dtype=np.int64)
    done = np.zeros(names, dtype=np.int64)
    for at in range(audits):
        price, leaves, keep = jobs.price[:, at], jobs.leaves[:, at], jobs.keep[:, at]
        rate = np.full(names, terms.rate, dtype=np.int64)
        owed = leaves_owed(price, leaves, keep, rate, terms)
        funded = owed > 0
        pay = np.where(funded, pay_down(price, rate, terms), 0)
        done += funded
        profit -= np.where(funded, _cost(way, price, leaves, keep, owed, terms), 0)
        found, wrong = _answers(way, owed, terms, dice)
        found, wrong = found & funded, wrong & funded
        retained += 0 if way.silent else pay
        free = np.where(found, retained, 0)
        released += free
        retained = np.where(found | wrong, 0, retained)
        barred += wrong
        profit += free - np.where(wrong, JOIN_GAS * terms.move_gas, 0)
    each = np.maximum(1, done)
    return Earned(way.name, profit / each, float((released / each).mean()), float((barred / each).mean()))


def _cost(way: Way, price: Ints, leaves: Ints, keep: Ints, owed: Ints, terms: Terms) -> Ints:
    work = work_cost(price, leaves, keep, owed, terms) * way.work // BPS
    return work + (audit_pay.FIXED_COST if way.work else 0 if way.silent else OVERHEAD)


def _answers(way: Way, owed: Ints, terms: Terms, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Which votes find a canary's fault, and which are wrong; the rest show nothing. Two arrays of bool."""
    size = len(owed)
    canary = dice.random(size) * BPS < terms.canaries
    spoilt = dice.choice(np.array(CANARY_FAKES), size) / BPS
    hits = np.where(canary, dice.binomial(owed, spoilt), 0)
    nothing = np.zeros(size, dtype=np.bool_)
    if way.silent:
        return nothing, nothing
    if way.accuses:
        right = canary & (hits == owed) & (hits > 0)
        return right, ~right
    seen = dice.binomial(hits, way.work / BPS) == hits
    if way.told:
        seen = dice.random(size) * BPS < terms.collusion
    return (hits > 0) & seen, (hits > 0) & ~seen


# ------------------------------------------------------------------------------------------------------------ referees

REFEREES = ("honest", "always-convict", "always-acquit", "coin", "silent")


def sit_for_pay(way: str, cases: int, guilty: int, terms: Terms, seed: int) -> Earned:
    """What a seat earns in `cases` games of which `guilty` basis points are against a provider that is wrong.

    The others are honest but for the terms' corrupt, who vote for a guilty provider and against an innocent one; a jury
    that errs is appealed, so that the final verdict is the truth. A leaf costs what it does in drawn jobs.
    """
    dice = np.random.default_rng([seed, 4])
    guilt = dice.random(cases) * BPS < guilty
    truth_wins = games.judge(dice, cases, np.ones(cases, dtype=np.bool_), terms).convicted
    final_guilty = np.where(truth_wins, guilt, ~guilt)
    votes_guilty = {
        "honest": guilt,
        "always-convict": np.ones(cases, dtype=np.bool_),
        "always-acquit": np.zeros(cases, dtype=np.bool_),
        "coin": dice.random(cases) < 0.5,
        "silent": guilt,
    }[way]
    gas = 2 * terms.move_gas
    if way == "silent":
        return Earned(way, np.full(cases, float(-terms.silence)), 0.0, 1.0)
    agrees = votes_guilty == final_guilty
    paid = np.where(agrees | ("coherent" not in terms.rules), terms.seat_fee, -terms.contradicted)
    cost = gas + (leaf_costs(cases, terms, seed) if way == "honest" else 0)
    return Earned(way, (paid - cost).astype(np.float64), float(paid.mean()), float((paid < 0).mean()))


def leaf_costs(cases: int, terms: Terms, seed: int) -> Ints:
    """What one leaf of drawn jobs costs a referee, its inputs included; shape (cases,)."""
    jobs = drawn_jobs(seed + 1, cases)
    cost = work_cost(jobs.price, jobs.leaves, jobs.keep, 1, terms) + audit_pay.FIXED_COST
    return cost.ravel()[:cases]


def pool_is_safe(terms: Terms) -> bool:
    """Whether the honest who are on line outvote the corrupt in a vote of the whole pool, on average."""
    honest = (SEATS - terms.corrupt_seats) * terms.online
    return 2 * terms.corrupt_seats * BPS < terms.corrupt_seats * BPS + honest
