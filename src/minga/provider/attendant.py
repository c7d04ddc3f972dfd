"""Does what the owner wants: takes the machine back, offers it again, revokes what was signed; and leaves in order.

Knows: the owner's wish, the leases as a whole, the offers. Does not know: single leases, the command line. Rule: what
is done here at once is never undone by a chain that does not answer; that part is tried again until it is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from minga.core.errors import MingaError
from minga.provider import owner
from minga.provider.bidder import Bidder
from minga.provider.loop import Provider

POLL_SECONDS = 0.5
AGAIN_SECONDS = 15.0
BOARDS_SECONDS = 2.0
"""How long boards may take to hear that nothing is for sale."""

DRAIN_SECONDS = 40.0
"""How long the collection and the close of jobs may take, after their notice."""

LEAVING = "the provider is shutting down"


class Attendant:
    """Follows the owner's wish for one provider."""

    def __init__(self, provider: Provider, bidder: Bidder) -> None:
        """Nothing is read yet."""
        self._provider = provider
        self._bidder = bidder
        self._world = provider.world
        self._wish = owner.Wish()
        self._revoked = 0
        self._again_at = 0.0

    async def obey(self) -> bool:
        """Compare the owner's wish with what is known of it, and do what is new; whether to sell."""
        world, known = self._world, self._wish
        wish = self._wish = await anyio.to_thread.run_sync(owner.read_wish, world.journal, known)
        if wish.taken_back and wish.seen != known.seen:
            await self._provider.take_back(wish.reason)
            world.announce("reclaimed", {"reason": wish.reason, "since": wish.since})
            world.tasks.start_soon(self._withdraw)
        elif known.taken_back and not wish.taken_back:
            self._provider.offer_again()
            world.announce("offering", {"since": wish.since})
            await self._try(self._bidder.renew)
        if wish.revoke > self._revoked and world.clock.monotonic() >= self._again_at:
            await self._try(self._revoke)
        return not wish.taken_back

    async def follow(self) -> None:
        """Obey, for ever."""
        while True:
            await self._world.clock.sleep(POLL_SECONDS)
            await self._try(self.obey)

    async def leave(self, at_once: anyio.Event) -> None:
        """Give every job its notice and close every lease; the next start offers again, if nothing is left to do."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._withdraw)
            await self._provider.drain(LEAVING, DRAIN_SECONDS, at_once)
        if not self._provider.is_busy:
            await anyio.to_thread.run_sync(owner.offer_again, self._world.journal, self._world.clock.now())

    async def _withdraw(self) -> None:
        with anyio.move_on_after(BOARDS_SECONDS):
            await self._try(self._bidder.withdraw)

    async def _revoke(self) -> None:
        self._again_at = self._world.clock.monotonic() + AGAIN_SECONDS
        await self._bidder.revoke(self._wish.revoke)
        self._revoked = self._wish.revoke

    async def _try(self, act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except MingaError as error:
            self._world.announce("warning", error.as_dict()["error"])
