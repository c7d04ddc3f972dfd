"""The route of probes: a challenge in, a commitment or an opening out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from minga.protocol.wire import ProbeRequest
from minga.provider.serving_basics import answer, desk_of, lease_of, parsed


async def probe(request: Request) -> Response:
    """Answer one challenge of a probe."""
    lease, desk = lease_of(request), desk_of(request)
    return answer(await desk.station.answer(lease, await parsed(request, ProbeRequest)))
