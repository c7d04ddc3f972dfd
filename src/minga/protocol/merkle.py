"""The Merkle tree over a trace's leaves, as Disputes opens it: 16 children a move.

A leaf is 32 bytes, the hash of a state. Leaves are filled up with zero hashes to 16**rounds; a node is
keccak(left ‖ right). Four binary levels are one *round*: a player shows the 16 nodes below a node at once, so that a
game over 2**20 leaves has 5 rounds. The number of rounds follows from the number of leaves, which stands in the
commitment, so that a node cannot pose as a leaf.

Knows: hashes. Does not know: what they name. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from minga.core.crypto import keccak
from minga.core.errors import InvalidInput

ARITY = 16
LEVELS = 4
ROUNDS_MAX = 5
LEAVES_MAX = ARITY**ROUNDS_MAX
EMPTY_LEAF = bytes(32)


def rounds_for(leaves: int) -> int:
    """How many rounds a tree of so many leaves has, 1 … 5.

    Raises:
        InvalidInput: not 1 … 2**20 leaves.
    """
    if not 1 <= leaves <= LEAVES_MAX:
        raise InvalidInput(f"{leaves} leaves, not 1 to {LEAVES_MAX}", "hash the state every few steps")
    rounds = 1
    while ARITY**rounds < leaves:
        rounds += 1
    return rounds


def fold(nodes: Sequence[bytes]) -> bytes:
    """The root over 2**n nodes of 32 bytes each."""
    level = list(nodes)
    while len(level) > 1:
        level = [keccak(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


class Tree:
    """The whole tree over some leaves, in memory: 64 bytes a leaf."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Build it.

        Raises:
            InvalidInput: not 1 … 2**20 leaves, or one that has not 32 bytes.
        """
        if any(len(leaf) != 32 for leaf in leaves):
            raise InvalidInput("a leaf has not 32 bytes", "a leaf is the hash of a state")
        self.leaves = tuple(leaves)
        self.rounds = rounds_for(len(leaves))
        empty = EMPTY_LEAF
        self._levels: list[list[bytes]] = [list(leaves)]
        """From the leaves up; the empty part to the right of each level is not stored but in `_empty`."""
        self._empty = [empty]
        for _ in range(LEVELS * self.rounds):
            below, empty = self._levels[-1], self._empty[-1]
            padded = below if len(below) % 2 == 0 else [*below, empty]
            self._levels.append([keccak(padded[at] + padded[at + 1]) for at in range(0, len(padded), 2)])
            self._empty.append(keccak(empty + empty))

    @property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return self._levels[-1][0]

    def node(self, level: int, index: int) -> bytes:
        """The node `index` of `level`, counted from the leaves (0) up to the root (4 · rounds)."""
        known = self._levels[level]
        return known[index] if index < len(known) else self._empty[level]

    def children(self, done: int, index: int) -> tuple[bytes, ...]:
        """The 16 nodes that the player shows in round `done` (from 0) below node `index` of that round.

        Raises:
            InvalidInput: there is no such round or node.
        """
        if not (0 <= done < self.rounds and 0 <= index < ARITY**done):
            raise InvalidInput(f"no node {index} in round {done} of {self.rounds}", "count both from zero")
        level = LEVELS * (self.rounds - done - 1)
        return tuple(self.node(level, ARITY * index + at) for at in range(ARITY))

    def proof(self, index: int) -> tuple[bytes, ...]:
        """The 4 · rounds siblings of leaf `index`, from the bottom up."""
        return tuple(self.node(level, (index >> level) ^ 1) for level in range(LEVELS * self.rounds))


def proves(root: bytes, rounds: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that leaf `index` of the tree under `root` is `leaf`."""
    if len(proof) != LEVELS * rounds or not 0 <= index < ARITY**rounds:
        return False
    node = leaf
    for level, sibling in enumerate(proof):
        node = keccak(sibling + node) if index >> level & 1 else keccak(node + sibling)
    return node == root
