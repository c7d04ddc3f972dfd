"""Events survive reorgs, restarts, failing nodes and forgetful consumers: each is counted once."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.chain.abi import encode, load_interface
from minga.chain.blocks import Header, Log
from minga.chain.chain import Changes, Deployment, Seen
from minga.chain.contract_events import Registered, decode_event
from minga.chain.events import NEAR, EventReader
from minga.chain.eventstore import EventStore
from minga.chain.view import View
from minga.core.crypto import Address, Hash32
from minga.core.errors import BadAnswer, NetworkError, RpcUnavailable

PLACES = Deployment(Address("0x" + "01" * 20), Address("0x" + "02" * 20), Address("0x" + "03" * 20), 3, 6)
REGISTERED = next(event for event in load_interface("Registry").events.values() if event.name == "Registered")


class SimulatedChain:
    """A chain in memory: blocks with registrations as logs, reorgs, and a node that fails when told."""

    def __init__(self) -> None:
        self.blocks: list[Header] = []
        self.logs: dict[str, list[Log]] = {}
        self.made = 0
        self.fail_at = -1
        self.then = "fail"
        self.reorg: tuple[int, list[int]] = (0, [])
        self.other: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint
        self.asked = 0
        self.grow([0])

    def grow(self, log_counts: Sequence[int]) -> None:
        """Add blocks with so many logs each."""
        for count in log_counts:
            self.made += 1
            number = len(self.blocks)
            parent = self.blocks[-1].hash if self.blocks else Hash32("0x" + "0" * 64)
            header = Header(number, Hash32(f"0x{self.made:064x}"), parent, 1000 + number)
            self.blocks.append(header)
            self.logs[header.hash] = [self._log(header, index) for index in range(count)] if number >= 3 else []

    def _log(self, header: Header, index: int) -> Log:
        provider = Hash32(f"0x{index % 3 + 1:064x}")
        agent = Hash32(f"0x{self.made * 10 + index:064x}")
        topics = (REGISTERED.topic, provider, agent)
        transaction = Hash32(f"0x{self.made * 100 + index:064x}")
        data = encode("(string)", (f"uri {self.made}/{index}",))
        return Log(header.number, header.hash, transaction, index, PLACES.registry, topics, data)

    def drop(self, depth: int, log_counts: Sequence[int]) -> None:
        """Replace the last `depth` blocks by others; fewer make a shorter chain, as a node that was killed has."""
        del self.blocks[max(1, len(self.blocks) - depth) :]
        self.grow(log_counts)

    def canonical(self, confirmations: int) -> list[Log]:
        """All logs at depth."""
        last = len(self.blocks) - 1 - confirmations
        return [log for block in self.blocks[: last + 1] for log in self.logs[block.hash]]

    async def _ask(self) -> None:
        self.asked += 1
        if self.asked == self.fail_at:
            if self.then == "fail":
                raise RpcUnavailable("the node failed", "try again")
            if self.then == "other":
                await self.other()
            else:
                self.drop(*self.reorg)

    async def head(self) -> Header:
        await self._ask()
        return self.blocks[-1]

    async def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        await self._ask()
        return [self.blocks[number] if number < len(self.blocks) else None for number in numbers]

    async def logs_between(self, first: int, last: int) -> list[Log]:
        await self._ask()
        return [log for block in self.blocks[first : last + 1] for log in self.logs[block.hash]]

    async def logs_of(self, hashes: Sequence[str]) -> list[list[Log]]:
        await self._ask()
        known = {block.hash for block in self.blocks}
        if not set(hashes) <= known:
            raise BadAnswer("unknown block", "poll again")
        return [list(self.logs[name]) for name in hashes]

    async def agrees(self, number: int, block_hash: str) -> bool:
        await self._ask()
        return number < len(self.blocks) and self.blocks[number].hash == block_hash


class Consumer:
    """Keeps what was delivered by id, as an agent's journal would; may be killed before it notes anything."""

    def __init__(self) -> None:
        self.has: dict[str, Seen] = {}
        self.acknowledged: set[str] = set()

    def take(self, changes: Changes, acknowledge: bool) -> None:
        for seen in changes.undone:
            self.has.pop(seen.id, None)
            self.acknowledged.discard(seen.id)
        for seen in changes.confirmed:
            assert seen.id not in self.acknowledged, "delivered again after it was acknowledged"
            self.has[seen.id] = seen
        if acknowledge:
            self.acknowledged |= {seen.id for seen in changes.confirmed}


COUNTS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), max_size=12)
STEPS = st.one_of(
    st.tuples(st.just("grow"), COUNTS),
    st.tuples(st.just("leap"), st.integers(1, 2 * NEAR)),
    st.tuples(st.just("reorg"), st.tuples(st.integers(1, 20), COUNTS)),
    st.tuples(st.just("poll"), st.sampled_from(["acknowledge", "keep", "lose"])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("fail"), st.integers(1, 6)),
    st.tuples(st.just("other"), st.integers(0, 6)),
    st.tuples(st.just("meanwhile"), st.tuples(st.integers(1, 6), st.tuples(st.integers(1, 20), COUNTS))),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=25), st.sampled_from([0, 1, 5]))
def test_the_consumer_ends_with_the_canonical_events(steps: list[tuple[str, object]], confirmations: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_walk, steps, confirmations, Path(folder) / "events.sqlite")


