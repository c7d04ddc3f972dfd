"""The embedded chain: its state outlives it, one runs on one folder, nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from fixtures import SeededDice, SystemClock, eventually
from minga.chain import process
from minga.chain.blocks import MinedTransaction
from minga.chain.chain import ChainSpec
from minga.chain.contracts import Market, Registry, Token
from minga.chain.disputes import BlockBeacon, Disputes, Places
from minga.chain.local import (
    EMBEDDED_CHAIN_ID,
    LocalChain,
    local_chain,
    open_faucet,
    running_spec,
    start_local,
    stop_local,
)
from minga.chain.node import open_chain
from minga.core.crypto import Address
from minga.core.errors import Conflict, InternalError, NotFound, PortInUse
from minga.protocol.dispute import SHORT

pytestmark = pytest.mark.anyio
TENANT = Address("0x" + "0a" * 20)
STARTER = """
import sys, anyio
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from fixtures import SystemClock, SeededDice
from minga.chain.local import start_local
async def main():
    chain = await start_local(Path(sys.argv[1]), SystemClock(), SeededDice("owner"), state_interval=1)
    await chain.fund(sys.argv[3], "tenant", tokens=7)
    print(chain.pid, flush=True)
    await anyio.sleep_forever()
anyio.run(main)
"""


def anvils(folder: Path) -> list[int]:
    return [mark.pid for mark in process.strays(folder)]


def orphaned(folder: Path) -> int:
    """Start a chain in another process, fund the tenant, kill that process; returns the orphan's id."""
    command = [sys.executable, "-c", STARTER, str(folder), str(Path(__file__).parents[1]), TENANT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        owner.kill()
    return orphan


def tokens_now(spec: ChainSpec) -> int | None:
    """The tenant's tokens, or None while nothing answers."""
    call = Token(spec.deployment.token).balance_of(TENANT)
    request = {"to": call.to, "data": "0x" + call.data.hex()}
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [request, "latest"]}
    try:
        return int(httpx.post(spec.rpc_urls[0], json=body, trust_env=False).json()["result"], 16)
    except (httpx.HTTPError, ValueError):
        return None


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "chain"
    for pid in anvils(tmp_path / "chain"):  # only after a failure
        psutil.Process(pid).kill()


async def tokens(spec: ChainSpec, folder: Path) -> int:
    async with open_chain(spec, folder / "reader", SystemClock()) as chain:
        return await chain.read(Token(spec.deployment.token).balance_of(TENANT))


def places_of(spec: ChainSpec, local: LocalChain) -> Places:
    """What Disputes must say that it was deployed with."""
    found = spec.deployment
    return Places(found.market, found.token, found.registry, found.beacon, local.operator.address)


async def test_a_folder_from_before_disputes_gets_them(
    folder: Path, dice: SeededDice, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(chain: LocalChain, *around: MinedTransaction) -> tuple[MinedTransaction, MinedTransaction]:
        return around[0], around[0]

    with monkeypatch.context() as before:
        before.setattr(LocalChain, "_deploy_disputes", none)
        async with local_chain(folder, SystemClock(), dice) as old:
            market = old.spec.deployment.market
    body = json.loads((folder / "chain.json").read_text())
    del body["deployment"]["disputes"], body["deployment"]["beacon"]
    (folder / "chain.json").write_text(json.dumps(body))
    assert not ChainSpec.load(folder / "chain.json").deployment.has_disputes
    async with local_chain(folder, SystemClock(), dice) as local:
        spec = ChainSpec.load(folder / "chain.json")
        assert spec.deployment.market == market
        async with open_chain(spec, folder / "reader", SystemClock()) as chain:
            assert await chain.read(Disputes(spec.deployment.disputes).places()) == places_of(spec, local)


async def test_it_deploys_what_the_spec_says(folder: Path, dice: SeededDice) -> None:
    async with local_chain(folder, SystemClock(), dice) as local:
        spec = ChainSpec.load(folder / "chain.json")
        assert spec == local.spec == running_spec(folder)
        assert (spec.chain_id, spec.confirmations) == (EMBEDDED_CHAIN_ID, 0)
        assert EMBEDDED_CHAIN_ID not in (1, 1337, 31337)
        assert spec.rpc_urls == (local.rpc_url,)
        assert local.rpc_url.startswith("http://127.0.0.1:")
        market = Market(spec.deployment.market)
        async with open_chain(spec, folder / "reader", SystemClock()) as chain:
            assert await chain.read(Token(spec.deployment.token).decimals()) == spec.deployment.decimals == 6
            assert await chain.read(market.fee_bps()) == 100
            assert await chain.read(market.domain_separator()) == "0x" + spec.domain.separator.hex()
            assert int(await chain.read(Registry(spec.deployment.registry).agent_of(TENANT)), 16) == 0
            disputes = Disputes(spec.deployment.disputes)
            assert await chain.read(disputes.preset()) == SHORT
            assert await chain.read(disputes.domain_separator()) == "0x" + spec.disputes_domain.separator.hex()
            assert await chain.read(disputes.places()) == places_of(spec, local)
            assert await chain.read(Registry(spec.deployment.registry).market_of(disputes.address)) == market.address
            assert await chain.read(BlockBeacon(spec.deployment.beacon).next_round()) >= spec.deployment.start_block
            assert await chain.rpc.request("eth_accounts") == []  # no account whose key everybody knows
        assert json.loads((folder / "operator.embedded.json").read_text())["embedded"] is True
    assert anvils(folder) == []
    assert running_spec(folder) is None


async def test_its_state_survives_down_and_up(folder: Path, dice: SeededDice) -> None:
    first = await start_local(folder, SystemClock(), dice, state_interval=3600)
    await first.fund(TENANT, "tenant", tokens=7)
    head = await first.faucet._rpc.head()
    await first.stop()
    await first.stop()
    assert anvils(folder) == []
    second = await start_local(folder, SystemClock(), dice)
    assert second.spec == first.spec
    assert await second.faucet._rpc.head() == head
    assert await tokens(second.spec, folder) == 7
    await second.fund(TENANT, "tenant", tokens=7)
    assert await tokens(second.spec, folder) == 7
    assert await stop_local(folder)
    await second.stop()
    assert not await stop_local(folder)


async def test_a_killed_anvil_is_started_again_and_what_it_forgot_is_sent_again(folder: Path, dice: SeededDice) -> None:
    async with local_chain(folder, SystemClock(), dice, state_interval=3600) as local:
        await local.fund(TENANT, "tenant", tokens=7)
        killed = local.pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: local.pid != killed and tokens_now(local.spec) == 7)
        assert running_spec(folder) == local.spec
    assert anvils(folder) == []


