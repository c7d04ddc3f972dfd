"""Offers reach boards that answer, and a board that does not costs a warning and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from auditors import staked
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tenants import FastClock, Market0, running

from fixtures import SystemClock, eventually
from minga.core.errors import InvalidInput
from minga.explorer.app import board_app
from minga.explorer.board import OfferBook
from minga.protocol.wire import OfferBundle
from minga.transport.errors import error_body
from minga.transport.http import serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.root]


class Board:
    """Keeps what is posted to it; `refuse` makes it say no."""

    def __init__(self) -> None:
        self.posted: list[OfferBundle] = []
        self.refused = 0
        self.refuse = False
        self.app = Starlette(routes=[Route("/v1/offers", self._post, methods=["POST"])])

    async def _post(self, request: Request) -> Response:
        if self.refuse:
            self.refused += 1
            status, body = error_body(InvalidInput("the board is full of you", "post less"))
            return Response(body, status)
        self.posted.append(OfferBundle.parse(json.loads(await request.body())))
        return Response(status_code=204)


async def test_boards_get_signed_offers_again_and_again(market: Market0, folder: Path) -> None:
    board, rude = Board(), Board()
    rude.refuse = True
    async with serve(board.app, "127.0.0.1", 0) as good, serve(rude.app, "127.0.0.1", 0) as bad:
        boards = ("http://127.0.0.1:9", bad.url, good.url)
        config = market.config(folder / "home", boards=boards)
        async with running(config, clock=FastClock(60)) as provider:
            await eventually(lambda: len(board.posted) > 1 and rude.refused)
            for bundle in board.posted:
                offer = bundle.check(market.network.spec.domain, await market.chain.time())
                assert offer.provider == market.operator.address
                assert bundle.url == provider.url
            warned = [facts for kind, facts in provider.told if kind == "warning"]
            assert {facts["code"] for facts in warned} == {"board-unavailable", "invalid-input"}
            assert any("full of you" in facts["fact"] for facts in warned)
            assert good.url in [facts["board"] for kind, facts in provider.told if kind == "posted"]


async def test_a_board_that_lost_its_memory_shows_the_same_offer_again_in_20_seconds(market: Market0, folder: Path):
    """And one that did not is left as it is: nothing is signed for it."""
    domain, clock, fast = market.network.spec.domain, SystemClock(), FastClock(10)
    book = OfferBook(domain)
    async with serve(board_app(book, clock), "127.0.0.1", 0) as board:
        config = market.config(folder / "home", boards=(board.url,))
        async with running(config, clock=fast) as provider:
            await eventually(lambda: len(book))
            assert book.changes == 1
            held = book.lines()
            book._kept.clear()
            book.__init__(domain)  # type: ignore[misc]
            lost_at = fast.monotonic()
            await eventually(lambda: len(book))
            assert fast.monotonic() - lost_at <= 20
            assert book.lines() == held
            told = [kind for kind, _ in provider.told]
            assert (told.count("offer"), told.count("posted")) == (1, 1)


async def test_a_board_that_is_away_is_warned_of_once(market: Market0, folder: Path):
    fast = FastClock(60)
    config = market.config(folder / "home", boards=("http://127.0.0.1:9",), offer_seconds=3600)
    async with running(config, clock=fast) as provider:
        began = fast.monotonic()
        await eventually(lambda: fast.monotonic() - began > 100)
        assert [kind for kind, _ in provider.told].count("warning") == 1


async def test_a_changed_epoch_is_followed_by_a_new_offer(market: Market0, folder: Path) -> None:
    """The owner took all offers back on chain: what was signed before is worth nothing, so it is not served."""
    from minga.chain.contracts import Market

    async with running(market.config(folder / "home"), clock=FastClock(60)) as provider:
        first = [facts["hash"] for kind, facts in provider.told if kind == "offer"]
        async with market.network.open(folder / "owner") as chain:
            call = Market(market.network.spec.deployment.market).cancel_offers()
            await chain.send("cancel", call, market.operator)
        await eventually(lambda: len([kind for kind, _ in provider.told if kind == "offer"]) > len(first))
        from minga.transport.http import connect

        async with connect(provider.url) as http:
            with anyio.fail_after(20):
                (served,) = (await http.get("/v1/offers")).json()["offers"]
        assert served["offer"]["epoch"] == 1
        assert OfferBundle.parse(served).offer_hash() not in first


async def test_both_offers_of_a_staked_provider_are_posted_and_both_are_withdrawn(
    market: Market0, folder: Path
) -> None:
    book = OfferBook(market.network.spec.domain)
    async with serve(board_app(book, SystemClock()), "127.0.0.1", 0) as board:
        async with staked(market, folder, boards=(board.url,)):
            await eventually(lambda: len(book) == 2)
            shown = [OfferBundle.parse(line).offer for line in book.lines().splitlines()]
            assert {offer.hold_bps for offer in shown} == {0, 1000}
            live = {offer.arbiter: offer.valid_until for offer in shown}
        last = [OfferBundle.parse(line).offer for line in book.lines().splitlines()]
        assert {offer.arbiter for offer in last} == live.keys()
        assert all(offer.valid_until < live[offer.arbiter] - 300 for offer in last), "they expire in a moment"
