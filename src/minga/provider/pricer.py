"""Watches how much of the machine is leased, and moves its price every ten minutes.

Knows: the leases' units, the price book, the bidder. Does not know: how a step is computed. Rule: offers that are
signed stay good at their price; while the owner has the machine, the time does not count.
"""

from __future__ import annotations

import anyio

from minga.core.errors import MingaError
from minga.core.units import format_usd
from minga.protocol.suggested_price import STEP_S
from minga.provider.agent import OVER
from minga.provider.autoprice import Meter, PriceBook
from minga.provider.bidder import Bidder
from minga.provider.loop import Provider
from minga.provider.points import reach

SAMPLE_SECONDS = 5.0


class Pricer:
    """The automatic price of one provider's units."""

    def __init__(self, provider: Provider, bidder: Bidder, book: PriceBook, decimals: int) -> None:
        """Ask the book's price from the next offer on; `decimals` are the token's."""
        self._provider = provider
        self._bidder = bidder
        self._book = book
        self._decimals = decimals
        self._change()

    async def follow(self) -> None:
        """Move the price, for ever."""
        world = self._provider.world
        meter = Meter(self._bidder.ask.units, world.clock.monotonic())
        while True:
            await world.clock.sleep(SAMPLE_SECONDS)
            meter.note(self._leased(), world.clock.monotonic())
            if self._provider.reclaim is not None:
                meter.take()
            elif meter.seconds >= STEP_S:
                busy_ppm, elapsed_s = meter.take()
                try:
                    await anyio.to_thread.run_sync(self._book.step, busy_ppm, elapsed_s, world.clock.now())
                except MingaError as error:
                    world.announce("warning", error.as_dict()["error"])
                    continue
                reach("provider.price.kept")
                self._change()

    def _leased(self) -> int:
        leases = self._provider.world.leases.values()
        return sum(run.state.facts.units for run in leases if run.state.phase not in OVER)

    def _change(self) -> None:
        book, tokens = self._book, self._book.usd_micro * 10**self._decimals // 10**6
        self._bidder.change_price(max(1, tokens))
        prices = {"dollars": book.usd_micro, "floor": book.bounds.floor, "ceiling": book.bounds.ceiling}
        facts = {name: None if value is None else format_usd(value, 6) for name, value in prices.items()}
        self._provider.world.announce("price", facts | {"why": book.why})
