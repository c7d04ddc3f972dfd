"""Errors on the wire: every class there and back, and whatever else a peer may send."""

from __future__ import annotations

import json
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minga.chain.errors
from minga.core.errors import InternalError, MingaError, NetworkError, NotFound, ProviderRefused
from minga.transport.errors import _classes, error_body, error_of, network_error, raise_for


def test_every_class_comes_back_as_itself():
    classes = _classes()
    assert len(classes) > 60
    for code, kind in classes.items():
        if kind.__init__ is not MingaError.__init__:
            continue
        status, body = error_body(kind("a fact", "a remedy", offset=3))
        found = error_of(status, body)
        assert type(found) is kind
        assert (found.code, found.fact, found.remedy, found.details) == (code, "a fact", "a remedy", {"offset": 3})


def test_classes_with_their_own_words_come_back_too():
    status, body = error_body(minga.chain.errors.LeaseClosed())
    found = error_of(status, body)
    assert isinstance(found, MingaError)
    assert found.code == minga.chain.errors.LeaseClosed.code


def test_an_unknown_code_keeps_its_words():
    found = error_of(409, json.dumps({"error": {"code": "new", "fact": "f", "remedy": "r"}}).encode())
    assert (type(found), found.fact, found.remedy) == (ProviderRefused, "f", "r")


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "code", "fact", "remedy", "details"]), inner, max_size=4),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())), st.integers(400, 599))  # fmt: skip
def test_whatever_a_peer_sends_is_one_error(body: bytes, status: int):
    assert isinstance(error_of(status, body), MingaError)


def test_long_and_unprintable_words_are_bounded():
    words = "\x1b[31m" + "x" * 10_000
    found = error_of(400, json.dumps({"error": {"code": "not-found", "fact": words, "remedy": ""}}).encode())
    assert isinstance(found, NotFound)
    assert len(found.fact) <= 500
    assert "\x1b" not in found.fact


def test_a_deeply_nested_body_is_one_error():
    assert isinstance(error_of(500, b"[" * 50_000), NetworkError)


@pytest.mark.anyio
async def test_a_huge_refusal_is_not_read_to_its_end():
    sent = 0

    async def body():
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    response = httpx.Response(500, stream=_Stream(body()))
    with pytest.raises(NetworkError):
        await raise_for(response)
    assert sent < 1 << 20
    await raise_for(httpx.Response(204))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, body) -> None:
        self._body = body

    async def __aiter__(self):
        async for chunk in self._body:
            yield chunk


def test_what_the_client_raises_becomes_a_network_error():
    for error in (httpx.ConnectTimeout(""), httpx.ConnectError("refused"), OSError("no route"), httpx.InvalidURL("x")):
        assert isinstance(network_error(error, "http://x"), NetworkError)
    assert isinstance(network_error(ValueError("x"), "http://x"), InternalError)
    own = NotFound("f", "r")
    assert network_error(own, "u") is own


def test_a_refusal_nested_without_end_is_described_and_not_followed() -> None:
    """Also where a library has raised Python's recursion limit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        for body in (b"[" * 65_536, b'{"error":' * 9000, b'{"error": {"code": ' + b"[" * 60_000):
            assert isinstance(error_of(409, body), ProviderRefused)
    finally:
        sys.setrecursionlimit(before)
