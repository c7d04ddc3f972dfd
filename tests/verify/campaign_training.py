"""A campaign against traces of trainings: every cheat is caught at its step, and nobody honest is flagged.

    python tests/verify/campaign_training.py [--seeds 100] [--honest 3000] [--first 0] [--jobs 1] [--out FILE]

For each of the first `--seeds` seeds, an honest run of 200 steps, a leaf each, and each kind of cheat once, from a
step that the seed draws. The cheat commits to the root over its leaves. The challenger re-executes the segment between
two kept states in which the cheat began, compares leaves, and plays the game to the end; the referee takes the state
that the challenger made, if it has the hash that was committed before the disputed leaf, and does that one step. Where
leaf 0 itself is wrong, the referee lets the job make it.

For each of `--honest` seeds, a shorter honest run (40 steps, 20 leaves), which is audited: leaf 0, a random segment of
5 leaves, and a verdict on a random leaf, for which the referee does it again.

What costs nothing but time is not done twice. Leaves before a cheat's first step are those of the honest run, of which
they are part; a challenger's segment of a seed is computed once for all kinds; and only one seed in ten has its cheats
computed to their end: of the others, what a cheat does after the segment of its first step is filled with hashes of
nothing, since what comes after the first wrong leaf decides nothing.

Knows: nothing of why two hashes differ. Rule: what must be found follows from the cheat (`Cheat.at`), never from the
leaves; the file is written after every batch, and a campaign that was stopped goes on from it as long as sources and
first seed are the same. Exit status 1 when a cheat was missed, or found elsewhere, or anybody honest was flagged.
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from attacks import CHEATS, STEPS, Cheat, Tiny

from minga.core.errors import InvalidInput
from minga.protocol.merkle import ARITY, Tree
from minga.protocol.players import Challenger, Game, play
from minga.verify.leaves import read_trace, state_name
from minga.verify.replay import Replayed, first_difference, replay_command, replay_here, start_for
from minga.verify.state import file_hash
from minga.verify.trace import Settings

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benches" / "results" / "training_attacks.json"
KEEP = 20
HONEST_STEPS, HONEST_EVERY, HONEST_KEEP = 40, 2, 5
WHOLE_EVERY = 10
"""Of so many attacked seeds one has its cheats computed to their end."""
BATCH = 20
COMMITTED = ("swapped initial weights", "replay of an old run", "copied root")
"""Kinds that commit to something else than they computed: leaf 0 of all of them is wrong, so leaf 1 is disputed."""
KINDS = (*CHEATS, *COMMITTED)
COUNTS = ("trials", "caught", "exact", "moves_max", "referee_steps_max")
MOVES_MAX = math.ceil(math.log2(STEPS))
SOURCES = (
    "src/minga/protocol/merkle.py", "src/minga/protocol/players.py", "src/minga/verify/state.py",
    "src/minga/verify/capture.py", "src/minga/verify/leaves.py", "src/minga/verify/trace.py",
    "src/minga/verify/replay.py", "tests/verify/attacks.py", "tests/verify/campaign_training.py",
)  # fmt: skip


@dataclass
class Trial:
    """One cheat: `caught` when the referee's verdict was against it, `exact` when at the leaf after its first step."""

    kind: str
    caught: bool
    exact: bool
    moves: int
    steps: int
    cpu_s: float


@dataclass
class Outcome:
    """What a seed gave. `cpu_s` is that of its whole honest run of 200 steps, traced (0 if there was none); `spent_s`
    that of everything.
    """

    seed: int
    trials: list[Trial] = field(default_factory=list)
    cpu_s: float = 0.0
    audits: int = 0
    flagged: int = 0
    error: str = ""
    spent_s: float = 0.0


