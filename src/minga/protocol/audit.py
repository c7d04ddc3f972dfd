"""Which commitments are audited, by whom, and at which leaves; what a stake must be so that cheating loses.

Knows: a beacon value that nobody could know when the commitment was made, ids, and a provider's record as the chain and
the revealed votes tell it. Does not know: traces, votes and money (`audit_pay`), games (Disputes). Pure: whoever has
the same public numbers computes the same audits, so that nobody chooses whom to look at.

**The rate.** A provider's credit for a job is how many jobs *of this size* stand behind it:

    credit = min( audited value / exposure , stake age · 100 / 30 days )
    rate   = 100 %  while jobs < 20 or credit < 20 · 20 % while credit < 100 · then 5 %
    rate   = max( rate , floor(factor) )

*Audited value* is what was settled for commitments that the beacon drew and that passed, since the last conviction. So
the rate falls with money that was at risk and with the age of the stake that covers this job, and never with a count:
a thousand jobs of a cent are no credit for one of a hundred dollars. The count can only hold the rate up.

**The floor.** A fake saves g of the price R, and is convicted with probability p·q. A convicted provider can challenge
itself under another name and so get back a share ρ of the slash S = factor · R, all that tenant and challenger may get.
It loses if

    p · q · (R + (1 − ρ) · S)  >  g · R

(g = 0.9, q = 0.95, ρ = 0.5 in the design). Rates and stakes here are for a g that is a tenth larger: a cheat bills the
whole deposit, and referees who are with it earn a part of the seats. No rate is below the p where both sides are equal,
*whatever the record*. Therefore leniency is worth nothing to a cheat: a provider that buys its own jobs to get a low
rate pays fees and locked stake for a rate at which cheating loses as well.

Fakes are spread over a share x of the leaves: the saving is x·g, and n sampled leaves find them with probability
1 − (1−x)^n ≥ x. So one leaf is enough to make every x a loss; more leaves are for assurance (44 find 10 % faked with
probability 99 %, 459 find 1 %).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minga.core.crypto import Address, Hash32, from_hex, keccak
from minga.core.errors import InvalidInput
from minga.core.units import BPS, DAY

RATE_NEW_BPS, RATE_KNOWN_BPS, RATE_SETTLED_BPS = 10_000, 2_000, 500
"""The design's 100 %, 20 % and 5 %."""

JOBS_NEW = 20
CREDIT_KNOWN, CREDIT_SETTLED = 20, 100
CREDIT_AGE_SECONDS = 30 * DAY
"""The age at which a stake stands for `CREDIT_SETTLED` jobs."""

FACTOR = 20
"""Stake for each unit of exposure, as Disputes appoints itself by default."""

SAVING_BPS, DETECTION_BPS, RECOVERABLE_BPS = 9_000, 9_500, 5_000
"""g, q and ρ of the inequality above."""

GUARDED_SAVING_BPS = 9_900
"""g and a tenth of it; what stakes and rates are computed for."""

VALIDATORS = 3
"""Validators for each audit, so that with 30 % of them corrupt one is honest with probability 97 %."""

VALIDATORS_NEW = 1
"""The same where every job is audited, and one that looks away is not the last."""

LEAVES_MAX = 2**20


@dataclass(frozen=True, slots=True)
class Record:
    """A provider under one arbiter since its last conviction: passed audits, and the stake that covers the next job.

    `jobs` is their number, `value` what was settled for them (token units), `stake_age` in seconds (see `stake_age`).
    """

    jobs: int = 0
    value: int = 0
    stake_age: int = 0


NEWCOMER = Record()


# ----------------------------------------------------------------------------------------------------------- the rate


