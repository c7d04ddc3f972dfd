"""The proxy: the list, the addresses, and everything that is not a proxy request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.runtimes import egress
from minga.runtimes.egress import EgressProxy, is_allowed, is_public

FORBIDDEN = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9", "168.63.129.16",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "localhost",
    "example.org", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", "1.2.3",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_special_addresses_are_never_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "151.101.0.223", "2606:4700::1111", "2a04:4e42::223"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@given(
    st.ip_addresses(network="10.0.0.0/8")
    | st.ip_addresses(network="169.254.0.0/16")
    | st.ip_addresses(network="fc00::/7")
)
def test_no_private_address_is_public(address: object) -> None:
    assert not is_public(str(address))
    if str(address).count(".") == 3:
        assert not is_public(f"::ffff:{address}")


def test_the_list_is_exact() -> None:
    allow = ("index.test", "*.example.org")
    for host in ("index.test", "Index.test", "index.test.", "a.example.org", "a.b.example.org"):
        assert is_allowed(host, allow)
    for host in (
        "index.test.evil.test",
        "xindex.test",
        "a.index.test",
        "example.org",
        "badexample.org",
        "",
        ".",
        "*.example.org.x",
    ):
        assert not is_allowed(host, allow)
    assert not is_allowed("index.test", ())


@pytest.mark.parametrize("entry", ["", "*", "http://a.org", "a.org/x", "a.org:80", "*.*.org", "A.org", "a b", "*."])
def test_an_entry_that_is_no_name_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(InvalidInput):
        EgressProxy(tmp_path / "p", (entry,))


def test_a_path_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        EgressProxy(tmp_path / ("p" * 100), ())


async def resolve(host: str, port: int) -> list[str]:
    """The names of this test's own world."""
    names = {"here.test": ["127.0.0.1"], "mixed.test": ["1.1.1.1", "127.0.0.1"], "meta.test": ["169.254.169.254"]}
    if host not in names:
        raise OSError("no such name")
    return names[host]


class World:
    """A proxy, and an echo server behind it on `port`."""

    def __init__(self, proxy: EgressProxy, path: Path, port: int) -> None:
        self.proxy, self.path, self.port = proxy, path, port

    async def ask(self, head: str) -> bytes:
        """Send a request and read what comes back until the end."""
        async with await anyio.connect_unix(self.path) as wire:
            await wire.send(head.replace("PORT", str(self.port)).encode())
            await wire.send_eof()
            return b"".join([data async for data in wire])


@asynccontextmanager
async def world(tmp_path: Path, public_only: bool) -> AsyncIterator[World]:
    async def echo(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(b"echo:" + data)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        allow = ("here.test", "mixed.test", "meta.test", "none.test", "127.0.0.1")
        permitted = is_public if public_only else lambda address: address == "127.0.0.1"
        async with EgressProxy(tmp_path / "p", allow, frozenset((port,)), resolve, permitted) as proxy:
            yield World(proxy, tmp_path / "p" / "proxy", port)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_tunnel_is_opaque_and_counted(tmp_path: Path) -> None:
    async with world(tmp_path, public_only=False) as here:
        answer = await here.ask("CONNECT here.test:PORT HTTP/1.1\r\nHost: x\r\n\r\nanything at all")
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\necho:anything at all"
        counts = here.proxy.counts
        assert (counts.opened, counts.refused, counts.bytes_out, counts.bytes_in) == (1, 0, 15, 20)


@pytest.mark.anyio
async def test_a_plain_request_is_passed_on_without_what_is_the_proxys(tmp_path: Path) -> None:
    async with world(tmp_path, public_only=False) as here:
        head = (
            "GET http://here.test:PORT/a?b=c HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: x\r\nAccept: y\r\n\r\n"
        )
        answer = (await here.ask(head)).decode()
        assert answer.startswith(f"echo:GET /a?b=c HTTP/1.1\r\nHost: here.test:{here.port}\r\n")
        assert "Accept: y" in answer
        assert "Connection: close" in answer
        assert "evil" not in answer
        assert "Proxy" not in answer


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("here.test:1", 403),
        ("elsewhere.test:PORT", 403),
        ("none.test:PORT", 502),
        ("here.test", 400),
        ("user@here.test:PORT", 400),
        ("here.test:PORT/path", 400),
        ("here.test:99999", 400),
        (":PORT", 400),
    ],
)
async def test_what_is_not_allowed_is_refused(tmp_path: Path, target: str, status: int) -> None:
    async with world(tmp_path, public_only=False) as here:
        answer = await here.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (here.proxy.counts.opened, here.proxy.counts.refused) == (0, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["here.test", "mixed.test", "meta.test", "127.0.0.1"])
async def test_an_allowed_name_with_a_special_address_is_refused(tmp_path: Path, host: str) -> None:
    async with world(tmp_path, public_only=True) as here:
        answer = await here.ask(f"CONNECT {host}:PORT HTTP/1.1\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 502"))
        assert here.proxy.counts.opened == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    "head",
    [
        "",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET https://here.test/ HTTP/1.1\r\n\r\n",
        "GET ftp://here.test/ HTTP/1.1\r\n\r\n",
        "CONNECT here.test:PORT HTTP/2\r\n\r\n",
        "CONNECT here.test:PORT\r\n\r\n",
        "é / x\r\n\r\n",
        "CONNECT [::1:PORT HTTP/1.1\r\n\r\n",
        "GET http://here.test:PORT/ HTTP/1.1\r\n" + "X: y\r\n" * 5000 + "\r\n",
    ],
    ids=range(10),
)
async def test_what_is_no_request_is_refused_and_the_proxy_lives(tmp_path: Path, head: str) -> None:
    async with world(tmp_path, public_only=False) as here:
        try:
            answer = await here.ask(head)
        except (anyio.BrokenResourceError, ConnectionError):
            answer = b""  # it hung up on a head that had no end
        assert not answer or answer.startswith(b"HTTP/1.1 400")
        assert here.proxy.counts.opened == 0
        assert b"echo:x" in await here.ask("CONNECT here.test:PORT HTTP/1.1\r\n\r\nx")


@pytest.mark.anyio
async def test_a_client_that_says_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "HEAD_SECONDS_MAX", 0.05)
    async with world(tmp_path, public_only=False) as here, await anyio.connect_unix(here.path) as wire:
        assert (await wire.receive()).startswith(b"HTTP/1.1 400")


@pytest.mark.anyio
async def test_the_end_of_the_proxy_ends_its_tunnels_and_its_socket(tmp_path: Path) -> None:
    async with world(tmp_path, public_only=False) as here:
        wire = await anyio.connect_unix(here.path)
        await wire.send(f"CONNECT here.test:{here.port} HTTP/1.1\r\n\r\n".encode())
        assert b"200" in await wire.receive()
    async with wire:
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await wire.receive()
    assert not here.path.exists()
