"""Have a call mined once, whatever dies meanwhile.

    effect id ──► journaled? ── yes ─────────────► watch its versions ──► receipt at depth ──► done
                     │ no                              ▲      │ not mined: broadcast again; stuck: raise the fee
                     ▼                                 │      ▼
    nonce, fees, gas (a revert is refused here) ─► sign, journal, broadcast

Knows nonces, fees, receipts; does not know contracts or why a call is made. Rules: nothing is broadcast that is not
journaled; a nonce belongs to one effect for ever; whatever the journal holds and the chain does not (a reorg, a node
that was killed) is broadcast again, in nonce order, and only once it would succeed (another party's transaction that
it builds on may have been dropped with it), or has been held back for `stuck_seconds`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

import anyio

from minga.chain.blocks import MinedTransaction, parse_receipt, quantity
from minga.chain.chain import Call
from minga.chain.errors import translate
from minga.chain.fees import Fees
from minga.chain.journal import Entry, Transactions
from minga.chain.rpc import Reverted, Rpc, RpcError
from minga.chain.transactions import Transaction, parse_transaction, sign_transaction
from minga.core.crypto import Address, PrivateKey, to_hex
from minga.core.effects import Clock
from minga.core.errors import BadAnswer, Conflict, FeeTooHigh, InsufficientFunds, RpcUnavailable, TransactionFailed
from minga.core.faults import declare, reach

declare(
    {
        "chain.send.planned": "nonce, fees and gas are known; nothing is signed",
        "chain.send.journaled": "the signed transaction is on disk; no node has heard of it",
        "chain.send.broadcast": "a node took the transaction",
        "chain.send.mined": "it is mined, perhaps not deep enough",
        "chain.send.noted": "its receipt at depth is on disk; the caller does not know",
        "chain.bump.journaled": "a version with higher fees is on disk; no node has heard of it",
        "chain.resend.broadcast": "a dropped transaction was broadcast again",
    }
)

POLL_SECONDS = (0.005, 1.0)
REBROADCAST_SECONDS = 2.0
FOREIGN_LOOKS = 40
"""Looks that must find the nonce used and no receipt before that is believed: nodes behind one url may differ."""
SETTLE_BLOCKS = 256
"""Entries that many blocks deep are looked at no more: no chain we know reorganises so far."""
_HARMLESS = ("alreadyknown", "alreadyimported", "knowntransaction", "noncetoolow", "oldnonce", "underpriced")

Standing = Literal["deep", "shallow", "absent", "foreign"]
"""At depth; mined, not deep enough; not mined; not mined and its nonce used."""


class Sender:
    """Sends for any number of keys over one `Rpc`, remembering in one `Transactions`."""

    def __init__(self, rpc: Rpc, store: Transactions, clock: Clock, confirmations: int, fees: Fees) -> None:
        self._rpc = rpc
        self._store = store
        self._clock = clock
        self._confirmations = confirmations
        self._fees = fees
        self._locks: dict[Address, anyio.Lock] = {}
        self._held: dict[tuple[Address, int], float] = {}

    async def send(self, effect: str, call: Call[Any], key: PrivateKey) -> MinedTransaction:
        """The receipt of `call`, mined once under this effect id and key, at depth. See `Chain.send`.

        `call.to` empty makes a contract.
        """
        async with self._locks.setdefault(key.address, anyio.Lock()):
            known = self._known(effect, call, key.address)
            entry = known or await self._submit(effect, call, key)
        mined = await self._outcome(entry, key, fresh=known is None)
        if not mined.ok:
            raise await self._why(entry, mined)
        return mined

    def _known(self, effect: str, call: Call[Any], sender: Address) -> Entry | None:
        entry = self._store.find(sender, effect)
        if entry and (entry.name, entry.target) != (call.name, call.to):
            raise Conflict(
                f"effect {effect!r} was used for {entry.name}, not for {call.name}",
                "use another effect id",
                effect=effect,
            )
        return entry

    async def _submit(self, effect: str, call: Call[Any], key: PrivateKey) -> Entry:
        while True:
            if self._store.next_nonce(key.address):
                await self._resend(key.address)  # what is missing from the mempool would be missing in the estimate
            tx = await self._plan(call, key.address)
            reach("chain.send.planned")
            raw, _ = sign_transaction(tx, key)
            entry = Entry(key.address, effect, tx.nonce, call.name, call.to, (raw,))
            if self._store.add(entry):
                break
            taken = self._known(effect, call, key.address)  # another process was faster with this key
            if taken:
                return taken
        reach("chain.send.journaled")
        await self._broadcast(raw)
        reach("chain.send.broadcast")
        return entry

    async def _plan(self, call: Call[Any], sender: Address) -> Transaction:
        request = _request(sender, call.to, call.value, call.data)
        try:
            count, gas, balance, *fees = await self._rpc.batch(
                [
                    ("eth_getTransactionCount", (sender, "pending")),
                    ("eth_estimateGas", (request, "pending")),
                    ("eth_getBalance", (sender, "pending")),
                    *_FEE_REQUESTS,
                ]
            )
        except Reverted as error:
            raise translate(error) from None
        except RpcError as error:
            if "insufficientfunds" in _squeezed(error.fact) or "outoffunds" in _squeezed(error.fact):
                raise InsufficientFunds(f"{sender} cannot pay for {call.name}", "send it native coin") from error
            raise
        priority_fee, max_fee = self._fees.of(*fees)
        gas_limit = quantity(gas) * (100 + self._fees.gas_margin) // 100
        if quantity(balance) < call.value + gas_limit * max_fee:
            raise InsufficientFunds(
                f"{sender} holds {quantity(balance)} wei; {call.name} may need {call.value + gas_limit * max_fee}",
                "send it native coin",
            )
        nonce = max(quantity(count), self._store.next_nonce(sender))
        to = call.to or None
        return Transaction(self._rpc.chain_id, nonce, priority_fee, max_fee, gas_limit, to, call.value, call.data)

    async def fee_now(self) -> int:
        """Wei per gas that a transaction would offer now at most."""
        return self._fees.of(*await self._rpc.batch(_FEE_REQUESTS))[1]

    async def _broadcast(self, raw: bytes) -> None:
        try:
            await self._rpc.spread("eth_sendRawTransaction", to_hex(raw))
        except RpcError as error:
            if not any(text in _squeezed(error.fact) for text in _HARMLESS):
                raise TransactionFailed(
                    f"nodes refuse the transaction: {error.fact}", "try again with the same id"
                ) from error

    async def _resend(self, sender: Address) -> int:
        """Broadcast what the journal holds of `sender` and the node's mempool does not; returns how many."""
        count = quantity(await self._rpc.request("eth_getTransactionCount", sender, "pending"))
        sent = 0
        for entry in self._store.from_nonce(sender, count):
            tx = parse_transaction(entry.raws[-1])
            if not await self._would_succeed(sender, entry, tx):
                break
            try:
                await self._broadcast(entry.raws[-1])
            except TransactionFailed:  # its funds, say, come from a transaction that was dropped too: next time
                break
            reach("chain.resend.broadcast")
            sent += 1
        return sent

    async def _would_succeed(self, sender: Address, entry: Entry, tx: Transaction) -> bool:
        try:
            await self._rpc.request("eth_call", _request(sender, tx.to, tx.value, tx.data), "pending")
        except (Reverted, RpcError):
            now = self._clock.monotonic()
            return now - self._held.setdefault((sender, entry.nonce), now) >= self._fees.stuck_seconds
        self._held.pop((sender, entry.nonce), None)
        return True

    async def settle(self) -> int:
        """Broadcast again whatever a reorg or a killed node dropped; returns how many transactions."""
        head = await self._rpc.head()
        return sum([await self._resend(sender) for sender in self._store.active(head.number - SETTLE_BLOCKS)])

    async def _outcome(self, entry: Entry, key: PrivateKey, fresh: bool) -> MinedTransaction:
        """Wait for the receipt of one of the entry's versions at depth; a `fresh` one was broadcast just now."""
        pause, started = POLL_SECONDS[0], self._clock.monotonic()
        good = bumped = started
        sent = started if fresh else float("-inf")
        foreign = 0
        while True:
            now = self._clock.monotonic()
            try:
                standing, mined = await self._look(entry)
                good = now
                if mined:
                    reach("chain.send.noted")
                    return mined
                foreign = foreign + 1 if standing == "foreign" else 0
                if standing == "absent" and now - bumped >= self._fees.stuck_seconds:
                    entry, bumped = await self._bump(entry, key), now
                elif standing == "absent" and now - sent >= REBROADCAST_SECONDS:
                    await self._resend(entry.sender)
                    sent = now
            except (RpcUnavailable, BadAnswer):
                if now - good >= self._fees.patience_seconds:
                    raise
            if foreign >= FOREIGN_LOOKS:
                raise TransactionFailed(
                    f"nonce {entry.nonce} of {entry.sender} was used by another program", "use a key in one place only"
                )
            await self._clock.sleep(pause)
            pause = min(POLL_SECONDS[1], pause * 1.5)

    async def _look(self, entry: Entry) -> tuple[Standing, MinedTransaction | None]:
        """Where the entry stands; with its receipt, noted, when that is at depth."""
        hashes = entry.hashes
        requests: list[tuple[str, tuple[Any, ...]]] = [("eth_getTransactionReceipt", (name,)) for name in hashes]
        requests += [("eth_getTransactionCount", (entry.sender, "latest")), ("eth_blockNumber", ())]
        *receipts, count, head = await self._rpc.batch(requests)
        for answer in receipts:
            if answer is None:
                continue
            mined = parse_receipt(answer)
            if mined.transaction not in hashes:
                raise BadAnswer("a node returned the receipt of another transaction", "ask another node")
            reach("chain.send.mined")
            deep = quantity(head) - mined.block >= self._confirmations
            if deep and (not self._confirmations or await self._rpc.agrees(mined.block, mined.block_hash)):
                self._store.set_receipt(entry, json.dumps(answer), mined.block)
                return "deep", mined
            return "shallow", None
        if quantity(count) <= entry.nonce:
            return "absent", None
        noted = self._store.find(entry.sender, entry.effect)
        if noted and noted.receipt:  # nodes forget old receipts; we do not
            return "deep", parse_receipt(json.loads(noted.receipt))
        return "foreign", None

    async def _bump(self, entry: Entry, key: PrivateKey) -> Entry:
        """The same transaction with higher fees, journaled and broadcast; unchanged when the cap forbids it."""
        old = parse_transaction(entry.raws[-1])
        factor = 100 + self._fees.bump
        try:
            priority_fee, max_fee = self._fees.of(*await self._rpc.batch(_FEE_REQUESTS))
        except FeeTooHigh:
            priority_fee, max_fee = 0, self._fees.max_fee_cap
        priority_fee = max(priority_fee, -(-old.priority_fee * factor // 100))
        max_fee = max(max_fee, -(-old.max_fee * factor // 100), priority_fee)
        if max_fee > self._fees.max_fee_cap:
            await self._resend(entry.sender)
            return entry
        raw, _ = sign_transaction(replace(old, priority_fee=priority_fee, max_fee=max_fee), key)
        entry = self._store.add_version(entry, raw)
        reach("chain.bump.journaled")
        try:
            await self._broadcast(raw)
        except TransactionFailed:  # too dear for the sender, say: the older version still stands
            pass
        return entry

    async def _why(self, entry: Entry, mined: MinedTransaction) -> Exception:
        """The error of a mined transaction that failed, found by running it again on its parent block."""
        tx = parse_transaction(entry.raws[-1])
        request = _request(entry.sender, tx.to, tx.value, tx.data)
        for block in (mined.block - 1, mined.block):
            try:
                await self._rpc.request("eth_call", request, hex(block))
            except Reverted as error:
                return translate(error)
            except RpcUnavailable:
                break
        return TransactionFailed(
            f"{entry.name} was mined in block {mined.block} and failed",
            "look the transaction up",
            transaction=mined.transaction,
        )


_FEE_REQUESTS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("eth_getBlockByNumber", ("latest", False)),
    ("eth_maxPriorityFeePerGas", ()),
)


def _request(sender: Address, to: str | None, value: int, data: bytes) -> dict[str, str]:
    request = {"from": sender, "value": hex(value), "data": to_hex(data)}
    return request | {"to": to} if to else request


def _squeezed(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalpha())
