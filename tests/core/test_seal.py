"""Sealed text opens for its key and its use only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.core.seal import derive, open_sealed, seal, transport_public

SECRET = bytes(range(32))


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_is_sealed_opens(plain, info):
    assert open_sealed(seal(plain, transport_public(SECRET), info), SECRET, info) == plain


@pytest.mark.parametrize(("secret", "info"), [(bytes(31) + b"\x01", b"use"), (SECRET, b"another use")])
def test_another_key_or_use_does_not_open(secret, info):
    sealed = seal(b"token", transport_public(SECRET), b"use")
    with pytest.raises(InvalidInput):
        open_sealed(sealed, secret, info)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_altered_text_does_not_open(place, flip):
    sealed = bytearray(seal(b"token", transport_public(SECRET), b"use"))
    sealed[place % len(sealed)] ^= flip
    with pytest.raises(InvalidInput):
        open_sealed(bytes(sealed), SECRET, b"use")


def test_derived_keys_differ_by_purpose_and_follow_rfc_5869():
    assert derive(SECRET, b"a") != derive(SECRET, b"b")
    assert derive(SECRET, b"a") == derive(SECRET, b"a")
    okm = derive(b"\x0b" * 22, b"")  # RFC 5869 test case 3: no salt, no info; the first 32 of 42 bytes
    assert okm.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


def test_a_wrong_public_key_is_refused():
    with pytest.raises(InvalidInput):
        seal(b"x", "00", b"use")
