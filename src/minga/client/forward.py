"""A port of a running job on this machine's loopback: whatever speaks HTTP reaches it, and follows it when it moves.

Each request is handed to the provider that runs the job now, through the provider's API and with a login of its own,
and the answer is streamed back. When the job goes on at another provider, the next request goes there. A request that
was under way is not repeated: what it had done nobody knows here.

Knows: the job's journal, one port. Does not know: what is said. Rule: only what the session signer may reach is
reached, and nothing of the caller's own `Authorization` leaves this machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from minga.client.login import login_request
from minga.client.provider_api import Connect, ProviderApi
from minga.client.reader import JobReader
from minga.core.effects import Clock, Dice
from minga.core.eip712 import Domain
from minga.core.errors import Conflict, MingaError, NotFound, ProviderUnreachable, Unauthorized
from minga.protocol.wire import OfferBundle
from minga.transport.errors import error_body
from minga.transport.http import serve

TIMEOUT_S = 300.0
"""Of silence within an answer: a model may think for a while before its first word."""
CONNECT_S = 5.0
REFUSAL = b'{"error": {"code": "unauthorized"'
"""How a provider's own refusal begins; any other 401 is the job's, and goes through."""
HOP_BY_HOP = frozenset(
    ("authorization", "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer")
) | {"transfer-encoding", "upgrade"}
"""Headers that end here (RFC 9110, section 7.6.1), and the caller's credentials."""


class Forwarder:
    """An ASGI app that hands requests to one port of one job."""

    def __init__(
        self, reader: JobReader, port: int, domain: Domain, *, connect: Connect, clock: Clock, dice: Dice
    ) -> None:
        """Nothing is sent yet.

        Raises:
            NotFound: the job names no such port.
        """
        ports = reader.order.task["ports"]
        if port not in ports:
            named = ", ".join(map(str, ports)) or "none"
            raise NotFound(f"the job names no port {port}; its ports: {named}", "name it in `resources.ports`")
        self._reader, self._port, self._domain = reader, port, domain
        self._connect, self._clock, self._dice = connect, clock, dice
        self._api: ProviderApi | None = None
        self._login = anyio.Lock()

    async def __call__(self, scope: dict[str, object], receive: object, send: object) -> None:
        """ASGI; only HTTP is forwarded."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)  # type: ignore[arg-type]
        try:
            response = await self._answer(request)
        except MingaError as error:
            status, body = error_body(error)
            response = Response(body, status, {"content-type": "application/json"})
        await response(scope, receive, send)  # type: ignore[arg-type]

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        if self._api is not None:
            await self._api.aclose()

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        try:
            return await self._hand_on(request, body)
        except Unauthorized:  # the token ran out, or the provider began anew
            if self._api is not None:
                self._api.token = None
            return await self._hand_on(request, body)

    async def _hand_on(self, request: Request, body: bytes) -> Response:
        answer = await self._send(request, body, await self._provider())
        headers = dict(_kept(answer.headers))
        if answer.status_code != Unauthorized.http_status:
            return StreamingResponse(
                answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose)
            )
        try:
            content = b"".join([piece async for piece in answer.aiter_raw()])
        finally:
            await answer.aclose()
        if REFUSAL in content:
            raise Unauthorized("the provider refused the login", "try again")
        return Response(content, answer.status_code, headers)

    async def _send(self, request: Request, body: bytes, api: ProviderApi) -> httpx.Response:
        raw: bytes = request.scope["raw_path"]
        query: bytes = request.scope["query_string"]
        path = f"/v1/leases/{api.channel}/ports/{self._port}".encode() + raw + (b"?" + query if query else b"")
        url = api.http.base_url.copy_with(raw_path=path)
        headers = [*_kept(request.headers), ("authorization", f"Bearer {api.token}")]
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        sent = api.http.build_request(request.method, url, headers=headers, content=body, timeout=timeout)
        try:
            answer = await api.http.send(sent, stream=True)
        except httpx.HTTPError as error:
            await self._forget()
            fact = f"the provider of {self._reader.order.name!r} does not answer: {type(error).__name__}"
            raise ProviderUnreachable(fact, "try again: if it stays away, the job moves") from None
        return answer

    async def _provider(self) -> ProviderApi:
        """The API of whoever runs the job now, logged in.

        Raises:
            Conflict: it does not run now; trying again may help until it ended.
        """
        async with self._login:
            state = await anyio.to_thread.run_sync(self._reader.refresh)
            lease = state.lease
            if state.phase != "running" or lease is None:
                remedy = "look at `minga logs`" if state.terminal else "try again when it runs: `minga jobs`"
                raise Conflict(f"the job is {state.phase}", remedy, retry=not state.terminal)
            if self._api is None or self._api.channel != lease.channel:
                await self._forget()
                bundle = OfferBundle.parse(lease.bundle)
                self._api = ProviderApi(self._connect(bundle.url, bundle.terms.tls_sha256), lease.channel)
            if self._api.token is None:
                wallet, job = self._reader.folder.wallet(), self._reader.job
                await self._api.login(
                    login_request(
                        self._domain, wallet, job, lease.attempt, lease.channel, lease.deal, self._clock, self._dice
                    )
                )
            return self._api

    async def _forget(self) -> None:
        if self._api is not None:
            await self._api.aclose()
            self._api = None


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP]


@asynccontextmanager
async def forwarded(forwarder: Forwarder, listen: int = 0) -> AsyncIterator[str]:
    """The url at which the port is reached while the context is open; `listen` 0 takes any free port.

    Raises:
        PortInUse: the port is taken.
    """
    try:
        async with serve(forwarder, "127.0.0.1", listen) as server:  # type: ignore[arg-type]
            yield server.url
    finally:
        await forwarder.aclose()
