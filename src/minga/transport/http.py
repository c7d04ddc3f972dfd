"""HTTP and HTTPS: a server that is bound before it is announced, a client that believes one certificate.

| where       | scheme                                                            |
|-------------|-------------------------------------------------------------------|
| loopback    | plain http, or TLS                                                |
| elsewhere   | TLS only: a server without an identity and a client of plain http |
|             | are refused, never downgraded                                     |

Knows: sockets, timeouts and limits of connections. Does not know: routes, leases, bearer tokens' meaning. Rule: a peer
that sends its request too slowly is cut off; bodies are the app's to bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx

from minga.core.errors import InternalError, InvalidInput, PortInUse
from minga.transport.bulk import BulkClient
from minga.transport.memory import App
from minga.transport.sendfile import with_sendfile
from minga.transport.tls import TlsIdentity, pinned_context

HEADER_SECONDS = 10.0
"""A request's line and headers must arrive within this time."""

IDLE_SECONDS = 65
CONNECTIONS_MAX = 1024
HEADER_BYTES_MAX = 32 * 1024


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its base url (no trailing slash) and port."""

    url: str
    port: int


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or an address of the loopback network."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def serve(
    app: App, host: str, port: int, tls: TlsIdentity | None = None, header_seconds: float = HEADER_SECONDS
) -> AsyncIterator[Server]:
    """Serve `app` while the context is open; requests are answered once it is entered.

    Args:
        app: an ASGI app.
        host: address or name to listen on.
        port: 0 for any free one.
        tls: the identity; needed off loopback.
        header_seconds: how long a peer may take over a request's headers.

    Raises:
        PortInUse: the port is taken.
        InvalidInput: no TLS off loopback, or an address that is not this machine's.
    """
    if tls is None and not is_loopback(host):
        raise InvalidInput(f"{host} is not loopback and there is no TLS identity", "serve with TLS off loopback")
    listener = bind(host, port)
    port = listener.getsockname()[1]
    with contextlib.closing(listener):
        server = _uvicorn(app, tls, header_seconds)
        running = asyncio.ensure_future(server.serve(sockets=[listener]))
        started = asyncio.ensure_future(server.up.wait())
        try:
            await asyncio.wait((running, started), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                raise InternalError("the HTTP server did not start", "see whether its files can be read")
            scheme = "http" if tls is None else "https"
            yield Server(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", port)
        finally:
            started.cancel()
            server.should_exit = True
            # Cancelling uvicorn half-way leaves its sockets open; it is asked to exit, and given its second to do so.
            with anyio.CancelScope(shield=True):
                await running


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortInUse: the port is taken, or may not be used by this user.
        InvalidInput: `host` names no address of this machine, or the port is over 65,535.
    """
    if not 0 <= port < 65536:
        raise InvalidInput(f"port {port} is out of range", "use 0 … 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"cannot listen on {host}:{port}: {error}", "use an address of this machine") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is in use" if error.errno == errno.EADDRINUSE else "may not be used by this user"
            raise PortInUse(f"port {port} on {host} {why}", "choose another with --port, or 0 for any") from None
        raise InvalidInput(f"cannot listen on {host}:{port}: {error}", "use an address of this machine") from None
    return listener


def connect(
    url: str, tls_sha256: str | None = None, *, token: str | None = None, timeout_s: float = 10.0
) -> BulkClient:
    """A client of the API at `url`; no request is sent yet. Redirects and the environment's proxies are not followed.

    Args:
        url: the base url.
        tls_sha256: the fingerprint that the server's certificate must have; None: one that the system trusts.
        token: sent as a bearer token with each request, if given.
        timeout_s: of connecting and of each read and write.

    Raises:
        InvalidInput: not an http(s) url, or plain http off loopback.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{url[:80]!r} is not an http url", "write https://host:port")
    if parts.scheme == "http" and (tls_sha256 is not None or not is_loopback(parts.hostname)):
        raise InvalidInput(f"{url[:80]} is plain http off loopback", "only https is used off loopback")
    context = None
    if parts.scheme == "https":
        context = pinned_context(tls_sha256) if tls_sha256 else httpx.create_ssl_context(trust_env=False)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return BulkClient(url.rstrip("/"), context, timeout_s, headers=headers, trust_env=False)


def _uvicorn(app: App, tls: TlsIdentity | None, header_seconds: float) -> Any:
    import uvicorn

    quiet = logging.getLogger("uvicorn.error")
    quiet.setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        with_sendfile(app),
        http=_patient(header_seconds),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=1,
        limit_concurrency=CONNECTIONS_MAX,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        ssl_certfile=str(tls.certificate) if tls else None,
        ssl_keyfile=str(tls.key) if tls else None,
    )

    class Quiet(uvicorn.Server):
        """A server that leaves the process's signals to the program, and says when it is up."""

        up = asyncio.Event()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.up.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Quiet(config)


def _patient(seconds: float) -> Any:
    """uvicorn's protocol, which by itself waits for ever for a request's headers."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        """Closes the connection when headers take longer than `seconds`."""

        _headers_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            waiting = self.cycle is None or self.cycle.response_complete
            if not waiting:
                self._unwatch()
            elif self._headers_due is None:
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            self._headers_due = self.loop.call_later(seconds, self.transport.close)

        def _unwatch(self) -> None:
            if self._headers_due is not None:
                self._headers_due.cancel()
                self._headers_due = None

    return Patient
