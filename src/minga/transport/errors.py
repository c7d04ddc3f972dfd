"""Errors on the wire: `MingaError` ⇄ HTTP status and JSON body.

Knows: every class of the error tree, by its code, whichever module declares it. Does not know: routes. Rule: what the
other side sends is bounded and typed before it becomes an error here, and an unknown code keeps its words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from minga.core.codec import DEPTH_MAX, check_nesting
from minga.core.errors import InternalError, InvalidInput, MingaError, NetworkError, ProviderRefused, Unauthorized

_TEXT_MAX = 500
_BODY_MAX = 1 << 16


def error_body(error: MingaError) -> tuple[int, bytes]:
    """The HTTP status and JSON body of an error."""
    return error.http_status, json.dumps(error.as_dict(), ensure_ascii=True).encode()


def error_of(status: int, body: bytes) -> MingaError:
    """The error that a refusal carries: of the class with its code, else `ProviderRefused` or `NetworkError`.

    Args:
        status: the HTTP status, 400 … 599.
        body: the response's bytes; anything but an error object is described, not parsed further.
    """
    try:
        text = body[:_BODY_MAX].decode()
        check_nesting(text, DEPTH_MAX)
        found = json.loads(text)["error"]
        code, fact, remedy = (_text(found[name]) for name in ("code", "fact", "remedy"))
        details = found.get("details", {})
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput):
        kind: type[MingaError] = ProviderRefused if status < 500 else NetworkError
        if status == 401:
            kind = Unauthorized  # the answer to HEAD has no body
        return kind(f"the answer was HTTP {status} without a reason", "is this a Minga provider or board?")
    refused = _classes().get(code, ProviderRefused)
    error = refused.__new__(refused)
    # Not the class's own constructor: some make their words themselves, and here they were sent.
    MingaError.__init__(error, fact, remedy)
    error.details = details if isinstance(details, dict) else {}
    return error


async def raise_for(response: httpx.Response) -> None:
    """Return if the answer is below 400; else read a bounded body and raise its error.

    Raises:
        MingaError: the refusal, of the most precise class.
    """
    if response.status_code < 400:
        return
    body = b""
    if response.is_stream_consumed:
        body = response.content
    else:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _BODY_MAX:
                break
    raise error_of(response.status_code, body)


def network_error(error: Exception, url: str) -> MingaError:
    """What an `httpx` exception means to a user.

    Args:
        error: what the client raised.
        url: the address that was asked.
    """
    if isinstance(error, MingaError):
        return error
    if isinstance(error, httpx.TimeoutException):
        return NetworkError(f"{url} did not answer in time", "try again; is it reachable from here?")
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL | OSError):
        reason = str(error) or type(error).__name__
        return NetworkError(f"{url} cannot be reached: {reason}"[:_TEXT_MAX], "is it running, and the address right?")
    return InternalError(f"asking {url}: {type(error).__name__}: {error}"[:_TEXT_MAX])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return "".join(char if char.isprintable() else " " for char in value[:_TEXT_MAX])


def _classes() -> dict[str, type[MingaError]]:
    return {kind.code: kind for kind in _subclasses(MingaError) if "code" in vars(kind)}


def _subclasses(kind: type[MingaError]) -> Iterator[type[MingaError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
