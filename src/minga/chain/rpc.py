"""JSON-RPC over several urls: the first that answers well serves, the others stand by.

| what a url does                                   | what happens                                              |
|---------------------------------------------------|-----------------------------------------------------------|
| no answer, HTTP error, no JSON, too long          | the next serves; this one rests 1 s, then twice as long … |
| another chain id                                  | never used again; `WrongChain` when all are so            |
| a head lower than one seen                        | the others are asked; the highest counts                  |
| an error that is not a revert                     | the others are asked before it is believed                |
| a block hash that most others deny                | not believed (`agrees`)                                   |

Does not know contracts, keys or events. Rule: a url may hold a key of its owner, so facts name hosts only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx

from minga.chain.blocks import Header, parse_header, quantity
from minga.core.codec import check_nesting
from minga.core.effects import Clock
from minga.core.errors import BadAnswer, ContractError, InvalidInput, MingaError, RpcUnavailable, WrongChain

NESTING_MAX = 64
ANSWER_BYTES_MAX = 64 << 20
BATCH_MAX = 50
REST_SECONDS_MAX = 30.0

Request = tuple[str, tuple[Any, ...]]


class RpcError(RpcUnavailable):
    """Nodes answer, but refuse with an error that is not a revert."""


class Reverted(ContractError):
    """A call reverted; `data` is what the contract returned. Translated by `minga.chain.errors`."""

    def __init__(self, data: bytes, message: str) -> None:
        super().__init__(f"the call reverted: {message}"[:300], "check the arguments")
        self.data = data


class _Unfit(Exception):
    """This node gave no usable answer; another may."""


@dataclass
class _Node:
    url: str
    client: httpx.AsyncClient
    checked: bool = False
    wrong: bool = False
    batches: bool = True
    rest: float = 0.0
    resting_until: float = float("-inf")
    name: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.name = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


class Rpc:
    """A connection to one chain through `urls`, the most wanted first."""

    def __init__(self, urls: Sequence[str], chain_id: int, clock: Clock, timeout: float = 10.0) -> None:
        """Nothing is asked yet; `timeout` is seconds for one answer of one url."""
        self.chain_id = chain_id
        self._clock = clock
        self._timeout = timeout
        self._seen = 0
        self._nodes = [_Node(url, self._client(url)) for url in urls]

    def _client(self, url: str) -> httpx.AsyncClient:
        secure = url.startswith("https")
        loopback = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        # loading the certificate bundle takes 20 ms, and a proxy for the outside cannot reach our own loopback
        return httpx.AsyncClient(timeout=self._timeout, verify=secure, trust_env=not loopback)

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        for node in self._nodes:
            await node.client.aclose()

    async def request(self, method: str, *params: Any) -> Any:
        """The result of one call.

        Raises:
            Reverted: the call ran and reverted.
            RpcError: every node that answers refuses it.
            WrongChain: every url serves another chain.
            RpcUnavailable: no url gives a usable answer.
        """
        return (await self.batch([(method, params)]))[0]

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """The results of several calls, all from the same node. Raises as `request`, for the first that fails."""
        results: list[Any] = []
        for start in range(0, len(requests), BATCH_MAX):
            results += await self._failover(requests[start : start + BATCH_MAX])
        return results

    async def _failover(self, requests: Sequence[Request]) -> list[Any]:
        reasons: dict[str, str] = {}
        refused: RpcError | None = None
        for node in self._order():
            try:
                return await self._ask_checked(node, requests)
            except RpcError as error:
                refused = refused or error
            except _Unfit as error:
                reasons[node.name] = str(error)
        raise refused or self._nothing(reasons)

    def _order(self) -> list[_Node]:
        now = self._clock.monotonic()
        fit = [node for node in self._nodes if not node.wrong]
        return sorted(fit, key=lambda node: node.resting_until > now)

    def _nothing(self, reasons: dict[str, str]) -> MingaError:
        if all(node.wrong for node in self._nodes):
            names = ", ".join(node.name for node in self._nodes)
            return WrongChain(f"{names} serves another chain than {self.chain_id}", "correct rpc_urls or chain_id")
        told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        return RpcUnavailable(f"no RPC url of chain {self.chain_id} answers ({told})", "check the urls and the network")

    async def _ask_checked(self, node: _Node, requests: Sequence[Request]) -> list[Any]:
        try:
            if node.checked:
                results = await self._ask(node, requests)
            else:
                chain_id, *results = await self._ask(node, [("eth_chainId", ()), *requests])
                node.wrong = quantity(chain_id) != self.chain_id
                node.checked = not node.wrong
                if node.wrong:
                    raise _Unfit(f"chain id {quantity(chain_id)}")
        except (RpcError, Reverted):
            raise
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, BadAnswer, _Unfit) as error:
            node.rest = min(REST_SECONDS_MAX, node.rest * 2 or 1.0)
            node.resting_until = self._clock.monotonic() + node.rest
            node.checked = False  # another chain may answer there next time
            raise _Unfit(str(error)[:120] or type(error).__name__) from error
        node.rest, node.resting_until = 0.0, float("-inf")
        return results

    async def _ask(self, node: _Node, requests: Sequence[Request]) -> list[Any]:
        calls: list[dict[str, Any]] = [
            {"jsonrpc": "2.0", "id": at, "method": method, "params": list(params)}
            for at, (method, params) in enumerate(requests)
        ]
        if len(calls) > 1 and not node.batches:
            return [_result(await self._post(node, call), call["method"]) for call in calls]
        answers = await self._post(node, calls[0] if len(calls) == 1 else calls)
        if isinstance(answers, dict):
            if len(calls) > 1 and "error" in answers:  # it refuses the batch, not the calls
                node.batches = False
                return await self._ask(node, requests)
            answers = [answers]
        if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
            raise _Unfit("the answer is not JSON-RPC")
        by_id = {answer.get("id"): answer for answer in answers if isinstance(answer.get("id"), int)}
        if len(by_id) != len(calls):
            raise _Unfit("some answers are missing")
        return [_result(by_id.get(call["id"]), call["method"]) for call in calls]

    async def _post(self, node: _Node, body: Any) -> Any:
        with anyio.move_on_after(self._timeout) as scope:  # httpx times each read, not the whole answer
            async with node.client.stream("POST", node.url, json=body) as response:
                if response.status_code != 200:
                    raise _Unfit(f"HTTP {response.status_code}")
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > ANSWER_BYTES_MAX:
                        raise _Unfit("the answer is too long")
        if scope.cancelled_caught:
            raise _Unfit(f"no answer in {self._timeout:g} s")
        try:
            text = data.decode()
            check_nesting(text, NESTING_MAX)
            return json.loads(text)
        except (ValueError, InvalidInput) as error:
            raise _Unfit(f"not JSON: {error}"[:100]) from None

    async def head(self) -> Header:
        """The newest block that any fit url knows. A fall below what was seen is believed only if all say so."""
        best: Header | None = None
        reasons: dict[str, str] = {}
        for node in self._order():
            try:
                (answer,) = await self._ask_checked(node, [("eth_getBlockByNumber", ("latest", False))])
                found = parse_header(answer)
            except (_Unfit, RpcError, BadAnswer) as error:
                reasons[node.name] = str(error)
                continue
            best = found if best is None or found.number > best.number else best
            if best.number >= self._seen:
                break
        if best is None:
            raise self._nothing(reasons)
        self._seen = best.number
        return best

    async def header(self, number: int) -> Header | None:
        """The block at `number`, or None when the node has none."""
        answer = await self.request("eth_getBlockByNumber", hex(number), False)
        if answer is None:
            return None
        found = parse_header(answer)
        if found.number != number:
            raise BadAnswer(f"asked for block {number}, got {found.number}", "ask another node")
        return found

    async def agrees(self, number: int, block_hash: str) -> bool:
        """Whether more urls than not, of those that know block `number`, give it this hash."""
        votes: list[bool] = []

        async def ask(node: _Node) -> None:
            try:
                (answer,) = await self._ask_checked(node, [("eth_getBlockByNumber", (hex(number), False))])
                if answer is not None:
                    votes.append(parse_header(answer).hash == block_hash)
            except (_Unfit, RpcError, BadAnswer):
                pass

        async with anyio.create_task_group() as group:
            for node in self._nodes:
                if not node.wrong:
                    group.start_soon(ask, node)
        return sum(votes) * 2 > len(votes)

    async def spread(self, method: str, *params: Any) -> None:
        """Tell every url the same (a raw transaction): whoever hears it is enough.

        Raises:
            RpcError: no url took it, and one said why.
            RpcUnavailable: none answered.
        """
        refused: list[RpcError] = []
        reasons: dict[str, str] = {}
        taken = False
        for node in self._order():
            try:
                await self._ask_checked(node, [(method, params)])
                taken = True
            except RpcError as error:
                refused.append(error)
            except _Unfit as error:
                reasons[node.name] = str(error)
        if not taken:
            raise refused[0] if refused else self._nothing(reasons)


def _result(answer: Any, method: str) -> Any:
    if not isinstance(answer, dict) or ("result" not in answer and "error" not in answer):
        raise _Unfit("the answer is not JSON-RPC")
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        raise _Unfit("the error is not JSON-RPC")
    message = str(error.get("message", ""))[:300]
    data = error.get("data")
    if error.get("code") == 3 or "revert" in message.lower():
        raise Reverted(_revert_bytes(data), message)
    raise RpcError(f"{method} was refused: {message}", "check the node", rpc_code=error.get("code"))


def _revert_bytes(data: Any) -> bytes:
    if isinstance(data, dict):  # some nodes wrap it
        data = data.get("data")
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""
