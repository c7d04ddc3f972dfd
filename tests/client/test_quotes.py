"""The quote of a job: what it promises, what it admits not to know, and that the runner ranks as it does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markets import Stage, ended, spec_of
from quote_world import CARD, Laws, World, bundle_of

from minga.client.jobspec import Accept, JobSpec
from minga.client.order import needs_of
from minga.client.outcomes import Outcome
from minga.client.past import History, Past, Quoted
from minga.client.quotes import (
    Quote,
    fingerprint_of,
    known_of,
    line,
    make_quote,
    money,
    reorder,
    rough,
    savings_of,
)
from minga.core.codec import canonical_json, parse_json
from minga.core.errors import NoMatch
from minga.core.spec import Speed
from minga.core.units import HOUR
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.matching import Requirements, unknown
from minga.protocol.reliability import Record, Rules, new_record
from minga.protocol.savings import savings

TODAY = 20_700
RESULTS = Path(__file__).parents[2] / "benches" / "results" / "quotes.json"
OFFERS = tuple(
    bundle_of(f"0x{number:040x}", f"0x{number:064x}", 400_000 + 10_000 * number, speed, 60)
    for number, speed in enumerate((None, Speed(gemm_mops=1000, memory_mbps=9), Speed(gemm_mops=9000, memory_mbps=99)))
)


def record(provider: str) -> Record:
    """The record of somebody new."""
    return new_record(provider, Rules.of(6))


def quote_of(past: History | None = None, offers: tuple = OFFERS, **fields: object) -> Quote:
    """The quote of a job that makes checkpoints and has two dollars."""
    spec = JobSpec(**({"run": "python train.py", "budget": "2", "checkpoint": True} | fields))  # type: ignore[arg-type]
    return make_quote(spec, needs_of(spec, 6, False), offers, past or History(), unknown, record, 6)


def past_of(spec: JobSpec, work_s: int) -> Past:
    quoted = Quoted(fingerprint_of(spec), None, "0x", 600, "2000000", None, None, None, None, None)
    return Past("0x", quoted, Outcome("done", 0, "1", 2 * work_s, work_s, work_s, (5,), 2, 1))


# ----------------------------------------------------------------------------------------------------------- the quote


def test_without_history_and_duration_a_quote_says_what_the_budget_buys_and_no_total() -> None:
    found = quote_of()
    assert found.work.source == "unknown"
    assert found.estimate is not None
    assert found.estimate.cost_p90 is None
    assert found.seconds_at_budget == 2_000_000 * HOUR // found.estimate.per_work_hour
    assert re.fullmatch(
        r"quote: \$0\.\d\d/h, duration not known; the budget buys \S+ \S+ \(say `duration`\)", line(found)
    )
    assert found.kept().cost_p90 is None
    assert quote_of(budget=None).seconds_at_budget is None


def test_a_stated_duration_makes_totals() -> None:
    found = quote_of(duration_s=7200)
    assert (found.work.source, len(found.estimates)) == ("stated", 3)
    assert re.fullmatch(
        r"quote: \$\d\.\d\d–\$\d\.\d\d in \S+( \S+)?–\S+( \S+)? \(p50–p90\) at \$0\.\d\d/h.*", line(found)
    )
    assert found.estimate is not None
    kept = found.kept()
    assert (int(kept.cost_p50 or 0), int(kept.cost_p90 or 0)) == (found.estimate.cost_p50, found.estimate.cost_p90)
    assert (kept.budget, kept.stated_s, kept.offer) == ("2000000", 7200, found.best.offer_hash if found.best else "")


def test_the_home_has_seen_it_before() -> None:
    spec = JobSpec(run="python train.py", budget="2", checkpoint=True)
    found = quote_of(History([past_of(spec, 1800)] * 3), duration_s=7200)
    assert (found.work.source, found.work.seen) == ("history", 3)
    assert found.work.seconds is not None
    assert found.work.seconds.median == pytest.approx(1800, rel=0.01)


def test_a_budget_that_may_not_be_enough_is_said_before_it_is_spent() -> None:
    assert "the budget is enough in" in line(quote_of(duration_s=6 * HOUR, budget="1"))
    assert "the budget" not in line(quote_of(duration_s=HOUR, budget="20"))


def test_only_what_is_asked_for_is_estimated() -> None:
    spec = JobSpec(run="x", budget="2", duration_s=60)
    found = make_quote(spec, needs_of(spec, 6, False), OFFERS, History(), unknown, record, 6, 1)
    assert (len(found.estimates), len(found.matches)) == (1, 3)
    assert found.estimates == quote_of(run="x", duration_s=60, checkpoint=False).estimates[:1]


def test_who_does_not_match_is_told_why_and_what_to_do() -> None:
    found = quote_of(requirements=Requirements(gpus=parse_accelerators("H100"), region="moon"))
    assert (found.best, found.estimate, found.seconds_at_budget) == (None, None, None)
    assert set(found.remedies) == set(found.exclusion.excluded) == {"gpu", "region"}
    assert line(found) == "quote: no offer matches"
    assert savings_of(found, TODAY) == ()


def test_what_the_job_does_is_in_the_estimate() -> None:
    plain = quote_of(duration_s=7200)
    accepted = quote_of(duration_s=7200, accept=Accept("true", Path("/")))
    assert plain.work.pays_lost
    assert not accepted.work.pays_lost
    assert quote_of(checkpoint=False).work.checkpoint_s == 0
    assert quote_of(checkpoint_every_s=77).work.checkpoint_s == 77
    assert quote_of(grace_s=5).work.grace_s == 5


# -------------------------------------------------------------------------------------------- what the runner is given


@pytest.mark.parametrize("fields", [{}, {"duration_s": 7200}, {"checkpoint": False, "duration_s": 9}, {"grace_s": 300}])
def test_the_runner_ranks_as_the_quote_did(fields: dict[str, object]) -> None:
    found = quote_of(**fields)
    known = parse_json(canonical_json(known_of(found)))
    assert reorder(list(reversed(found.matches)), known, record) == found.matches


def test_orders_of_before_are_ranked_by_price_and_risk() -> None:
    found = reorder(quote_of().matches, {}, record)
    assert [item.price_per_hour for item in found] == [400_000, 410_000, 420_000]


def test_fingerprints_follow_what_is_run() -> None:
    spec = JobSpec(run="python train.py", workdir=Path("/tmp"))
    assert fingerprint_of(spec) == fingerprint_of(replace(spec, budget="7", name="other", deadline_s=9))
    for changed in (
        replace(spec, run="python test.py"), replace(spec, envs={"A": "b"}), replace(spec, workdir=None),
        replace(spec, requirements=Requirements(gpus=parse_accelerators("H100"))),
    ):  # fmt: skip
        assert fingerprint_of(changed) != fingerprint_of(spec)
    assert fingerprint_of(replace(spec, secrets={"TOKEN": "hunter2"})) == fingerprint_of(spec)


# ------------------------------------------------------------------------------------------------------------- savings


def test_savings_count_rework_and_never_the_reference_machine() -> None:
    found = quote_of()
    assert found.estimate is not None
    own = found.estimate.per_work_hour * 10**6 / found.estimate.pace_ppm
    assert own > found.estimate.item.price_per_hour
    for item in savings_of(found, TODAY):
        assert (item.saving_ppm is None) != (item.withheld == "")
        if item.saving_ppm is not None and item.usd_micro is not None:
            assert item.saving_ppm == pytest.approx(10**6 - own * 10**6 / item.usd_micro, abs=10)
            assert item.source
            assert item.dated
    assert [item.label for item in savings([CARD.model], 1, 1, (), 0)] == [
        item.label for item in savings_of(found, TODAY)
    ]


# --------------------------------------------------------------------------------------------------- for people's eyes


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (1, "0.000001"), (1234, "0.0013"), (12_345, "0.013"), (99_999, "0.10"), (100_000, "0.10"),
     (100_001, "0.11"), (4_321_000, "4.33"), (4_300_000, "4.30"), (12_000_000, "12.00")],
)  # fmt: skip
def test_money_is_rounded_up_to_what_counts(amount: int, text: str) -> None:
    assert money(amount, 6) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (90, "1m 30s"), (3599, "59m 59s"), (3601, "1h 1m"), (7200, "2h"), (200_000, "2d 8h")],
)
def test_times_are_two_words_rounded_up(seconds: int, text: str) -> None:
    assert rough(seconds) == text


# --------------------------------------------------------------------------------------------------------- calibration


def test_p90_holds_for_nine_jobs_in_ten() -> None:
    """A tenth of the benchmark's jobs: ten tenants, a hundred jobs each; seed 2, on which nothing was fitted."""
    found = World(2).run(10, 100).calibration()
    assert (found.cost_n, found.finish_n) == (1000, 1000)
    assert 880 <= found.cost_within <= 920, found
    assert 880 <= found.finish_within <= 920, found


