"""One dispute on one screen: the range narrows, votes are told, money adds up, and nothing is wider than a screen."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from minga.cli.game_view import GameView, new_lines
from minga.protocol.dispute import SHORT, Game, Kind, Outcome, Phase, Player


def history() -> ModuleType:
    """The game that tests/chain/test_games.py folds."""
    path = Path(__file__).resolve().parents[1] / "chain" / "test_games.py"
    spec = importlib.util.spec_from_file_location("game_history", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["game_history"] = module
    spec.loader.exec_module(module)
    return module


PLAYED = history()


def view(length: int | None = None, **changes: Any) -> GameView:
    """The view after so many events."""
    games = PLAYED.fold(PLAYED.HISTORY[:length])
    made = GameView(games.games[1], PLAYED.MADE, games.seats, 6, SHORT, applied=games.applied.get(PLAYED.CHANNEL, []))
    return replace(made, **changes)


def state(phase: Phase, **changes: Any) -> Game:
    """The contract's own record in a phase."""
    made = Game(
        PLAYED.CHANNEL, PLAYED.PROVIDER, PLAYED.CHALLENGER, phase, Outcome.NONE, Kind.LEAVES, Player.NOBODY, 2, 301, 0,
        PLAYED.WORD, 1_000, 100, 90, 0b1111,
    )  # fmt: skip
    return replace(made, **changes)


def drawn(made: GameView, columns: int = 80) -> str:
    """What a screen of so many columns shows."""
    out = io.StringIO()
    Console(file=out, width=columns, color_system=None).print(made.render())
    return out.getvalue()


def test_the_range_narrows_to_one_leaf():
    assert view().spans() == [(0, 300), (0, 255), (48, 63), (61, 61)]
    assert view(6).spans() == [(0, 300)]


def test_every_move_is_a_line():
    lines = [text for _, text in view().lines()]
    assert "challenges a leaf of 301, bond $1.00" in lines[0]
    assert lines[1:7] == [
        "provider shows 16 nodes", "challenger picks: leaves 0 to 255", "provider shows 16 nodes",
        "challenger picks: leaves 48 to 63", "provider shows 16 nodes", "challenger picks: leaf 61",
    ]  # fmt: skip
    assert "jury: seats 0, 2, 3" in lines
    assert "seat 2 votes: does not follow" in lines
    assert "the provider appeals: the whole pool votes" in lines
    assert any("was silent: fined" in line for line in lines)
    assert lines[-1] == "convicted: slashed $1.00"
    assert [at for at, _ in view().lines()] == sorted(at for at, _ in view().lines())


def test_only_new_lines_are_told_again():
    told, lines = new_lines(0, view(8))
    assert told == len(lines) == 3
    assert new_lines(told, view(9)) == (4, ["provider shows 16 nodes"])
    assert new_lines(4, view(9)) == (4, [])


def test_clocks_run_for_who_has_to_move():
    pick = view(7, state=state(Phase.PICK), now=1_030)
    assert pick.clocks() == {"provider": 100, "challenger": 60}
    assert pick.waits_for() == "the challenger picks one"
    shows = view(6, state=state(Phase.EXPAND), now=1_300)
    assert shows.clocks() == {"provider": 0, "challenger": 90}
    assert view(6).clocks() == {}
    assert view(6).waits_for() == "–"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.NONE])
def test_every_phase_says_what_it_waits_for(phase):
    assert view(6, state=state(phase)).waits_for() not in ("", "–")


def test_votes_are_shown_as_they_are_known():
    jury = {seat: vote for seat, _, vote in view(17).votes(1)}
    assert jury == {0: "bound", 2: "bound", 3: ""}
    pool = {seat: vote for seat, _, vote in view().votes(2)}
    assert pool == {0: "bound", 1: "follows", 2: "bound", 3: ""}


def test_money_is_who_got_what():
    money = dict(view().money())
    assert money["slashed from the provider"] == 1_000_000
    assert money["to the tenant: held pay, by Market"] == 130
    assert money["to the tenant: from the slash"] == 1_170
    assert money["to referees, for 3 votes"] == 30_000
    assert "to the provider" not in money
    assert view(10).money() == []


def test_facts_are_json_and_whole():
    facts = json.loads(json.dumps(view().facts()))
    assert facts["outcome"] == "convicted"
    assert facts["leaf"] == 61
    assert facts["spans"][-1] == [61, 61]
    assert facts["appellant"] == "provider"
    assert len(facts["votes"]) == 7
    assert facts["waits_for"] == "over"
    assert view(6).facts()["leaf"] is None


@pytest.mark.parametrize("length", [6, 9, 13, 17, 21, None])
def test_the_screen_fits_eighty_columns(length):
    shown = drawn(view(length, state=state(Phase.VOTE), now=1_005))
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "game 1" in shown


def test_the_screen_shows_range_votes_and_money():
    shown = drawn(view(), 100)
    assert "48 – 63" in shown
    assert "convicted" in shown
    assert "does not follow" in shown
    assert "who got what" in shown
    assert "$1.00  slashed from the provider" in shown


def test_a_game_about_the_end_says_so():
    challenge = PLAYED.de.Challenged(1, PLAYED.CHANNEL, PLAYED.CHALLENGER, True, 15)
    games = PLAYED.fold([*PLAYED.HISTORY[:5], challenge])
    made = GameView(games.games[1], PLAYED.MADE, games.seats, 6)
    assert "challenges the end of the trace" in made.lines()[0][1]
    assert made.facts()["about"] == "the end of the trace"
