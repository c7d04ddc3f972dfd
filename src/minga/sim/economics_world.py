"""The numbers of the economic simulator: terms of the network, and jobs drawn by the thousand.

Knows: prices, rates, stakes, the rules that may be switched off. Does not know: who plays what (`economics_cheats`,
`economics_checks`). Money is int64 token units; a share is a float only where a chance is drawn. Needs numpy.

Rule: everything random comes from the seed; the same seed gives the same jobs, whatever is played with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minga.core.units import BPS
from minga.protocol import audit, audit_pay
from minga.protocol.settlement import FEE_BPS_DEFAULT

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Dice = np.random.Generator

DOLLAR = 10**6
CHEAPEST = DOLLAR // 2
"""The cheapest job: about what the fund can pay an audit of."""

SEATS = 63
"""Seats of Disputes' pool."""

RULES = {
    "floor": "validators: no audit rate below what the stake factor covers (protocol/audit.py)",
    "cover": "tenants: stake that an open game may take covers no other job (audit.covers)",
    "late": "tenants: nothing more is paid once a commitment came before the job's end",
    "funded": "tenants: a job is verified only if its fee, or its tenant, pays each validator for one leaf",
    "demand": "Disputes: who does not commit to a verified job loses like one that is silent",
    "bond": "Disputes: what is left of a lost bond goes to the audit fund, not to the provider",
    "shared": "Disputes: an acquitted provider bears half of the seats, so that nobody baits challengers for seat fees",
    "void": "Disputes: the seats of a game that another has ended are paid by its own challenger, not by the slash",
    "coherent": "Disputes: a referee whom the final vote contradicts gets no fee and loses ten",
}
"""What the claims rest on beyond the first design, and who keeps it. Each can be left out, to see what pays then."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A network. Shares are basis points, money is token units.

    `rate` is what a settled provider is audited at; `factor` the stake for each unit of exposure; `collusion` the share
    of validators and of referees that are with the cheat; `saving` g, what a fake of the whole job saves of its price.
    `hold`, `jury` and what follows are those of Disputes' preset for production.
    """

    rate: int = audit.floor_bps(audit.FACTOR)
    factor: int = audit.FACTOR
    collusion: int = 3_000
    saving: int = audit.SAVING_BPS
    fee: int = FEE_BPS_DEFAULT
    hold: int = 1_000
    jury: int = 7
    seat_fee: int = DOLLAR // 2
    bond: int = 50 * DOLLAR
    referee_stake: int = 2_000 * DOLLAR
    online: int = 9_700
    move_gas: int = 12_200
    margin: int = audit_pay.MARGIN_BPS
    canaries: int = audit_pay.CANARY_BPS
    rules: frozenset[str] = frozenset(RULES)

    @property
    def silence(self) -> int:
        """What a vote that is not revealed costs its referee."""
        return self.referee_stake // 20

    @property
    def contradicted(self) -> int:
        """What a vote against the final one costs its referee, with the rule `coherent`."""
        return 10 * self.seat_fee

    @property
    def corrupt_seats(self) -> int:
        """Referees that are with the cheat, rounded up."""
        return -(-SEATS * self.collusion // BPS)

    @classmethod
    def at(cls, rate: int, **other: Any) -> Terms:
        """The terms with the stake that the formula asks at a rate: the smallest whole factor."""
        return cls(rate=rate, factor=max(1, audit.stake_for(1, rate)), **other)


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs of `slots` providers one after the other, shape (slots, steps): price and deposit, leaves, kept states."""

    price: Ints
    deposit: Ints
    leaves: Ints
    keep: Ints

    @property
    def shape(self) -> tuple[int, int]:
        """(slots, steps)."""
        slots, steps = self.price.shape
        return slots, steps


def drawn_jobs(
    seed: int,
    jobs: int,
    steps: int = 50,
    level: bool = False,
    slack: int = 0,
    least: int = CHEAPEST,
    octaves: int = 9,
) -> Jobs:
    """Jobs with prices of 1 to 1,024 times `least`, half of them under 12; whole numbers, the same on every machine.

    Args:
        jobs: how many in all; rounded up to whole providers of `steps` each.
        level: whether a provider's jobs all have the price of its first, so that its stake is just enough for one.
        slack: how far above the price a deposit may be, basis points.
        least: the lowest price, token units.
        octaves: how often the price may double; 0 for nothing but the cheapest, below twice `least`.
    """
    dice = np.random.default_rng([seed, 1])
    shape = (-(-jobs // steps), steps)
    octave = np.left_shift(least, dice.binomial(octaves, 0.33, shape))
    price = octave + dice.integers(0, octave)
    above = dice.integers(0, slack + 1, shape)
    if level:
        price[:] = price[:, :1]
        above[:] = above[:, :1]
    octave = np.left_shift(200, dice.integers(0, 7, shape))
    leaves = octave + dice.integers(0, octave)
    return Jobs(price, price + price * above // BPS, leaves, dice.integers(1, 11, shape))


def pay_down(price: Ints, rate: Ints, terms: Terms) -> Ints:
    """`audit_pay.pay_down`, for arrays: token units for each validator."""
    fee = price * terms.fee // BPS
    return fee * audit_pay.AUDIT_SHARE_BPS // (rate * validators(rate))


def validators(rate: Ints) -> Ints:
    """`audit.validators_for`, for arrays."""
    return np.where(rate == audit.RATE_NEW_BPS, audit.VALIDATORS_NEW, audit.VALIDATORS).astype(np.int64)


def leaves_owed(price: Ints, leaves: Ints, keep: Ints, rate: Ints, terms: Terms) -> Ints:
    """`audit_pay.leaves_owed`, for arrays: 0 where the fund does not pay for one leaf."""
    spend = np.maximum(0, pay_down(price, rate, terms) * BPS // terms.margin - audit_pay.FIXED_COST)
    owed = spend * 2 * (leaves - 1) // (price * (keep + 1))
    return np.minimum(owed, leaves - 1)


def work_cost(price: Ints, leaves: Ints, keep: Ints, count: Ints | int, terms: Terms) -> Ints:
    """What doing `count` sampled leaves again costs, fixed part aside: computing is g of the price."""
    return price * terms.saving // BPS * count * (keep + 1) // (2 * (leaves - 1))


def rates(jobs: Ints, value: Ints, age: Ints, exposure: Ints, terms: Terms) -> Ints:
    """`audit.rate_bps`, for arrays, with the terms' rate as the settled one and as the floor."""
    by_age = age * audit.CREDIT_SETTLED // audit.CREDIT_AGE_SECONDS
    credit = np.minimum(value // exposure, by_age)
    lower = terms.rate if "floor" in terms.rules else audit.RATE_SETTLED_BPS
    settled = np.where(credit < audit.CREDIT_SETTLED, max(lower, audit.RATE_KNOWN_BPS), lower)
    is_new = (jobs < audit.JOBS_NEW) | (credit < audit.CREDIT_KNOWN)
    return np.where(is_new, audit.RATE_NEW_BPS, settled).astype(np.int64)
