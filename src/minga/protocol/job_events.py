"""What can happen to a job: the vocabulary of `minga.protocol.job`. What must be done about it: `job_effects`, which
stands here under the same names.

Plan, deal and events are frozen values with a JSON form (`encode`, `decode`), so that a journal of events is a
journal of the job. Amounts travel as text in that form, since they may exceed 2**53. `attempt` is the number of a
lease of the job, from 0; an event of an attempt that is over changes nothing.

Does not know: what the events mean. Rule: a name or a field, once released, keeps its meaning, because journals live
longer than programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from minga.core.errors import InternalError
from minga.core.units import Amount
from minga.protocol.job_effects import (
    AskClose,
    AwaitHold,
    Duty,
    Effect,
    Find,
    FinishClose,
    Fund,
    Gather,
    Open,
    Patience,
    Pay,
    Probe,
    Return,
    Send,
    Start,
    StartClose,
    Stop,
    TopUp,
    Wake,
    Watch,
)
from minga.protocol.job_plan import Deal, Plan

# ------------------------------------------------------------------------------------------------------------ events


NOTHING = Amount(0)


class Event:
    """Base of everything that can happen to a job."""


@dataclass(frozen=True)
class Funded(Event):
    """The job wallet holds the budget."""

    transaction: str = ""


@dataclass(frozen=True)
class FundingFailed(Event):
    """The wallet could not pay the budget; nothing was moved."""

    code: str
    fact: str


@dataclass(frozen=True)
class Found(Event):
    """An offer to take: the money's part as `deal`, all of it as `bundle` (the signed offer's JSON)."""

    deal: Deal
    bundle: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class NotFound(Event):
    """No offer can be taken now; `final` when waiting cannot help."""

    code: str
    fact: str
    final: bool = False


@dataclass(frozen=True)
class Opened(Event):
    """The lease is on the chain. `seconds` is its length."""

    attempt: int
    lease: str
    channel: str
    seconds: int
    opened_at: int
    transaction: str = ""


@dataclass(frozen=True)
class OpenFailed(Event):
    """The lease was refused and is not on the chain; with `exclude_s` its machine is avoided so long."""

    attempt: int
    code: str
    fact: str
    exclude_s: int = 60


@dataclass(frozen=True)
class Sent(Event):
    """The provider has the manifest and all inputs."""

    attempt: int


@dataclass(frozen=True)
class Probed(Event):
    """The machine showed before the start that it is what was sold; `fact` says what was measured."""

    attempt: int
    fact: str = ""


@dataclass(frozen=True)
class Started(Event):
    """The provider was asked to start, and agreed."""

    attempt: int


@dataclass(frozen=True)
class PhaseSeen(Event):
    """The provider's own phase of the lease, event `number` of the lease; `elapsed_s` as in `Metered`."""

    attempt: int
    number: int
    phase: str
    reason: str = ""
    elapsed_s: int = 0


@dataclass(frozen=True)
class Notified(Event):
    """The provider says that it will stop the job, within `seconds`, and why."""

    attempt: int
    number: int
    seconds: int
    reason: str


@dataclass(frozen=True)
class Metered(Event):
    """The provider says `working_s`; by our own clock the job cannot have worked longer than `elapsed_s`.

    `idle_s`: how long it has made no progress: no higher step, no log, no checkpoint; or left its GPU unused.
    """

    attempt: int
    number: int
    working_s: int
    elapsed_s: int
    idle_s: int = 0


@dataclass(frozen=True)
class Paid(Event):
    """The provider acknowledged a voucher: it is on its disk."""

    attempt: int
    cumulative: Amount


@dataclass(frozen=True)
class ToppedUp(Event):
    """The deposit is now `deposit`."""

    attempt: int
    deposit: Amount


@dataclass(frozen=True)
class TopUpFailed(Event):
    """The deposit stays as it is; no other top-up of this lease is tried."""

    attempt: int
    code: str
    fact: str


@dataclass(frozen=True)
class CheckpointSeen(Event):
    """The provider announced a complete checkpoint, as event `number`; it is not here yet. `elapsed_s` as `Metered`."""

    attempt: int
    number: int
    elapsed_s: int = 0


@dataclass(frozen=True)
class CheckpointKept(Event):
    """A checkpoint is complete where the tenant wants it, and accepted if the tenant checks them.

    `number` is that of its event, `count` its own, `step` the job's.
    """

    attempt: int
    number: int
    count: int
    step: int | None = None
    bytes: int = 0


@dataclass(frozen=True)
class Exited(Event):
    """The job's process ended; `exit_code` None when the machine, not the job, is to blame."""

    attempt: int
    number: int
    exit_code: int | None
    reason: str
    working_s: int
    elapsed_s: int


@dataclass(frozen=True)
class Gathered(Event):
    """Everything that the attempt left is verified and on our disk."""

    attempt: int


