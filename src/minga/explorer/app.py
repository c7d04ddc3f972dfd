"""The HTTP face of a board.

| route                                | request → response                                                      |
|--------------------------------------|-------------------------------------------------------------------------|
| POST /v1/offers                      | OfferBundle (at most 64 KiB) → 204, also when the same posting is held  |
| GET  /v1/offers?q=&limit=            | → `{"offers": [OfferBundle], "held": N}`, cheapest first                |
| POST /v1/complaints                  | SignedComplaint (at most 4 KiB) → 204, also when the same one is held   |
| GET  /v1/complaints?provider=&limit= | → `{"complaints": [SignedComplaint], "held": N}`, newest first          |
| GET  /v1/health                      | → `{"ok", "version", "time", "chain_id", "market", "offers"}`           |

`limit` is 1 … 1000 (100). A board without a chain to look leases up takes and serves no complaints.

A refusal is `MingaError.as_dict()` with its status. Nothing here is believed by a client: it checks every bundle.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import minga
from minga.core.codec import canonical_json
from minga.core.crypto import Hash32, parse_address
from minga.core.effects import Clock
from minga.core.errors import InvalidInput, MingaError, NotFound, TooLarge
from minga.explorer.board import FloodGate, OfferBook
from minga.explorer.complaints import ComplaintBook
from minga.protocol.complaint import SignedComplaint
from minga.protocol.lease import Lease
from minga.protocol.search import parse_query
from minga.protocol.wire import OfferBundle

BUNDLE_BYTES_MAX = 64 * 1024
COMPLAINT_BYTES_MAX = 4 * 1024
QUERY_CHARS_MAX = 500
LIMIT_MAX = 1000

FindLease = Callable[[Hash32], Awaitable[Lease | None]]
"""Lease id → what the chain knows of it, or None. May raise `RpcUnavailable`."""


def board_app(
    book: OfferBook,
    clock: Clock,
    decimals: int = 6,
    complaints: ComplaintBook | None = None,
    find_lease: FindLease | None = None,
) -> Starlette:
    """An ASGI app around one cache of offers and, if given, one of complaints.

    Args:
        book: the cache, with its domain and limits; the app's event loop owns it.
        clock: its time judges what expired.
        decimals: of the token, for prices in queries.
        complaints, find_lease: the cache of complaints, and what looks their leases up; both or neither.
    """
    board = _Board(book, clock, decimals)
    routes = [
        Route("/v1/offers", board.post, methods=["POST"]),
        Route("/v1/offers", board.list, methods=["GET"]),
        Route("/v1/health", board.health, methods=["GET"]),
    ]
    if complaints is not None and find_lease is not None:
        desk = _Desk(complaints, find_lease, board.gate, clock)
        routes += [
            Route("/v1/complaints", desk.post, methods=["POST"]),
            Route("/v1/complaints", desk.list, methods=["GET"]),
        ]
    handlers = {MingaError: _refuse, 404: _no_route, 405: _no_route}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


class _Board:
    def __init__(self, book: OfferBook, clock: Clock, decimals: int) -> None:
        self.book = book
        self.gate = FloodGate(book.limits)
        self.clock = clock
        self.decimals = decimals

    async def post(self, request: Request) -> Response:
        self.gate.pass_one(request.client.host if request.client else "", self.clock.monotonic())
        bundle = OfferBundle.parse(await _body(request, BUNDLE_BYTES_MAX))
        self.book.add(bundle, self.clock.now())
        return Response(status_code=204)

    async def list(self, request: Request) -> Response:
        _only(request, "q", "limit")
        text = request.query_params.get("q", "")
        if len(text) > QUERY_CHARS_MAX:
            raise TooLarge(f"the query has {len(text)} characters, the limit is {QUERY_CHARS_MAX}", "ask for less")
        query = parse_query(text, self.decimals)
        limit = _limit(request.query_params.get("limit", "100"))
        found = self.book.search(query, limit, self.clock.now())
        body = canonical_json({"offers": [bundle.plain() for bundle in found], "held": len(self.book)})
        return Response(body, media_type="application/json")

    async def health(self, request: Request) -> Response:
        self.book.expire(self.clock.now())
        domain = self.book.domain
        return JSONResponse(
            {
                "ok": True,
                "version": minga.__version__,
                "time": self.clock.now(),
                "chain_id": domain.chain_id,
                "market": domain.market,
                "offers": len(self.book),
            }
        )


class _Desk:
    def __init__(self, book: ComplaintBook, find_lease: FindLease, gate: FloodGate, clock: Clock) -> None:
        self.book = book
        self.find_lease = find_lease
        self.gate = gate
        self.clock = clock

    async def post(self, request: Request) -> Response:
        self.gate.pass_one(request.client.host if request.client else "", self.clock.monotonic())
        complaint = SignedComplaint.parse(await _body(request, COMPLAINT_BYTES_MAX))
        complaint.check(self.book.domain)  # before a node is asked on a stranger's behalf
        lease = await self.find_lease(Hash32(complaint.lease_id))
        self.book.add(complaint, lease, self.clock.now())
        return Response(status_code=204)

    async def list(self, request: Request) -> Response:
        _only(request, "provider", "limit")
        named = request.query_params.get("provider")
        limit = _limit(request.query_params.get("limit", "100"))
        found = self.book.newest(parse_address(named) if named is not None else None, limit)
        body = canonical_json({"complaints": [item.plain() for item in found], "held": len(self.book)})
        return Response(body, media_type="application/json")


async def _body(request: Request, most: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise TooLarge(f"the body is over {most} bytes", "send one message at a time")
    return bytes(data)


def _only(request: Request, *names: str) -> None:
    unknown = set(request.query_params) - set(names)
    if unknown:
        raise InvalidInput(f"unknown parameter {min(unknown)[:40]!r}", f"use {' and '.join(names)}")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= LIMIT_MAX or len(text) > 6:
        raise InvalidInput(f"limit {text[:20]!r} is out of range", f"use 1 … {LIMIT_MAX}")
    return int(text)


async def _refuse(request: Request, error: MingaError) -> Response:
    return JSONResponse(error.as_dict(), status_code=error.http_status)


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    body = NotFound(f"{request.method} {request.url.path[:80]} is not served here", "see GET /v1/health").as_dict()
    return JSONResponse(body, status_code=status)
