"""A job's state at its tenant, and what should be going on in it. The moves between states are in `minga.protocol.job`.

Knows: phases, leases past and present, money promised and paid. Does not know: what happens next. Rule: **effects are a
function of the state**. The loop starts what is new, cancels what is no longer wanted, and after a kill -9 replays the
journal and starts exactly what is outstanding. So every effect must be idempotent, and an effect that succeeded must
be told by an event, which makes it unwanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_events import Deal, Effect, Plan
from minga.protocol.lease import Why
from minga.protocol.pricing import cost_down, cost_up, seconds_covered

Phase = Literal[
    "submitted", "quoting", "opening", "sending", "starting", "running", "paused", "collecting", "closing",
    "recovering", "settling", "done", "failed", "stopped", "exhausted",
]  # fmt: skip

TERMINAL: frozenset[Phase] = frozenset({"done", "failed", "stopped", "exhausted"})
AT_WORK: frozenset[Phase] = frozenset({"starting", "running", "paused"})
AT_PROVIDER: frozenset[Phase] = AT_WORK | {"sending", "collecting"}
SEEKING: frozenset[Phase] = frozenset({"quoting", "recovering"})
PHASES: frozenset[Phase] = frozenset(get_args(Phase))

SLICES = 4
ZERO = Amount(0)
SETUP_SLACK_S = 3600


@dataclass(frozen=True)
class Ending:
    """How the job will end, once everything is settled."""

    phase: Phase
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True)
class Lease:
    """One attempt. `signed` is the highest voucher that may have left this machine; `acked` the highest known held.

    `working_s` is what the provider claims, `elapsed_s` what our own clock allows, `base_s` what of that was seen
    before the runner's last restart. `seen` is the last event of the provider that was taken in, `announced` the
    first checkpoint event whose files are not here, `newest` the last. `stopping` says why the job is being stopped
    without being over. `status`: `open`, `closing` (our own close is on the chain), `closed`.
    """

    attempt: int
    deal: Deal
    bundle: dict[str, Any]
    deposit: Amount
    lease: str = ""
    channel: str = ""
    seconds: int = 0
    opened_at: int = 0
    status: str = "open"
    signed: Amount = ZERO
    acked: Amount = ZERO
    working_s: int = 0
    elapsed_s: int = 0
    base_s: int = 0
    vouchers: int = 0
    started: bool = False
    seen: int = 0
    announced: int = 0
    newest: int = 0
    stopping: str = ""
    exit_code: int | None = None
    exited: bool = False
    top_ups: bool = True
    finish_at: int = 0
    why: int = Why.UNREACHABLE
    paid: Amount = ZERO
    fee: Amount = ZERO
    held: Amount = ZERO
    refunded: Amount = ZERO

    def cost(self, seconds: int) -> Amount:
        """What `seconds` of it cost, rounded down."""
        return cost_down(self.deal.price_per_hour, self.deal.units, seconds)

    @property
    def payable_s(self) -> int:
        """Working seconds that we will pay for: what is claimed, if our own clock saw as much go by."""
        return min(self.working_s, self.elapsed_s + 1)

    @property
    def locked(self) -> Amount:
        """Token units still in the contract."""
        return Amount(0) if self.status == "closed" else self.deposit

    @property
    def taken(self) -> int:
        """Token units that its provider got, or may get by what we signed."""
        return self.deposit - self.refunded if self.status == "closed" else self.signed

    @property
    def after(self) -> int:
        """The number after which the provider's events are asked for: what is not done yet is asked for again."""
        return min(self.seen, self.announced - 1) if self.announced else self.seen


