"""Who sells and which leases live, derived from events alone.

A fold: the same events in the same order give the same view, so a reorg is a replay. A view may stand on what was
folded before and is kept somewhere (`Kept`); it then holds only what came since, and asks for the rest as it is needed.
Does not know nodes or files. Rule: nothing here that an event does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from minga.chain.chain import Position, Seen
from minga.chain.contract_events import (
    Attested,
    Closed,
    ClosingStarted,
    Extended,
    HoldEnded,
    OffersCancelled,
    Opened,
    Redeemed,
    Registered,
    ToppedUp,
)
from minga.chain.dispute_events import Applied, Challenged, Committed, Finished
from minga.chain.games import Games
from minga.core.crypto import Address, Hash32
from minga.core.units import Amount
from minga.protocol.dispute import Commitment
from minga.protocol.lease import How, Lease, Phase
from minga.protocol.reliability import Fact, KeptLedger


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A registered provider; `epoch` is that of its live offers, `since` the chain time of its registration."""

    address: Address
    agent_key: Address
    uri: str
    since: int
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease as its events tell it. Amounts are token units; `paid` and `fee` are totals so far.

    `ends_at`: the agreed end. `finish_at`: once CLOSING, when anyone may finish. `closed`: its end, once it came.
    `opened`: where its opening stands. `tenant_said`: the code of its tenant's own close or release, if it made one;
    `closed_at` chain time of `closed`.
    """

    lease: Lease
    phase: Phase
    deposit: Amount
    settled: Amount
    paid: Amount
    fee: Amount
    ends_at: int
    opened: Position
    finish_at: int | None = None
    closed: Closed | None = None
    hold_ended: HoldEnded | None = None
    tenant_said: int | None = None
    closed_at: int | None = None


class Kept(KeptLedger, Protocol):
    """A fold of the first blocks that is kept: a view of them, and the ledger of the leases that ended in them."""

    def block(self) -> int:
        """The last of those blocks; −1 when there is none."""
        ...

    def lease(self, lease_id: str) -> LeaseRecord | None:
        """A lease by its id."""
        ...

    def leases(self) -> Iterator[LeaseRecord]:
        """All leases in the order of their openings."""
        ...

    def registered(self) -> dict[Address, ProviderRecord]:
        """All providers."""
        ...

    def attested(self) -> dict[tuple[Address, Hash32, Address], Attested]:
        """All attestations."""
        ...


class Leases(MutableMapping[Hash32, LeaseRecord]):
    """Leases by id: those that are kept, and over them those that changed since."""

    def __init__(self, kept: Kept) -> None:
        """Nothing has changed yet."""
        self._kept = kept
        self.changed: dict[Hash32, LeaseRecord] = {}

    def __getitem__(self, lease_id: Hash32) -> LeaseRecord:
        found = self.changed.get(lease_id) or self._kept.lease(lease_id)
        if found is None:
            raise KeyError(lease_id)
        return found

    def __setitem__(self, lease_id: Hash32, record: LeaseRecord) -> None:
        self.changed[lease_id] = record

    def __delitem__(self, lease_id: Hash32) -> None:
        raise TypeError("a lease never goes: a reorg makes another view")

    def __iter__(self) -> Iterator[Hash32]:
        known = set()
        for record in self._kept.leases():
            known.add(record.lease.id)
            yield record.lease.id
        yield from (lease_id for lease_id in self.changed if lease_id not in known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def values(self) -> list[LeaseRecord]:  # type: ignore[override]
        """All leases, read in one go."""
        found = {record.lease.id: record for record in self._kept.leases()}
        return list((found | self.changed).values())


@dataclass
class View:
    """Providers by address, leases by id, attestations by (provider, machine, validator), commitments by channel, open
    games and their channels, and token units of slashed stake that went to each channel's tenant.

    `ended`: ids of the leases that became CLOSED, in the order of their ends, so that a reader takes in only new ones;
    those that ended in the blocks of `kept` are in its ledger instead.
    """

    providers: dict[Address, ProviderRecord] = field(default_factory=dict)
    leases: MutableMapping[Hash32, LeaseRecord] = field(default_factory=dict)
    attestations: dict[tuple[Address, Hash32, Address], Attested] = field(default_factory=dict)
    ended: list[Hash32] = field(default_factory=list, compare=False)
    commitments: dict[Hash32, Commitment] = field(default_factory=dict)
    games: dict[int, Hash32] = field(default_factory=dict)
    awards: dict[Hash32, Amount] = field(default_factory=dict)
    disputes: Games = field(default_factory=Games)
    """Every game, move by move."""
    kept: Kept | None = field(default=None, compare=False)

    @classmethod
    def over(cls, kept: Kept, judged: Iterable[Seen] = ()) -> View:
        """The view of what is kept, to fold later blocks into.

        Args:
            kept: the fold of the first blocks.
            judged: the events of those blocks about work and stakes. They are few, and no fold of them is kept.
        """
        made = cls(kept.registered(), Leases(kept), kept.attested(), kept=kept)
        for seen in judged:
            made._judge(seen)
        return made

    def apply(self, news: Iterable[Seen]) -> None:
        """Fold events in, in chain order."""
        for seen in news:
            self._judge(seen)
            match seen.event:
                case Registered() | OffersCancelled():
                    self._provider(seen)
                case Attested() as event:
                    self.attestations[event.provider, event.machine, event.validator] = event
                case _:
                    self._lease(seen)

    def _judge(self, seen: Seen) -> None:
        """Work that was committed to, and games about it."""
        self.disputes.take(seen)
        match seen.event:
            case Committed() as event:
                self.commitments[event.channel] = event.commitment
            case Challenged() as event:
                self.games[event.game] = event.channel
            case Finished() as event:
                self.games.pop(event.game, None)
            case Applied() as event:
                self.awards[event.channel] = Amount(self.awards.get(event.channel, 0) + event.for_tenant)

    def _provider(self, seen: Seen) -> None:
        event = seen.event
        if isinstance(event, Registered):
            known = self.providers.get(event.provider)
            since, epoch = (known.since, known.epoch) if known else (seen.at.time, 0)
            record = ProviderRecord(event.provider, event.agent_key, event.uri, since, epoch)
            self.providers[event.provider] = record
        elif isinstance(event, OffersCancelled) and event.provider in self.providers:
            self.providers[event.provider] = replace(self.providers[event.provider], epoch=event.epoch)

    def _lease(self, seen: Seen) -> None:
        event = seen.event
        if isinstance(event, Opened):
            zero = Amount(0)
            record = LeaseRecord(event.lease, Phase.OPEN, event.deposit, zero, zero, zero, event.ends_at, seen.at)
            self.leases[event.lease_id] = record
            return
        known = self.leases.get(getattr(event, "lease_id", Hash32("")))
        if known is None:
            return
        match event:
            case ToppedUp():
                known = replace(known, deposit=event.deposit)
            case Extended():
                known = replace(known, ends_at=event.ends_at)
            case Redeemed():
                paid, fee = Amount(known.paid + event.paid), Amount(known.fee + event.fee)
                known = replace(known, settled=event.settled, paid=paid, fee=fee)
            case ClosingStarted():
                known = replace(known, phase=Phase.CLOSING, finish_at=event.finish_at, tenant_said=event.why)
            case Closed():
                phase = Phase.HELD if event.held else Phase.CLOSED
                settled = event.settled
                said = event.why if event.how == How.RELEASE else known.tenant_said
                known = replace(
                    known, phase=phase, settled=settled, paid=event.paid, fee=event.fee, closed=event,
                    tenant_said=said, closed_at=seen.at.time,
                )  # fmt: skip
            case HoldEnded():
                paid = Amount(known.paid + event.to_provider)
                known = replace(known, phase=Phase.CLOSED, paid=paid, hold_ended=event)
        self.leases[known.lease.id] = known
        if known.phase is Phase.CLOSED and isinstance(event, Closed | HoldEnded):
            self.ended.append(known.lease.id)


def fact_of(record: LeaseRecord) -> Fact:
    """What the record of reliability needs of a lease that is CLOSED."""
    lease, closed = record.lease, record.closed
    assert closed is not None
    assert record.closed_at is not None
    return Fact(
        lease_id=lease.id,
        tenant=lease.tenant,
        provider=lease.provider,
        price_per_hour=lease.price_per_hour * lease.units,
        worth=closed.settled,
        fee=closed.fee,
        opened_at=lease.opened_at,
        closed_at=record.closed_at,
        provider_said=closed.why if closed.how == How.CLOSE else None,
        tenant_said=record.tenant_said,
        taken_back=record.hold_ended.to_tenant if record.hold_ended else 0,
    )