@dataclass
class Tally:
    """What a campaign has found so far; `next` is the first seed that was not run.

    `referee_cpu` counts disputes by what the referee's CPU seconds were of the whole run's, in per mille, rounded up.
    """

    sources: str
    first: int
    next: int
    attacks: dict[str, dict[str, int]] = field(default_factory=dict)
    honest_seeds: int = 0
    audits: int = 0
    flagged: int = 0
    referee_cpu: Counter[int] = field(default_factory=Counter)
    cpu_s: float = 0.0
    faults: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take in the outcome of the next seed."""
        for trial in outcome.trials:
            row = self.attacks.setdefault(trial.kind, dict.fromkeys(COUNTS, 0))
            row["trials"] += 1
            row["caught"] += trial.caught
            row["exact"] += trial.exact
            row["moves_max"] = max(row["moves_max"], trial.moves)
            row["referee_steps_max"] = max(row["referee_steps_max"], trial.steps)
            if not (trial.caught and trial.exact and trial.moves <= MOVES_MAX):
                self.faults.append({"seed": outcome.seed, "what": asdict(trial)})
            self.referee_cpu[math.ceil(1000 * trial.cpu_s / outcome.cpu_s)] += 1
        self.honest_seeds += outcome.audits > 0
        self.audits += outcome.audits
        self.flagged += outcome.flagged
        if outcome.flagged or outcome.error:
            self.faults.append({"seed": outcome.seed, "what": outcome.error or f"{outcome.flagged} audits flagged"})
        self.cpu_s += outcome.spent_s
        self.next = outcome.seed + 1

    def total(self, name: str) -> int:
        """A count over all kinds."""
        return sum(row[name] for row in self.attacks.values())

    def most(self, name: str) -> int:
        """The largest of all kinds."""
        return max((row[name] for row in self.attacks.values()), default=0)

    def as_dict(self) -> dict[str, Any]:
        """The result file."""
        shares = sorted(self.referee_cpu.elements())
        clean = self.honest_seeds and not self.flagged
        return {
            "bench": "training_attacks",
            "sources_sha256": self.sources,
            "commit": commit(),
            "machine": machine(),
            "seeds": {"first": self.first, "next": self.next},
            "steps": STEPS,
            "moves_allowed": MOVES_MAX,
            "kinds": len(self.attacks),
            "trials": self.total("trials"),
            "caught": self.total("caught"),
            "exact": self.total("exact"),
            "moves_max": self.most("moves_max"),
            "referee_steps_share_max": self.most("referee_steps_max") / STEPS,
            "referee_cpu_permille_median": shares[len(shares) // 2] if shares else None,
            "referee_cpu_permille": {str(share): count for share, count in sorted(self.referee_cpu.items())},
            "honest": {
                "seeds": self.honest_seeds, "audits": self.audits, "flagged": self.flagged, "steps": HONEST_STEPS,
                "rate_below_at_95_percent": 3 / self.honest_seeds if clean else None,
            },
            "cpu_seconds": round(self.cpu_s, 1),
            "attacks": dict(sorted(self.attacks.items())),
            "faults": self.faults,
        }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the players


class Work:
    """One seed's order and its honest run, in a folder of its own."""

    def __init__(self, seed: int, folder: Path, steps: int = STEPS, every: int = 1, keep: int = KEEP) -> None:
        self.seed, self.folder, self.steps = seed, folder, steps
        started = process_time()
        Tiny(seed).train(Settings(folder / "trace", every, keep), steps)
        self.cpu_s = process_time() - started
        self.facts, self.leaves = read_trace(folder / "trace")
        self._own: dict[int, tuple[bytes, ...]] = {}

    def kept(self, leaf: int) -> Path:
        """The file of a kept state."""
        return self.folder / "trace" / state_name(leaf)

    def again(self, after: int, until: int, start: Path | None, place: str, cheat: Cheat | None = None) -> Replayed:
        """Do leaves of this order again, from other weights than it ordered unless a state says otherwise."""
        zero = until == 0
        command = replay_command("", self.facts, after, until, "", "kept" if zero else "given")
        seed = self.seed if zero else self.seed + 1_000_003
        return replay_here(lambda s: Tiny(seed, cheat).train(s, self.steps), command, self.folder / place, start)

    def segment(self, after: int) -> tuple[bytes, ...]:
        """The leaves from a kept state to the next, as a challenger computes them."""
        if after not in self._own:
            until = min(after + self.facts.keep, self.facts.leaves - 1)
            self._own[after] = self.again(after, until, self.kept(after), "own").leaves
        return self._own[after]

    def cheated(self, after: int, cheat: Cheat | None, start: Path) -> list[bytes]:
        """The leaves from kept leaf `after` on of a provider that cheats, or starts from another state."""
        last = self.facts.leaves - 1
        until = last if self.seed % WHOLE_EVERY == 0 else min(after + self.facts.keep, last)
        found = list(self.again(after, until, start, "cheat", cheat).leaves)
        return found + [sha256(found[-1] + bytes([at % 256])).digest() for at in range(last - until)]


