"""Games out of events alone: every move is kept, votes belong to their ballot, and a replay gives the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minga.chain import dispute_events as de
from minga.chain.chain import ContractEvent, Position, Seen
from minga.chain.contract_events import Slashed, Staked, UnstakeStarted
from minga.chain.games import Games
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32
from minga.core.units import Amount
from minga.protocol.dispute import Commitment, Outcome

CHANNEL = Hash32("0x" + "c1" * 32)
PROVIDER, TENANT, CHALLENGER = (Address("0x" + digit * 40) for digit in "abc")
ARBITER = Address("0x" + "d" * 40)
WORD = Hash32("0x" + "12" * 32)
MADE = Commitment(CHANNEL, PROVIDER, TENANT, WORD, WORD, 301, Amount(50_000), 1_000)
REFEREES = [Address("0x" + f"{number:040x}") for number in range(1, 5)]

HISTORY: list[ContractEvent] = [
    *[de.Joined(who, seat, Amount(10)) for seat, who in enumerate(REFEREES)],
    de.Committed(CHANNEL, PROVIDER, TENANT, MADE),
    de.Challenged(1, CHANNEL, CHALLENGER, False, 0b1111),
    de.Expanded(1, (WORD,) * 16),
    de.Picked(1, 0),
    de.Expanded(1, (WORD,) * 16),
    de.Picked(1, 3),
    de.Expanded(1, (WORD,) * 16),
    de.Picked(1, 61),
    de.LeafOpened(1, 61, WORD, WORD),
    de.DrawAwaited(1, 44),
    de.Drawn(1, 0b1101),
    *[de.VoteCommitted(1, seat) for seat in (0, 2, 3)],
    *[de.VoteRevealed(1, seat, 2) for seat in (0, 2)],
    de.Appealed(1, 1, 0b1111),
    *[de.VoteCommitted(1, seat) for seat in (0, 1, 2)],
    de.VoteRevealed(1, 1, 1),
    de.Fined(REFEREES[3], 1, Amount(5)),
    de.Finished(
        1, CHANNEL, Outcome.CONVICTED, Amount(1_000_000), Amount(50_000), Amount(1_450_000), Amount(0), Amount(10_000)
    ),
    de.Applied(CHANNEL, Amount(1_300), Amount(130), Amount(1_170), Amount(48_830)),
    de.Left(REFEREES[3], 3, 9_999),
]


def seen(event: ContractEvent, number: int) -> Seen:
    """An event in a block of its own."""
    return Seen(event, Position(number, WORD, WORD, 0, 1_000 + 10 * number))


def fold(events: list[ContractEvent]) -> Games:
    """The games after some events."""
    games = Games()
    for number, event in enumerate(events):
        games.take(seen(event, number))
    return games


def test_a_whole_game_is_followed():
    games = fold(HISTORY)
    game = games.games[1]
    assert (game.challenger, game.leaf, game.picks) == (CHALLENGER, 61, [0, 3, 61])
    assert game.rounds_shown == 3
    assert game.voters(1) == (0, 2, 3)
    assert game.voters(2) == (0, 1, 2, 3)
    assert game.votes == {(1, 0): 2, (1, 2): 2, (1, 3): 0, (2, 0): 0, (2, 1): 1, (2, 2): 0}
    assert game.finished is not None
    assert game.finished.outcome == Outcome.CONVICTED
    assert [fine.referee for fine in game.fined] == [REFEREES[3]]
    assert games.about(CHANNEL) == [game]
    assert games.about(WORD) == []
    assert games.applied[CHANNEL][0].held == 130
    assert games.left == {REFEREES[3]: 9_999}
    assert games.convicted[PROVIDER] == game.moves[-1].at
    assert [type(move.event).__name__ for move in game.moves][:2] == ["Challenged", "Expanded"]
    assert len(game.moves) == len(HISTORY) - len(REFEREES) - 3


@pytest.mark.parametrize("length", range(0, len(HISTORY) + 1, 3))
def test_a_replay_gives_the_same(length):
    assert fold(HISTORY[:length]) == fold(HISTORY[:length])


def test_before_a_jury_nobody_votes():
    game = fold(HISTORY[:14]).games[1]
    assert (game.ballot, game.voters(1), game.voters(2), game.leaf) == (0, (), (), 61)


def test_moves_of_a_game_that_never_began_are_nothing():
    assert not fold([de.Picked(7, 1), de.VoteRevealed(7, 0, 1)]).games


def test_an_acquittal_convicts_nobody():
    finished = HISTORY[-3]
    assert isinstance(finished, de.Finished)
    games = fold([*HISTORY[:-3], replace(finished, outcome=Outcome.ACQUITTED, slashed=Amount(0))])
    assert games.convicted == {}


def test_who_comes_back_to_its_seat_has_not_left():
    games = fold([*HISTORY, de.Joined(REFEREES[3], 3, Amount(10))])
    assert games.left == {}
    assert games.joined_in[REFEREES[3]] == 3  # since its first stake


def test_stakes_and_withdrawals_are_added_up():
    staked = Staked(PROVIDER, ARBITER, Amount(100), Amount(100))
    more = Staked(PROVIDER, ARBITER, Amount(50), Amount(150))
    out, gone = UnstakeStarted(PROVIDER, ARBITER, Amount(30), 5), Slashed(PROVIDER, ARBITER, TENANT, Amount(1_000))
    taken = de.AwardWithdrawn(CHALLENGER, CHALLENGER, Amount(7))
    games = fold([staked, more, out, gone, taken, taken])
    assert [units for _, units in games.stakes[PROVIDER, ARBITER]] == [100, 150, 120, 0]
    assert games.withdrawn == {CHALLENGER: 14}
    assert ZERO_ADDRESS not in games.withdrawn
