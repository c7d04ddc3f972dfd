"""The quote of a job: who would run it, what it will cost, when it will end, and what clouds ask for the same.

Made of the offers gathered, providers' public records, and this home's own past (`minga.client.past`); computed by
`minga.protocol.quote`. Nothing is bought and nothing is asked of anybody here.

Rule: what is not known is said. Without a history and without `duration`, a quote gives prices an hour and what the
budget buys, and no total.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from minga.client.jobspec import JobSpec
from minga.client.past import CHECKPOINT_S, History, Quoted, fingerprint
from minga.core.spec import Speed
from minga.core.units import HOUR, format_duration, format_usd, parse_usd
from minga.protocol.beliefs import Belief
from minga.protocol.matching import PPM, Exclusion, Ranked, Reliability, Requirements, explain, rank
from minga.protocol.quote import Estimate, estimates, order
from minga.protocol.quote_model import Limits, Risk, Risks, Work, reference_of, risk_of
from minga.protocol.reliability import Record
from minga.protocol.remedies import remedies
from minga.protocol.savings import Saving, savings
from minga.protocol.wire import OfferBundle

SHOWN = 10
"""Offers that are estimated."""

Records = Callable[[str], Record]
"""Provider address → its public record."""


@dataclass(frozen=True)
class Quote:
    """Who would run a job and at what price, the best first; when nobody would, `exclusion` and `remedies` say why.

    `estimates` are of the first matches, in their order. `work` is what is believed of the job; `fingerprint`,
    `stated_s`, `deadline_s` are kept with it.
    """

    matches: list[Ranked]
    exclusion: Exclusion
    decimals: int
    budget: int | None
    estimates: tuple[Estimate, ...] = ()
    work: Work = field(default_factory=Work)
    remedies: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    stated_s: int | None = None
    deadline_s: int | None = None

    @property
    def best(self) -> Ranked | None:
        """The offer that would be taken."""
        return self.matches[0] if self.matches else None

    @property
    def estimate(self) -> Estimate | None:
        """Of the offer that would be taken."""
        return self.estimates[0] if self.estimates else None

    @property
    def seconds_at_budget(self) -> int | None:
        """Seconds of the reference machine's work that the budget is expected to buy at the best offer."""
        if self.estimate is None or self.budget is None:
            return None
        return self.budget * HOUR // self.estimate.per_work_hour if self.estimate.per_work_hour else 2**32 - 1

    def kept(self) -> Quoted:
        """What is remembered of it; there must be an estimate."""
        found = self.estimates[0]
        p50, p90 = (None if value is None else str(value) for value in (found.cost_p50, found.cost_p90))
        return Quoted(
            self.fingerprint, self.stated_s, found.item.offer_hash, self.work.checkpoint_s, str(self.budget or 0),
            self.deadline_s, p50, p90, found.finish_p50_s, found.finish_p90_s,
        )  # fmt: skip


def make_quote(
    spec: JobSpec,
    needs: Requirements,
    bundles: Sequence[OfferBundle],
    past: History,
    reliability: Reliability,
    records: Records,
    decimals: int,
    shown: int = SHOWN,
) -> Quote:
    """The quote of a job.

    Args:
        spec: the job; its `duration_s` is seconds of work on the reference machine.
        needs: what it needs of a machine.
        bundles: the offers there are, checked.
        past: this home's jobs.
        reliability, records: what is publicly known of providers.
        decimals: of the token.
        shown: how many of the best offers are estimated, at least one.
    """
    same, budget = fingerprint_of(spec), None if spec.budget is None else int(parse_usd(spec.budget, decimals))
    matches = rank(needs, bundles, reliability)
    base = base_work(spec.checkpoint, spec.checkpoint_every_s)
    base = replace(base, pays_lost=spec.accept is None, grace_s=spec.grace_s, reference=reference_of(matches))
    work = past.work(same, spec.duration_s, base)
    risks = risks_of(records)
    matches = order(matches, work, risks)
    limits, habits = Limits(budget, spec.deadline_s), past.habits(same)
    found = estimates(matches, work, habits, risks, limits, shown)
    why = {} if matches else remedies(needs, bundles, reliability, decimals)
    exclusion = explain(needs, bundles, reliability)
    return Quote(matches, exclusion, decimals, budget, found, work, why, same, spec.duration_s, spec.deadline_s)


def base_work(checkpoint: bool, every_s: int | None) -> Work:
    """A job of which only its checkpoints are known."""
    return Work(checkpoint_s=(every_s or CHECKPOINT_S) if checkpoint else 0)


