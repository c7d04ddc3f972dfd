"""What the commands about disputes share: a chain that is read, and the games that it shows.

Knows: a network, a folder for what was read. Does not know: keys. Rule: only the chain is asked, so that whoever has a
node sees what everybody sees.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minga.core.errors import NotFound

if TYPE_CHECKING:
    from minga.chain.node import RpcChain
    from minga.cli.config import Settings
    from minga.cli.game_view import GameView
    from minga.protocol.dispute import Preset


class Court:
    """The games of one network, as its chain shows them."""

    def __init__(self, chain: RpcChain, preset: Preset) -> None:
        """Read `chain`, whose arbiter has this preset."""
        self.chain = chain
        self.preset = preset

    async def read(self) -> None:
        """Take in what is new.

        Raises:
            NetworkError: no node answers.
        """
        self.chain.acknowledge(await self.chain.poll())

    def numbers(self) -> list[int]:
        """Every game, the newest first."""
        return sorted(self.chain.view.disputes.games, reverse=True)

    async def view(self, number: int) -> GameView:
        """A game as it is now.

        Raises:
            NotFound: there is no such game.
            NetworkError: no node answers.
        """
        from minga.chain.disputes import Disputes
        from minga.cli.game_view import GameView

        games, places = self.chain.view.disputes, self.chain.spec.deployment
        record = games.games.get(number)
        if record is None:
            raise NotFound(f"there is no game {number}", "list them with `minga dispute show`")
        state = None
        if record.finished is None:
            state = await self.chain.read(Disputes(places.disputes).game_of(number))
        return GameView(
            record,
            self.chain.view.commitments[record.channel],
            dict(games.seats),
            places.decimals,
            self.preset,
            state,
            await self.chain.time(),
            games.applied.get(record.channel, []),
        )


@asynccontextmanager
async def open_court(settings: Settings, folder: Path | None = None) -> AsyncIterator[Court]:
    """The games of the chosen network, read up to now; `folder` is where what was read is kept.

    Raises:
        NotFound: no network is chosen, or it has no arbiter over work.
        NetworkError: no node answers.
    """
    from minga.chain.disputes import Disputes
    from minga.chain.node import open_chain
    from minga.cli.world import RealClock

    network = settings.network()
    network.chain.disputes_domain  # noqa: B018  raises NotFound
    place = folder or settings.folder / "disputes" / network.name
    async with open_chain(network.chain, place, RealClock()) as chain:
        court = Court(chain, await chain.read(Disputes(network.chain.deployment.disputes).preset()))
        await court.read()
        yield court
