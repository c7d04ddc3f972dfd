"""Keys of the simulated world: the real ones, or a stand-in that nobody in the world can forge.

The stand-in signs with a keyed hash, and `recover` answers from a table of what was really signed; an actor has no
way to enter anything there but by signing with a key that it holds. Digests, channels, offers and vouchers are the
real ones in both cases. Rule: `Ring.installed` puts the stand-in where `recover` is used, and takes it out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from minga.core import crypto
from minga.core.crypto import Address, PrivateKey, to_hex
from minga.core.errors import InvalidSignature
from minga.protocol import market, messages


class StandIn:
    """A key as `PrivateKey` is one: an address, and signatures of 65 bytes."""

    __slots__ = ("_ring", "_secret", "address")

    def __init__(self, ring: Ring, secret: bytes) -> None:
        self._ring = ring
        self._secret = secret
        self.address = Address(to_hex(blake2b(secret, digest_size=20).digest()))

    def sign(self, digest: bytes) -> bytes:
        """A signature that `Ring.recover` knows."""
        made = blake2b(digest, key=self._secret, digest_size=64).digest() + b"\x1b"
        self._ring.signed[digest, made] = self.address
        return made


Key = PrivateKey | StandIn


class Ring:
    """All keys of one world, by name."""

    def __init__(self, seed: int, real: bool) -> None:
        """`real` gives secp256k1 keys; else stand-ins."""
        self.real = real
        self.signed: dict[tuple[bytes, bytes], Address] = {}
        self._seed = seed
        self._keys: dict[str, Key] = {}

    def key(self, name: str) -> Key:
        """The key of that name; the same each time."""
        found = self._keys.get(name)
        if found is None:
            secret = blake2b(f"{self._seed}/{name}".encode(), digest_size=32).digest()
            found = crypto.new_key(secret) if self.real else StandIn(self, secret)
            self._keys[name] = found
        return found

    def recover(self, digest: bytes, signature: bytes) -> Address:
        """Who signed.

        Raises:
            InvalidSignature: nobody.
        """
        found = self.signed.get((digest, signature))
        if found is None:
            raise InvalidSignature("the signature recovers to no key", "sign again")
        return found

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let Market and `messages.verify` ask this ring, unless its keys are real."""
        if self.real:
            yield
            return
        modules: tuple[Any, ...] = (market, messages)
        before = [module.recover for module in modules]
        for module in modules:
            module.recover = self.recover
        try:
            yield
        finally:
            for module, recover in zip(modules, before, strict=True):
                module.recover = recover


__all__ = ["Key", "Ring", "StandIn"]
