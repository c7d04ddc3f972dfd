"""Hashes, keys and signatures, against eth-account and against the slow fallback."""

from __future__ import annotations

import subprocess
import sys

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import (
    CURVE_ORDER,
    PrivateKey,
    blake3_hex,
    checksum,
    keccak,
    new_key,
    parse_address,
    parse_hash32,
    parse_signature,
    recover,
    to_hex,
)
from minga.core.errors import InvalidInput, InvalidSignature

secrets = st.integers(1, CURVE_ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)


def test_keccak_is_ethereums():
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@settings(max_examples=25)
@given(secrets, digests)
def test_keys_and_signatures_are_those_of_eth_account(secret, digest):
    key, account = PrivateKey(secret), Account.from_key(secret)
    assert checksum(key.address) == account.address
    signature = key.sign(digest)
    assert signature == bytes(Account.unsafe_sign_hash(digest, secret).signature)
    assert recover(digest, signature) == key.address


@given(secrets, digests, st.integers(0, 64), st.integers(1, 255))
def test_a_changed_signature_is_not_the_signers(secret, digest, place, flip):
    key = PrivateKey(secret)
    changed = bytearray(key.sign(digest))
    changed[place] ^= flip
    try:
        assert recover(digest, bytes(changed)) != key.address
    except InvalidSignature:
        pass


def test_the_high_s_twin_is_refused():
    key = new_key(bytes(32))
    signature = key.sign(bytes(32))
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + s.to_bytes(32, "big") + bytes((55 - signature[64],))
    with pytest.raises(InvalidSignature):
        recover(bytes(32), twin)


@pytest.mark.parametrize(
    "signature", [b"", bytes(64), bytes(65), bytes(66), bytes(64) + b"\x1b", b"\xff" * 64 + b"\x1c"]
)
def test_malformed_signatures_are_refused(signature):
    with pytest.raises(InvalidSignature):
        recover(bytes(32), signature)


@pytest.mark.parametrize("secret", [b"", bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, bytes(31)])
def test_bad_secrets_are_refused(secret):
    with pytest.raises(InvalidInput):
        PrivateKey(secret)


def test_a_secret_is_not_printed():
    key = new_key(b"\x07" * 32)
    assert key.secret().hex() not in repr(key) + str(key)


@pytest.mark.parametrize("parse", [parse_address, parse_hash32])
@pytest.mark.parametrize("text", [None, 5, "", "0x", "0x" + "g" * 40, "0X" + "0" * 40, "0x" + "0" * 41, "0" * 42])
def test_bad_hex_is_refused(parse, text):
    with pytest.raises(InvalidInput):
        parse(text)


def test_bad_signature_text_is_refused():
    with pytest.raises(InvalidSignature):
        parse_signature("0x1234")


def test_blake3_of_chunks_is_blake3_of_the_whole():
    assert blake3_hex([b"mi", b"nga"]) == blake3_hex(b"minga")
    assert blake3_hex(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_the_fallback_without_accelerators_gives_the_same_bytes():
    """Run in a fresh interpreter in which coincurve and safe-pysha3 cannot be imported."""
    program = (
        "import sys; sys.modules['coincurve'] = None; sys.modules['sha3'] = None\n"
        "from minga.core.crypto import new_key, recover, keccak, _coincurve\n"
        "assert _coincurve is None\n"
        "k = new_key(b'\\x05' * 32); s = k.sign(keccak(b'x')); assert recover(keccak(b'x'), s) == k.address\n"
        "print(k.address, s.hex())"
    )
    slow = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    key = new_key(b"\x05" * 32)
    assert slow == [key.address, key.sign(keccak(b"x")).hex()]
    assert to_hex(key.sign(keccak(b"x"))) == "0x" + slow[1]
