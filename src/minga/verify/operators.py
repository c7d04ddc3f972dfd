"""The operators of one training step as leaves of a tree, so that a dispute over the step narrows to one operator.

    with Recorder(given=[*weights, *moments, batch]) as recorder:      # around one ordinary step
        step()
    tree = Tree(recorder.trace().leaves)

Only during a dispute: recording is several times slower than computing. Copies that share memory (views) are no
operators; what has a content is a *storage*, the block of memory under a tensor and its views.

| leaf    | BLAKE3 over                                                                                            |
|---------|--------------------------------------------------------------------------------------------------------|
| 0       | what the step is declared to start from: weights, moments, batch, in the order given to the recorder     |
| 1 … n   | its number; its *plan*; the hash of each storage that it read, and of each that it made or changed       |
| n + 1   | n, and the contents of leaf 0 as they are after the step; so a trace that ends too early has another     |

The plan is everything but the contents: the operator's name, its numbers, and for each tensor which operator made its
storage and how it lies in it. Devices are not in it. On the same release of PyTorch the plan is the same on every
instruction set; between CPU and GPU PyTorch may choose other operators, which makes the plans incomparable.

Knows: operators, hashes. Does not know: who is right; see `operators_check`. Imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from minga.core.errors import InvalidInput
from minga.verify.operators_plan import (
    built,
    content,
    digest,
    find,
    flat,
    flatten,
    laid,
    lie,
    plain,
    portable,
    same,
    tensors,
)  # fmt: skip

GIVEN = 0
"""The source of what no operator of this step has made; operators count from 1, like leaves."""
UNWRITTEN = ("aten.empty", "aten.new_empty")
"""Operators whose names begin so give memory with no content yet; while recording, zeros."""
TO_PYTHON = ("aten._local_scalar_dense", "aten.equal", "aten.is_nonzero")
"""And these give a number to Python, whose hash stands in the leaf."""


@dataclass(frozen=True)
class Wire:
    """A storage that an operator reads: the operator that last wrote it (0: none), its output's number, its hash."""

    source: int
    output: int
    content: bytes


@dataclass(frozen=True)
class Entry:
    """One operator of a trace: number from 1, name with overload, plan (JSON), what it read and what it wrote."""

    number: int
    name: str
    plan: str
    inputs: tuple[Wire, ...]
    outputs: tuple[bytes, ...]

    @cached_property
    def leaf(self) -> bytes:
        """32 bytes."""
        return digest(b"operator", self.number, self.plan, *(wire.content for wire in self.inputs), *self.outputs)


@dataclass(frozen=True)
class Trace:
    """The operators of one step. `given` and `left` are the contents before and after of what no operator made.

    The first `declared` of them were declared; the others are what the step read besides, in the order of first use.
    """

    entries: tuple[Entry, ...]
    given: tuple[bytes, ...]
    left: tuple[bytes, ...]
    declared: int = 0

    @cached_property
    def leaves(self) -> tuple[bytes, ...]:
        """Leaf 0, one for each operator, and the last; see the module."""
        first = digest(b"given", *self.given[: self.declared])
        last = digest(b"left", len(self.entries), *self.left[: self.declared])
        return (first, *(entry.leaf for entry in self.entries), last)


