"""Routes for those who check work: a login, what was ordered and committed to, inputs and trace."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from minga.protocol.wire import AuditLogin
from minga.provider.lease import LeaseRun
from minga.provider.serving_basics import answer, bearer_of, body_of, desk_of
from minga.provider.serving_blobs import pieces_of

LOGIN_BYTES_MAX = 4096


async def login(request: Request) -> Response:
    """A token for a referee or a challenger."""
    message = AuditLogin.parse(await body_of(request, LOGIN_BYTES_MAX))
    token, expires_at = await desk_of(request).audits.login(_channel(request), message)
    return answer({"token": token, "expires_at": expires_at})


async def audit(request: Request) -> Response:
    """What was ordered, what was committed to, and which files tell of it."""
    return answer(desk_of(request).audits.describe(_audited(request)))


async def get_blob(request: Request) -> Response:
    """The bytes of an input or of a file of the trace, whole or one range."""
    run, name = _audited(request), request.path_params["blake3"]
    run.place.blobs.path(name)
    desk_of(request).audits.check_blob(run, name)
    return await pieces_of(request, run, [name])


def _channel(request: Request) -> str:
    return str(request.path_params["lease"]).lower()


def _audited(request: Request) -> LeaseRun:
    return desk_of(request).audits.authorised(_channel(request), bearer_of(request))