@dataclass(frozen=True)
class Found:
    """How a dispute ended: the leaf in dispute (None: nobody could say that anything is wrong), moves, the verdict."""

    leaf: int | None
    moves: int
    follows: bool
    steps: int = 0
    cpu_s: float = 0.0


def dispute(work: Work, committed: Sequence[bytes], segment: int) -> Found:
    """Audit the segment that begins at kept leaf `segment` of a commitment, and play if something is wrong."""
    zero = work.again(0, 0, None, "zero").leaves[0]
    if zero != committed[0]:
        known = [zero, *committed[1:2]]  # leaf 0 is all that need be known
    else:
        own = work.segment(segment)
        if first_difference(own, committed, segment) is None:
            return Found(None, 0, True)
        known = [*committed[: segment + 1], *own]
    leaf, moves = play(Tree(committed), Challenger(len(committed), known))
    assert leaf is not None
    return judged(work, committed, leaf, moves)


def judged(work: Work, committed: Sequence[bytes], leaf: int, moves: int) -> Found:
    """The referee's verdict on one leaf: does it follow from the one before it?"""
    start = start_for(leaf, work.facts.keep)
    before = work.kept(start)
    if start < leaf - 1:  # the challenger serves the state, the referee believes its hash alone
        before = work.again(start, leaf - 1, before, "served").state
    started = process_time()
    follows = leaf > 1 or work.again(0, 0, None, "zero").leaves[0] == committed[0]
    steps = 0
    if follows:
        assert file_hash(before) == committed[leaf - 1], "the challenger serves another state than was committed"
        follows = work.again(leaf - 1, leaf, before, "referee").leaves[0] == committed[leaf]
        steps = min(work.facts.every, work.steps - (leaf - 1) * work.facts.every)
    return Found(leaf, moves, follows, steps, process_time() - started)


def cannot_open(root: bytes, dice: Random) -> bool:
    """Whether somebody who copied a root, but has no leaves, is stopped at its first move whatever it shows."""
    forged = [dice.randbytes(32) for _ in range(ARITY)]
    try:
        Game(STEPS + 1, root).after(forged, 0)
    except InvalidInput:
        return True
    return False


def committed_by(kind: str, work: Work, other: Work) -> list[bytes]:
    """The leaves of those who commit to what they did not compute; `other` is an honest run of other weights."""
    if kind == "swapped initial weights":
        return [other.leaves[0], *work.cheated(0, None, other.kept(0))]
    return list(other.leaves)


def attacked(work: Work, other: Work, kind: str, dice: Random) -> Trial:
    """One cheat, from its commitment to the verdict."""
    if kind in CHEATS:
        at = dice.randrange(STEPS)
        if kind == "dropped optimiser state":  # at step 0 there is none to drop
            at = max(1, at)
        start = at // KEEP * KEEP
        leaves = work.leaves[: start + 1] + work.cheated(start, Cheat(kind, at), work.kept(start))
        expected = at + 1
    else:
        at, leaves, expected = 0, committed_by(kind, work, other), 1
    found = dispute(work, leaves, at // KEEP * KEEP)
    caught = found.leaf is not None and not found.follows
    if kind == "copied root":
        caught = caught and cannot_open(Tree(leaves).root, dice)
    return Trial(kind, caught, found.leaf == expected, found.moves, found.steps, found.cpu_s)


def audited(work: Work, dice: Random) -> tuple[int, int]:
    """Audits of an honest commitment, and how many flagged it: leaf 0 with a segment, and a dispute over one leaf."""
    keep, last = work.facts.keep, work.facts.leaves - 1
    found = dispute(work, work.leaves, dice.randrange(0, last, keep))
    verdict = judged(work, work.leaves, dice.randint(1, last), 0)
    return 2, (found.leaf is not None) + (not verdict.follows)


@cache
def another() -> Work:
    """An honest run of other weights and dice, once for each process."""
    folder = Path(tempfile.mkdtemp(prefix="minga-campaign-", dir=memory()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Work(500_000_000, folder)


def memory() -> str | None:
    """A folder in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def outcome(job: tuple[int, bool, bool]) -> Outcome:
    """Everything of a seed: (seed, whether it is attacked, whether it is audited)."""
    seed, attack, honest = job
    torch.set_num_threads(1)
    result, dice, started = Outcome(seed), Random(seed), process_time()
    with tempfile.TemporaryDirectory(dir=memory()) as text:
        folder = Path(text)
        try:
            if honest:
                work = Work(seed, folder / "audited", HONEST_STEPS, HONEST_EVERY, HONEST_KEEP)
                result.audits, result.flagged = audited(work, dice)
            if attack:
                work, other = Work(seed, folder / "work"), another()
                result.cpu_s = work.cpu_s
                result.trials = [attacked(work, other, kind, dice) for kind in KINDS]
        except Exception as error:  # whatever breaks a trial is a finding, with its seed
            result.error = f"{type(error).__name__}: {error}"[:500]
    result.spent_s = process_time() - started
    return result


# -------------------------------------------------------------------------------------------------------- the campaign


def sources_hash() -> str:
    """What a result is a result of."""
    digest = sha256()
    for name in SOURCES:
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return digest.hexdigest()


def commit() -> str:
    """The commit of the checkout, with `+` when files were changed since; empty outside one."""
    asked = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--", "src", "tests"])
    head, dirty = (
        subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() for words in asked
    )
    return head + ("+" if head and dirty else "")


def machine() -> dict[str, Any]:
    """What bit-exactness hangs on here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    return {
        "cpu": model, "cores": os.cpu_count(), "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip


def resume(out: Path, first: int) -> Tally:
    """What `out` has of this campaign, or a new start."""
    fresh = Tally(sources_hash(), first, first)
    if not out.exists():
        return fresh
    old = json.loads(out.read_text())
    if (old["sources_sha256"], old["seeds"]["first"]) != (fresh.sources, first):
        return fresh
    honest, shares = old["honest"], Counter({int(share): n for share, n in old["referee_cpu_permille"].items()})
    return Tally(
        fresh.sources, first, old["seeds"]["next"], old["attacks"], honest["seeds"], honest["audits"],
        honest["flagged"], shares, old["cpu_seconds"], old["faults"],
    )  # fmt: skip


def outcomes(jobs: list[tuple[int, bool, bool]], processes: int) -> Iterator[Outcome]:
    """The outcomes in order."""
    if processes == 1:
        yield from map(outcome, jobs)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(outcome, jobs, chunksize=4)


def run(seeds: int, honest: int, first: int, out: Path, processes: int = 1) -> Tally:
    """Go on until all was done; the tally, which is also in `out`."""
    tally = resume(out, first)
    last = first + max(seeds, honest)
    jobs = [(seed, seed < first + seeds, seed < first + honest) for seed in range(tally.next, last)]
    for found in outcomes(jobs, processes):
        tally.add(found)
        if (tally.next - first) % BATCH == 0 or tally.next == last:
            write(out, tally.as_dict())
            print(
                f"seeds {first} … {found.seed}: {tally.total('exact')} of {tally.total('trials')} at their step, "
                f"{tally.flagged} of {tally.honest_seeds} honest flagged",
                flush=True,
            )
    return tally


def write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Cheats at training against traces, and honest runs against audits.")
    parser.add_argument("--seeds", type=int, default=100, help="seeds that are attacked, each in every way")
    parser.add_argument("--honest", type=int, default=3000, help="seeds whose honest run is audited")
    parser.add_argument("--first", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--out", type=Path, default=OUT, help="result file")
    given = parser.parse_args(arguments)
    tally = run(given.seeds, given.honest, given.first, given.out, given.jobs)
    for fault in tally.faults:
        print(f"seed {fault['seed']}: {fault['what']}", file=sys.stderr)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
