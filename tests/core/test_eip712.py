"""Typed data, against eth-account's encoder, for every message that we sign."""

from __future__ import annotations

import dataclasses

import pytest
from eth_account.messages import encode_typed_data

from minga.core.crypto import keccak, new_key
from minga.core.eip712 import Domain, Struct
from minga.core.errors import InvalidInput, InvalidSignature
from minga.protocol import messages
from minga.protocol.messages import Voucher, sign, verify

DOMAIN = Domain(31_337, "0x" + "12" * 20)
KEY = new_key(b"\x01" * 32)


def example(kind):
    """A message of this type with a distinct value in each field."""
    values = {}
    _, _, inner = kind.TYPE.partition("(")
    for number, item in enumerate(inner.rstrip(")").split(","), start=1):
        type_name, name = item.split(" ")
        byte = f"{number:02x}"
        values[name] = {
            "address": "0x" + byte * 20,
            "bytes32": "0x" + byte * 32,
            "string": f"text {number}",
        }.get(type_name, number)
    return kind(**values)


KINDS = [
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, Struct) and value is not Struct
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_digests_are_those_of_eth_account(kind):
    message = example(kind)
    inner = kind.TYPE.partition("(")[2].rstrip(")").split(",")
    full = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            kind.__name__: [dict(zip(("type", "name"), item.split(" "), strict=True)) for item in inner],
        },
        "primaryType": kind.__name__,
        "domain": {"name": "Minga", "version": "1", "chainId": DOMAIN.chain_id, "verifyingContract": DOMAIN.market},
        "message": dataclasses.asdict(message),
    }
    signable = encode_typed_data(full_message=full)
    assert message.digest(DOMAIN) == keccak(b"\x19" + signable.version + signable.header + signable.body)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_bound(kind):
    message = example(kind)
    seen = {message.digest(DOMAIN)}
    for field in dataclasses.fields(kind):
        value = getattr(message, field.name)
        other = value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")
        seen.add(dataclasses.replace(message, **{field.name: other}).digest(DOMAIN))
    assert len(seen) == 1 + len(dataclasses.fields(kind))


@pytest.mark.parametrize("other", [Domain(1, DOMAIN.market), Domain(31_337, "0x" + "13" * 20)])
def test_a_signature_counts_in_its_domain_only(other):
    voucher = example(Voucher)
    signature = sign(voucher, DOMAIN, KEY)
    verify(voucher, DOMAIN, signature, KEY.address)
    with pytest.raises(InvalidSignature):
        verify(voucher, other, signature, KEY.address)


def test_a_type_is_bound():
    """A release with the fields of a voucher is another message."""
    voucher = messages.Voucher("0x" + "01" * 32, 5)
    release = messages.Release("0x" + "01" * 32, 5)
    assert voucher.digest(DOMAIN) != release.digest(DOMAIN)


@pytest.mark.parametrize("value", [-1, 2**128])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(InvalidInput):
        Voucher("0x" + "01" * 32, value).digest(DOMAIN)


def test_a_type_string_must_list_its_fields():
    @dataclasses.dataclass(frozen=True)
    class Wrong(Struct):
        a: int
        TYPE = "Wrong(uint8 b)"

    with pytest.raises(TypeError):
        Wrong(1).struct_hash()


def test_ids_are_abi_encoded_hashes():
    from eth_abi import encode

    tenant, job = "0x" + "aa" * 20, "0x" + "bb" * 32
    expected = keccak(encode(["address", "bytes32", "uint32"], [tenant, bytes.fromhex("bb" * 32), 7]))
    assert messages.lease_id(tenant, job, 7) == "0x" + expected.hex()
    channel = keccak(encode(["bytes32", "bytes32", "address"], [expected, bytes(32), tenant]))
    assert messages.channel_id("0x" + expected.hex(), "0x" + "00" * 32, tenant) == "0x" + channel.hex()
