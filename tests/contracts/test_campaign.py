"""The campaign itself: it goes on where it stopped, it reports what it finds, and a sample of it finds nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import campaign
import pytest
from evm import ROOT


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches of short episodes."""
    monkeypatch.setattr(campaign, "BATCH", 2)
    monkeypatch.setattr(campaign, "STEPS", 25)


@pytest.mark.usefixtures("short")
def test_a_stopped_campaign_goes_on(tmp_path: Path) -> None:
    """Stopped and resumed is the same as run in one go, seeds and all; another first seed starts afresh."""
    parts, whole = tmp_path / "parts.json", tmp_path / "whole.json"
    campaign.run(1, 7, parts)
    campaign.run(100, 7, parts)
    campaign.run(100, 7, whole)
    found, expected = (json.loads(path.read_text()) for path in (parts, whole))
    del found["seconds"], expected["seconds"]
    assert found == expected
    assert found["seeds"]["first"] == 7
    assert found["calls"] == sum(found["reverts"].values()) + sum(found["accepted"].values()) >= 100
    assert campaign.resume(whole, 8).calls == 0
    assert campaign.resume(whole, 7).next_seed == found["seeds"]["next"]


@pytest.mark.usefixtures("short")
def test_a_violation_is_reported_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The campaign stops, says where, and exits with 1."""

    def broken(seed: int) -> tuple[int, int, Counter[str]]:
        assert seed != 4, "the tenant was paid twice"
        return 10, 1, Counter({"ok: open": 10})

    monkeypatch.setattr(campaign, "episode", broken)
    out = tmp_path / "campaign.json"
    assert campaign.main(["--calls", "1000", "--seed", "3", "--out", str(out)]) == 1
    body = json.loads(out.read_text())
    assert (body["violations"], body["calls"]) == (1, 10)
    assert body["violated"][0]["seed"] == 4
    assert "seed 4: AssertionError: the tenant was paid twice" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sample_of_fifty_thousand_calls_finds_nothing(tmp_path: Path) -> None:
    """Other seeds than those of the kept result."""
    tally = campaign.run(50_000, 1_000_000, tmp_path / "campaign.json", jobs=2)
    assert tally.violations == []
    assert tally.calls >= 50_000


def test_the_kept_result_is_a_million_calls_of_these_contracts() -> None:
    """benches/results/campaign.json is of the code as it is; `make campaign` renews it."""
    body = json.loads((ROOT / "benches" / "results" / "campaign.json").read_text())
    assert body["bytecode_sha256"] == campaign.bytecode_hash(), "run make campaign"
    assert body["calls"] >= 1_000_000
    assert body["violations"] == 0
