"""The report, the borders and the campaign: verdicts need evidence, borders are where the play turns, files go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minga.protocol import audit, audit_pay
from minga.sim import economics as eco
from minga.sim import economics_breaks as borders
from minga.sim import economics_campaign as campaign
from minga.sim import economics_checks as checks
from minga.sim.economics_cheats import BY_NAME, CHEATS
from minga.sim.economics_world import DOLLAR, RULES, Terms, drawn_jobs

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "benches" / "results" / "economics.json"
JOBS_MIN = 100_000


@pytest.fixture(scope="module")
def usual() -> eco.Report:
    """Everything at the default terms, small."""
    return eco.report(1, 20_000, Terms())


# ---------------------------------------------------------------------------------------------------------- the report


def test_a_verdict_needs_its_whole_interval():
    assert eco.verdict(-1, 0.5) == "loses"
    assert eco.verdict(1, 0.5) == "pays"
    assert eco.verdict(-1, 1) == eco.verdict(0.1, 0.2) == "open"


def test_an_interval_is_over_providers():
    mean, half = eco.spread(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert half == pytest.approx(3.29 / 3**0.5)
    assert eco.spread(np.array([7.0])) == (7, float("inf"))


def test_nothing_that_should_not_pays(usual):
    assert usual.paying == ()
    assert {row.name for row in usual.cheats} == set(BY_NAME)
    assert all(row.usd < 0 for row in usual.cheats)
    assert usual.challenger.verdict == "loses"
    assert usual.challenger.convicted == 0
    assert usual.validators[0].verdict == usual.referees[0].verdict == "pays"


def test_what_pays_is_named():
    bare = eco.report(1, 20_000, Terms(rules=frozenset()), [BY_NAME["self-challenge"], BY_NAME["never-commit"]])
    assert {"self-challenge", "never-commit", "always-convict", "always-acquit", "coin"} == set(bare.paying)


def test_a_report_with_a_losing_honest_validator_says_so():
    poor = eco.report(1, 5_000, Terms(margin=7_000), [])
    assert "honest" in poor.paying


def test_the_digest_is_of_everything(usual):
    again = eco.report(1, 20_000, Terms())
    assert again.digest == usual.digest
    assert eco.report(2, 20_000, Terms(), CHEATS[:1]).digest != eco.report(1, 20_000, Terms(), CHEATS[:1]).digest
    body = json.loads(json.dumps(usual.as_dict()))
    assert body["digest"] == usual.digest
    assert body["terms"]["rules"] == sorted(RULES)
    assert body["paying"] == []


def test_a_sham_challenger_wins_against_dear_jobs_of_providers_that_do_not_appeal():
    dear = drawn_jobs(1, 20_000, least=50 * DOLLAR)
    assert eco.challenger_row(dear, Terms(), 1, appeals=False).verdict == "pays"
    assert eco.challenger_row(dear, Terms(), 1).verdict == "loses"


# --------------------------------------------------------------------------------------------------------- the borders


def border(quantity: str, terms: Terms | None = None) -> float:
    return next(line.at for line in borders.lines(terms or Terms()) if line.quantity.startswith(quantity))


def played(name: str, terms: Terms, jobs: int = 60_000, **drawn: int) -> float:
    return eco.cheat_row(BY_NAME[name], drawn_jobs(1, jobs, slack=0, **drawn), terms, 1)[0].share


def test_the_border_of_the_rate_is_the_floor():
    assert border("audit rate") == pytest.approx(9.48)
    assert played("self-challenge", Terms(rate=800)) > 0 > played("self-challenge", Terms(rate=1_050))


def test_the_border_of_corrupt_validators():
    at = border("corrupt validators")
    assert at == pytest.approx(51.5, abs=0.1)
    few, many = (replace(Terms(), collusion=round(100 * at) + move) for move in (-2_000, 1_000))
    assert played("self-challenge", few) < 0 < played("self-challenge", many)


def test_the_border_of_the_saving():
    at = border("saving of a fake")
    assert 99 < at < 103
    assert played("self-challenge", Terms(saving=9_000)) < 0 < played("self-challenge", Terms(saving=11_500))


def test_the_border_of_what_comes_back_is_above_one_half():
    assert 54 < border("part of a slash") < 58


def test_the_border_of_one_stake_for_several_jobs():
    """Before it, a provider gains by a stake that games have claimed; a larger factor moves it."""
    assert 1 < border("jobs done on a stake") < 2
    assert border("jobs done on a stake", Terms(factor=60)) > 5
    assert border("jobs done on a stake", Terms(rate=10_000)) == float("inf")


def test_the_borders_of_the_pool():
    assert border("corrupt referees, below") == pytest.approx(100 * 0.97 / 1.97)
    assert border("honest referees on line") == pytest.approx(100 * 3 / 7)
    assert checks.pool_is_safe(Terms(online=4_600))
    assert not checks.pool_is_safe(Terms(online=4_000))
    alone = [line.at for line in borders.lines(Terms()) if line.what == "faking loses although nobody appeals"]
    assert 25 < alone[0] < 30


def test_the_border_of_an_absent_providers_deposit():
    at = border("deposit, below")
    for price, pays in ((at / 2, False), (at * 2, True)):
        jobs = drawn_jobs(1, 40_000, slack=0)
        jobs.price[:] = jobs.deposit[:] = round(price * DOLLAR)
        row = eco.challenger_row(jobs, Terms(online=10_000), 1, appeals=False)
        assert (row.usd > 0) is pays


def test_the_borders_of_pay_are_those_of_the_protocol():
    for rate, share in ((948, "9.48"), (2_000, "20"), (10_000, "100")):
        least = border(f"price at a rate of {share} %")
        fewest = round(border(f"leaves at a rate of {share} %"))
        assert fewest == audit_pay.leaves_min(1, rate)
        just = round(least * DOLLAR * 1.02)
        assert audit_pay.leaves_owed(just, 2**20, 1, rate) > 0
        assert audit_pay.leaves_owed(round(least * DOLLAR * 0.98), 2**20, 1, rate) == 0


def test_every_border_says_what_would_move_it():
    for line in borders.lines(Terms()):
        assert line.what
        assert line.moved_by
        assert line.at >= 0
    assert border("share of a short job") == pytest.approx(1.096, abs=0.001)
    assert borders.root(lambda x: x < 0.25, 0, 1) == pytest.approx(0.25)


# -------------------------------------------------------------------------------------------------------- the campaign


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways of cheating and no tables."""
    monkeypatch.setattr(campaign, "CHEATS", CHEATS[:2])
    monkeypatch.setattr(campaign, "tables", lambda seed, jobs: {"validators": []})


