"""A campaign of small worlds, one for each seed: `make simulate`, or

    python -m minga.sim.campaign --seeds 100000 [--first 0] [--jobs 2] [--out results/simulate.json]

Knows: seeds, outcomes, a result file. Does not know: why a seed fails; `minga sim world --seed N` runs that one alone.
Rule: the file is written after every batch, and a campaign that was stopped goes on from it as long as the sources and
the first seed are the same. It is a result of the sources whose hash it names. Exit status 1 when a rule was broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

from minga.sim.shape import Outcome, shape_of
from minga.sim.world import run_world

PACKAGE = Path(__file__).resolve().parents[1]
OUT = Path("results") / "simulate.json"
BATCH = 256
SOURCES = (
    "core/codec.py", "core/crypto.py", "core/eip712.py", "core/units.py", "protocol/job*.py", "protocol/lease.py",
    "protocol/market.py", "protocol/messages.py", "protocol/pricing.py", "protocol/settlement.py", "protocol/stake.py",
    "provider/admission.py", "provider/agent.py", "provider/events.py", "provider/lease_state.py",
    "provider/metering.py", "provider/rules_*.py", "provider/turn.py", "sim/*.py",
)  # fmt: skip
"""What a result is a result of: the agents, the market, and the world around them."""

COUNTS = ("jobs", "attempts", "events", "steps", "checks", "messages", "transactions", "crashes")


@dataclass
class Tally:
    """What a campaign has found so far; `next_seed` is the first that was not run."""

    sources: str
    first_seed: int
    next_seed: int
    counts: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    traces: str = ""
    seconds: float = 0.0
    violations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take in the outcome of the next seed."""
        self.counts.update({name: getattr(outcome, name) for name in COUNTS})
        self.phases.update(outcome.phases)
        self.actors.update(outcome.actors)
        self.traces = sha256(f"{self.traces}{outcome.trace}".encode()).hexdigest()
        self.next_seed = outcome.seed + 1
        if outcome.violation:
            self.violations.append({"seed": outcome.seed, "what": outcome.violation})

    def as_dict(self) -> dict[str, Any]:
        """The result file."""
        return {
            "bench": "simulate",
            "sources_sha256": self.sources,
            "commit": commit(),
            "seeds": {"first": self.first_seed, "next": self.next_seed},
            "violations": len(self.violations),
            "violated": self.violations,
            "traces_sha256": self.traces,
            "seconds": round(self.seconds, 1),
            **{name: self.counts[name] for name in COUNTS},
            "phases": dict(sorted(self.phases.items())),
            "actors": dict(sorted(self.actors.items())),
        }


def sources_hash() -> str:
    """SHA-256 over `SOURCES`, names and contents."""
    names = {str(path.relative_to(PACKAGE)) for pattern in SOURCES for path in PACKAGE.glob(pattern)}
    return _hash_of(names, lambda name: (PACKAGE / name).read_bytes())


def sources_hash_at(revision: str) -> str | None:
    """The same of the files as they were at a commit; None where git's history has no such commit."""
    found = _git("ls-tree", "-r", "--name-only", "-z", revision, ".")
    if found is None:
        return None
    return _hash_of(found.decode().split("\0"), lambda name: _git("show", f"{revision}:./{name}") or b"")


def _hash_of(names: Iterable[str], read: Callable[[str], bytes]) -> str:
    """SHA-256 over those files that are of `SOURCES`, in its order, and of their names within one pattern."""
    digest = sha256()
    for pattern in SOURCES:
        depth = pattern.count("/")  # of fnmatch a star takes slashes too
        for name in sorted(name for name in names if fnmatchcase(name, pattern) and name.count("/") == depth):
            digest.update(name.encode() + b"\0" + read(name))
    return digest.hexdigest()


def _git(*words: str) -> bytes | None:
    """What git prints in the package's folder; None when it fails, or is not there."""
    try:
        found = subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, check=False)
    except OSError:
        return None
    return found.stdout if found.returncode == 0 else None


def commit() -> str:
    """The commit of the checkout, with `+` when files were changed since; empty outside one."""
    head, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--", "../../src")
    return (head or b"").decode().strip() + ("+" if head and changed else "")


def judged(seed: int) -> Outcome:
    """The outcome of a seed; an error of the world itself is a violation like any other."""
    try:
        return run_world(shape_of(seed))
    except Exception as error:  # a defect that no rule foresaw is a finding, with its seed
        return Outcome(seed, "", f"defect: {type(error).__name__}: {error}"[:500], [])


def resume(out: Path, first: int) -> Tally:
    """What `out` has of this campaign, or a new start."""
    fresh = Tally(sources_hash(), first, first)
    if not out.exists():
        return fresh
    old = json.loads(out.read_text())
    if (old["sources_sha256"], old["seeds"]["first"]) != (fresh.sources, first):
        return fresh
    counts = Counter({name: old[name] for name in COUNTS})
    return Tally(
        fresh.sources, first, old["seeds"]["next"], counts, Counter(old["phases"]), Counter(old["actors"]),
        old["traces_sha256"], old["seconds"], old["violated"],
    )  # fmt: skip


def outcomes(first: int, last: int, jobs: int) -> Iterator[Outcome]:
    """The outcomes of the seeds from `first` up to `last`, in order."""
    if jobs == 1:
        yield from map(judged, range(first, last))
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(judged, range(first, last), chunksize=8)


def run(seeds: int, first: int, out: Path, jobs: int = 1, all_of_them: bool = False) -> Tally:
    """Go on until `seeds` worlds were run in all, or a rule was broken; the tally, which is also in `out`."""
    tally = resume(out, first)
    started, before = monotonic(), tally.seconds
    if tally.violations and not all_of_them:
        return tally
    for outcome in outcomes(tally.next_seed, first + seeds, jobs):
        tally.add(outcome)
        tally.seconds = before + monotonic() - started
        broken = bool(outcome.violation) and not all_of_them
        if broken or tally.next_seed == first + seeds or (tally.next_seed - first) % BATCH == 0:
            _write(tally, out)
            print(f"seeds {first} … {outcome.seed}: {len(tally.violations)} violations", flush=True)
        if broken:
            break
    return tally


def _write(tally: Tally, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(tally.as_dict(), indent=1) + "\n")
    part.replace(out)


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Small worlds with the real agents inside, every rule checked.")
    parser.add_argument("--seeds", type=int, default=100_000, help="worlds in all (default 100000)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--out", type=Path, default=OUT, help="result file, from which a stopped campaign goes on")
    parser.add_argument("--keep-going", action="store_true", help="list every seed that fails, not only the first")
    given = parser.parse_args(arguments)
    tally = run(given.seeds, given.first, given.out, given.jobs, given.keep_going)
    for violated in tally.violations:
        print(f"seed {violated['seed']}: {violated['what']}", file=sys.stderr)
        print(f"replay: minga sim world --seed {violated['seed']}", file=sys.stderr)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
