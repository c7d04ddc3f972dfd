"""What the chain's own record of a game becomes for an agent: stages, clocks, ballots, seats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minga.core.crypto import Address, Hash32
from minga.protocol.dispute import SHORT, Ballots, Game, Kind, Outcome, Phase, Player
from minga.validator.events import DOES_NOT_FOLLOW, FOLLOWS, GameSeen
from minga.validator.watch import seen_of

WORD = Hash32("0x" + "12" * 32)
PROVIDER, CHALLENGER = Address("0x" + "a" * 40), Address("0x" + "c" * 40)
NOW = 5_000
NONE = (Ballots(), Ballots())
JURY = Ballots(voters=0b1011, committed=0b0011, revealed=0b0001, follows=0b0000)


def game(phase: Phase, **changes: Any) -> Game:
    """A game over 301 leaves."""
    made = Game(
        WORD, PROVIDER, CHALLENGER, phase, Outcome.NONE, Kind.LEAVES, Player.NOBODY, 3, 301, 0, WORD, NOW - 50, 100, 40,
        0b1111,
    )  # fmt: skip
    return replace(made, **changes)


def seen(state: Game, ballots: tuple[Ballots, Ballots] = NONE, seat: int | None = None, now: int = NOW) -> GameSeen:
    """What an agent is told of it."""
    return seen_of(7, state, ballots, SHORT, now, seat)


@pytest.mark.parametrize(
    ("phase", "stage"),
    [
        (Phase.EXPAND, "expand"), (Phase.PICK, "pick"), (Phase.BEFORE, "before"), (Phase.OPERATORS, "expand"),
        (Phase.DRAW, "draw"), (Phase.VOTE, "vote"), (Phase.REVEAL, "reveal"), (Phase.JUDGED, "appeal"),
        (Phase.POOL_VOTE, "vote"), (Phase.POOL_REVEAL, "reveal"), (Phase.POOL_JUDGED, "decided"), (Phase.DONE, "over"),
    ],
)  # fmt: skip
def test_every_phase_has_a_stage(phase, stage):
    assert seen(game(phase)).stage == stage


def test_rounds_that_are_over_are_counted():
    assert seen(game(Phase.PICK)).done == 0
    narrowed = seen(game(Phase.PICK, rounds=1, index=3))
    assert (narrowed.done, narrowed.node) == (2, 3)
    assert seen(game(Phase.BEFORE, rounds=0, index=301, kind=Kind.END)).done == 0


def test_a_draw_waits_for_its_round():
    waits = seen(game(Phase.DRAW, node=Hash32("0x" + f"{44:064x}")))
    assert (waits.node, waits.overdue) == (44, False)
    assert seen(game(Phase.DRAW, since=NOW - SHORT.vote_seconds)).overdue


@pytest.mark.parametrize(
    ("phase", "since", "mover", "overdue"),
    [
        (Phase.EXPAND, 100, "provider", False), (Phase.EXPAND, 101, "provider", True),
        (Phase.BEFORE, 101, "provider", True), (Phase.PICK, 40, "challenger", False),
        (Phase.PICK, 41, "challenger", True), (Phase.VOTE, 10_000, "", False),
    ],
)  # fmt: skip
def test_a_clock_runs_for_who_has_to_move(phase, since, mover, overdue):
    found = seen(game(phase, since=NOW - since))
    assert (found.mover, found.overdue) == (mover, overdue)


def test_a_seat_sees_its_own_vote():
    votes = [seen(game(Phase.REVEAL), (JURY, Ballots()), seat) for seat in (0, 1, 2, 3, None)]
    assert [found.seated for found in votes] == [True, True, False, True, False]
    assert [found.voted for found in votes] == [True, True, False, False, False]
    assert [found.told for found in votes] == [True, False, False, False, False]
    assert {found.ballot for found in votes} == {1}


def test_the_pools_ballot_is_the_second():
    pool = Ballots(voters=0b1111)
    found = seen(game(Phase.POOL_VOTE), (JURY, pool), 2)
    assert (found.ballot, found.seated, found.voted) == (2, True, False)
    assert seen(game(Phase.EXPAND)).ballot == 0


def test_a_jurys_verdict_is_told_once_it_stands():
    against, tie = Ballots(0b111, 0b111, 0b111, 0b001), Ballots(0b11, 0b11, 0b11, 0b01)
    assert seen(game(Phase.JUDGED), (against, Ballots())).verdict == DOES_NOT_FOLLOW
    assert seen(game(Phase.JUDGED), (tie, Ballots())).verdict == FOLLOWS
    assert seen(game(Phase.REVEAL), (against, Ballots())).verdict == 0
    assert seen(game(Phase.POOL_JUDGED), (against, tie)).verdict == FOLLOWS


def test_an_appeal_can_be_made_for_a_while():
    late = game(Phase.JUDGED, since=NOW - SHORT.vote_seconds)
    assert seen(late).stage == "decided"
    assert seen(game(Phase.JUDGED, since=NOW - SHORT.vote_seconds + 1)).stage == "appeal"


def test_a_conviction_is_seen():
    assert seen(game(Phase.DONE, outcome=Outcome.CONVICTED)).convicted
    assert not seen(game(Phase.DONE, outcome=Outcome.VOID)).convicted
