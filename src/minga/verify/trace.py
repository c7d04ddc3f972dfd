"""`minga.trace`: a job's training leaves a hash of its state every few steps, and any part of it can be done again.

    import minga

    with minga.trace(model, optimizer, scheduler=scheduler, extra={"batches": generator}) as run:
        for step in run.steps(500):
            ...  # one ordinary step, which depends on `step` and on what is registered, and on nothing else

| variable                | what for                                                                                   |
|-------------------------|--------------------------------------------------------------------------------------------|
| MINGA_TRACE_DIR         | where the trace goes (`minga.verify.leaves`); absent: tracing is off and costs nothing     |
| MINGA_TRACE_EVERY       | steps a leaf (1)                                                                           |
| MINGA_TRACE_KEEP        | leaves between two kept states (50)                                                        |
| MINGA_TRACE_DETERMINISM | D0 (default), D1: PyTorch refuses operators that are not deterministic; D2                 |
| MINGA_REPLAY            | `a:b`: do leaves a+1 … b again, nothing else; `a:b:n`: leaf b is the state after n steps   |
| MINGA_REPLAY_DIR        | has `states/<a>.state`; receives `leaves.bin` (leaves a+1 … b) and `states/<b>.state`      |

`MINGA_REPLAY=0:0` writes leaf 0 as the job itself makes it, which is how initial weights are checked; a replay from 0
without a state file begins likewise. The process ends with exit code 0 at the end of a replay.

Knows: when a step ends. Does not know: providers, chains, what a state holds. Rule: a leaf is written only for steps
that are whole; a loop that is left by `break` or `return` ends with a leaf, one left by an error or a kill does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minga.core.errors import BadArtifact, Conflict, InvalidInput
from minga.verify.capture import Subject
from minga.verify.leaves import DETERMINISM, LEAVES_MAX, NUMBER_MAX, TraceWriter, state_name
from minga.verify.state import Packed, pack, read_packed

LEAF_FORMAT = "minga leaf 1"
_in_use: set[Path] = set()
"""Folders of this process's traces: a second trace in one would remove the first."""


