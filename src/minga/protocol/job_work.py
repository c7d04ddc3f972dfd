"""What happens to a job at work: the provider's phases and claims, vouchers, top-ups, checkpoints, notices.

Handlers of `minga.protocol.job`. Rule: the provider's word moves the job, our own clock and checks move the money.
"""

from __future__ import annotations

from dataclasses import replace

from minga.core.units import format_duration
from minga.protocol import job_events as ev
from minga.protocol.job_lease import Lease
from minga.protocol.job_money import next_top_up
from minga.protocol.job_moves import (
    AGAIN_S,
    FOREVER,
    MOVING,
    RECLAIMED,
    end,
    exclude,
    lose,
    signed,
    stop,
    waits_for_money,
)
from minga.protocol.job_state import AT_WORK, Phase, State, patience, slice_for
from minga.protocol.lease import Why
from minga.protocol.pricing import seconds_covered

OVER_AT_PROVIDER = frozenset({"failed", "exited", "closing", "closed"})
"""Phases of the provider in which nothing of the job runs, met without the job's exit before them."""

SLOW_AFTER_S = 600
SLOW_SHARE = 10
"""A provider is left when, after ten minutes, the job worked less than a tenth of the time."""

_PROVIDER_PHASES: dict[str, Phase] = {"starting": "starting", "running": "running", "paused": "paused"}


def phase_seen(state: State, event: ev.PhaseSeen, now: int) -> State:
    """The provider's phase: the job's, a stop, or the end of the lease."""
    lease = noted(state, event.number)
    if lease is None:
        return state
    if event.phase == "stopping" and not lease.stopping:
        lease = _stopped_by_provider(state, lease, event)
    state = replace(state, lease=lease)
    if event.phase in OVER_AT_PROVIDER:
        reason = event.reason or "the provider ended the lease"
        until = FOREVER if event.phase == "failed" else now + AGAIN_S
        state = exclude(replace(state, lease=replace(lease, left=reason)), lease.deal.machine, until)
        return replace(state, phase="closing", stopping=False, reason=reason)
    return replace(state, phase=_PROVIDER_PHASES.get(event.phase, state.phase))


def _stopped_by_provider(state: State, lease: Lease, event: ev.PhaseSeen) -> Lease:
    lease = replace(lease, stopping=event.reason or lease.notice or "the provider stopped it")
    if lease.stopping.startswith(RECLAIMED) and lease.notice_s < lease.deal.notice_s:
        lease = replace(lease, why=Why.SHUTTING_DOWN)
    if state.stopping:
        return lease
    # Nobody agreed to pay for seconds after a stop that the tenant did not ask for.
    why = RECLAIMED if lease.stopping.startswith(RECLAIMED) else "stopped by the provider"
    return lease.limited(lease.seconds_at(max(event.elapsed_s, lease.elapsed_s)), why)


def noted(state: State, number: int) -> Lease | None:
    """The lease with event `number` seen, or None if it was seen before."""
    lease = state.lease
    return None if lease is None or number <= lease.seen else replace(lease, seen=number)


def notified(state: State, event: ev.Notified, now: int) -> State:
    """A reclaim is coming; what it comes to is seen by the phases."""
    lease = noted(state, event.number)
    if lease is None:
        return state
    return replace(state, lease=replace(lease, notice=event.reason, notice_s=event.seconds))


def metered(state: State, event: ev.Metered, now: int) -> State:
    """The provider's claim."""
    lease = noted(state, event.number)
    if lease is None:
        return state
    state = _worked(state, replace(lease, idle_s=event.idle_s), event.working_s, event.elapsed_s, now)
    return _too_slow(_idle(state), now)


