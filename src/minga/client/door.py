"""The way to one port of one running job, wherever it runs: requests in, streamed answers out.

Each request is handed to the provider that runs the job now, through the provider's API and with a login of its own.
When the job goes on at another provider, the next request goes there. A request that was under way is not repeated:
what it had done nobody knows here.

Knows: the job's journal, one port. Does not know: what is said. Rule: only what the session signer may reach, is.
"""

from __future__ import annotations

import anyio
import httpx

from minga.client.login import login_request
from minga.client.provider_api import Connect, ProviderApi
from minga.client.reader import JobReader
from minga.core.effects import Clock, Dice
from minga.core.eip712 import Domain
from minga.core.errors import Conflict, NotFound, ProviderUnreachable, Unauthorized
from minga.protocol.wire import OfferBundle

SILENCE_S = 300.0
"""Within an answer: a model may think for a while before its first word."""
CONNECT_S = 5.0
REFUSAL = b'{"error": {"code": "unauthorized"'
"""How a provider's own refusal begins; any other 401 is the job's, and goes through."""

Headers = list[tuple[str, str]]


class Door:
    """See the module. Close it by `aclose`."""

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

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._forget()

    async def send(self, method: str, path: bytes, headers: Headers, body: bytes) -> httpx.Response:
        """The answer to one request, its body still unread; close it.

        Args:
            method: of HTTP.
            path: raw path and query as the job should see them, from the slash on.
            headers: without credentials and without those of the connection.
            body: the whole of it.

        Raises:
            Conflict: the job does not run now; `details["retry"]` says whether it may later.
            ProviderUnreachable: no answer.
            Unauthorized: the provider refuses the login.
        """
        answer = await self._try(method, path, headers, body)
        if answer.status_code != Unauthorized.http_status or not await _is_refusal(answer):
            return answer
        if self._api is not None:  # the token ran out, or the provider began anew
            self._api.token = None
        answer = await self._try(method, path, headers, body)
        if answer.status_code == Unauthorized.http_status and await _is_refusal(answer):
            raise Unauthorized("the provider refuses the login", "try again")
        return answer

    async def _try(self, method: str, path: bytes, headers: Headers, body: bytes) -> httpx.Response:
        api = await self._provider()
        raw = f"/v1/leases/{api.channel}/ports/{self._port}".encode() + path
        told = [*headers, ("authorization", f"Bearer {api.token}")]
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        url = api.http.base_url.copy_with(raw_path=raw)
        sent = api.http.build_request(method, url, headers=told, content=body, timeout=timeout)
        try:
            return await api.http.send(sent, stream=True)
        except httpx.HTTPError as error:
            await self._forget()
            fact = f"the provider of {self._reader.order.name!r} does not answer: {type(error).__name__}"
            raise ProviderUnreachable(fact, "try again: if it stays away, the job moves") from None

    async def _provider(self) -> ProviderApi:
        """The API of whoever runs the job now, logged in."""
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


async def _is_refusal(answer: httpx.Response) -> bool:
    """Whether a 401 is the provider's own; its (short) body is read then, and stays readable."""
    await answer.aread()
    return answer.content.startswith(REFUSAL)
