"""Plays one way of cheating over thousands of jobs, beside honest play of the same jobs.

Knows: audits, games, stakes over time. Does not know: prices' origin, tables. Time goes in steps of one hold (three
days, one job a provider): a stake is free again when the hold is over. Needs numpy.

What is counted is the *difference* to honest play of the same job, token units: what the fake saved, less what it cost.
An honest provider earns price − fee − cost; a cheat has that anyway until somebody finds out.

Rule: who cheats knows everything that is public when it chooses, and nothing of the beacon.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from minga.core.units import BPS, DAY
from minga.protocol import audit
from minga.sim import economics_games as games
from minga.sim.economics_cheats import Cheat
from minga.sim.economics_world import (
    DOLLAR,
    SEATS,
    Bools,
    Dice,
    Ints,
    Jobs,
    Terms,
    leaves_owed,
    pay_down,
    rates,
    validators,
)

STEP_SECONDS = 3 * DAY
STALL_STEPS = 5
"""How many holds a game can be made to last: 2 · 96 h of clocks and 6 · 24 h of votes are 14 days."""

ROUNDS = 3
"""Moves of the provider in a usual game: 16 children each, up to 4,096 leaves."""

CHEAP = DOLLAR // 100
SETTLED_VALUE, SETTLED_AGE = 2**60, 365 * DAY


@dataclass
class Slots:
    """Providers, one in each slot: the records that validators see, and their stakes."""

    jobs: Ints
    value: Ints
    age: Ints
    staked: Ints
    name: Ints
    """Counts the names that a slot has had; a stake belongs to a name."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Games that were opened at one step and end later; `where` are slots, the rest one number for each of them."""

    where: Ints
    name: Ints
    price: Ints
    exposure: Ints
    faulty: Bools


@dataclass
class Tally:
    """What a play has found: the difference to honest play of each job (slots, steps), and counts."""

    gain: Ints
    faked: int = 0
    audited: int = 0
    games: int = 0
    convicted: int = 0
    slashed: int = 0
    fund: int = 0
    validators_lost: int = 0
    queue: deque[Pending] = field(default_factory=deque)


def newcomers(slots: int) -> Slots:
    """Providers without a record."""
    return Slots(*(np.zeros(slots, dtype=np.int64) for _ in range(5)))


def settle_records(state: Slots, where: Ints | Bools) -> None:
    """Give slots the best record there is."""
    state.jobs[where], state.value[where], state.age[where] = 1000, SETTLED_VALUE, SETTLED_AGE


def clear_records(state: Slots, where: Ints | Bools) -> None:
    """Make slots newcomers under a new name."""
    state.jobs[where] = state.value[where] = state.age[where] = state.staked[where] = 0
    state.name[where] += 1


def play(cheat: Cheat, jobs: Jobs, terms: Terms, seed: int) -> Tally:
    """Play `cheat` over all jobs; the tally's `gain` is token units per job against honest play."""
    dice = np.random.default_rng([seed, 2])
    slots, steps = jobs.shape
    state, tally = newcomers(slots), Tally(np.zeros((slots, steps), dtype=np.int64))
    if not (cheat.fresh_every or cheat.reborn or cheat.cheap_jobs or cheat.bought_value):
        settle_records(state, np.arange(slots))
    if cheat.bought_value:
        _buy_value(cheat, jobs, state, tally, terms)
    for step in range(steps):
        _one_step(cheat, jobs, state, tally, terms, dice, step)
        if cheat.stalls and len(tally.queue) > STALL_STEPS:
            _end_games(cheat, tally.queue.popleft(), state, tally, terms, dice, step - STALL_STEPS)
    for left, pending in enumerate(list(tally.queue)):
        _end_games(cheat, pending, state, tally, terms, dice, steps - len(tally.queue) + left)
    return tally


def _buy_value(cheat: Cheat, jobs: Jobs, state: Slots, tally: Tally, terms: Terms) -> None:
    """Own jobs at inflated prices: nothing is worked, the fee is real; the age of the stake comes by waiting."""
    value = jobs.deposit[:, 0] * cheat.bought_value
    state.jobs[:], state.value[:], state.age[:] = audit.JOBS_NEW, value, SETTLED_AGE
    tally.gain[:, 0] -= value * terms.fee // BPS + audit.JOBS_NEW * terms.move_gas * 4