@pytest.mark.usefixtures("small")
def test_a_stopped_campaign_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, whole = tmp_path / "parts.json", tmp_path / "whole.json"
    campaign.run(parts, 3, 2_000, (948,), (0,))
    played_cells = []
    usual_cell = campaign.cell
    monkeypatch.setattr(campaign, "cell", lambda *given: played_cells.append(given) or usual_cell(*given))
    campaign.run(parts, 3, 2_000, (948, 2_000), (0, 3_000))
    assert len(played_cells) == 6
    campaign.run(whole, 3, 2_000, (948, 2_000), (0, 3_000))
    found, expected = (json.loads(path.read_text()) for path in (parts, whole))
    for body in (found, expected):
        del body["seconds"]
    assert sorted(found["cells"], key=str) == sorted(expected["cells"], key=str)
    assert len(found["cells"]) == 8


@pytest.mark.usefixtures("small")
def test_other_sources_jobs_or_seeds_begin_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "result.json"
    campaign.run(out, 3, 1_000, (948,), (0,))
    assert len(campaign.start(out, 3, 1_000)["cells"]) == 2
    assert campaign.start(out, 3, 2_000)["cells"] == []
    assert campaign.start(out, 4, 1_000)["cells"] == []
    monkeypatch.setattr(campaign, "sources_hash", lambda: "other")
    assert campaign.start(out, 3, 1_000)["cells"] == []


@pytest.mark.usefixtures("small")
def test_a_campaign_fails_where_a_cheat_does_not_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign, "RATES", (500,))
    monkeypatch.setattr(campaign, "COLLUSIONS", (0,))
    monkeypatch.setattr(campaign, "terms_at", lambda rate, collusion: Terms(rate=rate, factor=10))
    out = tmp_path / "result.json"
    assert campaign.main(["--jobs", "20000", "--out", str(out)]) == 1
    assert "self-challenge does not lose at p 5 %, 0 % corrupt" in capsys.readouterr().err
    assert ["self-challenge", 500, 0] in json.loads(out.read_text())["paying"]


def test_the_sample_has_no_cheat_that_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "SAMPLE_JOBS", 10_000)
    monkeypatch.setattr(campaign, "SAMPLE_COLLUSIONS", (3_000,))
    out = tmp_path / "sample.json"
    assert campaign.main(["--sample", "--out", str(out)]) == 0
    body = json.loads(out.read_text())
    assert len(body["cells"]) == 2 * len(CHEATS)
    assert set(body["without_rule"]) == set(RULES)
    assert body["without_rule"]["demand"] == {"never-commit": 0.9}
    assert body["sweep_collusion"][0]["share"] < body["sweep_collusion"][-1]["share"]
    assert body["seed"] == 1


def test_the_hash_is_of_the_simulator_and_of_the_rules_that_it_plays() -> None:
    names = {path.name for pattern in campaign.SOURCES for path in campaign.PACKAGE.glob(pattern)}
    assert {"audit.py", "audit_pay.py", "economics.py", "economics_play.py", "economics_campaign.py"} <= names
    assert len(campaign.sources_hash()) == 64


def test_the_kept_result_is_of_these_sources_and_every_cheat_loses_in_every_cell() -> None:
    body = json.loads(KEPT.read_text())
    assert body["sources_sha256"] == campaign.sources_hash(), "run python -m minga.sim.economics_campaign"
    assert body["jobs"] >= JOBS_MIN
    assert body["not_losing"] == body["paying"] == []
    cells = {(each["cheat"], each["rate_bps"], each["collusion_bps"]) for each in body["cells"]}
    assert cells == {(name, rate, c) for name in BY_NAME for rate in campaign.RATES for c in campaign.COLLUSIONS}
    assert min(campaign.RATES) == 200
    assert max(campaign.RATES) == 2_000
    assert max(campaign.COLLUSIONS) == 3_000
    for each in body["cells"]:
        assert each["share"] + each["share_half"] < 0
        assert each["factor"] == max(1, audit.stake_for(1, each["rate_bps"]))
    for rule in RULES:
        if rule != "coherent":
            assert body["without_rule"][rule], f"nothing needs the rule {rule}"


def test_a_cell_can_be_played_again() -> None:
    """The kept result's own cell, from its seed, when the kept result is of these sources; else any."""
    if KEPT.exists():
        kept = json.loads(KEPT.read_text())
        if kept["sources_sha256"] == campaign.sources_hash():
            want = next(each for each in kept["cells"] if each["cheat"] == "fake-all")
            found = campaign.cell("fake-all", want["rate_bps"], want["collusion_bps"], kept["seed"], kept["jobs"])
            assert found["convicted"] == want["convicted"]
            assert found["usd"] == want["usd"]
            return
    first, second = (campaign.cell("fake-all", 948, 0, 1, 1_000) for _ in range(2))
    assert first == second
