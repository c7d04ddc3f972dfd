"""What an audit pays, and how a validator that did not do the work is found out.

Knows: votes, canaries, pay. Does not know: who holds the audit fund (Market's fee recipient): whoever does can be
checked by anybody, because everything here follows from public numbers, but no contract forces it. Pure.

**Votes.** A drawn validator first sends the hash of its vote, then the vote: which of its own leaves did not follow. So
nobody copies a vote, and a vote of somebody else's leaves is worth nothing.

**Canaries.** Most work is honest, so "all follow" would be the right guess for whoever does nothing. Therefore some
commitments are *planted*: ordinary jobs at ordinary prices from providers with ordinary records, in whose traces the
planter has spoilt some leaves, as a cheat does: by a wrong step from which the trace goes on. It sent a hash of which
leaves before the beacon's round and opens it after the votes, while nobody should challenge yet.

| seconds after the beacon's round | what happens                                    |
|----------------------------------|-------------------------------------------------|
| 0 … 24 h                         | vote hashes                                     |
| 24 … 48 h                        | votes are opened                                |
| 48 … 60 h                        | canaries are opened                             |
| 60 … 72 h                        | challenges (Disputes' window ends after 72 h)   |

**Pay is released by canaries alone.** It is retained until the validator finds a canary's spoilt leaf, which releases
all of it; a miss, or a failure claimed of work that nobody convicts, forfeits all of it and bars the name. So who
checks a share θ of its leaves is paid about θ of the time and saves 1 − θ of the cost: less than honest work.

**The fund pays an audit out of the audited job's own fee**, divided by the rate, so that on average it spends a fixed
share of that fee. Whoever buys own jobs to be paid for auditing them gets back less than the fees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from minga.core.crypto import Address, Hash32, from_hex, keccak, to_hex
from minga.core.errors import InvalidInput
from minga.core.units import BPS, HOUR
from minga.protocol.audit import validators_for
from minga.protocol.settlement import FEE_BPS_DEFAULT, fee_down

VOTE_SECONDS, REVEAL_SECONDS, OPENING_SECONDS = 24 * HOUR, 24 * HOUR, 12 * HOUR
CHALLENGE_FROM_SECONDS = VOTE_SECONDS + REVEAL_SECONDS + OPENING_SECONDS
"""From the beacon's round; before this a challenge might hit a canary."""

AUDIT_SHARE_BPS = 8_000
"""Of the fee, for audits; the rest pays for canaries."""

MARGIN_BPS = 15_000
"""Pay for each unit of cost: what leaves are worth at the job's own price, and the fixed part."""

FIXED_COST = 10_000
"""Token units (a cent) for an audit's inputs, start and two messages, whatever is sampled."""

CANARY_BPS = 250
"""Share of audited commitments that are planted: what the rest of the fee pays for at the usual rate."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A validator's word on a commitment: the leaves among its sampled ones that do not follow, ascending."""

    commitment: Hash32
    validator: Address
    failed: tuple[int, ...]
    salt: Hash32


class Outcome(Enum):
    """How a vote turned out, once canaries are opened and games are over."""

    SILENT = "silent"
    UNTESTED = "untested"
    FOUND = "found"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Standing:
    """A validator towards the fund, token units. `retained` waits for a canary; who is barred is drawn no more."""

    retained: int = 0
    released: int = 0
    forfeited: int = 0
    barred: bool = False


def vote_hash(vote: Vote) -> Hash32:
    """What is sent first: keccak("minga vote" ‖ 0 ‖ commitment ‖ validator ‖ salt ‖ each leaf as 4 bytes)."""
    leaves = b"".join(leaf.to_bytes(4, "big") for leaf in vote.failed)
    place = from_hex(vote.commitment) + from_hex(vote.validator) + from_hex(vote.salt)
    return Hash32(to_hex(keccak(b"minga vote\0" + place + leaves)))


def canary_hash(commitment: Hash32, planter: Address, spoilt: Sequence[int], salt: Hash32) -> Hash32:
    """What a planter sends before the beacon's round; the same form as a vote's, under another name."""
    leaves = b"".join(leaf.to_bytes(4, "big") for leaf in sorted(spoilt))
    place = from_hex(commitment) + from_hex(planter) + from_hex(salt)
    return Hash32(to_hex(keccak(b"minga canary\0" + place + leaves)))


