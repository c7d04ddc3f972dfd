"""What can happen to a case (one commitment that is audited) or a seat (one game that is refereed), and what to do.

Events are what the journal holds: each is a record whose kind is the class's name and whose body is its fields, so
that a state is a fold over its stream. Hashes are hex text; leaves, games and times (Unix seconds of chain time) are
integers. Effects are never stored: they follow from the state, each has an id, and doing one twice does no harm.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from minga.core.errors import InternalError

Stage = Literal["expand", "pick", "before", "draw", "vote", "reveal", "appeal", "decided", "over"]
"""What a game waits for: the provider's nodes, the challenger's choice, the leaf before the disputed one, the jury, the
hashes of votes, the votes, an appeal, `finish`; or nothing any more."""

FOLLOWS, DOES_NOT_FOLLOW = 1, 2
"""The verdicts: the leaf follows from the one before it; it does not, or what is needed to check was not served."""

# ------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Noticed:
    """A case begins: a provider committed to a trace. `until`: chain time up to which it can be challenged."""

    channel: str
    lease: str
    provider: str
    work: str
    root: str
    leaves: int
    until: int


@dataclass(frozen=True, slots=True)
class BeaconSeen:
    """The beacon's value for this commitment, 32 bytes of hex, and what decides with it (`protocol.audit`).

    `rate_bps`: the audit rate of its provider; `drawn`: whether the beacon drew us; `count`: leaves that we sample.
    """

    value: str
    rate_bps: int
    validator: str
    drawn: bool = True
    count: int = 1


@dataclass(frozen=True, slots=True)
class Served:
    """What the provider served fits the commitment in every hash; `keep` leaves lie between two kept states."""

    keep: int


@dataclass(frozen=True, slots=True)
class Unserved:
    """The provider did not serve, or served something else; `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """Leaves `first` + 1 … `last` were done again. `differs`: the first leaf that came out otherwise, 0 for none;
    `own` is what came out there.
    """

    first: int
    last: int
    differs: int = 0
    own: str = ""


@dataclass(frozen=True, slots=True)
class Unreplayed:
    """A piece could not be done again on this machine: that says nothing of the provider."""

    first: int
    last: int
    why: str


@dataclass(frozen=True, slots=True)
class Seated:
    """A seat begins: we are drawn as referee of `game`, which is about leaf `leaf` of `channel`.

    `end`: it is about whether the work ends where the trace does, and `leaf` is the one after the last.
    """

    game: int
    channel: str
    lease: str
    provider: str
    work: str
    root: str
    leaves: int
    leaf: int
    end: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """Our verdict on the disputed leaf, and the salt (32 bytes of hex) from which each ballot's salt follows."""

    verdict: int
    salt: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Abstained:
    """We cannot judge: the work cannot be done again on this machine."""

    why: str


@dataclass(frozen=True, slots=True)
class GameSeen:
    """Where a game stands on chain.

    `done` rounds of the bisection are over; `node` is the node reached, or the beacon's round that a draw waits for.
    `overdue`: the clock of whoever has to move ran out. `ballot` counts votings from 1; `verdict` is that of the last
    one (0: none yet). `seated`: we sit on this ballot. `voted`: the chain holds our vote's hash; `told`: our vote.
    """

    game: int
    stage: Stage
    done: int = 0
    node: int = 0
    mover: str = ""
    overdue: bool = False
    ballot: int = 0
    verdict: int = 0
    seated: bool = False
    voted: bool = False
    told: bool = False
    convicted: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """An effect was done; `outcome` is what came of it, for people: "sent", or why the contract refused it."""

    effect: str
    outcome: str = "sent"


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The time to challenge is over."""


Event = (
    Noticed | BeaconSeen | Served | Unserved | Replayed | Unreplayed | Seated | Judged | Abstained | GameSeen | Done
    | Lapsed
)  # fmt: skip

EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Noticed, BeaconSeen, Served, Unserved, Replayed, Unreplayed, Seated, Judged, Abstained, GameSeen, Done, Lapsed,
    )
}  # fmt: skip


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """Kind and body of the event's journal record."""
    return type(event).__name__, asdict(event)


def decode(kind: str, body: dict[str, Any]) -> Event:
    """The event of a journal record. Fields that a later version added, with a default, may be missing.

    Raises:
        InternalError: no event of ours; the journal is of another version.
    """
    found = EVENTS.get(kind)
    known = fields(found) if found is not None else ()
    needed = {item.name for item in known if item.default is MISSING}
    if found is None or not needed <= set(body) <= {item.name for item in known}:
        raise InternalError(f"the journal holds a record {kind!r} of another version", "use the version that wrote it")
    return found(**body)


# ------------------------------------------------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get from the provider what the check needs, and check every hash of it; try number `number`, from 1."""

    number: int

    @property
    def id(self) -> str:
        """Unique within its stream."""
        return f"fetch/{self.number}"


@dataclass(frozen=True, slots=True)
class Replay:
    """Do leaves `first` + 1 … `last` again and compare."""

    first: int
    last: int

    @property
    def id(self) -> str:
        """Unique within its stream."""
        return f"replay/{self.first}"


@dataclass(frozen=True, slots=True)
class Judge:
    """Do the disputed leaf again and reach a verdict; `served` is whether the provider served what that needs."""

    leaf: int
    served: bool

    @property
    def id(self) -> str:
        """Unique within its stream."""
        return "judge"


@dataclass(frozen=True, slots=True)
class Send:
    """A transaction to Disputes: `call` is one of the names below, with its numbers.

    challenge · pick(done, index) · draw(done = the beacon's round) · timeout · appeal · finish · apply · withdraw
    """

    call: Literal["challenge", "pick", "draw", "timeout", "appeal", "finish", "apply", "withdraw"]
    game: int = 0
    done: int = 0
    index: int = 0

    @property
    def id(self) -> str:
        """Unique within its stream."""
        return f"{self.call}/{self.game}/{self.done}"


@dataclass(frozen=True, slots=True)
class CommitVote:
    """Send the hash that binds us to `verdict` on this ballot; `salt` is 32 bytes of hex."""

    game: int
    ballot: int
    verdict: int
    salt: str

    @property
    def id(self) -> str:
        """Unique within its stream."""
        return f"commit/{self.game}/{self.ballot}"


@dataclass(frozen=True, slots=True)
class RevealVote:
    """Send the vote itself, as it was bound."""

    game: int
    ballot: int
    verdict: int
    salt: str

    @property
    def id(self) -> str:
        """Unique within its stream."""
        return f"reveal/{self.game}/{self.ballot}"


Effect = Fetch | Replay | Judge | Send | CommitVote | RevealVote
