"""A campaign of seasons of disputes: 100,000 games with players of every kind, in lockstep with the specification.

    python tests/contracts/campaign_disputes.py --games 100000 --seed 0 [--jobs 2] [--out FILE]

What it is: seasons (`dispute_players`), one seed each, on pyrevm. In each, some providers, challengers and up to a
third of the referees are silent, wrong, late or in league; the honest make their moves in time. Checked: both sides
agree on every call and on the whole state; the honest are never slashed, fined or out of a bond; money is conserved to
the unit; every game ends. What it does not know: why a seed fails; `--season SEED` runs that one alone and lets the
error out.

Rule: the result file is written after every batch, and a campaign that was stopped goes on from it, as long as sources
and first seed are the same. Exit status 1 when anything was violated.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
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

from dispute_players import GAMES, Season, season
from evm import ROOT, artifact, build_script

from minga.protocol.dispute import Outcome

OUT = ROOT / "benches" / "results" / "disputes.json"
BATCH = 32
MODULES = (
    "evm",
    "lockstep",
    "forgeries",
    "dispute_world",
    "dispute_invariants",
    "dispute_players",
    "campaign_disputes",
)
SPEC = (
    "settlement",
    "stake",
    "lease",
    "market",
    "merkle",
    "beacon",
    "dispute",
    "dispute_game",
    "dispute_pool",
    "disputes",
)


@dataclass
class Tally:
    """What a campaign has found so far; `next_seed` is the first that was not run."""

    sources: str
    first_seed: int
    next_seed: int
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def games(self) -> int:
        """Games played to their end."""
        return self.counts["games"]

    def as_dict(self) -> dict[str, Any]:
        """The result file."""
        answers = {name: n for name, n in sorted(self.counts.items()) if ": " in name}
        return {
            "bench": "disputes",
            "commit": commit(),
            "sources_sha256": self.sources,
            "bytecode_sha256": bytecode_hash(),
            "machine": f"{platform.machine()}, Python {platform.python_version()}, pyrevm",
            "seeds": {"first": self.first_seed, "next": self.next_seed},
            "games_per_seed": GAMES,
            **{name: n for name, n in sorted(self.counts.items()) if ": " not in name},
            "violations": len(self.violations),
            "violated": self.violations,
            "seconds": round(self.seconds, 1),
            "answers": answers,
        }


def counted(played: Season) -> Counter[str]:
    """What a season adds to the tally."""
    world = played.world
    tables = list(world.rules.tables.values())
    counts = Counter({"games": len(tables), "calls": world.calls}) + world.outcomes
    for table in tables:
        job = next(job for job in world.jobs if job.commitment.channel == table.channel)
        honest = played.is_honest(job.provider)
        counts[table.outcome.name.lower()] += 1
        counts["games_with_an_honest_provider"] += honest
        counts["games_with_an_honest_challenger"] += table.challenger == played.validator.address
        counts["appealed"] += bool(table.appellant)
        overturned = table.appellant and table.votings[0].provider_right != table.votings[1].provider_right
        counts["juries_overturned"] += bool(overturned and table.outcome is not Outcome.VOID)
    counts["seasons_with_colluding_referees"] += bool(played.colluders)
    return counts


def judged(seed: int) -> tuple[int, Counter[str], str]:
    """A season whose failure is a sentence."""
    try:
        return seed, counted(season(seed)), ""
    except Exception as error:  # whatever a broken contract makes of the test is a finding, with its seed
        return seed, Counter(), f"{type(error).__name__}: {error}"


def commit() -> str:
    """The commit that is checked out; empty where there is no git."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def sources_hash() -> str:
    """What a result is a result of: the contracts, the specification and this campaign."""
    digest = sha256(build_script().source_hash().encode())
    here = [Path(__file__).parent / f"{name}.py" for name in MODULES]
    for path in [*here, *(ROOT / "src" / "minga" / "protocol" / f"{name}.py" for name in SPEC)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def bytecode_hash() -> str:
    """The code that was run, without the compiler's trailer: a changed comment is no other code."""
    digest = sha256()
    for name in ("Disputes", "BlockBeacon", "Market", "Registry"):
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
    kept = {name: n for name, n in old.items() if isinstance(n, int) and name not in ("violations", "games_per_seed")}
    return Tally(
        fresh.sources, seed, old["seeds"]["next"], old["seconds"], Counter(kept | old["answers"]), old["violated"]
    )


def batches(tally: Tally, jobs: int) -> Iterator[list[tuple[int, Counter[str], str]]]:
    """Results of the seeds from `next_seed` on, in order."""
    if jobs == 1:
        while True:
            yield [judged(seed) for seed in range(tally.next_seed, tally.next_seed + BATCH)]
    with get_context("spawn").Pool(jobs) as pool:
        while True:
            yield pool.map(judged, range(tally.next_seed, tally.next_seed + BATCH), chunksize=2)


def run(games: int, seed: int, out: Path, jobs: int = 1) -> Tally:
    """Go on until `games` games were played in all; the tally, which is also in `out`."""
    tally = resume(out, seed)
    stream = batches(tally, jobs)
    while tally.games < games and not tally.violations:
        started = monotonic()
        for one, counts, violation in next(stream):
            tally.counts += counts
            tally.next_seed = one + 1
            if violation:
                tally.violations.append({"seed": one, "what": violation})
        tally.seconds += monotonic() - started
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(".part")
        part.write_text(json.dumps(tally.as_dict(), indent=1) + "\n")
        part.replace(out)
        print(
            f"{tally.games} games, seeds {seed} … {tally.next_seed - 1}, {len(tally.violations)} violations", flush=True
        )
    return tally


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Seasons of disputes with players of every kind.")
    parser.add_argument("--games", type=int, default=100_000, help="games in all (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--out", type=Path, default=OUT, help="result file, from which a stopped campaign goes on")
    parser.add_argument("--season", type=int, help="run this one seed and show its error")
    given = parser.parse_args(arguments)
    if given.season is not None:
        print(f"seed {given.season}: {dict(counted(season(given.season)))}")
        return 0
    tally = run(given.games, given.seed, given.out, given.jobs)
    for violated in tally.violations:
        print(f"seed {violated['seed']}: {violated['what']}", file=sys.stderr)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
