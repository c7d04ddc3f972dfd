"""Contents and plans of operators: storages as bytes, hashes, arguments as JSON and back.

What comes back from a plan is data for an operator of PyTorch's own and nothing else; a tensor cannot be made to reach
beyond the storage that was served. Does not know: traces, referees. Imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from minga.core.errors import InvalidInput


def flat(tensor: Tensor) -> Tensor:
    """The whole storage under a tensor, as bytes; shares its memory."""
    block = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return block.set_(tensor.untyped_storage())


def content(block: Tensor) -> bytes:
    """BLAKE3 of a storage, 32 bytes."""
    return blake3(block.cpu().numpy().data if block.numel() else b"").digest()


def lie(tensor: Tensor) -> dict[str, Any]:
    """How a tensor lies in its storage: type, offset, size, strides."""
    return {
        "type": str(tensor.dtype).removeprefix("torch."),
        "at": [tensor.storage_offset(), list(tensor.size()), list(tensor.stride())],
    }


def find(name: str) -> Any:
    """The operator of a name like `aten.mm.default`. Raises InvalidInput: there is none in this PyTorch."""
    found: Any = torch.ops
    if not re.fullmatch(r"(aten|prims)\.\w+\.\w+", name):
        raise InvalidInput(f"{name[:80]} is no operator's name", "record with the same release of PyTorch")
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise InvalidInput(f"this PyTorch has no operator {name}", "check with the release that recorded")
    return found


def flatten(values: Iterable[Any]) -> list[Any]:
    """The values in nested lists and dictionaries, flat."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple):
            found += flatten(value)
        else:
            found += flatten(value.values()) if isinstance(value, dict) else [value]
    return found


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among `flatten(values)`."""
    return [value for value in flatten(values) if isinstance(value, Tensor)]


def digest(kind: bytes, *parts: bytes | str | int) -> bytes:
    """BLAKE3 over parts, each with its length before it."""
    hasher = blake3(b"minga operators 1 " + kind)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.digest()


def same(one: Tensor, other: Tensor) -> bool:
    """Whether both lie in one storage."""
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


def portable(given: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that name a machine."""
    return {name: value for name, value in given.items() if name not in ("device", "pin_memory", "generator")}


_NAMED = {
    str(value): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout)
}


def plain(value: Any, described: Callable[[Tensor], dict[str, Any]]) -> Any:
    """A value of a plan as JSON; numbers with all their bits."""
    if isinstance(value, Tensor):
        return {"tensor": described(value)}
    if isinstance(value, list | tuple):
        return [plain(item, described) for item in value]
    if isinstance(value, dict):
        return {name: plain(item, described) for name, item in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    return {"named": "device" if isinstance(value, torch.device) else str(value)}


def built(value: Any, blocks: list[Tensor]) -> Any:
    """The reverse of `_plain`. Raises InvalidInput: something in it that this PyTorch does not have."""
    if isinstance(value, list):
        return [built(item, blocks) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tensor"}:
        return laid(value["tensor"], blocks)
    if value.keys() == {"float"}:
        return float.fromhex(value["float"])
    if value.keys() == {"named"}:
        if value["named"] == "device":
            return torch.device("cpu")
        if value["named"] not in _NAMED:
            raise InvalidInput(f"a plan names {str(value['named'])[:80]}", "check with the release that recorded")
        return _NAMED[value["named"]]
    return {name: built(item, blocks) for name, item in value.items()}


def laid(description: dict[str, Any], blocks: list[Tensor]) -> Tensor:
    """A tensor that lies in one of the storages as described. Raises InvalidInput: it would not fit."""
    try:
        dtype = _NAMED[f"torch.{description['type']}"]
        if not isinstance(dtype, torch.dtype):
            raise TypeError("it has no type")
        offset, size, stride = description["at"]
        block = blocks[description["block"]]
        held = torch.empty(0, dtype=dtype, device=block.device)
        reach = offset + sum(step * (many - 1) for step, many in zip(stride, size, strict=True)) + 1
        if min([offset, *size, *stride]) < 0 or (0 not in size and reach * held.element_size() > block.numel()):
            raise ValueError("it reaches beyond the storage")
        return held.set_(block.untyped_storage(), offset, size, stride)
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise InvalidInput(f"a tensor does not lie in what was served: {error}", "serve what was recorded") from error
