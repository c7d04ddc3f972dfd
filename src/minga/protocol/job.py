"""A job at its tenant, as a pure function: `step(state, event, now) -> (state, effects)`.

Knows: phases, money promised and paid, leases past and present, what must be going on now. Does not know: clocks,
chains, HTTP, files. The journal of a job is its plan and its events; folding it gives the same state.

```
submitted ─funded→ quoting ─found→ opening ─opened→ sending ─sent, probed→ starting → running ⇄ paused
                      ▲               │refused          │lost, under-spec      │lost       │exit, stop,
                      │◀──────────────┘◀────────────────┴──────────────────────┴──────┐    ▼ reclaim, idle
                  recovering ◀──── closed, and the job is not over ───── closing ◀─ collecting
                                                                             │ over
                  done | failed | stopped | exhausted ◀── money settled ── settling
```

A provider that is unreachable, under-spec or returned a bad result is left at once, closed from our side while the
job goes on elsewhere; any other is asked to close first. In each phase it has patience for what it must do, by our
monotonic clock (`job_state.patience`), so that none can hold a job without end.

Money (all amounts token units, all in integers; `job_money`, `job_lease`):

- `available` = budget − deposits + what came back. No lease is opened, or topped up, beyond it.
- Deposits are slices, so that what a vanished provider locks never stops the job; one whose own money is locked waits
  for it at its checkpoint.
- A voucher is cost_down(payable seconds), never above the deposit or the hour's cap, never lower than the last. It
  stands in the state, hence in the journal, before an effect sends it.
- Pay that is held back for an arbiter counts as spent; what a verdict gives back goes back to the tenant.
- A phase is terminal once each lease is closed, or its own close is on the chain with the amount and time known.

The handlers stand in `job_open` (up to the start), `job_work` (at work) and `job_end`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minga.protocol import job_end, job_open, job_work
from minga.protocol import job_events as ev
from minga.protocol.job_events import Effect, Event, Plan
from minga.protocol.job_moves import AGAIN_S, FOREVER
from minga.protocol.job_state import (
    AT_PROVIDER,
    AT_WORK,
    PHASES,
    SEEKING,
    TERMINAL,
    Ending,
    Phase,
    State,
    begin,
    effects,
    group,
)


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
        after = handler(state, event, now)
        state = replace(after, turn=state.turn + 1) if _in_time(state, after) else after
    return state, effects(state)


def _in_time(before: State, after: State) -> bool:
    """Whether the provider did what it must, or must do something else now."""
    old, new = before.lease, after.lease
    if group(before.phase) != group(after.phase):
        return True
    if old is None or new is None:
        return False
    if before.stopping != after.stopping or bool(old.stopping) != bool(new.stopping):
        return True
    return new.working_s > old.working_s and not after.stopping and not new.stopping


def replay(plan: Plan, events: list[tuple[Event, int]]) -> State:
    """The state after a journal of (event, Unix seconds)."""
    state = begin(plan)
    for event, at in events:
        state, _ = step(state, event, at)
    return state


Handler = Callable[[State, Any, int], State]
_LIVE: frozenset[Phase] = PHASES - TERMINAL
_SUBMITTED: frozenset[Phase] = frozenset({"submitted"})
_OPENING: frozenset[Phase] = frozenset({"opening"})
_SENDING: frozenset[Phase] = frozenset({"sending"})
_CLOSING: frozenset[Phase] = frozenset({"closing"})

TABLE: dict[type[Event], tuple[frozenset[Phase], Handler]] = {
    ev.Funded: (_SUBMITTED, job_open.funded),
    ev.FundingFailed: (_SUBMITTED, job_open.funding_failed),
    ev.Found: (SEEKING, job_open.found),
    ev.NotFound: (SEEKING, job_open.nothing_found),
    ev.Opened: (_OPENING, job_open.opened),
    ev.OpenFailed: (_OPENING, job_open.open_failed),
    ev.Sent: (_SENDING, job_open.sent),
    ev.Probed: (_SENDING, job_open.probed),
    ev.Started: (frozenset({"starting"}), job_open.started),
    ev.PhaseSeen: (AT_WORK, job_work.phase_seen),
    ev.Notified: (AT_WORK, job_work.notified),
    ev.Metered: (AT_WORK, job_work.metered),
    ev.Paid: (AT_PROVIDER | _CLOSING, job_work.paid),
    ev.ToppedUp: (AT_PROVIDER | _CLOSING, job_work.topped_up),
    ev.TopUpFailed: (AT_PROVIDER | _CLOSING, job_work.top_up_failed),
    ev.CheckpointSeen: (AT_PROVIDER, job_work.checkpoint_seen),
    ev.CheckpointKept: (AT_PROVIDER, job_work.checkpoint_kept),
    ev.Overdue: (AT_PROVIDER, job_work.overdue),
    ev.Ticked: (_LIVE, job_work.ticked),
    ev.Exited: (AT_WORK, job_end.exited),
    ev.Gathered: (frozenset({"collecting"}), job_end.gathered),
    ev.Lost: (AT_PROVIDER, job_end.lost),
    ev.CloseOverdue: (_CLOSING, job_end.close_overdue),
    ev.ClosingStarted: (PHASES, job_end.closing_started),
    ev.LeaseClosed: (PHASES, job_end.lease_closed),
    ev.HoldEnded: (PHASES, job_end.hold_ended),
    ev.StopAsked: (_LIVE, job_end.stop_asked),
    ev.Resumed: (_LIVE, job_end.resumed),
    ev.Returned: (TERMINAL | {"settling"}, job_end.returned),
}
"""Event → the phases in which it counts, and what it does."""

LATE: frozenset[type[Event]] = frozenset({ev.ClosingStarted, ev.HoldEnded, ev.LeaseClosed})
"""Events that may speak of a lease that was given up."""

__all__ = ["AGAIN_S", "FOREVER", "LATE", "TABLE", "Ending", "Handler", "begin", "replay", "step"]
