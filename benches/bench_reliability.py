"""Starting with the record of reliability: folded anew by each process, against a fold that is kept on disk.

    python benches/bench_reliability.py [--leases 20000]

One event store with so many leases that ended, of a hundred providers, as a client has it. Three sides in one run, by
CPU seconds: all is folded in memory (each process did so before); the same is folded on disk (once); a process starts
on what is kept. Each ends with the records of all providers, which must be the same.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import anyio

import harness
from minga.chain import events
from minga.chain.abi import encode, load_interface
from minga.chain.blocks import Header, Log
from minga.chain.chain import ChainSpec, ContractEvent, Deployment
from minga.chain.contract_events import Closed, Opened
from minga.chain.events import EventReader
from minga.chain.eventstore import EventStore
from minga.client.records import Follower
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32
from minga.core.units import Amount
from minga.protocol.lease import How, Lease, Why
from minga.protocol.reliability import WEEK, Record

PLACES = Deployment(Address("0x" + "01" * 20), Address("0x" + "02" * 20), Address("0x" + "03" * 20), 0, 6)
SPEC = ChainSpec(("http://127.0.0.1:1",), 31337, 0, PLACES)
USD = 10**6
PROVIDERS, TENANTS, PER_BLOCK = 100, 2000, 10
SECONDS_PER_BLOCK = 600
EPOCH = 3000 * WEEK


def address(number: int) -> Address:
    """An address by number."""
    return Address(f"0x{number:040x}")


def hash_of(number: int) -> Hash32:
    """A hash by number."""
    return Hash32(f"0x{number:064x}")


def log_of(event: ContractEvent, header: Header, index: int) -> Log:
    """The log that Market would write."""
    declared = next(kind for kind in load_interface("Market").events.values() if kind.name == type(event).__name__)
    values = {field.name: getattr(event, field.name) for field in fields(event)}  # type: ignore[arg-type]
    if isinstance(event, Opened):
        values["lease"] = event.lease.as_tuple()
    topics = [declared.topic]
    topics += [
        Hash32("0x" + encode(f"({kind})", (values[name],)).hex()) for name, kind, held in declared.fields if held
    ]
    plain = [(name, kind) for name, kind, held in declared.fields if not held]
    data = encode(f"({','.join(kind for _, kind in plain)})", tuple(values[name] for name, _ in plain))
    return Log(header.number, header.hash, hash_of(index), index, PLACES.market, tuple(topics), data)


class Blocks:
    """A source of leases that were opened and closed, ten a block, by a seed; then a hundred empty blocks."""

    def __init__(self, leases: int, seed: int) -> None:
        throw, self.logs = random.Random(seed), list[Log]()
        count = leases // PER_BLOCK + 100
        self.blocks = [
            Header(n, hash_of(n + 1), hash_of(n), EPOCH + n * SECONDS_PER_BLOCK) for n in range(count)
        ]  # fmt: skip
        for number in range(leases):
            header = self.blocks[number // PER_BLOCK]
            tenant, provider = address(1000 + throw.randrange(TENANTS)), address(100 + throw.randrange(PROVIDERS))
            worth = throw.randrange(3 * USD)
            lease = Lease(
                tenant, hash_of(number + 1), 0, address(7), provider, hash_of(4), hash_of(5), Amount(USD), 1, 3600,
                ZERO_ADDRESS, 0, 0, header.time,
            )  # fmt: skip
            why = Why.DONE if throw.random() < 0.95 else Why.UNDER_SPEC
            place = 2 * (number % PER_BLOCK)
            opened = Opened(lease.id, tenant, provider, lease, header.time + 3600, Amount(3 * USD))
            closed = Closed(
                lease.id, tenant, provider, provider, How.CLOSE, why, Amount(worth), Amount(worth - worth // 100),
                Amount(worth // 100), Amount(0), Amount(3 * USD - worth),
            )  # fmt: skip
            self.logs += [log_of(opened, header, place), log_of(closed, header, place + 1)]

    async def head(self) -> Header:
        """See `minga.chain.events.Source`."""
        return self.blocks[-1]

    async def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """See `minga.chain.events.Source`."""
        return [self.blocks[number] for number in numbers]

    async def logs_between(self, first: int, last: int) -> list[Log]:
        """See `minga.chain.events.Source`."""
        return []

    async def logs_of(self, hashes: Sequence[str]) -> list[list[Log]]:
        """See `minga.chain.events.Source`."""
        return [[] for _ in hashes]

    async def agrees(self, number: int, block_hash: str) -> bool:
        """See `minga.chain.events.Source`."""
        return True


def start(blocks: Blocks, path: Path) -> tuple[float, dict[str, Record]]:
    """A process that opens the store, reads on, follows, and looks up every record: CPU seconds, and the records."""
    began = time.process_time()
    store, follower = EventStore(path), Follower(SPEC)
    reader = EventReader(blocks, store, PLACES, 0)
    reader.acknowledge(anyio.run(reader.poll))
    follower.follow(reader.view)
    as_of = blocks.blocks[-1].time
    found = {provider: follower.ledger.record(provider, as_of) for provider in follower.ledger.providers()}
    spent = time.process_time() - began
    store.close()
    return spent, found


def run(leases: int, rounds: int) -> dict[str, Any]:
    """All sides in turns."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path, blocks = Path(folder) / "events.sqlite", Blocks(leases, seed=1)
        store = EventStore(path)
        store.add(None, blocks.blocks, blocks.logs)
        end = blocks.blocks[-1]
        store.offer(end.number)
        store.acknowledge(end.number, end.hash, 0)
        store.close()

        def anew() -> tuple[float, dict[str, Record]]:
            with mock.patch.object(events, "FOLD_BLOCKS", 1 << 60):
                return start(blocks, forgotten(path))

        sides: dict[str, Callable[[], tuple[float, dict[str, Record]]]] = {
            "all folded in memory": anew,
            "all folded on disk, once": lambda: start(blocks, forgotten(path)),
            "started on what is kept": lambda: start(blocks, path),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        wanted: dict[str, Record] = {}
        for _ in range(rounds):
            for name, side in sides.items():
                spent, found = side()
                wanted = wanted or found
                assert found == wanted
                times[name].append(spent)
        spread = {name: harness.spread(values) for name, values in times.items()}
        before, kept = (spread[name]["median"] for name in ("all folded in memory", "started on what is kept"))
        return {
            "leases": leases, "providers": len(wanted), "bytes": path.stat().st_size, "cpu_seconds": spread,
            "leases_per_second_in_memory": leases / before, "before_over_kept": before / kept,
        }  # fmt: skip


def forgotten(path: Path) -> Path:
    """The same store without its fold."""
    store = EventStore(path)
    with store._lock:
        store.fold.forget()
    store.close()
    return path


def main() -> None:
    """Run and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--leases", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    harness.save("reliability", run(asked.leases, asked.rounds))


if __name__ == "__main__":
    main()
