"""What a job cost, lease by lease, read from the chain's events.

deposited = paid + fee + refunded + locked, for each lease and in all: `paid` is what the provider received net of the
fee, `locked` what is still in the contract (in a close window, or held for an arbiter). Beside the money stand all
seconds: what the lease was doing in them, and why those that were not paid were not (`minga.protocol.job_times`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from minga.chain.view import LeaseRecord, View
from minga.core.crypto import Hash32
from minga.protocol.job_state import Lease, State
from minga.protocol.job_times import account
from minga.protocol.lease import Phase


@dataclass(frozen=True)
class LeaseBill:
    """One lease. Amounts are token units; `working_s` was paid for, `unpaid_s` passed and was free.

    `best` is the highest voucher signed, `held` the highest that the provider acknowledged, `locked_until` chain time.
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
    held: int = 0
    locked_until: int = 0
    seconds: dict[str, int] = field(default_factory=dict)
    unpaid: dict[str, int] = field(default_factory=dict)
    accepted_s: int | None = None
    left: str = ""

    @property
    def conserved(self) -> bool:
        """Whether the parts add up to the deposit."""
        return self.deposited == self.paid + self.fee + self.refunded + self.locked


@dataclass(frozen=True)
class Bill:
    """One job. `funded` went into its wallet, `returned` came back; gas is in wei, of all its transactions."""

    decimals: int
    leases: tuple[LeaseBill, ...]
    funded: int
    returned: int
    gas_wei: int
    transactions: int

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
    def locked(self) -> int:
        """Token units still in the contract."""
        return sum(item.locked for item in self.leases)

    @property
    def conserved(self) -> bool:
        """Whether every lease adds up."""
        return all(item.conserved for item in self.leases)

    def totals(self) -> dict[str, Any]:
        """The sums, as in a report."""
        names = ("decimals", "deposited", "paid", "fee", "refunded", "locked", "conserved")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """JSON values; gas is text, since wei may exceed 2**53."""
        more = {"funded": self.funded, "returned": self.returned, "transactions": self.transactions}
        return {**self.totals(), **more, "gas_wei": str(self.gas_wei), "leases": [asdict(item) for item in self.leases]}


def make_bill(
    state: State, view: View, decimals: int, seconds: dict[int, dict[str, int]], costs: dict[str, dict[str, Any]]
) -> Bill:
    """The bill of a job.

    Args:
        state: the job, for what was worked and signed.
        view: the chain's leases as of now.
        decimals: of the token.
        seconds: attempt → its seconds by state.
        costs: effect id → `gas`, `fee_wei` of each transaction of the job.
    """
    leases = [_lease(item, view.leases.get(Hash32(item.lease)), seconds.get(item.attempt, {})) for item in state.leases]
    gas = sum(int(cost["fee_wei"]) for cost in costs.values())
    funded = state.plan.budget if state.funded else 0
    return Bill(decimals, tuple(leases), funded, state.returned, gas, len(costs))


def _lease(held: Lease, record: LeaseRecord | None, seconds: dict[str, int]) -> LeaseBill:
    unseen: tuple[int, int, int, int, int, str] = (held.deposit, 0, 0, 0, held.deposit, "opening")
    money = unseen if record is None else _money(record)
    deposited, paid, fee, refunded, locked, status = money
    spent = account(held, seconds)
    return LeaseBill(
        held.attempt, held.lease, held.deal.provider, deposited, paid, fee, refunded, locked, spent.paid_s,
        sum(spent.unpaid.values()), held.vouchers, status, held.signed, held.acked,
        held.finish_at if locked and held.status == "closing" else 0, spent.seconds, spent.unpaid,
        held.accepted_s if held.checked else None, held.left,
    )  # fmt: skip


def _money(record: LeaseRecord) -> tuple[int, int, int, int, int, str]:
    if record.closed is None:
        locked = record.deposit - record.paid - record.fee
        return record.deposit, record.paid, record.fee, 0, locked, record.phase.name.lower()
    closed = record.closed
    held = closed.held if record.phase is Phase.HELD else 0
    back = record.hold_ended.to_tenant if record.hold_ended else 0
    to_provider = record.hold_ended.to_provider if record.hold_ended else 0
    return record.deposit, closed.paid + to_provider, closed.fee, closed.refund + back, held, record.phase.name.lower()
