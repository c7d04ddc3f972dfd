"""Sealing: bytes that only the holder of a transport key can read (HPKE, RFC 9180).

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, base mode. `info` binds a sealed text to its use
and lease; opening with another `info` fails. Also HKDF-SHA256 (RFC 5869) for keys derived from keys.
"""

from __future__ import annotations

from typing import Any

from minga.core.errors import InvalidInput


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes from a secret, for one purpose (HKDF-SHA256, no salt)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return bytes(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret))


def transport_public(secret: bytes) -> str:
    """The public half of a 32-byte X25519 secret, 64 hex digits."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def seal(plain: bytes, public: str, info: bytes) -> bytes:
    """`enc ‖ ciphertext` for the holder of `public` (64 hex digits).

    Raises:
        InvalidInput: `public` is not a point.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        key = X25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError:
        raise InvalidInput("not a transport key", "use the X25519 key of the offer's terms") from None
    return bytes(_suite().encrypt(plain, key, info=info))


def open_sealed(sealed: bytes, secret: bytes, info: bytes) -> bytes:
    """The plain bytes.

    Raises:
        InvalidInput: sealed to another key, for another use, or altered.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        return bytes(_suite().decrypt(sealed, X25519PrivateKey.from_private_bytes(secret), info=info))
    except (InvalidTag, ValueError):
        raise InvalidInput(
            "the sealed text cannot be opened", "seal it to this provider's key, for this lease"
        ) from None


def _suite() -> Any:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
