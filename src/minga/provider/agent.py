"""One lease at its provider, as a pure function: `step(state, event, now) -> (state, effects)`.

Knows: phases, money owed, what to do next. Does not know: clocks, chains, processes, files, HTTP. Rule: an event that
the phase does not allow raises `Conflict` and changes nothing; whoever calls journals the event before it does the
effects, so that folding the journal gives the same state and the same numbered events for the tenant.

```
opened ─manifest, inputs→ ready ─start→ starting ─started→ running ⇄ paused
                                            │                 │        │ no voucher for the dead-man time
                                            │     exit  ┌─────┴────────┤ or a stop
                                            ▼           ▼              ▼
                            failed / exited ◀─ collecting ◀─────── stopping
                                  └─────close─────▶ closing ─chain→ closed
```

A lease may be closed from any phase: by the tenant's request, at its end, when the tenant starts a close on chain,
or because it is not used. A running job is stopped and collected first; the chain's window leaves time for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from minga.core.errors import Conflict, InternalError, StaleVoucher
from minga.protocol.lease import Why
from minga.protocol.pricing import cost_down
from minga.protocol.wire import Phase
from minga.provider import events as ev
from minga.provider.events import Effect, Emit, Event
from minga.provider.metering import crosses, exhausted_at, limit_of

GRACE_FORCED_S = 30
"""The longest grace when the stop is not the tenant's wish: nobody pays for it."""

TOKENS_KEPT = 4
NONCES_KEPT = 256
CHECKPOINTS_KEPT = 2