def _one_step(cheat: Cheat, jobs: Jobs, state: Slots, tally: Tally, terms: Terms, dice: Dice, step: int) -> None:
    price, deposit = jobs.price[:, step], jobs.deposit[:, step]
    if cheat.fresh_every and step % cheat.fresh_every == 0:
        clear_records(state, np.arange(len(price)))
    gain = _own_jobs(cheat, state, terms, len(price)) if cheat.cheap_jobs else np.zeros(len(price), dtype=np.int64)
    exposure = deposit // 10 if cheat.early and "late" not in terms.rules else deposit
    in_dispute = _exposed(tally.queue, state, terms)
    state.staked = np.maximum(state.staked, terms.factor * (exposure + in_dispute))
    rate = rates(state.jobs, state.value, state.age, exposure, terms)
    faked = _chosen(cheat, rate, dice)
    owed = leaves_owed(price, jobs.leaves[:, step], jobs.keep[:, step], rate, terms)
    audited = (dice.random(len(price)) * BPS < rate) & ((owed > 0) | ("funded" in terms.rules))
    looked = dice.binomial(validators(rate), 1 - terms.collusion / BPS).astype(np.int64)
    saving = price * terms.saving // BPS * cheat.worth // BPS
    bribe = audited * (validators(rate) - looked) * pay_down(price, rate, terms) if cheat.bribes else 0
    gain = gain + np.where(faked, saving - bribe, 0)
    if cheat.sham:
        gain -= faked * _sham_cost(terms, dice, len(price))
    found = faked & _found(cheat, audited, looked, owed, terms, dice)
    passed = ~found & audited
    state.jobs += passed
    state.value += np.where(passed, price, 0)
    state.age += STEP_SECONDS
    tally.gain[:, step] += gain
    tally.faked += int(faked.sum())
    tally.audited += int(audited.sum())
    true_fault = dice.random(len(price)) * BPS < cheat.fake if cheat.serves_late else np.ones(len(price), dtype=bool)
    where = np.flatnonzero(found)
    pending = Pending(where, state.name[where], price[where], exposure[where], true_fault[where])
    if cheat.stalls:
        tally.queue.append(pending)
    else:
        _end_games(cheat, pending, state, tally, terms, dice, step)


def _exposed(queue: deque[Pending], state: Slots, terms: Terms) -> Ints:
    """Exposure of each slot's name under open games; nothing where nobody looks at that."""
    exposed = np.zeros(len(state.name), dtype=np.int64)
    if "cover" in terms.rules:
        for pending in queue:
            own = state.name[pending.where] == pending.name
            exposed[pending.where[own]] += pending.exposure[own]
    return exposed


