"""The provider's HTTP API as an ASGI app: the routes of `protocol.wire`, and one way to refuse.

Knows: which handler answers what. Does not know: sockets, TLS, who carries the requests. Rule: whatever goes wrong,
the answer is one JSON error with code, fact and remedy; a traceback stays here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minga.core.errors import InternalError, InvalidInput, MingaError, NotFound
from minga.core.spec import Manifest
from minga.protocol import wire
from minga.provider import (
    serving_audits,
    serving_blobs,
    serving_leases,
    serving_ports,
    serving_probes,
    serving_streams,
)
from minga.provider.desk import Desk
from minga.provider.openapi import Described, describe
from minga.provider.serving_basics import answer, refusal

Handler = Callable[[Request], Awaitable[Response]]
_LEASE = "/v1/leases/{lease}"
_AUDIT = "/v1/audits/{lease}"
_BYTES = "application/octet-stream"

ROUTES: tuple[tuple[Described, Handler], ...] = (
    (Described("GET", "/v1/health", "Whether the provider lives", is_public=True), serving_leases.health),
    (Described("GET", "/v1/offers", "Offers that can be taken now", is_public=True), serving_leases.offers),
    (
        Described("POST", f"{_LEASE}/login", "A token for the session signer", wire.LoginRequest, is_public=True),
        serving_leases.login,
    ),
    (Described("GET", _LEASE, "Where the lease stands", None, wire.LeaseStatus), serving_leases.status),
    (
        Described("PUT", f"{_LEASE}/manifest", "What to run", Manifest, wire.LeaseStatus),
        serving_leases.put_manifest,
    ),
    (
        Described("PUT", f"{_LEASE}/order", "Which work is to be verified", wire.WorkOrder, wire.LeaseStatus),
        serving_leases.put_order,
    ),
    (Described("HEAD", f"{_LEASE}/blobs/{{blake3}}", "Bytes held of a blob"), serving_blobs.head_blob),
    (Described("PUT", f"{_LEASE}/blobs/{{blake3}}", "The next piece of an input", _BYTES), serving_blobs.put_blob),
    (Described("GET", f"{_LEASE}/blobs/{{blake3}}", "A file of the job", None, _BYTES), serving_blobs.get_blob),
    (
        Described("POST", f"{_LEASE}/probe", "Measure what was sold", wire.ProbeRequest, wire.ProbeAnswer),
        serving_probes.probe,
    ),
    (
        Described(
            "GET", f"{_LEASE}/chunks", "Several files of the job, `?names=A,B`, one after the other", None, _BYTES
        ),
        serving_blobs.get_chunks,
    ),
    (Described("POST", f"{_LEASE}/start", "Start the job", None, wire.LeaseStatus), serving_leases.start),
    (
        Described("POST", f"{_LEASE}/vouchers", "Pay", wire.VoucherRequest, wire.VoucherReceipt),
        serving_leases.voucher,
    ),
    (Described("GET", f"{_LEASE}/events", "Events as they come", None, "text/event-stream"), serving_streams.events),
    (Described("GET", f"{_LEASE}/logs", "The job's output", None, _BYTES), serving_streams.logs),
    (
        Described("GET", f"{_LEASE}/artifacts", "What the job left", None, wire.ArtifactList),
        serving_leases.artifacts,
    ),
    (Described("POST", f"{_LEASE}/stop", "End the job", wire.StopRequest, wire.LeaseStatus), serving_leases.stop),
    (Described("POST", f"{_LEASE}/close", "Close the lease on chain", None, wire.LeaseStatus), serving_leases.close),
    (
        Described("POST", f"{_AUDIT}/login", "A token for who may check the work", wire.AuditLogin, is_public=True),
        serving_audits.login,
    ),
    (Described("GET", _AUDIT, "What was ordered and committed to", None, wire.AuditedLease), serving_audits.audit),
    (
        Described("GET", f"{_AUDIT}/blobs/{{blake3}}", "An input or a file of the trace", None, _BYTES),
        serving_audits.get_blob,
    ),
)
"""Every route but the port proxy, which takes any method."""

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def build_app(desk: Desk) -> Starlette:
    """The app that answers for `desk`."""

    async def openapi(request: Request) -> Response:
        return answer(describe(described for described, _ in ROUTES))

    routes = [Route(described.path, handler, methods=[described.method]) for described, handler in ROUTES]
    routes.append(Route("/v1/openapi.json", openapi, methods=["GET"]))
    routes.append(Route(f"{_LEASE}/ports/{{port}}/{{path:path}}", serving_ports.proxy, methods=_METHODS))
    app = Starlette(
        routes=routes,
        exception_handlers={MingaError: _refused, HTTPException: _no_route, Exception: _defect},
    )
    app.router.redirect_slashes = False
    app.state.desk = desk
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, MingaError)
    return refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = NotFound if error.status_code == 404 else InvalidInput
    response = refusal(kind(f"there is no {request.method} {request.url.path[:100]}", "see /v1/openapi.json"))
    response.status_code = error.status_code
    return response


async def _defect(request: Request, error: Exception) -> Response:
    return refusal(InternalError(f"the provider met a defect: {type(error).__name__}", "tell its maintainers"))
