"""The fold that is kept on disk gives what folding anew gives: after reorgs, restarts, kills and changes of version."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lease_chain import EPOCH, PLACES, USD, LeaseChain

from minga.chain import dispute_events as de
from minga.chain import events, foldstore
from minga.chain.chain import ChainSpec, Position, Seen
from minga.chain.contract_events import Staked, decode_event
from minga.chain.events import EventReader
from minga.chain.eventstore import EventStore, stored
from minga.chain.view import LeaseRecord, Leases, View, fact_of
from minga.client.records import Follower
from minga.core.crypto import Address, Hash32
from minga.core.errors import DiskFull
from minga.core.units import Amount
from minga.protocol.complaint import FAULTS
from minga.protocol.dispute import Commitment
from minga.protocol.lease import Phase
from minga.protocol.reliability import WEEK, Ledger, Record, Rules

SPEC = ChainSpec(("http://127.0.0.1:1",), 31337, 0, PLACES)
RULES = Rules.of(PLACES.decimals)


@contextmanager
def shallow(near: int = 4, blocks: int = 1, batch: int = 5) -> Iterator[None]:
    """Fold so near to the head, after so few blocks, so few logs at once, that short chains meet every case."""
    with (
        mock.patch.object(events, "NEAR", near),
        mock.patch.object(events, "FOLD_BLOCKS", blocks),
        mock.patch.object(foldstore, "BATCH", batch),
    ):
        yield


def seen_of(chain: LeaseChain) -> list[Seen]:
    """Everything that the chain says, in order."""
    found = []
    for log in chain.canonical():
        event = decode_event(log, PLACES)
        assert event is not None
        time = chain.blocks[log.block].time
        found.append(Seen(event, Position(log.block, log.block_hash, log.transaction, log.index, time)))
    return found


def anew(chain: LeaseChain) -> tuple[View, Ledger]:
    """View and ledger of the whole chain, folded in memory."""
    view, ledger = View(), Ledger(RULES)
    view.apply(seen_of(chain))
    for lease_id in view.ended:
        ledger.end(fact_of(view.leases[lease_id]))
    return view, ledger


def records(ledger: Ledger, as_of: int = EPOCH + 5 * WEEK) -> dict[str, Record]:
    """Every provider's record."""
    return {provider: ledger.record(provider, as_of) for provider in ledger.providers()}


def assert_same(reader: EventReader, follower: Follower, chain: LeaseChain, complaints: dict[str, int]) -> None:
    """Views, records, and the leases behind them."""
    view, ledger = anew(chain)
    assert reader.view == view
    assert list(reader.view.leases) == list(view.leases)
    assert list(reader.view.leases.values()) == list(view.leases.values())
    follower.follow(reader.view)
    for lease_id, reason in complaints.items():
        if (known := view.leases.get(Hash32(lease_id))) is not None:
            ledger.complain(known.lease.provider, lease_id, reason)
            follower.ledger.complain(known.lease.provider, lease_id, reason)
    assert records(follower.ledger) == records(ledger)
    for provider in ledger.providers():
        assert follower.ledger.facts(provider) == ledger.facts(provider)


