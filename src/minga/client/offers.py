"""Offers: asked of boards, or of the providers that Registry's events name; checked here, believed from nobody.

What a bundle says of itself is checked when it arrives (hashes, both signatures, time); what only the chain knows
(registered, agent key, epoch, free units) is checked before one is taken. An index over many offers is
`minga.protocol.search`. With the offers come the records of their providers: the chain's events are read on, and boards
are asked for complaints; both are bounded in time and never stop anyone from buying.

Rule: a board can hide offers and complaints, and that is all that it can do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

import anyio
import httpx

from minga.chain.chain import Chain
from minga.chain.contracts import Market, Registry
from minga.client.home import Network
from minga.client.provider_api import Connect, ProviderApi
from minga.client.records import Records, Standing
from minga.core.crypto import Address, Hash32
from minga.core.effects import Clock
from minga.core.errors import BoardUnavailable, ContractError, MingaError
from minga.core.spec import Speed
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.matching import Ranked, Reliability, Requirements, fit, rank, ranked, unknown
from minga.protocol.reliability import Record
from minga.protocol.search import OfferIndex, Query, parse_query, row_of
from minga.protocol.wire import OfferBundle

BOARD_SECONDS = 10.0
BOARD_LIMIT = 1000
FRESH_S = 3.0
PROVIDERS_MAX = 256


@dataclass(frozen=True)
class Gathered:
    """Offers that were good at `time` (chain time), and what went wrong on the way."""

    bundles: tuple[OfferBundle, ...]
    time: int
    failures: tuple[str, ...]


class OfferSource:
    """Where one client gets offers of one network."""

    def __init__(self, network: Network, chain: Chain, connect: Connect, clock: Clock) -> None:
        """Ask `network`'s boards through `connect`, and `chain` for what only it knows."""
        self.network = network
        self.chain = chain
        self._connect = connect
        self._clock = clock
        self._market = Market(network.chain.deployment.market)
        self._registry = Registry(network.chain.deployment.registry)
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._last: tuple[float, Gathered] | None = None
        self._records = Records(chain, network.boards, self._http, clock)
        self._asking = anyio.Lock()

    async def aclose(self) -> None:
        """Close connections; idempotent."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def gather(self, fresh: bool = False) -> Gathered:
        """Every good offer, one a machine and offer; what was gathered in the last 3 s will do unless `fresh`.

        Raises:
            BoardUnavailable: nobody answered.
            RpcUnavailable: the chain's time is not known.
        """
        async with self._asking:
            now = self._clock.monotonic()
            if not fresh and self._last is not None and now - self._last[0] < FRESH_S:
                return self._last[1]
            gathered = await self._gather()
            self._last = (now, gathered)
            return gathered

    async def _gather(self) -> Gathered:
        answers: list[list[OfferBundle]] = []
        failures: list[str] = []
        time = 0

        async def ask(url: str, ask_one: Callable[[], Awaitable[list[OfferBundle]]]) -> None:
            try:
                with anyio.fail_after(BOARD_SECONDS):
                    answers.append(await ask_one())
            except TimeoutError:
                failures.append(f"{url} did not answer in time")
            except (MingaError, httpx.HTTPError, httpx.InvalidURL) as error:
                failures.append(f"{url}: {error}"[:300])

        async def look_at_clock() -> None:
            nonlocal time
            time = await self.chain.time()

        if not self.network.boards:
            await self._records.read_on(failures)
        sources = self._sources()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look_at_clock)
            if self.network.boards:
                tasks.start_soon(self._records.read_on, failures)
                self._records.ask_boards(tasks)
            for url, ask_one in sources:
                tasks.start_soon(ask, url, ask_one)
        if sources and not answers:
            raise BoardUnavailable(f"no board or provider answered: {failures[0]}", "see the network's boards")
        checked: dict[str, OfferBundle] = {}
        for bundle in (item for answer in answers for item in answer):
            self._take(bundle, time, checked)
        self._records.take_in()
        return Gathered(tuple(checked.values()), time, tuple(failures))

    def _take(self, bundle: OfferBundle, time: int, checked: dict[str, OfferBundle]) -> None:
        try:
            bundle.check(self.network.chain.domain, time)
        except MingaError:
            return
        name = bundle.offer_hash()
        if name not in checked or checked[name].posted_at < bundle.posted_at:
            checked[name] = bundle

    def _asker(self, url: str, query: str) -> Callable[[], Awaitable[list[OfferBundle]]]:
        async def ask() -> list[OfferBundle]:
            return await ProviderApi(self._http(url)).offers(query)

        return ask

    def _http(self, url: str) -> httpx.AsyncClient:
        if url not in self._clients:
            self._clients[url] = self._connect(url, None)
        return self._clients[url]

    def _sources(self) -> list[tuple[str, Callable[[], Awaitable[list[OfferBundle]]]]]:
        """The boards; without any, the providers of Registry's events."""
        if self.network.boards:
            return [(url, self._asker(url, f"?limit={BOARD_LIMIT}")) for url in self.network.boards]
        urls = dict.fromkeys(record.uri for record in self.chain.view.providers.values())
        named = [url for url in list(urls)[-PROVIDERS_MAX:] if url.startswith(("http://", "https://"))]
        for url in named:
            if url.startswith("https://") and url not in self._clients:
                # Its certificate's fingerprint stands in the signed terms that are being fetched: the signatures are
                # what is checked here, and nothing secret is sent.
                self._clients[url] = httpx.AsyncClient(base_url=url, verify=False, trust_env=False)
        return [(url, self._asker(url, "")) for url in named]

    def reliability(self) -> Reliability:
        """Provider → the share that it kept, parts per million, as of the last `gather`; see `Records.reliability`."""
        return self._records.reliability()

    def records(self) -> Callable[[str], Record]:
        """Provider → its record, as of the last `gather`; the prior where nothing is known."""
        return self._records.records()

    async def standing(self, provider: str) -> Standing:
        """A provider's record and the leases behind it; see `Records.standing`."""
        return await self._records.standing(provider)

    async def is_free(self, item: Ranked) -> bool:
        """Whether the chain would take a lease on this offer now.

        Raises:
            RpcUnavailable: the chain cannot be asked.
        """
        offer, found = item.bundle.offer, {}

        async def agent() -> None:
            found["agent"] = (
                await self.chain.read(self._registry.agent_of(Address(offer.provider))) == item.bundle.agent
            )

        async def epoch() -> None:
            found["epoch"] = await self.chain.read(self._market.epoch_of(Address(offer.provider))) == offer.epoch

        async def units() -> None:
            leased = await self.chain.read(self._market.leased(Address(offer.provider), Hash32(offer.machine)))
            found["units"] = leased + item.units <= offer.units

        try:
            async with anyio.create_task_group() as tasks:
                for check in (agent, epoch, units):
                    tasks.start_soon(check)
        except* ContractError:
            found["refused"] = False
        return all(found.values())

    async def choose(self, needs: Requirements, fresh: bool = False) -> list[Ranked]:
        """The offers that match, best first; `is_free` is still to be asked of the one that is taken."""
        return rank(needs, (await self.gather(fresh)).bundles, self.reliability())

    async def find(self, text: str, limit: int) -> list[Ranked]:
        """Offers that meet a query, cheapest first, one unit of each.

        Raises:
            InvalidInput: the query names no field, or a bad value.
        """
        query = parse_query(text, self.network.chain.deployment.decimals)
        found = await self.gather()
        return search(found.bundles, query, limit, found.time, self.reliability())


