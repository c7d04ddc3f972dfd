"""What every way of carrying requests promises, tried on each: memory, plain HTTP, HTTPS with a pinned certificate."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from minga.core.errors import Conflict
from minga.transport.errors import error_body, error_of, raise_for
from minga.transport.http import connect, serve
from minga.transport.memory import connect_memory
from minga.transport.tls import create_identity

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


class Echo:
    """An app that shows what arrived, streams for ever, refuses, and notices when the other side hangs up."""

    def __init__(self) -> None:
        self.hung_up = anyio.Event()
        self.app = Starlette(
            routes=[
                Route("/echo/{rest:path}", self.echo, methods=["GET", "PUT", "POST", "HEAD"]),
                Route("/ticks", self.ticks),
                Route("/refuse", self.refuse),
            ]
        )

    async def echo(self, request: Request) -> Response:
        body = await request.body()
        seen = {
            "method": request.method,
            "path": request.url.path,
            "query": dict(request.query_params),
            "bytes": len(body),
            "sum": sum(body) % 65536,
            "token": request.headers.get("authorization", ""),
        }
        return Response(json.dumps(seen), headers={"upload-offset": str(len(body))}, media_type="application/json")

    async def ticks(self, request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                count = 0
                while True:
                    yield f"tick {count}\n".encode()
                    count += 1
                    await anyio.sleep(0.01)
            finally:
                self.hung_up.set()

        return StreamingResponse(body())

    async def refuse(self, request: Request) -> Response:
        status, body = error_body(Conflict("it is taken", "take another", offset=3))
        return Response(body, status, media_type="application/json")


@asynccontextmanager
async def carried(kind: str, folder: Path, token: str | None = None) -> AsyncIterator[tuple[Echo, httpx.AsyncClient]]:
    """The app behind one carrier, and a client of it."""
    echo = Echo()
    if kind == "memory":
        async with connect_memory(echo.app, token=token) as client:
            yield echo, client
        return
    tls = create_identity(folder, int(time.time())) if kind == "https" else None
    async with (
        serve(echo.app, "127.0.0.1", 0, tls) as server,
        connect(server.url, tls.sha256 if tls else None, token=token) as client,
    ):
        assert server.url.startswith(kind + "://")
        yield echo, client


carriers = pytest.mark.parametrize("kind", ["memory", "http", "https"])


@carriers
async def test_method_path_query_body_and_headers_arrive(kind: str, tmp_path: Path):
    async with carried(kind, tmp_path) as (_, client):
        body = bytes(range(256)) * 1000
        answer = await client.put("/echo/a%20b/c", params={"q": "x y"}, content=body)
        assert answer.json() == {
            "method": "PUT",
            "path": "/echo/a b/c",
            "query": {"q": "x y"},
            "bytes": 256_000,
            "sum": sum(body) % 65536,
            "token": "",
        }
        assert answer.headers["upload-offset"] == "256000"


@carriers
async def test_the_token_goes_with_every_request(kind: str, tmp_path: Path):
    async with carried(kind, tmp_path, token="secret") as (_, client):
        for _ in range(2):
            assert (await client.get("/echo/x")).json()["token"] == "Bearer secret"


@carriers
async def test_head_has_headers_and_no_body(kind: str, tmp_path: Path):
    async with carried(kind, tmp_path) as (_, client):
        answer = await client.head("/echo/x")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["upload-offset"] == "0"


@carriers
async def test_a_stream_arrives_while_it_is_sent_and_hanging_up_is_noticed(kind: str, tmp_path: Path):
    async with carried(kind, tmp_path) as (echo, client):
        with anyio.fail_after(10):
            async with client.stream("GET", "/ticks") as answer:
                lines = answer.aiter_lines()
                assert [await anext(lines) for _ in range(3)] == ["tick 0", "tick 1", "tick 2"]
            await echo.hung_up.wait()


@carriers
async def test_many_requests_run_at_a_time(kind: str, tmp_path: Path):
    async with carried(kind, tmp_path) as (_, client):
        sizes: list[int] = []

        async def one(size: int) -> None:
            sizes.append((await client.post("/echo/x", content=b"a" * size)).json()["bytes"])

        async with anyio.create_task_group() as tasks:
            for size in range(40):
                tasks.start_soon(one, size * 100)
        assert sorted(sizes) == [size * 100 for size in range(40)]


@carriers
async def test_a_refusal_comes_back_as_its_own_error(kind: str, tmp_path: Path):
    async with carried(kind, tmp_path) as (_, client):
        with pytest.raises(Conflict) as caught:
            await raise_for(await client.get("/refuse"))
        assert (caught.value.fact, caught.value.remedy) == ("it is taken", "take another")
        assert caught.value.details == {"offset": 3}
        assert (await client.get("/nowhere")).status_code == 404
        assert error_of(404, b"Not Found").code == "provider-refused"
