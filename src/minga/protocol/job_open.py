"""What happens to a job up to its start: funding, offers, leases opened, inputs sent, machines probed.

Handlers of `minga.protocol.job`. Rule: nothing is signed before the machine has shown what was sold, if it must.
"""

from __future__ import annotations

from dataclasses import replace

from minga.protocol import job_events as ev
from minga.protocol.job_lease import Lease
from minga.protocol.job_money import allowance, sign
from minga.protocol.job_moves import end, exclude, not_found, seek, settle
from minga.protocol.job_state import State, seconds_for, slice_for


def funded(state: State, event: ev.Funded, now: int) -> State:
    """The job wallet holds the budget."""
    return seek(replace(state, funded=True, unreturned=True), now, "quoting")


def funding_failed(state: State, event: ev.FundingFailed, now: int) -> State:
    """Nothing was moved, nothing will be."""
    return settle(end(state, "failed", f"{event.code}: {event.fact}"))


def found(state: State, event: ev.Found, now: int) -> State:
    """Promise a slice of the budget to an offer."""
    deal = event.deal
    deposit = slice_for(state.plan.budget, state.available, deal)
    if deposit == 0:
        return not_found(state, "budget-too-small", "no offer can be paid with what is left", True, now)
    lease = Lease(
        state.attempt, deal, event.bundle, deposit, seconds=seconds_for(state.available, deal),
        checked=state.plan.accept,
    )  # fmt: skip
    allowed = allowance(state.plan, state.ledger, now)
    if allowed is not None and allowed < lease.prepaid:
        return not_found(state, "per-hour", "this hour's spend does not allow its prepaid quantum yet", False, now)
    return replace(state, phase="opening", lease=lease, attempt=state.attempt + 1, reason="")


def nothing_found(state: State, event: ev.NotFound, now: int) -> State:
    """Wait, or give up."""
    return not_found(state, event.code, event.fact, event.final, now)


def opened(state: State, event: ev.Opened, now: int) -> State:
    """The lease is on the chain."""
    assert state.lease is not None
    lease = replace(
        state.lease, lease=event.lease, channel=event.channel, seconds=event.seconds, opened_at=event.opened_at
    )
    if state.ending is not None:
        return replace(state, lease=replace(lease, left=state.ending.reason), phase="closing")
    return _advance(replace(state, phase="sending"), lease, now)


def open_failed(state: State, event: ev.OpenFailed, now: int) -> State:
    """Not on the chain: another offer, and this machine not for a while."""
    assert state.lease is not None
    machine = state.lease.deal.machine
    state = replace(state, reason=f"{event.code}: {event.fact}")
    if event.exclude_s:
        state = exclude(state, machine, now + event.exclude_s)
    return seek(replace(state, lease=None), now)


def sent(state: State, event: ev.Sent, now: int) -> State:
    """The provider has all inputs."""
    assert state.lease is not None
    return _advance(state, replace(state.lease, sent=True), now)


def probed(state: State, event: ev.Probed, now: int) -> State:
    """The machine is what was sold."""
    assert state.lease is not None
    return _advance(state, replace(state.lease, probed=True), now)


def started(state: State, event: ev.Started, now: int) -> State:
    """The provider was asked to start."""
    assert state.lease is not None
    return replace(state, lease=replace(state.lease, started=True))


def _advance(state: State, lease: Lease, now: int) -> State:
    """Pay what is prepaid once the machine may be believed; start once it has everything, too."""
    believed = lease.probed or not state.probing
    state = replace(state, lease=lease)
    if believed and not lease.vouchers:
        lease, ledger = sign(state.plan, state.ledger, lease, lease.prepaid, now)
        state = replace(state, lease=lease, ledger=ledger)
    return replace(state, phase="starting") if believed and lease.sent else state
