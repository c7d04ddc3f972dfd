"""What a provider answers in each phase of a game: from its leaves and the chain alone, and never for another tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minga.chain.disputes import Disputes
from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import InvalidInput
from minga.core.units import Amount
from minga.protocol.dispute import SHORT, Ballots, Commitment, Game, Kind, Outcome, Phase, Player
from minga.protocol.merkle import Tree, fold
from minga.provider.defending import Answer, answer, tree_of

LEAVES = [keccak(bytes([number % 256, number // 256])) for number in range(301)]
TREE = Tree(LEAVES)
WORD = Hash32("0x" + "12" * 32)
PROVIDER, OTHER = Address("0x" + "a" * 40), Address("0x" + "c" * 40)
MADE = Commitment(WORD, PROVIDER, OTHER, WORD, Hash32(to_hex(TREE.root)), 301, Amount(50_000), 1_000)
CONTRACT = Disputes(Address("0x" + "d" * 40))
NOW = 2_000
AGAINST, FOR = Ballots(0b111, 0b111, 0b111, 0b001), Ballots(0b111, 0b111, 0b111, 0b011)


def game(phase: Phase, **changes: Any) -> Game:
    """A game over 301 leaves in a phase."""
    made = Game(
        WORD, PROVIDER, OTHER, phase, Outcome.NONE, Kind.LEAVES, Player.NOBODY, 3, 301, 0, WORD, NOW - 10, 100, 100,
        0b1111,
    )  # fmt: skip
    return replace(made, **changes)


def answered(state: Game, jury: Ballots = AGAINST, now: int = NOW, appeals: bool = True) -> Answer | None:
    """The answer to a state."""
    return answer(CONTRACT, 7, state, jury, MADE, TREE, SHORT, now, appeals)


def test_the_nodes_shown_fold_to_the_node_in_play():
    node, index = TREE.root, 0
    for done, pick in enumerate((1, 2, 5)):
        found = answered(game(Phase.EXPAND, rounds=3 - done, index=index))
        assert found is not None
        assert found.name == f"expand/{done}"
        assert found.call.name == "Disputes.expand"
        children = TREE.children(done, index)
        assert fold(children) == node
        assert b"".join(children) in found.call.data
        node, index = children[pick], 16 * index + pick
    assert node == LEAVES[index] == LEAVES[293]


def test_the_leaf_before_is_opened_with_its_proof():
    found = answered(game(Phase.BEFORE, rounds=0, index=288))
    assert found is not None
    assert found.name == "before"
    assert LEAVES[287] in found.call.data
    assert b"".join(TREE.proof(287)) in found.call.data


def test_the_end_of_a_trace_is_opened_too():
    found = answered(game(Phase.BEFORE, rounds=0, index=301, kind=Kind.END))
    assert found is not None
    assert LEAVES[300] in found.call.data


def test_silence_is_claimed_when_the_clock_ran_out_and_not_before():
    assert answered(game(Phase.PICK)) is None
    late = answered(game(Phase.PICK, since=NOW - 101))
    assert late is not None
    assert late.name == "timeout"
    assert answered(game(Phase.PICK, since=NOW - 100)) is None


def test_a_draw_is_made_for_its_round_or_given_up():
    found = answered(game(Phase.DRAW, node=Hash32("0x" + f"{44:064x}")))
    assert found is not None
    assert found.name == "draw/44"
    late = answered(game(Phase.DRAW, since=NOW - SHORT.vote_seconds))
    assert late is not None
    assert late.name == "timeout"


def test_a_lost_jury_is_appealed_against_while_that_can_be():
    found = answered(game(Phase.JUDGED))
    assert found is not None
    assert (found.name, found.cost) == ("appeal", 4 * SHORT.seat_fee)
    assert answered(game(Phase.JUDGED), jury=FOR) is None
    assert answered(game(Phase.JUDGED), appeals=False) is None
    over = answered(game(Phase.JUDGED, since=NOW - SHORT.vote_seconds))
    assert over is not None
    assert over.name == "finish"


@pytest.mark.parametrize("phase", [Phase.VOTE, Phase.REVEAL, Phase.POOL_VOTE, Phase.POOL_REVEAL, Phase.OPERATORS])
def test_while_others_move_nothing_is_answered(phase):
    assert answered(game(phase)) is None


def test_a_decided_game_is_finished_and_a_finished_one_paid():
    ends = [answered(game(phase)) for phase in (Phase.POOL_JUDGED, Phase.DONE)]
    assert [found.name for found in ends if found is not None] == ["finish", "withdraw"]


def test_other_leaves_are_never_shown():
    assert tree_of(MADE, LEAVES).root == TREE.root
    for leaves in (LEAVES[:-1], [*LEAVES, bytes(32)], [LEAVES[1], *LEAVES[1:]]):
        with pytest.raises(InvalidInput, match="not the leaves"):
            tree_of(MADE, leaves)
