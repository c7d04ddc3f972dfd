"""A port of a running job on this machine's loopback: whatever speaks HTTP reaches it, and follows it when it moves.

An ASGI app before a `Door`. Rule: nothing of the caller's own `Authorization` leaves this machine, and answers are
streamed as they come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from minga.client.door import Door, Headers
from minga.core.errors import MingaError
from minga.transport.errors import error_body
from minga.transport.http import serve

HOP_BY_HOP = frozenset(
    ("authorization", "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer")
) | {"transfer-encoding", "upgrade"}
"""Headers that end here (RFC 9110, section 7.6.1), and the caller's credentials."""


class Forwarder:
    """An ASGI app that hands requests on through a door."""

    def __init__(self, door: Door) -> None:
        """The door is the caller's to close."""
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; only HTTP is forwarded."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        path: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        response: Response
        try:
            answer = await self._door.send(request.method, path, kept(request.headers), await request.body())
            response = _streamed(answer)
        except MingaError as error:
            status, body = error_body(error)
            response = Response(body, status, {"content-type": "application/json"})
        await response(scope, receive, send)


def kept(headers: Mapping[str, str]) -> Headers:
    """The headers that go on to the other side."""
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP]


def _streamed(answer: httpx.Response) -> Response:
    headers = dict(kept(answer.headers))
    if answer.is_stream_consumed:  # read already, and perhaps decoded
        headers = {name: value for name, value in headers.items() if name not in ("content-encoding", "content-length")}
        return Response(answer.content, answer.status_code, headers)
    return StreamingResponse(answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose))


@asynccontextmanager
async def forwarded(door: Door, listen: int = 0) -> AsyncIterator[str]:
    """The url at which the port is reached while the context is open; `listen` 0 takes any free port.

    Raises:
        PortInUse: the port is taken.
    """
    try:
        async with serve(Forwarder(door), "127.0.0.1", listen) as server:
            yield server.url
    finally:
        await door.aclose()
