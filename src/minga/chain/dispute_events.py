"""What Disputes puts on the record: one frozen class per event.

Knows no ABI; `contract_events` decodes. The prose of every event stands in `contracts/interfaces/IDisputes.vyi`. Rule:
fields, order and units are the contract's own; sets of seats are bit masks, amounts token units, times chain time.
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.chain.chain import ContractEvent
from minga.core.crypto import Address, Hash32
from minga.core.units import Amount
from minga.protocol.dispute import Commitment


@dataclass(frozen=True, slots=True)
class Committed(ContractEvent):
    """A provider said what came of a job; `commitment` is what later calls pass back."""

    channel: Hash32
    provider: Address
    tenant: Address
    commitment: Commitment


@dataclass(frozen=True, slots=True)
class Challenged(ContractEvent):
    """A game began; with `end` about the trace's end."""

    game: int
    channel: Hash32
    challenger: Address
    end: bool
    pool: int


@dataclass(frozen=True, slots=True)
class Expanded(ContractEvent):
    """The provider showed the 16 nodes below the one in play."""

    game: int
    children: tuple[Hash32, ...]


@dataclass(frozen=True, slots=True)
class Picked(ContractEvent):
    """The challenger named a node: `index` among those of its round."""

    game: int
    index: int


@dataclass(frozen=True, slots=True)
class LeafOpened(ContractEvent):
    """The disputed leaf and the one before it are known; `after` is zero when the trace's end is disputed."""

    game: int
    leaf: int
    before: Hash32
    after: Hash32


@dataclass(frozen=True, slots=True)
class Deepened(ContractEvent):
    """The challenger wants the disputed step played down to one operator."""

    game: int


@dataclass(frozen=True, slots=True)
class OperatorsShown(ContractEvent):
    """The provider committed to the operators of the disputed step."""

    game: int
    root: Hash32
    count: int


@dataclass(frozen=True, slots=True)
class OperatorOpened(ContractEvent):
    """The disputed operator is known; `output` is its leaf."""

    game: int
    operator: int
    output: Hash32


@dataclass(frozen=True, slots=True)
class DrawAwaited(ContractEvent):
    """The jury is drawn by this round of the beacon."""

    game: int
    round: int


@dataclass(frozen=True, slots=True)
class Drawn(ContractEvent):
    """The jury."""

    game: int
    voters: int


@dataclass(frozen=True, slots=True)
class VoteCommitted(ContractEvent):
    """A referee committed its vote."""

    game: int
    seat: int


@dataclass(frozen=True, slots=True)
class VoteRevealed(ContractEvent):
    """A referee revealed its vote."""

    game: int
    seat: int
    verdict: int


@dataclass(frozen=True, slots=True)
class Appealed(ContractEvent):
    """The loser appealed; the whole pool votes."""

    game: int
    appellant: int
    voters: int


@dataclass(frozen=True, slots=True)
class Finished(ContractEvent):
    """A game ended. `slashed` was taken from the stake; `for_tenant` of it waits for `apply`."""

    game: int
    channel: Hash32
    outcome: int
    slashed: Amount
    for_tenant: Amount
    to_challenger: Amount
    to_provider: Amount
    seat_fee: Amount


@dataclass(frozen=True, slots=True)
class Fined(ContractEvent):
    """A referee was silent."""

    referee: Address
    game: int
    amount: Amount


@dataclass(frozen=True, slots=True)
class Applied(ContractEvent):
    """A lease's end was taken down, or a verdict carried out."""

    channel: Hash32
    paid: Amount
    held: Amount
    for_tenant: Amount
    for_challenger: Amount


@dataclass(frozen=True, slots=True)
class Joined(ContractEvent):
    """A referee took a seat, or added to its stake."""

    referee: Address
    seat: int
    stake: Amount


@dataclass(frozen=True, slots=True)
class Left(ContractEvent):
    """A referee judges no new games; its stake is free from `free_at` on."""

    referee: Address
    seat: int
    free_at: int


DISPUTE_EVENTS: tuple[type[ContractEvent], ...] = (
    Committed, Challenged, Expanded, Picked, LeafOpened, Deepened, OperatorsShown, OperatorOpened, DrawAwaited, Drawn,
    VoteCommitted, VoteRevealed, Appealed, Finished, Fined, Applied, Joined, Left,
)  # fmt: skip
"""All but Withdrawn, whose name Market uses too: `AwardWithdrawn` here."""


@dataclass(frozen=True, slots=True)
class AwardWithdrawn(ContractEvent):
    """Disputes' Withdrawn: what a game left for its owner went to `receiver`."""

    owner: Address
    receiver: Address
    amount: Amount


@dataclass(frozen=True, slots=True)
class Kept(ContractEvent):
    """BlockBeacon stored a round's value."""

    round: int
    value: Hash32
