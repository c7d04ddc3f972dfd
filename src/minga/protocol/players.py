"""The two players of a dispute over a trace, off chain: what the prover shows, and what the challenger picks.

A game starts at the root that was committed. Each round the prover shows the 16 nodes below the node in question
(`Tree.children`), and the challenger picks one that is not its own, until a leaf is left. Each of the two is one move,
so a game over N leaves has 2·⌈log16 N⌉ moves, at most 10.

What a challenger picks must be the *first* leaf that differs: the referees ask whether a leaf follows from the one
before it as the prover committed to it, and after a wrong leaf the next may well follow. So it needs all leaves up to
some b: those up to a as it was served them, which it agrees with, and those in (a, b] that it computed itself from the
state at a. What comes after b it need not know.

Knows: hashes. Does not know: contracts, clocks, states. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minga.core.errors import InvalidInput
from minga.protocol.merkle import ARITY, EMPTY_LEAF, Tree, fold, rounds_for


@dataclass(frozen=True, slots=True)
class Game:
    """Where a game stands: the node in question is `index` of round `done`, and `node` is its hash."""

    leaves: int
    node: bytes
    done: int = 0
    index: int = 0

    @property
    def over(self) -> bool:
        """Whether `index` is a leaf."""
        return self.done == rounds_for(self.leaves)

    def after(self, children: Sequence[bytes], pick: int) -> Game:
        """The game after both players' moves of a round.

        Raises:
            InvalidInput: the prover's nodes are not those below the node in question, or there is no such node.
        """
        if self.over or len(children) != ARITY or any(len(child) != 32 for child in children):
            raise InvalidInput("not the 16 nodes of a round that is yet to come", "show 16 nodes of 32 bytes")
        if fold(children) != self.node:
            raise InvalidInput("the nodes shown are not those below the node in question", "show those committed to")
        if not 0 <= pick < ARITY:
            raise InvalidInput(f"no node {pick} among 16", "pick 0 to 15")
        return Game(self.leaves, children[pick], self.done + 1, self.index * ARITY + pick)


class Challenger:
    """Who says that a commitment to `leaves` leaves is wrong, and knows the first of them as they should be."""

    def __init__(self, leaves: int, known: Sequence[bytes]) -> None:
        """Build all nodes that follow from `known`.

        Raises:
            InvalidInput: nothing is known, or more than there is.
        """
        if not 1 <= len(known) <= leaves:
            raise InvalidInput(f"{len(known)} leaves known of {leaves}", "know at least the first")
        self.leaves, self.known = leaves, len(known)
        self._rounds = rounds_for(leaves)
        padded = [*known, *[EMPTY_LEAF] * (leaves - len(known))]
        self._tree = Tree(padded)

    def pick(self, game: Game, children: Sequence[bytes]) -> int | None:
        """Which of the nodes shown to pick, from 0; None when none of them can be said to be wrong.

        A node that covers unknown leaves as well as known ones is picked if all before it are right: then whatever is
        wrong is in there. Only a challenger who knows that something is (`first_difference`) should get that far.
        """
        below = ARITY ** (self._rounds - game.done - 1)
        mine = self._tree.children(game.done, game.index)
        for at, (child, own) in enumerate(zip(children, mine, strict=True)):
            begin = (game.index * ARITY + at) * below
            if begin >= self.known:
                return None
            whole = begin + below <= self.known or self.known == self.leaves
            if not whole or child != own:
                return 1 if begin + below == 1 and self.leaves > 1 else at
        return None


def play(tree: Tree, challenger: Challenger) -> tuple[int | None, int]:
    """Play a whole game against an honest opener of `tree`: the disputed leaf (None: nothing wrong), and the moves."""
    game, moves = Game(len(tree.leaves), tree.root), 0
    while not game.over:
        children = tree.children(game.done, game.index)
        pick = challenger.pick(game, children)
        moves += 1
        if pick is None:
            return None, moves
        game = game.after(children, pick)
        moves += 1
    return game.index, moves