def _worked(state: State, lease: Lease, working_s: int, elapsed_s: int, now: int) -> State:
    lease = replace(lease, working_s=max(lease.working_s, working_s), elapsed_s=max(lease.elapsed_s, elapsed_s))
    state = signed(state, _limited_by_idleness(state, lease), now)
    assert state.lease is not None
    lease = state.lease
    if state.stopping or lease.exited or state.top_up is not None:
        return state
    due = next_top_up(state.plan.budget, state.available, lease)
    if due is not None:
        return replace(state, top_up=due)
    left = seconds_covered(lease.deal.price_per_hour, lease.deal.units, lease.deposit) - lease.worked_s
    return _out_of_deposit(state, lease) if left <= max(2, lease.deal.quantum // 2) else state


def _out_of_deposit(state: State, lease: Lease) -> State:
    """Stop while the time to checkpoint can still be paid: for good, or to go on with another lease."""
    if slice_for(state.plan.budget, state.available, lease.deal) or waits_for_money(state):
        return replace(state, lease=replace(lease, stopping=MOVING), stopping=True)
    return stop(state, "exhausted", "budget-exhausted: the budget is spent")


def _limited_by_idleness(state: State, lease: Lease) -> Lease:
    most = state.plan.max_idle_s
    if most is None or lease.idle_s < most:
        return lease
    return lease.limited(max(0, lease.worked_s - (lease.idle_s - most)), "idle")


def _idle(state: State) -> State:
    most, lease = state.plan.max_idle_s, state.lease
    if most is None or lease is None or lease.idle_s < most or lease.stopping:
        return state
    return stop(state, "stopped", f"idle: the job made no progress for {format_duration(lease.idle_s)}")


def _too_slow(state: State, now: int) -> State:
    """A provider that lets the job run for moments only holds it, too."""
    lease = state.lease
    if lease is None or lease.elapsed_s < SLOW_AFTER_S or lease.worked_s * SLOW_SHARE >= lease.elapsed_s:
        return state
    return lose(state, "too-slow", f"the job worked {lease.worked_s} s of {lease.elapsed_s} s", now)


def paid(state: State, event: ev.Paid, now: int) -> State:
    """The provider holds a voucher."""
    assert state.lease is not None
    acked = min(max(state.lease.acked, event.cumulative), state.lease.signed)
    return replace(state, lease=replace(state.lease, acked=acked))


def topped_up(state: State, event: ev.ToppedUp, now: int) -> State:
    """The deposit grew, if by what we asked."""
    assert state.lease is not None
    if state.top_up is None or event.deposit != state.top_up[1]:
        return state
    lease = replace(state.lease, deposit=event.deposit)
    return _worked(replace(state, top_up=None), lease, lease.working_s, lease.elapsed_s, now)


def top_up_failed(state: State, event: ev.TopUpFailed, now: int) -> State:
    """The deposit stays: the job moves when it is used up."""
    assert state.lease is not None
    lease = replace(state.lease, top_ups=False)
    state = replace(state, top_up=None, lease=lease, reason=f"{event.code}: {event.fact}")
    return _worked(state, lease, lease.working_s, lease.elapsed_s, now)


def checkpoint_seen(state: State, event: ev.CheckpointSeen, now: int) -> State:
    """A checkpoint was announced; what was worked before it counts once it is kept."""
    lease = noted(state, event.number)
    return state if lease is None else replace(state, lease=lease.marked(event.number, event.elapsed_s))


def checkpoint_kept(state: State, event: ev.CheckpointKept, now: int) -> State:
    """A checkpoint is ours, and accepted."""
    assert state.lease is not None
    newest = (state.lease.attempt, event.count, event.step)
    size = event.bytes
    if state.checkpoint is not None and state.checkpoint[:2] > newest[:2]:
        newest, size = state.checkpoint, state.checkpoint_bytes
    lease = state.lease.judged(event.number)
    state = replace(state, checkpoint=newest, checkpoint_bytes=size, lease=lease)
    return signed(state, lease, now) if lease.checked and state.phase in AT_WORK else state


def overdue(state: State, event: ev.Overdue, now: int) -> State:
    """The provider's patience ran out."""
    limit = patience(state)
    if limit is None or state.lease is None or event.turn != state.turn:
        return state
    # One that does not end what it was told to end, or hides what it does, is not asked for anything any more.
    code = "too-slow" if state.phase in ("sending", "starting") else "provider-unreachable"
    return lose(state, code, limit[1], now)


def ticked(state: State, event: ev.Ticked, now: int) -> State:
    """The deadline, or an hour that went by."""
    deadline = state.plan.deadline
    if deadline is not None and now >= deadline and state.ending is None:
        state = stop(state, "stopped", "deadline-passed: the deadline came before the end")
    if state.phase in AT_WORK and state.lease is not None and state.ledger:
        state = signed(state, state.lease, now)
    return state


__all__ = [
    "OVER_AT_PROVIDER", "checkpoint_kept", "checkpoint_seen", "end", "metered", "noted", "notified", "overdue", "paid",
    "phase_seen", "ticked", "top_up_failed", "topped_up",
]  # fmt: skip
