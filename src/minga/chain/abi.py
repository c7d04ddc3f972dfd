"""The contract ABI codec: values to call data, call data to values, and what an artifact declares.

Knows the types that contracts of ours use: uintN, intN, address, bool, bytesN, bytes, string, tuples and arrays of
them. Does not know contracts. Rule: decoding is strict (bounds, zero padding of narrow types), because the bytes come
from nodes that nobody has to trust.

Why not eth_abi: importing it takes 0.23 s, two thirds of what a whole `minga run` may take until the first log line.
The tests hold this codec equal to eth_abi on random values of every type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import BadAnswer, InternalError, InvalidInput

LENGTH_MAX = 1 << 24


@dataclass(frozen=True, slots=True)
class Type:
    """One ABI type: `name` uint, int, address, bool, fixed (bytesN), bytes, string, tuple or array.

    `size` is bits for numbers, bytes for fixed, and the count for arrays (−1: any); `items` are a tuple's members or
    an array's one element type.
    """

    name: str
    size: int = 0
    items: tuple[Type, ...] = ()

    dynamic: bool = field(init=False, repr=False, compare=False)
    """Whether the value stands behind an offset."""
    head_bytes: int = field(init=False, repr=False, compare=False)
    """Bytes that the value takes in the head of the structure around it."""

    def __post_init__(self) -> None:
        # Worked out once: whoever reads a long history asks for it hundreds of times a lease.
        inner = any(item.dynamic for item in self.items)
        dynamic = inner or self.name in ("bytes", "string") or (self.name == "array" and self.size < 0)
        head = 32
        if not dynamic and self.name == "array":
            head = self.size * self.items[0].head_bytes
        elif not dynamic and self.name == "tuple":
            head = sum(item.head_bytes for item in self.items)
        object.__setattr__(self, "dynamic", dynamic)
        object.__setattr__(self, "head_bytes", head)


@lru_cache(maxsize=1024)
def parse_type(text: str) -> Type:
    """The type that a canonical ABI string names, such as `(address,bytes32,uint128[])`.

    Raises:
        InternalError: not a type of the ABI.
    """
    if text.endswith("]"):
        inner, _, count = text[:-1].rpartition("[")
        return Type("array", int(count) if count else -1, (parse_type(inner),))
    if text.startswith("(") and text.endswith(")"):
        return Type("tuple", 0, tuple(parse_type(part) for part in _split(text[1:-1])))
    if text in ("address", "bool", "bytes", "string"):
        return Type(text)
    for prefix, name, step, limit in (("uint", "uint", 8, 256), ("int", "int", 8, 256), ("bytes", "fixed", 1, 32)):
        digits = text.removeprefix(prefix)
        if digits != text and digits.isdigit() and int(digits) % step == 0 and 0 < int(digits) <= limit:
            return Type(name, int(digits))
    raise InternalError(f"{text!r} is not an ABI type")


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]] if text else []


def encode(types: str, values: Sequence[Any]) -> bytes:
    """The ABI encoding of `values` as the tuple `types`, such as `"(address,uint256)"`.

    Addresses and bytesN are `0x…` text or bytes.

    Raises:
        InvalidInput: a value does not fit its type.
    """
    return _encode(parse_type(types), values)


def _encode(kind: Type, value: Any) -> bytes:
    if kind.name == "tuple":
        if len(value) != len(kind.items):
            raise InvalidInput(f"{len(value)} values for {len(kind.items)} fields", "pass each field once")
        return _encode_all(kind.items, value)
    if kind.name == "array":
        if kind.size >= 0 and len(value) != kind.size:
            raise InvalidInput(f"{len(value)} values for an array of {kind.size}", "pass the declared count")
        body = _encode_all(kind.items * len(value), value)
        return body if kind.size >= 0 else len(value).to_bytes(32, "big") + body
    if kind.name in ("bytes", "string"):
        raw = value.encode() if kind.name == "string" else _raw(value)
        return len(raw).to_bytes(32, "big") + raw + bytes(-len(raw) % 32)
    return _encode_word(kind, value)


def _encode_word(kind: Type, value: Any) -> bytes:
    if kind.name == "bool" and isinstance(value, bool):
        return int(value).to_bytes(32, "big")
    if kind.name in ("uint", "int") and isinstance(value, int) and not isinstance(value, bool):
        low, high = (0, 1 << kind.size) if kind.name == "uint" else (-(1 << kind.size - 1), 1 << kind.size - 1)
        if low <= value < high:
            return (value % (1 << 256)).to_bytes(32, "big")
    if kind.name in ("address", "fixed"):
        raw, size = _raw(value), 20 if kind.name == "address" else kind.size
        if len(raw) == size:
            return raw.rjust(32, b"\0") if kind.name == "address" else raw.ljust(32, b"\0")
    raise InvalidInput(f"{str(value)[:80]!r} does not fit {kind.name}{kind.size or ''}", "pass a value of that type")


def _encode_all(kinds: Sequence[Type], values: Sequence[Any]) -> bytes:
    heads, tails = [], []
    offset = sum(kind.head_bytes for kind in kinds)
    for kind, value in zip(kinds, values, strict=True):
        encoded = _encode(kind, value)
        if kind.dynamic:
            heads.append(offset.to_bytes(32, "big"))
            tails.append(encoded)
            offset += len(encoded)
        else:
            heads.append(encoded)
    return b"".join(heads + tails)


def _raw(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise InvalidInput(f"{str(value)[:80]!r} is not bytes", "pass bytes, or 0x and hexadecimal digits")


def decode(types: str, data: bytes) -> tuple[Any, ...]:
    """The values of `types` in `data`; addresses and bytes32 are `0x…` text, other bytes are bytes.

    Raises:
        BadAnswer: too short, an offset outside the data, or dirty padding.
    """
    return tuple(_decode(parse_type(types), data, 0))


def _decode(kind: Type, data: bytes, at: int) -> Any:
    if kind.name == "tuple":
        return _decode_all(kind.items, data, at)
    if kind.name == "array":
        count = kind.size
        if count < 0:
            count, at = _length(data, at), at + 32
        if count * max(1, kind.items[0].head_bytes) > len(data):
            raise BadAnswer("an array is longer than the data around it", "ask another node")
        return _decode_all(kind.items * count, data, at)
    if kind.name in ("bytes", "string"):
        size = _length(data, at)
        raw = data[at + 32 : at + 32 + size]
        if len(raw) != size:
            raise BadAnswer("text or bytes run past the end of the data", "ask another node")
        return raw if kind.name == "bytes" else raw.decode(errors="replace")
    return _decode_word(kind, _word(data, at))


def _decode_all(kinds: Sequence[Type], data: bytes, base: int) -> tuple[Any, ...]:
    values, at = [], base
    for kind in kinds:
        values.append(_decode(kind, data, base + _length(data, at) if kind.dynamic else at))
        at += kind.head_bytes
    return tuple(values)


def _decode_word(kind: Type, word: bytes) -> Any:
    number = int.from_bytes(word, "big")
    if kind.name == "uint" and number < 1 << kind.size:
        return number
    if kind.name == "int":
        signed = number - (1 << 256) if number >> 255 else number
        if -(1 << kind.size - 1) <= signed < 1 << kind.size - 1:
            return signed
    if kind.name == "bool" and number < 2:
        return bool(number)
    if kind.name == "address" and number < 1 << 160:
        return Address(to_hex(word[12:]))
    if kind.name == "fixed" and not any(word[kind.size :]):
        return Hash32(to_hex(word)) if kind.size == 32 else word[: kind.size]
    raise BadAnswer(f"a word does not hold {kind.name}{kind.size or ''}", "ask another node")


def _word(data: bytes, at: int) -> bytes:
    word = data[at : at + 32]
    if len(word) != 32:
        raise BadAnswer("the data ends within a value", "ask another node")
    return word


def _length(data: bytes, at: int) -> int:
    number = int.from_bytes(_word(data, at), "big")
    if number > LENGTH_MAX:
        raise BadAnswer("a length or offset is out of range", "ask another node")
    return number


@dataclass(frozen=True, slots=True)
class Function:
    """A contract function: its selector and the canonical tuples of its inputs and outputs."""

    name: str
    selector: bytes
    inputs: str
    outputs: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventType:
    """A contract event: its topic and, in order, `(name, type, indexed)`."""

    name: str
    topic: Hash32
    fields: tuple[tuple[str, str, bool], ...]

    def decode(self, topics: Sequence[Hash32], data: bytes) -> dict[str, Any]:
        """The event's values by name (indexed fields of dynamic type are their hash).

        Raises:
            BadAnswer: topics or data do not fit the declaration.
        """
        indexed = [(name, kind) for name, kind, is_indexed in self.fields if is_indexed]
        plain = [(name, kind) for name, kind, is_indexed in self.fields if not is_indexed]
        if len(topics) != len(indexed) + 1 or topics[0] != self.topic:
            raise BadAnswer(f"a {self.name} event has the wrong topics", "ask another node")
        values = dict(zip([n for n, _ in plain], decode(f"({','.join(k for _, k in plain)})", data), strict=True))
        for (name, kind), topic in zip(indexed, topics[1:], strict=True):
            values[name] = topic if parse_type(kind).dynamic else decode(f"({kind})", bytes.fromhex(topic[2:]))[0]
        return values


@dataclass(frozen=True, slots=True)
class Interface:
    """What one artifact declares: functions by name (overloads by `name/arity`), events by topic, creation code."""

    functions: dict[str, Function]
    events: dict[Hash32, EventType]
    constructor: str
    bytecode: bytes

    def encode(self, name: str, *values: Any) -> bytes:
        """Call data of a function. Errors as `encode`."""
        function = self.function(name, len(values))
        return function.selector + encode(function.inputs, values)

    def function(self, name: str, arity: int) -> Function:
        """The function of that name that takes `arity` values.

        Raises:
            InternalError: the artifact has none.
        """
        try:
            return self.functions[f"{name}/{arity}"]
        except KeyError:
            raise InternalError(f"the contract has no {name} with {arity} values", "rebuild the artifacts") from None


@lru_cache(maxsize=8)
def load_interface(contract: str) -> Interface:
    """The shipped artifact of `Registry`, `Market` or `Token`.

    Raises:
        InternalError: the artifact is missing or not readable.
    """
    path = Path(__file__).parent / "artifacts" / f"{contract}.json"
    try:
        artifact = json.loads(path.read_bytes())
        return read_interface(artifact["abi"], bytes.fromhex(artifact["bytecode"].removeprefix("0x")))
    except (OSError, ValueError, KeyError) as error:
        raise InternalError(f"the artifact {path.name} is unreadable", "reinstall the package") from error


def read_interface(entries: Sequence[dict[str, Any]], bytecode: bytes = b"") -> Interface:
    """An interface from the entries of a JSON ABI."""
    functions, events, constructor = {}, {}, "()"
    for entry in entries:
        kinds = [_canonical(item) for item in entry.get("inputs", ())]
        if entry["type"] == "constructor":
            constructor = f"({','.join(kinds)})"
        elif entry["type"] == "function":
            inputs = f"({','.join(kinds)})"
            outputs = f"({','.join(_canonical(item) for item in entry['outputs'])})"
            names = tuple(str(item["name"]) for item in entry["inputs"])
            selector = keccak(f"{entry['name']}{inputs}".encode())[:4]
            functions[f"{entry['name']}/{len(kinds)}"] = Function(entry["name"], selector, inputs, outputs, names)
        elif entry["type"] == "event":
            topic = Hash32(to_hex(keccak(f"{entry['name']}({','.join(kinds)})".encode())))
            inputs_of = zip(entry["inputs"], kinds, strict=True)
            fields = tuple((str(item["name"]), kind, bool(item["indexed"])) for item, kind in inputs_of)
            events[topic] = EventType(entry["name"], topic, fields)
    return Interface(functions, events, constructor, bytecode)


def _canonical(item: dict[str, Any]) -> str:
    kind = str(item["type"])
    if not kind.startswith("tuple"):
        return kind
    members = ",".join(_canonical(part) for part in item["components"])
    return f"({members}){kind.removeprefix('tuple')}"
