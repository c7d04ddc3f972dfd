"""A board's complaints: each has a lease behind it, one a lease, bounded, and back again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from board_complaints import PROVIDER, complaint_of, lease_of
from board_offers import DOMAIN, NOW, key_of
from test_app import StoppedClock, refusal

from minga.core.crypto import Address, Hash32
from minga.core.eip712 import Domain
from minga.core.errors import Conflict, Expired, InvalidInput, InvalidSignature, NotFound, RpcUnavailable
from minga.explorer.app import COMPLAINT_BYTES_MAX, board_app
from minga.explorer.board import CLOCK_SLACK_S, Limits, OfferBook
from minga.explorer.complaints import ComplaintBook, ComplaintLimits
from minga.protocol.lease import Lease
from minga.transport.memory import connect_memory

OTHER = Address("0x" + "0b" * 20)


def held(*numbers: int, limits: ComplaintLimits | None = None, provider: Address = PROVIDER) -> ComplaintBook:
    """A book with a complaint about each of these leases."""
    book = ComplaintBook(DOMAIN, limits)
    for number in numbers:
        lease = lease_of(number, provider)
        assert book.add(complaint_of(lease, number), lease, NOW)
    return book


def test_one_a_lease_and_the_newest_wins() -> None:
    lease, book = lease_of(1), held(1)
    assert not book.add(complaint_of(lease, 1), lease, NOW)
    with pytest.raises(Conflict):
        book.add(complaint_of(lease, 1, 7), lease, NOW)
    with pytest.raises(Conflict):
        book.add(complaint_of(lease, 1, 7, NOW - 1), lease, NOW)
    newer = complaint_of(lease, 1, 7, NOW + 1)
    assert book.add(newer, lease, NOW)
    assert book.newest(None, 10) == [newer]
    assert book.changes == 2


def test_what_does_not_prove_itself_is_refused_and_changes_nothing() -> None:
    lease, book = lease_of(2), held(1)
    before = book.lines()
    cases: list[tuple[Any, Lease | None, type[Exception]]] = [
        (complaint_of(lease, 2), None, NotFound),
        (complaint_of(lease, 2), lease_of(3), InvalidInput),
        (complaint_of(lease, 3), lease, InvalidInput),  # not the signer of this lease
        (complaint_of(lease, 2, provider=OTHER), lease, InvalidInput),
        (complaint_of(lease, 2, domain=Domain(1, DOMAIN.market)), lease, InvalidSignature),
        (complaint_of(lease, 2).model_copy(update={"reason": 6}), lease, InvalidSignature),
        (complaint_of(lease, 2, made_at=NOW + CLOCK_SLACK_S + 1), lease, InvalidInput),
        (complaint_of(lease, 2, made_at=NOW - book.limits.complaint_keep_s), lease, Expired),
    ]
    for complaint, known, error in cases:
        with pytest.raises(error):
            book.add(complaint, known, NOW)
    assert (book.lines(), len(book), book.changes) == (before, 1, 1)


def test_one_provider_cannot_push_out_what_is_said_of_others() -> None:
    limits = ComplaintLimits(per_provider=3)
    book = held(1, 2, 3, 4, 5, limits=limits)
    lease = lease_of(9, OTHER)
    book.add(complaint_of(lease, 9), lease, NOW)
    assert [item.lease_id for item in book.newest(PROVIDER, 9)] == [lease_of(number).id for number in (5, 4, 3)]
    assert [item.lease_id for item in book.newest(OTHER, 9)] == [lease.id]
    assert len(book) == 4


def test_memory_is_bounded_and_the_oldest_goes() -> None:
    book = held(1, 2, 3, 4, limits=ComplaintLimits(complaints_max=2))
    assert [item.lease_id for item in book.newest(None, 9)] == [lease_of(4).id, lease_of(3).id]
    assert book.newest(None, 1) == book.newest(None, 9)[:1]
    assert book.newest(OTHER, 9) == []


def test_what_was_written_is_read_again_and_its_signatures_checked_again() -> None:
    book = held(1, 2, 3)
    lines = book.lines().splitlines()
    again = ComplaintBook(DOMAIN)
    assert again.load([*lines, b"torn", b"", lines[0].replace(b'"reason":5', b'"reason":6')], NOW) == 3
    assert again.lines() == book.lines()
    assert again.load(lines, NOW) == 0
    assert ComplaintBook(Domain(1, DOMAIN.market)).load(lines, NOW) == 0
    assert ComplaintBook(DOMAIN).load(lines, NOW + book.limits.complaint_keep_s) == 0


# ---------------------------------------------------------------------------------------------------------- over HTTP


Talk = Callable[[httpx.AsyncClient, ComplaintBook], Coroutine[Any, Any, None]]


def talk(main: Talk, leases: dict[str, Lease] | None, limits: Limits = Limits()) -> None:  # noqa: B008
    """Talk to a board whose chain has these leases; None: its chain cannot be reached."""

    async def find(lease_id: Hash32) -> Lease | None:
        if leases is None:
            raise RpcUnavailable("no node answers", "try later")
        return leases.get(lease_id)

    async def run() -> None:
        book = ComplaintBook(DOMAIN)
        app = board_app(OfferBook(DOMAIN, limits), StoppedClock(), complaints=book, find_lease=find)
        async with connect_memory(app) as client:
            await main(client, book)

    asyncio.run(run())


LEASES = {str(lease_of(number).id): lease_of(number) for number in range(1, 6)}


def test_a_complaint_goes_in_and_comes_out_as_it_was() -> None:
    first, second = (complaint_of(lease_of(number), number) for number in (1, 2))

    async def main(client: httpx.AsyncClient, book: ComplaintBook) -> None:
        for complaint in (first, first, second):
            assert (await client.post("/v1/complaints", content=complaint.canonical())).status_code == 204
        answer = (await client.get("/v1/complaints")).json()
        assert answer == {"complaints": [second.plain(), first.plain()], "held": 2}
        some = await client.get("/v1/complaints", params={"provider": PROVIDER, "limit": 1})
        assert some.json()["complaints"] == [second.plain()]
        none = await client.get("/v1/complaints", params={"provider": OTHER})
        assert none.json() == {"complaints": [], "held": 2}

    talk(main, LEASES)


def test_bad_complaints_and_questions_are_refused_with_one_error() -> None:
    good = complaint_of(lease_of(1), 1)

    async def main(client: httpx.AsyncClient, book: ComplaintBook) -> None:
        cases: list[tuple[bytes, int, str]] = [
            (b"", 400, "invalid-input"),
            (b"[]", 400, "invalid-input"),
            (b" " * (COMPLAINT_BYTES_MAX + 1), 413, "too-large"),
            (complaint_of(lease_of(9), 9).canonical(), 404, "not-found"),
            (complaint_of(lease_of(1), 2).canonical(), 400, "invalid-input"),
            (good.canonical().replace(b'"reason":5', b'"reason":4'), 400, "invalid-input"),
            (good.canonical().replace(b'"reason":5', b'"reason":6'), 401, "invalid-signature"),
        ]
        for body, status, code in cases:
            refusal(await client.post("/v1/complaints", content=body), status, code)
        for params in ({"provider": "0x1"}, {"limit": "0"}, {"limit": "1001"}, {"q": ""}):
            refusal(await client.get("/v1/complaints", params=params), 400, "invalid-input")
        assert len(book) == 0

    talk(main, LEASES)


def test_a_board_that_cannot_ask_its_chain_keeps_nothing_and_asks_for_no_forgery() -> None:
    async def main(client: httpx.AsyncClient, book: ComplaintBook) -> None:
        good = complaint_of(lease_of(1), 1)
        refusal(await client.post("/v1/complaints", content=good.canonical()), 502, "rpc-unavailable")
        forged = good.model_copy(update={"signer": key_of(1).address})
        refusal(await client.post("/v1/complaints", content=forged.canonical()), 401, "invalid-signature")
        assert len(book) == 0

    talk(main, None)


def test_complaints_pass_the_same_gate_as_offers() -> None:
    async def main(client: httpx.AsyncClient, book: ComplaintBook) -> None:
        good = complaint_of(lease_of(1), 1).canonical()
        for _ in range(2):
            assert (await client.post("/v1/complaints", content=good)).status_code == 204
        refusal(await client.post("/v1/complaints", content=good), 429, "too-many-requests")

    talk(main, LEASES, Limits(posts_per_minute=2))


def test_a_board_without_a_chain_serves_offers_alone() -> None:
    async def run() -> None:
        async with connect_memory(board_app(OfferBook(DOMAIN), StoppedClock())) as client:
            refusal(await client.get("/v1/complaints"), 404, "not-found")
            assert (await client.get("/v1/offers")).status_code == 200

    asyncio.run(run())
