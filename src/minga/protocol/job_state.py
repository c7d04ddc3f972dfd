"""A job's state at its tenant, and what should be going on in it. The moves between states are in `minga.protocol.job`.

Knows: phases, leases past and present, money promised and paid, how long a provider may take for what it must do now.
Does not know: what happens next. Rule: **effects are a function of the state**. The loop starts what is new, cancels
what is no longer wanted, and after a kill -9 replays the journal and starts exactly what is outstanding. So every
effect must be idempotent, and an effect that succeeded must be told by an event, which makes it unwanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from minga.core.units import HOUR, Amount
from minga.protocol import job_events as ev
from minga.protocol.job_events import Effect, Plan
from minga.protocol.job_lease import ZERO, Lease
from minga.protocol.job_money import SLICES, Ledger, seconds_for, slice_for

Phase = Literal[
    "submitted", "quoting", "opening", "sending", "starting", "running", "paused", "collecting", "closing",
    "recovering", "settling", "done", "failed", "stopped", "exhausted",
]  # fmt: skip

TERMINAL: frozenset[Phase] = frozenset({"done", "failed", "stopped", "exhausted"})
AT_WORK: frozenset[Phase] = frozenset({"starting", "running", "paused"})
AT_PROVIDER: frozenset[Phase] = AT_WORK | {"sending", "collecting"}
SEEKING: frozenset[Phase] = frozenset({"quoting", "recovering"})
PHASES: frozenset[Phase] = frozenset(get_args(Phase))

PATIENCE_S = 60
DEAD_MAN_MIN_S = 10
GRACE_FORCED_S = 30
NOTICE_MAX_S = 3600
UPLOAD_BYTES_PER_S = 1_000_000


@dataclass(frozen=True)
class Ending:
    """How the job will end, once everything is settled."""

    phase: Phase
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True)
class State:
    """Everything about one job. `past` are its leases before the present one, some perhaps not yet closed.

    `checkpoint` is (attempt, number, step) of the newest that counts, `checkpoint_bytes` its size. `turn` counts
    what the provider did in time: with each, the patience begins anew. `stopping`: it was asked to stop the job.
    `unreturned`: the job wallet may hold money; `late_refund`: some came while a return was under way that may not
    have seen it.
    """

    plan: Plan
    phase: Phase = "submitted"
    attempt: int = 0
    funded: bool = False
    lease: Lease | None = None
    past: tuple[Lease, ...] = ()
    excluded: tuple[tuple[str, int], ...] = ()
    checkpoint: tuple[int, int, int | None] | None = None
    checkpoint_bytes: int = 0
    ending: Ending | None = None
    reason: str = ""
    failures: int = 0
    seek_since: int = 0
    seek_turn: int = 0
    seek_tries: int = 0
    seek_at: int = 0
    turn: int = 0
    stopping: bool = False
    top_up: tuple[int, int] | None = None
    ledger: Ledger = ()
    returns: int = 0
    returned: Amount = ZERO
    unreturned: bool = False
    late_refund: bool = False

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
    def returning(self) -> Amount:
        """Token units that leases which were left will give back, if their providers take all that was signed."""
        return Amount(sum(item.deposit - item.signed for item in self.past if item.status != "closed"))

    @property
    def spent(self) -> Amount:
        """Token units promised by vouchers, or taken, in all leases."""
        return Amount(sum(item.taken for item in self.leases))

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
        """Whether nothing is left to do but to see what becomes of pay that is held back."""
        return self.terminal and not self.unreturned and all(item.status == "closed" for item in self.past)

    @property
    def on_hold(self) -> Amount:
        """Token units of pay about which an arbiter may still decide."""
        return Amount(sum(item.on_hold for item in self.past))

    @property
    def over(self) -> bool:
        """Whether nothing at all is left to do."""
        return self.settled and not self.on_hold

    @property
    def probing(self) -> bool:
        """Whether the present machine must show what was sold."""
        return self.lease is not None and self.plan.probe and self.lease.deal.probe


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
    limit = patience(state)
    if limit is not None and state.lease is not None:
        wanted.append(ev.Patience(state.lease.attempt, state.turn, limit[0]))
    wakes = _wakes(state)
    if wakes and not state.terminal:
        wanted.append(ev.Wake(min(wakes)))
    return tuple(wanted)


def _wakes(state: State) -> list[int]:
    wakes = [] if state.plan.deadline is None or state.ending is not None else [state.plan.deadline]
    lease = state.lease
    held_back = lease is not None and min(lease.cost(lease.payable_s), lease.deposit) > lease.signed
    if held_back and state.phase in AT_WORK and state.ledger:
        wakes.append(state.ledger[0][0] + HOUR)
    return wakes


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
        return [*pay, *_before_start(state, lease)]
    money = [*pay, *_top_up(state, number)]
    if phase in AT_WORK:
        return [*money, *_at_work(state, lease)]
    if phase == "collecting":
        return [*money, ev.Gather(number)]
    if phase == "closing":
        return money or [ev.AskClose(number)]
    return []


def _before_start(state: State, lease: Lease) -> list[Effect]:
    wanted: list[Effect] = [] if lease.sent else [ev.Send(lease.attempt)]
    if state.probing and not lease.probed:
        wanted.append(ev.Probe(lease.attempt))
    return wanted


def _top_up(state: State, number: int) -> list[Effect]:
    if state.top_up is None:
        return []
    return [ev.TopUp(number, Amount(state.top_up[0]), Amount(state.top_up[1]))]


def _at_work(state: State, lease: Lease) -> list[Effect]:
    number = lease.attempt
    wanted: list[Effect] = [ev.Watch(number)]
    if not lease.started and lease.acked >= lease.signed:
        wanted.append(ev.Start(number))
    if state.phase == "running" and state.probing and not state.stopping and not lease.stopping:
        wanted.append(ev.Duty(number))
    if state.stopping:
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
        elif lease.on_hold:
            wanted.append(ev.AwaitHold(lease.attempt))
    return wanted


def patience(state: State) -> tuple[int, str] | None:
    """Seconds that the provider has, from the last thing that it did, and what it failed to do when they are over."""
    lease, plan = state.lease, state.plan
    if lease is None:
        return None
    quantum = lease.deal.quantum
    if state.phase == "sending":
        seconds = plan.setup_wait_s + (plan.input_bytes + state.checkpoint_bytes) // UPLOAD_BYTES_PER_S
        return seconds, f"it has not taken the inputs in {seconds} s"
    if state.phase not in AT_WORK:
        return None
    if state.stopping:
        return plan.grace_s + PATIENCE_S, "it did not stop the job"
    if lease.stopping:
        seconds = max(min(lease.notice_s, NOTICE_MAX_S), plan.grace_s, GRACE_FORCED_S) + PATIENCE_S
        return seconds, "it stopped the job and did not hand over what it left"
    if state.phase == "starting":
        return plan.setup_wait_s, f"set-up took more than {plan.setup_wait_s} s"
    # It may pause, but then it must go on or stop the job for want of a voucher, and either way say so.
    seconds = 2 * quantum + max(DEAD_MAN_MIN_S, quantum) + PATIENCE_S
    paid = ", though it is paid" if lease.acked >= lease.signed else ""
    return seconds, f"it has claimed no work for {seconds} s, and says that the job is {state.phase}{paid}"


def group(phase: Phase) -> Phase:
    """Phases between which a provider may go back and forth count as one for its patience."""
    return "running" if phase == "paused" else phase


__all__ = [
    "AT_PROVIDER", "AT_WORK", "PHASES", "SEEKING", "SLICES", "TERMINAL", "Ending", "Lease", "Phase", "State", "begin",
    "effects", "group", "patience", "seconds_for", "slice_for",
]  # fmt: skip
