"""What happens to a job when a lease or the job ends: exit, results, loss, close, stop, return.

Handlers of `minga.protocol.job`. Rule: what a job made counts only once it is here; money counts as the chain says.
"""

from __future__ import annotations

from dataclasses import replace

from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_lease import ZERO, Lease
from minga.protocol.job_moves import (
    AGAIN_S,
    FOREVER,
    NO_VOUCHER,
    OURS,
    closed,
    end,
    exclude,
    finish,
    leave,
    lose,
    seek,
    signed,
    stop,
)
from minga.protocol.job_state import AT_PROVIDER, TERMINAL, State
from minga.protocol.job_work import noted
from minga.protocol.lease import Why


def exited(state: State, event: ev.Exited, now: int) -> State:
    """The job's process ended; whose doing it was decides what comes next."""
    lease = noted(state, event.number)
    if lease is None:
        return state
    lease = replace(
        lease, exited=True, exit_code=event.exit_code, working_s=max(lease.working_s, event.working_s),
        elapsed_s=max(lease.elapsed_s, event.elapsed_s), left=lease.stopping or event.reason,
    )  # fmt: skip
    state = replace(state, phase="collecting", lease=lease, stopping=False, reason=event.reason)
    if state.ending is not None:
        lease = replace(lease, left=state.ending.reason)
        return replace(state, lease=lease, ending=replace(state.ending, exit_code=event.exit_code))
    if lease.stopping or event.exit_code is None:
        return _not_the_jobs_fault(state, lease, now)
    if event.exit_code == 0:
        return end(state, "done", "", 0)
    if state.failures < state.plan.failures_max:
        return replace(state, failures=state.failures + 1)
    return end(state, "failed", event.reason, event.exit_code)


def _not_the_jobs_fault(state: State, lease: Lease, now: int) -> State:
    """The job goes on elsewhere; at its own provider again if that only missed our vouchers or its lease ended."""
    if lease.stopping.startswith(NO_VOUCHER) and lease.checked and not lease.accepted_s and not lease.away:
        fact = f"no checkpoint was accepted within the quantum of {lease.deal.quantum} s; write them oftener"
        return end(state, "failed", f"no-checkpoint: {fact}, or say how far apart they are (accept.every)")
    if lease.stopping.startswith(OURS):
        return state
    until = FOREVER if lease.exit_code is None else now + AGAIN_S
    return exclude(state, lease.deal.machine, until)


def gathered(state: State, event: ev.Gathered, now: int) -> State:
    """Everything is here: the last seconds are paid, the lease can close."""
    assert state.lease is not None
    return replace(signed(state, state.lease, now), phase="closing")


def lost(state: State, event: ev.Lost, now: int) -> State:
    """The provider failed."""
    return lose(state, event.code, event.reason, now)


def close_overdue(state: State, event: ev.CloseOverdue, now: int) -> State:
    """The provider did not close: we do."""
    assert state.lease is not None
    why = state.lease.why or _why(state, state.lease)
    return leave(replace(state, lease=replace(state.lease, why=why)), now)


def _why(state: State, lease: Lease) -> int:
    if state.ending is not None and state.ending.phase in ("stopped", "exhausted"):
        return Why.STOPPED
    return Why.JOB_FAILED if lease.exit_code else Why.DONE


def lease_closed(state: State, event: ev.LeaseClosed, now: int) -> State:
    """The chain's last word on a lease."""
    if state.lease is not None and state.lease.attempt == event.attempt:
        lease = closed(state.lease, event)
        lease = replace(lease, left=lease.left or (state.ending.reason if state.ending else "it closed the lease"))
        ended = replace(state, past=(*state.past, lease), lease=None, top_up=None, stopping=False)
        if state.phase in AT_PROVIDER and not lease.exited:
            ended = exclude(ended, lease.deal.machine, now + AGAIN_S)
        return seek(ended, now)
    past = tuple(
        closed(item, event) if item.attempt == event.attempt and item.status != "closed" else item
        for item in state.past
    )
    came = past != state.past and event.refunded > 0
    # A return that is under way may have been sent before this refund: another one follows it.
    late = state.late_refund or (came and state.unreturned and state.phase in TERMINAL | {"settling"})
    return finish(replace(state, past=past, unreturned=state.unreturned or came, late_refund=late))


def hold_ended(state: State, event: ev.HoldEnded, now: int) -> State:
    """What was held back is divided; our part, and the gas that was kept for it, goes back."""
    past = tuple(
        replace(
            item, hold_ended=True, held=ZERO, paid=Amount(item.paid + event.to_provider),
            refunded=Amount(item.refunded + event.to_tenant), awarded=event.awarded,
        )
        if item.attempt == event.attempt and item.on_hold
        else item
        for item in state.past
    )  # fmt: skip
    if past == state.past:
        return state
    late = state.late_refund or (state.unreturned and state.phase in TERMINAL | {"settling"})
    return finish(replace(state, past=past, unreturned=True, late_refund=late))


def closing_started(state: State, event: ev.ClosingStarted, now: int) -> State:
    """Our own close is on the chain."""
    past = tuple(
        replace(item, status="closing", finish_at=event.finish_at)
        if item.attempt == event.attempt and item.status == "open"
        else item
        for item in state.past
    )
    return finish(replace(state, past=past))


def returned(state: State, event: ev.Returned, now: int) -> State:
    """What was left went back."""
    total = Amount(state.returned + event.tokens)
    return finish(
        replace(state, returns=state.returns + 1, returned=total, unreturned=state.late_refund, late_refund=False)
    )


def stop_asked(state: State, event: ev.StopAsked, now: int) -> State:
    """The tenant's wish."""
    return stop(state, "stopped", event.reason)


def resumed(state: State, event: ev.Resumed, now: int) -> State:
    """Time that we did not see may be claimed, but no more than a provider works unpaid."""
    lease = state.lease
    if lease is None or not lease.seen:
        return state
    unseen = max(0, min(event.gap_s, 2 * lease.deal.quantum))
    total = lease.elapsed_s + unseen
    away = lease.away or event.gap_s >= lease.deal.quantum
    return replace(state, lease=replace(lease, base_s=total, elapsed_s=total, away=away))
