"""The board over HTTP: each route's good and bad input; one error, its status, nothing changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from board_offers import DOMAIN, NOW, bundle_of, key_of

from minga.explorer.app import BUNDLE_BYTES_MAX, board_app
from minga.explorer.board import Limits, OfferBook
from minga.transport.memory import connect_memory


class StoppedClock:
    """A clock that stands at NOW."""

    def now(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a board does not sleep")


Talk = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


def talk(main: Talk, limits: Limits = Limits()) -> None:  # noqa: B008
    async def run() -> None:
        async with connect_memory(board_app(OfferBook(DOMAIN, limits), StoppedClock())) as client:
            await main(client)

    asyncio.run(run())


def refusal(answer: httpx.Response, status: int, code: str) -> None:
    """One error with code, fact and remedy."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["fact"]
    assert error["remedy"]
    assert "Traceback" not in answer.text


def test_an_offer_goes_in_and_comes_out_as_it_was() -> None:
    bundle = bundle_of(key_of(1), gpu="H100")

    async def main(client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/offers", content=bundle.canonical())).status_code == 204
        assert (await client.post("/v1/offers", content=bundle.canonical())).status_code == 204
        assert (await client.get("/v1/offers")).json() == {"held": 1, "offers": [bundle.plain()]}
        assert (await client.get("/v1/offers", params={"q": "gpu=H100", "limit": 1})).json()["offers"]
        assert (await client.get("/v1/offers", params={"q": "gpu=A100"})).json()["offers"] == []
        health = (await client.get("/v1/health")).json()
        assert health["ok"] is True
        assert (health["offers"], health["chain_id"], health["market"]) == (1, DOMAIN.chain_id, DOMAIN.market)

    talk(main)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid-input"),
        (b"{", 400, "invalid-input"),
        (b"[]", 400, "invalid-input"),
        (b"null", 400, "invalid-input"),
        (b"\xff\xfe", 400, "invalid-input"),
        (b"[" * 40_000, 400, "invalid-input"),
        (b'{"a":1,"a":2}', 400, "invalid-input"),
        (b'{"offer":NaN}', 400, "invalid-input"),
        (b" " * (BUNDLE_BYTES_MAX + 1), 413, "too-large"),
    ],
)
def test_malformed_and_oversized_bodies_are_refused(body: bytes, status: int, code: str) -> None:
    async def main(client: httpx.AsyncClient) -> None:
        refusal(await client.post("/v1/offers", content=body), status, code)
        assert (await client.get("/v1/health")).json()["offers"] == 0

    talk(main)


def test_wrong_fields_signatures_and_times_are_refused() -> None:
    good = bundle_of(key_of(1)).plain()
    other = bundle_of(key_of(2)).plain()
    cases: list[tuple[dict[str, Any], int, str]] = [
        (good | {"extra": 1}, 400, "invalid-input"),
        ({key: value for key, value in good.items() if key != "url"}, 400, "invalid-input"),
        (good | {"url": "file:///etc/passwd"}, 400, "invalid-input"),
        (good | {"signature": "0x" + "00" * 65}, 401, "invalid-signature"),
        (good | {"signature": other["signature"]}, 401, "invalid-signature"),
        (good | {"agent": other["agent"]}, 401, "invalid-signature"),
        (good | {"url": "http://127.0.0.1:9"}, 401, "invalid-signature"),
        (bundle_of(key_of(1), valid_until=NOW - 1).plain(), 410, "expired"),
        (bundle_of(key_of(1), units=0).plain(), 400, "invalid-input"),
    ]

    async def main(client: httpx.AsyncClient) -> None:
        for body, status, code in cases:
            refusal(await client.post("/v1/offers", json=body), status, code)
        assert (await client.get("/v1/health")).json()["offers"] == 0

    talk(main)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"q": "nonsense"}, 400, "invalid-input"),
        ({"q": "price<x"}, 400, "invalid-input"),
        ({"q": "a" * 501}, 413, "too-large"),
        ({"limit": "0"}, 400, "invalid-input"),
        ({"limit": "1001"}, 400, "invalid-input"),
        ({"limit": "-1"}, 400, "invalid-input"),
        ({"limit": "9" * 40}, 400, "invalid-input"),
        ({"limit": "٣"}, 400, "invalid-input"),
        ({"page": "1"}, 400, "invalid-input"),
    ],
)
def test_bad_queries_are_refused(params: dict[str, str], status: int, code: str) -> None:
    async def main(client: httpx.AsyncClient) -> None:
        refusal(await client.get("/v1/offers", params=params), status, code)

    talk(main)


def test_unknown_routes_and_methods_are_refused() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        refusal(await client.get("/"), 404, "not-found")
        refusal(await client.get("/v1/offers/../../etc/passwd"), 404, "not-found")
        refusal(await client.delete("/v1/offers"), 405, "not-found")

    talk(main)


def test_a_flood_of_posts_is_refused_and_reading_goes_on() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            refusal(await client.post("/v1/offers", content=b"{}"), 400, "invalid-input")
        refusal(await client.post("/v1/offers", content=b"{}"), 429, "too-many-requests")
        assert (await client.get("/v1/offers")).status_code == 200

    talk(main, Limits(posts_per_minute=3))


def test_the_board_serves_over_real_sockets() -> None:
    from minga.transport.http import connect, serve

    async def main() -> None:
        async with (
            serve(board_app(OfferBook(DOMAIN), StoppedClock()), "127.0.0.1", 0) as server,
            connect(server.url) as client,
        ):
            assert (await client.post("/v1/offers", content=bundle_of(key_of(1)).canonical())).status_code == 204
            assert len((await client.get("/v1/offers")).json()["offers"]) == 1

    asyncio.run(main())
