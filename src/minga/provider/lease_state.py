"""What a provider knows of one lease, and the phases that it may be in. Values only: no rule, no effect.

Rule: the state is a fold over the lease's journal, so a field may be added, but what it says must follow from events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minga.protocol.lease import Why
from minga.protocol.pricing import cost_down
from minga.protocol.wire import Phase
from minga.provider import events as ev
from minga.provider.metering import exhausted_at

GRACE_FORCED_S = 30
"""The longest grace when the stop is not the tenant's wish: nobody pays for it."""

ALIVE: frozenset[Phase] = frozenset({"starting", "running", "paused", "stopping"})
OVER: frozenset[Phase] = frozenset({"exited", "failed", "closing", "closed"})
WAITING: frozenset[Phase] = frozenset({"opened", "ready"})
ALL: frozenset[Phase] = ALIVE | OVER | WAITING | {"collecting"}
UNCLOSED: frozenset[Phase] = ALL - {"closed", "closing"}


@dataclass(frozen=True, slots=True)
class State:
    """Everything about one lease that must survive a restart. Seconds are whole; amounts are token units.

    `grace_s` is what the stop under way leaves the job; `reclaimed` whether the owner took the machine back. `order` is
    what the tenant signed about the work, `committing` whether a commitment to it is due, `commitment` what was told
    of it.
    """

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
    grace_s: int = GRACE_FORCED_S
    reclaimed: bool = False
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
    order: dict[str, Any] | None = None
    committing: bool = False
    commitment: dict[str, Any] | None = None

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
    def is_exhausted(self) -> bool:
        """Whether a whole quantum stands unpaid."""
        due = self.exhausted_at
        return due is not None and self.working_s >= due

    @property
    def dead_man_s(self) -> int:
        """Real seconds that a paused job waits for a voucher."""
        return max(10, self.facts.quantum)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs any more and nothing will."""
        return self.phase in OVER


def begin(event: ev.Opened) -> State:
    """The state of a lease that was just seen on chain."""
    return State(facts=event, phase="opened", deposit=int(event.deposit), ends_at=event.ends_at)


def prepaid_due(state: State) -> int:
    """Token units that must be paid before the start."""
    return cost_down(state.price, state.facts.units, state.facts.quantum * state.facts.prepaid_quanta)
