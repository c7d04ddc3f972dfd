"""One step of the agent in the making: the state as changed so far, and the effects wanted so far.

Knows: how an event is told to the tenant, how a phase is entered, how a stop and a close begin. Does not know: which
event allows what; that is the table's and the rules'. Rule: a turn is thrown away whole when a rule refuses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minga.protocol.lease import Why
from minga.protocol.wire import Phase
from minga.provider import events as ev
from minga.provider.events import Effect, Emit
from minga.provider.lease_state import GRACE_FORCED_S, State

REMEDY = "look at the lease's status"


class Turn:
    """One step in the making."""

    def __init__(self, state: State, now: int) -> None:
        """Begin from `state`; `now` is Unix seconds, for the tenant's events."""
        self.state = state
        self.now = now
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        """Change fields of the state."""
        self.state = replace(self.state, **changes)

    def do(self, *effects: Effect) -> None:
        """Want effects, in this order."""
        self.effects.extend(effects)

    def tell(self, kind: str, **data: Any) -> None:
        """Tell the tenant one event."""
        self.set(emitted=self.state.emitted + 1)
        self.do(Emit(self.state.emitted, self.now, kind, data))

    def enter(self, phase: Phase, reason: str = "") -> None:
        """Change the phase, and tell; without a `reason` the last one stands."""
        if phase != self.state.phase:
            self.set(phase=phase, reason=reason or self.state.reason)
            self.tell("phase", phase=phase, reason=self.state.reason)

    def close(self) -> None:
        """Close on chain, once no commitment is due any more; if the chain did already, be done."""
        if self.state.closed_at:
            self.finish("")
        elif not self.state.committing:
            self.enter("closing")
            self.do(close_effect(self.state))

    def finish(self, reason: str) -> None:
        """The lease is over."""
        self.set(committing=False)
        self.tell("closed", tx=self.state.close_tx)
        self.enter("closed", reason)

    def stop(self, reason: str, grace_s: int, why: Why) -> None:
        """SIGTERM now, SIGKILL after `grace_s`; a stop that is under way keeps its reason and can only be shortened."""
        if self.state.phase == "stopping":
            grace_s = min(grace_s, self.state.grace_s)
        metered = why == Why.STOPPED
        if metered and self.state.is_exhausted:  # or a stop would be the way to work on unpaid
            metered, grace_s = False, min(grace_s, GRACE_FORCED_S)
        self.set(why=self.state.why or why, grace_s=grace_s)
        self.enter("stopping", reason)
        # Seconds after a stop that the tenant did not ask for are free; nobody agreed to pay them.
        self.do(ev.Thaw(metered=metered), ev.Stop(grace_s))

    def cut_short(self) -> None:
        """SIGKILL now, to a job that is being stopped."""
        self.set(grace_s=0)
        self.do(ev.Stop(0))


def close_effect(state: State) -> ev.CloseLease:
    """The close with the best voucher; what was paid ahead for work that a reclaim did not let begin is given up."""
    if state.reclaimed and state.working_s == 0:
        return ev.CloseLease(0, "", state.why)
    return ev.CloseLease(state.paid, state.signature, state.why)
