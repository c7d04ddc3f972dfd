"""Apps that behave badly behind the in-memory carrier, and files that uvicorn cannot send whole."""

from __future__ import annotations

import io
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from minga.core.errors import NetworkError
from minga.transport.errors import network_error
from minga.transport.memory import connect_memory
from minga.transport.sendfile import EXTENSION, with_sendfile

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


async def mirror(request: Request) -> PlainTextResponse:
    """What the app was told of a request."""
    body = await request.body()
    told = {"path": request.url.path, "query": request.url.query, "auth": request.headers.get("authorization")}
    return PlainTextResponse(f"{request.method} {told} {body!r}", headers={"x-seen": "yes"})


APP = Starlette(routes=[Route("/{path:path}", mirror, methods=["GET", "HEAD", "POST"])])


async def test_an_app_sees_what_was_sent() -> None:
    async with connect_memory(APP, "http://board.test/base", token="t") as client:
        answer = await client.post("/a/b?q=1&q=2", content=b"body")
        assert answer.text == "POST {'path': '/base/a/b', 'query': 'q=1&q=2', 'auth': 'Bearer t'} b'body'"
        async with connect_memory(APP) as other:
            assert "'auth': None" in (await other.get("/")).text
        answer = await client.head("/a")
        assert (answer.status_code, answer.headers["x-seen"], answer.content) == (200, "yes", b"")


async def test_a_body_in_pieces_arrives_in_order() -> None:
    async def pieces() -> Any:
        for number in range(5):
            yield b"%d" % number

    async with connect_memory(APP) as client:
        assert "b'01234'" in (await client.post("/", content=pieces())).text


async def test_an_app_that_ends_without_an_answer_is_a_network_error() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async with connect_memory(silent) as client:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.get("/")
    assert isinstance(network_error(caught.value, "http://memory"), NetworkError)


async def test_an_answer_that_breaks_off_ends() -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with connect_memory(half) as client:
        answer = await client.get("/")
        assert (answer.content, list(answer.headers)) == (b"half", [])


async def test_an_app_hears_that_its_reader_left() -> None:
    gone = anyio.Event()

    async def follow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"line\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"nobody reads this", "more_body": True})
        gone.set()

    async with connect_memory(follow) as client:
        async with client.stream("GET", "/") as answer:
            assert await anext(answer.aiter_bytes()) == b"line\n"
        with anyio.fail_after(30):
            await gone.wait()
        async with client.stream("GET", "/") as again:
            assert again.status_code == 200


class Cycle:
    """Stands for uvicorn's request cycle over a transport that is closing."""

    def __init__(self, closing: bool) -> None:
        self.conn = self
        self.transport = self
        self.closing = closing
        self.lengths: list[int] = []
        self.aborted = False
        self.sent: list[Any] = []

    def send_with_data_passthrough(self, event: Any) -> None:
        """As h11's."""
        self.lengths.append(len(event.data))

    def is_closing(self) -> bool:
        """As asyncio's."""
        return self.closing

    def abort(self) -> None:
        """As asyncio's."""
        self.aborted = True

    async def send(self, message: Any) -> None:
        """As uvicorn's."""
        self.sent.append(message)


async def test_a_part_that_could_not_be_sent_cuts_the_connection() -> None:
    cycle = Cycle(closing=True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["extensions"] == {"other": 1, EXTENSION: {}}
        await send({"type": "http.response.start", "status": 200})
        await send({"type": EXTENSION, "file": io.BytesIO(b"abc"), "offset": 0, "count": 3, "more_body": True})

    await with_sendfile(app)({"type": "http", "extensions": {"other": 1}}, None, cycle.send)  # type: ignore[arg-type]
    assert (cycle.lengths, cycle.aborted) == ([3], True)
    assert cycle.sent == [{"type": "http.response.start", "status": 200}], "and no end of a body is pretended"


@pytest.mark.parametrize("kind", ["http", "lifespan", "websocket"])
async def test_where_files_cannot_be_sent_an_app_is_not_told_that_they_can(kind: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def plain(message: Any) -> None:
        """A carrier without a request cycle."""

    scope = {"type": kind, "extensions": {}}
    await with_sendfile(app)(scope, None, plain)  # type: ignore[arg-type]
    assert seen == [{"type": kind, "extensions": {}}]
