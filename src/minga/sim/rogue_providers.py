"""The hostile providers, each with its bound: cheap ones, so that tenants come to them first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from minga.sim import rogue_sellers as sellers
from minga.sim import rogue_workers as workers
from minga.sim.cast import Actor, Bound, seller
from minga.sim.provider import Ask, Provider

if TYPE_CHECKING:
    from minga.sim.world import World


def cheap(prepaid: int = 0, speed: int = 0, units: int = 2, notice_s: int = 0) -> Callable[[World], Ask]:
    """What they ask for: little, so that every tenant comes here first."""

    def ask(world: World) -> Ask:
        quantum = world.dice.choice((10, 20, 30))
        return Ask(world.dice.choice((3_600, 36_000)), quantum, units, prepaid, notice_s, 3600, speed)

    return ask


def _play(kind: type[Provider], bound: Bound = "quantum", needs: str = "", **ask: int) -> Actor:
    words = "".join(f"-{char.lower()}" if char.isupper() else char for char in kind.__name__).strip("-")
    return seller(words, bound, kind, cheap(**ask), needs)


PROVIDERS: tuple[Actor, ...] = (
    _play(sellers.Runaway, prepaid=1),
    _play(sellers.Sleeper),
    _play(workers.OverClaimer),
    _play(workers.FutureClaimer),
    _play(workers.Rewinder),
    _play(workers.Forger, "quantum", "accept"),
    _play(workers.BlindForger, "clock", "deadline"),
    _play(workers.StaleCheckpoints, "quantum", "accept"),
    _play(workers.HalfUploads),
    _play(workers.Withholder),
    _play(workers.Swapper),
    _play(sellers.DoubleSeller, speed=1000),
    _play(sellers.UnderSpec, "nothing", speed=1000),
    _play(workers.EternalStarter, prepaid=1),
    _play(workers.Pauser),
    _play(sellers.EarlyCloser, prepaid=1),
    _play(sellers.OldVoucher, "nothing"),
    _play(sellers.VoucherForger),
    _play(sellers.OfferReplayer),
    _play(workers.Garbage),
    _play(workers.EventReplayer),
    _play(workers.Renumberer),
    _play(sellers.NeverCloses),
    _play(sellers.Reclaimer, prepaid=1),
    _play(sellers.Doorkeeper, "nothing"),
    _play(sellers.SlowAnswers),
    _play(sellers.FalseReceipts),
    _play(sellers.ShortReceipts),
    _play(workers.FalseExit),
    _play(sellers.BlobAsker, "nothing"),
    _play(workers.Stopper),
)
"""Every hostile provider."""

__all__ = ["PROVIDERS"]
