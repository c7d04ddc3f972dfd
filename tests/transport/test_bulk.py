"""Large answers: by the kernel, by threads, by `httpx`; cut off, too long, too short, from the wrong server."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import SeededDice, SystemClock
from minga.core.errors import BadAnswer, NotFound
from minga.transport.bulk import Landing, fetch
from minga.transport.errors import error_body
from minga.transport.http import connect, serve
from minga.transport.memory import connect_memory
from minga.transport.sendfile import EXTENSION
from minga.transport.tls import create_identity

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SIZE = 9 << 20


def app_of(file: Path) -> Callable[..., Any]:
    """Serves `file` from the byte on that is asked for, with the kernel's help where there is any."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/file":
            status, body = error_body(NotFound("there is no such file", "ask for /file"))
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        found = dict(scope["headers"]).get(b"range")
        start = int(found[6:-1]) if found else 0
        headers = [(b"content-length", str(SIZE - start).encode())]
        await send({"type": "http.response.start", "status": 206 if found else 200, "headers": headers})
        with file.open("rb") as handle:
            if EXTENSION in scope.get("extensions", {}):
                await send({"type": EXTENSION, "file": handle, "offset": start, "count": SIZE - start})
            else:
                handle.seek(start)
                await send({"type": "http.response.body", "body": handle.read()})

    return app


DATA = SeededDice("a large answer").bytes(32) * (SIZE // 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@asynccontextmanager
async def carried(carrier: str, app: Any, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    if carrier == "memory":
        async with connect_memory(app) as client:
            yield client
        return
    tls = create_identity(tmp_path / "tls", SystemClock().now()) if carrier == "tls" else None
    async with (
        serve(app, "127.0.0.1", 0, tls) as server,
        connect(server.url, tls.sha256 if tls else None, timeout_s=5) as client,
    ):
        yield client


CARRIERS = ["http", "tls", "memory"]


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier_brings_the_same_bytes(carrier: str, file: Path, tmp_path: Path):
    async with carried(carrier, app_of(file), tmp_path) as client:
        for start in (0, 1, SIZE // 2, SIZE - 1, 0):
            landing = Landing(SIZE)
            landing.take(DATA[:start])
            await fetch(client, "/file", {}, landing)
            assert landing.data == DATA
        with pytest.raises(NotFound, match="no such file"):
            await fetch(client, "/other", {}, Landing(SIZE))
        assert (await client.get("/other")).status_code == 404


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_an_answer_longer_than_asked_for_is_refused(carrier: str, file: Path, tmp_path: Path):
    async with carried(carrier, app_of(file), tmp_path) as client:
        landing = Landing(SIZE - 1)
        with pytest.raises(BadAnswer):
            await fetch(client, "/file", {}, landing)
        assert not landing.is_whole


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_an_answer_from_another_place_is_refused(carrier: str, file: Path, tmp_path: Path):
    whole = app_of(file)

    async def ignores_range(scope: Any, receive: Any, send: Any) -> None:
        await whole({**scope, "headers": []}, receive, send)

    async with carried(carrier, ignores_range, tmp_path) as client:
        landing = Landing(SIZE)
        landing.take(b"x")
        with pytest.raises(BadAnswer):
            await fetch(client, "/file", {}, landing)
        assert landing.held == 1


async def test_a_cut_at_any_byte_keeps_what_came_and_goes_on_there(file: Path, tmp_path: Path):
    cuts = [0, 1, 5000, 70_000, 1 << 20, SIZE - 1]
    asked: list[int] = []

    async def serve_cut(client: anyio.abc.SocketStream) -> None:
        async with client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await client.receive()
            start = int(head.partition(b"bytes=")[2].partition(b"-")[0] or 0)
            asked.append(start)
            end = cuts[len(asked) - 1] if len(asked) <= len(cuts) else SIZE
            status = b"206" if start else b"200"
            await client.send(b"HTTP/1.1 " + status + b" x\r\ncontent-length: %d\r\n\r\n" % (SIZE - start))
            await client.send(DATA[start : max(start, end)])

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks, connect(f"http://127.0.0.1:{port}", timeout_s=5) as client:
        tasks.start_soon(listener.serve, serve_cut)
        landing = Landing(SIZE)
        tries = 0
        while not landing.is_whole:
            tries += 1
            try:
                await fetch(client, "/file", {}, landing)
            except httpx.HTTPError:
                assert landing.held == cuts[tries - 1]
        assert landing.data == DATA
        assert asked == [0, *cuts]
        tasks.cancel_scope.cancel()


async def test_a_file_that_shrank_closes_the_connection(file: Path, tmp_path: Path):
    async with carried("http", app_of(file), tmp_path) as client:
        os.truncate(file, SIZE // 2)
        landing = Landing(SIZE)
        with pytest.raises(httpx.HTTPError):
            await fetch(client, "/file", {}, landing)
        assert landing.held <= SIZE // 2


async def test_a_server_with_another_certificate_gets_no_request(file: Path, tmp_path: Path):
    asked = []
    app = app_of(file)

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await app(scope, receive, send)

    tls = create_identity(tmp_path / "tls", SystemClock().now())
    async with serve(noted, "127.0.0.1", 0, tls) as server, connect(server.url, "ab" * 32) as client:
        with pytest.raises((ssl.SSLError, httpx.HTTPError)):
            await fetch(client, "/file", {"authorization": "Bearer secret"}, Landing(SIZE))
    assert asked == []


async def test_a_fetch_that_is_cancelled_ends_its_thread(tmp_path: Path):
    hung_up = anyio.Event()

    async def silent(client: anyio.abc.SocketStream) -> None:
        async with client:
            try:
                while await client.receive():
                    pass
            except anyio.EndOfStream:
                hung_up.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks, connect(f"http://127.0.0.1:{port}", timeout_s=30) as client:
        tasks.start_soon(listener.serve, silent)
        with anyio.move_on_after(0.2) as scope:
            await fetch(client, "/file", {}, Landing(SIZE))
        assert scope.cancelled_caught
        with anyio.fail_after(10):
            await hung_up.wait()
        tasks.cancel_scope.cancel()


async def test_a_reader_that_leaves_does_not_disturb_others(file: Path, tmp_path: Path):
    async with carried("http", app_of(file), tmp_path) as client:
        for _ in range(3):
            async with client.stream("GET", "/file") as response:
                async for _piece in response.aiter_raw():
                    break
        landing = Landing(SIZE)
        await fetch(client, "/file", {}, landing)
        assert landing.data == DATA
