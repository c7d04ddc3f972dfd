"""A way to the ports of a running job: HTTP in, HTTP out, nothing understood.

The job listens on its own loopback; the runtime gives a unix socket that reaches it. The bearer token stays here, and
hop-by-hop headers do too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from minga.core.errors import Conflict, NotFound
from minga.provider.serving_basics import lease_of, whole_number

CONNECT_SECONDS, IDLE_SECONDS = 5.0, 300.0
_DROPPED = frozenset(
    ("authorization", "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer")
) | {"transfer-encoding", "upgrade"}


async def proxy(request: Request) -> Response:
    """One request to a port that the manifest names."""
    lease = lease_of(request)
    port = whole_number(request.path_params["port"], "port")
    if port not in lease.manifest.ports:
        raise NotFound(f"the manifest names no port {port}", "name it in the job's ports")
    transport = httpx.AsyncHTTPTransport(uds=lease.sandbox.port(port))
    client = httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(IDLE_SECONDS, connect=CONNECT_SECONDS))
    # As it was sent: decoding and encoding again could make another path of it.
    raw_path = b"/" + request.scope["raw_path"].split(b"/", 6)[6]
    url = httpx.URL("http://job", raw_path=raw_path + _query(request))
    try:
        sent = client.build_request(request.method, url, headers=_kept(request.headers.items()), content=_body(request))
        answer = await client.send(sent, stream=True)
    except (httpx.HTTPError, OSError) as error:
        await client.aclose()
        raise Conflict(
            f"port {port} of the job does not answer: {type(error).__name__}", "wait until the job listens there"
        ) from None

    async def done() -> None:
        await answer.aclose()
        await client.aclose()

    return StreamingResponse(
        answer.aiter_raw(), answer.status_code, dict(_kept(answer.headers.items())), background=BackgroundTask(done)
    )


def _query(request: Request) -> bytes:
    query: bytes = request.scope.get("query_string", b"")
    return b"?" + query if query else b""


def _kept(headers: object) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _DROPPED]  # type: ignore[attr-defined]


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk
