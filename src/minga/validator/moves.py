"""The challenger's moves, as numbers: which of 16 nodes to go into, and which leaf a game is about. Pure.

A commitment binds the provider to every node of its tree, so a challenger that knows the committed leaves and the
disputed one knows the whole way down before the game begins (`way`). One that has done all of the work again, and does
not have the provider's leaves, compares the nodes that it is shown with its own and goes into the first that differs
(`first_difference`): all leaves to the left of it are agreed on, so the first leaf that differs is below it.
"""

from __future__ import annotations

from collections.abc import Sequence

from minga.core.errors import InvalidInput
from minga.protocol.merkle import ARITY, LEVELS, Tree, rounds_for


def way(leaf: int, leaves: int) -> tuple[int, ...]:
    """The index to pick in each round, from the root down, to end at `leaf`.

    Raises:
        InvalidInput: not 1 … leaves − 1; leaf 0 is never disputed by itself.
    """
    if not 1 <= leaf < leaves:
        raise InvalidInput(f"leaf {leaf} of {leaves} cannot be disputed", "dispute leaf 1 or a later one")
    rounds = rounds_for(leaves)
    return tuple((leaf >> (LEVELS * (rounds - done - 1))) % ARITY for done in range(rounds))


def span(done: int, node: int, leaves: int) -> tuple[int, int]:
    """First and last leaf below node `node` after `done` rounds; what is beyond the last leaf is left out."""
    width = ARITY ** (rounds_for(leaves) - done)
    return node * width, min((node + 1) * width, leaves) - 1


def first_difference(own: Tree, done: int, node: int, children: Sequence[bytes]) -> int | None:
    """Which of the 16 nodes shown below node `node` of round `done` is the first that our own tree has otherwise.

    None when all are the same: there is nothing to dispute below this node.
    """
    for index, (ours, theirs) in enumerate(zip(own.children(done, node), children, strict=True)):
        if ours != theirs:
            return index
    return None


def first_wrong(committed: Sequence[bytes], own: Sequence[bytes], first: int) -> int:
    """The first leaf after `first` that came out otherwise; 0 for none.

    `own` are leaves `first` + 1 and on; where it ends, the job itself ended, and a committed leaf beyond is wrong. So
    the caller gives all of them up to the last that it asked for, as `committed` up to there.
    """
    for offset in range(first + 1, len(committed)):
        at = offset - first - 1
        if at >= len(own) or committed[offset] != own[at]:
            return offset
    return 0
