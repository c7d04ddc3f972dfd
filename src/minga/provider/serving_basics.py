"""What every route needs: bounded bodies, the bearer's lease, answers in JSON.

Rule: nothing of a request is believed before its size is, and nothing is read for a stranger before the token was
checked (but the login itself, which is small).
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from minga.core.codec import BODY_BYTES_MAX
from minga.core.errors import InvalidInput, MingaError, NetworkError, TooLarge, Unauthorized
from minga.core.spec import Model
from minga.provider.desk import Desk
from minga.provider.lease import LeaseRun
from minga.transport.errors import error_body

BODY_SECONDS = 30.0
_DRAIN_BYTES = 16 << 20

M = TypeVar("M", bound=Model)


def desk_of(request: Request) -> Desk:
    """The provider's desk."""
    desk: Desk = request.app.state.desk
    return desk


def lease_of(request: Request) -> LeaseRun:
    """The lease in the path, for the holder of its token.

    Raises:
        Unauthorized: no token, or not one of this lease.
    """
    lease = desk_of(request).authorised(request.path_params["lease"].lower(), bearer_of(request))
    lease.heard_at = lease.world.clock.monotonic()
    return lease


def bearer_of(request: Request) -> str:
    """The token that a request carries.

    Raises:
        Unauthorized: none, or nothing that could be one.
    """
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.isascii() or len(token) > 256:
        raise Unauthorized("no bearer token", "log in with the lease's session signer")
    return token.strip()


async def body_of(request: Request, limit: int = BODY_BYTES_MAX, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body.

    Raises:
        TooLarge: more than `limit` bytes.
        InvalidInput: it did not arrive within `seconds`.
        NetworkError: the other side hung up.
    """
    data = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for chunk in request.stream():
                # What is over the limit is read and dropped for a while: a client that is still sending would not
                # see the answer.
                if len(data) <= limit:
                    data += chunk
                else:
                    _drained(request, len(chunk))
    except TimeoutError:
        raise InvalidInput(f"the body did not arrive within {seconds:.0f} s", "send smaller pieces") from None
    except ClientDisconnect:
        raise NetworkError("the other side hung up", "send it again") from None
    if len(data) > limit:
        raise TooLarge(f"the body is over {limit} bytes", "send less at once")
    return bytes(data)


def _drained(request: Request, count: int) -> None:
    request.state.drained = getattr(request.state, "drained", 0) + count
    if request.state.drained > _DRAIN_BYTES:
        raise TooLarge("the body is far too large", "send less at once")


async def parsed(request: Request, kind: type[M]) -> M:
    """The body as a wire model.

    Raises:
        InvalidInput, TooLarge: see `body_of` and `Model.parse`.
    """
    return kind.parse(await body_of(request))


def answer(value: Model | dict[str, Any], status: int = 200) -> Response:
    """A JSON answer."""
    plain = value.plain() if isinstance(value, Model) else value
    return Response(json.dumps(plain), status, media_type="application/json")


def refusal(error: MingaError) -> Response:
    """An error as its status and body."""
    status, body = error_body(error)
    return Response(body, status, media_type="application/json")


def whole_number(text: str, name: str) -> int:
    """A number from a query or header, 0 … 2**53.

    Raises:
        InvalidInput: it is not one.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise InvalidInput(f"{name} is {text[:40]!r}", "use a whole number from 0")
    return int(text)
