"""What a tenant follows: events as server-sent events, and the job's output as raw bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from minga.core.errors import OutOfCapacity
from minga.provider.lease import LeaseRun
from minga.provider.logs import READ_BYTES
from minga.provider.serving_basics import lease_of, whole_number

STREAMS_MAX = 16
"""Streams that one lease may hold open at a time."""


async def events(request: Request) -> Response:
    """Events with a number over `after`, until the lease is closed; a comment every 5 s of silence."""
    lease = lease_of(request)
    after = whole_number(request.query_params.get("after", "0"), "after")
    return _stream(lease, lambda: _events(lease, after), "text/event-stream")


async def logs(request: Request) -> Response:
    """Output from byte `offset`; with `follow=1` until there will be no more."""
    lease = lease_of(request)
    offset = whole_number(request.query_params.get("offset", "0"), "offset")
    follow = request.query_params.get("follow", "0") not in ("", "0")
    return _stream(lease, lambda: _logs(lease, offset, follow), "application/octet-stream")


def _stream(lease: LeaseRun, make: Callable[[], AsyncIterator[bytes]], media_type: str) -> Response:
    if lease.streams >= STREAMS_MAX:
        raise OutOfCapacity(f"{STREAMS_MAX} streams of this lease are open", "close some")

    async def counted() -> AsyncIterator[bytes]:
        lease.streams += 1
        try:
            async for piece in make():
                yield piece
        finally:
            lease.streams -= 1
            lease.heard_at = lease.world.clock.monotonic()

    return StreamingResponse(counted(), media_type=media_type, headers={"cache-control": "no-store"})


async def _events(lease: LeaseRun, after: int) -> AsyncIterator[bytes]:
    yield b": events\n\n"
    async for told in lease.events(after):
        if told is None:
            yield b":\n\n"
            continue
        event = {"number": told.number, "at": told.at, "kind": told.kind, "data": told.data}
        yield f"id: {told.number}\nevent: {told.kind}\ndata: {json.dumps(event)}\n\n".encode()


async def _logs(lease: LeaseRun, offset: int, follow: bool) -> AsyncIterator[bytes]:
    while True:
        whole = lease.has_whole_log
        piece = await anyio.to_thread.run_sync(lease.log.read, offset, READ_BYTES)
        if piece:
            offset += len(piece)
            yield piece
        elif whole or not follow:
            return
        elif lease.log.size() <= offset:
            with anyio.move_on_after(5.0):
                await lease.changed.wait()
