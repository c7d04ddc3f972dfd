"""The folder of a trace: written leaf by leaf by a job, read by whoever checks it.

| file                | what                                                                                       |
|---------------------|--------------------------------------------------------------------------------------------|
| `trace.json`        | the numbers of `TraceFacts`, canonical JSON                                                |
| `leaves.bin`        | 32 bytes a leaf: the state before the first step, then the state after every `every` steps |
| `states/%08d.state` | the whole state at leaf 0 and at every `keep`-th leaf                                      |
| `class.json`        | what bit-exactness hangs on where it was computed (`computing_class`); nobody's claim      |

Knows: files and hashes. Does not know: what a state is, PyTorch. Rule: only ever appended to, a state before its leaf,
so a job killed at any instant leaves a shorter trace and never a wrong one; a torn last leaf is cut by the reader. What
a reader takes from a stranger is checked in size and form.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.core.codec import canonical_json, parse_json
from minga.core.errors import DiskFull, InvalidInput, TooLarge

LEAF_BYTES = 32
LEAVES_MAX = 1 << 20
"""As many as `minga.protocol.merkle` takes."""
FACTS_BYTES_MAX = 4096
DETERMINISM = ("D0", "D1", "D2")
NUMBER_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """`trace.json`: `every` steps a leaf, `keep` leaves between two kept states; `steps` from `first_step` on are in
    `leaves` leaves, the first of which is the state before them. The last leaf may stand for fewer than `every` steps.
    """

    version: int
    determinism: str
    every: int
    keep: int
    first_step: int
    steps: int
    leaves: int

    def check(self) -> None:
        """Return if the numbers can belong together.

        Raises:
            InvalidInput: they cannot.
        """
        if self.version != 1 or self.determinism not in DETERMINISM:
            raise InvalidInput("a trace of another version", "read it with a newer Minga")
        good = 1 <= self.every <= NUMBER_MAX and 1 <= self.keep <= NUMBER_MAX and 1 <= self.leaves <= LEAVES_MAX
        good = good and 0 <= self.first_step <= NUMBER_MAX and -(-self.steps // self.every) == self.leaves - 1
        if not good or self.steps < 0:
            raise InvalidInput("the numbers of a trace do not belong together", "the trace is damaged")


def state_name(leaf: int) -> str:
    """The path of a kept state inside the folder."""
    return f"states/{leaf:08d}.state"


class TraceWriter:
    """A trace being written into `folder`. Whatever an earlier run left there is removed first.

    `count` is how many leaves there are.
    """

    def __init__(self, folder: Path, determinism: str, every: int, keep: int, first_step: int) -> None:
        self.folder = folder
        self.every, self.keep = every, keep
        self.count = self.steps = 0
        self._fixed = {"version": 1, "determinism": determinism, "every": every, "keep": keep, "first_step": first_step}
        (folder / "states").mkdir(parents=True, exist_ok=True)
        for name in ("trace.json", "leaves.bin"):
            (folder / name).unlink(missing_ok=True)
        for old in (folder / "states").iterdir():
            old.unlink()
        replace(folder / "class.json", canonical_json(computing_class()))
        self._leaves = os.open(folder / "leaves.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def place(self) -> Path | None:
        """Where the state of the next leaf is kept, if it is one to keep.

        Raises:
            TooLarge: it would be leaf 2**20.
        """
        if self.count == LEAVES_MAX:
            raise TooLarge(f"a trace has at most {LEAVES_MAX} leaves", "hash the state every few steps")
        return self.folder / state_name(self.count) if self.count % self.keep == 0 else None

    def append(self, steps: int, leaf: bytes) -> None:
        """Append the leaf after `steps` steps in all; its state, if it is one to keep, was written before."""
        regular = steps == self.count * self.every and self.count % self.keep
        self.count, self.steps = self.count + 1, steps
        if not regular:
            self._save()
        if os.write(self._leaves, leaf) != LEAF_BYTES:
            raise DiskFull("a leaf could not be written whole", "give the job more disk")

    def close(self) -> None:
        """Write the last numbers and make everything durable."""
        os.fsync(self._leaves)
        os.close(self._leaves)
        if self.count:
            self._save()

    def _save(self) -> None:
        replace(self.folder / "trace.json", canonical_json(self._fixed | {"steps": self.steps, "leaves": self.count}))


def replace(path: Path, data: bytes) -> None:
    """Write a small file at once or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def read_leaves(path: Path) -> list[bytes]:
    """The leaves in a file; a torn last one is cut.

    Raises:
        TooLarge: over 2**20.
        OSError: it cannot be read.
    """
    if path.stat().st_size > LEAF_BYTES * LEAVES_MAX + LEAF_BYTES - 1:
        raise TooLarge(f"a trace has at most {LEAVES_MAX} leaves", "the trace is damaged")
    data = path.read_bytes()
    return [data[at : at + LEAF_BYTES] for at in range(0, len(data) - LEAF_BYTES + 1, LEAF_BYTES)]


def read_trace(folder: Path) -> tuple[TraceFacts, list[bytes]]:
    """The numbers and the leaves of a trace, also of one whose job was killed.

    Raises:
        InvalidInput: there is none, or its numbers are not those of a trace.
        TooLarge: over 2**20 leaves.
    """
    try:
        with (folder / "trace.json").open("rb") as file:
            given = parse_json(file.read(FACTS_BYTES_MAX + 1), FACTS_BYTES_MAX)
        leaves = read_leaves(folder / "leaves.bin")
    except OSError as error:
        raise InvalidInput(f"no trace: {error}"[:200], "name the folder with trace.json and leaves.bin") from None
    names = set(TraceFacts.__slots__)
    if not isinstance(given, dict) or set(given) != names:
        raise InvalidInput("trace.json has other fields than those of a trace", "the trace is damaged")
    if any(type(given[name]) is not int for name in names - {"determinism"}) or not leaves:
        raise InvalidInput("trace.json has no numbers, or there is no leaf", "the trace is damaged")
    if given["leaves"] != len(leaves):  # killed: whole leaves came after the last numbers, or the last one did not
        given |= {"leaves": len(leaves), "steps": (len(leaves) - 1) * given["every"]}
    facts = TraceFacts(**given)
    facts.check()
    return facts, leaves


def computing_class() -> dict[str, Any]:
    """What D0 hangs on, as far as a program sees it: versions, instruction set, threads, accelerators.

    Two machines with equal classes give equal bits as far as we measured; see docs/traces.md for what was not.
    """
    import platform
    import sys

    found: dict[str, Any] = {"machine": platform.machine(), "python": platform.python_version()}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["threads"] = torch.get_num_threads()
        used = torch.cuda.is_available() and torch.cuda.is_initialized()
        found["accelerators"] = (
            [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())] if used else []
        )
    return found