class ReplayDone(SystemExit):
    """A replay has done what was asked; ends the process with exit code 0."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment asks for. `replay` is (a, b, steps of the trace at which b ends, or None)."""

    folder: Path | None = None
    every: int = 1
    keep: int = 50
    determinism: str = "D0"
    replay: tuple[int, int, int | None] | None = None
    replay_folder: Path | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables.

        Raises:
            InvalidInput: one of them makes no sense.
        """
        folder, replay = environment.get("MINGA_TRACE_DIR"), environment.get("MINGA_REPLAY")
        if not folder and not replay:
            return cls()
        determinism = environment.get("MINGA_TRACE_DETERMINISM", "D0")
        if determinism not in DETERMINISM:
            raise InvalidInput(f"MINGA_TRACE_DETERMINISM is {determinism[:40]!r}", "use D0, D1 or D2")
        every, keep = (_number(environment, name, least) for name, least in (("EVERY", 1), ("KEEP", 50)))
        if not replay:
            return cls(Path(folder or ""), every, keep, determinism)
        place = environment.get("MINGA_REPLAY_DIR")
        if not place:
            raise InvalidInput("MINGA_REPLAY without MINGA_REPLAY_DIR", "name the folder with the state to start from")
        return cls(None, every, keep, determinism, _range(replay), Path(place))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(f"MINGA_TRACE_{name}", str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:17]) <= NUMBER_MAX:
        raise InvalidInput(f"MINGA_TRACE_{name} is {text[:40]!r}", "use a whole number above zero")
    return int(text)


def _range(text: str) -> tuple[int, int, int | None]:
    numbers = [int(part) for part in text.split(":") if part.isascii() and part.isdigit() and len(part) < 16]
    good = len(numbers) == text.count(":") + 1 in (2, 3) and numbers[1] < LEAVES_MAX
    if not good or (numbers[0] >= numbers[1] and numbers[:2] != [0, 0]):
        raise InvalidInput(f"MINGA_REPLAY is {text[:40]!r}", "write a:b with a below b, or 0:0")
    return numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else None


def trace(
    model: Any = None,
    optimizer: Any = None,
    *,
    scheduler: Any = None,
    extra: dict[str, Any] | None = None,
) -> TracedRun:
    """Trace a training: `with minga.trace(model, optimizer, ...) as run`, then `for step in run.steps(n)`.

    Register everything that decides the next step. `model`, `optimizer` and `scheduler` may each be one, a list or a
    map of some; `extra` holds generators, tensors, lists, numbers and objects with `state_dict`. Without
    MINGA_TRACE_DIR nothing is recorded and `run.steps(n)` is `range(n)`.

    Raises:
        InvalidInput: a variable in the environment makes no sense.
    """
    return TracedRun(Subject(model, optimizer, scheduler, extra), Settings.of(os.environ))


class TracedRun:
    """A training that is traced, done again in part, or neither, as `settings` say. Use it as a context manager."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.settings = settings
        self._sink: TraceWriter | _Replay | None = None
        self._first = 0
        self._pending: tuple[int, bytes] | None = None
        self._deterministic = False

    @property
    def active(self) -> bool:
        """Whether anything is recorded or done again."""
        return self.settings.folder is not None or self.settings.replay is not None

    def __enter__(self) -> Self:
        """Switch PyTorch to deterministic operators if the class of determinism asks for it."""
        if self.active and self.settings.determinism != "D2":
            self._deterministic = _demand_determinism()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close the trace. After an error the step that raised it is not in it."""
        self.leave(whole=kind is None)

    def steps(self, total: int | None, first: int = 0) -> Iterable[int]:
        """The numbers of the steps to do: `first` … `total` − 1, or without end; in a replay those of its leaves.

        `first` is where a resumed run goes on. The body of the loop is one step.

        Raises:
            Conflict: the run has steps already.
        """
        if not self.active:
            return count(first) if total is None else range(first, total)
        return self._steps(total, first)

    def _steps(self, total: int | None, first: int) -> Iterator[int]:
        step = self.begin(first)
        try:
            while total is None or step < total:
                yield step
                step += 1
                self.done(step, last=step == total)
        except GeneratorExit:  # break, return or an error: `__exit__` knows which
            self._set_aside(step + 1)
            raise

    # The three calls below are what `steps` is made of, for loops that are somebody else's.

    def begin(self, first: int = 0, anew: bool = False) -> int:
        """Record leaf 0, before step `first`; or put back the state that a replay starts from. The next step.

        `anew`: a replay does the job from its beginning instead, and writes only the leaves asked for.

        Raises:
            Conflict: the run, or another one of this process with the same folder, has begun.
        """
        if not self.active:
            return first
        if self._sink is not None:
            raise Conflict("this run has begun already", "use one `minga.trace` for one loop")
        settings, self._first = self.settings, first
        if settings.folder is not None:
            folder = settings.folder.absolute()
            if folder in _in_use:
                raise Conflict(f"a second trace in {folder}", "trace one loop a job")
            _in_use.add(folder)
            self._sink = TraceWriter(folder, settings.determinism, settings.every, settings.keep, first)
            self._record(first)
            return first
        self._sink = _Replay(settings)
        if anew:
            self._sink.from_the_beginning()
        step = first if anew else self._sink.start(self.subject, first)
        self._first = step - self._sink.steps
        if self._sink.count == 0:
            self._record(step)
        return step

    def done(self, step: int, last: bool = False) -> None:
        """Record a leaf if one is due, when `step` steps are done in all; `last`: it is due whatever `every` says.

        Raises:
            ReplayDone: that was the last leaf of a replay.
        """
        if self._sink is None:
            return
        steps = step - self._first
        if last or steps % self.settings.every == 0 or steps == self._ends_at():
            self._record(step)

    def leave(self, whole: bool = True) -> None:
        """End the trace; `whole` keeps the leaf of a loop that was left by `break` or `return`.

        Raises:
            ReplayDone: in a replay, whose job ended before the last leaf that was asked for.
        """
        if self._deterministic:
            import torch

            torch.use_deterministic_algorithms(False)
            self._deterministic = False
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if whole and self._pending is not None:
            sink.append(*self._pending)
        sink.close()
        if whole and isinstance(sink, _Replay):
            raise ReplayDone(0)

    def leaf(self, tensors: Mapping[str, Any]) -> None:
        """Record a leaf of some tensors, for loops that are no training: a denoising step, a chunk of tokens.

        Every call is a leaf. Leaf 0 is what is registered at the first call. In a replay the job is done from its
        beginning, and only the leaves asked for are written.

        Raises:
            ReplayDone: that was the last leaf of a replay.
        """
        if not self.active:
            return
        if self._sink is None:
            self.settings = replace(self.settings, every=1)
            self.begin(anew=True)
        assert self._sink is not None
        index = self._sink.count
        self._add(index, pack({"format": LEAF_FORMAT, "leaf": index, "tensors": dict(tensors)}))

    def _ends_at(self) -> int | None:
        return self.settings.replay[2] if self.settings.replay else None

    def _record(self, step: int) -> None:
        self._add(step - self._first, pack(self.subject.capture(step)))

    def _add(self, steps: int, packed: Packed) -> None:
        assert self._sink is not None
        place = self._sink.place()
        self._sink.append(steps, packed.hash() if place is None else packed.write(place))

    def _set_aside(self, step: int) -> None:
        """Hash the state now, since what follows the loop may change it; `leave` decides whether it counts."""
        if self._sink is None:
            return
        packed, place = pack(self.subject.capture(step)), self._sink.place()
        self._pending = (step - self._first, packed.hash() if place is None else packed.write(place))


class _Replay:
    """Where a replay's leaves go: only those in (a, b] are written, and after b the process ends."""

    def __init__(self, settings: Settings) -> None:
        assert settings.replay is not None
        assert settings.replay_folder is not None
        self.after, self.until, _ = settings.replay
        self.folder, self.every = settings.replay_folder, settings.every
        self.count = self.after + 1
        self.steps = self.after * self.every
        (self.folder / "states").mkdir(parents=True, exist_ok=True)
        (self.folder / "leaves.bin").write_bytes(b"")
        if self.until == 0:
            self.count = 0

    def start(self, subject: Subject, first: int) -> int:
        """Put back the state to start from, and return its step; from leaf 0 the job's own beginning will do.

        Raises:
            InvalidInput: it is missing, damaged, or of another job.
            BadArtifact: put back, it is not the same state again.
        """
        path = self.folder / state_name(self.after)
        if self.after == 0 and not path.exists():
            return first
        if not path.exists():
            raise InvalidInput(f"no {path}", f"start from a kept state, or put that of leaf {self.after} there")
        state, packed = read_packed(path)
        expected = packed.hash()  # before the state is in use
        step = subject.restore(state)
        if pack(subject.capture(step)).hash() != expected:
            raise BadArtifact(
                f"the state of leaf {self.after} does not come back as it was saved",
                "register whatever changes with the steps, and nothing that cannot be put back",
            )
        return step

    def from_the_beginning(self) -> None:
        """Count leaves from 0, for a run that starts anew whatever `after` says."""
        self.count = self.steps = 0

    def place(self) -> Path | None:
        """Where the state of the next leaf is kept, if it is the last one."""
        return self.folder / state_name(self.count) if self.count == self.until else None

    def append(self, steps: int, leaf: bytes) -> None:
        """Write the leaf if it was asked for; end the process after the last. `steps` is in its state."""
        if self.count > self.after or self.until == 0:
            with (self.folder / "leaves.bin").open("ab") as file:
                file.write(leaf)
        self.count += 1
        if self.count > self.until:
            raise ReplayDone(0)

    def close(self) -> None:
        """Nothing is open."""


def _demand_determinism() -> bool:
    """Let PyTorch refuse operators that have no deterministic form; whether that was not so before."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call, unused-ignore]
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if torch.are_deterministic_algorithms_enabled():
        return False
    torch.use_deterministic_algorithms(True)
    return True
