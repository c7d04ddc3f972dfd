"""What a signature is bound to: the domain's own separator, and fields that name one value in one way."""

from __future__ import annotations

import dataclasses

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from minga.core.crypto import keccak, to_hex
from minga.core.eip712 import Domain, Struct
from minga.core.errors import InvalidInput

MARKET = "0x" + "12" * 20
DOMAIN = Domain(31_337, MARKET)


@dataclasses.dataclass(frozen=True)
class Parcel(Struct):
    """A structure with each kind of field."""

    owner: str
    id: str
    count: int
    note: str
    TYPE = "Parcel(address owner,bytes32 id,uint8 count,string note)"


GOOD = Parcel(MARKET, "0x" + "34" * 32, 7, "a note")


@given(st.integers(0, 2**256 - 1), st.binary(min_size=20, max_size=20))
def test_a_separator_is_the_hash_that_the_standard_gives(chain_id: int, market: bytes) -> None:
    kind = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    types = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    expected = keccak(encode(types, [kind, keccak(b"Minga"), keccak(b"1"), chain_id, market]))
    assert Domain(chain_id, to_hex(market)).separator == expected


@given(st.integers(0, 2**64), st.integers(0, 2**64))
def test_two_chains_have_two_separators(one: int, other: int) -> None:
    assert (Domain(one, MARKET).separator == Domain(other, MARKET).separator) == (one == other)


@pytest.mark.parametrize("chain_id", [-1, 2**256])
def test_a_chain_id_that_is_none_is_refused(chain_id: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        Domain(chain_id, MARKET)
    assert caught.value.remedy


NO_ADDRESS = ["", "0x", "12" * 20, "12" * 21, "0x" + "zz" * 20, "0x" + "12" * 19, "0x" + "1 " * 20, "0X" + "12" * 20]


@pytest.mark.parametrize("market", NO_ADDRESS)
def test_a_market_that_is_no_address_is_refused(market: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Domain(1, market)
    assert "40 hexadecimal" in caught.value.remedy


@pytest.mark.parametrize("owner", NO_ADDRESS)
def test_an_address_field_that_is_none_is_refused(owner: str) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(GOOD, owner=owner).digest(DOMAIN)


@pytest.mark.parametrize(
    "value", ["", "0x", "0x" + "zz" * 32, "zz" + "34" * 32, "34" * 33, "0x" + "34 " * 32, "0x" + "34" * 33]
)
def test_a_hash_field_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        dataclasses.replace(GOOD, id=value).digest(DOMAIN)
    assert "64 hexadecimal" in caught.value.remedy


@pytest.mark.parametrize("count", [-1, 256, 2**256])
def test_a_number_that_its_field_does_not_hold_is_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="uint8"):
        dataclasses.replace(GOOD, count=count).struct_hash()


@given(st.text(max_size=20), st.integers(0, 255))
def test_a_structure_is_hashed_as_the_standard_says(note: str, count: int) -> None:
    made = dataclasses.replace(GOOD, note=note, count=count)
    fields = ["bytes32", "address", "bytes32", "uint256", "bytes32"]
    kind, id_ = keccak(Parcel.TYPE.encode()), bytes.fromhex("34" * 32)
    assert made.struct_hash() == keccak(encode(fields, [kind, MARKET, id_, count, keccak(note.encode())]))
    assert made.digest(DOMAIN) == keccak(b"\x19\x01" + DOMAIN.separator + made.struct_hash())


def test_the_case_of_digits_does_not_matter() -> None:
    upper = Parcel("0x" + "AB" * 20, "0x" + "CD" * 32, 7, "a note")
    lower = Parcel("0x" + "ab" * 20, "0x" + "cd" * 32, 7, "a note")
    assert upper.digest(DOMAIN) == lower.digest(DOMAIN)
