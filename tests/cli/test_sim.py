"""`minga sim`: a summary, a replayable failure, and the list of actors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minga.cli.main import main
from minga.cli.sim import replay
from minga.sim.actors import ACTORS
from minga.sim.shape import Shape, shape_of
from minga.sim.watch import Watch


def test_a_world_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "world", "--seed", "2", "--plain"]) == 0
    shown = capsys.readouterr().out
    assert "verdict   every rule held" in shown
    assert "hostile   nobody" in shown
    assert "done" in shown
    again = main(["sim", "world", "--seed", "2", "--plain"])
    assert again == 0
    assert capsys.readouterr().out == shown


def test_the_outcome_as_json_and_the_history_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.txt"
    options = ["--seed", "4", "--agents", "7", "--minutes", "2", "--plain", "--trace", str(file), "--json"]
    assert main(["sim", "world", *options]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["violation"] == ""
    assert body["phases"]["done"] == body["jobs"]
    lines = file.read_text().splitlines()
    assert lines[-len(body["last"]) :] == body["last"]


def test_one_actor_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "world", "--seed", "1", "--actor", "board-hangs"]) == 0
    assert "hostile   board-hangs" in capsys.readouterr().out


def test_an_unknown_actor_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "world", "--seed", "1", "--actor", "nobody-such"]) == 2
    assert "minga sim actors" in capsys.readouterr().err


def test_a_broken_rule_shows_the_last_events_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stepped = Watch.tenant_stepped

    def strict(self: Watch, runner: object, before: object, event: object) -> None:
        stepped(self, runner, before, event)  # type: ignore[arg-type]
        self.require(self.steps < 40, "patience", "forty steps are too many")

    monkeypatch.setattr(Watch, "tenant_stepped", strict)
    assert main(["sim", "world", "--seed", "2", "--plain", "--minutes", "4"]) == 1
    told = capsys.readouterr()
    assert "BROKEN patience: forty steps are too many" in told.out
    assert "VIOLATION patience" in told.err
    assert "replay: minga sim world --seed 2" in told.err


def test_a_replay_names_only_what_differs_from_the_seeds_own_shape() -> None:
    usual = shape_of(33)
    assert replay(usual) == " --seed 33"
    other = Shape(33, usual.agents + 1, usual.minutes, "flooder", True)
    assert replay(other) == f" --seed 33 --agents {usual.agents + 1} --actor flooder --plain"


def test_the_actors_are_listed_with_their_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "actors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ACTORS)
    assert any(line.startswith("runaway") and "quantum" in line and "leaves for ever" in line for line in lines)
