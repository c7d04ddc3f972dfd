"""BlockBeacon's executable specification: the hash of a block to come, kept before it is out of reach.

What it is: rounds that are block numbers. What it does not know: who asks; the chain's hashes are an argument. Pure.
Rule: a value is known only after its block, and for 256 blocks, or for ever once it was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from minga.protocol.stake import require

REACH = 256
DELAY_MAX = 128


@dataclass
class BlockBeacon:
    """`hash_of` gives a block's 32 bytes by its number; `number` is the block being made; `delay` 0 … 128 blocks."""

    hash_of: Callable[[int], bytes]
    delay: int = 0
    number: int = 1
    kept: dict[int, bytes] = field(default_factory=dict)

    def next_round(self) -> int:
        """The first round whose value nobody can know now."""
        return self.number + self.delay

    def missed(self, round: int) -> bool:
        """Whether the round's value can never be known any more."""
        return self.number > round + REACH and round not in self.kept

    def value(self, round: int) -> bytes:
        """The value of a round, 32 bytes."""
        require(self.number > round, "beacon: not yet")
        if round in self.kept:
            return self.kept[round]
        require(self.number <= round + REACH, "beacon: missed")
        return self.hash_of(round)

    def keep(self, round: int) -> None:
        """Anyone: make a round's value last."""
        self.kept[round] = self.value(round)
