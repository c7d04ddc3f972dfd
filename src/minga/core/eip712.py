"""EIP-712 typed data for flat structures: what a signature is bound to.

Knows: the domain (name, version, chain, contract) and structures whose fields are static (uintN, bytes32, address)
or `string`. Does not know: nesting and arrays, which no message of ours has. A signature over one chain, contract or
type is worth nothing on another, because all of them are hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar

from minga.core.crypto import keccak
from minga.core.errors import InvalidInput

DOMAIN_NAME = "Minga"
DOMAIN_VERSION = "1"
_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature counts: one chain id and one Market address (`0x…`)."""

    chain_id: int
    market: str
    separator: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "separator",
            keccak(
                keccak(_DOMAIN_TYPE)
                + keccak(DOMAIN_NAME.encode())
                + keccak(DOMAIN_VERSION.encode())
                + _uint(256)(self.chain_id)
                + _address(self.market)
            ),
        )


class Struct:
    """Base of a typed message: a frozen dataclass with `TYPE`, the EIP-712 type string, fields in its order."""

    TYPE: ClassVar[str]

    def struct_hash(self) -> bytes:
        """EIP-712 hashStruct.

        Raises:
            InvalidInput: a field is out of its type's range.
        """
        kind: Any = type(self)
        type_hash, encoders = _layout(kind)
        return keccak(type_hash + b"".join(encode(getattr(self, name)) for name, encode in encoders))

    def digest(self, domain: Domain) -> bytes:
        """The 32 bytes that are signed: keccak(0x1901 ‖ domain separator ‖ hashStruct)."""
        return keccak(b"\x19\x01" + domain.separator + self.struct_hash())


def _address(text: str) -> bytes:
    return bytes(12) + _raw(text, 20)


def _bytes32(text: str) -> bytes:
    return _raw(text, 32)


def _raw(text: str, size: int) -> bytes:
    try:
        raw = bytes.fromhex(text[2:]) if text[:2] == "0x" and len(text) == 2 + 2 * size else b""
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise InvalidInput(f"{text[:80]!r} is not {size} bytes", f"write 0x and {2 * size} hexadecimal digits")
    return raw


def _string(text: str) -> bytes:
    return keccak(text.encode())


def _uint(bits: int) -> Callable[[int], bytes]:
    limit = 1 << bits

    def encode(value: int) -> bytes:
        if not 0 <= value < limit:
            raise InvalidInput(f"{value} does not fit uint{bits}", f"use 0 … 2**{bits} - 1")
        return value.to_bytes(32, "big")

    return encode


@lru_cache(maxsize=64)
def _layout(kind: type[Any]) -> tuple[bytes, tuple[tuple[str, Callable[[Any], bytes]], ...]]:
    name, _, rest = kind.TYPE.partition("(")
    declared = [tuple(item.split(" ")) for item in rest.rstrip(")").split(",")]
    names = [f.name for f in fields(kind) if not f.name.startswith("_")]
    if name != kind.__name__ or [n for _, n in declared] != names:
        raise TypeError(f"{kind.__name__}.TYPE does not list its fields in order")
    encoders: list[tuple[str, Callable[[Any], bytes]]] = []
    for type_name, field_name in declared:
        if type_name == "address":
            encoders.append((field_name, _address))
        elif type_name == "bytes32":
            encoders.append((field_name, _bytes32))
        elif type_name == "string":
            encoders.append((field_name, _string))
        else:
            encoders.append((field_name, _uint(int(type_name.removeprefix("uint")))))
    return keccak(kind.TYPE.encode()), tuple(encoders)
