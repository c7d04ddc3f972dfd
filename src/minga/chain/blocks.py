"""What a node says about blocks, checked before anything believes it: headers, logs, receipts.

Knows the JSON forms of Ethereum's RPC; does not know who asks. Pure. Rule: every field is parsed and bounded; a wrong
form is `BadAnswer`, never a KeyError far away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from minga.core.crypto import Address, Hash32, parse_address, parse_hash32
from minga.core.errors import BadAnswer, InvalidInput

REMEDY = "ask another node"
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
"""Stricter than `int(…, 16)`, which takes signs, blanks and underscores."""


@dataclass(frozen=True, slots=True)
class Header:
    """A block: number, hash, its parent's hash, and its time (Unix seconds)."""

    number: int
    hash: Hash32
    parent: Hash32
    time: int


@dataclass(frozen=True, slots=True)
class Log:
    """One log of a mined transaction; `index` is its place in the block."""

    block: int
    block_hash: Hash32
    transaction: Hash32
    index: int
    address: Address
    topics: tuple[Hash32, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A node's receipt: where the transaction stands and how it ended; `fee_wei` is all that it cost."""

    transaction: Hash32
    block: int
    block_hash: Hash32
    ok: bool
    gas_used: int
    fee_wei: int
    contract: Address | None
    logs: tuple[Log, ...]


def quantity(value: Any) -> int:
    """An integer from `0x…`.

    Raises:
        BadAnswer: not a hexadecimal quantity of at most 256 bits.
    """
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise BadAnswer(f"{str(value)[:60]!r} is not a quantity", REMEDY)


def blob(value: Any) -> bytes:
    """Bytes from `0x…`.

    Raises:
        BadAnswer: not hexadecimal.
    """
    if isinstance(value, str) and value[:2] == "0x":
        try:
            found = bytes.fromhex(value[2:])
        except ValueError:
            found = b""
        if 2 * len(found) == len(value) - 2:  # blanks between digits are passed over by Python
            return found
    raise BadAnswer(f"{str(value)[:60]!r} is not bytes", REMEDY)


def parse_header(value: Any) -> Header:
    """A header from `eth_getBlockByNumber`.

    Raises:
        BadAnswer: a field is missing or malformed.
    """
    try:
        number, time = quantity(value["number"]), quantity(value["timestamp"])
        return Header(number, parse_hash32(value["hash"]), parse_hash32(value["parentHash"]), time)
    except (KeyError, TypeError, InvalidInput) as error:
        raise BadAnswer("a block header is malformed", REMEDY) from error


def parse_log(value: Any) -> Log:
    """A log from `eth_getLogs` or a receipt. Errors as `parse_header`."""
    try:
        if value.get("removed"):
            raise BadAnswer("a node returned a log of a dropped block", REMEDY)
        return Log(
            block=quantity(value["blockNumber"]),
            block_hash=parse_hash32(value["blockHash"]),
            transaction=parse_hash32(value["transactionHash"]),
            index=quantity(value["logIndex"]),
            address=parse_address(value["address"]),
            topics=tuple(parse_hash32(topic) for topic in value["topics"]),
            data=blob(value["data"]),
        )
    except (KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise BadAnswer("a log is malformed", REMEDY) from error


def parse_logs(value: Any) -> tuple[Log, ...]:
    """Logs in block order. Errors as `parse_header`."""
    if not isinstance(value, list):
        raise BadAnswer("logs are not a list", REMEDY)
    return tuple(sorted((parse_log(item) for item in value), key=lambda log: (log.block, log.index)))


def parse_receipt(value: Any) -> MinedTransaction:
    """A receipt from `eth_getTransactionReceipt`. Errors as `parse_header`."""
    try:
        gas_used = quantity(value["gasUsed"])
        fee = gas_used * quantity(value["effectiveGasPrice"])
        # rollups charge the parent chain's data beside gas; it is part of what the sender paid
        fee += quantity(value["l1Fee"]) if value.get("l1Fee") else 0
        mined = MinedTransaction(
            transaction=parse_hash32(value["transactionHash"]),
            block=quantity(value["blockNumber"]),
            block_hash=parse_hash32(value["blockHash"]),
            ok=quantity(value["status"]) == 1,
            gas_used=gas_used,
            fee_wei=fee,
            contract=parse_address(value["contractAddress"]) if value.get("contractAddress") else None,
            logs=parse_logs(value["logs"]),
        )
    except (KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise BadAnswer("a receipt is malformed", REMEDY) from error
    if any((log.transaction, log.block_hash) != (mined.transaction, mined.block_hash) for log in mined.logs):
        raise BadAnswer("a receipt holds logs of another transaction", REMEDY)
    return mined
