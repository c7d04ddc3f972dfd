"""A state as bytes: one value, one form, so that its BLAKE3 names it. No pickle; a stranger's file is safe to read.

A state is a tree of null, booleans, integers, floats, text, bytes, lists, tuples, maps (keys: text or integers),
PyTorch tensors and numpy arrays. Its file is

| bytes  | what                                                                                          |
|--------|-----------------------------------------------------------------------------------------------|
| 8      | `MINGAST1`                                                                                    |
| 8      | length of the header, little-endian; the header ends at a multiple of 64, filled with spaces  |
| header | the tree as canonical JSON, every tensor replaced by its type and shape                       |
| parts  | each tensor's elements in the tree's order, row-major, little-endian, zeros up to a whole 64  |

In the header null, booleans, text and integers below 2**53 stand for themselves and the rest is a list that begins with
its kind: `["int", decimal]`, `["float", 16 hex digits of the IEEE 754 double]`, `["bytes", hex]`, `["list", …]`,
`["tuple", …]`, `["map", [key, value], …]` (integers first, then text, each sorted), `["tensor", type, shape]`,
`["array", type, shape]`. Lengths and places follow from types and shapes, so no two parts can overlap.

Knows: values and bytes. Does not know: what they are for (`minga.verify.capture`). Rule: a reader believes nothing:
sizes are checked before anything of that size is allocated, and what would not be written byte for byte as it stands
is refused. A job imports this module, so it needs nothing but blake3, numpy and PyTorch, the latter two only when used.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from minga.core.codec import SAFE_INTEGER, parse_json
from minga.core.errors import InvalidInput, TooLarge

MAGIC = b"MINGAST1"
ALIGN = 64
HEADER_BYTES_MAX = 16 << 20
STATE_BYTES_MAX = 1 << 40
DEPTH_MAX = 13
"""Levels of lists and maps in a state; the header has two more brackets for each, and `parse_json` allows 32."""
DIMENSIONS_MAX = 16
DIGITS_MAX = 400
_BLOCK = 1 << 20

TYPES: Mapping[str, tuple[str, int]] = {
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "U16": ("uint16", 2), "I16": ("int16", 2),
    "U32": ("uint32", 4), "I32": ("int32", 4), "U64": ("uint64", 8), "I64": ("int64", 8), "F16": ("float16", 2),
    "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8), "C64": ("complex64", 8),
    "C128": ("complex128", 16), "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1),
}  # fmt: skip
"""Name in the file: name in PyTorch (and numpy, which lacks the last two and BF16), bytes an element."""

_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_NAMES = {torch_name: name for name, (torch_name, _) in TYPES.items()}
_ONLY_TORCH = {"BF16", "F8_E4M3", "F8_E5M2"}


class Packed:
    """A state in its form: `header` (with magic, length and filling) and the tensors' bytes, not yet one buffer.

    The parts are views of the tensors that were given, so use it before they change. `bytes` is the whole length.
    """

    def __init__(self, header: bytes, parts: Sequence[memoryview]) -> None:
        self.header = header
        self.parts = parts
        self.bytes = len(header) + sum(-(-part.nbytes // ALIGN) * ALIGN for part in parts)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """All bytes in order; small pieces are joined, so that a hash of many of them costs little."""
        small = [self.header]
        for part in self.parts:
            if part.nbytes > 4096:
                yield b"".join(small)
                yield part
                small = [bytes(-part.nbytes % ALIGN)]
            else:
                small.append(part.tobytes() + bytes(-part.nbytes % ALIGN))
        yield b"".join(small)

    def hash(self) -> bytes:
        """BLAKE3 over all bytes, 32 bytes."""
        from blake3 import blake3

        hasher = blake3()
        for piece in self.pieces():
            hasher.update(piece)
        return bytes(hasher.digest())

    def write(self, path: Path) -> bytes:
        """Write the file at once or not at all (a rename), and return the hash of what was written."""
        from blake3 import blake3

        hasher = blake3()
        unfinished = path.with_name(f".{path.name}.part")
        with unfinished.open("wb") as file:
            for piece in self.pieces():
                hasher.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        return bytes(hasher.digest())


def pack(state: Any) -> Packed:
    """The form of a state.

    Raises:
        InvalidInput: it holds something that has no form here (the fact says where), or is nested over 13 levels.
    """
    parts: list[memoryview] = []
    try:
        tree = _encode(state, parts, 0)
    except _NoForm as error:
        where = "state" + "".join(reversed(error.path))
        raise InvalidInput(f"{where[:200]} {error.what}", error.remedy) from None
    try:
        text = _COMPACT.encode(tree).encode()
    except UnicodeEncodeError:
        raise InvalidInput("a state holds text with a lone surrogate", "keep valid text in it") from None
    if len(text) > HEADER_BYTES_MAX - ALIGN:
        raise InvalidInput(f"the header has {len(text)} bytes", "keep long lists in a tensor or an array")
    text += b" " * (-(len(MAGIC) + 8 + len(text)) % ALIGN)
    return Packed(MAGIC + struct.pack("<Q", len(text)) + text, parts)


def state_hash(state: Any) -> bytes:
    """BLAKE3 of the form of `state`, 32 bytes; see `pack` for what it raises."""
    return pack(state).hash()


def write_state(path: Path, state: Any) -> bytes:
    """Write `state` to `path` at once or not at all; its hash, 32 bytes. See `pack` for what it raises."""
    return pack(state).write(path)


def file_hash(path: Path) -> bytes:
    """BLAKE3 of a file, 32 bytes, read block by block: the hash of the state in it, if it is one."""
    from blake3 import blake3

    hasher = blake3()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return bytes(hasher.digest())


# ------------------------------------------------------------------------------------------------------------- writing


class _NoForm(Exception):
    """What has no form, and where: `path` is filled from the inside out while the error passes the levels."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy
        self.path: list[str] = []


