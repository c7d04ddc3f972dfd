"""How a job's money is cut into deposits and vouchers. Pure arithmetic over `job_state`'s values; integers alone.

A deposit, and a top-up, is a **slice**: the least of a quarter of the budget, an hour's cost at the offer's price and
half of what is left, so that a provider that vanishes locks little and the job can go on elsewhere at once; but never
less than the offer demands. A voucher never exceeds what may be paid for, the deposit, nor `per_hour` in any 3,600
seconds.
"""

from __future__ import annotations

from dataclasses import replace

from minga.core.units import HOUR, Amount
from minga.protocol.job_lease import Lease
from minga.protocol.job_plan import Deal, Plan
from minga.protocol.pricing import cost_up, seconds_covered

SLICES = 4
SETUP_SLACK_S = 3600
TOP_UP_LEFT_S = 20

Ledger = tuple[tuple[int, int], ...]
"""(Unix seconds, token units) of the vouchers signed within the last hour; kept only with a `per_hour`."""


def slice_for(budget: int, available: int, deal: Deal) -> Amount:
    """The deposit for a lease on `deal`: 0 if `available` cannot pay its least deposit and one quantum."""
    least = max(deal.deposit_min, cost_up(deal.price_per_hour, deal.units, deal.quantum), 1)
    hour = cost_up(deal.price_per_hour, deal.units, HOUR)
    wanted = max(least, min(budget // SLICES, hour, available // 2))
    return Amount(min(wanted, available)) if least <= available else Amount(0)


def seconds_for(available: int, deal: Deal) -> int:
    """The length of a lease: all that the money left could pay, and time to set up, within the offer's bounds."""
    covered = seconds_covered(deal.price_per_hour, deal.units, available)
    return max(deal.seconds_min, min(deal.seconds_max, covered + SETUP_SLACK_S))


def next_top_up(budget: int, available: int, lease: Lease) -> tuple[int, int] | None:
    """Amount and total of the top-up that is due, if one is."""
    deal = lease.deal
    low = lease.cost(max(2 * deal.quantum, TOP_UP_LEFT_S))  # time for a transaction, while the job works on
    used = max(lease.signed, lease.cost(lease.worked_s))
    most = cost_up(deal.price_per_hour, deal.units, lease.seconds) - lease.deposit
    amount = min(max(slice_for(budget, available, deal), low), available, most)
    if not lease.top_ups or lease.deposit - used >= low or amount < max(1, lease.cost(1)):
        return None
    return amount, lease.deposit + amount


def allowance(plan: Plan, ledger: Ledger, now: int) -> int | None:
    """Token units that may be signed now under `per_hour`; None without one."""
    if plan.per_hour is None:
        return None
    return max(0, plan.per_hour - sum(amount for at, amount in ledger if at > now - HOUR))


def sign(plan: Plan, ledger: Ledger, lease: Lease, cumulative: int, now: int) -> tuple[Lease, Ledger]:
    """The lease with a voucher for `cumulative`, or for as much of it as deposit and `per_hour` allow."""
    allowed = allowance(plan, ledger, now)
    cumulative = min(cumulative, lease.deposit)
    if allowed is not None:
        cumulative = min(cumulative, lease.signed + allowed)
    if cumulative <= lease.signed:
        return lease, ledger
    if allowed is not None:
        ledger = (*(item for item in ledger if item[0] > now - HOUR), (now, cumulative - lease.signed))
    return replace(lease, signed=Amount(cumulative), vouchers=lease.vouchers + 1), ledger
