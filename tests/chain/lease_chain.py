"""A chain in memory whose blocks hold leases: opened, redeemed, closed, held and decided, by a seed; and its logs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import astuple, fields

from minga.chain.abi import encode, load_interface
from minga.chain.blocks import Header, Log
from minga.chain.chain import ContractEvent, Deployment
from minga.chain.contract_events import (
    Attested,
    Closed,
    ClosingStarted,
    HoldEnded,
    OffersCancelled,
    Opened,
    Redeemed,
    Registered,
)
from minga.chain.dispute_events import Committed
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32
from minga.core.units import Amount
from minga.protocol.lease import How, Lease, Why
from minga.protocol.reliability import WEEK

PLACES = Deployment(
    Address("0x" + "01" * 20), Address("0x" + "02" * 20), Address("0x" + "03" * 20), 0, 6, Address("0x" + "04" * 20)
)  # fmt: skip
WRITERS = {"Registered": "Registry", "Attested": "Registry", "Staked": "Registry"} | dict.fromkeys(
    ("Committed", "Challenged", "Finished", "Joined"), "Disputes"
)
"""Which contract writes an event; Market all others."""
USD = 10**6
EPOCH = 3000 * WEEK


def address(number: int) -> Address:
    """An address by number."""
    return Address(f"0x{number:040x}")


def hash_of(number: int) -> Hash32:
    """A hash by number."""
    return Hash32(f"0x{number:064x}")


def log_of(event: ContractEvent, header: Header, index: int) -> Log:
    """The log that a contract would write."""
    name = type(event).__name__
    contract = WRITERS.get(name, "Market")
    declared = next(kind for kind in load_interface(contract).events.values() if kind.name == name)
    values = dict(zip((field.name for field in fields(event)), astuple(event), strict=True))
    if isinstance(event, Opened):
        values["lease"] = event.lease.as_tuple()
    topics, plain, kinds = [declared.topic], [], []
    for field, kind, is_indexed in declared.fields:
        value = values[field] if field in values else values[f"{field}_"]
        if is_indexed:
            topics.append(Hash32("0x" + encode(f"({kind})", (value,)).hex()))
        else:
            plain.append(value)
            kinds.append(kind)
    if isinstance(event, Committed):
        kinds = ["(bytes32,address,address,bytes32,bytes32,uint32,uint128,uint64)"]
        plain = [astuple(event.commitment)]
    data = encode(f"({','.join(kinds)})", tuple(plain))
    place = {"Registry": PLACES.registry, "Disputes": PLACES.disputes}.get(contract, PLACES.market)
    return Log(header.number, header.hash, hash_of(header.number * 1000 + index), index, place, tuple(topics), data)


class LeaseChain:
    """`minga.chain.events.Source` of blocks that it makes by a seed; `tenants` and `providers` are how many there are.

    A block is ten minutes, or with `leap` weeks of them, so that leases fall into several weeks.
    """

    def __init__(self, seed: int, tenants: int = 3, providers: int = 2, block_seconds: int = 600) -> None:
        self.throw = random.Random(seed)
        self.tenants, self.providers, self.block_seconds = tenants, providers, block_seconds
        self.blocks: list[Header] = []
        self.logs: dict[str, list[Log]] = {}
        self.events: dict[str, list[ContractEvent]] = {}
        self._made = 0
        self.grow([0])

    def grow(self, counts: Sequence[int]) -> None:
        """Add blocks with so many events each."""
        for count in counts:
            self._made += 1
            number = len(self.blocks)
            parent = self.blocks[-1].hash if self.blocks else hash_of(0)
            time = EPOCH + number * self.block_seconds
            header = Header(number, hash_of(self._made), parent, time)
            self.blocks.append(header)
            events: list[ContractEvent] = []
            self.events[header.hash] = events
            for _ in range(count):
                events.append(self._event(time))
            self.logs[header.hash] = [log_of(event, header, index) for index, event in enumerate(events)]

    def judge(self, *judged: ContractEvent) -> None:
        """Add a block with these events."""
        self.grow([0])
        header = self.blocks[-1]
        self.events[header.hash] = list(judged)
        self.logs[header.hash] = [log_of(event, header, index) for index, event in enumerate(judged)]

    def drop(self, depth: int, counts: Sequence[int]) -> None:
        """Replace the last `depth` blocks by others."""
        for header in self.blocks[max(1, len(self.blocks) - depth) :]:
            del self.events[header.hash]
        del self.blocks[max(1, len(self.blocks) - depth) :]
        self.grow(counts)

    def canonical(self) -> list[Log]:
        """All logs of the chain as it is."""
        return [log for block in self.blocks for log in self.logs[block.hash]]

    def _event(self, time: int) -> ContractEvent:
        past = [event for block in self.blocks for event in self.events.get(block.hash, [])]
        opened = [event for event in past if isinstance(event, Opened)]
        ends = {event.lease_id: event for event in past if isinstance(event, Closed)}
        decided = {event.lease_id for event in past if isinstance(event, HoldEnded)}
        live = [event for event in opened if event.lease_id not in ends]
        held = [end for lease_id, end in ends.items() if end.held and lease_id not in decided]
        draw = self.throw.random()
        if draw < 0.08:
            return self._registry()
        if held and draw < 0.25:
            end = self.throw.choice(held)
            back = Amount(self.throw.randrange(end.held + 1))
            return HoldEnded(end.lease_id, address(9), back, Amount(end.held - back))
        if live and draw < 0.75:
            return self._turn(self.throw.choice(live), time)
        return self._opened(time)

    def _registry(self) -> ContractEvent:
        provider, kind = address(100 + self.throw.randrange(self.providers)), self.throw.randrange(3)
        if kind == 0:
            return Registered(provider, address(200), f"https://p{self._made}.example")
        if kind == 1:
            return OffersCancelled(provider, self._made)
        machine = hash_of(self.throw.randrange(3))
        return Attested(address(300), provider, machine, hash_of(8), self.throw.randrange(5), 2**40)

    def _opened(self, time: int) -> Opened:
        tenant, provider = (
            address(first + self.throw.randrange(count))
            for first, count in ((1000, self.tenants), (100, self.providers))
        )
        job = hash_of(self._made * 1000 + self.throw.randrange(1000))
        lease = Lease(
            tenant, job, self.throw.randrange(50), address(7), provider, hash_of(4), hash_of(5),
            Amount(self.throw.randrange(1, 3 * USD)), 1, 3600, ZERO_ADDRESS, 0, 0, time,
        )  # fmt: skip
        return Opened(lease.id, tenant, provider, lease, time + 3600, Amount(20 * USD))

    def _turn(self, opened: Opened, time: int) -> ContractEvent:
        lease, worth = opened.lease, self.throw.randrange(0, 15 * USD)
        fee, held = worth // 100, self.throw.choice((0, 0, worth // 3))
        why = self.throw.choice((Why.DONE, Why.DONE, Why.UNDER_SPEC, Why.UNREACHABLE, Why.SHUTTING_DOWN))
        kind = self.throw.randrange(4)
        if kind == 0:
            return Redeemed(lease.id, lease.provider, Amount(worth), Amount(worth - fee), Amount(fee))
        if kind == 1:
            return ClosingStarted(lease.id, lease.provider, time + 3600, why)
        how = self.throw.choice((How.CLOSE, How.WINDOW, How.RELEASE))
        return Closed(
            lease.id, lease.tenant, lease.provider, lease.provider, how, why, Amount(worth),
            Amount(worth - fee - held), Amount(fee), Amount(held), Amount(20 * USD - worth),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- the source

    async def head(self) -> Header:
        """See `Source`."""
        return self.blocks[-1]

    async def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """See `Source`."""
        return [self.blocks[number] if number < len(self.blocks) else None for number in numbers]

    async def logs_between(self, first: int, last: int) -> list[Log]:
        """See `Source`."""
        return [log for block in self.blocks[first : last + 1] for log in self.logs[block.hash]]

    async def logs_of(self, hashes: Sequence[str]) -> list[list[Log]]:
        """See `Source`."""
        return [list(self.logs[name]) for name in hashes]

    async def agrees(self, number: int, block_hash: str) -> bool:
        """See `Source`."""
        return number < len(self.blocks) and self.blocks[number].hash == block_hash