@dataclass(frozen=True)
class Kept:
    """An operator with its contents, as a referee is served it: the entry, the storages as flat bytes, random state.

    `before` are the storages that it read, in the order of `entry.inputs`; `after` those of `entry.outputs`.
    """

    entry: Entry
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    random: bytes = b""

    def call(self) -> tuple[Any, list[Any], dict[str, Any]]:
        """The operator and its arguments, on fresh copies.

        Raises:
            InvalidInput: the plan names no operator of this PyTorch, or does not fit the storages.
        """
        plan = json.loads(self.entry.plan)
        copies = [block.clone() for block in self.before]
        return find(self.entry.name), built(plan["args"], copies), built(plan["kwargs"], copies)

    def outputs(self) -> list[Tensor]:
        """What the operator is said to have given, and then what it is said to have changed, as tensors.

        Raises:
            InvalidInput: they do not lie in the storages.
        """
        return [laid(result, list(self.after)) for result in json.loads(self.entry.plan)["results"]]

    def is_served(self) -> bool:
        """Whether these are the contents whose hashes stand in the entry; the first thing that a referee looks at."""
        return (
            tuple(map(content, self.before)) == tuple(wire.content for wire in self.entry.inputs)
            and tuple(map(content, self.after)) == self.entry.outputs
            and blake3(self.random).hexdigest() == json.loads(self.entry.plan)["random"]
        )

    def pack(self) -> bytes:
        """As bytes, without code: a JSON header with its length before it, then the storages one after the other."""
        head = {
            "entry": [self.entry.number, self.entry.name, self.entry.plan],
            "inputs": [[wire.source, wire.output, wire.content.hex()] for wire in self.entry.inputs],
            "outputs": [content.hex() for content in self.entry.outputs],
            "before": [block.numel() for block in self.before],
            "after": [block.numel() for block in self.after],
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        blocks = [block.cpu().numpy().tobytes() for block in (*self.before, *self.after)]
        return len(text).to_bytes(4, "little") + text + b"".join(blocks) + self.random

    @classmethod
    def unpack(cls, data: bytes) -> Kept:
        """The reverse of `pack`; safe for what a stranger sent, and not yet checked (`is_served`).

        Raises:
            InvalidInput: it has not that form.
        """
        try:
            end = 4 + int.from_bytes(data[:4], "little")
            head = json.loads(data[4:end])
            number, name, plan = head["entry"]
            inputs = tuple(Wire(int(a), int(b), bytes.fromhex(c)) for a, b, c in head["inputs"])
            entry = Entry(int(number), str(name), str(plan), inputs, tuple(map(bytes.fromhex, head["outputs"])))
            blocks = []
            for size in (*head["before"], *head["after"]):
                if not isinstance(size, int) or not 0 <= size <= len(data) - end:
                    raise ValueError("a storage is cut short")
                blocks.append(torch.tensor(bytearray(data[end : end + size]), dtype=torch.uint8))
                end += size
            split = len(head["before"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"this is no packed operator: {error}", "serve what was recorded") from error
        return cls(entry, tuple(blocks[:split]), tuple(blocks[split:]), data[end:])


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that records every operator inside it. Enter a `Grid` first, if the work is D1.

    `keep` holds the numbers of the operators whose contents are kept (in `kept`). `given` are the tensors of the state
    and the data of the step, in an order on which everybody agrees. One recorder records once.
    """

    def __init__(self, keep: Container[int] = (), given: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[int, Kept] = {}
        self._keep = keep
        self._entries: list[Entry] = []
        self._given: list[tuple[bytes, Tensor]] = []
        self._known: dict[int, tuple[StorageWeakRef, Wire]] = {}
        for tensor in given:
            self._wire(flat(tensor.detach()))
        self._declared = len(self._given)

    def trace(self) -> Trace:
        """What was recorded; contents that are left are read now, so ask before anything changes them."""
        left = tuple(content(block) for _, block in self._given)
        return Trace(tuple(self._entries), tuple(before for before, _ in self._given), left, self._declared)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and note it."""
        given = kwargs or {}
        if func._schema.name.startswith("profiler::"):
            return func(*args, **given)
        blocks: list[Tensor] = []
        wires: list[Wire] = []

        def described(tensor: Tensor) -> dict[str, Any]:
            block = flat(tensor)
            wire = self._wire(block)
            at = next((n for n, other in enumerate(blocks) if same(other, block)), len(blocks))
            if at == len(blocks):
                blocks.append(block)
                wires.append(wire)
            return {"block": at, "source": [wire.source, wire.output], **lie(tensor)}

        plan = {"args": plain(args, described), "kwargs": plain(portable(given), described)}
        keeping = len(self._entries) + 1 in self._keep
        before = tuple(block.clone() for block in blocks) if keeping else ()
        random = torch.get_rng_state() if torch.Tag.nondeterministic_seeded in func.tags else None
        result = func(*args, **given)
        if str(func).startswith(UNWRITTEN):
            for tensor in tensors([result]):
                tensor.zero_()
        written = [*tensors([result]), *changed(func, args, given)]
        if not _is_view(func, result, blocks):
            self._note(func, plan, wires, written, result, random, before if keeping else None)
        return result

    def _wire(self, block: Tensor) -> Wire:
        key = block.untyped_storage()._cdata
        known = self._known.get(key)
        if known is not None and not known[0].expired():  # type: ignore[no-untyped-call]
            return known[1]
        wire = Wire(GIVEN, len(self._given), content(block))
        self._given.append((wire.content, block))
        self._remember(block, wire)
        return wire

    def _remember(self, block: Tensor, wire: Wire) -> None:
        storage = block.untyped_storage()
        self._known[storage._cdata] = (StorageWeakRef(storage), wire)  # type: ignore[no-untyped-call]

    def _note(
        self, func: Any, plan: Any, wires: list[Wire], written: list[Tensor], result: Any, random: Tensor | None,
        before: tuple[Tensor, ...] | None,
    ) -> None:  # fmt: skip
        number, name = len(self._entries) + 1, str(func)
        blocks: list[Tensor] = []
        results = []
        for tensor in written:
            block = flat(tensor)
            at = next((n for n, other in enumerate(blocks) if same(other, block)), len(blocks))
            if at == len(blocks):
                blocks.append(block)
            results.append({"block": at, **lie(tensor)})
        outputs = [content(block) for block in blocks]
        for at, block in enumerate(blocks):
            self._remember(block, Wire(number, at, outputs[at]))
        numbers = [value for value in flatten([result]) if isinstance(value, bool | int | float)]
        if numbers:
            outputs.append(digest(b"numbers", json.dumps(plain(numbers, lie))))
        state = b"" if random is None else random.numpy().tobytes()
        plan |= {"random": blake3(state).hexdigest(), "results": results}
        text = json.dumps(plan, separators=(",", ":"), sort_keys=True)
        entry = Entry(number, name, text, tuple(wires), tuple(outputs))
        self._entries.append(entry)
        if before is not None and has_content(entry):
            after = tuple(block.clone() for block in blocks)
            self.kept[number] = Kept(entry, before, after, state)


def has_content(entry: Entry) -> bool:
    """Whether the operator gives contents, which can be served and judged."""
    return not entry.name.startswith((*UNWRITTEN, *TO_PYTHON))


def _is_view(func: Any, result: Any, blocks: list[Tensor]) -> bool:
    """Whether nothing was computed: each result lies in what was given, and nothing was changed."""
    found = tensors([result])
    if not found or len(found) < len(flatten([result])) or func._schema.is_mutable:
        return False
    return all(any(same(flat(tensor), block) for block in blocks) for tensor in found)


def changed(func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> list[Tensor]:
    """The arguments that the operator writes to."""
    found: list[Tensor] = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else given.get(argument.name)
            found += tensors([value])
    return found
