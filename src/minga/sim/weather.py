"""What goes wrong in a world, and when: drawn from its seed.

Crashes, cuts, full disks, wrong clocks and reclaims meet honest nodes; messages and RPCs meet all. Rule: reorgs are as
deep as the confirmations that everybody waits for, never deeper.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from minga.sim.kernel import SECOND
from minga.sim.nodes import Faults, Node

if TYPE_CHECKING:
    from minga.sim.provider import Provider
    from minga.sim.world import World

DEPTH_MAX = 8


def draw(dice: Random) -> Faults:
    """Some faults of many kinds, in about every third world each."""

    def some(share: float) -> bool:
        return dice.random() < share

    return Faults(
        delay_s=(0.005, 0.05) if some(0.7) else (0.05, 1.5),
        loss=dice.choice((0.01, 0.05, 0.2)) if some(0.3) else 0.0,
        duplicate=0.1 if some(0.3) else 0.0,
        slow=0.05 if some(0.3) else 0.0,
        crash=dice.choice((0.005, 0.02, 0.05)) if some(0.4) else 0.0,
        cuts=dice.randrange(1, 5) if some(0.3) else 0,
        full=dice.randrange(1, 4) if some(0.2) else 0,
        skews=dice.randrange(1, 3) if some(0.25) else 0,
        reorgs=dice.randrange(1, 4) if some(0.35) else 0,
        rpc_lies=0.1 if some(0.25) else 0.0,
        rpc_lag=dice.randrange(1, 6) if some(0.2) else 0,
        restarts=dice.randrange(1, 4) if some(0.3) else 0,
        reclaims=dice.randrange(1, 3) if some(0.2) else 0,
        reprices=dice.randrange(1, 4) if some(0.4) else 0,
    )  # fmt: skip


class Weather:
    """The faults of one world at work."""

    def __init__(self, world: World) -> None:
        """Planned from the world's dice."""
        self.world = world
        self.kernel, self.dice, self.faults = world.kernel, world.dice, world.faults
        self._plan()

    def _plan(self) -> None:
        kernel, dice, faults, end = self.kernel, self.dice, self.faults, self.world.shape.minutes * 60
        nodes = [item.node for item in self.world.watch.providers if item.honest]
        nodes += [item.node for item in self.world.watch.runners]
        for _ in range(faults.cuts):
            kernel.after(dice.uniform(0, end), lambda: self._cut(dice.choice(nodes), dice.uniform(*faults.cut_s)))
        for _ in range(faults.full):
            kernel.after(dice.uniform(0, end), lambda: self._fill(dice.choice(nodes), dice.uniform(*faults.full_s)))
        for _ in range(faults.skews):
            kernel.after(dice.uniform(0, end), lambda: self._skew(dice.choice(nodes)))
        for _ in range(faults.reorgs):
            kernel.after(dice.uniform(20, end), lambda: self.world.chain.reorg(dice.randrange(1, DEPTH_MAX + 1)))
        for _ in range(faults.restarts):
            kernel.after(dice.uniform(0, end), lambda: dice.choice(nodes).crash())
        owners = [item for item in self.world.watch.providers if item.honest]
        for _ in range(faults.reprices):
            kernel.after(dice.uniform(20, end), lambda: self._reprice(dice.choice(owners)))
        for _ in range(faults.reclaims):
            kernel.after(dice.uniform(20, end), lambda: self._reclaim(dice.choice(owners)))

    def _cut(self, node: Node, seconds: float) -> None:
        self.kernel.note(f"{node.name} cut off for {seconds:.3f} s")
        node.cut_until = self.kernel.now + int(seconds * SECOND)

    def _fill(self, node: Node, seconds: float) -> None:
        self.kernel.note(f"{node.name} disk full for {seconds:.3f} s")
        node.full_until = self.kernel.now + int(seconds * SECOND)

    def _skew(self, node: Node) -> None:
        node.skew = self.dice.randrange(-self.faults.skew_s, self.faults.skew_s + 1)
        self.kernel.note(f"{node.name} clock {node.skew:+d} s")

    def _reprice(self, provider: Provider) -> None:
        if provider.node.up:
            self.kernel.note(f"{provider.node.name} withdraws its offers")
            provider.node.spawn(provider.revoke())

    def _reclaim(self, provider: Provider) -> None:
        if provider.node.up:
            self.kernel.note(f"{provider.node.name} reclaims")
            provider.node.do(lambda: provider.reclaim("the owner wants it back"))
            if self.dice.random() < 0.7:
                provider.node.spawn(provider.revoke())


__all__ = ["DEPTH_MAX", "Weather", "draw"]