def risks_of(records: Records) -> Risks:
    """How often leases break, by provider."""

    def risk(provider: str) -> Risk:
        return risk_of(records(provider))

    return risk


def fingerprint_of(spec: JobSpec) -> str:
    """See `minga.client.past.fingerprint`."""
    task: dict[str, Any] = {
        "environment": spec.environment, "setup": spec.setup, "run": spec.run, "envs": dict(spec.envs),
    }  # fmt: skip
    needs = asdict(spec.requirements)
    folder = "" if spec.workdir is None else str(Path(spec.workdir).resolve())
    return fingerprint(task, needs, folder)


def reorder(matches: Sequence[Ranked], known: Mapping[str, int], records: Records) -> list[Ranked]:
    """Matching offers as the job's quote ranks them; `known` is what `known_of` gave for the order."""
    work = base_work(bool(known.get("checkpoint_s")), known.get("checkpoint_s"))
    speed = Speed(gemm_mops=known.get("gemm_mops", 0), memory_mbps=known.get("memory_mbps", 0))
    work = replace(work, pays_lost=bool(known.get("pays_lost", 1)), grace_s=known.get("grace_s", 30), reference=speed)
    if known.get("seconds"):
        work = replace(work, seconds=Belief.of(known["seconds"], 0.0))
    return order(matches, work, risks_of(records))


def known_of(quote: Quote) -> dict[str, int]:
    """What an order keeps of a quote, so that its runner ranks offers alike (JSON values)."""
    work = quote.work
    known = {
        "checkpoint_s": work.checkpoint_s,
        "gemm_mops": work.reference.gemm_mops,
        "memory_mbps": work.reference.memory_mbps,
        "pays_lost": int(work.pays_lost),
        "grace_s": work.grace_s,
    }
    return known if work.seconds is None else {**known, "seconds": max(1, round(work.seconds.median))}


def savings_of(quote: Quote, today: int) -> tuple[Saving, ...]:
    """What the best offer saves against three dated cloud prices of its card; empty without an offer.

    Args:
        quote: of a job.
        today: days since 1970-01-01.
    """
    if quote.estimate is None:
        return ()
    from minga.client.catalogs import shipped_quotes

    item, terms = quote.estimate.item, quote.estimate.item.bundle.terms
    count = min(item.units * terms.unit.gpus, len(item.bundle.machine.gpus))
    names = sorted({gpu.model for gpu in item.bundle.machine.gpus}) if count else []
    hourly = -(-quote.estimate.per_work_hour * 10**6 * PPM // (quote.estimate.pace_ppm * 10**quote.decimals))
    return savings(names, count, hourly, shipped_quotes() if count else (), today)


def line(quote: Quote) -> str:
    """One line before anything is paid: what the job will cost and when it will end, or what is not known."""
    found = quote.estimate
    if found is None:
        return "quote: no offer matches"

    def usd(amount: int) -> str:
        return f"${money(amount, quote.decimals)}"

    price = f"{usd(found.item.price_per_hour)}/h"
    if found.cost_p50 is None or found.cost_p90 is None or found.finish_p90_s is None:
        covered = quote.seconds_at_budget
        buys = "" if covered is None else f"; the budget buys {rough(covered)}"
        return f"quote: {price}, duration not known{buys} (say `duration`)"
    fits = quote.budget is not None and found.within_budget_ppm is not None and quote.budget < found.cost_p90
    warning = f"; the budget is enough in {(found.within_budget_ppm or 0) // 10_000} of 100" if fits else ""
    ends = f"{rough(found.finish_p50_s or 0)}–{rough(found.finish_p90_s)}"
    return f"quote: {usd(found.cost_p50)}–{usd(found.cost_p90)} in {ends} (p50–p90) at {price}{warning}"


def money(amount: int, decimals: int) -> str:
    """Dollars for people, rounded up: cents from ten cents on, else two digits that count: `1.24`, `0.013`."""
    places = 2
    while places < decimals and 0 < amount < 10 ** (decimals - places + 1):
        places += 1
    grain = 10 ** max(0, decimals - places)
    return format_usd(-(-amount // grain) * grain, decimals)


def rough(seconds: int) -> str:
    """A time for people, its two largest units, rounded up: `1h 3m`, `2d 4h`, `45s`."""
    for unit, least in ((HOUR, 2 * 24 * HOUR), (60, HOUR)):
        if seconds >= least:
            seconds = -(-seconds // unit) * unit
            break
    return " ".join(format_duration(seconds).split(" ")[:2])


__all__ = [
    "Quote", "Records", "base_work", "fingerprint_of", "known_of", "line", "make_quote", "money", "reorder", "rough",
    "savings_of",
]  # fmt: skip
