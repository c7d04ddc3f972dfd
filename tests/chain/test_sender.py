"""A call is mined once, whatever the node does: against a real anvil, some of it behind a node that misbehaves."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from rpc_nodes import FastClock, forwarding, serving

from fixtures import SystemClock, eventually
from minga.chain.chain import Call
from minga.chain.contracts import Registry, Token, transfer_wei
from minga.chain.errors import AlreadyRegistered
from minga.chain.fees import GWEI, Fees
from minga.chain.journal import SqliteTransactions
from minga.chain.local import LocalChain
from minga.chain.rpc import Rpc
from minga.chain.sender import FOREIGN_LOOKS, Sender
from minga.chain.transactions import Transaction, parse_transaction, sign_transaction
from minga.core.crypto import Address, PrivateKey, new_key, to_hex
from minga.core.errors import BadAnswer, FeeTooHigh, RpcUnavailable, TransactionFailed

pytestmark = pytest.mark.anyio


def key_of(name: str) -> PrivateKey:
    return new_key(hashlib.sha256(name.encode()).digest())


@asynccontextmanager
async def sending(
    chain: LocalChain,
    path: Path,
    urls: list[str] | None = None,
    clock: SystemClock | None = None,
    fees: Fees | None = None,
    confirmations: int = 0,
) -> AsyncIterator[tuple[Sender, SqliteTransactions, Rpc]]:
    clock = clock or SystemClock()
    rpc = Rpc(urls or [chain.rpc_url], chain.spec.chain_id, clock)
    store = SqliteTransactions(path)
    try:
        yield Sender(rpc, store, clock, confirmations, fees or Fees()), store, rpc
    finally:
        store.close()
        await rpc.aclose()


def ask(chain: LocalChain, method: str, *params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = httpx.post(chain.rpc_url, json=body, trust_env=False).json()
    assert "error" not in answer, answer
    return answer["result"]


def mint(chain: LocalChain, receiver: Address, amount: int) -> Call[None]:
    return Token(chain.spec.deployment.token).mint(receiver, amount)


def sent(chain: LocalChain, sender: Address) -> int:
    return int(ask(chain, "eth_getTransactionCount", sender, "latest"), 16)


async def balance(chain: LocalChain, rpc: Rpc, owner: Address) -> int:
    call = Token(chain.spec.deployment.token).balance_of(owner)
    data = await rpc.request("eth_call", {"to": call.to, "data": to_hex(call.data)}, "latest")
    return call.decode(bytes.fromhex(data[2:]))


async def test_one_effect_asked_for_at_once_is_one_transaction(own_chain: LocalChain, tmp_path: Path) -> None:
    key, path = key_of("tenant"), tmp_path / "journal.sqlite"
    await own_chain.fund(key.address, "tenant")
    found = []
    async with sending(own_chain, path) as (one, _, rpc), sending(own_chain, path) as (two, _, _):

        async def send(sender: Sender, effect: str) -> None:
            found.append((effect, (await sender.send(effect, mint(own_chain, key.address, 5), key)).transaction))

        async with anyio.create_task_group() as group:
            for sender in (one, two) * 4:
                for effect in ("a", "b"):
                    group.start_soon(send, sender, effect)
        assert len(set(found)) == 2
        assert await balance(own_chain, rpc, key.address) == 10
        assert int(await rpc.request("eth_getTransactionCount", key.address, "latest"), 16) == 2


async def test_a_reorg_that_drops_it_is_answered_with_the_same_transaction(
    own_chain: LocalChain, tmp_path: Path
) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    async with sending(own_chain, tmp_path / "journal.sqlite") as (sender, _, rpc):
        first = [await sender.send(f"mint/{n}", mint(own_chain, key.address, 5), key) for n in range(3)]
        ask(own_chain, "anvil_reorg", 2, [])
        assert await balance(own_chain, rpc, key.address) == 5
        assert await sender.settle() == 2
        again = [await sender.send(f"mint/{n}", mint(own_chain, key.address, 5), key) for n in range(3)]
        assert [mined.transaction for mined in again] == [mined.transaction for mined in first]
        assert again[2].block_hash != first[2].block_hash
        assert await balance(own_chain, rpc, key.address) == 15
        assert await sender.settle() == 0


async def test_a_dropped_transaction_waits_for_what_it_builds_on(own_chain: LocalChain, tmp_path: Path) -> None:
    payer, payee, last = key_of("payer"), key_of("payee"), key_of("last").address
    for name, key in (("payer", payer), ("payee", payee)):
        await own_chain.fund(key.address, name, tokens=5 if key is payer else 0)
    token = Token(own_chain.spec.deployment.token)
    async with (
        sending(own_chain, tmp_path / "payer.sqlite") as (one, _, rpc),
        sending(own_chain, tmp_path / "payee.sqlite") as (two, _, _),
    ):
        await one.send("pay", token.transfer(payee.address, 5), payer)
        await two.send("pay on", token.transfer(last, 5), payee)
        ask(own_chain, "anvil_reorg", 2, [])
        assert await two.settle() == 0  # mined now it would revert, and its nonce be lost
        assert await one.settle() == 1
        assert await two.settle() == 1
        await two.send("pay on", token.transfer(last, 5), payee)
        assert await balance(own_chain, rpc, last) == 5


async def test_a_node_that_forgets_is_told_again(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    forward, dropped = forwarding(own_chain.rpc_url), []

    def forgetful(method: str, params: list[Any]) -> Any:
        if method == "eth_sendRawTransaction" and len(dropped) < 2:
            dropped.append(params[0])
            return "0x" + "00" * 32
        return forward(method, params)

    with serving(forgetful) as node:
        async with sending(own_chain, tmp_path / "j.sqlite", [node.url], FastClock()) as (sender, store, rpc):
            await sender.send("mint", mint(own_chain, key.address, 5), key)
            assert await balance(own_chain, rpc, key.address) == 5
            entry = store.find(key.address, "mint")
            assert entry is not None
            assert set(dropped) == {to_hex(raw) for raw in entry.raws}


async def test_a_stuck_transaction_is_bumped_under_its_own_nonce(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    ask(own_chain, "evm_setAutomine", False)
    fees = Fees(stuck_seconds=5, max_fee_cap=30 * GWEI)
    async with sending(own_chain, tmp_path / "j.sqlite", clock=FastClock(), fees=fees) as (sender, store, rpc):
        outcome: list[Any] = []

        async def send() -> None:
            outcome.append(await sender.send("mint", mint(own_chain, key.address, 5), key))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await eventually(lambda: (entry := store.find(key.address, "mint")) and len(entry.raws) >= 3)
                ask(own_chain, "evm_mine")
        entry = store.find(key.address, "mint")
        assert entry is not None
        versions = [parse_transaction(raw) for raw in entry.raws]
        assert all(100 * after.max_fee >= 125 * before.max_fee for before, after in itertools.pairwise(versions))
        assert {(tx.nonce, tx.to, tx.data) for tx in versions} == {(0, versions[0].to, versions[0].data)}
        assert max(tx.max_fee for tx in versions) <= fees.max_fee_cap
        assert await balance(own_chain, rpc, key.address) == 5
        assert outcome[0].transaction in entry.hashes


async def test_depth_is_waited_for(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    with serving(forwarding(own_chain.rpc_url)) as node:
        paths = (own_chain, tmp_path / "j.sqlite", [node.url], FastClock())
        async with sending(*paths, confirmations=3) as (sender, store, _):
            done: list[int] = []

            async def send() -> None:
                mined = await sender.send("mint", mint(own_chain, key.address, 5), key)
                done.append(int(ask(own_chain, "eth_blockNumber"), 16) - mined.block)

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await eventually(lambda: sent(own_chain, key.address) == 1)
                ask(own_chain, "anvil_mine", "0x2")
                looked = node.asked.count("eth_getTransactionReceipt")
                await eventually(lambda: node.asked.count("eth_getTransactionReceipt") >= looked + 2 * FOREIGN_LOOKS)
                assert not done
                assert noted(store, key) is None
                ask(own_chain, "anvil_mine", "0x1")
                await eventually(lambda: done)
            assert done == [3]


def noted(store: SqliteTransactions, key: PrivateKey) -> str | None:
    entry = store.find(key.address, "mint")
    assert entry is not None
    return entry.receipt


async def test_a_lying_receipt_is_not_believed(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    forward = forwarding(own_chain.rpc_url)

    def lying(method: str, params: list[Any]) -> Any:
        answer = forward(method, params)
        if method == "eth_getTransactionReceipt" and answer:
            answer |= {"transactionHash": "0x" + "11" * 32}
        return answer

    with serving(lying) as node:
        fees = Fees(patience_seconds=5)
        async with sending(own_chain, tmp_path / "j.sqlite", [node.url], FastClock(), fees) as (sender, _, _):
            with pytest.raises(BadAnswer, match="another transaction"):
                await sender.send("mint", mint(own_chain, key.address, 5), key)


async def test_a_block_that_other_nodes_deny_is_not_depth(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    forward = forwarding(own_chain.rpc_url)
    lies = True

    def lying(method: str, params: list[Any]) -> Any:
        answer = forward(method, params)
        if lies and isinstance(answer, dict) and method in ("eth_getTransactionReceipt", "eth_getBlockByNumber"):
            fake = "0x" + "22" * 32
            answer |= {"blockHash": fake} if "blockHash" in answer else {"hash": fake}
            answer |= {"logs": [log | {"blockHash": fake} for log in answer.get("logs", [])]}
        return answer

    with serving(lying) as node:
        urls = [node.url, own_chain.rpc_url]
        async with (
            sending(own_chain, tmp_path / "j.sqlite", urls, confirmations=1) as (sender, store, _),
            anyio.create_task_group() as group,
        ):
            group.start_soon(sender.send, "mint", mint(own_chain, key.address, 5), key)
            await eventually(lambda: sent(own_chain, key.address) == 1)
            ask(own_chain, "anvil_mine", "0x5")
            voted = node.asked.count("eth_getBlockByNumber")
            await eventually(lambda: node.asked.count("eth_getBlockByNumber") >= voted + 3)
            assert noted(store, key) is None
            lies = False
            await eventually(lambda: noted(store, key))


async def test_a_nonce_taken_by_another_program_is_told(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    ask(own_chain, "evm_setAutomine", False)
    fees = Fees(stuck_seconds=10_000)
    async with sending(own_chain, tmp_path / "j.sqlite", clock=FastClock(), fees=fees) as (sender, store, _):
        outcome: list[str] = []

        async def send() -> None:
            with pytest.raises(TransactionFailed) as caught:
                await sender.send("mint", mint(own_chain, key.address, 5), key)
            outcome.append(caught.value.fact)

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await eventually(lambda: store.find(key.address, "mint"))
            other = Transaction(own_chain.spec.chain_id, 0, 90 * GWEI, 99 * GWEI, 21_000, key.address, 0, b"")
            ask(own_chain, "eth_sendRawTransaction", to_hex(sign_transaction(other, key)[0]))
            ask(own_chain, "evm_mine")
            await eventually(lambda: outcome)
        assert outcome == [f"nonce 0 of {key.address} was used by another program"]


async def test_a_transaction_that_fails_when_mined_says_why(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("provider")
    await own_chain.fund(key.address, "provider")
    registry = Registry(own_chain.spec.deployment.registry)
    forward = forwarding(own_chain.rpc_url)

    def hopeful(method: str, params: list[Any]) -> Any:
        return hex(200_000) if method == "eth_estimateGas" else forward(method, params)

    with serving(hopeful) as node:
        async with sending(own_chain, tmp_path / "j.sqlite", [node.url]) as (sender, _, rpc):
            await sender.send("register", registry.register("a", key.address), key)
            for _ in range(2):
                with pytest.raises(AlreadyRegistered):
                    await sender.send("register again", registry.register("a", key.address), key)
            assert int(await rpc.request("eth_getTransactionCount", key.address, "latest"), 16) == 2


async def test_a_fee_over_the_cap_sends_nothing(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    async with sending(own_chain, tmp_path / "j.sqlite", fees=Fees(max_fee_cap=1)) as (sender, store, _):
        with pytest.raises(FeeTooHigh):
            await sender.send("mint", mint(own_chain, key.address, 5), key)
        assert store.find(key.address, "mint") is None


async def test_a_dead_node_is_one_clear_error_and_the_effect_goes_on_later(
    own_chain: LocalChain, tmp_path: Path
) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    forward = forwarding(own_chain.rpc_url)

    def dying(method: str, params: list[Any]) -> Any:
        if method == "eth_sendRawTransaction":
            node.mode = "http500"
            return "0x" + "00" * 32
        return forward(method, params)

    with serving(dying) as node:
        fees = Fees(patience_seconds=5)
        async with sending(own_chain, tmp_path / "j.sqlite", [node.url], FastClock(), fees) as (sender, store, _):
            with pytest.raises(RpcUnavailable):
                await sender.send("mint", mint(own_chain, key.address, 5), key)
            entry = store.find(key.address, "mint")
            assert entry is not None
    async with sending(own_chain, tmp_path / "j.sqlite") as (sender, _, _):
        assert await sender.settle() == 1
        mined = await sender.send("mint", mint(own_chain, key.address, 5), key)
        assert (mined.transaction,) == entry.hashes


async def test_a_receipt_that_nodes_forgot_is_kept(own_chain: LocalChain, tmp_path: Path) -> None:
    key = key_of("tenant")
    await own_chain.fund(key.address, "tenant")
    forward = forwarding(own_chain.rpc_url)

    def pruned(method: str, params: list[Any]) -> Any:
        return None if method == "eth_getTransactionReceipt" else forward(method, params)

    async with sending(own_chain, tmp_path / "j.sqlite") as (sender, _, _):
        mined = await sender.send("gift", transfer_wei(key.address, 1), key)
    with serving(pruned) as node:
        async with sending(own_chain, tmp_path / "j.sqlite", [node.url]) as (sender, _, _):
            assert await sender.send("gift", transfer_wei(key.address, 1), key) == mined
