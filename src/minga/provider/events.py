"""What can happen to a lease at its provider, and what the agent asks for in return.

Events are what the journal holds: each is a record whose kind is the class's name and whose body is its fields, so
that a lease's state is a fold over its stream. Amounts are decimal text, because JSON integers end at 2**53. Effects
are never stored: they follow from the state, and doing one twice does no harm.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from minga.core.errors import InternalError
from minga.protocol.wire import Phase


class Event:
    """Base of every event; frozen dataclasses of JSON values."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """The lease stands on chain, at depth. Everything here never changes, except `deposit` and `ends_at`.

    `price_per_hour` and `deposit` are token units as text; `units` counts; `quantum` and `close_window` are seconds;
    `opened_at` and `ends_at` are chain time; `offer` is the hash of the one that was taken.
    """

    lease_id: str
    channel: str
    offer: str
    tenant: str
    job: str
    attempt: int
    signer: str
    machine: str
    units: int
    price_per_hour: str
    quantum: int
    prepaid_quanta: int
    close_window: int
    arbiter: str
    hold_bps: int
    hold_seconds: int
    opened_at: int
    ends_at: int
    deposit: str
    retention_s: int


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A token was given out: its keccak, until when it counts (Unix seconds), and the nonce that is now spent."""

    token_hash: str
    expires_at: int
    nonce: str


@dataclass(frozen=True, slots=True)
class ManifestSet(Event):
    """What to run, as sent (secrets sealed), its hash, and the blobs that are still to come."""

    manifest: dict[str, Any]
    hash: str
    missing: list[str]


@dataclass(frozen=True, slots=True)
class BlobStored(Event):
    """An input is complete and has the right hash."""

    name: str


@dataclass(frozen=True, slots=True)
class VoucherStored(Event):
    """A voucher whose signature was checked: `cumulative` as text, `signature` as hex."""

    cumulative: str
    signature: str


@dataclass(frozen=True, slots=True)
class StartAsked(Event):
    """The tenant asked for the start; `gpus` are the devices set aside for it."""

    gpus: list[str]


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The job's own command runs: the meter begins."""


@dataclass(frozen=True, slots=True)
class StartFailed(Event):
    """Nothing of the job ran. `blame` is `tenant` when its input was at fault."""

    code: str
    fact: str
    remedy: str
    blame: str


@dataclass(frozen=True, slots=True)
class Metered(Event):
    """Whole seconds in which the job ran so far, pauses left out.

    Where the machine can tell: `cpu_ms`, its CPU time so far, and `gpu_busy`, how busy its GPUs were since the last
    reading, in per cent.
    """

    working_s: int
    cpu_ms: int | None = None
    gpu_busy: int | None = None


@dataclass(frozen=True, slots=True)
class Progressed(Event):
    """The job's own word on how far it is."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckpointTaken(Event):
    """A complete checkpoint was copied out of the job's reach; the fields are those of `checkpoint.Checkpoint`."""

    step: int | None
    manifest: str
    manifest_bytes: int
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Overdue(Event):
    """The job stood paused for the dead-man time and no voucher came."""


@dataclass(frozen=True, slots=True)
class StopAsked(Event):
    """The job shall end: SIGTERM, `grace_s`, SIGKILL. `by` says whose wish it is."""

    by: Literal["tenant", "provider", "end"]
    reason: str
    grace_s: int


@dataclass(frozen=True, slots=True)
class Reclaimed(Event):
    """The owner wants the machine back: the job gets `seconds` from SIGTERM to SIGKILL. `reason` is the owner's."""

    reason: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Exited(Event):
    """The job's process is gone. `cause` is the runtime's word (`exited`, `oom`, `lost` …)."""

    code: int
    cause: str
    detail: str
    working_s: int


@dataclass(frozen=True, slots=True)
class Collected(Event):
    """What the job left is in the blob store; `warnings` name what could not be taken."""

    files: list[dict[str, Any]]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class OrderSet(Event):
    """The tenant signed which work this lease pays for: hash, how it is traced, who may check, signature of `Ordered`.

    `trace` is a `core.work.Trace` as JSON, `mode` audit or replicate, `signature` hex.
    """

    work: str
    trace: dict[str, Any]
    mode: str
    signature: str


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """Our commitment is on the chain: the root over `leaves` state hashes, and the transaction."""

    root: str
    leaves: int
    tx: str


@dataclass(frozen=True, slots=True)
class CommitFailed(Event):
    """There will be no commitment, and why."""

    code: str
    fact: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CloseAsked(Event):
    """The lease shall be closed on chain, now. `reason` is shown, `why` goes on record."""

    reason: str
    why: int


@dataclass(frozen=True, slots=True)
class ChainClosing(Event):
    """The tenant started a close: after `finish_at` (chain time) vouchers are worth nothing."""

    finish_at: int


@dataclass(frozen=True, slots=True)
class DepositSeen(Event):
    """The chain shows another deposit (text) or end (chain time)."""

    deposit: str
    ends_at: int


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The lease is over on chain; `tx` is the transaction, if it is known."""

    tx: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that the tenant should know and that stops nothing."""

    code: str
    fact: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Forgotten(Event):
    """The files of a closed lease are gone."""


EVENTS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """Kind and body of an event's journal record. A field that says nothing (None, by default) is left out."""
    body = asdict(event)  # type: ignore[call-overload]
    silent = {item.name for item in fields(event) if item.default is None}  # type: ignore[arg-type]
    return type(event).__name__, {
        name: value for name, value in body.items() if name not in silent or value is not None
    }


def decode(kind: str, body: dict[str, Any]) -> Event:
    """The event of a journal record. Fields that a later version added, with a default, may be missing.

    Raises:
        InternalError: no event of ours; the journal is of another version.
    """
    found = EVENTS.get(kind)
    known = fields(found) if found is not None else ()  # type: ignore[arg-type]
    needed = {item.name for item in known if item.default is MISSING}
    if found is None or not needed <= set(body) <= {item.name for item in known}:
        raise InternalError(f"the journal holds a record {kind!r} of another version", "use the version that wrote it")
    return found(**body)


# ------------------------------------------------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the tenant: event `number` (from 1) of the API, at `at` (Unix seconds)."""

    number: int
    at: int
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """Unpack the inputs and start the job, or go on with it if it runs already."""


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM now, SIGKILL after `grace_s`; again, it can only shorten what is left."""

    grace_s: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Let the job stand still."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let the job go on; its seconds count only if `metered`."""

    metered: bool


@dataclass(frozen=True, slots=True)
class Collect:
    """Copy what the job left out of its reach, then free what it held."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Put the root over the trace's leaves on the chain."""


@dataclass(frozen=True, slots=True)
class CloseLease:
    """Close on chain with the best voucher: `cumulative` token units and its signature (empty: none)."""

    cumulative: int
    signature: str
    why: int


Effect = Emit | Launch | Stop | Freeze | Thaw | Collect | Commit | CloseLease

__all__ = [
    "EVENTS", "BlobStored", "ChainClosing", "CheckpointTaken", "CloseAsked", "CloseLease", "Closed", "Collect",
    "Collected", "Commit", "CommitFailed", "Committed", "DepositSeen", "Effect", "Emit", "Event", "Exited", "Forgotten",
    "Freeze", "Launch", "LoggedIn", "ManifestSet", "Metered", "Opened", "OrderSet", "Overdue", "Phase", "Progressed",
    "Reclaimed", "StartAsked", "StartFailed", "Started", "Stop", "StopAsked", "Thaw", "VoucherStored", "Warned",
    "decode", "encode",
]  # fmt: skip
