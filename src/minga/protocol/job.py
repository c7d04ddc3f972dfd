"""A job at its tenant, as a pure function: `step(state, event, now) -> (state, effects)`.

Knows: phases, money promised and paid, leases past and present, what must be going on now. Does not know: clocks,
chains, HTTP, files. The journal of a job is its plan and its events; folding it gives the same state.

```
submitted ─funded→ quoting ─found→ opening ─opened→ sending ─sent→ starting → running ⇄ paused
                      ▲               │refused          │lost         │lost       │exit, stop
                      │◀──────────────┘◀────────────────┴─────────────┴──────┐    ▼
                  recovering ◀──── closed, and the job is not over ───── closing ◀─ collecting
                                                                             │ over
                  done | failed | stopped | exhausted ◀── money settled ── settling
```

Money (all amounts token units, all in integers):

- `available` = budget − deposits + what came back. No lease is opened, or topped up, beyond it.
- A deposit is a slice: a quarter of the budget, at least the offer's least and one quantum, at most what is available.
- A voucher is cost_down(min(seconds claimed, seconds that we saw go by + 1)), never above the deposit, never lower
  than the last. It stands in the state, hence in the journal, before an effect sends it.
- A phase is terminal once each lease is closed, or its own close is on the chain with the amount and time known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_events import Effect, Event, Plan
from minga.protocol.job_state import (
    AT_PROVIDER,
    AT_WORK,
    PHASES,
    SEEKING,
    SLICES,
    TERMINAL,
    Ending,
    Lease,
    Phase,
    State,
    begin,
    effects,
    seconds_for,
    slice_for,
)  # fmt: skip
from minga.protocol.lease import Why
from minga.protocol.pricing import cost_up, seconds_covered

TOP_UP_LEFT_S = 20
STOP_SLACK_S = 60
BACKOFF_S = (1, 2, 4, 8, 16, 30)
FOREVER = 2**53 - 1
MOVING = "the deposit is used up, another lease follows"
OURS = ("no voucher", MOVING)
AGAIN_S = 60


def step(state: State, event: Event, now: int) -> tuple[State, tuple[Effect, ...]]:
    """The next state, and everything that should be going on in it.

    Args:
        state: the job before.
        event: what happened; one that the phase does not know, or of an attempt that is over, changes nothing.
        now: Unix seconds.
    """
    attempt = getattr(event, "attempt", None)
    phases, handler = TABLE[type(event)]
    if attempt is not None and type(event) not in LATE and (state.lease is None or state.lease.attempt != attempt):
        return state, effects(state)
    if state.phase in phases:
        state = handler(state, event, now)
    return state, effects(state)


def replay(plan: Plan, events: list[tuple[Event, int]]) -> State:
    """The state after a journal of (event, Unix seconds)."""
    state = begin(plan)
    for event, at in events:
        state, _ = step(state, event, at)
    return state


# ------------------------------------------------------------------------------------------------------------- money


def _next_top_up(state: State, lease: Lease) -> tuple[int, int] | None:
    """Amount and total of the top-up that is due, if one is."""
    deal = lease.deal
    low = lease.cost(max(2 * deal.quantum, TOP_UP_LEFT_S))  # time for a transaction, while the job works on
    most = cost_up(deal.price_per_hour, deal.units, lease.seconds) - lease.deposit
    amount = min(max(state.plan.budget // SLICES, low), state.available, most)
    if not lease.top_ups or lease.deposit - lease.signed >= low or amount < max(1, lease.cost(1)):
        return None
    return amount, lease.deposit + amount


def _signed(lease: Lease) -> Lease:
    """The lease with the voucher for what may be paid now."""
    cumulative = min(lease.cost(lease.payable_s), lease.deposit)
    if cumulative <= lease.signed:
        return lease
    return replace(lease, signed=Amount(cumulative), vouchers=lease.vouchers + 1)


# ----------------------------------------------------------------------------------------------- submitted to running


def _funded(state: State, event: ev.Funded, now: int) -> State:
    return _seek(replace(state, funded=True, unreturned=True), now, "quoting")


def _funding_failed(state: State, event: ev.FundingFailed, now: int) -> State:
    return _settle(_end(state, "failed", f"{event.code}: {event.fact}"))


def _seek(state: State, now: int, phase: Phase = "recovering") -> State:
    if state.ending is not None:
        return _settle(state)
    if state.attempt >= state.plan.attempts_max:
        return _settle(_end(state, "failed", f"{state.attempt} attempts failed; the last: {state.reason}"))
    turn = state.seek_turn + 1
    return replace(state, phase=phase, lease=None, seek_since=now, seek_turn=turn, seek_tries=0, seek_at=0)


def _found(state: State, event: ev.Found, now: int) -> State:
    deposit = slice_for(state.plan.budget, state.available, event.deal)
    if deposit == 0:
        return _not_found(state, ev.NotFound("budget-too-small", "no offer can be paid with what is left", True), now)
    lease = Lease(state.attempt, event.deal, event.bundle, deposit, seconds=seconds_for(state.available, event.deal))
    return replace(state, phase="opening", lease=lease, attempt=state.attempt + 1, reason="")


def _not_found(state: State, event: ev.NotFound, now: int) -> State:
    if event.final or now - state.seek_since >= state.plan.wait_s:
        spent = event.code == "budget-too-small" and bool(state.past)
        return _settle(_end(state, "exhausted" if spent else "failed", f"{event.code}: {event.fact}"))
    tries = state.seek_tries + 1
    pause = BACKOFF_S[min(tries, len(BACKOFF_S)) - 1]
    return replace(state, seek_tries=tries, seek_at=now + pause, reason=f"{event.code}: {event.fact}")


def _opened(state: State, event: ev.Opened, now: int) -> State:
    assert state.lease is not None
    deal = state.lease.deal
    prepaid = min(state.lease.deposit, state.lease.cost(deal.quantum * deal.prepaid_quanta))
    lease = replace(
        state.lease, lease=event.lease, channel=event.channel, seconds=event.seconds, opened_at=event.opened_at,
        signed=Amount(prepaid), vouchers=1 if prepaid else 0,
    )  # fmt: skip
    if state.ending is not None:
        return replace(state, lease=replace(lease, signed=Amount(0), vouchers=0), phase="closing")
    return replace(state, lease=lease, phase="sending")


def _open_failed(state: State, event: ev.OpenFailed, now: int) -> State:
    assert state.lease is not None
    machine = state.lease.deal.machine
    state = replace(state, reason=f"{event.code}: {event.fact}")
    if event.exclude_s:
        state = _exclude(state, machine, now + event.exclude_s)
    return _seek(replace(state, lease=None), now)


def _sent(state: State, event: ev.Sent, now: int) -> State:
    return replace(state, phase="starting")


def _started(state: State, event: ev.Started, now: int) -> State:
    assert state.lease is not None
    return replace(state, lease=replace(state.lease, started=True))


# ------------------------------------------------------------------------------------------------------------ at work

OVER_AT_PROVIDER = frozenset({"failed", "exited", "closing", "closed"})
"""Phases of the provider in which nothing of the job runs, met without the job's exit before them."""