def test_a_world_is_its_seed() -> None:
    assert World(7).run(2, 5).past == World(7).run(2, 5).past
    assert World(7).run(2, 5).past != World(8).run(2, 5).past
    assert World(7, Laws(tight=1.0)).run(1, 20).calibration().cost_n == 0, "no such job can test a p90"


def test_the_committed_benchmark_is_of_ten_thousand_jobs_and_holds() -> None:
    found = json.loads(RESULTS.read_text())
    for result in (found["headline"], *found["other_seeds"]):
        assert result["jobs"] == result["cost_n"] == result["finish_n"] == 10_000
        assert result["seed"] != found["fitted_on"]["seed"]
        for name in ("cost_within_ppm", "finish_within_ppm"):
            assert 880_000 <= result[name] <= 920_000, (result["seed"], name)
    assert found["other_worlds"], "where it fails is published too"


# ------------------------------------------------------------------------------------------------------- the real thing


@pytest.mark.anyio
async def test_a_job_is_quoted_before_anything_is_written_and_its_outcome_is_kept(stage: Stage) -> None:
    told: list[tuple[Quote, int]] = []
    async with stage.providers(2) as providers, stage.client(providers) as client:
        spec = spec_of("sleep 1", duration_s=5)

        def hear(found: Quote) -> None:
            told.append((found, len(client.jobs())))

        with pytest.raises(NoMatch):
            await client.submit(replace(spec, requirements=Requirements(region="moon")), quoted=hear)
        assert told == []
        handle = await client.submit(spec, quoted=hear)
        assert (await ended(handle)).phase == "done"
        assert told[0][1] == 0, "nothing was journaled yet"
        quote = told[0][0]
        assert quote.best is not None
        assert quote.best.offer_hash == handle._reader.state.past[0].deal.offer
        again = await client.quote(spec)
        assert (again.work.source, again.work.seen) == ("history", 1)
        assert again.work.seconds is not None
        assert again.work.seconds.median < 30
        past = History.load(client.journal, 0).past
        assert [item.quoted for item in past] == [quote.kept()]
        outcome = past[0].outcome
        assert outcome is not None
        assert (outcome.phase, outcome.leases, int(outcome.cost)) == ("done", 1, handle.status().spent)
        assert History(past).calibration().as_dict()["cost_within_ppm"] == 1_000_000
