"""Keeps what is for sale known: registered on chain, signed anew in time, posted to boards.

Knows: the chain's registry, the clock, the boards' addresses. Does not know: leases. Rule: what is served was kept on
disk first; a board that does not answer costs one warning and nothing else. Boards forget, so each is sent the same
posting every few seconds: one that holds it compares and changes nothing, one that lost it shows it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import anyio

from minga.chain.contracts import Market, Registry
from minga.core.crypto import ZERO_ADDRESS, Address, PrivateKey
from minga.core.errors import MingaError
from minga.core.spec import Machine, Terms
from minga.protocol.wire import OfferBundle
from minga.provider.bidding import Ask, bundle_of, make_offer, next_renewal, post
from minga.provider.loop import Provider
from minga.provider.metering import deposit_least
from minga.provider.points import reach

REMIND_SECONDS = 15.0
"""How often boards are reminded, and the longest time until a new epoch is noticed."""

WITHDRAWN_SECONDS = 2
"""How long the offer lives that takes an offer's place on boards when it is withdrawn."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Who may decide about how much of the pay (basis points), and for how long (seconds)."""

    arbiter: Address
    bps: int
    seconds: int


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
        hold: Hold | None = None,
    ) -> None:
        """Nothing is signed yet. `agent` signs; `url` is where the API is reached; with a `hold` there is a second
        offer of the same units, whose pay may be held back.
        """
        self.url = url
        self._ask = ask
        self._agent = agent
        self._boards = boards
        self._provider = provider
        self._world = provider.world
        self._chain = provider.world.chain
        self._machine = machine
        self._terms = terms
        self._hold = hold
        self._told: dict[tuple[str, str], str] = {}
        self._posted_at = 0

    @property
    def ask(self) -> Ask:
        """What is asked for now."""
        return self._ask

    def change_price(self, price_per_hour: int) -> None:
        """Ask another price (token units per unit-hour) from the next offer on; what is signed stays good."""
        least = deposit_least(price_per_hour, self._ask.quantum)
        self._ask = replace(self._ask, price_per_hour=price_per_hour, deposit_min=max(least, self._ask.deposit_floor))

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
        """Sign each offer, keep it, and only then serve it; nothing is served while the owner has the machine.

        Raises:
            NetworkError: no node answers.
            DiskFull: it could not be kept; the old one is served on.
        """
        now = await self._chain.time()
        bundles = [await self._sign(ask, now) for ask in self._asks()]
        if self._provider.reclaim is not None:
            return  # taken back meanwhile: nobody gets to see it
        self._provider.offers = bundles
        for bundle in bundles:
            facts = {"hash": bundle.offer_hash(), "valid_until": bundle.offer.valid_until}
            self._world.announce("offer", facts | ({"arbiter": bundle.offer.arbiter} if bundle.offer.hold_bps else {}))
        for board in self._boards:
            self._world.tasks.start_soon(self._post, board)
        await anyio.to_thread.run_sync(self._provider.book.prune, now)

    def _asks(self) -> list[Ask]:
        """What is asked for in each offer; the plain one comes first."""
        hold = self._hold
        if hold is None:
            return [self._ask]
        held = replace(self._ask, arbiter=hold.arbiter, hold_bps=hold.bps, hold_seconds=hold.seconds)
        return [self._ask, held]

    async def withdraw(self) -> None:
        """Tell the boards that nothing is for sale, in the only words that they take from a stranger: a newer offer.

        It replaces the last one and expires in a moment. Boards that do not answer show the last one until it expires.
        """
        if not self._boards:
            return
        # A board judges by its own clock, which an idle chain's may be behind.
        now = max(await self._chain.time(), self._world.clock.now())
        last = [await self._sign(replace(ask, offer_seconds=WITHDRAWN_SECONDS), now) for ask in self._asks()]
        async with anyio.create_task_group() as tasks:
            for board in self._boards:
                for bundle in last:
                    tasks.start_soon(self._post_last, board, bundle)

    async def _post_last(self, board: str, bundle: OfferBundle) -> None:
        try:
            await post(board, bundle)
        except MingaError:
            return  # it forgets by itself
        reach("provider.offer.withdrawn")
        self._told.pop((board, bundle.offer.arbiter), None)

    async def _sign(self, ask: Ask, now: int) -> OfferBundle:
        world, machine, terms = self._world, self._machine, self._terms
        epoch = await self._chain.read(Market(self._chain.spec.deployment.market).epoch_of(world.provider))
        salt = world.dice.bytes(32)
        offer = make_offer(ask, world.provider, machine.hash32(), terms.hash32(), epoch, now, salt)
        # Of two postings in one second a board keeps the first, so each is dated later than the last.
        self._posted_at = max(now, self._posted_at + 1)
        bundle = bundle_of(offer, machine, terms, self.url, self._posted_at, self._chain.spec.domain, self._agent)
        await anyio.to_thread.run_sync(self._provider.book.keep, bundle)
        return bundle

    async def revoke(self, number: int) -> None:
        """Kill every signed offer on chain, by a new epoch; `number` tells one wish from the next.

        Raises:
            InsufficientFunds, NetworkError: it was not done.
        """
        call = Market(self._chain.spec.deployment.market).cancel_offers()
        receipt = await self._chain.send(f"revoke/{number}", call, self._world.key)
        reach("provider.revoke.sent")
        self._world.announce("revoked", {"tx": receipt.transaction})

    async def _post(self, board: str) -> None:
        for bundle in tuple(self._provider.offers):  # none, when they were withdrawn meanwhile
            await self._post_one(board, bundle)

    async def _post_one(self, board: str, bundle: OfferBundle) -> None:
        announce, kind, name = self._world.announce, (board, bundle.offer.arbiter), bundle.offer_hash()
        try:
            await post(board, bundle)
        except MingaError as error:
            if self._told.get(kind) != error.code:
                announce("warning", error.as_dict()["error"])
            self._told[kind] = error.code
        else:
            reach("provider.offer.posted")
            if self._told.get(kind) != name:
                announce("posted", {"board": board})
            self._told[kind] = name

    async def keep_offers(self) -> None:
        """Sign anew at half the offer's life and when the epoch changes, and remind the boards; for ever.

        Nothing is signed while the owner has the machine.
        """
        while True:
            await self._world.clock.sleep(self._pause())
            if self._provider.reclaim is not None:
                continue
            try:
                if self._is_due():
                    await self.renew()
                else:
                    for board in self._boards:
                        await self._post(board)
            except MingaError as error:
                self._world.announce("warning", error.as_dict()["error"])

    def _pause(self) -> float:
        if not self._provider.offers:
            return REMIND_SECONDS
        due = next_renewal(self._provider.offers[0].offer.offer(), self._provider.chain_time(), self._ask)
        return min(max(due, 1.0), REMIND_SECONDS)

    def _is_due(self) -> bool:
        if not self._provider.offers:
            return True
        offer = self._provider.offers[0].offer.offer()
        due = next_renewal(offer, self._provider.chain_time(), self._ask) == 0
        return due or self._epoch() != offer.epoch or offer.price_per_hour != self._ask.price_per_hour

    def _epoch(self) -> int:
        known = self._chain.view.providers.get(self._world.provider)
        return known.epoch if known else 0