@dataclass(frozen=True)
class State:
    """Everything about one job. `past` are its leases before the present one, some perhaps not yet closed."""

    plan: Plan
    phase: Phase = "submitted"
    attempt: int = 0
    funded: bool = False
    lease: Lease | None = None
    past: tuple[Lease, ...] = ()
    excluded: tuple[tuple[str, int], ...] = ()
    checkpoint: tuple[int, int, int | None] | None = None
    ending: Ending | None = None
    reason: str = ""
    failures: int = 0
    seek_since: int = 0
    seek_turn: int = 0
    seek_tries: int = 0
    seek_at: int = 0
    stop_by: int = 0
    top_up: tuple[int, int] | None = None
    returns: int = 0
    returned: Amount = ZERO
    unreturned: bool = False

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Every lease that was opened, the present one last."""
        return (*self.past, self.lease) if self.lease and self.lease.lease else self.past

    def lease_of(self, attempt: int) -> Lease:
        """The lease of an attempt; the state must have one."""
        if self.lease is not None and self.lease.attempt == attempt:
            return self.lease
        return next(item for item in self.past if item.attempt == attempt)

    @property
    def available(self) -> Amount:
        """Token units of the budget that are in no lease and were not paid."""
        spent = sum(item.deposit - item.refunded for item in self.past)
        now = self.lease.deposit if self.lease else 0
        return Amount(self.plan.budget - spent - now)

    @property
    def spent(self) -> Amount:
        """Token units promised by vouchers, or taken, in all leases."""
        return Amount(
            sum(item.deposit - item.refunded if item.status == "closed" else item.signed for item in self.leases)
        )

    @property
    def unclosed(self) -> bool:
        """Whether a lease is open and no close of it is on the chain."""
        return any(item.status == "open" for item in self.leases)

    @property
    def terminal(self) -> bool:
        """Whether the job is over and its money settled, or locked with amount and time known."""
        return self.phase in TERMINAL

    @property
    def locked(self) -> Amount:
        """Token units that a close of our own will bring back, or its provider take by a voucher, when it ends."""
        return Amount(sum(item.locked for item in self.past if item.status == "closing"))

    @property
    def settled(self) -> bool:
        """Whether nothing at all is left to do."""
        return self.terminal and not effects(self)


def begin(plan: Plan) -> State:
    """The state of a job that was just ordered."""
    return State(plan)


# -------------------------------------------------------------------------------------- what should be going on now


def effects(state: State) -> tuple[Effect, ...]:
    """Everything that should be going on in `state`; its order is of no meaning."""
    wanted = [*_of_phase(state), *_of_past(state)]
    if (
        state.unreturned
        and state.phase in TERMINAL | {"settling"}
        and not any(item.status == "open" for item in state.leases)
    ):
        wanted.append(ev.Return(state.returns))
    wakes = [state.stop_by] if state.stop_by and state.phase in AT_WORK else []
    if state.plan.deadline is not None and state.ending is None:
        wakes.append(state.plan.deadline)
    if wakes and not state.terminal:
        wanted.append(ev.Wake(min(wakes)))
    return tuple(wanted)


def _of_phase(state: State) -> list[Effect]:
    lease, phase = state.lease, state.phase
    if phase == "submitted":
        return [ev.Fund(state.plan.budget)]
    if phase in SEEKING:
        return [ev.Find(state.seek_turn, state.seek_tries, state.available, state.seek_at)]
    if lease is None:
        return []
    number = lease.attempt
    if phase == "opening":
        return [ev.Open(number, lease.deposit, lease.seconds)]
    pay: list[Effect] = [ev.Pay(number, lease.signed)] if lease.signed > lease.acked else []
    if phase == "sending":
        return [ev.Send(number), *pay]
    money = [*pay, *_top_up(state, number)]
    if phase in AT_WORK:
        return [*money, *_at_work(state, lease)]
    if phase == "collecting":
        return [*money, ev.Gather(number)]
    if phase == "closing":
        return money or [ev.AskClose(number)]
    return []


def _top_up(state: State, number: int) -> list[Effect]:
    if state.top_up is None:
        return []
    return [ev.TopUp(number, Amount(state.top_up[0]), Amount(state.top_up[1]))]


def _at_work(state: State, lease: Lease) -> list[Effect]:
    number = lease.attempt
    wanted: list[Effect] = [ev.Watch(number)]
    if not lease.started and lease.acked >= lease.signed:
        wanted.append(ev.Start(number))
    if state.stop_by:
        reason = state.ending.reason if state.ending else lease.stopping
        wanted.append(ev.Stop(number, reason, state.plan.grace_s))
    return wanted


def _of_past(state: State) -> list[Effect]:
    wanted: list[Effect] = []
    for lease in state.past:
        if lease.status == "open":
            wanted.append(ev.StartClose(lease.attempt, lease.why))
        elif lease.status == "closing":
            wanted.append(ev.FinishClose(lease.attempt, lease.finish_at))
    return wanted


def slice_for(budget: int, available: int, deal: Deal) -> Amount:
    """The deposit for a lease on `deal`: 0 if `available` cannot pay its least deposit and one quantum."""
    least = max(deal.deposit_min, cost_up(deal.price_per_hour, deal.units, deal.quantum), 1)
    wanted = max(least, budget // SLICES)
    return Amount(min(wanted, available)) if least <= available else Amount(0)


def seconds_for(available: int, deal: Deal) -> int:
    """The length of a lease: all that the money left could pay, and time to set up, within the offer's bounds."""
    covered = seconds_covered(deal.price_per_hour, deal.units, available)
    return max(deal.seconds_min, min(deal.seconds_max, covered + SETUP_SLACK_S))
