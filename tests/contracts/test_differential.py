"""Four code generators, one behaviour: a guard against bugs of the compiler."""

from __future__ import annotations

from hashlib import sha256

import pytest
from evm import Reverted, Revm
from forgeries import RandomDice
from lockstep import World
from schedule import DECK

GENERATORS = {"gas": ("gas", False), "none": ("none", False), "codesize": ("codesize", False), "venom": ("gas", True)}
SEED, STEPS = 7, 600


class Tracing(Revm):
    """Hashes everything that can be seen of each call: success, return data or revert data, events. Gas is not."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = sha256()

    def message(self, sender: str, to: str, data: bytes, gas: int | None = None) -> bytes:
        """Call and enter into the trace."""
        try:
            output = super().message(sender, to, data, gas)
        except Reverted as error:
            self.trace.update(b"reverted" + error.output)
            raise
        self.trace.update(b"ok" + output + repr(self.logs()).encode())
        return output


def trace(generator: str, freezing: bool) -> tuple[str, int]:
    """The hash of a fixed random schedule with the contracts compiled one way, and its calls."""
    optimize, experimental = GENERATORS[generator]
    machine, dice = Tracing(), RandomDice(SEED)
    world = World(machine, freezing=freezing, code={"optimize": optimize, "experimental": experimental})
    for _ in range(STEPS):
        dice.choice(DECK)(world, dice)
    return machine.trace.hexdigest(), world.calls


@pytest.mark.parametrize("freezing", [False, True])
def test_every_code_generator_gives_the_same_trace(freezing: bool) -> None:
    """-O gas, -O none, -O codesize and Venom agree on every answer and event."""
    found = {generator: trace(generator, freezing) for generator in GENERATORS}
    assert len(set(found.values())) == 1, found
    assert found["gas"][1] >= STEPS // 2
