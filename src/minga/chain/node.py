"""`Chain` over JSON-RPC: one object that reads, sends and follows events of one network.

Composes `rpc`, `sender` and `events`; adds chain time and the clock check. Rule: opening asks nothing of a node, so
that a program starts at once and fails where it first needs the chain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minga.chain.blocks import Header, Log, MinedTransaction, blob, parse_header, parse_logs, quantity
from minga.chain.chain import Call, Chain, ChainSpec, Changes, Position, Receipt, Seen
from minga.chain.contract_events import decode_event
from minga.chain.errors import translate
from minga.chain.events import EventReader
from minga.chain.eventstore import EventStore
from minga.chain.fees import Fees
from minga.chain.journal import SqliteTransactions
from minga.chain.rpc import Reverted, Rpc
from minga.chain.sender import Sender
from minga.chain.view import View
from minga.core.crypto import Address, PrivateKey, to_hex
from minga.core.effects import Clock
from minga.core.errors import BadAnswer, ClockSkew

T = TypeVar("T")
CLOCK_SKEW_MAX = 120
"""Seconds by which a local clock may differ from chain time."""


class RpcChain:
    """`Chain` over JSON-RPC; see `minga.chain.chain.Chain` for every method's contract."""

    def __init__(self, spec: ChainSpec, folder: Path, clock: Clock, fees: Fees | None = None) -> None:
        """Files of this network are made in `folder`: one folder for one consumer of events.

        Raises:
            DiskFull, InternalError: the folder's files cannot be used.
        """
        self.spec = spec
        self.rpc = Rpc(spec.rpc_urls, spec.chain_id, clock)
        name = f"chain-{spec.chain_id}-{spec.deployment.market[2:10]}"  # another deployment is another history
        self._transactions = SqliteTransactions(folder / f"{name}.sqlite")
        # Whoever followed the network before it had disputes lacks their events: that is another history, too.
        events = f"{name}-{spec.deployment.disputes[2:10]}" if spec.deployment.has_disputes else name
        self._event_path = folder / f"{events}-events.sqlite"
        self._sender = Sender(self.rpc, self._transactions, clock, spec.confirmations, fees or Fees())
        self._reader: EventReader | None = None
        self._store: EventStore | None = None

    async def aclose(self) -> None:
        """Close connections and files; idempotent."""
        await self.rpc.aclose()
        self._transactions.close()
        if self._store:
            self._store.close()

    @property
    def view(self) -> View:
        """See `Chain.view`; empty before the first `poll`."""
        return self._events().view

    async def time(self) -> int:
        """See `Chain.time`: of a chain that mines on demand the newest block may be old, so the next one counts."""
        latest, pending = await self.rpc.batch(
            [("eth_getBlockByNumber", ("latest", False)), ("eth_getBlockByNumber", ("pending", False))]
        )
        times = [quantity(block["timestamp"]) for block in (latest, pending) if isinstance(block, dict)]
        if not times:
            raise BadAnswer("a node has no newest block", "ask another node")
        return max(times)

    async def check_clock(self, now: int) -> None:
        """See `Chain.check_clock`."""
        chain_time = await self.time()
        if abs(now - chain_time) > CLOCK_SKEW_MAX:
            raise ClockSkew(
                f"this machine's clock is {now - chain_time:+d} s from chain time",
                f"set the clock (at most {CLOCK_SKEW_MAX} s are safe)",
                local=now,
                chain=chain_time,
            )

    async def head(self) -> int:
        """See `Chain.head`."""
        return (await self.rpc.head()).number

    async def read(self, call: Call[T], deep: bool = False) -> T:
        """See `Chain.read`."""
        block = "latest"
        if deep and self.spec.confirmations:
            block = hex(max(0, await self.head() - self.spec.confirmations))
        request = {"to": call.to, "data": to_hex(call.data)}
        try:
            return call.decode(blob(await self.rpc.request("eth_call", request, block)))
        except Reverted as error:
            raise translate(error) from None

    async def balance(self, address: Address) -> int:
        """See `Chain.balance`."""
        return quantity(await self.rpc.request("eth_getBalance", address, "latest"))

    async def gas_cost(self, gas: int) -> int:
        """See `Chain.gas_cost`."""
        return gas * await self._sender.fee_now()

    async def send(self, effect: str, call: Call[Any], key: PrivateKey) -> Receipt:
        """See `Chain.send`."""
        mined = await self._sender.send(effect, call, key)
        return Receipt(
            effect=effect,
            transaction=mined.transaction,
            block=mined.block,
            block_hash=mined.block_hash,
            gas_used=mined.gas_used,
            fee_wei=mined.fee_wei,
            events=await self._events_of(mined),
        )

    async def _events_of(self, mined: MinedTransaction) -> tuple[Seen, ...]:
        decoded = [(log, decode_event(log, self.spec.deployment)) for log in mined.logs]
        if not any(event for _, event in decoded):
            return ()
        header = await self.rpc.header(mined.block)
        time = header.time if header else 0
        return tuple(
            Seen(event, Position(log.block, log.block_hash, log.transaction, log.index, time))
            for log, event in decoded
            if event
        )

    async def settle(self) -> int:
        """See `Chain.settle`."""
        return await self._sender.settle()

    async def poll(self) -> Changes:
        """See `Chain.poll`."""
        return await self._events().poll()

    def acknowledge(self, changes: Changes) -> None:
        """See `Chain.acknowledge`."""
        self._events().acknowledge(changes)

    def _events(self) -> EventReader:
        if self._reader is None:
            self._store = EventStore(self._event_path)
            contracts = self.spec.deployment
            places = [contracts.market, contracts.registry]
            if contracts.has_disputes:
                places += [contracts.disputes, contracts.beacon]
            source = RpcSource(self.rpc, places)
            self._reader = EventReader(source, self._store, self.spec.deployment, self.spec.confirmations)
        return self._reader


