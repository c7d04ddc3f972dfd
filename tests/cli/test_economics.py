"""`minga sim economics`: tables, exit codes, rules left out, and one clear error where numpy is missing."""

from __future__ import annotations

import json
import sys

import pytest

from minga.cli.main import main
from minga.cli.sim import terms_of
from minga.core.errors import InvalidInput
from minga.sim.economics_cheats import CHEATS
from minga.sim.economics_world import RULES, Terms

FEW = ["--jobs", "5000", "--seed", "3"]


def test_everything_is_shown_and_nothing_pays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "economics", *FEW, "--breaks"]) == 0
    shown = capsys.readouterr().out
    for cheat in CHEATS:
        assert f"\n{cheat.name} " in shown
    for rule in RULES:
        assert f"with {rule}: " in shown
    assert "audit rate 9.48 %, stake 20 x deposit, 30 %" in shown
    assert "faking loses: corrupt validators, below 51" in shown
    assert "kept by programs that exist: floor; see docs/audits.md" in shown
    assert "PAYS" not in shown
    assert max(map(len, shown.splitlines())) <= 130
    assert main(["sim", "economics", *FEW, "--breaks"]) == 0
    assert capsys.readouterr().out == shown


def test_a_rule_that_is_left_out_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "economics", *FEW, "--without", "demand"]) == 1
    shown = capsys.readouterr().out
    assert "WITHOUT demand: " in shown
    assert "verdict  PAYS, but should not: never-commit" in shown


def test_too_few_jobs_are_said_to_be_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "economics", "--jobs", "1000", "--p", "2"]) == 0
    assert "too few jobs to say of " in capsys.readouterr().out


def test_the_outcome_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "economics", *FEW, "--json", "--p", "10", "--collusion", "12.5"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["terms"]["rate"] == 1000
    assert body["terms"]["factor"] == 19
    assert body["terms"]["collusion"] == 1250
    assert len(body["cheats"]) == len(CHEATS)
    assert body["paying"] == []
    assert len(body["digest"]) == 64


def test_an_unknown_rule_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "economics", "--without", "gravity"]) == 2
    told = capsys.readouterr().err
    assert "there is no rule 'gravity'" in told
    assert "floor, cover" in told


def test_numpy_is_a_prerequisite_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("minga.sim.economics") or "economics_view" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert main(["sim", "economics", *FEW]) == 6
    told = capsys.readouterr().err
    assert "missing-prerequisite" in told
    assert "pip install numpy" in told


def test_options_become_terms() -> None:
    assert terms_of(None, None, 30, []) == Terms()
    assert terms_of(None, 40, 30, []).rate == 497
    assert terms_of(5, None, 0, []).factor == 40
    assert terms_of(5, 20, 0, ["floor"]) == Terms(rate=500, factor=20, collusion=0, rules=frozenset(RULES) - {"floor"})
    assert terms_of(None, None, 30, ["all"]).rules == frozenset()
    with pytest.raises(InvalidInput):
        terms_of(None, None, 30, ["no-such-rule"])