def credit(record: Record, exposure: int) -> int:
    """How many jobs of `exposure` (token units, > 0) stand behind a provider; see the module.

    Raises:
        InvalidInput: the exposure is not positive, or the record has a negative number.
    """
    if exposure <= 0 or min(record.jobs, record.value, record.stake_age) < 0:
        raise InvalidInput("an exposure or a record is not positive", "take them from the chain")
    return min(record.value // exposure, record.stake_age * CREDIT_SETTLED // CREDIT_AGE_SECONDS)


def rate_bps(record: Record, exposure: int, factor: int = FACTOR) -> int:
    """The probability, in basis points, that a commitment of `exposure` (token units) is audited.

    Args:
        factor: stake for each unit of exposure, as its arbiter asks.

    Raises:
        InvalidInput: see `credit` and `floor_bps`.
    """
    earned, floor = credit(record, exposure), floor_bps(factor)
    if record.jobs < JOBS_NEW or earned < CREDIT_KNOWN:
        return RATE_NEW_BPS
    return max(floor, RATE_KNOWN_BPS if earned < CREDIT_SETTLED else RATE_SETTLED_BPS)


def stake_age(balances: Iterable[tuple[int, int]], need: int, now: int) -> int:
    """For how many seconds a stake has been at least `need` without a break.

    Args:
        balances: (time, staked token units) after each change of the stake under this arbiter, oldest first.
        need: token units, factor · (exposure locked already + the new one).
        now: chain time, seconds.
    """
    since: int | None = None
    for time, staked in balances:
        if staked < need:
            since = None
        elif since is None:
            since = time
    return 0 if since is None else max(0, now - since)


def covers(staked: int, locked: int, in_dispute: int, exposure: int, factor: int = FACTOR) -> bool:
    """Whether a stake can answer for one more job: stake that an open game may take counts as gone.

    A game may last longer than the hold that locks the stake; without this rule one stake would answer for several jobs
    at once. All are token units; `in_dispute` is the exposure of commitments with an open game that are no longer
    locked.
    """
    return staked >= factor * (locked + in_dispute + exposure)


# ---------------------------------------------------------------------------------------------------------- the draws


def number(beacon: bytes, purpose: str, *parts: bytes) -> int:
    """A number below 2**256 that follows from a beacon's value: keccak("minga audit " ‖ purpose ‖ 0 ‖ beacon ‖ parts).

    Raises:
        InvalidInput: the beacon's value has not 32 bytes.
    """
    if len(beacon) != 32:
        raise InvalidInput(f"a beacon's value has 32 bytes, not {len(beacon)}", "read it from the beacon")
    return int.from_bytes(keccak(f"minga audit {purpose}".encode() + b"\0" + beacon + b"".join(parts)), "big")


def audits(beacon: bytes, commitment: Hash32, rate: int) -> bool:
    """Whether a commitment is audited.

    Args:
        beacon: value of the first beacon round that nobody could know in the block of the commitment.
        commitment: its id, the channel's.
        rate: basis points, 0 … 10,000.

    Raises:
        InvalidInput: the rate or the beacon is out of range.
    """
    if not 0 <= rate <= BPS:
        raise InvalidInput(f"a rate of {rate} basis points", "it is 0 to 10000")
    return number(beacon, "rate", from_hex(commitment)) * BPS < rate << 256


def validators_for(rate: int) -> int:
    """How many validators an audit at this rate has."""
    return VALIDATORS_NEW if rate == RATE_NEW_BPS else VALIDATORS


def drawn_validators(beacon: bytes, commitment: Hash32, pool: Iterable[Address], count: int) -> tuple[Address, ...]:
    """The validators that audit a commitment: those `count` of `pool` whose numbers are lowest, lowest first.

    `pool` is who had a referee's stake before the commitment; each stakes the same, so one more name costs one more
    stake. Somebody who leaves or joins changes no other's number. A pool that is too small is drawn whole.
    """
    ranked = sorted((number(beacon, "validator", from_hex(commitment), from_hex(who)), who) for who in set(pool))
    return tuple(who for _, who in ranked[:count])


def sampled_leaves(beacon: bytes, commitment: Hash32, validator: Address, count: int, leaves: int) -> tuple[int, ...]:
    """The leaves that a validator does again, ascending: `count` different ones of 1 … leaves − 1, all if that is less.

    Leaf t is done again from the state of leaf t − 1; leaf 0 is the state before the first step and follows from the
    work alone. Each validator has leaves of its own: a copied answer is an answer to another question.

    Raises:
        InvalidInput: not 1 … 2**20 leaves, or a negative count.
    """
    if not 1 <= leaves <= LEAVES_MAX or count < 0:
        raise InvalidInput(f"{count} of {leaves} leaves", f"a trace has 1 to {LEAVES_MAX} leaves")
    steps = leaves - 1
    if count >= steps:
        return tuple(range(1, leaves))
    chosen: set[int] = set()
    place = from_hex(commitment) + from_hex(validator)
    for top in range(steps - count + 1, steps + 1):  # Floyd: a uniform subset in `count` draws
        drawn = 1 + number(beacon, "leaf", place, top.to_bytes(4, "big")) % top
        chosen.add(top if drawn in chosen else drawn)
    return tuple(sorted(chosen))


def segments(sampled: Sequence[int], keep: int) -> tuple[tuple[int, int], ...]:
    """What must be run to do leaves again where only every `keep`-th state is kept: ranges a:b of `MINGA_REPLAY`.

    Each begins at a kept state a (a multiple of `keep`) and ends at the last sampled leaf b before the next one, so
    that leaves a + 1 … b come out.

    Raises:
        InvalidInput: `keep` or a leaf is not positive.
    """
    if keep < 1 or any(leaf < 1 for leaf in sampled):
        raise InvalidInput("a leaf or the distance of kept states is not positive", "both count from 1")
    last: dict[int, int] = {}
    for leaf in sampled:
        start = (leaf - 1) // keep * keep
        last[start] = max(leaf, last.get(start, 0))
    return tuple(sorted(last.items()))


# --------------------------------------------------------------------------------------------------- odds and stakes


def leaves_for(faked_bps: int, detection_bps: int) -> int:
    """The fewest sampled leaves that hit a fake with probability `detection_bps`: (1 − faked)^n ≤ 1 − detection.

    Exact in whole numbers; drawn with replacement, so that a real draw does no worse.

    Raises:
        InvalidInput: not 0 < faked ≤ 10,000 and 0 ≤ detection < 10,000.
    """
    if not 0 < faked_bps <= BPS or not 0 <= detection_bps < BPS:
        raise InvalidInput(f"{detection_bps} of {faked_bps} basis points", "both are shares, and nothing is certain")
    if faked_bps == BPS:
        return 1 if detection_bps else 0
    guess = math.log((BPS - detection_bps) / BPS) / math.log((BPS - faked_bps) / BPS)
    count = max(0, math.ceil(guess) - 2)  # the logarithm is a hint only
    missed, whole = (BPS - faked_bps) ** count * BPS, (BPS - detection_bps) * BPS**count
    while missed > whole:
        missed, whole, count = missed * (BPS - faked_bps), whole * BPS, count + 1
    return count


def floor_bps(
    factor: int, detection: int = DETECTION_BPS, saving: int = GUARDED_SAVING_BPS, recoverable: int = RECOVERABLE_BPS
) -> int:
    """The lowest rate, in basis points rounded up, at which a stake of `factor` makes a fake lose; see the module.

    Args:
        factor: stake for each unit of exposure.
        detection: q, that an audit of a fake ends in a conviction.
        saving: g, of the price.
        recoverable: ρ, of the slash.

    Raises:
        InvalidInput: a share is out of range, or no rate is enough.
    """
    _check_shares(detection, saving, recoverable)
    if factor < 0:
        raise InvalidInput(f"a stake factor of {factor}", "it is zero or more")
    loss = BPS + factor * (BPS - recoverable)  # R + (1 − ρ)·S, in 1/10,000 of the price
    rate = -(-saving * BPS * BPS // (detection * loss))
    if rate > BPS:
        raise InvalidInput(f"a stake factor of {factor} deters nobody at any rate", "ask for a larger stake")
    return rate


def stake_for(
    price: int,
    rate: int,
    detection: int = DETECTION_BPS,
    saving: int = GUARDED_SAVING_BPS,
    recoverable: int = RECOVERABLE_BPS,
) -> int:
    """The least stake, token units rounded up, that makes a fake lose at this rate: (g/(p·q) − 1) · R / (1 − ρ).

    Args:
        price: R, token units.
        rate: p, basis points, 1 … 10,000.
        detection: q, that an audit of a fake ends in a conviction.
        saving: g, of the price.
        recoverable: ρ, of the slash.

    Raises:
        InvalidInput: a share is out of range.
    """
    _check_shares(detection, saving, recoverable)
    if not 0 < rate <= BPS or price < 0:
        raise InvalidInput(
            f"a rate of {rate} basis points on {price}", "the rate is 1 to 10000, the price not negative"
        )
    caught = rate * detection
    missing = saving * BPS - caught  # g − p·q, in 1/10**8
    return max(0, -(-price * missing * BPS // (caught * (BPS - recoverable))))


def _check_shares(detection: int, saving: int, recoverable: int) -> None:
    if not (0 < detection <= BPS and 0 < saving <= BPS and 0 <= recoverable < BPS):
        raise InvalidInput("a share is out of range", "give basis points: 0 to 10000")
