"""The only way out of a sandbox: an HTTP proxy on a unix socket that connects to hosts on a list, and to nothing else.

It knows names and addresses, not what is fetched: `CONNECT` tunnels are opaque, plain `http://` requests are passed
on one per connection. Every name is resolved here, once, and the address that was checked is the one connected to,
so that a name cannot mean something else a moment later. Rule: private, loopback, link-local, metadata and other
special addresses are never reached, whatever the list says.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from minga.core.errors import InvalidInput
from minga.runtimes.relay import EGRESS_SOCKET

CONNECTIONS_MAX = 64
HEAD_BYTES_MAX = 16 << 10
HEAD_SECONDS_MAX = 15.0
CONNECT_SECONDS_MAX = 20.0
IDLE_SECONDS_MAX = 600.0
PORTS = frozenset((80, 443))
_CHUNK_BYTES = 1 << 16

_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's metadata and DNS: a public address by its looks
            "192.0.0.0/24",  # Oracle's metadata among protocol assignments
            "192.88.99.0/24",  # 6to4 relays
            "fec0::/10",  # what site-local addresses were
            "64:ff9b::/96",  # IPv4 inside IPv6: NAT64, 6to4, Teredo
            "64:ff9b:1::/48",
            "2002::/16",
            "2001::/32",
        ),
    )
)

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass
class Counts:
    """What went through: connections opened, refused, and bytes out of and into the sandbox."""

    opened: int = 0
    refused: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


def is_public(address: str) -> bool:
    """Whether an IP address is one that a stranger's job may reach: global unicast, and no way round to another."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in _NEVER if net.version == ip.version)


def is_allowed(host: str, allow: tuple[str, ...]) -> bool:
    """Whether `host` is on the list: exactly, or beneath an entry `*.domain`; case and a final dot do not count."""
    name = host.lower().rstrip(".")
    return any(name == entry or (entry.startswith("*.") and name.endswith(entry[1:])) for entry in allow)


class EgressProxy:
    """`async with EgressProxy(folder, allow)`: serves on a unix socket in `folder` until the block ends.

    `folder` is made when missing, is a task's `egress`, and stays: a new proxy in it serves the tasks of the last one.
    What holds it must be the caller's alone: who comes to the folder may use the proxy. `allow` are host names
    (`a.example.org`, `*.example.com`), `ports` what may be reached there. `resolve` and `permitted` are for tests.

    Raises:
        InvalidInput: an entry of `allow` is not a host name, or the path is too long for a socket.
    """

    def __init__(
        self,
        folder: Path,
        allow: tuple[str, ...],
        ports: frozenset[int] = PORTS,
        resolve: Resolve | None = None,
        permitted: Callable[[str], bool] = is_public,
    ) -> None:
        path = folder / EGRESS_SOCKET
        if len(os.fsencode(path)) > 107:
            raise InvalidInput(f"{folder} is too long for a unix socket", "use a shorter folder")
        for entry in allow:
            if not entry.removeprefix("*.").replace("-", "").replace(".", "").isalnum() or entry != entry.lower():
                raise InvalidInput(f"{entry!r} is not a host name", "write it as example.org or *.example.org")
        self.counts = Counts()
        self._path, self._allow, self._ports = path, allow, ports
        self._resolve = resolve or _resolve
        self._permitted = permitted
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._path.parent.mkdir(exist_ok=True)
        # The relay comes here under the task's uid, through a folder that root opened for it.
        self._path.parent.chmod(0o711)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._on_connection, path=self._path, limit=HEAD_BYTES_MAX)
        self._path.chmod(0o666)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            async with self._free:
                await self._serve(reader, writer)
        except _Refused as refusal:
            self.counts.refused += 1
            body = f"{refusal}\n"
            head = f"HTTP/1.1 {refusal.status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError, TimeoutError):
            raise _Refused("400 Bad Request", "not an HTTP request head within its limits") from None
        host, port, forward = _parse(head)
        address = await self._checked_address(host, port)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                far_reader, far_writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            raise _Refused("502 Bad Gateway", f"{host}:{port} cannot be reached") from None
        self.counts.opened += 1
        try:
            if forward:
                far_writer.write(forward)
                self.counts.bytes_out += len(forward)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far_writer, "bytes_out"))
                both.create_task(self._copy(far_reader, writer, "bytes_in"))
        except* (OSError, TimeoutError):
            pass
        finally:
            far_writer.close()

    async def _checked_address(self, host: str, port: int) -> str:
        if port not in self._ports:
            raise _Refused("403 Forbidden", f"port {port} is not allowed")
        if not is_allowed(host, self._allow):
            raise _Refused("403 Forbidden", f"{host} is not on the list of allowed hosts")
        try:
            addresses = await self._resolve(host, port)
        except OSError:
            raise _Refused("502 Bad Gateway", f"{host} has no address") from None
        # One forbidden address refuses the name: a mixed answer is an attack or a mistake, never a need.
        if not addresses or not all(map(self._permitted, addresses)):
            raise _Refused("403 Forbidden", f"{host} has an address that jobs may not reach")
        return addresses[0]

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: str) -> None:
        while True:
            async with asyncio.timeout(IDLE_SECONDS_MAX):
                data = await reader.read(_CHUNK_BYTES)
            if not data:
                break
            setattr(self.counts, count, getattr(self.counts, count) + len(data))
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class _Refused(Exception):
    def __init__(self, status: str, fact: str) -> None:
        super().__init__(fact)
        self.status = status


def _parse(head: bytes) -> tuple[str, int, bytes]:
    """(host, port, bytes to send on) of a request head; nothing to send on for CONNECT."""
    try:
        first, *lines = head[:-4].decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
        if version not in ("HTTP/1.0", "HTTP/1.1") or not method.isalpha():
            raise ValueError
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = url.hostname, url.port
        if not host or url.username is not None or (method != "CONNECT" and url.scheme != "http"):
            raise ValueError
        if method == "CONNECT" and (port is None or url.path):
            raise ValueError
    except ValueError:
        raise _Refused("400 Bad Request", "send CONNECT host:port, or a request for an http:// address") from None
    if method == "CONNECT":
        return host, port or 0, b""
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    # One request a connection: a second one on it could name another host unseen.
    kept = [line for line in lines if line.partition(":")[0].strip().lower() not in _HOP_BY_HOP]
    text = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {url.netloc}", *kept, "Connection: close", "", ""])
    return host, port or 80, text.encode("ascii")


_HOP_BY_HOP = frozenset(("host", "connection", "proxy-connection", "proxy-authorization", "keep-alive", "upgrade"))


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
