"""Blobs: inputs come in pieces that resume, artifacts and checkpoints go out by range.

A tenant sees only what its own manifest, artifacts and checkpoints name; every lease has a store of its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from minga.core.errors import BadArtifact, Conflict, InvalidInput, NotFound, TooLarge
from minga.provider import events as ev
from minga.provider.lease import LeaseRun
from minga.provider.points import reach
from minga.provider.serving_basics import answer, body_of, lease_of, whole_number
from minga.store.blobs import CHUNK, BlobStore

PIECE_BYTES_MAX = 8 << 20
PIECE_SECONDS = 120.0


async def head_blob(request: Request) -> Response:
    """Bytes held of an input or of a file that the job left."""
    lease, name = lease_of(request), request.path_params["blake3"]
    blobs = lease.place.blobs
    blobs.path(name)
    if not lease.knows_blob(name):
        lease.bundle_bytes(name)
    held = await anyio.to_thread.run_sync(blobs.offset, name)
    return Response(headers={"upload-offset": str(held)})


async def put_blob(request: Request) -> Response:
    """The next piece of an input, from `Upload-Offset` on; the last one is checked against the name."""
    lease, name = lease_of(request), request.path_params["blake3"]
    offset = whole_number(request.headers.get("upload-offset", ""), "Upload-Offset")
    lease.place.blobs.path(name)
    size = lease.bundle_bytes(name)
    async with lease.uploading:
        data = await body_of(request, PIECE_BYTES_MAX, PIECE_SECONDS)
        if lease.state.phase != "opened":
            if name not in lease.state.missing:
                return answer({"offset": size, "complete": True})
            raise Conflict(f"the lease is {lease.state.phase}: inputs are not taken any more", "open another lease")
        if offset + len(data) > size:
            raise TooLarge(f"the manifest gives blob {name[:16]} {size} bytes", "send what the manifest names")
        held = await anyio.to_thread.run_sync(lease.place.blobs.write_at, name, offset, data)
        reach("provider.blob.written")
        lease.active_at = lease.world.clock.monotonic()
        if held == size:
            await _finish(lease, lease.place.blobs, name)
        return answer({"offset": held, "complete": held == size})


async def _finish(lease: LeaseRun, blobs: BlobStore, name: str) -> None:
    try:
        await anyio.to_thread.run_sync(blobs.finish, name)
    except BadArtifact as error:
        raise InvalidInput(error.fact, "send the right bytes, from offset 0") from None
    reach("provider.blob.finished")
    if name in lease.state.missing:
        await lease.apply(ev.BlobStored(name))


async def get_blob(request: Request) -> Response:
    """The bytes of an artifact's or checkpoint's file, whole or one range."""
    lease, name = lease_of(request), request.path_params["blake3"]
    lease.place.blobs.path(name)
    if not lease.knows_blob(name):
        raise NotFound(f"blob {name[:16]} is no file of this lease", "see its artifacts and checkpoint events")
    size = await anyio.to_thread.run_sync(lease.place.blobs.size, name)
    start, end = _range(request.headers.get("range"), size)
    headers = {"content-length": str(end - start), "accept-ranges": "bytes"}
    if "range" in request.headers:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    body = _chunks(lease, name, start, end)
    return StreamingResponse(body, 206 if "range" in request.headers else 200, headers, "application/octet-stream")


async def _chunks(lease: LeaseRun, name: str, start: int, end: int) -> AsyncIterator[bytes]:
    blobs = lease.place.blobs

    def piece(at: int) -> bytes:
        return b"".join(blobs.read(name, at, min(end, at + CHUNK)))

    while start < end and (data := await anyio.to_thread.run_sync(piece, start)):
        start += len(data)
        lease.active_at = lease.world.clock.monotonic()
        yield data


def _range(header: str | None, size: int) -> tuple[int, int]:
    if header is None:
        return 0, size
    found = re.fullmatch(r"bytes=(\d{1,16})-(\d{0,16})", header)
    if not found:
        raise InvalidInput(f"range {header[:40]!r}", "use bytes=START-END")
    start, end = int(found[1]), int(found[2]) + 1 if found[2] else size
    if start >= size or end <= start:
        raise InvalidInput(f"range {header} is outside the {size} bytes", "start before the end")
    return start, min(end, size)
