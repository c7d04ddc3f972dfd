"""Verified work on the command line: staking, offers, a job that asks for it, and its bill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import one_error
from networks import Net, eventually

from minga.chain.chain import ChainSpec, Deployment
from minga.cli.config import Settings
from minga.cli.live import line_of
from minga.cli.localnet import LocalNetwork, Plan
from minga.cli.provide import stake_fields
from minga.cli.spec import Wishes, build_spec
from minga.client.home import Network
from minga.client.jobspec import Verify
from minga.core.crypto import Address
from minga.core.errors import InvalidInput
from minga.core.units import parse_percent
from traces import tracing

TRACED = tracing([b"a" * 32] * 3) + "sleep 1.2; echo x > $MINGA_OUTPUT_DIR/x"


def test_the_flag_means_what_the_field_means_and_wins_over_it(tmp_path: Path) -> None:
    assert build_spec(["true"], Wishes(), tmp_path).verify == Verify()
    assert build_spec(["true"], Wishes(verify="audit"), tmp_path).verify == Verify("audit")
    file = tmp_path / "job.yaml"
    file.write_text("run: x\nverify: {class: D1, hold: 20%}\n")
    assert build_spec([str(file)], Wishes(verify="audit"), tmp_path).verify == Verify("audit", "D1", 2000)
    with pytest.raises(InvalidInput, match="'maybe' is none of none, audit, replicate"):
        build_spec(["true"], Wishes(verify="maybe"), tmp_path)
    with pytest.raises(InvalidInput, match="has secrets"):
        build_spec(["true"], Wishes(verify="audit", secrets={"A": "b"}), tmp_path)


def test_a_part_is_a_per_cent_text() -> None:
    assert [parse_percent(text) for text in ("10%", "0.01%", "2.5%", "100%", "007%")] == [1000, 1, 250, 10_000, 700]
    for text in ("", "10", "%", "0%", "0.001%", "100.01%", "-1%", "1 %", "\u0663%", "1e1%"):
        with pytest.raises(InvalidInput, match=r"between 0\.01% and 100%"):
            parse_percent(text)


def test_what_is_held_needs_astake_fields() -> None:
    assert stake_fields(None, "10%", None, 6) == {}
    assert stake_fields("2.5", "5%", "6d", 6) == {"stake": 2_500_000, "hold_bps": 500, "hold_s": 518_400}
    assert stake_fields("1", "10%", None, 6) == {"stake": 1_000_000, "hold_bps": 1000, "hold_s": 0}
    for hold, time in (("20%", None), ("10%", "1d")):
        with pytest.raises(InvalidInput, match="nothing is held back without a stake"):
            stake_fields(None, hold, time, 6)


def test_up_stakes_only_when_it_is_told_to(tmp_path: Path) -> None:
    place = Address("0x" + "11" * 20)
    network = Network("local", ChainSpec(("http://127.0.0.1:1",), 31_337, 0, Deployment(place, place, place, 0, 6)))
    local = LocalNetwork(Settings(tmp_path))
    assert "--stake" not in local._provider_words(Plan(), 1, network)
    words = local._provider_words(Plan(stake="50"), 2, network)
    assert words[words.index("--stake") + 1] == "50"


def test_a_screen_tells_of_commitments_and_holds() -> None:
    assert line_of("commitment", {"attempt": 0, "leaves": 12, "root": "0x"}, 6) == (
        "committed on chain to 12 states of the work, as in the trace that came back"
    )
    facts = {"attempt": 0, "to_tenant": 500_000, "to_provider": 0, "awarded": 0}
    assert line_of("hold", facts, 6) == "held pay: $0.50 returned by a verdict, $0.00 released"
    closed = {"attempt": 0, "paid": 880_000, "fee": 10_000, "refunded": 0, "locked": 110_000}
    assert line_of("closed", closed, 6) == "lease closed: paid $0.88, fee $0.01, held $0.11, refunded $0.00"


@pytest.fixture(scope="module")
def staked(tmp_path_factory: pytest.TempPathFactory, jobs_python: Path) -> Iterator[Net]:
    """A network whose two providers have something at stake."""
    folder = tmp_path_factory.mktemp("staked")
    made = Net(folder / "home", folder, jobs_python)
    ended = made.up("--stake", "20")
    try:
        assert ended.code == 0, ended
        eventually(lambda: len(made.json("offers")) == 4)
        yield made
    finally:
        assert made("down").code == 0


def test_a_staked_network_offers_each_machine_twice(staked: Net) -> None:
    found = staked.json("offers")
    assert sorted(offer["hold_bps"] for offer in found) == [0, 0, 1000, 1000]
    assert len({offer["machine"] for offer in found}) == 2
    table = staked("offers").out
    assert "held" in table
    assert "10 %" in table
    assert max(map(len, table.splitlines())) <= 80


def test_a_verified_job_runs_and_its_bill_says_what_is_held(staked: Net) -> None:
    report = staked.json(
        "run", "--budget", "0.5", "--no-workdir", "--name", "proved", "--verify", "audit", "--", TRACED
    )
    assert report["job"]["status"] == "done", report
    bill = report["bill"]
    assert bill["conserved"]
    assert bill["held"] > 0
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["held"] + bill["refunded"] + bill["locked"]
    shown = staked("bill", "proved").out
    assert "unless a verdict comes" in shown
    assert "audit, D0" in shown
    whole = staked.json("bill", "proved")
    assert whole["verification"]["trace_bytes"] > 96
    (job,) = [item for item in staked.json("jobs") if item["name"] == "proved"]
    assert (job["held"], job["settled"]) == (bill["held"], True)


def test_the_quote_says_which_requirement_excluded_whom(staked: Net) -> None:
    some = staked.json("quote", "--verify", "audit", "--budget", "1", "--", "true")
    assert (some["matching"], some["offers"], some["excluded"]) == (2, 4, {"arbiter": 2, "hold": 2, "hold_time": 2})
    file = staked.cwd / "greedy.yaml"
    file.write_text("run: 'true'\nbudget: 1\nverify: {mode: audit, hold: 50%}\n")
    none = staked("quote", str(file), "--json")
    assert none.code == 3
    assert json.loads(none.out)["excluded"]["hold"] == 4
    one_error(staked("run", "--verify", "replicate", "--budget", "1", "--no-workdir", "--", "true"), "invalid-input", 2)


def test_up_again_stakes_nothing_twice(staked: Net) -> None:
    again = staked.up("--stake", "20")
    assert again.code == 0
    assert again.out.count("(was up)") == 4