def _encode(value: Any, parts: list[memoryview], depth: int) -> Any:
    """The header's form of `value`; tensors' bytes are appended to `parts`."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) <= SAFE_INTEGER else ["int", _digits(value)]
    if kind is float:
        return ["float", struct.pack(">d", value).hex()]
    if hasattr(value, "detach") and hasattr(value, "layout"):  # before the slow questions, since most values are these
        return _encode_elements(value, "tensor", parts)
    if isinstance(value, list | tuple | Mapping):
        if depth >= DEPTH_MAX:
            raise _NoForm(f"is nested over {DEPTH_MAX} levels", "keep flatter values in the state")
        return _encode_many(value, parts, depth + 1)
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, int | float | str):  # subclasses: numpy.float64, enumerations of integers and of text
        return _encode(_plain(value), parts, depth)
    return _encode_elements(value, "array", parts)


def _encode_many(value: Any, parts: list[memoryview], depth: int) -> list[Any]:
    """The form of a map, list or tuple."""
    if isinstance(value, Mapping):
        form: list[Any] = ["map"]
        for key in _sorted_keys(value):
            try:
                form.append([key, _encode(value[key], parts, depth)])
            except _NoForm as error:
                error.path.append(f".{key}")
                raise
        return form
    form = ["list" if isinstance(value, list) else "tuple"]
    for at, item in enumerate(value):
        try:
            form.append(_encode(item, parts, depth))
        except _NoForm as error:
            error.path.append(f"[{at}]")
            raise
    return form


def _plain(value: Any) -> Any:
    """The integer, float or text that an instance of a subclass is."""
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str.__str__(value)


def _sorted_keys(value: Mapping[Any, Any]) -> list[Any]:
    kinds = set(map(type, value))
    if kinds == {str} or (kinds == {int} and max(map(abs, value)) <= SAFE_INTEGER):
        return sorted(value)
    for key in value:
        if type(key) is not str and (type(key) is not int or abs(key) > SAFE_INTEGER):
            raise _NoForm(f"has the key {str(key)[:40]!r}", "use text or integers as keys")
    return sorted(value, key=lambda key: (type(key) is str, key))


def _digits(value: int) -> str:
    if value.bit_length() > DIGITS_MAX * 3:
        raise _NoForm(f"is an integer of {value.bit_length()} bits", "keep it in an array")
    return str(value)


def _encode_elements(value: Any, kind: str, parts: list[memoryview]) -> list[Any]:
    """The form of a tensor or an array."""
    if kind == "tensor":
        name, flat = _elements(value)
    elif _is_array(value):
        array = _little_endian(value)
        name, flat = _NAMES.get(array.dtype.name), array.reshape(-1).view("uint8")
    else:
        what = f"{type(value).__module__}.{type(value).__qualname__}"
        raise _NoForm(f"is a {what}, which has no form in a state", "keep plain values and tensors")
    if name is None:
        raise _NoForm(f"has elements of type {value.dtype}", "use numbers or booleans")
    shape = list(value.shape)
    if len(shape) > DIMENSIONS_MAX:
        raise _NoForm(f"has {len(shape)} dimensions", f"use at most {DIMENSIONS_MAX}")
    parts.append(memoryview(flat))
    return [kind, name, shape]


def _is_array(value: Any) -> bool:
    if type(value).__module__.partition(".")[0] != "numpy":
        return False
    import numpy as np

    return isinstance(value, np.ndarray | np.generic)


def _little_endian(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value)
    if array.dtype.name not in _NAMES:
        raise _NoForm(f"has elements of type {array.dtype}", "use numbers or booleans")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))


def _elements(tensor: Any) -> tuple[str | None, Any]:
    """Type and bytes (a numpy array of uint8) of a tensor, which is copied only if it is not on the CPU or has gaps."""
    import torch

    plain = tensor.detach()
    if plain.layout is not torch.strided or plain.is_quantized or plain.is_meta:
        raise _NoForm("is sparse, quantised or without data", "register a dense tensor")
    if not plain.is_cpu:
        plain = plain.cpu()
    if plain.is_neg() or plain.is_conj():
        plain = plain.resolve_conj().resolve_neg()
    return _torch_names().get(tensor.dtype), plain.reshape(-1).contiguous().view(torch.uint8).numpy()


@cache
def _torch_names() -> dict[Any, str]:
    import torch

    return {getattr(torch, torch_name): name for name, (torch_name, _) in TYPES.items()}


# ------------------------------------------------------------------------------------------------------------- reading


def read_state(path: Path, bytes_max: int = STATE_BYTES_MAX) -> Any:
    """The state in a file, its tensors on the CPU. Safe for a file from a stranger: nothing in it is run.

    Raises:
        TooLarge: over `bytes_max`.
        InvalidInput: not a state, cut short, longer than it says, or not the one form of its value.
        OSError: the file cannot be read.
    """
    return read_packed(path, bytes_max)[0]


def read_packed(path: Path, bytes_max: int = STATE_BYTES_MAX) -> tuple[Any, Packed]:
    """The state in a file, and its form, which is the file byte for byte; see `read_state`."""
    with path.open("rb") as file:
        header, tree = _read_header(file, bytes_max)
        state = _decode(tree, lambda kind, name, shape: _read_elements(file, kind, name, shape))
    again = pack(state)
    if again.header != header:
        raise InvalidInput("the header is not the one form of its state", "take the file from somebody else")
    return state, again


def inspect_state(path: Path, bytes_max: int = STATE_BYTES_MAX) -> Any:
    """The state in a file with `(type, shape)` in the place of each tensor; needs neither PyTorch nor numpy.

    Raises: like `read_state`, but for a header that is not in the one form.
    """
    with path.open("rb") as file:
        _, tree = _read_header(file, bytes_max)
    return _decode(tree, lambda kind, name, shape: (name, tuple(shape)))


def _read_header(file: BinaryIO, bytes_max: int) -> tuple[bytes, Any]:
    """The header as bytes and as a checked tree; the file is then where the first tensor begins."""
    size = os.fstat(file.fileno()).st_size
    if size > bytes_max:
        raise TooLarge(f"the state has {size} bytes, the limit is {bytes_max}", "raise the limit, or ask for less")
    start = file.read(len(MAGIC) + 8)
    if len(start) != len(MAGIC) + 8 or start[: len(MAGIC)] != MAGIC:
        raise InvalidInput("the file is not a state", "take one that was written by a trace")
    length = struct.unpack("<Q", start[len(MAGIC) :])[0]
    if length > min(HEADER_BYTES_MAX, size - len(start)) or (len(start) + length) % ALIGN:
        raise InvalidInput(f"a header of {length} bytes in a state of {size}", "the file is cut short or damaged")
    header = file.read(length)
    tree = parse_json(header.rstrip(b" "), HEADER_BYTES_MAX)
    parts = 0

    def count(kind: str, name: str, shape: list[int]) -> None:
        nonlocal parts
        parts += -(-_part_bytes(name, shape) // ALIGN) * ALIGN

    _decode(tree, count)
    if len(start) + length + parts != size:
        raise InvalidInput(
            f"the state has {size} bytes, its header asks for {len(start) + length + parts}",
            "it is cut short or damaged",
        )
    return start + header, tree


def _part_bytes(name: str, shape: list[int]) -> int:
    size = TYPES[name][1]
    for side in shape:
        size *= side
    return size


def _decode(node: Any, element: Any) -> Any:
    """The value of a header's node; `element(kind, type, shape)` gives that of a tensor or an array.

    Raises:
        InvalidInput: the node has no meaning.
    """
    if node is None or isinstance(node, bool | str | int):
        return node
    if not isinstance(node, list) or not node or not isinstance(node[0], str):
        raise _meaningless(node)
    kind, *rest = node
    if kind in ("list", "tuple"):
        items = [_decode(item, element) for item in rest]
        return items if kind == "list" else tuple(items)
    if kind == "map":
        return _decode_map(rest, element)
    if kind in ("tensor", "array"):
        _check_elements(kind, rest)
        return element(kind, *rest)
    if len(rest) != 1 or not isinstance(rest[0], str):
        raise _meaningless(node)
    return _decode_scalar(kind, rest[0])


def _decode_scalar(kind: str, text: str) -> Any:
    try:
        if kind == "float" and len(text) == 16:
            return struct.unpack(">d", bytes.fromhex(text))[0]
        if kind == "bytes":
            return bytes.fromhex(text)
        if kind == "int" and len(text) <= DIGITS_MAX:
            return int(text)
    except ValueError:
        pass
    raise _meaningless([kind, text])


def _decode_map(pairs: list[Any], element: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (str, int) or pair[0] in found:
            raise _meaningless(pair)
        found[pair[0]] = _decode(pair[1], element)
    return found


def _check_elements(kind: str, rest: list[Any]) -> None:
    good = len(rest) == 2 and isinstance(rest[0], str) and rest[0] in TYPES and isinstance(rest[1], list)
    good = good and not (kind == "array" and rest[0] in _ONLY_TORCH) and len(rest[1]) <= DIMENSIONS_MAX
    if not good or any(type(side) is not int or not 0 <= side <= STATE_BYTES_MAX for side in rest[1]):
        raise _meaningless([kind, *rest])


def _meaningless(node: Any) -> InvalidInput:
    return InvalidInput(f"a header with {str(node)[:60]!r} in it", "the file is damaged, or was made to harm")


def _read_elements(file: BinaryIO, kind: str, name: str, shape: list[int]) -> Any:
    """The next tensor or array of the file, whose whole length was checked before."""
    import numpy as np

    size = _part_bytes(name, shape)
    raw = np.empty(size, dtype=np.uint8)
    if size and file.readinto(raw.data) != size:  # type: ignore[attr-defined]
        raise InvalidInput("the state ends within a tensor", "the file is cut short")
    if any(file.read(-size % ALIGN)):
        raise InvalidInput("bytes between two tensors are not zero", "the file is damaged, or was made to harm")
    if name == "BOOL" and size and raw.max() > 1:
        raise InvalidInput("a boolean is neither 0 nor 1", "the file is damaged, or was made to harm")
    if kind == "array":
        return raw.view(TYPES[name][0]).reshape(shape)
    import torch

    flat = torch.from_numpy(raw) if size else torch.empty(0, dtype=torch.uint8)
    return flat.view(getattr(torch, TYPES[name][0])).reshape(shape)
