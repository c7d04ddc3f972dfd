"""The campaign: it goes on where it stopped, it reports what it finds, and what is kept of it is of its commit."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minga.sim import campaign
from minga.sim.shape import Outcome

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "results" / "simulate.json"
SEEDS_MIN = 100_000
HOSTILE_MIN = 25


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


# ------------------------------------------------------------------------------------------------------ the kept result


def git(*words: str, cwd: Path = ROOT) -> str:
    """What git prints; empty when it fails."""
    return subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=False).stdout.strip()


def complaint_of(body: dict[str, Any], hash_at: Callable[[str], str | None]) -> str:
    """What is wrong with a kept result, empty if nothing; `hash_at` gives the hash of the sources at a commit."""
    counts = {name: body[name] for name in campaign.COUNTS}
    actors = body["actors"]
    facts = {
        "it is of this campaign": body["bench"] == "simulate",
        "it is of a commit, and of one without changes": re.fullmatch(r"[0-9a-f]{7,40}", body["commit"]) is not None,
        "it is of enough worlds": body["seeds"]["next"] - body["seeds"]["first"] >= SEEDS_MIN,
        "no rule was broken": body["violations"] == 0 and body["violated"] == [],
        "its traces are named": len(body["traces_sha256"]) == 64,
        "it took time": body["seconds"] > 0,
        "every job ended": sum(body["phases"].values()) == body["jobs"],
        "jobs end as jobs do": set(body["phases"]) == {"done", "failed", "stopped", "exhausted"},
        "most that end well are done": body["phases"].get("done", 0) > body["jobs"] / 3,
        "nearly every job was attempted": body["attempts"] > body["jobs"],
        "rules were checked at every step": body["checks"] > body["steps"] > body["messages"] / 10,
        "money moved": body["transactions"] > 2 * body["jobs"],
        "agents were killed": body["crashes"] > body["seeds"]["next"] - body["seeds"]["first"],
        "hostile actors were there": len(actors) >= HOSTILE_MIN,
        "each of them often": all(count >= SEEDS_MIN // 1000 for count in actors.values()),
    } | {f"{name} were counted": count >= SEEDS_MIN for name, count in counts.items()}
    wrong = [fact for fact, holds in facts.items() if not holds]
    if wrong:
        return f"not so: {', '.join(wrong)}"
    return "" if hash_at(body["commit"]) == body["sources_sha256"] else "it is not of the sources at its commit"


def test_the_kept_result_is_a_hundred_thousand_worlds_of_the_agents_at_its_commit() -> None:
    """Agents change daily, and a hundred thousand worlds take two hours: what is kept is of the commit that it
    names, and CI runs a sample of today's.
    """
    if not KEPT.exists():
        pytest.skip("results/simulate.json was not made yet: make simulate")
    if git("rev-parse", "--show-toplevel") != str(ROOT):
        pytest.skip("not a checkout of its own: no history to look the commit up in")
    body = json.loads(KEPT.read_text())
    is_known = bool(git("rev-parse", "--verify", "--quiet", f"{body['commit']}^{{commit}}"))
    if not is_known and git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip(f"a shallow clone, whose history does not reach back to {body['commit']}")
    assert complaint_of(body, campaign.sources_hash_at) == ""


GOOD: dict[str, Any] = {
    "bench": "simulate", "sources_sha256": "5a" * 32, "commit": "7b5135d", "seeds": {"first": 0, "next": SEEDS_MIN},
    "violations": 0, "violated": [], "traces_sha256": "6b" * 32, "seconds": 7000.0,
    **dict.fromkeys(campaign.COUNTS, 10**6), "jobs": 200_000, "checks": 10**7,
    "phases": {"done": 120_000, "exhausted": 10_000, "failed": 60_000, "stopped": 10_000},
    "actors": {f"actor-{number}": 5000 for number in range(HOSTILE_MIN)},
}  # fmt: skip


def test_a_good_result_is_complained_of_by_nobody() -> None:
    assert complaint_of(GOOD, {"7b5135d": "5a" * 32}.get) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"sources_sha256": "00" * 32}, {"commit": "7b5135d+"}, {"commit": ""}, {"commit": "0000000"},
        {"seeds": {"first": 0, "next": SEEDS_MIN - 1}}, {"violations": 1}, {"violated": [{"seed": 1, "what": "loss"}]},
        {"jobs": 200_001}, {"phases": {"done": 200_000}}, {"actors": {"flooder": 5000}}, {"steps": 10**8},
        {"crashes": 3}, {"seconds": 0.0}, {"actors": GOOD["actors"] | {"actor-3": 99}},
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_result_is_complained_of(change: dict[str, Any]) -> None:
    assert complaint_of(GOOD | change, {"7b5135d": "5a" * 32}.get) != ""


def checkout(folder: Path) -> Path:
    """A repository with two commits, in the second of which an agent is another."""
    package = folder / "src" / "minga"
    for name in ("protocol/lease.py", "sim/world.py", "sim/deep/no.py", "cli/main.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"# {name}")
    git("init", "-q", cwd=folder)
    for text in ("first", "second"):
        (package / "protocol" / "lease.py").write_text(text)
        git("add", ".", cwd=folder)
        git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", text, cwd=folder)
    return package


def test_sources_are_hashed_as_they_were_at_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = checkout(tmp_path)
    monkeypatch.setattr(campaign, "PACKAGE", package)
    now = campaign.sources_hash()
    assert campaign.sources_hash_at("HEAD") == now == campaign.sources_hash_at(campaign.commit())
    assert campaign.sources_hash_at("HEAD~1") not in (now, None)
    assert campaign.sources_hash_at("deadbeef") is None
    for name, counts in (("cli/main.py", False), ("sim/deep/no.py", False), ("sim/world.py", True)):
        (package / name).write_text("changed")
        assert (campaign.sources_hash() != now) is counts
        assert campaign.commit().endswith("+"), "the commit is told to be dirty"
    assert campaign.sources_hash_at("HEAD") == now


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (campaign.commit(), campaign.sources_hash_at("HEAD")) == ("", None)
