"""The whole campaign of the economic simulator: every way of cheating at every rate and collusion that is claimed.

    python -m minga.sim.economics_campaign [--jobs 1000000] [--sample] [--out benches/results/economics.json]

Knows: cells, a result file. Does not know: what a cheat does. Rule: the file is written after every cell, and a
campaign that was stopped goes on from it as long as the sources, the jobs and the seed are the same. Exit status 1 when
a way of cheating does not lose in some cell; `--sample` (for CI: fewer jobs and cells) only when one pays.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

from minga.protocol import audit
from minga.sim import economics as eco
from minga.sim.campaign import PACKAGE, commit
from minga.sim.economics_breaks import lines
from minga.sim.economics_cheats import BY_NAME, CHEATS
from minga.sim.economics_world import RULES, Terms, drawn_jobs

OUT = Path("benches") / "results" / "economics.json"
SOURCES = ("protocol/audit.py", "protocol/audit_pay.py", "sim/economics*.py")
RATES = (200, 500, audit.floor_bps(audit.FACTOR), 1_000, 2_000)
COLLUSIONS = (0, 1_000, 2_000, 3_000)
SAMPLE_RATES, SAMPLE_COLLUSIONS, SAMPLE_JOBS = (audit.floor_bps(audit.FACTOR), 2_000), (0, 3_000), 50_000
WITHOUT_AT = {"funded": 2_000}
"""Rates, other than the default, at which it shows what a rule is for."""

SWEPT = "self-challenge"
"""The way that is swept over the borders: the strongest of the listed ones."""

Body = dict[str, Any]


def sources_hash() -> str:
    """SHA-256 over `SOURCES`, names and contents."""
    digest = sha256()
    for pattern in SOURCES:
        for path in sorted(PACKAGE.glob(pattern)):
            digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def terms_at(rate: int, collusion: int) -> Terms:
    """The terms of a cell: the stake that the formula asks, and the default network at its own rate."""
    return Terms.at(rate, collusion=collusion)


def cell(name: str, rate: int, collusion: int, seed: int, jobs: int) -> Body:
    """Play one way in one network."""
    terms, cheat = terms_at(rate, collusion), BY_NAME[name]
    row, tally = eco.cheat_row(cheat, eco.jobs_for(cheat, seed, jobs), terms, seed)
    return {
        "cheat": name, "rate_bps": rate, "collusion_bps": collusion, "factor": terms.factor, "jobs": row.n,
        "usd": round(row.usd, 4), "usd_half": round(row.usd_half, 4), "share": round(row.share, 5),
        "share_half": round(row.share_half, 5), "verdict": row.verdict, "audited": tally.audited, "games": tally.games,
        "convicted": tally.convicted, "gain_sha256": sha256(tally.gain.astype("<i8").tobytes()).hexdigest(),
    }  # fmt: skip


def start(out: Path, seed: int, jobs: int) -> Body:
    """What `out` has of this campaign, or a new start."""
    fresh: Body = {
        "bench": "economics", "sources_sha256": sources_hash(), "commit": commit(), "seed": seed, "jobs": jobs,
        "machine": {"python": platform.python_version(), "kernel": platform.release(), "numpy": _numpy()},
        "interval": "99.9 % (3.29 standard errors over independent providers)", "seconds": 0.0, "cells": [],
    }  # fmt: skip
    if not out.exists():
        return fresh
    old: Body = json.loads(out.read_text())
    same = all(old.get(key) == fresh[key] for key in ("sources_sha256", "seed", "jobs"))
    return old if same else fresh


def _numpy() -> str:
    import numpy

    return numpy.__version__


def run(out: Path, seed: int, jobs: int, rates: tuple[int, ...], collusions: tuple[int, ...]) -> Body:
    """Play every cell that `out` does not have yet, then the tables; the body, which is also in `out`."""
    body = start(out, seed, jobs)
    done = {(each["cheat"], each["rate_bps"], each["collusion_bps"]) for each in body["cells"]}
    for rate in rates:
        for collusion in collusions:
            for cheat in CHEATS:
                if (cheat.name, rate, collusion) in done:
                    continue
                began = monotonic()
                body["cells"].append(cell(cheat.name, rate, collusion, seed, jobs))
                _write(body, out, began)
            print(f"p {rate / 100:g} %, {collusion / 100:g} % corrupt: {_worst(body, rate, collusion)}", flush=True)
    began = monotonic()
    body |= tables(seed, jobs)
    body["not_losing"] = [
        [c["cheat"], c["rate_bps"], c["collusion_bps"]] for c in body["cells"] if c["verdict"] != "loses"
    ]
    body["paying"] = [[c["cheat"], c["rate_bps"], c["collusion_bps"]] for c in body["cells"] if c["verdict"] == "pays"]
    _write(body, out, began)
    return body


def _worst(body: Body, rate: int, collusion: int) -> str:
    cells = [c for c in body["cells"] if (c["rate_bps"], c["collusion_bps"]) == (rate, collusion)]
    worst = max(cells, key=lambda c: c["share"] + c["share_half"])
    return f"the best is {worst['cheat']}, {worst['share']:+.4f} ±{worst['share_half']:.4f} of the price"


def tables(seed: int, jobs: int) -> Body:
    """Everything beside the cells, at the default terms: those who check, each rule left out, sweeps, borders, fund."""
    usual = Terms()
    return {
        "validators": [_short(row) for row in eco.validator_rows(seed, jobs, usual)],
        "referees": [_short(row) for row in eco.referee_rows(seed, jobs, usual)],
        "referees_without_coherent": [
            _short(row) for row in eco.referee_rows(seed, jobs, Terms(rules=frozenset(RULES) - {"coherent"}))
        ],
        "sham_challenger": _short(eco.challenger_row(drawn_jobs(seed, jobs), usual, seed)),
        "without_rule": {rule: without(rule, seed, jobs) for rule in RULES},
        "sweep_collusion": sweep(seed, jobs, [{"collusion": 100 * c} for c in (30, 35, 40, 45, 50, 55)]),
        "sweep_saving": sweep(seed, jobs, [{"saving": 100 * g} for g in (90, 95, 98, 100, 105, 110)]),
        "fund": {key: round(value, 5) for key, value in eco.fund_per_dollar(drawn_jobs(seed, jobs), usual).items()},
        "borders": [asdict(line) for line in lines(usual)],
    }


def without(rule: str, seed: int, jobs: int) -> dict[str, float]:
    """The ways of cheating that pay when a rule is left out, with what they bring in shares of the price."""
    terms = Terms.at(WITHOUT_AT.get(rule, Terms().rate), rules=frozenset(RULES) - {rule})
    rows = [eco.cheat_row(cheat, eco.jobs_for(cheat, seed, jobs), terms, seed)[0] for cheat in CHEATS]
    return {row.name: round(row.share, 4) for row in rows if row.verdict == "pays"}


def sweep(seed: int, jobs: int, changes: list[dict[str, int]]) -> list[Body]:
    """`SWEPT` at the default rate, with one number changed at a time."""
    usual = drawn_jobs(seed, jobs)
    found = []
    for change in changes:
        terms = Terms(**change)  # type: ignore[arg-type]
        row, _ = eco.cheat_row(BY_NAME[SWEPT], usual, terms, seed)
        found.append({**change, "share": round(row.share, 4), "share_half": round(row.share_half, 4)})
    return found


def _short(row: eco.Row) -> Body:
    return {
        "name": row.name, "n": row.n, "usd": round(row.usd, 5), "usd_half": round(row.usd_half, 5),
        "verdict": row.verdict, "convicted": row.convicted,
    }  # fmt: skip


def _write(body: Body, out: Path, began: float) -> None:
    body["seconds"] = round(body["seconds"] + monotonic() - began, 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(body, indent=1) + "\n")
    part.replace(out)


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every way of cheating, at every rate and collusion that is claimed.")
    parser.add_argument("--seed", type=int, default=0, help="everything random comes from it (default 0)")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs for each cell (default 1000000)")
    parser.add_argument("--sample", action="store_true", help="what CI runs: fewer cells and jobs, another seed")
    parser.add_argument("--out", type=Path, default=OUT, help="result file, from which a stopped campaign goes on")
    given = parser.parse_args(arguments)
    if given.sample:
        body = run(given.out, given.seed + 1, SAMPLE_JOBS, SAMPLE_RATES, SAMPLE_COLLUSIONS)
    else:
        body = run(given.out, given.seed, given.jobs, RATES, COLLUSIONS)
    bad = body["paying"] if given.sample else body["not_losing"]
    for name, rate, collusion in bad:
        print(f"{name} does not lose at p {rate / 100:g} %, {collusion / 100:g} % corrupt", file=sys.stderr)
    print(f"{len(body['cells'])} cells of {body['jobs']} jobs in {body['seconds']} s: {len(bad)} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
