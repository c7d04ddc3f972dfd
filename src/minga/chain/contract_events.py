"""What the contracts put on the record: one frozen class per event, and logs decoded into them.

Knows the shipped ABIs; pure. The prose of every event stands in `contracts/interfaces/`. Rule: fields, order and units
are the contracts' own; amounts are token units, times chain time in Unix seconds; a log that is not ours is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from minga.chain.abi import load_interface
from minga.chain.blocks import Log
from minga.chain.chain import ContractEvent, Deployment
from minga.chain.dispute_events import DISPUTE_EVENTS, AwardWithdrawn, Committed, Kept
from minga.core.crypto import Address, Hash32
from minga.core.units import Amount
from minga.protocol.dispute import Commitment
from minga.protocol.lease import Lease


@dataclass(frozen=True, slots=True)
class Opened(ContractEvent):
    """A lease began; `lease` is what later calls pass back."""

    lease_id: Hash32
    tenant: Address
    provider: Address
    lease: Lease
    ends_at: int
    deposit: Amount


@dataclass(frozen=True, slots=True)
class ToppedUp(ContractEvent):
    """The deposit grew by `amount` to `deposit`."""

    lease_id: Hash32
    payer: Address
    amount: Amount
    deposit: Amount


@dataclass(frozen=True, slots=True)
class Extended(ContractEvent):
    """The lease ends later."""

    lease_id: Hash32
    ends_at: int


@dataclass(frozen=True, slots=True)
class Redeemed(ContractEvent):
    """A voucher was redeemed: `settled` in all, gross; `paid` and `fee` by this one."""

    lease_id: Hash32
    provider: Address
    settled: Amount
    paid: Amount
    fee: Amount


@dataclass(frozen=True, slots=True)
class ClosingStarted(ContractEvent):
    """The tenant wants out; from `finish_at` anyone may finish."""

    lease_id: Hash32
    provider: Address
    finish_at: int
    why: int


@dataclass(frozen=True, slots=True)
class Closed(ContractEvent):
    """The end, in whole-lease totals: deposit = paid + fee + held + refund."""

    lease_id: Hash32
    tenant: Address
    provider: Address
    by: Address
    how: int
    why: int
    settled: Amount
    paid: Amount
    fee: Amount
    held: Amount
    refund: Amount


@dataclass(frozen=True, slots=True)
class HoldEnded(ContractEvent):
    """The held part was divided."""

    lease_id: Hash32
    by: Address
    to_tenant: Amount
    to_provider: Amount


@dataclass(frozen=True, slots=True)
class OffersCancelled(ContractEvent):
    """Offers of an epoch below `epoch` are dead."""

    provider: Address
    epoch: int


@dataclass(frozen=True, slots=True)
class FeesCollected(ContractEvent):
    """Fees went to the recipient."""

    amount: Amount


@dataclass(frozen=True, slots=True)
class Owed(ContractEvent):
    """The token refused a payout; its owner may withdraw it."""

    owner: Address
    amount: Amount


@dataclass(frozen=True, slots=True)
class Withdrawn(ContractEvent):
    """What was owed went to `receiver`."""

    owner: Address
    receiver: Address
    amount: Amount


@dataclass(frozen=True, slots=True)
class Registered(ContractEvent):
    """A provider registered or changed its uri or agent key."""

    provider: Address
    agent_key: Address
    uri: str


@dataclass(frozen=True, slots=True)
class Attested(ContractEvent):
    """A validator's word on a machine, until `expires`."""

    validator: Address
    provider: Address
    machine: Hash32
    class_: Hash32
    score: int
    expires: int


@dataclass(frozen=True, slots=True)
class Appointed(ContractEvent):
    """An arbiter named its Market."""

    arbiter: Address
    market: Address
    factor: int


@dataclass(frozen=True, slots=True)
class Staked(ContractEvent):
    """A provider staked `amount`, now `staked`."""

    provider: Address
    arbiter: Address
    amount: Amount
    staked: Amount


@dataclass(frozen=True, slots=True)
class Locked(ContractEvent):
    """The locked part of a stake changed."""

    provider: Address
    arbiter: Address
    locked: Amount


@dataclass(frozen=True, slots=True)
class Slashed(ContractEvent):
    """An arbiter took stake."""

    provider: Address
    arbiter: Address
    receiver: Address
    amount: Amount


@dataclass(frozen=True, slots=True)
class UnstakeStarted(ContractEvent):
    """Stake is unbonding until `free_at`."""

    provider: Address
    arbiter: Address
    amount: Amount
    free_at: int


@dataclass(frozen=True, slots=True)
class UnstakeFinished(ContractEvent):
    """Stake left."""

    provider: Address
    arbiter: Address
    receiver: Address
    amount: Amount


@dataclass(frozen=True, slots=True)
class Transfer(ContractEvent):
    """Tokens moved."""

    sender: Address
    receiver: Address
    amount: Amount


_MARKET_EVENTS: tuple[type[ContractEvent], ...] = (
    Opened, ToppedUp, Extended, Redeemed, ClosingStarted, Closed, HoldEnded, OffersCancelled, FeesCollected, Owed,
    Withdrawn,
)  # fmt: skip
_REGISTRY_EVENTS: tuple[type[ContractEvent], ...] = (
    Registered, Attested, Appointed, Staked, Locked, Slashed, UnstakeStarted, UnstakeFinished,
)  # fmt: skip
EVENTS: dict[str, dict[str, type[ContractEvent]]] = {
    "Market": {kind.__name__: kind for kind in _MARKET_EVENTS},
    "Registry": {kind.__name__: kind for kind in _REGISTRY_EVENTS},
    "Token": {"Transfer": Transfer},
    "Disputes": {kind.__name__: kind for kind in DISPUTE_EVENTS} | {"Withdrawn": AwardWithdrawn},
    "BlockBeacon": {"Kept": Kept},
}
"""Contract → event name → class; total over Market, Registry, Disputes and BlockBeacon."""


@lru_cache(maxsize=1)
def judged_topics() -> tuple[Hash32, ...]:
    """First topics of the events about committed work: all of Disputes, and those of stakes."""
    stakes = [kind.__name__ for kind in (Staked, Slashed, UnstakeStarted)]
    wanted = {"Disputes": EVENTS["Disputes"], "Registry": stakes}
    return tuple(
        sorted(
            topic
            for contract, names in wanted.items()
            for topic, declared in load_interface(contract).events.items()
            if declared.name in names
        )
    )


def decode_event(log: Log, deployment: Deployment) -> ContractEvent | None:
    """The event of one of our contracts, or None for a log of another contract or of no class of ours.

    Raises:
        BadAnswer: the log does not fit the event's declaration.
    """
    contract = {
        deployment.disputes: "Disputes", deployment.beacon: "BlockBeacon", deployment.market: "Market",
        deployment.registry: "Registry", deployment.token: "Token",
    }.get(log.address)  # fmt: skip
    if contract is None or not log.topics:
        return None
    declared = load_interface(contract).events.get(log.topics[0])
    kind = EVENTS[contract].get(declared.name) if declared else None
    if declared is None or kind is None:
        return None
    values = declared.decode(log.topics, log.data)
    if kind is Opened:
        values["lease"] = Lease(*values["lease"])
    if kind is Committed:
        values["commitment"] = Commitment(*values["commitment"])
    return kind(**values)
