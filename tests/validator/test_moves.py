"""The challenger's moves: the way down is the same whether it is computed or found by comparing nodes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import keccak
from minga.core.errors import InvalidInput
from minga.protocol.merkle import Tree, rounds_for
from minga.validator.moves import first_difference, first_wrong, span, way


def leaves(count: int, seed: str = "") -> list[bytes]:
    return [keccak(f"{seed}/{number}".encode()) for number in range(count)]


def test_the_way_to_a_leaf():
    assert way(5, 10) == (5,)
    assert way(23, 61) == (1, 7)
    assert way(2**20 - 1, 2**20) == (15,) * 5
    assert way(1, 2**20) == (0, 0, 0, 0, 1)


@pytest.mark.parametrize("leaf", [0, 61, -1])
def test_no_way_to_what_cannot_be_disputed(leaf):
    with pytest.raises(InvalidInput):
        way(leaf, 61)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 700), st.data())
def test_comparing_nodes_leads_to_the_first_leaf_that_differs(count, data):
    first = data.draw(st.integers(1, count - 1))
    committed = leaves(count)
    own = committed[:first] + leaves(count, "own")[first:]
    theirs, ours = Tree(committed), Tree(own)
    node, picked = 0, []
    for done in range(theirs.rounds):
        index = first_difference(ours, done, node, theirs.children(done, node))
        assert index is not None
        picked.append(index)
        node = 16 * node + index
        low, high = span(done + 1, node, count)
        assert low <= first <= high
    assert node == first == span(theirs.rounds, node, count)[0]
    assert tuple(picked) == way(first, count)


def test_nothing_to_dispute_below_equal_nodes():
    tree = Tree(leaves(300))
    assert first_difference(tree, 0, 0, tree.children(0, 0)) is None


def test_the_span_narrows_to_one_leaf():
    assert span(0, 0, 61) == (0, 60)
    assert span(1, 3, 61) == (48, 60)
    assert span(rounds_for(61), 23, 61) == (23, 23)


def test_the_first_wrong_leaf_of_a_piece():
    committed = leaves(30)
    assert first_wrong(committed[:21], committed[11:21], 10) == 0
    assert first_wrong(committed[:16], [*committed[11:14], b"x" * 32, b"y" * 32], 10) == 14
    assert first_wrong(committed[:21], committed[11:16], 10) == 16
    assert first_wrong(committed[:21], [], 10) == 11
