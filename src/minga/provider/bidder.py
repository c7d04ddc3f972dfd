"""Keeps what is for sale known: registered on chain, signed anew in time, posted to boards.

Knows: the chain's registry, the clock, the boards' addresses. Does not know: leases. Rule: what is served was kept on
disk first; a board that does not answer costs a warning and nothing else.
"""

from __future__ import annotations

import anyio

from minga.chain.contracts import Market, Registry
from minga.core.crypto import ZERO_ADDRESS, PrivateKey
from minga.core.errors import MingaError
from minga.core.spec import Machine, Terms
from minga.provider.bidding import Ask, bundle_of, make_offer, next_renewal, post
from minga.provider.loop import Provider
from minga.provider.points import reach

RENEW_SECONDS_MAX = 60.0


class Bidder:
    """Keeps the provider registered and its offer fresh, and tells the boards."""

    def __init__(
        self,
        ask: Ask,
        agent: PrivateKey,
        boards: tuple[str, ...],
        provider: Provider,
        machine: Machine,
        terms: Terms,
        url: str,
    ) -> None:
        """Nothing is signed yet. `agent` signs; `url` is where the API is reached."""
        self.url = url
        self._ask = ask
        self._agent = agent
        self._boards = boards
        self._provider = provider
        self._world = provider.world
        self._chain = provider.world.chain
        self._machine = machine
        self._terms = terms

    async def register(self) -> None:
        """Register the operator, or update url and agent key, if the chain says otherwise.

        Raises:
            InsufficientFunds: the operator cannot pay the gas.
            NetworkError: no node answers.
        """
        deployment = self._chain.spec.deployment
        registry = Registry(deployment.registry)
        operator, agent = self._world.key, self._agent.address
        current = await self._chain.read(registry.agent_of(operator.address))
        known = self._chain.view.providers.get(operator.address)
        if current == agent and known is not None and known.uri == self.url:
            return
        if current == ZERO_ADDRESS:
            call, effect = registry.register(self.url, agent), "register"
        else:
            # The same change may be made, undone and made again: the event that it follows tells them apart.
            call, effect = registry.update(self.url, agent), f"update/{await self._chain.head()}"
        receipt = await self._chain.send(effect, call, operator)
        reach("provider.register.sent")
        self._world.announce("registered", {"tx": receipt.transaction})

    async def renew(self) -> None:
        """Sign an offer, keep it, and only then serve it.

        Raises:
            NetworkError: no node answers.
            DiskFull: it could not be kept; the old one is served on.
        """
        world = self._world
        market = Market(self._chain.spec.deployment.market)
        epoch = await self._chain.read(market.epoch_of(world.provider))
        now = await self._chain.time()
        terms, machine = self._terms, self._machine
        offer = make_offer(
            self._ask, world.provider, machine.hash32(), terms.hash32(), epoch, now, world.dice.bytes(32)
        )
        bundle = bundle_of(offer, machine, terms, self.url, now, self._chain.spec.domain, self._agent)
        await anyio.to_thread.run_sync(self._provider.book.keep, bundle)
        self._provider.offers = [bundle]
        world.announce("offer", {"hash": bundle.offer_hash(), "valid_until": offer.valid_until})
        for board in self._boards:
            world.tasks.start_soon(self._post, board)
        await anyio.to_thread.run_sync(self._provider.book.prune, now)

    async def _post(self, board: str) -> None:
        announce = self._world.announce
        try:
            await post(board, self._provider.offers[0])
        except MingaError as error:
            announce("warning", error.as_dict()["error"])
        except IndexError:
            return  # withdrawn meanwhile
        else:
            reach("provider.offer.posted")
            announce("posted", {"board": board})

    async def keep_offers(self) -> None:
        """Sign anew at half the offer's life and when the epoch changes, and remind the boards every minute.

        Ends when the offers are withdrawn.
        """
        world = self._world
        while self._provider.offers:
            offer = self._provider.offers[0].offer.offer()
            due = next_renewal(offer, self._provider.chain_time(), self._ask)
            await world.clock.sleep(min(max(due, 1), RENEW_SECONDS_MAX))
            if not self._provider.offers:
                return
            try:
                epoch = self._epoch()
                if due <= RENEW_SECONDS_MAX or epoch != offer.epoch:
                    await self.renew()
                else:
                    for board in self._boards:
                        await self._post(board)
            except MingaError as error:
                world.announce("warning", error.as_dict()["error"])

    def _epoch(self) -> int:
        known = self._chain.view.providers.get(self._world.provider)
        return known.epoch if known else 0
