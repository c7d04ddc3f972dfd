"""The campaign of inference audits: its counting, its resuming, and a sample of it on both models."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

import campaign_inference as campaign
import inference_attacks as attacks
import inference_models as models
import inference_report as report
import pytest
import torch
from inference_plan import Unit, fitting, reporting

from minga.verify.inference_fitted import LIMITS
from minga.verify.inference_limits import Scores

STEPS, CONTEXT = 30, 64
"""A shorter training than the campaign's: ten seconds."""
ACTS = ("other-model", "int4", "padding", "early-stop", "swap-midway")


def told(n: int, caught: list[int], reason: str = "peak") -> dict[str, Any]:
    zero = dict.fromkeys(("peak", "mean_margin", "mean_far", "mean_near", "mean_logprob"), 0.0)
    reasons = {reason: len(caught)} if caught else {}
    return {"n": n, "caught": caught, "reasons": reasons, "tokens": 96 * n, "differing": 0, **zero}


# ------------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize(("hits", "n"), [(0, 3000), (0, 10), (10, 10), (300, 300), (1, 20), (15, 20), (299, 300)])
def test_intervals_are_exact(hits, n):
    """At each end the chance of what was seen, or of something more extreme, is what is left of 95 %."""
    low, high = report.interval(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    tail = 0.025 if 0 < hits < n else 0.05
    if hits:
        at_least = sum(comb(n, k) * low**k * (1 - low) ** (n - k) for k in range(hits, n + 1))
        assert at_least == pytest.approx(tail, rel=1e-6)
    if hits < n:
        at_most = sum(comb(n, k) * high**k * (1 - high) ** (n - k) for k in range(hits + 1))
        assert at_most == pytest.approx(tail, rel=1e-6)


def test_no_case_in_n_is_nearly_three_over_n():
    assert report.interval(0, 3000)[1] == pytest.approx(3 / 3000, rel=0.01)


def test_the_summary_counts_and_draws_curves():
    def unit(act: str, seed: int, tokens: int = 96, isa: str = "avx512") -> str:
        return Unit("tiny", "fp32", "report", act, seed, 4, tokens, isa).name

    units = {
        unit("honest", 0): told(4, []),
        unit("honest", 1, isa="avx2"): told(4, [50]),
        unit("seed", 0): told(4, [3, 3, 9, 33]),
        unit("seed", 1, tokens=32): told(4, [1, 32]),
    }
    found = report.summary(units)
    honest = found["honest"]["tiny/fp32/activations"]
    assert (honest["n"], honest["flagged"]) == (8, 1)
    assert {isa: row["n"] for isa, row in honest["by_isa"].items()} == {"avx2": 4, "avx512": 4}
    seed = found["attacks"]["seed"]["tiny/fp32/activations"]
    assert (seed["n"], seed["caught"], seed["tokens_last"], seed["tokens_shown"]) == (8, 6, 33, 96)
    assert seed["curve"] == {"32": [5 / 8, 8], "64": [1.0, 4], "96": [1.0, 4]}
    assert seed["first_crossed"] == {"peak": 6}
    assert report.broken(found) == ["honest tiny/fp32/activations", "seed tiny/fp32/activations"]


def test_nothing_is_promised_of_curves():
    name = Unit("tiny", "fp32", "report", "int8", 0, 4, 96).name
    assert report.broken(report.summary({name: told(4, [])})) == []


def test_fitting_needs_only_the_extremes():
    scores = Scores((0.0, 0.1, 0.5, 0.0), far=(1.0, 2.0), near=(0.1, 0.2))
    found = report.stand_in(report.extremes(scores))
    for name, values in scores.sums().items():
        if values:
            assert max(found.sums()[name]) == max(values)
            assert sum(found.sums()[name]) / 2 == pytest.approx(sum(values) / len(values))


def test_parts_of_a_campaign_are_joined():
    def body(act: str) -> dict[str, Any]:
        units = {Unit("tiny", "fp32", "report", act, 0, 4, 96).name: told(4, [])}
        return {"sources_sha256": "s", "limits": {}, "units": units, "cost": {act: 1}, "apart": {}}

    found = report.joined([body("honest"), body("seed")])
    assert len(found["units"]) == 2
    assert found["cost"] == {"honest": 1, "seed": 1}
    assert found["honest"]["tiny/fp32/activations"]["n"] == 4
    assert "| tiny/fp32/activations | 4 | 384 | 0 |" in report.tables(found)
    assert "| seed | 0 of 4 |" in report.tables(found)
    with pytest.raises(AssertionError):
        report.joined([body("honest"), {**body("seed"), "sources_sha256": "t"}])


# ---------------------------------------------------------------------------------------------------------- plans


def test_every_name_says_its_unit_and_no_two_units_are_one():
    for plan in (fitting(), reporting()):
        names = [unit.name for unit in plan]
        assert len(set(names)) == len(names)
        assert [Unit.named(name) for name in names] == plan


def test_what_is_reported_was_not_fitted_on():
    """Other parts of the text, other jobs and beacons."""
    (_, fit_end), (report_begin, _) = campaign.SETS["fit"], campaign.SETS["report"]
    assert fit_end < report_begin
    assert {unit.part for unit in fitting()} == {"fit"}
    assert {unit.part for unit in reporting()} == {"report"}


def test_the_plan_is_what_is_promised():
    plan = [unit for unit in reporting() if (unit.numerics, unit.evidence) == ("fp32", "activations")]
    honest = sum(unit.count for unit in plan if unit.act == "honest" and unit.model == "tiny")
    assert honest >= 3000
    assert len(attacks.PROMISED) >= 10
    for model in ("tiny", "smollm2"):
        assert {unit.act for unit in plan if unit.model == model} == {"honest", *attacks.PROMISED, *attacks.CURVES}
    kinds = {(unit.isa, unit.threads) for unit in plan if unit.act == "honest"}
    assert len(kinds) == 6


# --------------------------------------------------------------------------------------------------- cheaper copies


@pytest.mark.parametrize(("kind", "least", "most"), [("int4", 0.03, 0.2), ("int8", 0.001, 0.01), ("fp8", 0.01, 0.05)])
def test_copies_lose_what_their_format_loses(kind, least, most):
    weight = torch.randn(64, 344, generator=torch.Generator().manual_seed(1))
    found = models.rounded(weight, kind)
    error = float((found - weight).norm() / weight.norm())
    assert least < error < most
    assert torch.allclose(models.rounded(found, kind), found, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- the sample


@pytest.fixture(scope="module")
def short() -> Path:
    """The tiny model after forty steps, in the cache."""
    models.trained(STEPS, 2, CONTEXT)
    return models.trained(STEPS, 1, CONTEXT)


@pytest.fixture
def quick(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign on that model, and its providers in this process."""
    monkeypatch.setattr(models, "trained", lambda steps, seed: short.with_name(short.name[:-1] + str(seed)))
    monkeypatch.setattr(campaign.Providers, "call", lambda self, isa, do, *arguments: do(*arguments))
    monkeypatch.setattr(campaign, "_STAGES", {})


@pytest.mark.usefixtures("quick")
def test_a_sample_of_the_tiny_model_is_as_promised(tmp_path: Path) -> None:
    """Other seeds than those of the kept result: 24 honest replies follow, each of five cheats is seen in 64 tokens."""
    plan = [Unit("tiny", "fp32", "report", "honest", 800_000, 12, 96)]
    plan += [Unit("tiny", "fp32", "report", "honest", 800_001, 12, 64, temperature=1300, top_p=980)]
    plan += [Unit("tiny", "fp32", "report", act, 800_000, 6, 64) for act in ACTS]
    body = campaign.run(tmp_path / "inference.json", plan)
    assert report.broken(body) == []
    assert body["honest"]["tiny/fp32/activations"]["n"] == 24
    assert {act: row["tiny/fp32/activations"]["caught"] for act, row in body["attacks"].items()} == dict.fromkeys(
        ACTS, 6
    )


@pytest.mark.usefixtures("quick")
def test_a_stopped_campaign_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the file is not run again; other sources start afresh."""
    out = tmp_path / "inference.json"
    plan = [Unit("tiny", "fp32", "report", act, 800_000, 2, 32) for act in ("honest", "seed")]
    campaign.run(out, plan[:1])
    ran: list[str] = []
    serve = campaign.Providers.serve
    monkeypatch.setattr(campaign.Providers, "serve", lambda self, unit: ran.append(unit.act) or serve(self, unit))
    campaign.run(out, plan)
    assert ran == ["seed"]
    campaign.run(out, plan)
    assert ran == ["seed"]
    assert {*json.loads(out.read_text())["units"]} == {unit.name for unit in plan}
    monkeypatch.setattr(campaign, "sources_hash", lambda: "others")
    campaign.run(out, plan)
    assert ran == ["seed", "honest", "seed"]


@pytest.mark.usefixtures("quick")
def test_fitting_writes_the_module(tmp_path: Path) -> None:
    plan = [Unit("tiny", numerics, "fit", "honest", 0, 2, 64) for numerics in ("fp32", "bf16")]
    limits = campaign.run_fit(tmp_path / "inference.json", plan, tmp_path / "fitted.py")
    made: dict[str, Any] = {}
    exec(compile((tmp_path / "fitted.py").read_text(), "fitted.py", "exec"), made)
    assert {*made["LIMITS"]} == {*limits} == {*LIMITS}
    assert made["LIMITS"]["bf16"].peak == pytest.approx(limits["bf16"].peak, rel=1e-3)


@pytest.mark.skipif(not models.has_smollm2(), reason="requirements/models.txt is not installed")
def test_one_reply_of_smollm2_follows_and_its_cheap_copy_does_not(tmp_path: Path) -> None:
    plan = [Unit("smollm2", "fp32", "report", act, 800_000, 1, 40) for act in ("honest", "int4", "seed")]
    verdicts = {}
    for unit in plan:
        replies, _ = campaign.serve(unit)
        verdicts[unit.act] = campaign.judge(unit, replies, LIMITS["fp32"])[0]
    assert verdicts["honest"].follows, verdicts["honest"].reason
    assert not verdicts["int4"].follows
    assert not verdicts["seed"].follows


def test_the_kept_result_keeps_the_promise():
    body = json.loads(campaign.OUT.read_text())
    assert report.broken(body) == []
    assert all(row["n"] for row in body["honest"].values())
    for act in attacks.PROMISED:
        assert body["attacks"][act]["tiny/fp32/activations"]["n"] >= 60, act
    assert {name: body[name] for name in ("honest", "attacks")} == json.loads(json.dumps(report.summary(body["units"])))
    for model, row in body["cost"].items():
        shares = [run["audit_cpu_s"] / run["generate_cpu_s"] for run in row["runs"]]
        assert max(shares) <= 0.15, model