@dataclass(frozen=True)
class Lost(Event):
    """The provider failed the job: gone, refused, under-spec, or returned what it had not announced or we not accept.

    `silent_s`: how long nothing had been heard of it.
    """

    attempt: int
    code: str
    reason: str
    silent_s: int = 0


@dataclass(frozen=True)
class CloseOverdue(Event):
    """The provider was asked to close and did not."""

    attempt: int


@dataclass(frozen=True)
class ClosingStarted(Event):
    """Our own close is on the chain; from `finish_at` (chain time) the rest comes back."""

    attempt: int
    finish_at: int


@dataclass(frozen=True)
class LeaseClosed(Event):
    """The lease ended on the chain, in whole-lease totals: deposit = paid + fee + held + refunded."""

    attempt: int
    paid: Amount
    fee: Amount
    held: Amount
    refunded: Amount
    transaction: str = ""


@dataclass(frozen=True)
class HoldEnded(Event):
    """What was held back is divided: to us by a verdict, to the provider by one or because none came in time.

    `awarded`: what a verdict gave us besides, of the provider's stake.
    """

    attempt: int
    to_tenant: Amount
    to_provider: Amount
    awarded: Amount = NOTHING


@dataclass(frozen=True)
class StopAsked(Event):
    """The tenant wants the job to end."""

    reason: str = "asked by the tenant"


@dataclass(frozen=True)
class Resumed(Event):
    """The runner was away (killed, or its machine asleep) for `gap_s` seconds by the calendar."""

    gap_s: int


@dataclass(frozen=True)
class Ticked(Event):
    """A moment that an effect `Wake` asked for has come."""


@dataclass(frozen=True)
class Overdue(Event):
    """The effect `Patience` of this `turn` ran out: the provider did not do what it must do now."""

    attempt: int
    turn: int


@dataclass(frozen=True)
class Returned(Event):
    """What the job wallet held went back to the tenant."""

    tokens: Amount
    transaction: str = ""


# -------------------------------------------------------------------------------------------------------- JSON form

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """Kind and JSON body of an event."""
    return type(event).__name__, _plain(event)


def decode(kind: str, body: dict[str, Any]) -> Event:
    """The event of a journal record.

    Raises:
        InternalError: a kind or field of another version.
    """
    if kind not in _KINDS:
        raise InternalError(f"the journal holds an unknown event {kind[:40]!r}", "use the version that wrote it")
    made = _build(_KINDS[kind], body)
    assert isinstance(made, Event)
    return made


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """JSON body of a plan."""
    return _plain(plan)


def plan_from_json(body: dict[str, Any]) -> Plan:
    """The plan of a journal record; errors as `decode`."""
    made = _build(Plan, body)
    assert isinstance(made, Plan)
    return made


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for item in fields(value):
        held = getattr(value, item.name)
        if held is not None and "Amount" in str(item.type):
            held = str(held)
        elif isinstance(held, Deal):
            held = _plain(held)
        elif isinstance(held, tuple):
            held = list(held)
        plain[item.name] = held
    return plain


def _build(kind: type[Any], body: dict[str, Any]) -> Any:
    known = {item.name: str(item.type) for item in fields(kind)}
    values: dict[str, Any] = {}
    try:
        for name, held in body.items():
            type_name = known[name]
            if held is not None and "Amount" in type_name:
                held = Amount(int(held))
            elif type_name == "Deal":
                held = _build(Deal, held)
            elif isinstance(held, list):
                held = tuple(held)
            values[name] = held
        return kind(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InternalError(f"a journal record {kind.__name__} cannot be read: {error}"[:200]) from None


__all__ = [
    "AskClose",
    "AwaitHold",
    "CheckpointKept",
    "CheckpointSeen",
    "CloseOverdue",
    "ClosingStarted",
    "Deal",
    "Duty",
    "Effect",
    "Event",
    "Exited",
    "Find",
    "FinishClose",
    "Found",
    "Fund",
    "Funded",
    "FundingFailed",
    "Gather",
    "Gathered",
    "HoldEnded",
    "LeaseClosed",
    "Lost",
    "Metered",
    "NotFound",
    "Notified",
    "Open",
    "OpenFailed",
    "Opened",
    "Overdue",
    "Paid",
    "Patience",
    "Pay",
    "PhaseSeen",
    "Plan",
    "Probe",
    "Probed",
    "Resumed",
    "Return",
    "Returned",
    "Send",
    "Sent",
    "Start",
    "StartClose",
    "Started",
    "Stop",
    "StopAsked",
    "Ticked",
    "TopUp",
    "TopUpFailed",
    "ToppedUp",
    "Wake",
    "Watch",
    "decode",
    "encode",
    "plan_from_json",
    "plan_to_json",
]  # fmt: skip
