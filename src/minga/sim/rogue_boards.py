"""Hostile boards, and the RPC that lies: caches that nobody needs to believe.

What they can do is to hide and to delay. There is always an honest board besides. Rule: the victims lose nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from minga.core.units import Amount
from minga.sim.cast import Actor, Crowd
from minga.sim.provider import Posted

if TYPE_CHECKING:
    from minga.sim.world import Board


def _board(crowd: Crowd, name: str) -> Board:
    from minga.sim.world import Board

    board = Board(crowd.world.node(name), crowd.world.watch.providers)
    crowd.world.boards.append(board)
    return board


def hide(crowd: Crowd, name: str) -> None:
    """Show nothing."""
    board = _board(crowd, name)

    async def offers() -> list[Posted]:
        return []

    board.offers = offers  # type: ignore[method-assign]


def keep(crowd: Crowd, name: str) -> None:
    """Show what was true in the first minute, for ever."""
    board = _board(crowd, name)
    first: list[Posted] = []

    async def offers() -> list[Posted]:
        for provider in board.providers:
            if not any(posted.provider is provider for posted in first):
                first.extend(provider.offers())
        return first

    board.offers = offers  # type: ignore[method-assign]


def forge(crowd: Crowd, name: str) -> None:
    """Show offers at a tenth of their price."""
    board = _board(crowd, name)

    async def offers() -> list[Posted]:
        shown = [posted for provider in board.providers for posted in provider.offers()]
        return [
            replace(posted, offer=replace(posted.offer, price_per_hour=Amount(posted.offer.price_per_hour // 10)))
            for posted in shown
        ]

    board.offers = offers  # type: ignore[method-assign]


def hang(crowd: Crowd, name: str) -> None:
    """Never answer."""
    board = _board(crowd, name)

    async def offers() -> list[Posted]:
        await crowd.world.kernel.sleep(1e6)
        return []

    board.offers = offers  # type: ignore[method-assign]


def lie(crowd: Crowd, name: str) -> None:
    """Give half of the nodes an RPC that shows old blocks, refuses good transactions, and falls silent."""

    def begin() -> None:
        for node in crowd.world.nodes[::2]:
            node.lies = 0.4

    crowd.world.kernel.after(1.0, begin)


def lag(crowd: Crowd, name: str) -> None:
    """Give half of the nodes an RPC that is twenty blocks behind."""

    def begin() -> None:
        for node in crowd.world.nodes[::2]:
            node.lag = 20

    crowd.world.kernel.after(1.0, begin)


BOARDS: tuple[Actor, ...] = (
    Actor("board-hides", "board", "nothing", "A board that shows nothing.", hide),
    Actor("board-keeps", "board", "nothing", "A board that shows old offers for ever.", keep),
    Actor("board-forges", "board", "nothing", "A board that shows offers at a tenth of their price.", forge),
    Actor("board-hangs", "board", "nothing", "A board that never answers.", hang),
    Actor("rpc-lies", "rpc", "nothing", "An RPC that shows old blocks and refuses good transactions.", lie),
    Actor("rpc-lags", "rpc", "nothing", "An RPC that is twenty blocks behind.", lag),
)

__all__ = ["BOARDS"]
