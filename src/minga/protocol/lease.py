"""A lease: a one-way payment channel between one tenant and one provider.

What it is: the states of a lease on the chain, the moves between them, and the part that never changes. What it does
not know: tokens, stakes, signatures (see `market`), and the job that runs on it.

    OPEN ──start_close──▶ CLOSING ──finish──▶ HELD ──resolve, finish_hold──▶ CLOSED
      │                      │                  ▲                               ▲
      └──close, release, finish─────────────────┘ (arbiter, hold time, something settled)
      └──close, release, finish──────────────────────────────────────────────────┘ (otherwise)

Rule: `settled` never falls and never exceeds the deposit; a closed lease's id is never used again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from functools import cached_property

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, from_hex, keccak, to_hex
from minga.core.errors import ContractError
from minga.core.units import Amount
from minga.protocol import settlement
from minga.protocol.messages import Offer, channel_id, lease_id, offer_hash

CLOSE_WINDOW_MIN = 3600
CLOSE_WINDOW_MAX = 86400
HOLD_SECONDS_MAX = 7 * 86400
TIME_MAX = 2**56 - 1


class Phase(IntEnum):
    """Where a lease stands; the numbers are those of the contract. CLOSED is also what an unused id looks like."""

    CLOSED = 0
    OPEN = 1
    CLOSING = 2
    HELD = 3


class How(IntEnum):
    """Which way a lease ended."""

    CLOSE = 1
    RELEASE = 2
    WINDOW = 3
    END = 4


class Why(IntEnum):
    """What the closer says was the reason; its word, on the record, checked by nobody."""

    NOT_SAID = 0
    DONE = 1
    STOPPED = 2
    JOB_FAILED = 3
    UNPAID = 4
    UNREACHABLE = 5
    UNDER_SPEC = 6
    BAD_RESULT = 7
    SHUTTING_DOWN = 8
    END_OF_LEASE = 9
    REFUSED = 10


class Move(Enum):
    """What can happen to a lease after it was opened."""

    TOP_UP = "top_up"
    EXTEND = "extend"
    START_CLOSE = "start_close"
    REDEEM = "redeem"
    END = "end"
    END_HOLD = "end_hold"


_CLOSED = "market: lease closed"
_CLOSING = "market: lease closing"
_NOT_HELD = "market: not held"

# The phase after a move, or why it is refused. END gives HELD when `Lease.holds`, else CLOSED.
TRANSITIONS: dict[Move, dict[Phase, Phase | str]] = {
    Move.TOP_UP: {
        Phase.OPEN: Phase.OPEN, Phase.CLOSING: _CLOSING, Phase.HELD: _CLOSED, Phase.CLOSED: _CLOSED,
    },
    Move.EXTEND: {
        Phase.OPEN: Phase.OPEN, Phase.CLOSING: _CLOSING, Phase.HELD: _CLOSED, Phase.CLOSED: _CLOSED,
    },
    Move.START_CLOSE: {
        Phase.OPEN: Phase.CLOSING, Phase.CLOSING: _CLOSING, Phase.HELD: _CLOSED, Phase.CLOSED: _CLOSED,
    },
    Move.REDEEM: {
        Phase.OPEN: Phase.OPEN, Phase.CLOSING: Phase.CLOSING, Phase.HELD: _CLOSED, Phase.CLOSED: _CLOSED,
    },
    Move.END: {
        Phase.OPEN: Phase.CLOSED, Phase.CLOSING: Phase.CLOSED, Phase.HELD: _CLOSED, Phase.CLOSED: _CLOSED,
    },
    Move.END_HOLD: {
        Phase.OPEN: _NOT_HELD, Phase.CLOSING: _NOT_HELD, Phase.HELD: Phase.CLOSED, Phase.CLOSED: _NOT_HELD,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Lease:
    """What never changes in a lease. Its hash is on the chain; callers pass these fields, in this order, with calls.

    `price_per_hour` is in token units per unit-hour; `close_window` and `hold_seconds` are seconds; `opened_at` is
    chain time; `offer` is the offer's hashStruct; a zero `arbiter` means none.
    """

    tenant: Address
    job: Hash32
    attempt: int
    signer: Address
    provider: Address
    machine: Hash32
    offer: Hash32
    price_per_hour: Amount
    units: int
    close_window: int
    arbiter: Address
    hold_bps: int
    hold_seconds: int
    opened_at: int

    @cached_property
    def id(self) -> Hash32:
        """The lease id, H(tenant, job, attempt)."""
        return lease_id(self.tenant, self.job, self.attempt)

    @cached_property
    def channel(self) -> Hash32:
        """What vouchers, releases, extensions and logins name: H(lease id, offer hash, signer)."""
        return channel_id(self.id, self.offer, self.signer)

    @cached_property
    def hash(self) -> Hash32:
        """keccak256(abi.encode(Lease)), as Market stores it."""
        return Hash32(to_hex(keccak(b"".join(_word(value) for value in self.as_tuple()))))

    def as_tuple(self) -> tuple[str | int, ...]:
        """The fields in the order of the contract's struct."""
        return (
            self.tenant, self.job, self.attempt, self.signer, self.provider, self.machine, self.offer,
            self.price_per_hour, self.units, self.close_window, self.arbiter, self.hold_bps, self.hold_seconds,
            self.opened_at,
        )  # fmt: skip

    @property
    def has_arbiter(self) -> bool:
        """Whether an arbiter may divide the held part, and stake is locked."""
        return self.arbiter != ZERO_ADDRESS

    def holds(self, settled: int) -> bool:
        """Whether the lease, ended at `settled`, waits for its arbiter."""
        return self.hold_seconds > 0 and settled > 0