COUNTS = st.lists(st.sampled_from([0, 1, 2, 4]), max_size=9)
STEPS = st.one_of(
    st.tuples(st.just("grow"), COUNTS),
    st.tuples(st.just("grow"), COUNTS),
    st.tuples(st.just("reorg"), st.tuples(st.integers(1, 9), COUNTS)),
    st.tuples(st.just("poll"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("other"), st.none()),
    st.tuples(st.just("complain"), st.integers(0, 99)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=16), st.integers(0, 2**20))
def test_kept_and_folded_anew_are_the_same(steps: list[tuple[str, object]], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, shallow():
        anyio.run(_walk, steps, seed, Path(folder) / "events.sqlite")


async def _walk(steps: list[tuple[str, object]], seed: int, path: Path) -> None:
    """`other`: another process reads on in the same file, and folds."""
    chain = LeaseChain(seed, block_seconds=WEEK // 4)
    store, theirs = EventStore(path), EventStore(path)
    reader, other = EventReader(chain, store, PLACES, 0), EventReader(chain, theirs, PLACES, 0)
    follower, complaints = Follower(SPEC), dict[str, int]()
    for kind, value in steps:
        match kind, value:
            case "grow", list(counts):
                chain.grow(counts)
            case "reorg", (int(depth), list(counts)):
                chain.drop(depth, counts)
            case "restart", _:
                store.close()
                store = EventStore(path)
                reader, follower = EventReader(chain, store, PLACES, 0), Follower(SPEC)
            case "other", _:
                await other.poll()
            case "complain", int(number):
                known = list(anew(chain)[0].leases)
                if known:
                    complaints[known[number % len(known)]] = sorted(FAULTS)[number % len(FAULTS)]
            case "poll", _:
                await reader.poll()
                assert_same(reader, follower, chain, complaints)
    for each in (reader, other, EventReader(chain, store, PLACES, 0)):
        await each.poll()
        assert_same(each, Follower(SPEC), chain, complaints)
    await reader.poll()
    assert_same(reader, follower, chain, complaints)
    store.close()
    theirs.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where events are kept."""
    return tmp_path / "events.sqlite"


def grown(seed: int = 7, blocks: int = 40) -> LeaseChain:
    """A chain with two events a block."""
    chain = LeaseChain(seed, block_seconds=WEEK // 9)
    chain.grow([2] * blocks)
    return chain


async def polled(chain: LeaseChain, path: Path) -> None:
    """A process that starts, reads on, and ends."""
    store = EventStore(path)
    reader = EventReader(chain, store, PLACES, 0)
    reader.acknowledge(await reader.poll())
    assert_same(reader, Follower(SPEC), chain, {})
    store.close()


@pytest.mark.anyio
async def test_a_new_process_decodes_only_what_is_not_folded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, decoded = grown(), list[int]()

    def counting(log, places):
        decoded.append(log.block)
        return decode_event(log, places)

    monkeypatch.setattr(events, "decode_event", counting)
    with shallow():
        await polled(chain, path)
        decoded.clear()
        await polled(chain, path)
    tip = len(chain.blocks) - 1
    view_alone = [block for block in decoded if block > tip - 4]
    assert len(view_alone) == len(decoded), "older blocks are not looked at again"
    assert decoded


@pytest.mark.anyio
async def test_the_fold_ends_below_the_last_blocks_and_holds_what_the_view_asks_for(path: Path) -> None:
    chain = grown()
    with shallow():
        await polled(chain, path)
        store = EventStore(path)
        assert store.fold.block() == len(chain.blocks) - 1 - 4
        reader = EventReader(chain, store, PLACES, 0)
        await reader.poll()
    leases = reader.view.leases
    assert isinstance(leases, Leases)
    view, _ = anew(chain)
    assert 0 < len(leases.changed) < len(view.leases)
    assert len(leases) == len(view.leases)
    assert Hash32("0x" + "ee" * 32) not in leases
    with pytest.raises(TypeError):
        del leases[next(iter(leases))]
    store.close()


@pytest.mark.anyio
async def test_games_and_stakes_below_the_fold_are_still_known(path: Path) -> None:
    chain, one = grown(), Address("0x" + "0a" * 20)
    words = (Hash32("0x" + digit * 64) for digit in "abc")
    made = Commitment(next(words), one, one, next(words), next(words), 301, Amount(5), 9)
    chain.judge(de.Joined(one, 0, Amount(10)), Staked(one, PLACES.disputes, Amount(7), Amount(7)))
    chain.judge(de.Committed(made.channel, one, one, made), de.Challenged(1, made.channel, one, False, 1))
    chain.judge(de.Challenged(2, made.channel, one, False, 1))
    chain.grow([3] * 12)
    with shallow():
        await polled(chain, path)
        store = EventStore(path)
        assert store.fold.block() > len(chain.blocks) - 13
        reader = EventReader(chain, store, PLACES, 0)
        await reader.poll()
    view, _ = anew(chain)
    assert reader.view.kept is not None
    assert reader.view.commitments == view.commitments == {made.channel: made}
    assert reader.view.games == view.games == {1: made.channel, 2: made.channel}
    assert reader.view.disputes == view.disputes
    assert reader.view.disputes.seats == {0: one}
    store.close()


@pytest.mark.anyio
async def test_a_reorg_below_the_fold_drops_it_and_all_is_folded_anew(path: Path) -> None:
    chain = grown()
    with shallow():
        await polled(chain, path)
        chain.drop(20, [1] * 3)
        store = EventStore(path)
        reader = EventReader(chain, store, PLACES, 0)
        await reader.poll()
        assert store.fold.block() <= len(chain.blocks) - 1 - 4
        assert_same(reader, Follower(SPEC), chain, {})
        store.close()
        await polled(chain, path)


@pytest.mark.anyio
@pytest.mark.parametrize("version", ["2.1", "1.2", ""])
async def test_another_version_is_folded_anew(path: Path, version: str) -> None:
    chain = grown()
    with shallow():
        await polled(chain, path)
        with sqlite3.connect(path) as database:
            database.execute("UPDATE fold_mark SET version = ?", (version,))
            database.execute("UPDATE fold_sums SET sums = 'of another formula'")
            database.execute("UPDATE fold_lease SET record = 'of another shape'")
        database.close()
        await polled(chain, path)


GOLDEN = "3e2c4a65"


def test_a_changed_formula_or_shape_changes_its_version() -> None:
    """What is kept of a fixed history, hashed: whoever changes it raises `FORMULA` (or `foldstore.SHAPE`), so that kept
    folds are made anew, and then writes the new hash here.
    """
    chain = grown(seed=1, blocks=60)
    with tempfile.TemporaryDirectory() as folder:
        store = EventStore(Path(folder) / "events.sqlite")
        store.add(None, chain.blocks, chain.canonical())
        reader = EventReader(chain, store, PLACES, 0)
        while store.fold.advance(50, lambda rows: reader._seen([stored(row) for row in rows]), RULES):
            pass
        tables = ("fold_mark", "fold_lease", "fold_provider", "fold_attested", "fold_sums", "fold_tally")
        held = [sorted(store._db.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]
        store.close()
    assert hashlib.sha256(json.dumps(held).encode()).hexdigest()[:8] == GOLDEN


@pytest.mark.anyio
async def test_a_view_that_may_not_see_so_far_does_not_stand_on_the_fold(path: Path) -> None:
    """A reader that waits for more confirmations than the one that folded: its view ends before the fold does."""
    chain, store = grown(), EventStore(path)
    store.add(None, chain.blocks, chain.canonical())
    near, far = EventReader(chain, store, PLACES, 0), EventReader(chain, store, PLACES, 20)
    while store.fold.advance(len(chain.blocks) - 10, lambda rows: near._seen([stored(row) for row in rows]), RULES):
        pass
    await far.poll()
    assert far.view.kept is None
    short = LeaseChain(7)
    short.blocks, short.logs = chain.blocks[:-20], chain.logs
    assert far.view == anew(short)[0]
    store.close()


@pytest.mark.anyio
async def test_what_another_process_folds_in_the_middle_of_a_poll_is_not_counted_twice(path: Path) -> None:
    chain = grown()
    with shallow():
        await polled(chain, path)
        chain.grow([2] * 30)
        store, theirs = EventStore(path), EventStore(path)
        reader, other = EventReader(chain, store, PLACES, 0), EventReader(chain, theirs, PLACES, 0)
        with mock.patch.object(EventReader, "_fold"):  # it reads on, and leaves the folding to the other
            await reader.poll()
        chain.grow([2] * 10)
        await other.poll()
        seen, apply, calls = copy.copy(chain), View.apply, list[int]()
        seen.blocks = list(chain.blocks)

        def meanwhile(view: View, news: Iterable[Seen]) -> None:
            news = list(news)
            if view.kept is not None and not calls:
                calls.append(1)
                chain.grow([2] * 10)
                with pytest.raises(StopIteration):  # nothing in it waits, so it is done in one go
                    other.poll().send(None)
            apply(view, news)

        with mock.patch.object(View, "apply", meanwhile):
            await reader.poll()
        assert calls
        assert reader.view == anew(seen)[0], "what stood when the poll began, each event once"
        await reader.poll()
        assert_same(reader, Follower(SPEC), chain, {})
        store.close()
        theirs.close()


@pytest.mark.anyio
async def test_the_ledger_follows_a_fold_that_goes_on_under_it(path: Path) -> None:
    """A long-lived process: its view stays, the fold below it grows, and nothing counts twice or is lost."""
    chain = LeaseChain(3, block_seconds=WEEK // 9)
    store, follower = EventStore(path), Follower(SPEC)
    reader, views = EventReader(chain, store, PLACES, 0), set()
    with shallow():
        for _ in range(25):
            chain.grow([2, 0, 1])
            await reader.poll()
            views.add(id(reader.view))
            assert_same(reader, follower, chain, {})
    assert len(views) <= 2
    assert store.fold.block() > 60
    store.close()


@pytest.mark.anyio
async def test_a_full_disk_leaves_the_fold_as_it_was(path: Path) -> None:
    chain = grown()
    with shallow(batch=100):
        await polled(chain, path)
        chain.grow([2] * 10)
        store = EventStore(path)
        before = store.fold.block()
        full = mock.Mock(side_effect=sqlite3.OperationalError("database or disk is full"))
        with mock.patch.object(foldstore, "_of_sums", full), pytest.raises(DiskFull):
            await EventReader(chain, store, PLACES, 0).poll()
        assert store.fold.block() == before
        store.close()
        await polled(chain, path)


# -------------------------------------------------------------------------------------------------------------- kill -9


def folded(path: Path, last: int) -> int:
    """Fold the chain of `grown` until the statement of that number which writes into the fold, and die there with
    SIGKILL; 0: do not die. How many there were.
    """
    store, statements = EventStore(path), 0

    def count(statement: str) -> None:
        nonlocal statements
        statements += "fold_" in statement and not statement.startswith("SELECT")
        if 0 < statements == last:
            os.kill(os.getpid(), signal.SIGKILL)

    store._db.set_trace_callback(count)
    anyio.run(EventReader(grown(), store, PLACES, 0).poll)
    store.close()
    return statements


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to kill in the middle of a transaction")
def test_killed_at_any_statement_it_goes_on_from_the_fold_of_before(tmp_path: Path) -> None:
    with shallow(batch=20):
        statements = folded(tmp_path / "whole.sqlite", 0)
        assert statements > 60
        marks = set()
        for number in range(1, statements, statements // 12):
            path = tmp_path / f"killed-{number}.sqlite"
            if not (child := os.fork()):
                folded(path, number)
                os._exit(1)  # it should have died
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            store = EventStore(path)
            marks.add(store.fold.block())
            store.close()
            anyio.run(polled, grown(), path)
    assert len(marks) >= 3, "some of the batches were done, and the one that was killed was not"


# --------------------------------------------------------------------------------------------------------- what is kept


def test_a_lease_comes_back_as_it_was() -> None:
    held = [record for seed in range(6) for record in anew(grown(seed))[0].leases.values()]
    found = [foldstore._lease(foldstore._row(record)[3]) for record in held]
    assert found == held
    assert {record.phase for record in found} == {Phase.OPEN, Phase.CLOSING, Phase.HELD, Phase.CLOSED}
    assert any(record.hold_ended for record in found)
    assert all(isinstance(record, LeaseRecord) and isinstance(record.phase, Phase) for record in found)


def test_amounts_of_tokens_with_18_decimals_are_kept_whole(path: Path) -> None:
    """10 dollars are 10¹⁹ units there: more than SQLite's integers hold."""
    chain = grown()
    store = EventStore(path)
    store.add(None, chain.blocks, chain.canonical())
    reader = EventReader(chain, store, PLACES, 0)

    def richer(rows):
        for seen in reader._seen([stored(row) for row in rows]):
            event = seen.event
            if type(event).__name__ == "Closed":
                many = {name: getattr(event, name) * 10**13 for name in ("settled", "paid", "fee", "held", "refund")}
                event = type(event)(**{name: getattr(event, name) for name in event.__slots__} | many)
            yield Seen(event, seen.at)

    rules = Rules.of(19)
    assert not store.fold.advance(len(chain.blocks) - 1, richer, rules)
    ledger = Ledger(rules, store.fold)
    assert max(ledger.record(provider, EPOCH).paid for provider in ledger.providers()) > 2**63
    assert USD < 2**63
    store.close()
