"""How a simulated tenant finds an offer: every board, checked signatures, the cheapest that the chain would take.

Rule: a board is believed in nothing but that it shows something.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from minga.core.crypto import ZERO_HASH, Hash32
from minga.core.errors import BoardUnavailable, MingaError, ProviderError
from minga.protocol import job_events as ev
from minga.protocol.job_state import State, slice_for
from minga.protocol.messages import offer_hash, verify
from minga.sim.chain import SimChain
from minga.sim.nodes import Node, Wires
from minga.sim.provider import Posted
from minga.sim.work import Work

Board = Callable[[], Coroutine[Any, Any, list[Posted]]]


class Offers:
    """The market's side of a runner."""

    node: Node
    chain: SimChain
    plan: ev.Plan
    state: State
    wires: Wires
    work: Work
    boards: list[tuple[Node, Board]]
    market: dict[str, Posted]

    def emit(self, event: ev.Event) -> None:
        """Take an event in."""
        raise NotImplementedError

    async def gather_offers(self) -> list[Posted]:
        """Every offer that any board shows and whose signature is its provider's. Raises BoardUnavailable."""
        found: dict[str, Posted] = {}
        answers = 0
        for node, board in self.boards:
            try:
                listed = await self.wires.call(self.node, node, board, wait_s=3.0)
            except ProviderError:
                continue
            answers += 1
            for posted in listed:
                name = self._checked(posted)
                if name is not None and posted.offer.valid_until > self.chain.time:
                    found.setdefault(name, posted)
        if self.boards and not answers:
            raise BoardUnavailable("no board answered", "see the network's boards")
        return list(found.values())

    def _checked(self, posted: Posted) -> Hash32 | None:
        """The offer's hash, if its provider signed it and its terms are those; the answer for one offer is kept."""
        known, key = self.chain.checked, (posted.offer, posted.signature)
        if key not in known:
            known[key] = None
            try:
                verify(posted.offer, self.chain.domain, posted.signature, posted.provider.key.address)
            except MingaError:
                return None
            if posted.terms.hash32() == posted.offer.terms:
                known[key] = offer_hash(posted.offer)
        return known[key]

    async def find(self, effect: ev.Find) -> None:
        """Choose the cheapest offer that can be paid and that the chain would take."""
        while (left := effect.not_before - self.node.now()) > 0:
            await self.node.kernel.sleep(left)
        now = self.node.now()
        avoided = {machine for machine, until in self.state.excluded if until > now}
        try:
            offers = await self.gather_offers()
        except BoardUnavailable as error:
            self.emit(ev.NotFound(error.code, error.fact))
            return
        offers = [item for item in offers if item.offer.machine not in avoided and self._wanted(item)]
        offers.sort(key=lambda item: (item.offer.price_per_hour, item.offer.machine))
        payable = [item for item in offers if slice_for(self.plan.budget, effect.available, deal_of(item, ZERO_HASH))]
        if offers and not payable:
            self.emit(ev.NotFound("budget-too-small", "what is left pays no quantum of any matching offer", True))
            return
        for item in payable:
            if self._is_free(item):
                deal = deal_of(item, self._checked(item) or ZERO_HASH)
                self.market[deal.offer] = item
                self.emit(ev.Found(deal, {"offer": deal.offer}))
                return
        self.emit(ev.NotFound("no-match", f"{len(payable)} offers match, none is free"))

    def _wanted(self, item: Posted) -> bool:
        offer = item.offer
        if self.plan.accept and offer.quantum < self.work.every_s + 5:
            return False
        return offer.close_window <= 3600 and not (
            self.plan.per_hour is not None and offer.price_per_hour > self.plan.per_hour
        )

    def _is_free(self, item: Posted) -> bool:
        seen, offer = self.chain.latest(self.node), item.offer
        return (
            offer.provider in seen.agents
            and seen.epochs.get(offer.provider, 0) == offer.epoch
            and seen.leased.get((offer.provider, offer.machine), 0) < offer.units
        )


def deal_of(item: Posted, name: Hash32) -> ev.Deal:
    """What an offer of hash `name` says that money depends on."""
    offer = item.offer
    speed = item.terms.speed
    return ev.Deal(
        offer.provider, offer.machine, name, offer.price_per_hour, 1, offer.quantum, offer.deposit_min,
        offer.seconds_min, offer.seconds_max, offer.close_window, item.terms.prepaid_quanta,
        bool(speed and speed.gemm_mops), item.terms.notice_s,
    )  # fmt: skip


__all__ = ["Board", "Offers", "deal_of"]
