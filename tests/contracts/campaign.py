"""A campaign of random calls against the compiled contracts: `make campaign`, or

    python tests/contracts/campaign.py --calls 1000000 --seed 0 [--jobs 2] [--out FILE]

What it is: episodes, one seed each, of random schedules by many tenants, providers and arbiters on pyrevm, in lockstep
with the specification, with the ten invariants checked every 25 steps and at the end. What it does not know: why a
seed fails; `--episode SEED` runs that one alone and lets the error out.

Rule: the result file is written after every batch, and a campaign that was stopped goes on from it, as long as sources
and first seed are the same. Exit status 1 when anything was violated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import invariants
from evm import ROOT, Revm, artifact, build_script
from forgeries import RandomDice
from lockstep import World
from schedule import DECK

OUT = ROOT / "benches" / "results" / "campaign.json"
STEPS = 300
CHECK_EVERY = 25
BATCH = 64
FEES = (0, 1, 100, 300)


@dataclass
class Tally:
    """What a campaign has found so far; `next_seed` is the first that was not run."""

    sources: str
    first_seed: int
    next_seed: int
    calls: int = 0
    checks: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The result file."""
        went = sum(count for reason, count in self.outcomes.items() if reason.startswith("ok"))
        return {
            "bench": "campaign",
            "sources_sha256": self.sources,
            "bytecode_sha256": bytecode_hash(),
            "seeds": {"first": self.first_seed, "next": self.next_seed},
            "steps_per_seed": STEPS,
            "calls": self.calls,
            "calls_that_went_through": went,
            "invariant_checks": self.checks,
            "violations": len(self.violations),
            "violated": self.violations,
            "seconds": round(self.seconds, 1),
            "reverts": {reason: n for reason, n in sorted(self.outcomes.items()) if not reason.startswith("ok")},
            "accepted": {reason[4:]: n for reason, n in sorted(self.outcomes.items()) if reason.startswith("ok")},
        }


def episode(seed: int) -> tuple[int, int, Counter[str]]:
    """Run one seed: calls made, checks made, outcomes.

    Raises:
        AssertionError: the contracts differ from the specification, or an invariant is broken.
    """
    dice = RandomDice(seed)
    world = World(Revm(), freezing=bool(dice.integer(0, 1)), fee_bps=dice.choice(FEES))
    checks = 0
    for step in range(1, STEPS + 1):
        dice.choice(DECK)(world, dice)
        if step % CHECK_EVERY == 0:
            invariants.agreement(world)
            for check in invariants.INVARIANTS:
                check(world)
            checks += 1 + len(invariants.INVARIANTS)
    return world.calls, checks, world.outcomes


def judged(seed: int) -> tuple[int, int, int, Counter[str], str]:
    """An episode whose failure is a sentence."""
    try:
        return seed, *episode(seed), ""
    except Exception as error:  # whatever a broken contract makes of the test is a finding, with its seed
        return seed, 0, 0, Counter(), f"{type(error).__name__}: {error}"


def sources_hash() -> str:
    """What a result is a result of: the contracts, the specification and this campaign."""
    digest = sha256(build_script().source_hash().encode())
    here = sorted(Path(__file__).parent.glob("*.py"))
    spec = [ROOT / "src" / "minga" / "protocol" / f"{n}.py" for n in ("settlement", "stake", "lease", "market")]
    for path in [*(p for p in here if not p.name.startswith("test_")), *spec]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def bytecode_hash() -> str:
    """The code that was run, without the compiler's trailer: a changed comment is no other code."""
    digest = sha256()
    for name in ("Market", "Registry"):
        code = bytes.fromhex(artifact(name)["bytecode"][2:])
        digest.update(code[: -int.from_bytes(code[-2:], "big")])
    return digest.hexdigest()


def resume(out: Path, seed: int) -> Tally:
    """What `out` has of this campaign, or a new start."""
    fresh = Tally(sources_hash(), seed, seed)
    if not out.exists():
        return fresh
    old = json.loads(out.read_text())
    if (old["sources_sha256"], old["seeds"]["first"]) != (fresh.sources, seed):
        return fresh
    outcomes = Counter(old["reverts"]) + Counter({f"ok: {name}": n for name, n in old["accepted"].items()})
    return Tally(
        fresh.sources, seed, old["seeds"]["next"], old["calls"], old["invariant_checks"], old["seconds"], outcomes,
        old["violated"],
    )  # fmt: skip


def batches(tally: Tally, jobs: int) -> Iterator[list[tuple[int, int, int, Counter[str], str]]]:
    """Results of the seeds from `next_seed` on, in order."""
    if jobs == 1:
        while True:
            yield [judged(seed) for seed in range(tally.next_seed, tally.next_seed + BATCH)]
    with get_context("spawn").Pool(jobs) as pool:
        while True:
            yield pool.map(judged, range(tally.next_seed, tally.next_seed + BATCH), chunksize=4)


def run(calls: int, seed: int, out: Path, jobs: int = 1) -> Tally:
    """Go on until `calls` calls were made in all; the tally, which is also in `out`."""
    tally = resume(out, seed)
    stream = batches(tally, jobs)
    while tally.calls < calls and not tally.violations:
        started = monotonic()
        for one, made, checks, outcomes, violation in next(stream):
            tally.calls, tally.checks = tally.calls + made, tally.checks + checks
            tally.outcomes += outcomes
            tally.next_seed = one + 1
            if violation:
                tally.violations.append({"seed": one, "what": violation})
        tally.seconds += monotonic() - started
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(".part")
        part.write_text(json.dumps(tally.as_dict(), indent=1) + "\n")
        part.replace(out)
        print(
            f"{tally.calls} calls, seeds {seed} … {tally.next_seed - 1}, {len(tally.violations)} violations", flush=True
        )
    return tally


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Random calls against the contracts, with every invariant checked.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="calls in all (default 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--out", type=Path, default=OUT, help="result file, from which a stopped campaign goes on")
    parser.add_argument("--episode", type=int, help="run this one seed and show its error")
    given = parser.parse_args(arguments)
    if given.episode is not None:
        calls, checks, _ = episode(given.episode)
        print(f"seed {given.episode}: {calls} calls, {checks} checks, no violation")
        return 0
    tally = run(given.calls, given.seed, given.out, given.jobs)
    for violated in tally.violations:
        print(f"seed {violated['seed']}: {violated['what']}", file=sys.stderr)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
