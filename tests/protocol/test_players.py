"""The two players: whatever differs first is found, in as few moves as promised, and nothing is found in nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import keccak
from minga.core.errors import InvalidInput
from minga.protocol.merkle import LEAVES_MAX, Tree, rounds_for
from minga.protocol.players import Challenger, Game, play


def leaves_of(count: int, salt: int = 0) -> list[bytes]:
    return [keccak(f"{salt}/{at}".encode()) for at in range(count)]


def cheated(leaves: list[bytes], first: int, again: bool = True) -> list[bytes]:
    """Leaves that differ from `first` on, or there alone."""
    after = leaves_of(len(leaves), salt=1)[first + 1 :] if again else leaves[first + 1 :]
    return [*leaves[:first], keccak(b"wrong"), *after]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_the_first_difference_is_found_whatever_comes_after(data):
    count = data.draw(st.integers(2, 700))
    first = data.draw(st.integers(0, count - 1))
    known = data.draw(st.integers(first + 1, count))
    honest = leaves_of(count)
    tree = Tree(cheated(honest, first, again=data.draw(st.booleans())))
    leaf, moves = play(tree, Challenger(count, honest[:known]))
    assert leaf == max(1, first), "leaf 0 is held against the work when leaf 1 is disputed"
    assert moves == 2 * rounds_for(count)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.data())
def test_nothing_is_found_in_an_honest_trace(count, data):
    honest = leaves_of(count)
    known = data.draw(st.integers(1, count))
    leaf, _ = play(Tree(honest), Challenger(count, honest[:known]))
    assert leaf is None


def test_moves_are_fewer_than_those_of_a_bisection():
    """⌈log2 N⌉, from some 50 leaves on whatever N is; below, two moves a round can be one or two more."""
    for count in [*range(49, 5000), 2**16, 2**16 + 1, LEAVES_MAX]:
        assert 2 * rounds_for(count) <= math.ceil(math.log2(count)), count


def test_a_game_over_a_whole_tree_has_ten_moves():
    """A million leaves: the tree of both is the same but for what follows the difference."""
    count, first = 16**4 + 1, 16**4
    honest = leaves_of(16) * (count // 16) + leaves_of(1)
    tree = Tree([*honest[:first], keccak(b"wrong")])
    assert play(tree, Challenger(count, honest)) == (first, 10)


def test_a_trace_of_one_leaf_has_only_that():
    """Nothing was done; the contract refuses to dispute it, and whoever asks is told which leaf is wrong."""
    assert play(Tree([keccak(b"wrong")]), Challenger(1, leaves_of(1))) == (0, 2)


def test_what_the_challenger_does_not_know_it_does_not_pick():
    honest = leaves_of(100)
    tree = Tree(cheated(honest, 60))
    game = Game(100, tree.root)
    children = tree.children(0, 0)
    assert Challenger(100, honest[:48]).pick(game, children) is None, "three whole nodes, all right"
    assert Challenger(100, honest[:50]).pick(game, children) == 3, "the node with what it does not know"
    assert Challenger(100, honest[:61]).pick(game, children) == 3


def test_a_prover_that_shows_other_nodes_is_caught():
    tree, other = Tree(leaves_of(40)), Tree(leaves_of(40, salt=1))
    game = Game(40, tree.root)
    after = game.after(tree.children(0, 0), 2)
    assert (after.done, after.index, after.over) == (1, 2, False)
    assert after.node == tree.node(4, 2)
    with pytest.raises(InvalidInput, match="not those below"):
        game.after(other.children(0, 0), 2)
    with pytest.raises(InvalidInput, match="not those below"):
        after.after(tree.children(1, 1), 0)


def test_the_end_of_a_game_is_the_end():
    tree = Tree(leaves_of(20))
    game = Game(20, tree.root).after(tree.children(0, 0), 1)
    game = game.after(tree.children(1, 1), 3)
    assert game == Game(20, tree.leaves[19], 2, 19)
    assert game.over
    with pytest.raises(InvalidInput, match="yet to come"):
        game.after(tree.children(1, 1), 3)


@pytest.mark.parametrize("pick", [-1, 16])
def test_there_are_sixteen_nodes_to_pick_from(pick):
    tree = Tree(leaves_of(20))
    with pytest.raises(InvalidInput, match="among 16"):
        Game(20, tree.root).after(tree.children(0, 0), pick)


@pytest.mark.parametrize("shown", [[], [bytes(32)] * 15, [bytes(31)] * 16])
def test_a_round_shows_sixteen_nodes(shown):
    with pytest.raises(InvalidInput, match="16 nodes"):
        Game(20, Tree(leaves_of(20)).root).after(shown, 0)


@pytest.mark.parametrize("known", [0, 21])
def test_a_challenger_knows_something_and_not_more_than_there_is(known):
    with pytest.raises(InvalidInput):
        Challenger(20, leaves_of(known))
