"""The HTTP face of a board.

| route                      | request → response                                                          |
|----------------------------|-----------------------------------------------------------------------------|
| POST /v1/offers            | OfferBundle (at most 64 KiB) → 204, also when the same posting is held      |
| GET  /v1/offers?q=&limit=  | → `{"offers": [OfferBundle], "held": N}`, cheapest first; `limit` 1 … 1000 (100) |
| GET  /v1/health            | → `{"ok", "version", "time", "chain_id", "market", "offers"}`                |

A refusal is `MingaError.as_dict()` with its status. Nothing here is believed by a client: it checks every bundle.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import minga
from minga.core.codec import canonical_json
from minga.core.effects import Clock
from minga.core.errors import InvalidInput, MingaError, NotFound, TooLarge
from minga.explorer.board import FloodGate, OfferBook
from minga.protocol.search import parse_query
from minga.protocol.wire import OfferBundle

BUNDLE_BYTES_MAX = 64 * 1024
QUERY_CHARS_MAX = 500
LIMIT_MAX = 1000


def board_app(book: OfferBook, clock: Clock, decimals: int = 6) -> Starlette:
    """An ASGI app around one cache.

    Args:
        book: the cache, with its domain and limits; the app's event loop owns it.
        clock: its time judges what expired.
        decimals: of the token, for prices in queries.
    """
    board = _Board(book, clock, decimals)
    routes = [
        Route("/v1/offers", board.post, methods=["POST"]),
        Route("/v1/offers", board.list, methods=["GET"]),
        Route("/v1/health", board.health, methods=["GET"]),
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
        bundle = OfferBundle.parse(await _body(request))
        self.book.add(bundle, self.clock.now())
        return Response(status_code=204)

    async def list(self, request: Request) -> Response:
        unknown = set(request.query_params) - {"q", "limit"}
        if unknown:
            raise InvalidInput(f"unknown parameter {min(unknown)[:40]!r}", "use q and limit")
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


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BUNDLE_BYTES_MAX:
            raise TooLarge(f"the body is over {BUNDLE_BYTES_MAX} bytes", "send one offer with its machine and terms")
    return bytes(data)


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
