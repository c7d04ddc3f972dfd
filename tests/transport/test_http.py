"""The HTTP carrier's own promises: ports, TLS off loopback, pinned certificates, patience."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import time
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from minga.core.errors import InvalidInput, NetworkError, PortInUse
from minga.transport.errors import network_error
from minga.transport.http import connect, is_loopback, serve
from minga.transport.tls import create_identity

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def test_a_taken_port_is_one_error_with_a_remedy():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port}") as caught:
            async with serve(APP, "127.0.0.1", port):
                pass
        assert "--port" in caught.value.remedy


async def test_the_port_is_free_again_after_the_server():
    async with serve(APP, "127.0.0.1", 0) as first:
        port = first.port
    async with serve(APP, "127.0.0.1", port) as second, connect(second.url) as client:
        assert (await client.get("/")).text == "hello"


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1"])
async def test_an_address_that_is_not_ours_is_refused(host: str, tmp_path: Path):
    with pytest.raises(InvalidInput):
        async with serve(APP, host, 0, create_identity(tmp_path, 0)):
            pass


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
async def test_a_port_out_of_range_is_refused(port: int):
    with pytest.raises(InvalidInput):
        async with serve(APP, "127.0.0.1", port):
            pass


async def test_off_loopback_nothing_is_served_or_asked_without_tls():
    with pytest.raises(InvalidInput, match="TLS"):
        async with serve(APP, "0.0.0.0", 0):
            pass
    for url in ("http://192.0.2.1:80", "http://example.org", "ftp://127.0.0.1", "127.0.0.1:80", "http://"):
        with pytest.raises(InvalidInput):
            connect(url)
    with pytest.raises(InvalidInput):
        connect("http://127.0.0.1:1", "00" * 32)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("10.0.0.1", False), ("example.org", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_what_loopback_is(host: str, loopback: bool):
    assert is_loopback(host) == loopback


async def test_another_certificate_is_refused_before_a_byte_is_sent(tmp_path: Path):
    ours, theirs = create_identity(tmp_path / "a", int(time.time())), create_identity(tmp_path / "b", int(time.time()))
    seen: list[str] = []

    async def watch(request: Request) -> PlainTextResponse:
        seen.append(request.headers["authorization"])
        return PlainTextResponse("")

    async with serve(Starlette(routes=[Route("/", watch)]), "127.0.0.1", 0, theirs) as server:
        async with connect(server.url, ours.sha256, token="t") as client:
            with pytest.raises(httpx.ConnectError, match="not the one in the signed terms") as caught:
                await client.get("/")
        assert isinstance(network_error(caught.value, server.url), NetworkError)
        async with connect(server.url, token="t") as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/")
        assert seen == []
        async with connect(server.url, theirs.sha256, token="t") as client:
            await client.get("/")
        assert seen == ["Bearer t"]


def test_an_identity_stays_and_its_key_is_private(tmp_path: Path):
    first = create_identity(tmp_path, 1_700_000_000)
    assert create_identity(tmp_path, 1_800_000_000) == first
    assert len(first.sha256) == 64
    for path in (first.key, first.certificate):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(first.certificate, first.key)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_peer_that_dawdles_over_its_headers_is_cut_off(sent: bytes):
    async with serve(APP, "127.0.0.1", 0, header_seconds=0.2) as server:
        stream = await anyio.connect_tcp("127.0.0.1", server.port)
        async with stream:
            await stream.send(sent)
            with anyio.fail_after(5):
                assert [chunk async for chunk in stream] == []


async def test_a_slow_answer_is_not_cut_off_and_a_connection_is_used_again():
    async def slow(request: Request) -> PlainTextResponse:
        await anyio.sleep(0.5)
        return PlainTextResponse("late")

    app = Starlette(routes=[Route("/", slow)])
    async with serve(app, "127.0.0.1", 0, header_seconds=0.2) as server, connect(server.url) as client:
        for _ in range(2):
            assert (await client.get("/")).text == "late"


async def test_garbage_is_answered_with_400():
    async with serve(APP, "127.0.0.1", 0) as server:
        stream = await anyio.connect_tcp("127.0.0.1", server.port)
        async with stream:
            await stream.send(b"\x00\x01 garbage\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 400")


async def test_an_error_of_the_caller_comes_out_as_it_is():
    with pytest.raises(NetworkError, match="mine"):
        async with serve(APP, "127.0.0.1", 0):
            raise NetworkError("mine")


async def test_leaving_the_server_ends_open_streams_in_time():
    from starlette.responses import StreamingResponse

    async def for_ever(request: Request) -> StreamingResponse:
        async def body():
            while True:
                yield b"x"
                await anyio.sleep(0.05)

        return StreamingResponse(body())

    with anyio.fail_after(10):
        async with serve(Starlette(routes=[Route("/", for_ever)]), "127.0.0.1", 0) as server:
            client = connect(server.url)
            answer = await client.send(client.build_request("GET", "/"), stream=True)
            assert await anext(answer.aiter_bytes())
        await answer.aclose()
        await client.aclose()
