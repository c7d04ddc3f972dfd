"""The campaign: it goes on where it stopped, it reports what it finds, and its result is of the sources as they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from minga.sim import campaign
from minga.sim.shape import Outcome

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "results" / "simulate.json"
SEEDS_MIN = 100_000


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds that take no time, in small batches."""

    def judged(seed: int) -> Outcome:
        broken = "loss: a tenant lost" if seed == 57 else ""
        return Outcome(seed, f"{seed:032x}", broken, [], 2, Counter(done=2), 3, ("flooder",), 10, 9, 8, 7, 6, 5, 4)

    monkeypatch.setattr(campaign, "judged", judged)
    monkeypatch.setattr(campaign, "BATCH", 4)


@pytest.mark.usefixtures("quick")
def test_a_stopped_campaign_goes_on(tmp_path: Path) -> None:
    parts, whole = tmp_path / "parts.json", tmp_path / "whole.json"
    campaign.run(5, 7, parts)
    campaign.run(20, 7, parts)
    campaign.run(20, 7, whole)
    found, expected = (json.loads(path.read_text()) for path in (parts, whole))
    del found["seconds"], expected["seconds"]
    assert found == expected
    assert found["seeds"] == {"first": 7, "next": 27}
    assert found["jobs"] == 40
    assert found["phases"] == {"done": 40}
    assert found["actors"] == {"flooder": 20}


@pytest.mark.usefixtures("quick")
def test_other_sources_or_seeds_begin_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "result.json"
    campaign.run(8, 0, out)
    assert campaign.resume(out, 0).next_seed == 8
    assert campaign.resume(out, 1).next_seed == 1
    monkeypatch.setattr(campaign, "sources_hash", lambda: "other")
    assert campaign.resume(out, 0).next_seed == 0


@pytest.mark.usefixtures("quick")
def test_a_violation_ends_it_with_the_seed_and_how_to_replay_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert campaign.main(["--seeds", "100", "--first", "50", "--out", str(out)]) == 1
    body = json.loads(out.read_text())
    assert body["violated"] == [{"seed": 57, "what": "loss: a tenant lost"}]
    assert body["seeds"]["next"] == 58
    shown = capsys.readouterr().err
    assert "seed 57: loss: a tenant lost" in shown
    assert "minga sim world --seed 57" in shown
    assert campaign.main(["--seeds", "100", "--first", "50", "--out", str(out)]) == 1


@pytest.mark.usefixtures("quick")
def test_it_can_look_for_all_of_them(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    assert campaign.main(["--seeds", "100", "--keep-going", "--out", str(out)]) == 1
    body = json.loads(out.read_text())
    assert (body["violations"], body["seeds"]["next"]) == (1, 100)


def test_a_defect_of_the_world_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(shape: object) -> Outcome:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(campaign, "run_world", broken)
    assert campaign.judged(3).violation == "defect: ZeroDivisionError: by zero"


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    campaign.run(10, 40, one, jobs=1, all_of_them=True)
    campaign.run(10, 40, two, jobs=2, all_of_them=True)
    found, expected = (json.loads(path.read_text()) for path in (one, two))
    del found["seconds"], expected["seconds"]
    assert found == expected
    assert found["steps"] > 0


def test_the_hash_is_of_the_agents_and_of_the_world() -> None:
    names = {path.name for pattern in campaign.SOURCES for path in campaign.PACKAGE.glob(pattern)}
    assert {"job.py", "job_work.py", "market.py", "agent.py", "rules_end.py", "metering.py", "watch.py"} <= names
    assert all(list(campaign.PACKAGE.glob(pattern)) for pattern in campaign.SOURCES)
    assert len(campaign.sources_hash()) == 64


@pytest.mark.skipif(not KEPT.exists(), reason="results/simulate.json was not made yet: make simulate")
def test_the_kept_result_is_a_hundred_thousand_worlds_of_these_agents() -> None:
    body = json.loads(KEPT.read_text())
    assert body["sources_sha256"] == campaign.sources_hash(), "run make simulate"
    assert body["seeds"]["next"] - body["seeds"]["first"] >= SEEDS_MIN
    assert body["violations"] == 0
    assert set(body["phases"]) <= {"done", "failed", "stopped", "exhausted"}
