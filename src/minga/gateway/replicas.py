"""How a replica is reached: through the door of a running job, or at a url on this machine or with TLS.

Knows: how bytes travel. Does not know: what they say. Rule: whatever goes wrong on the way is one of our errors, so
that the relay can tell a replica's fault from the client's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import httpx

from minga.client.door import CONNECT_S, SILENCE_S, Door
from minga.core.errors import ProviderUnreachable
from minga.transport.http import connect

HEADERS = [("content-type", "application/json"), ("accept-encoding", "identity")]


class Replica(Protocol):
    """One server of a model."""

    name: str

    def ask(self, method: str, path: str, body: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        """The answer to a request, as a context; its body is read as it comes.

        Raises:
            ProviderUnreachable, Conflict, Unauthorized: on entering, when there is no answer.
        """
        ...

    async def aclose(self) -> None:
        """Close connections; idempotent."""
        ...


class JobReplica:
    """A replica that runs as a job."""

    def __init__(self, name: str, door: Door) -> None:
        """`name` is for metrics; the door is closed with the replica."""
        self.name, self._door = name, door

    @asynccontextmanager
    async def ask(self, method: str, path: str, body: bytes) -> AsyncIterator[httpx.Response]:
        """See `Replica`."""
        answer = await self._door.send(method, path.encode(), HEADERS, body)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def aclose(self) -> None:
        """See `Replica`."""
        await self._door.aclose()


class UrlReplica:
    """A replica at a base url, such as an engine on this machine."""

    def __init__(self, url: str, name: str = "") -> None:
        """Nothing is sent yet.

        Raises:
            InvalidInput: not an http(s) url, or plain http off loopback.
        """
        self.name = name or url
        self._http = connect(url)

    @asynccontextmanager
    async def ask(self, method: str, path: str, body: bytes) -> AsyncIterator[httpx.Response]:
        """See `Replica`."""
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        request = self._http.build_request(method, path, headers=HEADERS, content=body, timeout=timeout)
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            fact = f"the replica {self.name} does not answer: {type(error).__name__}"
            raise ProviderUnreachable(fact, "is it running?") from None
        try:
            yield answer
        finally:
            await answer.aclose()

    async def aclose(self) -> None:
        """See `Replica`."""
        await self._http.aclose()
