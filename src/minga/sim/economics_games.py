"""Disputes as money and chance, for many games at once: juries, appeals, and who gets what of a slash or a bond.

Knows: the arithmetic of `Disputes._settle`, in its order and with its rounding; that a jury is drawn from 63 seats
without putting back, that a tie is the provider's, that the loser may appeal to the whole pool. Does not know: moves
and clocks; who is wrong here has lost the bisection before referees vote on its leaf. Needs numpy.

Rule: what comes in goes out, to the unit: slash + lost bond + lost appeal = seats + tenant + challenger + provider +
fund.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minga.core.units import BPS
from minga.sim.economics_world import SEATS, Bools, Dice, Ints, Terms


@dataclass(frozen=True, slots=True)
class Ruling:
    """How games ended: whether the provider was convicted, how many seats revealed a vote, who appealed."""

    convicted: Bools
    seats: Ints
    challenger_appealed: Bools
    provider_appealed: Bools


@dataclass(frozen=True, slots=True)
class Payout:
    """Where the money of games went, token units. `challenger` and `provider` are on top of bonds that come back.

    `provider` is negative where an acquitted one bears its part of the seats.
    """

    slashed: Ints
    seats: Ints
    tenant: Ints
    challenger: Ints
    provider: Ints
    fund: Ints


def judge(dice: Dice, games: int, faulty: Bools, terms: Terms, stalls: bool = False, appeals: bool = True) -> Ruling:
    """Draw juries and let them vote: the corrupt for the provider, the honest who are on line for the truth.

    Args:
        faulty: whether the opened leaf is false, or was not served; (games,).
        stalls: whether a convicted provider appeals, to win time.
        appeals: whether a challenger with the truth on its side appeals.
    """
    corrupt = dice.hypergeometric(terms.corrupt_seats, SEATS - terms.corrupt_seats, terms.jury, games)
    present = dice.binomial(terms.jury - corrupt, terms.online / BPS)
    convicted = faulty & (2 * corrupt < corrupt + present)  # a tie is the provider's
    whole = dice.binomial(SEATS - terms.corrupt_seats, terms.online / BPS, games)
    convicted_by_pool = faulty & (2 * terms.corrupt_seats < terms.corrupt_seats + whole)
    by_challenger = faulty & ~convicted & appeals
    by_provider = convicted & stalls
    appealed = by_challenger | by_provider
    seats = corrupt + present + np.where(appealed, terms.corrupt_seats + whole, 0)
    return Ruling(np.where(appealed, convicted_by_pool, convicted), seats.astype(np.int64), by_challenger, by_provider)


def accuse_honest(dice: Dice, games: int, terms: Terms, appeals: bool = True) -> Ruling:
    """Sham challenges of honest work: the corrupt vote against the provider, who appeals when the jury errs."""
    corrupt = dice.hypergeometric(terms.corrupt_seats, SEATS - terms.corrupt_seats, terms.jury, games)
    present = dice.binomial(terms.jury - corrupt, terms.online / BPS)
    convicted = 2 * present < corrupt + present
    whole = dice.binomial(SEATS - terms.corrupt_seats, terms.online / BPS, games)
    by_pool = 2 * whole < terms.corrupt_seats + whole
    appealed = convicted & appeals
    seats = corrupt + present + np.where(appealed, terms.corrupt_seats + whole, 0)
    nobody = np.zeros(games, dtype=np.bool_)
    return Ruling(np.where(appealed, by_pool, convicted), seats.astype(np.int64), nobody, appealed)


def settle(ruling: Ruling, exposure: Ints, staked: Ints, paid: Ints, held: Ints, terms: Terms) -> Payout:
    """Divide what the losers leave, as `Disputes._settle` and `apply` do; the fund's own money is not drawn on.

    Args:
        exposure: the deposits that were committed for.
        staked: what Registry can take from the provider.
        paid: what the tenant paid, gross.
        held: of it, what Market gives back.
    """
    won = ruling.convicted
    slashed = np.where(won, np.minimum(exposure * terms.factor, staked), 0)
    prepaid = SEATS * terms.seat_fee
    lost_appeal = np.where(won, ruling.provider_appealed, ruling.challenger_appealed) * prepaid
    pot = np.where(won, slashed, terms.bond) + lost_appeal
    seat_fee = np.minimum(terms.seat_fee, pot // np.maximum(1, ruling.seats))
    fees = ruling.seats * seat_fee
    rest = pot - fees
    share = np.where(won, np.minimum(slashed // 2, rest), 0)
    claim = np.minimum(np.minimum(exposure, share), np.where(won, paid - held, 0))
    rest = rest - share
    to_provider = np.where(won | ("bond" in terms.rules), 0, rest)
    if "shared" in terms.rules:
        to_provider = to_provider - np.where(won, 0, fees // 2)
    return Payout(slashed, fees, claim, share - claim, to_provider, rest - to_provider)


def jury_errs(terms: Terms) -> float:
    """The chance that a jury is wrong about a fault, exactly, when all who are honest reveal their votes."""
    from math import comb

    bad, good, jury = terms.corrupt_seats, SEATS - terms.corrupt_seats, terms.jury
    ways = sum(comb(bad, k) * comb(good, jury - k) for k in range(jury + 1) if 2 * k >= jury)
    return ways / comb(SEATS, jury)
