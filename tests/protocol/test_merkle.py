"""The tree over a trace: rounds, children, proofs, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.crypto import keccak
from minga.core.errors import InvalidInput
from minga.protocol.merkle import ARITY, EMPTY_LEAF, LEAVES_MAX, LEVELS, Tree, fold, proves, rounds_for


def leaves(count: int) -> list[bytes]:
    return [keccak(number.to_bytes(4, "big")) for number in range(count)]


def padded(given_leaves: list[bytes]) -> list[bytes]:
    return given_leaves + [EMPTY_LEAF] * (ARITY ** rounds_for(len(given_leaves)) - len(given_leaves))


@pytest.mark.parametrize(
    ("count", "rounds"), [(1, 1), (16, 1), (17, 2), (200, 2), (256, 2), (257, 3), (65_537, 5), (2**20, 5)]
)
def test_rounds_are_the_fewest_that_hold_the_leaves(count, rounds):
    assert rounds_for(count) == rounds


@pytest.mark.parametrize("count", [0, -1, LEAVES_MAX + 1])
def test_other_numbers_of_leaves_are_refused(count):
    with pytest.raises(InvalidInput, match="leaves, not 1 to"):
        rounds_for(count)


def test_a_leaf_has_32_bytes():
    with pytest.raises(InvalidInput, match="32 bytes"):
        Tree([bytes(31)])


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100, 255, 256, 257, 1000])
def test_the_root_is_that_of_the_padded_leaves(count):
    assert Tree(leaves(count)).root == fold(padded(leaves(count)))


@given(st.integers(1, 600), st.data())
def test_every_path_of_children_leads_from_the_root_to_its_leaf(count, data):
    tree, index = Tree(leaves(count)), data.draw(st.integers(0, ARITY ** rounds_for(count) - 1))
    node, at = tree.root, 0
    for done in range(tree.rounds):
        children = tree.children(done, at)
        assert fold(children) == node
        digit = index // ARITY ** (tree.rounds - done - 1) % ARITY
        node, at = children[digit], ARITY * at + digit
    assert at == index
    assert node == padded(leaves(count))[index]


@given(st.integers(1, 600), st.data())
def test_a_proof_proves_its_leaf_and_no_other(count, data):
    tree, index = Tree(leaves(count)), data.draw(st.integers(0, count - 1))
    leaf, proof = tree.leaves[index], tree.proof(index)
    assert len(proof) == LEVELS * tree.rounds
    assert proves(tree.root, tree.rounds, index, leaf, proof)
    assert not proves(tree.root, tree.rounds, index, keccak(leaf), proof)
    assert not proves(tree.root, tree.rounds, index ^ 1, leaf, proof)
    assert not proves(tree.root, tree.rounds, index, leaf, proof[:-1])
    assert not proves(tree.root, tree.rounds, index + ARITY**tree.rounds, leaf, proof)


@pytest.mark.parametrize(("done", "index"), [(-1, 0), (2, 0), (0, 1), (1, 16), (1, -1)])
def test_there_are_no_children_beyond_the_tree(done, index):
    with pytest.raises(InvalidInput, match="no node"):
        Tree(leaves(100)).children(done, index)