async def _walk(steps: list[tuple[str, object]], confirmations: int, path: Path) -> None:
    """`other`: a process that reads on in the same file, before (0) or in the middle of a poll of ours."""
    chain, consumer = SimulatedChain(), Consumer()
    store, theirs = EventStore(path), EventStore(path)
    reader, other = EventReader(chain, store, PLACES, confirmations), EventReader(chain, theirs, PLACES, confirmations)
    chain.other = other.poll
    for kind, value in steps:
        chain.fail_at = -1
        match kind, value:
            case "grow", list(counts):
                chain.grow(counts)
            case "leap", int(count):
                chain.grow([0] * (count - 1) + [2])
            case "reorg", (int(depth), list(counts)):
                chain.drop(depth, counts)
            case "restart", _:
                store.close()
                store = EventStore(path)
                reader = EventReader(chain, store, PLACES, confirmations)
            case "fail", int(at):
                chain.fail_at, chain.then = chain.asked + at, "fail"
            case "meanwhile", (int(at), tuple(change)):
                chain.fail_at, chain.then, chain.reorg = chain.asked + at, "reorg", change
            case "other", 0:
                await other.poll()
            case "other", int(at):
                chain.fail_at, chain.then = chain.asked + at, "other"
        if kind in ("poll", "fail", "meanwhile", "other"):
            await _poll(reader, consumer, str(value))
    chain.fail_at = -1
    for _ in range(2):  # the second finds what the first's end left
        await _poll(reader, consumer, "acknowledge")
    found = sorted(consumer.has.values(), key=lambda seen: (seen.at.block, seen.at.index))
    assert len(found) >= len(chain.canonical(confirmations))
    canonical = chain.canonical(0)[: len(found)]  # on a chain that became shorter, what was deep once stays delivered
    assert [seen.event for seen in found] == [decode_event(log, PLACES) for log in canonical]
    assert [seen.at.block_hash for seen in found] == [log.block_hash for log in canonical]
    replayed = View()
    replayed.apply(found)
    assert reader.view == replayed
    await other.poll()
    assert other.view == replayed
    store.close()
    theirs.close()


async def _poll(reader: EventReader, consumer: Consumer, how: str) -> None:
    try:
        changes = await reader.poll()
    except NetworkError:
        return
    if how != "lose":
        consumer.take(changes, how == "acknowledge")
    if how == "acknowledge":
        reader.acknowledge(changes)


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore(tmp_path / "events.sqlite")


@pytest.mark.anyio
async def test_what_was_delivered_and_dropped_is_undone_newest_first(store: EventStore) -> None:
    chain = SimulatedChain()
    chain.grow([0, 0, 1, 2, 1])
    reader = EventReader(chain, store, PLACES, 0)
    first = await reader.poll()
    reader.acknowledge(first)
    chain.drop(2, [1])
    second = await reader.poll()
    assert [seen.id for seen in second.undone] == [seen.id for seen in reversed(first.confirmed[1:])]
    assert len(second.confirmed) == 1
    again = await reader.poll()
    assert (again.undone, again.confirmed) == (second.undone, second.confirmed)
    reader.acknowledge(first)  # late, and about blocks that are gone: it counts for nothing
    late = await reader.poll()
    assert (late.undone, late.confirmed) == (second.undone, second.confirmed)
    reader.acknowledge(second)
    third = await reader.poll()
    assert (third.undone, third.confirmed) == ((), ())
    store.close()


@pytest.mark.anyio
async def test_a_reorg_above_the_depth_is_nobodys_business(store: EventStore) -> None:
    chain = SimulatedChain()
    chain.grow([0, 0, 1, 0, 0, 2])
    reader = EventReader(chain, store, PLACES, 2)
    first = await reader.poll()
    assert [seen.at.block for seen in first.confirmed] == [3]
    reader.acknowledge(first)
    chain.drop(2, [0, 1, 0, 0])
    second = await reader.poll()
    assert second.undone == ()
    assert [seen.at.block for seen in second.confirmed] == [6]
    store.close()


@pytest.mark.anyio
async def test_a_long_history_is_read_in_ranges_that_shrink_to_what_the_node_bears(store: EventStore) -> None:
    chain = SimulatedChain()
    chain.grow([0, 0] + [1] * 500)
    asked: list[int] = []
    honest = chain.logs_between

    async def limited(first: int, last: int) -> list[Log]:
        asked.append(last - first + 1)
        if last - first + 1 > 100:
            raise RpcUnavailable("more than 100 blocks", "ask for less")
        return await honest(first, last)

    chain.logs_between = limited  # type: ignore[method-assign]
    changes = await EventReader(chain, store, PLACES, 0).poll()
    assert len(changes.confirmed) == 500
    assert min(asked) <= 100
    assert len(asked) < 60
    store.close()


@pytest.mark.anyio
async def test_a_node_that_knows_less_than_its_head_is_not_believed(store: EventStore) -> None:
    chain = SimulatedChain()
    chain.grow([0, 0, 1, 1])
    honest = copy.copy(chain)

    async def forgetful(numbers: Sequence[int]) -> list[Header | None]:
        return [None for _ in numbers]

    chain.headers = forgetful  # type: ignore[method-assign]
    reader = EventReader(chain, store, PLACES, 0)
    with pytest.raises(BadAnswer):
        await reader.poll()
    chain.headers = honest.headers  # type: ignore[method-assign]
    assert len((await reader.poll()).confirmed) == 2
    store.close()


@pytest.mark.anyio
async def test_a_block_that_most_nodes_deny_is_not_delivered(store: EventStore) -> None:
    chain = SimulatedChain()
    chain.grow([0, 0, 1, 0])
    agreed = False

    async def voting(number: int, block_hash: str) -> bool:
        return agreed

    chain.agrees = voting  # type: ignore[method-assign]
    reader = EventReader(chain, store, PLACES, 1)
    assert (await reader.poll()).confirmed == ()
    assert not reader.view.providers
    agreed = True
    (seen,) = (await reader.poll()).confirmed
    assert isinstance(seen.event, Registered)
    assert reader.view.providers[seen.event.provider].uri == seen.event.uri
    store.close()