def search(
    bundles: Iterable[OfferBundle], query: Query, limit: int, now: int, reliability: Reliability = unknown
) -> list[Ranked]:
    """At most `limit` of `bundles` that meet `query` and are valid after `now`, cheapest per unit-hour first."""
    by_hash = {str(bundle.offer_hash()): bundle for bundle in bundles}
    index = OfferIndex()
    ppm = {provider: reliability(provider) for provider in {item.offer.provider for item in by_hash.values()}}
    index.add_many((name, row_of(bundle, ppm[bundle.offer.provider])) for name, bundle in by_hash.items())
    found = (by_hash[name] for name in index.search(query, limit, now))
    return [ranked(bundle, 1, ppm[bundle.offer.provider]) for bundle in found]


def without(needs: Requirements, machines: Iterable[str]) -> Requirements:
    """The same needs, and none of `machines`."""
    return replace(needs, excluded=needs.excluded | frozenset(machines))


__all__ = ["Gathered", "OfferSource", "fit", "search", "without"]


def deal_of(item: Ranked) -> ev.Deal:
    """What an offer says that money depends on."""
    offer = item.bundle.offer
    return ev.Deal(
        offer.provider, offer.machine, item.offer_hash, Amount(int(offer.price_per_hour)), item.units, offer.quantum,
        Amount(int(offer.deposit_min)), offer.seconds_min, offer.seconds_max, offer.close_window,
        item.bundle.terms.prepaid_quanta, item.bundle.terms.speed not in (None, Speed()), item.bundle.terms.notice_s,
    )  # fmt: skip