if TYPE_CHECKING:

    def _conforms(chain: RpcChain) -> Chain:
        return chain


class RpcSource:
    """`minga.chain.events.Source` over JSON-RPC, for the logs of `addresses`."""

    def __init__(self, rpc: Rpc, addresses: Sequence[Address]) -> None:
        self._rpc = rpc
        self._addresses = list(addresses)

    async def head(self) -> Header:
        """See `Source`."""
        return await self._rpc.head()

    async def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """See `Source`."""
        answers = await self._rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
        headers = [parse_header(answer) if answer else None for answer in answers]
        if any(header and header.number != number for header, number in zip(headers, numbers, strict=True)):
            raise BadAnswer("a node returned another block than was asked for", "ask another node")
        return headers

    async def logs_between(self, first: int, last: int) -> list[Log]:
        """See `Source`."""
        query = {"fromBlock": hex(first), "toBlock": hex(last), "address": self._addresses}
        return self._ours(await self._rpc.request("eth_getLogs", query))

    async def logs_of(self, hashes: Sequence[str]) -> list[list[Log]]:
        """See `Source`."""
        queries = [{"blockHash": name, "address": self._addresses} for name in hashes]
        return [self._ours(found) for found in await self._rpc.batch([("eth_getLogs", (query,)) for query in queries])]

    def _ours(self, answer: Any) -> list[Log]:
        return [log for log in parse_logs(answer) if log.address in self._addresses]

    async def agrees(self, number: int, block_hash: str) -> bool:
        """See `Source`."""
        return await self._rpc.agrees(number, block_hash)


@asynccontextmanager
async def open_chain(spec: ChainSpec, folder: Path, clock: Clock, fees: Fees | None = None) -> AsyncIterator[RpcChain]:
    """An `RpcChain` that is closed at the end."""
    chain = RpcChain(spec, folder, clock, fees)
    try:
        yield chain
    finally:
        await chain.aclose()
