"""kill -9 at every named point of the chain package: nothing is lost, nothing happens twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import anyio
import kill_workers
import pytest

import minga.chain.local
import minga.chain.node
from fixtures import LocalNetwork, SystemClock
from minga.chain import process
from minga.chain.contract_events import Registered
from minga.chain.contracts import Token
from minga.chain.local import LocalChain, start_local
from minga.chain.node import open_chain
from minga.core.faults import POINTS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no forkserver"),
]
SENDING = ("planned", "journaled", "broadcast", "mined", "noted")
READING = ("stored", "offered", "acknowledged")
REGISTER = [f"chain.send.{name}" for name in SENDING] + [f"chain.events.{name}" for name in READING]
STARTING = ["chain.local.started", "chain.local.funded", "chain.local.deployed", "chain.local.saved"]
RESENDING = ["chain.resend.broadcast", "chain.events.rewound"]
BUMPING = ["chain.bump.journaled"]
FOLDING = ["chain.events.folded"]


def work(kind: str, folder: Path, name: str, fault: str = "") -> int | None:
    """Run one process to its end; its exit code (negative: the signal)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_workers"])
    child = context.Process(target=kill_workers.run, args=(kind, str(folder), name, fault))
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # the server's own, for what it preloads
        child.start()
    child.join(60)
    assert child.exitcode is not None, "the process hangs"
    return child.exitcode


async def in_process(kind: str, folder: Path, name: str, fault: str = "") -> int | None:
    return await anyio.to_thread.run_sync(work, kind, folder, name, fault)


def test_every_point_of_the_package_is_walked() -> None:
    walked = {*REGISTER, *STARTING, *RESENDING, *BUMPING, *FOLDING}
    assert walked == {point for point in POINTS if point.startswith("chain.")}
    assert len(walked) >= 10


async def check(network: LocalNetwork, folder: Path, name: str, transactions: int) -> None:
    """The key minted once and used that many nonces; the consumer has each of its events once."""
    key = kill_workers.key_of(name)
    async with network.open(folder / "check") as chain:
        assert await chain.read(Token(network.spec.deployment.token).balance_of(key.address)) == 5
        count = await chain.rpc.request("eth_getTransactionCount", key.address, "latest")
        assert int(count, 16) == transactions
        events = {seen.id: seen.event for seen in (await chain.poll()).confirmed}
    if (folder / "consumer.json").exists():
        has = json.loads((folder / "consumer.json").read_text())
        mine = [
            name for name, event in events.items() if isinstance(event, Registered) and event.provider == key.address
        ]
        assert len(mine) == 1
        assert mine[0] in has
        assert set(has) <= set(events)


@pytest.mark.parametrize("point", REGISTER)
async def test_killed_while_sending_or_reading(local_network: LocalNetwork, tmp_path: Path, point: str) -> None:
    await fund(local_network, point)
    local_network.spec.save(tmp_path / "chain.json")
    assert await in_process("register", tmp_path, point, point) == -signal.SIGKILL
    assert await in_process("register", tmp_path, point, point) == 0
    assert await in_process("register", tmp_path, point) == 0
    await check(local_network, tmp_path, point, transactions=2)


async def fund(network: LocalNetwork, name: str) -> None:
    async with minga.chain.local.open_faucet(network.folder, SystemClock()) as faucet:
        await faucet.fund(network.spec.deployment.token, kill_workers.key_of(name).address, f"kills/{name}")


@pytest.mark.parametrize("point", RESENDING)
async def test_killed_while_repairing_a_reorg(own_chain: LocalChain, tmp_path: Path, point: str) -> None:
    await own_chain.fund(kill_workers.key_of(point).address, point)
    own_chain.spec.save(tmp_path / "chain.json")
    assert await in_process("resent", tmp_path, point, point) == -signal.SIGKILL
    assert await in_process("resent", tmp_path, point, point) == 0
    await check(LocalNetwork(own_chain.folder, own_chain.spec), tmp_path, point, transactions=2)


@pytest.mark.parametrize("point", FOLDING)
async def test_killed_while_folding_on_disk(own_chain: LocalChain, tmp_path: Path, point: str) -> None:
    await own_chain.fund(kill_workers.key_of(point).address, point)
    own_chain.spec.save(tmp_path / "chain.json")
    assert await in_process("folded", tmp_path, point, point) == -signal.SIGKILL
    assert await in_process("folded", tmp_path, point, point) == 0
    async with open_chain(own_chain.spec, tmp_path / "state", SystemClock()) as chain:
        await chain.poll()
        assert chain.view.kept is not None
        assert chain.view.kept.block() > 100
        assert chain.view.providers[kill_workers.key_of(point).address].uri == "uri"
    await check(LocalNetwork(own_chain.folder, own_chain.spec), tmp_path, point, transactions=2)


@pytest.mark.parametrize("point", BUMPING)
async def test_killed_while_raising_a_fee(own_chain: LocalChain, tmp_path: Path, point: str) -> None:
    await own_chain.fund(kill_workers.key_of(point).address, point)
    own_chain.spec.save(tmp_path / "chain.json")
    assert await in_process("bumped", tmp_path, point, point) == -signal.SIGKILL
    (tmp_path / "mine").touch()
    await own_chain.faucet._rpc.request("evm_mine")
    assert await in_process("bumped", tmp_path, point, point) == 0
    await check(LocalNetwork(own_chain.folder, own_chain.spec), tmp_path, point, transactions=1)


@pytest.mark.parametrize("point", STARTING)
async def test_killed_while_starting_a_chain(tmp_path: Path, point: str) -> None:
    assert await in_process("start", tmp_path, point, point) == -signal.SIGKILL
    assert len(process.strays(tmp_path / "chain")) == 1
    assert await in_process("start", tmp_path, point, point) == 0
    assert process.strays(tmp_path / "chain") == []
    chain = await start_local(tmp_path / "chain", SystemClock(), kill_workers.SeededDice("kills"))
    try:
        async with open_chain(chain.spec, tmp_path / "check", SystemClock()) as reader:
            tokens = Token(chain.spec.deployment.token).balance_of(kill_workers.key_of(point).address)
            assert await reader.read(tokens) == 5
            operator = await reader.rpc.request("eth_getTransactionCount", chain.operator.address, "latest")
            assert int(operator, 16) == 7  # five deployments, coin and tokens
    finally:
        await chain.stop()
