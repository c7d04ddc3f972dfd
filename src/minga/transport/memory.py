"""Requests that never leave the process: an `httpx` client straight into an ASGI app.

For tests and the simulator. Unlike `httpx.ASGITransport`, which waits for the whole answer, the body here is a
stream, so that events and followed logs arrive as they are sent; closing the response disconnects the app.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import httpx

App = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]
"""An ASGI 3 application."""


@asynccontextmanager
async def connect_memory(
    app: App, base_url: str = "http://memory", token: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app`; leaving the context disconnects every request still open.

    Args:
        app: the ASGI app; its lifespan is not run.
        base_url: what relative urls are joined to.
        token: sent as a bearer token with each request, if given.
    """
    async with anyio.create_task_group() as tasks:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        transport = _Transport(app, tasks)
        async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers) as client:
            yield client
        tasks.cancel_scope.cancel()


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, app: App, tasks: anyio.abc.TaskGroup) -> None:
        self._app = app
        self._tasks = tasks

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(request)
        self._tasks.start_soon(exchange.run, self._app)
        await exchange.started.wait()
        if exchange.status is None:
            raise httpx.RemoteProtocolError("the app ended without an answer", request=request)
        return httpx.Response(exchange.status, headers=exchange.headers, stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One request in flight; also the stream of its response."""

    def __init__(self, request: httpx.Request) -> None:
        self.started = anyio.Event()
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self._gone = anyio.Event()
        self._request = request
        self._body = aiter(request.stream) if isinstance(request.stream, httpx.AsyncByteStream) else None
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)

    async def run(self, app: App) -> None:
        url = self._request.url
        raw_path, _, query = url.raw_path.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 1),
        }
        try:
            await app(scope, self._next, self._answer)
        finally:
            self.started.set()
            self._send.close()

    async def _next(self) -> MutableMapping[str, Any]:
        if self._body is not None:
            async for chunk in self._body:
                return {"type": "http.request", "body": chunk, "more_body": True}
            self._body = None
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _answer(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", []))
            self.started.set()
        elif message["type"] == "http.response.body":
            if message.get("body") and self._request.method != "HEAD":
                try:
                    await self._send.send(message["body"])
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    # As a server does: what a client that is gone does not read is dropped; the app hears of it.
                    await anyio.lowlevel.checkpoint()
            if not message.get("more_body", False):
                self._send.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive:
            yield chunk

    async def aclose(self) -> None:
        self._gone.set()
        self._receive.close()
