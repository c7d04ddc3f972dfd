"""Nodes that answer in every wrong shape: the next one serves, and what is believed has one form only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import SystemClock
from minga.chain import rpc as rpc_module
from minga.chain.blocks import blob, parse_header, parse_log, parse_logs, parse_receipt, quantity
from minga.chain.fees import GWEI, Fees
from minga.chain.rpc import Reverted, Rpc, RpcError
from minga.core.errors import BadAnswer, FeeTooHigh, RpcUnavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.just("0x1"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "result", "error", "jsonrpc", "code", "data"]), inner, max_size=4)
    ),
    max_leaves=8,
)
CHAIN = 7
Answer = Callable[[Any], Any]
"""The JSON answer to a JSON body; bytes are sent as they are."""


class Frozen(SystemClock):
    """A clock that stands still."""

    def monotonic(self) -> float:
        """Always the same moment."""
        return 1000.0


class Wired(Rpc):
    """An `Rpc` whose urls are functions: `http://0`, `http://1` … answer by `answers`."""

    def __init__(self, *answers: Answer) -> None:
        self.asked = [0] * len(answers)
        self._answers = answers
        super().__init__([f"http://{number}" for number in range(len(answers))], CHAIN, Frozen())

    def _client(self, url: str) -> httpx.AsyncClient:
        number = int(url.removeprefix("http://"))

        def handle(request: httpx.Request) -> httpx.Response:
            self.asked[number] += 1
            answer = self._answers[number](json.loads(request.content))
            if isinstance(answer, httpx.Response):
                return answer
            return httpx.Response(200, content=answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        return httpx.AsyncClient(transport=httpx.MockTransport(handle))


@asynccontextmanager
async def wired(*answers: Answer) -> AsyncIterator[Wired]:
    rpc = Wired(*answers)
    try:
        yield rpc
    finally:
        await rpc.aclose()


def result_of(call: dict[str, Any], value: Any = "0x5") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call["id"], "result": hex(CHAIN) if call["method"] == "eth_chainId" else value}


def good(body: Any) -> Any:
    """What an honest node says."""
    return [result_of(call) for call in body] if isinstance(body, list) else result_of(body)


def refusing(error: Any) -> Answer:
    """A node of the right chain that answers every other call with this error."""

    def one(call: dict[str, Any]) -> dict[str, Any]:
        if call["method"] == "eth_chainId":
            return result_of(call)
        return {"jsonrpc": "2.0", "id": call["id"], "error": error}

    return lambda body: [one(call) for call in body] if isinstance(body, list) else one(body)


WRONG: dict[str, Answer] = {
    "null": lambda body: None,
    "text": lambda body: "0x5",
    "a number": lambda body: 5,
    "an empty list": lambda body: [],
    "a list of texts": lambda body: ["0x7", "0x5"],
    "no ids": lambda body: [{"result": "0x7"}, {"result": "0x5"}],
    "text ids": lambda body: [result_of(call) | {"id": str(call["id"])} for call in body],
    "one id twice": lambda body: [result_of(call) | {"id": 0} for call in body],
    "ids of other calls": lambda body: [result_of(call) | {"id": call["id"] + 9} for call in body],
    "an answer too few": lambda body: [result_of(body[0])],
    "an answer too many": lambda body: [*good(body), {"id": 2, "result": "0x9"}],
    "neither result nor error": lambda body: [{"id": call["id"]} for call in body],
    "an error that is text": refusing("no"),
    "an error that is a list": refusing([1]),
    "a chain id that is none": lambda body: [{"id": call["id"], "result": "seven"} for call in body],
    "half an answer": lambda body: json.dumps(good(body)).encode()[:-9],
    "no UTF-8": lambda body: b'{"id": 0, "result": "\xff"}',
    "a number without end": lambda body: b"[" + b"1" * 6000 + b"]",
    "nothing": lambda body: b"",
    "a redirect": lambda body: httpx.Response(302, headers={"location": "http://1"}),
    "too many requests": lambda body: httpx.Response(429, json=good(body)),
    "a broken encoding": lambda body: httpx.Response(200, headers={"content-encoding": "gzip"}, content=b"no gzip"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("shape", sorted(WRONG))
async def test_after_an_answer_of_a_wrong_shape_the_next_node_serves(shape: str) -> None:
    async with wired(WRONG[shape], good) as rpc:
        assert await rpc.request("eth_blockNumber") == "0x5"
        assert await rpc.request("eth_blockNumber") == "0x5"
        assert rpc.asked[0] == 1, "it rests, and the clock stands still"
    async with wired(WRONG[shape]) as alone:
        with pytest.raises(RpcUnavailable) as caught:
            await alone.request("eth_blockNumber")
        assert caught.value.code == "rpc-unavailable"
        assert caught.value.remedy


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value",
    [{}, {"id": True, "result": 1}, [[]], {"error": {}}, {"result": None}, {"error": None}, [None], 1e300, {"id": 0}],
)
async def test_a_node_that_says_the_same_to_everything_is_not_believed(value: Any) -> None:
    async with wired(lambda body: value) as rpc:
        with pytest.raises(RpcUnavailable):
            await rpc.request("eth_blockNumber")


@pytest.mark.anyio
async def test_an_answer_over_the_limit_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_module, "ANSWER_BYTES_MAX", 4096)
    sent = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1024
                yield b"x" * 1024

    async with wired(lambda body: httpx.Response(200, stream=Endless()), good) as rpc:
        assert await rpc.request("eth_blockNumber") == "0x5"
    assert sent <= 8192


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "data"),
    [
        ({"code": 3, "message": "no", "data": "0x08c3"}, b"\x08\xc3"),
        ({"code": -32000, "message": "execution reverted", "data": {"data": "0x08c3"}}, b"\x08\xc3"),
        ({"code": 3}, b""),
        ({"code": 3, "data": "0xzz"}, b""),
        ({"code": 3, "data": "08c3"}, b""),
        ({"code": 3, "data": {"data": None}}, b""),
        ({"code": "x", "message": "VM: REVERT", "data": 5}, b""),
    ],
)
async def test_a_revert_is_one_in_every_dialect(error: dict[str, Any], data: bytes) -> None:
    async with wired(refusing(error), good) as rpc:
        with pytest.raises(Reverted) as caught:
            await rpc.request("eth_call", {}, "latest")
        assert caught.value.data == data
        assert rpc.asked[1] == 0, "a revert is an answer: nobody else is asked"


@pytest.mark.anyio
async def test_what_a_node_says_is_bounded_in_the_fact() -> None:
    async with wired(refusing({"code": -1, "message": "x" * 100_000})) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.request("eth_blockNumber")
    assert len(caught.value.fact) < 400
    assert caught.value.details == {"rpc_code": -1}


@given(st.text(alphabet="0123456789abcdefABCDEFx _+-\n٣", max_size=70) | JSON)
def test_a_quantity_is_hexadecimal_digits_and_nothing_else(value: Any) -> None:
    is_one = isinstance(value, str) and value[:2] == "0x" and 3 <= len(value) <= 66
    is_one = is_one and set(value[2:]) <= set("0123456789abcdefABCDEF")
    try:
        found = quantity(value)
    except BadAnswer:
        assert not is_one
    else:
        assert is_one
        assert 0 <= found < 2**256


@pytest.mark.parametrize("value", ["0x-1", "0x+1", "0x 1", "0x1 ", "0x1_0", "0x\n1", "0x٣", "0X1"])
def test_what_python_would_read_as_a_number_is_no_quantity(value: str) -> None:
    with pytest.raises(BadAnswer):
        quantity(value)


@pytest.mark.parametrize("value", ["0x12 34", "0x 12", "0x12\n", "0x1 2 ", "0X12"])
def test_bytes_have_no_blanks(value: str) -> None:
    with pytest.raises(BadAnswer):
        blob(value)


@given(st.binary(max_size=80))
def test_bytes_come_back(data: bytes) -> None:
    assert blob("0x" + data.hex()) == blob("0x" + data.hex().upper()) == data


@given(JSON)
def test_whatever_stands_where_a_block_should_is_one_error(value: Any) -> None:
    for parse in (parse_header, parse_log, parse_receipt):
        with pytest.raises(BadAnswer):
            parse(value)
    if value != []:
        with pytest.raises(BadAnswer):
            parse_logs(value)


def block(base: int) -> dict[str, str]:
    return {"baseFeePerGas": hex(base)}


@given(st.integers(0, 500 * GWEI), st.integers(0, 100 * GWEI))
def test_fees_leave_room_for_a_base_fee_that_doubles_and_stay_under_the_cap(base: int, priority: int) -> None:
    policy = Fees()
    try:
        tip, most = policy.of(block(base), hex(priority))
    except FeeTooHigh:
        assert base + min(priority, policy.priority_fee_cap) > policy.max_fee_cap
        return
    assert tip == min(priority, policy.priority_fee_cap)
    assert most == min(2 * base + tip, policy.max_fee_cap)
    assert base + tip <= most, "it could be mined now"


@pytest.mark.parametrize("answer", [None, {}, [], "block", {"baseFeePerGas": None}, {"baseFeePerGas": "0x-5"}])
def test_a_chain_without_a_base_fee_is_said_to_be_so(answer: Any) -> None:
    with pytest.raises(BadAnswer) as caught:
        Fees().of(answer, "0x1")
    assert caught.value.remedy


@pytest.mark.parametrize("priority", [None, 5, "0x-1", "", "0x"])
def test_a_tip_that_is_no_number_is_refused(priority: Any) -> None:
    with pytest.raises(BadAnswer):
        Fees().of(block(1), priority)
