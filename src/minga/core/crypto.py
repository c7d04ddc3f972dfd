"""Hashes, keys and signatures of Ethereum and content addressing.

`keccak`, `sign` and `recover` use coincurve and safe-pysha3 where they are installed, and eth-keys and eth-hash
otherwise (same results; the tests run both). Only canonical signatures count: 65 bytes `r ‖ s ‖ v`, low s (EIP-2),
v in {27, 28}, non-zero signer. BLAKE3 names files, artifacts and blobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NewType

from minga.core.errors import InvalidInput, InvalidSignature

Address = NewType("Address", str)
"""An Ethereum address: `0x` and 40 lower-case hex digits (checksums are for screens)."""

Hash32 = NewType("Hash32", str)
"""32 bytes as `0x` and 64 lower-case hex digits."""

ZERO_ADDRESS = Address("0x" + "00" * 20)
ZERO_HASH = Hash32("0x" + "00" * 32)
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

keccak: Callable[[bytes], bytes]
"""Keccak-256 as Ethereum uses it (not SHA3-256)."""

try:
    from sha3 import keccak_256 as _keccak_256

    def _keccak_fast(data: bytes) -> bytes:
        return bytes(_keccak_256(data).digest())

    keccak = _keccak_fast
except ImportError:  # an optional accelerator: same digest, slower
    from eth_hash.auto import keccak as _keccak_slow

    keccak = _keccak_slow

try:
    import coincurve as _coincurve
except ImportError:  # likewise optional
    _coincurve = None  # type: ignore[assignment]


def parse_address(text: Any) -> Address:
    """A lower-case address.

    Raises:
        InvalidInput: not `0x` and 40 hex digits.
    """
    return Address(_parse_hex(text, 20, "an address"))


def parse_hash32(text: Any) -> Hash32:
    """A lower-case 32-byte hash.

    Raises:
        InvalidInput: not `0x` and 64 hex digits.
    """
    return Hash32(_parse_hex(text, 32, "a 32-byte hash"))


def parse_signature(text: Any) -> bytes:
    """The 65 bytes of a signature.

    Raises:
        InvalidSignature: not `0x` and 130 hex digits.
    """
    try:
        return bytes.fromhex(_parse_hex(text, 65, "a signature")[2:])
    except InvalidInput as error:
        raise InvalidSignature(error.fact, error.remedy) from None


def _parse_hex(text: Any, size: int, what: str) -> str:
    if isinstance(text, str) and len(text) == 2 + 2 * size and text[:2] == "0x":
        digits = text[2:].lower()
        if all(char in "0123456789abcdef" for char in digits):
            return "0x" + digits
    raise InvalidInput(f"{str(text)[:80]!r} is not {what}", f"write 0x and {2 * size} hexadecimal digits")


def to_hex(data: bytes) -> str:
    """`0x` and lower-case hex digits."""
    return "0x" + data.hex()


def from_hex(text: str) -> bytes:
    """Bytes of `0x…` text that was validated before."""
    return bytes.fromhex(text[2:])


class PrivateKey:
    """A secp256k1 key. `address` is public; the secret leaves only through `secret()` (32 bytes)."""

    __slots__ = ("_impl", "_secret", "address")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
            raise InvalidInput("not a secp256k1 secret", "use 32 bytes below the curve order")
        self._secret = secret
        self._impl: Any
        if _coincurve is not None:
            self._impl = _coincurve.PrivateKey(secret)
            public = self._impl.public_key.format(compressed=False)[1:]
        else:
            from eth_keys.datatypes import PrivateKey as SlowKey

            self._impl = SlowKey(secret)
            public = self._impl.public_key.to_bytes()
        self.address = Address(to_hex(keccak(public)[12:]))

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"

    def secret(self) -> bytes:
        """The 32 secret bytes, for key stores only."""
        return self._secret

    def sign(self, digest: bytes) -> bytes:
        """A 65-byte signature `r ‖ s ‖ v` of a 32-byte digest (RFC 6979 nonce, low s, v 27 or 28)."""
        if _coincurve is not None:
            raw = self._impl.sign_recoverable(digest, hasher=None)
            return bytes(raw[:64]) + bytes((raw[64] + 27,))
        raw = self._impl.sign_msg_hash(digest).to_bytes()
        return bytes(raw[:64]) + bytes((raw[64] + 27,))


def new_key(entropy: bytes) -> PrivateKey:
    """A key from 32 bytes of entropy (the dice are an argument; the caller asks the system for them)."""
    if len(entropy) != 32:
        raise InvalidInput("a key needs 32 bytes of entropy", "pass os.urandom(32)")
    return PrivateKey((int.from_bytes(keccak(entropy), "big") % (CURVE_ORDER - 1) + 1).to_bytes(32, "big"))


def recover(digest: bytes, signature: bytes) -> Address:
    """The address whose key made `signature` over `digest`.

    Raises:
        InvalidSignature: not 65 bytes, v not 27 or 28, r or s out of range, s in the upper half (EIP-2).
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise InvalidSignature("the signature is not 65 bytes with v 27 or 28", "sign again")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise InvalidSignature("the signature is not canonical", "use a low-s signature (EIP-2)")
    raw = signature[:64] + bytes((signature[64] - 27,))
    try:
        if _coincurve is not None:
            key = _coincurve.PublicKey.from_signature_and_message(raw, digest, hasher=None)
            public = key.format(compressed=False)[1:]
        else:
            from eth_keys.datatypes import Signature

            public = Signature(raw).recover_public_key_from_msg_hash(digest).to_bytes()
    except Exception as error:  # the libraries raise their own bare Exception types for a point off the curve
        raise InvalidSignature("the signature recovers to no key", "sign again") from error
    return Address(to_hex(keccak(public)[12:]))


def checksum(address: str) -> str:
    """The mixed-case form of an address (EIP-55), for screens and web3."""
    digits = address[2:].lower()
    digest = keccak(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(h, 16) >= 8 else c for c, h in zip(digits, digest, strict=False))


def blake3_hex(data: bytes | Iterable[bytes]) -> str:
    """BLAKE3 of bytes or of chunks, 64 hex digits: the name of a blob."""
    from blake3 import blake3

    hasher = blake3()
    for chunk in (data,) if isinstance(data, bytes) else data:
        hasher.update(chunk)
    return str(hasher.hexdigest())


def sha256_hex(data: bytes) -> str:
    """SHA-256, 64 hex digits (certificate fingerprints)."""
    return hashlib.sha256(data).hexdigest()
