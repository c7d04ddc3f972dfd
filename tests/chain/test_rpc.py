"""Failover between RPC urls that fail, lag, lie or serve another chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rpc_nodes import FastClock, RpcFault, blocks, serving

from fixtures import SystemClock
from minga.chain.rpc import Reverted, Rpc, RpcError
from minga.core.errors import BadAnswer, RpcUnavailable, WrongChain

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(urls: Sequence[str], clock: SystemClock | None = None, timeout: float = 5.0) -> AsyncIterator[Rpc]:
    rpc = Rpc(urls, 7, clock or SystemClock(), timeout)
    try:
        yield rpc
    finally:
        await rpc.aclose()


@pytest.mark.parametrize("mode", ["http500", "garbage", "deep", "hang"])
async def test_the_next_url_serves_when_one_fails(mode: str) -> None:
    with serving(blocks(3)) as bad, serving(blocks(5)) as good:
        bad.mode = mode
        async with connected([bad.url, good.url], timeout=0.3) as rpc:
            assert (await rpc.head()).number == 4
            assert await rpc.request("eth_blockNumber") == "0x4"
        assert len(bad.asked) <= 1 or mode == "http500"


class HeldClock(FastClock):
    """Stands still but while somebody sleeps: how busy the machine is decides nothing."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        """Seconds slept."""
        return self.slept

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        self.slept += seconds
        await super().sleep(0)


async def test_a_failed_url_rests_and_comes_back() -> None:
    with serving(blocks(3)) as first, serving(blocks(5)) as second:
        clock = HeldClock()
        async with connected([first.url, second.url], clock) as rpc:
            first.mode = "http500"
            assert await rpc.request("eth_blockNumber") == "0x4"
            first.mode = "ok"
            asked = len(first.asked)
            assert await rpc.request("eth_blockNumber") == "0x4"
            assert len(first.asked) == asked
            await clock.sleep(2)
            assert await rpc.request("eth_blockNumber") == "0x2"


async def test_a_refused_connection_is_one_clear_error() -> None:
    with serving(blocks(1)) as node:
        url = f"{node.url}/v2/secret-key"
    async with connected([url]) as rpc:
        with pytest.raises(RpcUnavailable) as caught:
            await rpc.request("eth_blockNumber")
    assert "127.0.0.1" in caught.value.fact
    assert "secret-key" not in str(caught.value)


async def test_another_chain_is_never_used() -> None:
    with serving(blocks(9, chain_id=8)) as wrong, serving(blocks(5)) as right:
        async with connected([wrong.url, right.url]) as rpc:
            assert (await rpc.head()).number == 4
            assert (await rpc.head()).number == 4
            assert wrong.asked.count("eth_chainId") == 1
        async with connected([wrong.url]) as rpc:
            for _ in range(2):
                with pytest.raises(WrongChain):
                    await rpc.request("eth_blockNumber")
            with pytest.raises(WrongChain):
                await rpc.head()


async def test_a_chain_that_changes_behind_its_url_is_noticed() -> None:
    with serving(blocks(5)) as node:
        async with connected([node.url]) as rpc:
            await rpc.request("eth_blockNumber")
            node.mode = "http500"
            with pytest.raises(RpcUnavailable):
                await rpc.request("eth_blockNumber")
            node.mode, node.answer = "ok", blocks(5, chain_id=8)
            with pytest.raises(WrongChain):
                await rpc.request("eth_blockNumber")


async def test_a_lagging_node_is_passed_over() -> None:
    with serving(blocks(10)) as first, serving(blocks(9)) as second:
        async with connected([first.url, second.url]) as rpc:
            assert (await rpc.head()).number == 9
            first.answer = blocks(4)
            assert (await rpc.head()).number == 8  # all say lower: the highest of them counts
            second.answer = blocks(12)
            assert (await rpc.head()).number == 11


async def test_a_rollback_is_believed_when_everyone_says_so() -> None:
    with serving(blocks(10)) as node:
        async with connected([node.url]) as rpc:
            assert (await rpc.head()).number == 9
            node.answer = blocks(6)
            assert (await rpc.head()).number == 5


async def test_a_liar_is_outvoted() -> None:
    with serving(blocks(5, "b")) as liar, serving(blocks(5)) as one, serving(blocks(5)) as two:
        async with connected([liar.url, one.url, two.url]) as rpc:
            assert await rpc.agrees(3, f"0xa{3:063x}")
            assert not await rpc.agrees(3, f"0xb{3:063x}")
        async with connected([liar.url, one.url]) as rpc:
            assert not await rpc.agrees(3, f"0xb{3:063x}")  # one against one: nobody is believed
            assert not await rpc.agrees(9, f"0xa{9:063x}")  # nobody knows it


async def test_batches_come_back_in_order_and_survive_nodes_without_them() -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [("eth_getBlockByNumber", (hex(n), False)) for n in range(120)]
    with serving(blocks(200)) as node:
        async with connected([node.url]) as rpc:
            for mode in ("ok", "nobatch"):
                node.mode = mode
                assert [int(found["number"], 16) for found in await rpc.batch(calls)] == list(range(120))


async def test_an_error_is_asked_for_twice_and_a_revert_is_not() -> None:
    def refusing(method: str, params: list[Any]) -> Any:
        if method == "eth_chainId":
            return "0x7"
        if method == "eth_call":
            raise RpcFault(3, "execution reverted: no", "0x08c379a0")
        raise RpcFault(-32000, "unknown block")

    with serving(refusing) as first, serving(blocks(5)) as second, serving(refusing) as third:
        async with connected([first.url, second.url]) as rpc:
            assert await rpc.request("eth_blockNumber") == "0x4"
            with pytest.raises(Reverted) as caught:
                await rpc.request("eth_call", {}, "latest")
            assert caught.value.data == bytes.fromhex("08c379a0")
            assert "eth_call" not in second.asked
        async with connected([first.url, third.url]) as rpc:
            with pytest.raises(RpcError, match="unknown block"):
                await rpc.request("eth_blockNumber")


async def test_answers_to_other_questions_are_refused() -> None:
    def wrong_block(method: str, params: list[Any]) -> Any:
        return "0x7" if method == "eth_chainId" else blocks(9)(method, ["0x5", False])

    with serving(wrong_block) as node:
        async with connected([node.url]) as rpc:
            with pytest.raises(BadAnswer):
                await rpc.header(3)
            assert (await rpc.header(5)).number == 5  # type: ignore[union-attr]
    with serving(blocks(3)) as node:
        async with connected([node.url]) as rpc:
            assert await rpc.header(7) is None


async def test_spreading_reaches_all_and_needs_one() -> None:
    def taking(method: str, params: list[Any]) -> Any:
        return "0x7" if method == "eth_chainId" else params[0]

    with serving(taking) as first, serving(blocks(1)) as second, serving(taking) as third:
        async with connected([first.url, second.url, third.url]) as rpc:
            await rpc.spread("eth_sendRawTransaction", "0x02")
        assert all("eth_sendRawTransaction" in node.asked for node in (first, second, third))
        async with connected([second.url]) as rpc:
            with pytest.raises(RpcError):
                await rpc.spread("eth_sendRawTransaction", "0x02")
    async with connected([first.url]) as rpc:
        with pytest.raises(RpcUnavailable):
            await rpc.spread("eth_sendRawTransaction", "0x02")