_PROVIDER_PHASES: dict[str, Phase] = {"starting": "starting", "running": "running", "paused": "paused"}


def _phase_seen(state: State, event: ev.PhaseSeen, now: int) -> State:
    lease = _noted(state, event.number)
    if lease is None:
        return state
    if event.phase == "stopping" and not lease.stopping:
        lease = replace(lease, stopping=event.reason or "the provider stopped it")
    state = replace(state, lease=lease)
    if event.phase in OVER_AT_PROVIDER:
        until = FOREVER if event.phase == "failed" else now + AGAIN_S
        state = _exclude(state, lease.deal.machine, until)
        return replace(state, phase="closing", stop_by=0, reason=event.reason or "the provider ended the lease")
    return replace(state, phase=_PROVIDER_PHASES.get(event.phase, state.phase))


def _noted(state: State, number: int) -> Lease | None:
    """The lease with event `number` seen, or None if it was seen before."""
    lease = state.lease
    return None if lease is None or number <= lease.seen else replace(lease, seen=number)


def _metered(state: State, event: ev.Metered, now: int) -> State:
    lease = _noted(state, event.number)
    return state if lease is None else _worked(state, lease, event.working_s, event.elapsed_s, now)


def _worked(state: State, lease: Lease, working_s: int, elapsed_s: int, now: int) -> State:
    worked = max(lease.working_s, working_s)
    lease = _signed(replace(lease, working_s=worked, elapsed_s=max(lease.elapsed_s, elapsed_s)))
    state = replace(state, lease=lease)
    if state.stop_by or lease.exited or state.top_up is not None:
        return state
    due = _next_top_up(state, lease)
    if due is not None:
        return replace(state, top_up=due)
    left = seconds_covered(lease.deal.price_per_hour, lease.deal.units, lease.deposit) - lease.payable_s
    return _out_of_deposit(state, lease, now) if left <= max(2, lease.deal.quantum // 2) else state


def _out_of_deposit(state: State, lease: Lease, now: int) -> State:
    """Stop while the time to checkpoint can still be paid: for good, or to go on with another lease."""
    if slice_for(state.plan.budget, state.available, lease.deal):
        state = replace(state, lease=replace(lease, stopping=MOVING))
    else:
        state = _end(state, "exhausted", "budget-exhausted: the budget is spent")
    return replace(state, stop_by=now + state.plan.grace_s + STOP_SLACK_S)


def _paid(state: State, event: ev.Paid, now: int) -> State:
    assert state.lease is not None
    acked = min(max(state.lease.acked, event.cumulative), state.lease.signed)
    return replace(state, lease=replace(state.lease, acked=Amount(acked)))


def _topped_up(state: State, event: ev.ToppedUp, now: int) -> State:
    assert state.lease is not None
    if state.top_up is None or event.deposit != state.top_up[1]:
        return state
    lease = replace(state.lease, deposit=event.deposit)
    return _worked(replace(state, top_up=None), lease, lease.working_s, lease.elapsed_s, now)


def _top_up_failed(state: State, event: ev.TopUpFailed, now: int) -> State:
    assert state.lease is not None
    lease = replace(state.lease, top_ups=False)
    state = replace(state, top_up=None, lease=lease, reason=f"{event.code}: {event.fact}")
    return _worked(state, lease, lease.working_s, lease.elapsed_s, now)


def _checkpoint_seen(state: State, event: ev.CheckpointSeen, now: int) -> State:
    lease = _noted(state, event.number)
    if lease is None:
        return state
    return replace(state, lease=replace(lease, announced=lease.announced or event.number, newest=event.number))


def _checkpoint_kept(state: State, event: ev.CheckpointKept, now: int) -> State:
    assert state.lease is not None
    lease = state.lease
    announced = 0 if event.number >= lease.newest else lease.newest
    newest = (lease.attempt, event.count, event.step)
    if state.checkpoint is not None and state.checkpoint[:2] > newest[:2]:
        newest = state.checkpoint
    return replace(state, checkpoint=newest, lease=replace(lease, announced=announced))


# --------------------------------------------------------------------------------------------------- exit and collect


def _exited(state: State, event: ev.Exited, now: int) -> State:
    lease = _noted(state, event.number)
    if lease is None:
        return state
    lease = replace(
        lease, exited=True, exit_code=event.exit_code, working_s=max(lease.working_s, event.working_s),
        elapsed_s=max(lease.elapsed_s, event.elapsed_s),
    )  # fmt: skip
    state = replace(state, phase="collecting", lease=lease, stop_by=0, reason=event.reason)
    if state.ending is not None:
        return replace(state, ending=replace(state.ending, exit_code=event.exit_code))
    if lease.stopping or event.exit_code is None:
        return _not_the_jobs_fault(state, lease, now)
    if event.exit_code == 0:
        return _end(state, "done", "", 0)
    if state.failures < state.plan.failures_max:
        return replace(state, failures=state.failures + 1)
    return _end(state, "failed", event.reason, event.exit_code)


def _not_the_jobs_fault(state: State, lease: Lease, now: int) -> State:
    """The job goes on elsewhere; at its own provider again if that only missed our vouchers or its lease ended."""
    if lease.stopping.startswith(OURS):
        return state
    until = FOREVER if lease.exit_code is None else now + AGAIN_S
    return _exclude(state, lease.deal.machine, until)


def _gathered(state: State, event: ev.Gathered, now: int) -> State:
    assert state.lease is not None
    return replace(state, phase="closing", lease=_signed(state.lease))


def _lost(state: State, event: ev.Lost, now: int) -> State:
    assert state.lease is not None
    state = replace(_exclude(state, state.lease.deal.machine, FOREVER), reason=f"{event.code}: {event.reason}")
    if state.ending is not None and state.ending.phase in ("done", "failed") and state.phase == "collecting":
        # What it made is gone with its provider: the work counts only once it is here.
        state = replace(state, ending=None)
    if event.code not in GONE:
        return replace(state, phase="closing", stop_by=0)
    return _leave(state, now, Why.BAD_RESULT if event.code == "bad-artifact" else Why.UNREACHABLE)


def _leave(state: State, now: int, why: int) -> State:
    """Give the present lease up: it will be closed from our side while the job goes on."""
    assert state.lease is not None
    # A top-up that was on its way counts as made until the chain says otherwise.
    deposit = Amount(state.top_up[1]) if state.top_up else state.lease.deposit
    past = (*state.past, replace(state.lease, why=why, deposit=deposit))
    return _seek(replace(state, past=past, lease=None, top_up=None, stop_by=0), now)


# ----------------------------------------------------------------------------------------------------------- the end


def _close_overdue(state: State, event: ev.CloseOverdue, now: int) -> State:
    return _leave(state, now, Why.DONE)


def _lease_closed(state: State, event: ev.LeaseClosed, now: int) -> State:
    if state.lease is not None and state.lease.attempt == event.attempt:
        lease = _close(state.lease, event)
        ended = replace(state, past=(*state.past, lease), lease=None, top_up=None, stop_by=0)
        if state.phase in AT_PROVIDER and not lease.exited:
            ended = _exclude(ended, lease.deal.machine, now + AGAIN_S)
        return _seek(ended, now)
    past = tuple(
        _close(item, event) if item.attempt == event.attempt and item.status != "closed" else item
        for item in state.past
    )
    changed = past != state.past
    return _finish(replace(state, past=past, unreturned=state.unreturned or (changed and event.refunded > 0)))


def _close(lease: Lease, event: ev.LeaseClosed) -> Lease:
    """The lease with the chain's totals, which are right also when a top-up of ours was not acknowledged."""
    deposit = Amount(event.paid + event.fee + event.held + event.refunded)
    return replace(
        lease, status="closed", deposit=deposit, paid=event.paid, fee=event.fee, held=event.held,
        refunded=event.refunded,
    )  # fmt: skip


def _closing_started(state: State, event: ev.ClosingStarted, now: int) -> State:
    past = tuple(
        replace(item, status="closing", finish_at=event.finish_at)
        if item.attempt == event.attempt and item.status == "open"
        else item
        for item in state.past
    )
    return _finish(replace(state, past=past))


def _end(state: State, phase: Phase, reason: str, exit_code: int | None = None) -> State:
    return replace(state, ending=state.ending or Ending(phase, reason[:500], exit_code))


def _settle(state: State) -> State:
    return _finish(replace(state, phase="settling", lease=None, top_up=None, stop_by=0))


def _finish(state: State) -> State:
    """Terminal, once every lease is closed or closing and what came back was returned."""
    settled = (
        state.phase == "settling" and not any(item.status == "open" for item in state.past) and not state.unreturned
    )
    if not settled or state.ending is None:
        return state
    return replace(state, phase=state.ending.phase, reason=state.ending.reason or state.reason)


def _returned(state: State, event: ev.Returned, now: int) -> State:
    total = Amount(state.returned + event.tokens)
    return _finish(replace(state, returns=state.returns + 1, returned=total, unreturned=False))


def _stop_asked(state: State, event: ev.StopAsked, now: int) -> State:
    return _stop(state, "stopped", event.reason, now)


def _stop(state: State, phase: Phase, reason: str, now: int) -> State:
    if state.ending is not None:
        return state
    state = _end(state, phase, reason)
    if state.phase in AT_WORK:
        return replace(state, stop_by=now + state.plan.grace_s + STOP_SLACK_S)
    if state.phase == "sending":
        return replace(state, phase="closing")
    # While it is submitted, funding may be on its way: that is finished first, and then returned.
    return _settle(state) if state.phase in SEEKING else state


def _ticked(state: State, event: ev.Ticked, now: int) -> State:
    deadline = state.plan.deadline
    if deadline is not None and now >= deadline and state.ending is None:
        state = _stop(state, "stopped", "deadline-passed: the deadline came before the end", now)
    if state.stop_by and now >= state.stop_by and state.phase in AT_WORK and state.lease is not None:
        return _lost(state, ev.Lost(state.lease.attempt, "provider-unreachable", "it did not stop the job"), now)
    return state


def _resumed(state: State, event: ev.Resumed, now: int) -> State:
    """Time that we did not see may be claimed, but no more than a provider works unpaid."""
    lease = state.lease
    if lease is None or not lease.seen:
        return state
    unseen = max(0, min(event.gap_s, 2 * lease.deal.quantum))
    total = lease.elapsed_s + unseen
    return replace(state, lease=replace(lease, base_s=total, elapsed_s=total))


def _exclude(state: State, machine: str, until: int) -> State:
    others = tuple(item for item in state.excluded if item[0] != machine)
    return replace(state, excluded=(*others, (machine, until)))


GONE = frozenset({"provider-unreachable", "bad-artifact"})
"""Losses after which the provider is not asked for anything any more; else it can still close the lease itself."""

Handler = Callable[[State, Any, int], State]
_LIVE: frozenset[Phase] = PHASES - TERMINAL
_SUBMITTED: frozenset[Phase] = frozenset({"submitted"})
_OPENING: frozenset[Phase] = frozenset({"opening"})
_CLOSING: frozenset[Phase] = frozenset({"closing"})

TABLE: dict[type[Event], tuple[frozenset[Phase], Handler]] = {
    ev.Funded: (_SUBMITTED, _funded),
    ev.FundingFailed: (_SUBMITTED, _funding_failed),
    ev.Found: (SEEKING, _found),
    ev.NotFound: (SEEKING, _not_found),
    ev.Opened: (_OPENING, _opened),
    ev.OpenFailed: (_OPENING, _open_failed),
    ev.Sent: (frozenset({"sending"}), _sent),
    ev.Started: (frozenset({"starting"}), _started),
    ev.PhaseSeen: (AT_WORK, _phase_seen),
    ev.Metered: (AT_WORK, _metered),
    ev.Paid: (AT_PROVIDER | _CLOSING, _paid),
    ev.ToppedUp: (AT_PROVIDER | _CLOSING, _topped_up),
    ev.TopUpFailed: (AT_PROVIDER | _CLOSING, _top_up_failed),
    ev.CheckpointSeen: (AT_PROVIDER, _checkpoint_seen),
    ev.CheckpointKept: (AT_PROVIDER, _checkpoint_kept),
    ev.Exited: (AT_WORK, _exited),
    ev.Gathered: (frozenset({"collecting"}), _gathered),
    ev.Lost: (AT_PROVIDER, _lost),
    ev.CloseOverdue: (_CLOSING, _close_overdue),
    ev.ClosingStarted: (PHASES, _closing_started),
    ev.LeaseClosed: (PHASES, _lease_closed),
    ev.StopAsked: (_LIVE, _stop_asked),
    ev.Resumed: (_LIVE, _resumed),
    ev.Ticked: (_LIVE, _ticked),
    ev.Returned: (TERMINAL | {"settling"}, _returned),
}
"""Event → the phases in which it counts, and what it does."""

LATE: frozenset[type[Event]] = frozenset({ev.ClosingStarted, ev.LeaseClosed})
"""Events that may speak of a lease that was given up."""
