"""What a job cost, lease by lease, read from the chain's events.

deposited = paid + fee + held + refunded + locked, for each lease and in all: `paid` is what the provider received net
of the fee, `held` the part of its pay about which an arbiter may still decide, `locked` what else is in the contract,
in a close window. Beside the money stand all seconds: what the lease was doing in them, and why those that were not
paid were not (`minga.protocol.job_times`); and what it cost to have the work verified.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from minga.chain.view import LeaseRecord, View
from minga.core.crypto import Hash32
from minga.protocol.job_state import Lease, State
from minga.protocol.job_times import account


@dataclass(frozen=True)
class LeaseBill:
    """One lease. Amounts are token units; `working_s` was paid for, `unpaid_s` passed and was free.

    `best` is the highest voucher signed, `acknowledged` the highest that the provider holds; `locked_until` and
    `held_until` chain time. Of what was held, a verdict gave `returned` to the tenant (in `refunded`), and `released`
    went to the provider (in `paid`). `awarded` came to the tenant of the provider's
    stake, and is no part of the deposit.
    `seconds` are by state, `unpaid` by reason. `accepted_s`: seconds of work that an accepted checkpoint covers, None
    when nothing is checked. `left` says why the lease ended.
    """

    attempt: int
    lease: str
    provider: str
    deposited: int
    paid: int
    fee: int
    refunded: int
    locked: int
    working_s: int
    unpaid_s: int
    vouchers: int
    state: str
    best: int = 0
    acknowledged: int = 0
    locked_until: int = 0
    seconds: dict[str, int] = field(default_factory=dict)
    unpaid: dict[str, int] = field(default_factory=dict)
    accepted_s: int | None = None
    left: str = ""
    held: int = 0
    held_until: int = 0
    returned: int = 0
    released: int = 0
    awarded: int = 0

    @property
    def conserved(self) -> bool:
        """Whether the parts add up to the deposit."""
        return self.deposited == self.paid + self.fee + self.held + self.refunded + self.locked


@dataclass(frozen=True)
class Verification:
    """What it cost to have a job's work verified, as far as it is known here.

    `held` token units are not yet free; `sent_bytes` went to each provider beside the job's own files (the trace
    library), `trace_bytes` came back beside its results. What tracing took of the job's own time is in what was paid.
    """

    mode: str
    determinism: str
    held: int
    sent_bytes: int
    trace_bytes: int


@dataclass(frozen=True)
class Bill:
    """One job. `funded` went into its wallet, `returned` came back; gas is in wei, of all its transactions."""

    decimals: int
    leases: tuple[LeaseBill, ...]
    funded: int
    returned: int
    gas_wei: int
    transactions: int
    verification: Verification | None = None

    @property
    def deposited(self) -> int:
        """Token units deposited in all leases."""
        return sum(item.deposited for item in self.leases)

    @property
    def paid(self) -> int:
        """Token units that providers received."""
        return sum(item.paid for item in self.leases)

    @property
    def fee(self) -> int:
        """Token units of the contract's fee."""
        return sum(item.fee for item in self.leases)

    @property
    def refunded(self) -> int:
        """Token units that came back from leases."""
        return sum(item.refunded for item in self.leases)

    @property
    def held(self) -> int:
        """Token units about which an arbiter may still decide."""
        return sum(item.held for item in self.leases)

    @property
    def locked(self) -> int:
        """Token units that are else still in the contract."""
        return sum(item.locked for item in self.leases)

    @property
    def conserved(self) -> bool:
        """Whether every lease adds up."""
        return all(item.conserved for item in self.leases)

    def totals(self) -> dict[str, Any]:
        """The sums, as in a report."""
        names = ("decimals", "deposited", "paid", "fee", "held", "refunded", "locked", "conserved")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """JSON values; gas is text, since wei may exceed 2**53."""
        more: dict[str, Any] = {"funded": self.funded, "returned": self.returned, "transactions": self.transactions}
        more["verification"] = None if self.verification is None else asdict(self.verification)
        return {**self.totals(), **more, "gas_wei": str(self.gas_wei), "leases": [asdict(item) for item in self.leases]}


Verified = tuple[str, str, int, int]
"""Mode, class of determinism, bytes sent for it, bytes of the trace that came back."""


def make_bill(
    state: State,
    view: View,
    decimals: int,
    seconds: dict[int, dict[str, int]],
    costs: dict[str, dict[str, Any]],
    verified: Verified | None = None,
) -> Bill:
    """The bill of a job.

    Args:
        state: the job, for what was worked and signed.
        view: the chain's leases as of now.
        decimals: of the token.
        seconds: attempt → its seconds by state.
        costs: effect id → `gas`, `fee_wei` of each transaction of the job.
        verified: how its work is verified, and what that made it send and fetch; None when it is not.
    """
    leases = [_lease(item, view.leases.get(Hash32(item.lease)), seconds.get(item.attempt, {})) for item in state.leases]
    gas = sum(int(cost["fee_wei"]) for cost in costs.values())
    funded = state.plan.budget if state.funded else 0
    cost = None if verified is None else Verification(*verified[:2], sum(item.held for item in leases), *verified[2:])
    return Bill(decimals, tuple(leases), funded, state.returned, gas, len(costs), cost)


@dataclass(frozen=True)
class _Money:
    """Where a lease's deposit is now, token units."""

    deposited: int
    paid: int
    fee: int
    refunded: int
    locked: int
    status: str
    held: int = 0
    held_until: int = 0
    returned: int = 0
    released: int = 0


def _lease(kept: Lease, record: LeaseRecord | None, seconds: dict[str, int]) -> LeaseBill:
    unseen = _Money(kept.deposit, 0, 0, 0, kept.deposit, "opening")
    money = unseen if record is None else _money(record)
    spent = account(kept, seconds)
    return LeaseBill(
        kept.attempt, kept.lease, kept.deal.provider, money.deposited, money.paid, money.fee, money.refunded,
        money.locked, spent.paid_s, sum(spent.unpaid.values()), kept.vouchers, money.status, kept.signed, kept.acked,
        kept.finish_at if money.locked and kept.status == "closing" else 0, spent.seconds, spent.unpaid,
        kept.accepted_s if kept.checked else None, kept.left, money.held, money.held_until, money.returned,
        money.released, kept.awarded,
    )  # fmt: skip


def _money(record: LeaseRecord) -> _Money:
    status = record.phase.name.lower()
    if record.closed is None:
        locked = record.deposit - record.paid - record.fee
        return _Money(record.deposit, record.paid, record.fee, 0, locked, status)
    closed, ended = record.closed, record.hold_ended
    back, released = (ended.to_tenant, ended.to_provider) if ended else (0, 0)
    held = 0 if ended else closed.held
    until = (record.closed_at or 0) + record.lease.hold_seconds if held else 0
    return _Money(
        record.deposit, closed.paid + released, closed.fee, closed.refund + back, 0, status, held, until, back, released
    )
