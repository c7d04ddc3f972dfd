"""Do a part of a traced job again, and say where it differs: what validator, challenger and referee have in common.

A replay is the job's own command with `MINGA_REPLAY` in its environment: the job builds its objects as ever, the trace
library puts the kept state back, and only the steps asked for are done. `replay_command` says what to run as data, so
that it can run in a sandbox; `run_replay` runs it as a plain process, which is for jobs that are trusted; `replay_here`
runs a function in this process, for tests and campaigns.

Knows: commands, folders, leaves. Does not know: sandboxes, chains, verdicts. Rule: the leaves of a replay are compared
byte for byte; a replay that could not be finished is an error and never a difference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minga.core.errors import InvalidInput, JobFailed
from minga.verify.leaves import TraceFacts, read_leaves, state_name

if TYPE_CHECKING:
    from minga.verify.trace import Settings

OUTPUT_CHARS = 2000

Source = Literal["kept", "given", "own"]
"""Where a replay begins: at a state kept in the trace; at one that was made by another replay, as a referee does who
looks at one leaf alone; as the job itself begins, without a state.
"""


@dataclass(frozen=True, slots=True)
class ReplayCommand:
    """What to run, as data: shell text, variables on top of the job's own, and which state file must lie in `folder`.

    `folder` is the replay's folder as the job sees it; `start` is the path in it of the state to start from, and None
    for a replay from the job's own beginning. `expected` is how many leaves `leaves.bin` has afterwards.
    """

    run: str
    environment: Mapping[str, str]
    folder: str
    start: str | None
    expected: int
    last: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay gave: leaves `after` + 1 … (leaf 0 alone, if that was asked for), and the last state's file."""

    after: int
    leaves: tuple[bytes, ...]
    state: Path


def start_for(leaf: int, keep: int) -> int:
    """The kept leaf from which to replay so that `leaf` is done again: the last one before it; 0 for leaf 0.

    Raises:
        InvalidInput: a negative leaf, or `keep` below 1.
    """
    if leaf < 0 or keep < 1:
        raise InvalidInput(f"leaf {leaf}, a state every {keep} leaves", "count leaves from 0, keep at least 1")
    return (leaf - 1) // keep * keep if leaf else 0


def first_difference(mine: Sequence[bytes], theirs: Sequence[bytes], after: int = 0) -> int | None:
    """The first leaf of the trace `theirs` that is not as in `mine`, which holds leaves `after` + 1 and following.

    None if all are the same. A trace that ends within `mine` differs at its end. To compare whole traces from leaf 0
    on, say `after=-1`.
    """
    for at, leaf in enumerate(mine, start=after + 1):
        if at >= len(theirs) or theirs[at] != leaf:
            return at
    return None


def replay_command(
    run: str, facts: TraceFacts, after: int, until: int, folder: str, source: Source = "kept"
) -> ReplayCommand:
    """How to do leaves `after` + 1 … `until` of a trace again; (0, 0) for leaf 0, as the job itself makes it.

    `run` is the job's command; `folder` the replay's folder as the job sees it; `source` where it begins.

    Raises:
        InvalidInput: there are no such leaves, or there is no such state at `after`.
    """
    zero = after == until == 0
    if not (zero or 0 <= after < until < facts.leaves):
        raise InvalidInput(f"no leaves ({after}, {until}] among {facts.leaves}", "count leaves from 0")
    if after % (facts.keep if source == "kept" else 1) or (source == "own" and after):
        fact = f"the state of leaf {after} is not kept, one in {facts.keep} is"
        raise InvalidInput(fact, "start from a kept state, or from one that is given")
    short = until == facts.leaves - 1 and facts.steps % facts.every
    environment = {
        "MINGA_TRACE_DIR": "",
        "MINGA_TRACE_EVERY": str(facts.every),
        "MINGA_TRACE_KEEP": str(facts.keep),
        "MINGA_TRACE_DETERMINISM": facts.determinism,
        "MINGA_REPLAY": f"{after}:{until}" + (f":{facts.steps}" if short and until else ""),
        "MINGA_REPLAY_DIR": folder,
    }
    start = None if zero or source == "own" else state_name(after)
    return ReplayCommand(run, environment, folder, start, max(1, until - after), state_name(until))


def run_replay(
    command: ReplayCommand,
    work: Path,
    folder: Path,
    start: Path | None,
    environment: Mapping[str, str] | None = None,
    seconds_max: float = 3600.0,
) -> Replayed:
    """Run a replay as a plain process in the folder `work`; blocking. `folder` is emptied first.

    `start` is the state file to start from, wherever it lies; `environment` the job's own variables (this process's by
    default). Not a sandbox: for jobs that are trusted.

    Raises:
        InvalidInput: a state to start from is needed and not given.
        JobFailed: the job failed, took too long, or did not do all leaves.
    """
    prepare(command, folder, start)
    variables = {**(os.environ if environment is None else environment), **command.environment}
    words = ["bash", "-c", command.run]
    try:
        ended = subprocess.run(
            words, cwd=work, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=seconds_max, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise JobFailed(f"a replay took over {seconds_max:g} seconds", "allow more time, or do fewer leaves") from None
    if ended.returncode:
        said = ended.stdout.decode(errors="replace")[-OUTPUT_CHARS:]
        raise JobFailed(f"a replay ended with exit code {ended.returncode}: {said}", "run the job as it was ordered")
    return collect(command, folder)


def prepare(command: ReplayCommand, folder: Path, start: Path | None) -> None:
    """Make the replay's folder, with the state to start from in it.

    Raises:
        InvalidInput: that state is needed and not given.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "states").mkdir(parents=True)
    if command.start is None:
        return
    if start is None:
        raise InvalidInput(f"no {command.start} to start from", "take it from the trace")
    shutil.copyfile(start, folder / command.start)


def collect(command: ReplayCommand, folder: Path) -> Replayed:
    """What a replay left in its folder.

    Raises:
        JobFailed: it did not do all leaves.
    """
    path = folder / "leaves.bin"
    leaves = read_leaves(path) if path.is_file() else []
    if len(leaves) != command.expected:
        raise JobFailed(
            f"a replay did {len(leaves)} leaves of {command.expected}",
            "the job ended early, or its trace does not say so",
        )
    after = int(command.environment["MINGA_REPLAY"].split(":")[0])
    return Replayed(after, tuple(leaves), folder / command.last)


def replay_here(
    job: Callable[[Settings], object], command: ReplayCommand, folder: Path, start: Path | None
) -> Replayed:
    """Run a replay in this process: `job` trains with `minga.verify.trace.TracedRun` under the settings it is given.

    Raises:
        InvalidInput, JobFailed: like `run_replay`.
    """
    from minga.verify.trace import ReplayDone, Settings

    prepare(command, folder, start)
    try:
        job(Settings.of({**command.environment, "MINGA_REPLAY_DIR": str(folder)}))
    except ReplayDone:
        pass
    return collect(command, folder)
