"""The economics of audits and disputes, simulated: does any way of cheating pay, and is honest checking worth it?

Knows: tables. Does not know: the machinery (`economics_play`, `economics_checks`, `economics_games`). Needs numpy. One
seed is one outcome; its hash is over every whole number that came out.

Rule: a verdict needs its whole interval (3.29 standard errors, 99.9 %) on one side of zero; else it is *open*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from minga.core.units import BPS
from minga.sim import economics_checks as checks
from minga.sim import economics_games as games
from minga.sim.economics_cheats import CHEATS, Cheat
from minga.sim.economics_play import Tally, play
from minga.sim.economics_world import CHEAPEST, DOLLAR, SEATS, Floats, Jobs, Terms, drawn_jobs

Z = 3.29
DEAR = 32 * CHEAPEST
OCTAVES = 9
AUDITS_OF_A_NAME = 500
"""Audits that a validator's name lives for; what is retained at its end is lost."""

IDLE = ("lazy", "copying", "accusing", "always-convict", "always-acquit", "coin", "silent")
"""Ways of checking without work: they should not pay at all."""

Verdict = Literal["loses", "pays", "open"]


@dataclass(frozen=True, slots=True)
class Row:
    """What one way brought for each job, audit, seat or game: dollars, with half of the interval.

    Cheats are counted against honest play, also in shares of the job's price; checks are counted against nothing.
    """

    name: str
    story: str
    n: int
    usd: float
    usd_half: float
    share: float = 0.0
    share_half: float = 0.0
    verdict: Verdict = "open"
    convicted: int = 0
    tests: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome: cheats, validators, referees, a challenger of honest work; `digest` names it."""

    seed: int
    jobs: int
    terms: Terms
    cheats: tuple[Row, ...]
    validators: tuple[Row, ...]
    referees: tuple[Row, ...]
    challenger: Row
    digest: str

    @property
    def paying(self) -> tuple[str, ...]:
        """Names of the ways that pay, but should not: cheats, idle checks, whatever clearly beats honest checking."""
        bad = [row.name for row in (*self.cheats, self.challenger) if row.verdict == "pays"]
        for rows in (self.validators, self.referees):
            honest = rows[0]
            bad += [honest.name] if honest.verdict != "pays" else []
            for row in rows[1:]:
                beats = row.usd - row.usd_half > honest.usd + honest.usd_half
                bad += [row.name] if beats or (row.name in IDLE and row.verdict == "pays") else []
        return tuple(bad)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        body = asdict(self)
        body["terms"]["rules"] = sorted(self.terms.rules)
        return {**body, "paying": list(self.paying)}


def spread(values: Floats) -> tuple[float, float]:
    """Mean, and half of its interval; providers are independent, the jobs of one are not: one value each."""
    if values.size < 2:
        return float(values.mean()), float("inf")
    return float(values.mean()), float(Z * values.std(ddof=1) / np.sqrt(values.size))


def verdict(mean: float, half: float) -> Verdict:
    """Which side of zero an interval is on."""
    return "loses" if mean + half < 0 else "pays" if mean - half > 0 else "open"


def cheat_row(cheat: Cheat, jobs: Jobs, terms: Terms, seed: int) -> tuple[Row, Tally]:
    """Play one way of cheating; its row and its tally. The verdict is about shares of the price, which vary less."""
    tally = play(cheat, jobs, terms, seed)
    usd, usd_half = spread(tally.gain.mean(axis=1) / DOLLAR)
    share, share_half = spread((tally.gain / jobs.price).mean(axis=1))
    found = verdict(share, share_half)
    n = int(tally.gain.size)
    row = Row(cheat.name, cheat.story, n, usd, usd_half, share, share_half, found, tally.convicted, cheat.tests)
    return row, tally


def jobs_for(cheat: Cheat, seed: int, jobs: int) -> Jobs:
    """The jobs that a way is played on: who stalls sells dear jobs, with a stake that is just enough for one."""
    if cheat.stalls:
        return drawn_jobs(seed, jobs, level=True, least=DEAR)
    return drawn_jobs(seed, jobs, octaves=0 if cheat.small else OCTAVES)


def challenger_row(jobs: Jobs, terms: Terms, seed: int, appeals: bool = True) -> Row:
    """Sham challenges of honest work, to take half of an honest provider's stake with the help of corrupt referees.

    Args:
        appeals: whether a provider that a jury has convicted appeals; one that is away does not.
    """
    dice = np.random.default_rng([seed, 5])
    exposure, price = jobs.deposit.ravel(), jobs.price.ravel()
    ruling = games.accuse_honest(dice, price.size, terms, appeals)
    payout = games.settle(ruling, exposure, exposure * terms.factor, price, price * 0, terms)
    own_seats = payout.seats * terms.corrupt_seats // SEATS
    gain = np.where(ruling.convicted, payout.challenger, -terms.bond) + own_seats
    mean, half = spread(gain / DOLLAR)
    story = "challenges honest work; the corrupt referees are with it"
    convicted = int(ruling.convicted.sum())
    return Row("sham-challenger", story, price.size, mean, half, verdict=verdict(mean, half), convicted=convicted)


def validator_rows(seed: int, audits: int, terms: Terms) -> list[Row]:
    """What each way of auditing earns for each audit."""
    jobs = drawn_jobs(seed + 2, audits, steps=AUDITS_OF_A_NAME)
    rows = []
    for way in checks.VALIDATORS:
        earned = checks.audit_for_pay(way, jobs, terms, seed)
        mean, half = spread(earned.profit / DOLLAR)
        rows.append(Row(way.name, way.story, int(jobs.price.size), mean, half, verdict=verdict(mean, half)))
    return rows


def referee_rows(seed: int, cases: int, terms: Terms, guilty: int = 9_000) -> list[Row]:
    """What each way of voting earns for each seat, where `guilty` basis points of the accused providers are."""
    rows = []
    for way in checks.REFEREES:
        earned = checks.sit_for_pay(way, cases, guilty, terms, seed)
        mean, half = spread(earned.profit / DOLLAR)
        half = max(half, 1e-9)
        rows.append(Row(way, "", cases, mean, half, verdict=verdict(mean, half)))
    return rows


def report(seed: int, jobs: int, terms: Terms, cheats: Iterable[Cheat] = CHEATS) -> Report:
    """Simulate everything: `jobs` jobs for each way of cheating, as many audits, seats and sham challenges."""
    digest = sha256(repr((seed, jobs, terms.rate, terms.factor, terms.collusion, sorted(terms.rules))).encode())
    rows = []
    for cheat in cheats:
        row, tally = cheat_row(cheat, jobs_for(cheat, seed, jobs), terms, seed)
        digest.update(cheat.name.encode() + tally.gain.astype("<i8").tobytes())
        rows.append(row)
    validators, referees = validator_rows(seed, jobs, terms), referee_rows(seed, jobs, terms)
    challenger = challenger_row(drawn_jobs(seed, jobs), terms, seed)
    for other in (*validators, *referees, challenger):
        digest.update(f"{other.name} {round(other.usd * 10**9)} {other.convicted}".encode())
    return Report(seed, jobs, terms, tuple(rows), tuple(validators), tuple(referees), challenger, digest.hexdigest())


def fund_per_dollar(jobs: Jobs, terms: Terms) -> dict[str, float]:
    """The audit fund in a network that is honest and settled, in shares of what jobs pay: fees, audits, canaries."""
    from minga.sim.economics_world import leaves_owed, pay_down, validators

    rate = np.full(jobs.shape, terms.rate, dtype=np.int64)
    funded = leaves_owed(jobs.price, jobs.leaves, jobs.keep, rate, terms) > 0
    spent = np.where(funded, pay_down(jobs.price, rate, terms) * validators(rate), 0) * (terms.rate / BPS)
    work = jobs.price * terms.saving / BPS * (1 - sum(checks.CANARY_FAKES) / len(checks.CANARY_FAKES) / BPS)
    canaries = (work + 4 * terms.move_gas) * (terms.rate / BPS) * (terms.canaries / BPS)
    total = float(jobs.price.sum())
    return {
        "fees": terms.fee / BPS,
        "audits": float(spent.sum()) / total,
        "canaries": float(canaries.sum()) / total,
        "funded_jobs": float(funded.mean()),
        "funded_value": float((jobs.price * funded).sum()) / total,
    }
