"""Signed transactions equal eth_account's, byte for byte."""

from __future__ import annotations

import rlp
from eth_account import Account
from eth_utils import keccak as reference_keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.chain.transactions import (
    Transaction,
    creation_address,
    parse_transaction,
    sign_transaction,
    transaction_hash,
)
from minga.chain.transactions import rlp as encode_rlp
from minga.core.crypto import Address, PrivateKey, new_key, to_hex

KEYS = st.binary(min_size=32, max_size=32).map(new_key)
TRANSACTIONS = st.builds(
    Transaction,
    chain_id=st.integers(1, 2**53 - 1),
    nonce=st.integers(0, 2**63),
    priority_fee=st.integers(0, 2**64),
    max_fee=st.integers(2**64, 2**128),
    gas=st.integers(0, 2**63),
    to=st.none() | st.binary(min_size=20, max_size=20).map(lambda raw: Address(to_hex(raw))),
    value=st.integers(0, 2**128),
    data=st.binary(max_size=300),
)
ITEMS = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=6), max_leaves=20)


@settings(max_examples=200, deadline=None)
@given(TRANSACTIONS, KEYS)
def test_equals_the_reference_signer(tx: Transaction, key: PrivateKey) -> None:
    fields = {
        "type": 2,
        "chainId": tx.chain_id,
        "nonce": tx.nonce,
        "maxPriorityFeePerGas": tx.priority_fee,
        "maxFeePerGas": tx.max_fee,
        "gas": tx.gas,
        "to": bytes.fromhex(tx.to[2:]) if tx.to else b"",
        "value": tx.value,
        "data": tx.data,
    }
    expected = Account.from_key(key.secret()).sign_transaction(fields)
    raw, name = sign_transaction(tx, key)
    assert raw == bytes(expected.raw_transaction)
    assert name == to_hex(bytes(expected.hash)) == transaction_hash(raw)
    assert parse_transaction(raw) == tx
    assert Account.recover_transaction(raw).lower() == key.address


@settings(max_examples=200, deadline=None)
@given(ITEMS)
def test_rlp_equals_the_reference(item: object) -> None:
    assert encode_rlp(item) == rlp.encode(item)  # type: ignore[arg-type]


@given(KEYS, st.integers(0, 2**40))
def test_creation_addresses_are_ethereums(key: PrivateKey, nonce: int) -> None:
    sender = bytes.fromhex(key.address[2:])
    assert creation_address(key.address, nonce) == to_hex(reference_keccak(rlp.encode([sender, nonce]))[12:])
