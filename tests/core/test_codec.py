"""One value, one text; hostile JSON is refused."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.codec import SAFE_INTEGER, canonical_json, check_nesting, parse_json
from minga.core.errors import InvalidInput, TooLarge

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-SAFE_INTEGER, SAFE_INTEGER) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))


@given(values)
def test_canonical_json_round_trips_and_is_stable(value):
    encoded = canonical_json(value)
    assert parse_json(encoded) == value
    assert canonical_json(parse_json(encoded)) == encoded


def test_key_order_does_not_matter():
    assert canonical_json({"b": 1, "a": [2]}) == canonical_json({"a": [2], "b": 1}) == b'{"a":[2],"b":1}'


@pytest.mark.parametrize("value", [1.5, {1: 2}, 2**53, -(2**53), object(), b"x", "\ud800", {"a": {1}}])
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(InvalidInput):
        canonical_json(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b"1.0",
        b"1e3",
        b"NaN",
        b"Infinity",
        b"\xff",
        b"9007199254740992",
        b"[" * 5000,
        b'"\\ud800"x',
    ],
)
def test_hostile_json_is_refused(data):
    with pytest.raises(InvalidInput):
        parse_json(data)


def test_depth_and_size_are_bounded():
    with pytest.raises(InvalidInput):
        parse_json(b"[" * 40 + b"]" * 40)
    with pytest.raises(TooLarge):
        parse_json(b'"' + b"a" * 100 + b'"', limit=50)


@pytest.fixture
def raised_limit():
    """Python's recursion limit as some libraries set it: with it, JSON nested so deep would end the process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"\\"]":', '["\\\\",'])
def test_deep_nesting_never_reaches_the_parser(opening: str, raised_limit: None) -> None:
    for text in (opening * 200_000, (opening * 200_000).encode(), '"' + opening, opening * 34):
        with pytest.raises(InvalidInput):
            parse_json(text, 1 << 23)
    with pytest.raises(InvalidInput):
        parse_json((opening * 100_000).encode("utf-16"), 1 << 23)


nested = st.recursive(
    st.text(alphabet='[]{}"\\a', max_size=4), lambda inner: st.lists(inner) | st.dictionaries(st.text('[{"\\'), inner)
)


def depth_of(value: object) -> int:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max((depth_of(item) for item in items), default=0)


@given(nested)
def test_nesting_is_counted_outside_of_texts(value: object) -> None:
    text, depth = json.dumps(value), depth_of(value)
    check_nesting(text, depth)
    if depth:
        with pytest.raises(InvalidInput):
            check_nesting(text, depth - 1)


@pytest.mark.parametrize("text", ['"' + '\\"' * 500_000, '"\\' * 500_000, '"' * 1_000_001, "[" * 40 + '"\\'])
def test_texts_without_an_end_are_counted_in_no_time(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_json("[" * 40 + text, 1 << 23)
