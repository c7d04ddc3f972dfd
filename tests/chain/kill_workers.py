"""What the processes of `test_kills` do until they are killed, and do again afterwards: each step is safe to repeat."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import anyio
from rpc_nodes import FastClock

from fixtures import SeededDice, SystemClock
from minga.chain.chain import ChainSpec
from minga.chain.contracts import Registry, Token
from minga.chain.fees import Fees
from minga.chain.local import start_local
from minga.chain.node import open_chain
from minga.core.crypto import PrivateKey, new_key
from minga.core.faults import install


def key_of(name: str) -> PrivateKey:
    """The key of a test, by its name."""
    return new_key(name.encode().ljust(32, b".")[:32])


def run(work: str, folder: str, name: str, fault: str) -> None:
    """Entry of a process: do `work` in `folder` with the key of `name`, to be killed at `fault` once."""
    mark = Path(folder) / f"mark-{fault}"

    def die(point: str) -> None:
        if point == fault and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    install(die)
    works = {"register": register, "bumped": bumped, "resent": resent, "start": start, "folded": folded}
    anyio.run(works[work], Path(folder), key_of(name))


async def register(folder: Path, key: PrivateKey) -> None:
    """Mint five tokens, register, and write down the events that come."""
    spec = ChainSpec.load(folder / "chain.json")
    async with open_chain(spec, folder / "state", SystemClock()) as chain:
        await chain.settle()
        await chain.send("mint", Token(spec.deployment.token).mint(key.address, 5), key)
        await chain.send("register", Registry(spec.deployment.registry).register("uri", key.address), key)
        changes = await chain.poll()
        consume(folder / "consumer.json", [seen.id for seen in changes.undone], [seen.id for seen in changes.confirmed])
        chain.acknowledge(changes)


async def resent(folder: Path, key: PrivateKey) -> None:
    """`register`, then lose it to a reorg once, then get it back."""
    await register(folder, key)
    spec = ChainSpec.load(folder / "chain.json")
    async with open_chain(spec, folder / "state", SystemClock()) as chain:
        once = folder / "reorganised"
        if not once.exists():
            once.touch()
            await chain.rpc.request("anvil_reorg", 1, [])
            await chain.poll()
    await register(folder, key)


async def folded(folder: Path, key: PrivateKey) -> None:
    """`register`, bury it under two hundred blocks, and read on: its events are folded on disk."""
    await register(folder, key)
    spec = ChainSpec.load(folder / "chain.json")
    async with open_chain(spec, folder / "state", SystemClock()) as chain:
        await chain.rpc.request("anvil_mine", hex(200))
        chain.acknowledge(await chain.poll())
        assert chain.view.providers[key.address].uri == "uri"


async def bumped(folder: Path, key: PrivateKey) -> None:
    """Mint while nothing is mined, so that the fee is raised; once `mine` exists it is mined."""
    spec = ChainSpec.load(folder / "chain.json")
    async with open_chain(spec, folder / "state", FastClock(), Fees(stuck_seconds=2)) as chain:
        await chain.rpc.request("evm_setAutomine", (folder / "mine").exists())
        await chain.send("mint", Token(spec.deployment.token).mint(key.address, 5), key)


async def start(folder: Path, key: PrivateKey) -> None:
    """Start an embedded chain, fund the key, stop."""
    chain = await start_local(folder / "chain", SystemClock(), SeededDice("kills"), state_interval=3600)
    await chain.fund(key.address, "tenant", tokens=5)
    await chain.stop()


def consume(path: Path, undone: list[str], confirmed: list[str]) -> None:
    """A consumer's own durable state: ids of the events that it has."""
    has = set(json.loads(path.read_text())) if path.exists() else set()
    has = (has - set(undone)) | set(confirmed)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(sorted(has)))
    temporary.replace(path)
