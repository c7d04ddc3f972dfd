"""The ABI codec equals eth_abi on random values of every type, and refuses what is malformed."""

from __future__ import annotations

from typing import Any

import eth_abi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.chain.abi import decode, encode, load_interface, parse_type, read_interface
from minga.core.crypto import keccak, to_hex
from minga.core.errors import BadAnswer, InternalError, InvalidInput

ADDRESSES = st.binary(min_size=20, max_size=20).map(to_hex)


def typed(depth: int = 2) -> st.SearchStrategy[tuple[str, Any]]:
    """A type and a value of it; values compare equal to what `decode` returns."""
    bits = st.integers(1, 32).map(lambda n: 8 * n)
    plain = st.one_of(
        bits.flatmap(lambda n: st.tuples(st.just(f"uint{n}"), st.integers(0, 2**n - 1))),
        bits.flatmap(lambda n: st.tuples(st.just(f"int{n}"), st.integers(-(2 ** (n - 1)), 2 ** (n - 1) - 1))),
        st.tuples(st.just("address"), ADDRESSES),
        st.tuples(st.just("bool"), st.booleans()),
        st.tuples(st.just("bytes"), st.binary(max_size=70)),
        st.tuples(st.just("string"), st.text(max_size=20)),
        st.integers(1, 31).flatmap(lambda n: st.tuples(st.just(f"bytes{n}"), st.binary(min_size=n, max_size=n))),
        st.tuples(st.just("bytes32"), st.binary(min_size=32, max_size=32).map(to_hex)),
    )
    if depth == 0:
        return plain
    inner = typed(depth - 1)
    members = st.lists(inner, min_size=1, max_size=4)
    tuples = members.map(lambda found: (f"({','.join(t for t, _ in found)})", tuple(v for _, v in found)))
    repeated = st.tuples(inner, st.integers(0, 3), st.booleans())
    arrays = repeated.map(lambda found: (f"{found[0][0]}[{found[1] or 1 if found[2] else ''}]", found))
    return st.one_of(plain, tuples, arrays.map(lambda pair: (pair[0], _array(pair[1]))))


def _array(found: tuple[tuple[str, Any], int, bool]) -> tuple[Any, ...]:
    (_, value), count, fixed = found
    return (value,) * (count or 1 if fixed else count)


def for_reference(kind: str, value: Any) -> Any:
    """The value as eth_abi wants it."""
    if isinstance(value, tuple):
        return tuple(for_reference(kind, item) for item in value)
    return bytes.fromhex(value[2:]) if isinstance(value, str) and value[:2] == "0x" and len(value) == 66 else value


@settings(max_examples=300, deadline=None)
@given(st.lists(typed(), max_size=5))
def test_equals_the_reference_codec(found: list[tuple[str, Any]]) -> None:
    kinds, values = [kind for kind, _ in found], tuple(value for _, value in found)
    ours = encode(f"({','.join(kinds)})", values)
    assert ours == eth_abi.encode(kinds, [for_reference(kind, value) for kind, value in found])
    assert decode(f"({','.join(kinds)})", ours) == values


@settings(max_examples=300, deadline=None)
@given(typed(), st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_are_refused(found: tuple[str, Any], data: bytes) -> None:
    try:
        values = decode(f"({found[0]})", data)
    except BadAnswer:
        return
    assert encode(f"({found[0]})", values)  # whatever decodes fits its type


@pytest.mark.parametrize(
    ("types", "data"),
    [
        ("(uint8)", (256).to_bytes(32, "big")),
        ("(bool)", (2).to_bytes(32, "big")),
        ("(address)", b"\1" + bytes(31)),
        ("(bytes4)", b"abcd" + bytes(27) + b"\1"),
        ("(int8)", (128).to_bytes(32, "big")),
        ("(uint256,uint256)", bytes(63)),
        ("(bytes)", (32).to_bytes(32, "big") + (5).to_bytes(32, "big") + b"abc"),
        ("(bytes)", (1 << 40).to_bytes(32, "big")),
        ("(uint256[])", (32).to_bytes(32, "big") + (1 << 23).to_bytes(32, "big")),
    ],
)
def test_dirty_or_short_data_is_refused(types: str, data: bytes) -> None:
    with pytest.raises(BadAnswer):
        decode(types, data)


@pytest.mark.parametrize(
    ("types", "values"),
    [
        ("(uint8)", (256,)),
        ("(uint8)", (-1,)),
        ("(uint8)", (True,)),
        ("(uint8)", (1.0,)),
        ("(address)", ("0x12",)),
        ("(address)", ("nothing",)),
        ("(bool)", (1,)),
        ("(bytes4)", (b"abc",)),
        ("(uint256,uint256)", (1,)),
        ("(uint256[2])", ((1,),)),
    ],
)
def test_values_that_do_not_fit_are_refused(types: str, values: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInput):
        encode(types, values)


@pytest.mark.parametrize("text", ["uint7", "uint", "bytes33", "bytes0", "int264", "float", "", "(uint256,)"])
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(InternalError):
        parse_type(text)


def test_selectors_and_topics_of_the_shipped_artifacts() -> None:
    token = load_interface("Token")
    assert token.encode("transfer", "0x" + "11" * 20, 5)[:4].hex() == "a9059cbb"
    assert token.encode("balanceOf", "0x" + "11" * 20)[:4].hex() == "70a08231"
    transfer = next(event for event in token.events.values() if event.name == "Transfer")
    assert transfer.topic == to_hex(keccak(b"Transfer(address,address,uint256)"))
    with pytest.raises(InternalError):
        token.encode("transfer", 1)
    with pytest.raises(InternalError, match=r"Nothing\.json"):
        load_interface("Nothing")


def test_events_check_their_topics() -> None:
    entry = {
        "type": "event",
        "name": "E",
        "inputs": [
            {"name": "a", "type": "uint256", "indexed": True},
            {"name": "t", "type": "string", "indexed": True},
            {"name": "p", "type": "tuple", "indexed": False, "components": [{"type": "bool"}, {"type": "bytes"}]},
        ],
    }
    (event,) = read_interface([entry]).events.values()
    assert event.topic == to_hex(keccak(b"E(uint256,string,(bool,bytes))"))
    text = to_hex(keccak(b"text"))
    data = encode("((bool,bytes))", ((True, b"x"),))
    one = to_hex((1).to_bytes(32, "big"))
    assert event.decode([event.topic, one, text], data) == {"a": 1, "t": text, "p": (True, b"x")}
    for topics in ([event.topic, one], [text, one, text]):
        with pytest.raises(BadAnswer):
            event.decode(topics, data)
