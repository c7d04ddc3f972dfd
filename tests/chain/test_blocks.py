"""What a node says is parsed whole or refused."""

from __future__ import annotations

from typing import Any

import pytest

from minga.chain.blocks import blob, parse_header, parse_log, parse_logs, parse_receipt, quantity
from minga.core.errors import BadAnswer

HASH = "0x" + "ab" * 32
OTHER = "0x" + "cd" * 32
HEADER = {"number": "0x10", "hash": HASH, "parentHash": OTHER, "timestamp": "0x65"}
LOG = {
    "blockNumber": "0x10",
    "blockHash": HASH,
    "transactionHash": OTHER,
    "logIndex": "0x2",
    "address": "0x" + "AA" * 20,
    "topics": [OTHER],
    "data": "0x0102",
}
RECEIPT = {
    "transactionHash": OTHER,
    "blockNumber": "0x10",
    "blockHash": HASH,
    "status": "0x1",
    "gasUsed": "0x5208",
    "effectiveGasPrice": "0x2",
    "logs": [LOG],
}


def test_well_formed_answers() -> None:
    header = parse_header(HEADER)
    assert (header.number, header.hash, header.parent, header.time) == (16, HASH, OTHER, 101)
    log = parse_log(LOG)
    assert (log.address, log.index, log.data) == ("0x" + "aa" * 20, 2, b"\1\2")
    receipt = parse_receipt(RECEIPT | {"l1Fee": "0x5", "contractAddress": None})
    assert (receipt.ok, receipt.gas_used, receipt.fee_wei, receipt.contract) == (True, 21000, 42005, None)
    first = LOG | {"logIndex": "0x0"}
    assert [found.index for found in parse_logs([LOG, first])] == [0, 2]


@pytest.mark.parametrize("value", [None, 5, "5", "0x", "0xzz", "0x" + "1" * 65, "-0x1", ["0x1"]])
def test_bad_quantities(value: Any) -> None:
    with pytest.raises(BadAnswer):
        quantity(value)


@pytest.mark.parametrize("value", [None, 5, "12", "0x1", "0xzz"])
def test_bad_bytes(value: Any) -> None:
    with pytest.raises(BadAnswer):
        blob(value)


@pytest.mark.parametrize("change", [{"hash": "0x12"}, {"number": None}, {"timestamp": "x"}, {"parentHash": 3}])
def test_bad_headers(change: dict[str, Any]) -> None:
    for value in (HEADER | change, None, [], "header"):
        with pytest.raises(BadAnswer):
            parse_header(value)


@pytest.mark.parametrize(
    "change", [{"removed": True}, {"topics": None}, {"address": "0x1"}, {"data": None}, {"blockHash": None}]
)
def test_bad_logs(change: dict[str, Any]) -> None:
    for value in (LOG | change, None, "log"):
        with pytest.raises(BadAnswer):
            parse_log(value)
    with pytest.raises(BadAnswer):
        parse_logs({"logs": []})


@pytest.mark.parametrize(
    "change",
    [
        {"status": None},
        {"logs": [LOG | {"transactionHash": HASH}]},
        {"logs": None},
        {"blockHash": OTHER},
        {"gasUsed": 5},
    ],
)
def test_bad_receipts(change: dict[str, Any]) -> None:
    for value in (RECEIPT | change, None, "receipt"):
        with pytest.raises(BadAnswer):
            parse_receipt(value)