async def test_a_second_start_is_refused_and_harms_nothing(folder: Path, dice: SeededDice) -> None:
    async with local_chain(folder, SystemClock(), dice) as local:
        with pytest.raises(Conflict, match="runs already"):
            await start_local(folder, SystemClock(), dice)
        assert anvils(folder) == [local.pid]
        dead = process.Running(process.Mark(2**22 + 1, 0.0), process.Mark.of(os.getppid()), 1)
        record = process.read_record(folder)
        assert record is not None
        dead.save(folder)  # its anvil was killed and its owner, alive, has not noticed yet
        with pytest.raises(Conflict, match="runs already"):
            await start_local(folder, SystemClock(), dice)
        record.save(folder)
        with process.exclusive(folder), pytest.raises(Conflict, match="another process is starting"):
            await start_local(folder, SystemClock(), dice)
        assert await local.faucet._rpc.head()


async def test_an_orphan_is_taken_over(folder: Path, dice: SeededDice) -> None:
    orphan = await anyio.to_thread.run_sync(orphaned, folder)
    assert anvils(folder) == [orphan]
    adopted = await start_local(folder, SystemClock(), dice)
    assert adopted.pid == orphan
    assert await tokens(adopted.spec, folder) == 7
    await adopted.stop()
    assert anvils(folder) == []


async def test_an_orphan_on_another_port_is_ended_first(folder: Path, dice: SeededDice) -> None:
    orphan = await anyio.to_thread.run_sync(orphaned, folder)
    (folder / "running.json").unlink()  # killed before it was written: nothing is on record
    port = process.choose_port(None, None)
    started = await start_local(folder, SystemClock(), dice, port=port)
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    assert anvils(folder) == [started.pid]
    assert started.spec.rpc_urls == (f"http://127.0.0.1:{port}",)
    assert await tokens(started.spec, folder) == 7
    await started.stop()


async def test_a_taken_port_is_one_clear_error(folder: Path, dice: SeededDice) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            await start_local(folder, SystemClock(), dice, port=port)
        assert anvils(folder) == []
    with pytest.raises(PortInUse):
        process.choose_port(99999, None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert process.choose_port(None, taken.getsockname()[1]) != taken.getsockname()[1]


async def test_a_torn_dump_is_replaced_by_the_last_whole_one(folder: Path, dice: SeededDice) -> None:
    first = await start_local(folder, SystemClock(), dice)
    await first.fund(TENANT, "tenant", tokens=7)
    await first.stop()
    assert process.keep_state(folder)
    whole = (folder / "state.json").read_bytes()
    (folder / "state.json").write_bytes(whole[: len(whole) // 2])
    assert not process.keep_state(folder)  # a torn dump never replaces a whole one
    second = await start_local(folder, SystemClock(), dice)
    assert second.spec == first.spec
    assert await tokens(second.spec, folder) == 7
    assert (folder / "state.torn.json").exists()
    await second.stop()


async def test_a_lost_state_is_rebuilt_at_the_same_addresses(folder: Path, dice: SeededDice) -> None:
    first = await start_local(folder, SystemClock(), dice)
    await first.fund(TENANT, "tenant", tokens=7)
    await first.stop()
    (folder / "state.json").write_bytes(b'{"torn":')
    (folder / "state.good.json").unlink(missing_ok=True)
    second = await start_local(folder, SystemClock(), dice)
    assert second.spec == first.spec
    assert await tokens(second.spec, folder) == 7
    await second.stop()


async def test_a_stop_from_outside_ends_the_watch(folder: Path, dice: SeededDice) -> None:
    local = await start_local(folder, SystemClock(), dice)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(local.run)
            assert await stop_local(folder)
    await local.stop()
    assert anvils(folder) == []


async def test_an_anvil_that_cannot_run_says_why(folder: Path, dice: SeededDice, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "anvil"
    broken.parent.mkdir()
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "anvil Version: 1.7.1" || { echo no luck; exit 3; }\n')
    broken.chmod(0o755)
    with pytest.raises(InternalError, match="code 3: no luck"):
        await start_local(folder, SystemClock(), dice, environ={"PATH": f"{broken.parent}:/usr/bin:/bin"})
    assert process.read_running(folder) is None


async def test_a_faucet_needs_a_chain(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        async with open_faucet(tmp_path, SystemClock()):
            pass