def failing(sampled: Sequence[int], spoilt: frozenset[int], keep: int) -> frozenset[int]:
    """The sampled leaves that come out different where the steps to the leaves `spoilt` were wrong.

    A replay begins at a kept state, every `keep` leaves, and does not find back to a trace that has left its path: of
    a segment, the first spoilt leaf fails and every later one with it.
    """
    starts = {leaf: (leaf - 1) // keep * keep for leaf in sampled}
    return frozenset(leaf for leaf, start in starts.items() if any(start < bad <= leaf for bad in spoilt))


def outcome(
    vote: Vote | None,
    sampled: Sequence[int],
    keep: int,
    spoilt: frozenset[int] | None = None,
    condemned: bool = False,
) -> Outcome:
    """How a vote turned out.

    Args:
        vote: None when it was not opened in time, or does not have the hash that was sent.
        sampled: the validator's leaves (`audit.sampled_leaves`).
        keep: leaves between two kept states.
        spoilt: a canary's spoilt leaves; None when the commitment is not planted.
        condemned: whether a game condemned the commitment.
    """
    if vote is None:
        return Outcome.SILENT
    failed = set(vote.failed)
    if spoilt is None:
        good = failed <= set(sampled) if condemned else not failed
        return Outcome.UNTESTED if good else Outcome.WRONG
    hit = failing(sampled, spoilt, keep)
    if failed != hit:
        return Outcome.WRONG
    return Outcome.FOUND if hit else Outcome.UNTESTED


def after(standing: Standing, result: Outcome, pay: int) -> Standing:
    """A validator's standing after one more audit that pays `pay`, token units.

    Raises:
        InvalidInput: the validator is barred.
    """
    if standing.barred:
        raise InvalidInput("a barred validator has voted", "draw from those that are not barred")
    if result is Outcome.SILENT:
        return standing
    if result is Outcome.WRONG:
        return Standing(0, standing.released, standing.forfeited + standing.retained + pay, True)
    if result is Outcome.FOUND:
        return replace(standing, retained=0, released=standing.released + standing.retained + pay)
    return replace(standing, retained=standing.retained + pay)


def pay_down(settled: int, rate: int, fee_bps: int = FEE_BPS_DEFAULT) -> int:
    """What each validator of an audit is paid, token units: fee · 80 % / rate / validators, rounded down.

    Args:
        settled: what the job paid, gross.
        rate: the commitment's audit rate, basis points, 1 … 10,000.
        fee_bps: Market's fee.

    Raises:
        InvalidInput: the rate is out of range.
    """
    if not 0 < rate <= BPS:
        raise InvalidInput(f"a rate of {rate} basis points", "it is 1 to 10000")
    return fee_down(settled, fee_bps) * AUDIT_SHARE_BPS // (rate * validators_for(rate))


def cost_up(settled: int, leaves: int, sampled: int, keep: int, fixed: int = FIXED_COST) -> int:
    """What doing sampled leaves again costs at the job's own price, token units rounded up.

    Each of them is reached from a kept state, (keep + 1) / 2 leaves before it on average.

    Raises:
        InvalidInput: fewer than two leaves, or `keep` is not positive.
    """
    if leaves < 2 or keep < 1:
        raise InvalidInput(f"{leaves} leaves, every {keep} kept", "a trace has two leaves at least and keeps states")
    return fixed - (-settled * sampled * (keep + 1) // (2 * (leaves - 1)))


def leaves_owed(
    settled: int, leaves: int, keep: int, rate: int, fee_bps: int = FEE_BPS_DEFAULT, fixed: int = FIXED_COST
) -> int:
    """How many leaves each validator does again for its pay, with the margin: 0 when not even one is paid for.

    Zero says that the audit of this job has to be paid by somebody else than the fund; see docs/audits.md.

    Raises:
        InvalidInput: see `pay_down` and `cost_up`.
    """
    spend = pay_down(settled, rate, fee_bps) * BPS // MARGIN_BPS - fixed
    if spend <= 0 or cost_up(settled, leaves, 1, keep, fixed) - fixed > spend:
        return 0
    return min(leaves - 1, spend * 2 * (leaves - 1) // (settled * (keep + 1)))


def leaves_min(keep: int, rate: int, fee_bps: int = FEE_BPS_DEFAULT) -> int:
    """The fewest leaves with which the fund can pay for one sampled leaf of a job so dear that `fixed` is nothing.

    Raises:
        InvalidInput: out of range, or the fee is nothing.
    """
    if not 0 < rate <= BPS or keep < 1 or fee_bps < 1:
        raise InvalidInput("a rate, fee or distance of kept states is out of range", "all are positive")
    budget = fee_bps * AUDIT_SHARE_BPS * BPS
    return 1 - (-(keep + 1) * rate * validators_for(rate) * MARGIN_BPS * BPS // (2 * budget))