PROVIDERS_FAULT = frozenset({"lost", "failed", "abandoned"})
"""Causes of an exit for which the job is not to blame."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything about one lease that must survive a restart. Seconds are whole; amounts are token units."""

    facts: ev.Opened
    phase: Phase
    deposit: int
    ends_at: int
    reason: str = ""
    manifest: dict[str, Any] | None = None
    manifest_hash: str = ""
    missing: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    working_s: int = 0
    paid: int = 0
    signature: str = ""
    exit_code: int | None = None
    failed: bool = False
    why: Why = Why.NOT_SAID
    close_asked: bool = False
    close_tx: str | None = None
    closed_at: int = 0
    checkpoints: tuple[dict[str, Any], ...] = ()
    checkpoint_count: int = 0
    files: tuple[dict[str, Any], ...] = ()
    collected: bool = False
    tokens: tuple[tuple[str, int], ...] = ()
    nonces: tuple[str, ...] = ()
    emitted: int = 0
    forgotten: bool = False

    @property
    def price(self) -> int:
        """Token units per unit-hour."""
        return int(self.facts.price_per_hour)

    @property
    def owed(self) -> int:
        """Token units for all working seconds."""
        return cost_down(self.price, self.facts.units, self.working_s)

    @property
    def exhausted_at(self) -> int | None:
        """Working seconds at which the job must stand still; None when it is free."""
        return exhausted_at(self.price, self.facts.units, self.facts.quantum, self.paid)

    @property
    def dead_man_s(self) -> int:
        """Real seconds that a paused job waits for a voucher."""
        return max(10, self.facts.quantum)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs any more and nothing will."""
        return self.phase in OVER


ALIVE: frozenset[Phase] = frozenset({"starting", "running", "paused", "stopping"})
OVER: frozenset[Phase] = frozenset({"exited", "failed", "closing", "closed"})
WAITING: frozenset[Phase] = frozenset({"opened", "ready"})
ALL: frozenset[Phase] = ALIVE | OVER | WAITING | {"collecting"}
_UNCLOSED: frozenset[Phase] = ALL - {"closed", "closing"}


def begin(event: ev.Opened) -> State:
    """The state of a lease that was just seen on chain."""
    return State(facts=event, phase="opened", deposit=int(event.deposit), ends_at=event.ends_at)


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
        raise Conflict(
            f"the lease is {state.phase}: {_WHAT.get(type(event), type(event).__name__)} cannot be now", _REMEDY
        )
    turn = _Turn(state, now)
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
    """What to do again after a restart, since it may have been cut off half-way."""
    if state.phase in ALIVE:
        again: list[Effect] = [ev.Launch()]
        if state.phase == "paused":
            again.append(ev.Freeze())
        if state.phase == "stopping":
            again.append(ev.Stop(GRACE_FORCED_S))
        return again
    if state.phase == "collecting":
        return [ev.Collect()]
    if state.phase == "closing":
        return [_close_effect(state)]
    return []


def prepaid_due(state: State) -> int:
    """Token units that must be paid before the start."""
    return cost_down(state.price, state.facts.units, state.facts.quantum * state.facts.prepaid_quanta)


class _Turn:
    """One step in the making."""

    def __init__(self, state: State, now: int) -> None:
        self.state = state
        self.now = now
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def do(self, *effects: Effect) -> None:
        self.effects.extend(effects)

    def tell(self, kind: str, **data: Any) -> None:
        self.set(emitted=self.state.emitted + 1)
        self.do(Emit(self.state.emitted, self.now, kind, data))

    def enter(self, phase: Phase, reason: str = "") -> None:
        if phase != self.state.phase:
            self.set(phase=phase, reason=reason or self.state.reason)
            self.tell("phase", phase=phase, reason=self.state.reason)

    def close(self) -> None:
        if self.state.closed_at:
            self.finish("")
        else:
            self.enter("closing")
            self.do(_close_effect(self.state))

    def finish(self, reason: str) -> None:
        self.tell("closed", tx=self.state.close_tx)
        self.enter("closed", reason)

    def stop(self, reason: str, grace_s: int, why: Why) -> None:
        self.set(why=self.state.why or why)
        self.enter("stopping", reason)
        # Seconds after a stop that the tenant did not ask for are free; nobody agreed to pay them.
        self.do(ev.Thaw(metered=why == Why.STOPPED), ev.Stop(grace_s))


def _close_effect(state: State) -> ev.CloseLease:
    return ev.CloseLease(state.paid, state.signature, state.why)


# --------------------------------------------------------------------------------------------- login, inputs, vouchers


def _logged_in(turn: _Turn, event: ev.LoggedIn) -> None:
    old = turn.state
    if event.nonce in old.nonces:
        raise Conflict("this login was used before", "sign a login with a fresh nonce")
    tokens = (*old.tokens, (event.token_hash, event.expires_at))[-TOKENS_KEPT:]
    turn.set(tokens=tokens, nonces=(*old.nonces, event.nonce)[-NONCES_KEPT:])


def _manifest_set(turn: _Turn, event: ev.ManifestSet) -> None:
    if turn.state.manifest is not None:
        raise Conflict("the lease has another manifest already", "open another lease for another job")
    turn.set(manifest=event.manifest, manifest_hash=event.hash, missing=tuple(event.missing))
    if not event.missing:
        turn.enter("ready")


def _blob_stored(turn: _Turn, event: ev.BlobStored) -> None:
    turn.set(missing=tuple(name for name in turn.state.missing if name != event.name))
    if not turn.state.missing and turn.state.manifest is not None:
        turn.enter("ready")


def _voucher_stored(turn: _Turn, event: ev.VoucherStored) -> None:
    state, amount = turn.state, int(event.cumulative)
    if amount <= state.paid:
        raise StaleVoucher(f"the voucher says {amount}, {state.paid} is held already", "sign a larger total")
    if state.closed_at:
        raise Conflict("the lease is closed on chain: vouchers are worth nothing now", _REMEDY)
    if amount > state.deposit:
        raise StaleVoucher(f"the voucher says {amount}, the deposit is {state.deposit}", "top up the lease first")
    turn.set(paid=amount, signature=event.signature)
    unpaid = turn.state.owed - amount
    if state.phase == "paused" and unpaid < limit_of(state.price, state.facts.units, state.facts.quantum):
        turn.do(ev.Thaw(metered=True))
        turn.set(reason="")
        turn.enter("running")


def _deposit_seen(turn: _Turn, event: ev.DepositSeen) -> None:
    turn.set(deposit=int(event.deposit), ends_at=event.ends_at)


def _warned(turn: _Turn, event: ev.Warned) -> None:
    turn.tell("warning", code=event.code, fact=event.fact, remedy=event.remedy)


# ------------------------------------------------------------------------------------------------- start, run, pause


def _start_asked(turn: _Turn, event: ev.StartAsked) -> None:
    due = prepaid_due(turn.state)
    if turn.state.paid < due:
        raise Conflict(
            f"the terms ask for {due} token units before the start, {turn.state.paid} are paid", "send voucher 1 first"
        )
    turn.set(gpus=tuple(event.gpus))
    turn.enter("starting")
    turn.do(ev.Launch())


def _started(turn: _Turn, event: ev.Started) -> None:
    turn.enter("running")


def _start_failed(turn: _Turn, event: ev.StartFailed) -> None:
    turn.tell("warning", code=event.code, fact=event.fact, remedy=event.remedy)
    why = Why.JOB_FAILED if event.blame == "tenant" else Why.UNDER_SPEC
    if turn.state.phase == "stopping":
        turn.set(collected=True)
        turn.enter("exited")
    else:
        turn.set(failed=True, why=why, collected=True)
        turn.enter("failed", f"{event.code}: {event.fact}")
    if turn.state.close_asked:
        turn.close()


def _metered(turn: _Turn, event: ev.Metered) -> None:
    before = turn.state
    turn.set(working_s=max(event.working_s, before.working_s))
    state = turn.state
    due = state.exhausted_at
    exhausted = due is not None and state.working_s >= due
    if exhausted or crosses(before.working_s, state.working_s, state.facts.quantum):
        turn.tell("meter", working_s=state.working_s)
    if exhausted and state.phase == "running":
        turn.do(ev.Freeze())
        turn.enter("paused", f"waiting for a voucher above {state.paid}")
    elif exhausted:
        turn.do(ev.Stop(0))


def _progressed(turn: _Turn, event: ev.Progressed) -> None:
    turn.tell("progress", **event.data)


def _checkpoint_taken(turn: _Turn, event: ev.CheckpointTaken) -> None:
    number = turn.state.checkpoint_count + 1
    checkpoint = {"number": number, "files": event.files} | ({} if event.step is None else {"step": event.step})
    kept = (*turn.state.checkpoints, checkpoint)[-CHECKPOINTS_KEPT:]
    turn.set(checkpoint_count=number, checkpoints=kept)
    turn.tell("checkpoint", **checkpoint)


def _overdue(turn: _Turn, event: ev.Overdue) -> None:
    turn.set(close_asked=True)
    turn.stop("no voucher", _grace(turn.state, GRACE_FORCED_S), Why.UNPAID)


# ------------------------------------------------------------------------------------------------------- stop, collect


def _grace(state: State, at_most: int) -> int:
    own = int((state.manifest or {}).get("grace_s", 30))
    return min(own, at_most)


def _stop_asked(turn: _Turn, event: ev.StopAsked) -> None:
    whys = {"tenant": Why.STOPPED, "provider": Why.SHUTTING_DOWN, "end": Why.END_OF_LEASE}
    if event.by != "tenant":
        turn.set(close_asked=True)
    if turn.state.phase in ALIVE:
        turn.stop(event.reason, event.grace_s, whys[event.by])
    elif turn.state.phase in WAITING:
        turn.set(why=whys[event.by], collected=True)
        turn.enter("exited", event.reason)
        if turn.state.close_asked:
            turn.close()


def _exited(turn: _Turn, event: ev.Exited) -> None:
    before = turn.state
    reason = before.reason if before.phase == "stopping" else _exit_reason(before, event)
    failed = before.phase != "stopping" and event.cause in PROVIDERS_FAULT
    why = before.why or (Why.UNDER_SPEC if failed else Why.JOB_FAILED if event.code else Why.DONE)
    working_s = max(before.working_s, event.working_s)
    turn.set(working_s=working_s, failed=failed, why=why, exit_code=None if failed else event.code)
    data: dict[str, Any] = {"reason": reason, "working_s": working_s}
    turn.tell("exit", exit_code=turn.state.exit_code, **data)
    turn.set(reason=reason)
    turn.enter("collecting", reason)
    turn.do(ev.Collect())


def _exit_reason(state: State, event: ev.Exited) -> str:
    what = "the set-up" if state.phase == "starting" else "the job"
    known = {
        "oom": f"{what} needed more memory than it ordered",
        "timeout": f"{what} ran over its time limit",
        "lost": "the machine or the sandbox's supervisor died",
        "failed": f"the sandbox could not be set up: {event.detail}",
        "abandoned": "the provider was away for too long",
    }
    default = f"{what} ended with code {event.code}" if event.code or state.phase == "starting" else "done"
    return known.get(event.cause, default)[:500]


def _collected(turn: _Turn, event: ev.Collected) -> None:
    turn.set(files=tuple(event.files), collected=True)
    for fact in event.warnings:
        turn.tell("warning", code="not-collected", fact=fact, remedy="see the job's outputs")
    turn.tell("artifacts", count=len(event.files), bytes=sum(item["bytes"] for item in event.files))
    turn.enter("failed" if turn.state.failed else "exited")
    if turn.state.close_asked:
        turn.close()


# ---------------------------------------------------------------------------------------------------------------- end


def _close_asked(turn: _Turn, event: ev.CloseAsked) -> None:
    phase = turn.state.phase
    why = Why(event.why)
    turn.set(close_asked=True, why=turn.state.why or why)
    if phase in ALIVE and phase != "stopping":
        turn.stop(event.reason, _grace(turn.state, GRACE_FORCED_S), why)
    elif phase in WAITING:
        turn.set(reason=event.reason)
        turn.close()
    elif phase in ("exited", "failed"):
        turn.close()


def _chain_closing(turn: _Turn, event: ev.ChainClosing) -> None:
    turn.tell("notice", seconds=max(0, event.finish_at - turn.now), reason="the tenant is closing the lease")
    _close_asked(turn, ev.CloseAsked("the tenant is closing the lease", Why.STOPPED))


def _closed(turn: _Turn, event: ev.Closed) -> None:
    phase = turn.state.phase
    turn.set(close_tx=event.tx, closed_at=turn.now, close_asked=True)
    if phase == "stopping":
        turn.do(ev.Stop(0))
    elif phase in ALIVE:
        # Nothing can be paid any more: what the job leaves is still collected, for its tenant.
        turn.stop(event.reason or "the lease was closed", 0, Why.END_OF_LEASE)
    elif phase != "collecting":
        turn.finish(event.reason)


def _forgotten(turn: _Turn, event: ev.Forgotten) -> None:
    turn.set(forgotten=True, files=(), checkpoints=())


Handler = Callable[[_Turn, Any], None]

TABLE: dict[type[Event], tuple[frozenset[Phase], Handler]] = {
    ev.LoggedIn: (ALL, _logged_in),
    ev.ManifestSet: (frozenset({"opened"}), _manifest_set),
    ev.BlobStored: (frozenset({"opened"}), _blob_stored),
    ev.VoucherStored: (_UNCLOSED, _voucher_stored),
    ev.DepositSeen: (_UNCLOSED, _deposit_seen),
    ev.StartAsked: (frozenset({"ready"}), _start_asked),
    ev.Started: (frozenset({"starting"}), _started),
    ev.StartFailed: (frozenset({"starting", "stopping"}), _start_failed),
    ev.Metered: (frozenset({"running", "stopping"}), _metered),
    ev.Progressed: (ALIVE | {"collecting"}, _progressed),
    ev.CheckpointTaken: (ALIVE | {"collecting"}, _checkpoint_taken),
    ev.Overdue: (frozenset({"paused"}), _overdue),
    ev.StopAsked: (ALIVE | WAITING, _stop_asked),
    ev.Exited: (ALIVE, _exited),
    ev.Collected: (frozenset({"collecting"}), _collected),
    ev.CloseAsked: (_UNCLOSED, _close_asked),
    ev.ChainClosing: (_UNCLOSED, _chain_closing),
    ev.Closed: (ALL - {"closed"}, _closed),
    ev.Warned: (ALL, _warned),
    ev.Forgotten: (frozenset({"closed"}), _forgotten),
}
"""Which phases allow an event, and what it does. `Opened` is not here: it begins a lease."""

_REMEDY = "look at the lease's status"
_WHAT: dict[type[Event], str] = {
    ev.LoggedIn: "a login",
    ev.ManifestSet: "a manifest",
    ev.BlobStored: "an input",
    ev.VoucherStored: "a voucher",
    ev.StartAsked: "a start",
    ev.StopAsked: "a stop",
    ev.CloseAsked: "a close",
}
