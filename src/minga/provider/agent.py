"""One lease at its provider, as a pure function: `step(state, event, now) -> (state, effects)`.

Knows: phases, money owed, what to do next. Does not know: clocks, chains, processes, files, HTTP. Rule: an event that
the phase does not allow raises `Conflict` and changes nothing; whoever calls journals the event before it does the
effects, so that folding the journal gives the same state and the same numbered events for the tenant.

```
opened ─manifest, inputs→ ready ─start→ starting ─started→ running ⇄ paused
                                            │                 │        │ no voucher for the dead-man time
                                            │     exit  ┌─────┴────────┤ or a stop, or a reclaim
                                            ▼           ▼              ▼
                            failed / exited ◀─ collecting ◀─────── stopping
                                  └─────close─────▶ closing ─chain→ closed
```

A lease may be closed from any phase: by the tenant's request, at its end, when the tenant starts a close on chain,
when the owner takes the machine back, or because it is not used. A running job is stopped and collected first; the
chain's window leaves time for that. A lease whose work was ordered to be verified is closed once its trace stands
committed. The rules stand by subject in `rules_intake`, `rules_work`, `rules_verify` and `rules_end`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minga.core.errors import Conflict, InternalError
from minga.protocol.wire import Phase
from minga.provider import events as ev
from minga.provider import rules_end, rules_intake, rules_verify, rules_work
from minga.provider.events import Effect, Emit, Event
from minga.provider.lease_state import ALIVE, ALL, OVER, UNCLOSED, WAITING, State, begin, prepaid_due
from minga.provider.rules_end import PROVIDERS_FAULT
from minga.provider.turn import REMEDY, Turn, close_effect


def step(state: State, event: Event, now: int) -> tuple[State, list[Effect]]:
    """The next state, and what to do about it once the event is journaled.

    Args:
        state: the lease before.
        event: what happened.
        now: Unix seconds, for the tenant's events only; no rule depends on it.

    Raises:
        Conflict: the phase does not allow this event.
        StaleVoucher: a voucher that is above the deposit, or not above the last one.
    """
    rule = TABLE.get(type(event))
    if rule is None:
        raise InternalError(f"no rule for {type(event).__name__}")
    phases, handler = rule
    if state.phase not in phases:
        stands = f"{state.phase} ({state.reason})" if state.reason else state.phase
        raise Conflict(f"the lease is {stands}: {_WHAT.get(type(event), type(event).__name__)} cannot be now", REMEDY)
    turn = Turn(state, now)
    handler(turn, event)
    return turn.state, turn.effects


def replay(events: list[tuple[Event, int]]) -> tuple[State, list[Emit]]:
    """The state after a journal of (event, Unix seconds), and every event that the tenant was told.

    Raises:
        InternalError: the journal does not begin with `Opened`.
    """
    if not events or not isinstance(events[0][0], ev.Opened):
        raise InternalError("a lease's journal does not begin with its opening")
    state, told = begin(events[0][0]), []
    for event, at in events[1:]:
        state, effects = step(state, event, at)
        told += [effect for effect in effects if isinstance(effect, Emit)]
    return state, told


def resume(state: State) -> list[Effect]:
    """What to do again after a restart, since it may have been cut off half-way.

    A job that should run may still stand, since its thaw was cut off. A stop is sent again with all of its grace: the
    runtime keeps the earlier end, if it ever heard of one.
    """
    if state.phase in ALIVE:
        again: dict[Phase, list[Effect]] = {
            "running": [ev.Thaw(metered=True)],
            "paused": [ev.Freeze()],
            "stopping": [ev.Thaw(metered=False), ev.Stop(state.grace_s)],
        }
        return [ev.Launch(), *again.get(state.phase, [])]
    if state.phase == "collecting":
        return [ev.Collect()]
    if state.phase == "closing":
        return [close_effect(state)]
    return [ev.Commit()] if state.committing else []


Handler = Callable[[Turn, Any], None]

TABLE: dict[type[Event], tuple[frozenset[Phase], Handler]] = {
    ev.LoggedIn: (ALL, rules_intake.logged_in),
    ev.ManifestSet: (frozenset({"opened"}), rules_intake.manifest_set),
    ev.BlobStored: (frozenset({"opened"}), rules_intake.blob_stored),
    ev.VoucherStored: (UNCLOSED, rules_intake.voucher_stored),
    ev.DepositSeen: (UNCLOSED, rules_intake.deposit_seen),
    ev.Warned: (ALL, rules_intake.warned),
    ev.StartAsked: (frozenset({"ready"}), rules_work.start_asked),
    ev.Started: (frozenset({"starting"}), rules_work.started),
    ev.StartFailed: (frozenset({"starting", "stopping"}), rules_work.start_failed),
    ev.Metered: (frozenset({"running", "stopping"}), rules_work.metered),
    ev.Progressed: (ALIVE | {"collecting"}, rules_work.progressed),
    ev.CheckpointTaken: (ALIVE | {"collecting"}, rules_work.checkpoint_taken),
    ev.Overdue: (frozenset({"paused"}), rules_work.overdue),
    ev.StopAsked: (ALIVE | WAITING, rules_end.stop_asked),
    ev.Reclaimed: (UNCLOSED, rules_end.reclaimed),
    ev.Exited: (ALIVE, rules_end.exited),
    ev.Collected: (frozenset({"collecting"}), rules_end.collected),
    ev.OrderSet: (WAITING, rules_verify.order_set),
    ev.Committed: (frozenset({"exited", "failed"}), rules_verify.committed),
    ev.CommitFailed: (frozenset({"exited", "failed"}), rules_verify.commit_failed),
    ev.CloseAsked: (UNCLOSED, rules_end.close_asked),
    ev.ChainClosing: (UNCLOSED, rules_end.chain_closing),
    ev.Closed: (ALL - {"closed"}, rules_end.closed),
    ev.Forgotten: (frozenset({"closed"}), rules_end.forgotten),
}
"""Which phases allow an event, and what it does. `Opened` is not here: it begins a lease."""

_WHAT: dict[type[Event], str] = {
    ev.LoggedIn: "a login",
    ev.ManifestSet: "a manifest",
    ev.OrderSet: "an order",
    ev.BlobStored: "an input",
    ev.VoucherStored: "a voucher",
    ev.StartAsked: "a start",
    ev.StopAsked: "a stop",
    ev.CloseAsked: "a close",
    ev.Reclaimed: "a reclaim",
}

__all__ = [
    "ALIVE", "ALL", "OVER", "PROVIDERS_FAULT", "TABLE", "WAITING", "State", "begin", "prepaid_due", "replay", "resume",
    "step",
]  # fmt: skip
