"""A signed EIP-1559 transaction as bytes, and the address that a creation gets.

Knows RLP and type-2 transactions without an access list; does not know nonces, fees or nodes. Pure. Checked against
eth_account in the tests; not imported from it because that import alone takes 0.6 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minga.core.crypto import Address, Hash32, PrivateKey, from_hex, keccak, to_hex

Item = bytes | Sequence["Item"]


@dataclass(frozen=True, slots=True)
class Transaction:
    """A type-2 transaction before its signature; fees in wei per gas, `to` empty for a creation."""

    chain_id: int
    nonce: int
    priority_fee: int
    max_fee: int
    gas: int
    to: Address | None
    value: int
    data: bytes


def rlp(item: Item) -> bytes:
    """The RLP encoding of bytes or of a (nested) sequence of bytes."""
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _prefix(len(item), 0x80) + item
    body = b"".join(rlp(part) for part in item)
    return _prefix(len(body), 0xC0) + body


def _prefix(length: int, base: int) -> bytes:
    if length < 56:
        return bytes((base + length,))
    digits = _integer(length)
    return bytes((base + 55 + len(digits),)) + digits


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def sign_transaction(tx: Transaction, key: PrivateKey) -> tuple[bytes, Hash32]:
    """The raw transaction signed by `key`, and its hash. The same input gives the same bytes (RFC 6979)."""
    numbers = (tx.chain_id, tx.nonce, tx.priority_fee, tx.max_fee, tx.gas)
    fields: list[Item] = [_integer(number) for number in numbers]
    fields += [from_hex(tx.to) if tx.to else b"", _integer(tx.value), tx.data, ()]
    signature = key.sign(keccak(b"\x02" + rlp(fields)))
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    raw = b"\x02" + rlp([*fields, _integer(signature[64] - 27), _integer(r), _integer(s)])
    return raw, transaction_hash(raw)


def parse_transaction(raw: bytes) -> Transaction:
    """The transaction that `sign_transaction` made `raw` of (our own bytes: not for input from strangers)."""
    fields: list[bytes] = []
    at = 1 + _span(raw, 1)[0]
    while len(fields) < 8:
        skip, size = _span(raw, at)
        fields.append(raw[at + skip : at + skip + size])
        at += skip + size
    chain_id, nonce, priority_fee, max_fee, gas, value = (
        int.from_bytes(fields[place], "big") for place in (0, 1, 2, 3, 4, 6)
    )
    to = Address(to_hex(fields[5])) if fields[5] else None
    return Transaction(chain_id, nonce, priority_fee, max_fee, gas, to, value, fields[7])


def _span(raw: bytes, at: int) -> tuple[int, int]:
    """Bytes of the RLP prefix at `at`, and of the content behind it."""
    first = raw[at]
    if first < 0x80:
        return 0, 1
    base = 0x80 if first < 0xC0 else 0xC0
    if first < base + 56:
        return 1, first - base
    digits = first - base - 55
    return 1 + digits, int.from_bytes(raw[at + 1 : at + 1 + digits], "big")


def transaction_hash(raw: bytes) -> Hash32:
    """The hash by which nodes know a raw transaction."""
    return Hash32(to_hex(keccak(raw)))


def creation_address(sender: Address, nonce: int) -> Address:
    """The address of the contract that `sender` creates with `nonce`."""
    return Address(to_hex(keccak(rlp([from_hex(sender), _integer(nonce)]))[12:]))
