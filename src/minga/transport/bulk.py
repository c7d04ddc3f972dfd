"""Large answers straight into memory that waits for them: a thread reads the socket, the event loop is left alone.

`httpx` hands bytes over in small pieces, each through several layers; that is fine for messages, and for checkpoints a
third of a socket's speed. So a client of plain HTTP(S) fetches here with the standard library, over connections of
its own; any other carrier is asked through `httpx`. Both fill a `Landing`, which keeps what came before a cut, so
that the next try asks for the rest.

Does not know: what the bytes are; their hash is the caller's to check. Rule: never more bytes than were expected.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx

from minga.core.errors import BadAnswer
from minga.transport.errors import error_of, raise_for

THREADS = 4
REFUSAL_BYTES_MAX = 1 << 16


class Landing:
    """Room for `size` bytes, of which `held` are here."""

    def __init__(self, size: int) -> None:
        """Nothing is held yet."""
        self.data = bytearray(size)
        self.held = 0

    @property
    def is_whole(self) -> bool:
        """Whether every byte is here."""
        return self.held == len(self.data)

    def room(self) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self.data)[self.held :]

    def take(self, piece: bytes) -> None:
        """Add bytes that came by another way.

        Raises:
            BadAnswer: more than there is room for.
        """
        if len(piece) > len(self.data) - self.held:
            raise BadAnswer("an answer is longer than what was asked for", "it is fetched elsewhere")
        self.room()[: len(piece)] = piece
        self.held += len(piece)


class BulkClient(httpx.AsyncClient):
    """An `httpx` client that also fetches in bulk, from the same server by the same rules of trust."""

    def __init__(self, url: str, context: ssl.SSLContext | None, timeout_s: float, **options: Any) -> None:
        """`context` is None for plain http; `options` are `httpx.AsyncClient`'s."""
        super().__init__(base_url=url, verify=context or False, timeout=timeout_s, **options)
        self._parts = urlsplit(url)
        self._context = context
        self._timeout_s = timeout_s
        self._idle: list[http.client.HTTPConnection] = []
        self._threads = anyio.CapacityLimiter(THREADS)

    async def fetch(self, path: str, headers: dict[str, str], landing: Landing) -> None:
        """As the function `fetch`, in a thread; being cancelled cuts the connection, which ends the thread."""
        request = self.build_request("GET", path, headers=headers)
        connection = self._connection()
        try:
            await anyio.to_thread.run_sync(
                _read, connection, request, landing, abandon_on_cancel=True, limiter=self._threads
            )
        except (http.client.HTTPException, ValueError, AttributeError) as error:
            raise httpx.ReadError(str(error) or type(error).__name__) from None
        except TimeoutError:
            raise httpx.ReadTimeout("no bytes came in time") from None
        finally:
            if landing.is_whole:
                self._idle.append(connection)
            else:
                _cut(connection)

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        while self._idle:
            self._idle.pop().close()
        await super().aclose()

    def _connection(self) -> http.client.HTTPConnection:
        while self._idle:
            kept = self._idle.pop()
            if kept.sock is not None and not select.select([kept.sock], [], [], 0)[0]:
                return kept
            kept.close()  # the server has closed it, or says what nobody asked for
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)


async def fetch(client: httpx.AsyncClient, path: str, headers: dict[str, str], landing: Landing) -> None:
    """GET `path` and add what comes to `landing`, from the byte on that is lacking; whole when it returns.

    Args:
        client: how the server is reached.
        path: below the client's base url.
        headers: such as the token; `Range` is added here.
        landing: keeps what came, also when this raises.

    Raises:
        MingaError: the refusal of the server.
        BadAnswer: more bytes than asked for, or an answer that starts elsewhere.
        httpx.HTTPError, OSError: the connection broke, or nothing came for the client's timeout.
    """
    if landing.held:
        headers = {**headers, "range": f"bytes={landing.held}-"}
    if isinstance(client, BulkClient):
        await client.fetch(path, headers, landing)
    else:
        async with client.stream("GET", path, headers={**headers, "accept-encoding": "identity"}) as response:
            await raise_for(response)
            _check_start(response.status_code, landing)
            async for piece in response.aiter_raw():
                landing.take(piece)
    if not landing.is_whole:
        raise httpx.ReadError(f"the answer ended at byte {landing.held} of {len(landing.data)}")


def _read(connection: http.client.HTTPConnection, request: httpx.Request, landing: Landing) -> None:
    try:
        headers = {**request.headers, "accept-encoding": "identity"}
        connection.request("GET", request.url.raw_path.decode(), headers=headers)
        response = connection.getresponse()
        if response.status >= 400:
            raise error_of(response.status, response.read(REFUSAL_BYTES_MAX))
        _check_start(response.status, landing)
        if response.length is None or response.length > len(landing.data) - landing.held:
            raise BadAnswer("an answer is longer than what was asked for", "it is fetched elsewhere")
        while count := response.readinto(landing.room()):
            landing.held += count
    finally:
        if not landing.is_whole:
            connection.close()


def _check_start(status: int, landing: Landing) -> None:
    if status != (206 if landing.held else 200):
        raise BadAnswer(f"HTTP {status} is no answer to what was asked", "it is fetched elsewhere")


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a connection under the thread that reads from it, which then closes it: a number that is closed here could
    be another connection's by the time that the thread looks.
    """
    if (sock := connection.sock) is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
