"""The campaign of disputes: it goes on where it stopped, it reports what it finds, and a sample of it finds nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import campaign_disputes as campaign
import pytest
from evm import ROOT


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches."""
    monkeypatch.setattr(campaign, "BATCH", 2)


@pytest.mark.usefixtures("short")
def test_a_stopped_campaign_goes_on(tmp_path: Path) -> None:
    """Stopped and resumed is the same as run in one go, seeds and all; another first seed starts afresh."""
    parts, whole = tmp_path / "parts.json", tmp_path / "whole.json"
    campaign.run(1, 7, parts)
    campaign.run(60, 7, parts)
    campaign.run(60, 7, whole)
    found, expected = (json.loads(path.read_text()) for path in (parts, whole))
    del found["seconds"], expected["seconds"]
    assert found == expected
    assert found["games"] == 100 == found["acquitted"] + found["convicted"] + found["void"]
    assert found["calls"] == sum(found["answers"].values())
    assert campaign.resume(whole, 8).games == 0
    assert campaign.resume(whole, 7).next_seed == found["seeds"]["next"]


@pytest.mark.usefixtures("short")
def test_a_violation_is_reported_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The campaign stops, says where, and exits with 1."""

    def broken(seed: int) -> campaign.Season:
        assert seed != 4, "an honest provider was slashed"
        return played

    played = campaign.season(3, 2)
    monkeypatch.setattr(campaign, "season", broken)
    out = tmp_path / "disputes.json"
    assert campaign.main(["--games", "1000", "--seed", "3", "--out", str(out)]) == 1
    body = json.loads(out.read_text())
    assert (body["violations"], body["games"]) == (1, 2)
    assert body["violated"][0]["seed"] == 4
    assert "seed 4: AssertionError: an honest provider was slashed" in capsys.readouterr().err


def test_a_sample_of_a_thousand_games_finds_nothing(tmp_path: Path) -> None:
    """Other seeds than those of the kept result; the sample has every way in which a game ends."""
    tally = campaign.run(1_000, 1_000_000, tmp_path / "disputes.json")
    assert tally.violations == []
    assert tally.games >= 1_000
    every = ("acquitted", "convicted", "void", "appealed", "juries_overturned", "games_with_an_honest_challenger")
    assert min(tally.counts[name] for name in every) > 0


def test_the_kept_result_is_a_hundred_thousand_games_of_these_contracts() -> None:
    """benches/results/disputes.json is of the code as it is."""
    body = json.loads((ROOT / "benches" / "results" / "disputes.json").read_text())
    assert body["bytecode_sha256"] == campaign.bytecode_hash(), "run tests/contracts/campaign_disputes.py"
    assert body["games"] >= 100_000
    assert body["violations"] == 0
    counts = Counter({name: n for name, n in body.items() if isinstance(n, int)})
    assert counts["acquitted"] + counts["convicted"] + counts["void"] == body["games"]
    assert min(counts["appealed"], counts["juries_overturned"], counts["games_with_an_honest_provider"]) > 100