@dataclass(frozen=True, slots=True)
class Account:
    """What changes in a lease. Amounts are gross token units.

    `ends_at` is chain time: of an OPEN lease its agreed end, of a CLOSING one when its window began, of a HELD one when
    the hold ends. A HELD account's deposit is what was settled: the rest has gone back.
    """

    deposit: Amount
    settled: Amount
    ends_at: int
    phase: Phase


NO_ACCOUNT = Account(Amount(0), Amount(0), 0, Phase.CLOSED)


def lease_of(
    offer: Offer, tenant: Address, job: Hash32, attempt: int, units: int, signer: Address, opened_at: int
) -> Lease:
    """The lease that taking `offer` at chain time `opened_at` gives."""
    return Lease(
        tenant=tenant,
        job=job,
        attempt=attempt,
        signer=signer,
        provider=offer.provider,
        machine=offer.machine,
        offer=offer_hash(offer),
        price_per_hour=offer.price_per_hour,
        units=units,
        close_window=offer.close_window,
        arbiter=offer.arbiter,
        hold_bps=offer.hold_bps,
        hold_seconds=offer.hold_seconds,
        opened_at=opened_at,
    )


def check(account: Account, move: Move) -> Phase:
    """The phase that `move` leads to.

    Raises:
        ContractError: the table refuses the move; the fact is the contract's revert string.
    """
    found = TRANSITIONS[move][account.phase]
    if isinstance(found, str):
        raise ContractError(found)
    return found


def top_up(account: Account, amount: int) -> Account:
    """A larger deposit.

    Raises:
        ContractError: the lease is not OPEN, the amount is zero, or the sum is over `AMOUNT_MAX`.
    """
    phase = check(account, Move.TOP_UP)
    if amount <= 0:
        raise ContractError("market: no amount")
    if account.deposit + amount > settlement.AMOUNT_MAX:
        raise ContractError("market: deposit too large")
    return replace(account, deposit=Amount(account.deposit + amount), phase=phase)


def extend(account: Account, ends_at: int) -> Account:
    """A later end.

    Raises:
        ContractError: the lease is not OPEN, or the end is not later, or over `TIME_MAX`.
    """
    phase = check(account, Move.EXTEND)
    if ends_at <= account.ends_at:
        raise ContractError("market: end not later")
    if ends_at > TIME_MAX:
        raise ContractError("market: end too late")
    return replace(account, ends_at=ends_at, phase=phase)


def redeem(account: Account, cumulative: int) -> Account:
    """The account once a good voucher for `cumulative` has come; the same when it says nothing new.

    Raises:
        ContractError: the lease has ended.
    """
    phase = check(account, Move.REDEEM)
    settled = settlement.settled_after(account.settled, account.deposit, cumulative)
    return replace(account, settled=settled, phase=phase)


def start_close(account: Account, now: int) -> Account:
    """The tenant wants out: the window runs from now, or from the agreed end where that has passed.

    Raises:
        ContractError: the lease is not OPEN.
    """
    return replace(account, phase=check(account, Move.START_CLOSE), ends_at=min(account.ends_at, now))


def finish_at(lease: Lease, account: Account) -> int:
    """Chain time from which anyone may finish a lease that is OPEN or CLOSING."""
    return account.ends_at + lease.close_window


def end(lease: Lease, account: Account, settled: int, now: int) -> Account:
    """The account of a lease that ends at `settled`: HELD, or empty.

    Raises:
        ContractError: the lease has ended before.
    """
    check(account, Move.END)
    if not lease.holds(settled):
        return NO_ACCOUNT
    return Account(Amount(settled), Amount(settled), now + lease.hold_seconds, Phase.HELD)


def _word(value: str | int) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else from_hex(value).rjust(32, b"\0")
