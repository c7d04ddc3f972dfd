"""Routes with JSON in and out: offers, login, manifest, start, vouchers, stop, close, artifacts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from minga import __version__
from minga.core.errors import Conflict
from minga.core.spec import FileEntry, Manifest
from minga.protocol.lease import Why
from minga.protocol.wire import ArtifactList, LoginRequest, StopRequest, VoucherReceipt, VoucherRequest, WorkOrder
from minga.provider import events as ev
from minga.provider.agent import ALIVE, WAITING
from minga.provider.serving_basics import answer, body_of, desk_of, lease_of, parsed


async def health(request: Request) -> Response:
    """Whether the provider lives, and its clock."""
    world = desk_of(request).world
    now = world.clock.now()
    return answer({"ok": True, "version": __version__, "provider": world.provider, "time": now})


async def offers(request: Request) -> Response:
    """The offers that can be taken now."""
    return answer({"offers": [bundle.plain() for bundle in desk_of(request).offers]})


async def login(request: Request) -> Response:
    """A token for the lease's session signer."""
    message = await parsed(request, LoginRequest)
    token, expires_at = await desk_of(request).login(request.path_params["lease"].lower(), message)
    return answer({"token": token, "expires_at": expires_at})


async def status(request: Request) -> Response:
    """Where the lease stands."""
    return answer(desk_of(request).status(lease_of(request)))


async def put_manifest(request: Request) -> Response:
    """What to run; the same one again changes nothing."""
    lease, desk = lease_of(request), desk_of(request)
    await desk.set_manifest(lease, await parsed(request, Manifest))
    return answer(desk.status(lease))


async def put_order(request: Request) -> Response:
    """Which work is to be verified; the same order again changes nothing."""
    lease, desk = lease_of(request), desk_of(request)
    await desk.set_order(lease, await parsed(request, WorkOrder))
    return answer(desk.status(lease))


async def start(request: Request) -> Response:
    """Start the job; again changes nothing."""
    lease, desk = lease_of(request), desk_of(request)
    await body_of(request, 1024)
    await desk.start(lease)
    return answer(desk.status(lease))


async def voucher(request: Request) -> Response:
    """Store a voucher; the answer comes after it is on disk."""
    lease = lease_of(request)
    held = await desk_of(request).take_voucher(lease, await parsed(request, VoucherRequest))
    return answer(VoucherReceipt(accepted=str(held)))


async def stop(request: Request) -> Response:
    """Ask the job to end; again, or after its end, changes nothing."""
    lease, desk = lease_of(request), desk_of(request)
    data = await body_of(request)
    wanted = StopRequest.parse(data) if data else StopRequest()
    if lease.state.phase in (ALIVE - {"stopping"}) | WAITING:
        grace_s = wanted.grace_s if wanted.grace_s is not None else int((lease.state.manifest or {}).get("grace_s", 0))
        await lease.apply(ev.StopAsked("tenant", wanted.reason, grace_s))
    return answer(desk.status(lease))


async def close(request: Request) -> Response:
    """Close the lease on chain with the best voucher; a running job is stopped first. Again changes nothing."""
    lease, desk = lease_of(request), desk_of(request)
    await body_of(request, 1024)
    if not lease.state.close_asked:
        why = Why.STOPPED if lease.state.phase in ALIVE else Why.NOT_SAID
        await lease.apply(ev.CloseAsked("asked by the tenant", why))
    return answer(desk.status(lease))


async def artifacts(request: Request) -> Response:
    """What the job left, once it is collected."""
    lease = lease_of(request)
    if not lease.state.collected:
        raise Conflict("the job has not ended yet", "wait for its artifacts event")
    return answer(ArtifactList(files=[FileEntry(**item) for item in lease.state.files]))