def _own_jobs(cheat: Cheat, state: Slots, terms: Terms, slots: int) -> Ints:
    """Cheap jobs bought from oneself: the record that they make, and their cost (fee, and four transactions each)."""
    state.jobs += cheat.cheap_jobs
    state.value += cheat.cheap_jobs * CHEAP
    return np.full(slots, -cheat.cheap_jobs * (CHEAP * terms.fee // BPS + 4 * terms.move_gas), dtype=np.int64)


def _chosen(cheat: Cheat, rate: Ints, dice: Dice) -> Bools:
    if cheat.when == "lenient":
        return np.asarray(rate == rate.min(), dtype=np.bool_)
    if cheat.when == "lucky":
        return np.asarray(dice.random(len(rate)) < 0.5, dtype=np.bool_)
    return np.ones(len(rate), dtype=np.bool_)


def _found(cheat: Cheat, audited: Bools, looked: Ints, owed: Ints, terms: Terms, dice: Dice) -> Bools:
    """Whose fake is challenged: `looked` honest validators did `owed` leaves each, and at least one."""
    if not cheat.commits:
        return np.full(len(owed), "demand" in terms.rules)
    if cheat.early and "late" in terms.rules:
        return np.ones(len(owed), dtype=np.bool_)  # the tenant sees the commitment, and need not be drawn
    if cheat.withholds:
        return audited & (looked > 0)
    missed = (1.0 - cheat.fake / BPS) ** (np.maximum(1, owed) * looked).astype(np.float64)
    return audited & (looked > 0) & (dice.random(len(owed)) >= missed)


def _sham_cost(terms: Terms, dice: Dice, games_: int) -> Ints:
    """A friend's lost challenge costs the bond, or, where the provider gets that, the seats that are not ours."""
    ruling = games.accuse_honest(dice, games_, terms)
    lost = np.where(ruling.convicted, 0, terms.bond)
    back = np.zeros(games_, dtype=np.int64) if "bond" in terms.rules else lost - ruling.seats * terms.seat_fee
    own_seats = ruling.seats * terms.seat_fee * terms.collusion // BPS
    return lost - np.maximum(0, back) - np.where(ruling.convicted, 0, own_seats)


def _end_games(cheat: Cheat, pending: Pending, state: Slots, tally: Tally, terms: Terms, dice: Dice, step: int) -> None:
    """Decide the games that were opened at `step`, move the money, and give the convicted their next record."""
    where = pending.where
    if not len(where):
        return
    alive = state.name[where] == pending.name
    staked = np.where(alive, state.staked[where], 0)
    ruling = games.judge(dice, len(where), pending.faulty, terms, stalls=cheat.stalls or cheat.appeals)
    if not cheat.commits:  # silence: the clock decides, and no referee is asked
        ruling = games.Ruling(np.ones(len(where), dtype=np.bool_), ruling.seats * 0, *(np.zeros((2, len(where)), bool)))
    net = price_after_fee(pending.price, terms)
    held = np.where(ruling.convicted, 0 if cheat.stalls else net * terms.hold // BPS, 0)
    payout = games.settle(ruling, pending.exposure, staked, pending.price, held, terms)
    tally.gain[where, step] -= _loss(cheat, ruling, payout, held, terms)
    tally.games += len(where)
    tally.convicted += int(ruling.convicted.sum())
    tally.slashed += int(payout.slashed.sum())
    tally.fund += int(payout.fund.sum())
    tally.validators_lost += int((~ruling.convicted).sum()) * terms.bond
    gone = where[ruling.convicted & alive]
    state.staked[where] -= np.where(alive, payout.slashed, 0)
    if cheat.reborn or cheat.fresh_every or cheat.cheap_jobs or cheat.bought_value:
        clear_records(state, gone)
    else:
        state.name[gone[state.staked[gone] == 0]] += 1


def price_after_fee(price: Ints, terms: Terms) -> Ints:
    """What a provider is paid, held part included."""
    return price - price * terms.fee // BPS


def _loss(cheat: Cheat, ruling: games.Ruling, payout: games.Payout, held: Ints, terms: Terms) -> Ints:
    """What games cost the cheat and those who are with it."""
    moves = ROUNDS * terms.move_gas
    appeal = np.where(ruling.provider_appealed & ruling.convicted, SEATS * terms.seat_fee, 0)
    back = payout.challenger if cheat.launders else np.zeros_like(held)
    own_seats = payout.seats * terms.corrupt_seats // SEATS
    if cheat.floods:
        appeal = appeal + _flood(payout.fund, terms)
    return np.asarray(held + payout.slashed + appeal + moves - back - payout.provider - own_seats, dtype=np.int64)


def _flood(fund: Ints, terms: Terms) -> Ints:
    """What it costs to let more games, each with a jury and an appeal, eat the fund's part; mostly a gain.

    Their seats are paid out of the slash, or, with the rule `void`, by those who opened them; bonds come back.
    """
    opened = -(-fund // ((SEATS + terms.jury) * terms.seat_fee))
    moves = opened * (2 * ROUNDS + 4) * terms.move_gas
    own = fund * terms.corrupt_seats // SEATS
    return moves - own + (fund if "void" in terms.rules else 0)


def expected_gain(cheat: Cheat, rate: int, price: float, exposure: float, terms: Terms) -> float:
    """The inequality of `protocol.audit` for a fake of everything: g·R − p·q·(R + (1 − ρ)·S), in units of `price`.

    q is the chance that one of the drawn validators is not corrupt; seats and gas are left out.
    """
    count = audit.validators_for(rate)
    caught = rate / BPS * (1 - (terms.collusion / BPS) ** count)
    kept = 0.5 if cheat.launders else 1.0
    paid = 1.0 if cheat.launders else terms.hold / BPS * (1 - terms.fee / BPS)
    return terms.saving / BPS * price - caught * (paid * price + kept * terms.factor * exposure)
