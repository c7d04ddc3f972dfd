"""Blobs: inputs come in pieces that resume, artifacts and chunks of checkpoints go out by range.

A tenant sees only what its own manifest, artifacts and checkpoints name; every lease has a store of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga.core.errors import BadArtifact, Conflict, InvalidInput, NotFound, TooLarge
from minga.provider.lease import LeaseRun
from minga.provider.points import reach
from minga.provider.serving_basics import answer, body_of, lease_of, whole_number
from minga.store.blobs import CHUNK, BlobStore
from minga.transport.sendfile import EXTENSION

PIECE_BYTES_MAX = 8 << 20
PIECE_SECONDS = 120.0
NAMES_MAX = 16


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
    await lease.blob_arrived(name)


async def get_blob(request: Request) -> Response:
    """The bytes of a file of the job, whole or one range."""
    return await _give(request, [request.path_params["blake3"]])


async def get_chunks(request: Request) -> Response:
    """The bytes of several blobs, one after the other, whole or one range of them all."""
    names = request.query_params.get("names", "").split(",")
    if len(names) > NAMES_MAX:
        raise TooLarge(f"{len(names)} names", f"ask for {NAMES_MAX} at a time")
    return await _give(request, names)


async def _give(request: Request, names: list[str]) -> Response:
    lease = lease_of(request)
    for name in names:
        lease.place.blobs.path(name)
        if not lease.knows_blob(name):
            raise NotFound(f"blob {name[:16]} is no file of this lease", "see its artifacts and checkpoint events")
    return await pieces_of(request, lease, names)


async def pieces_of(request: Request, lease: LeaseRun, names: list[str]) -> Response:
    """The bytes of blobs that may be given, one after the other, as the request's range says."""
    pieces, size = [], 0
    for name in names:
        held = await anyio.to_thread.run_sync(lease.place.blobs.size, name)
        pieces.append((name, size, size + held))
        size += held
    start, end = _range(request.headers.get("range"), size)
    headers = {"content-length": str(end - start), "accept-ranges": "bytes"}
    if "range" in request.headers:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    wanted = [(name, max(start, low) - low, min(end, high) - low) for name, low, high in pieces]
    status = 206 if "range" in request.headers else 200
    return _Pieces(lease, [piece for piece in wanted if piece[1] < piece[2]], status, headers)


class _Pieces(Response):
    """Parts of blobs: sent by the kernel where the server can, else read and sent."""

    media_type = "application/octet-stream"

    def __init__(
        self, lease: LeaseRun, pieces: list[tuple[str, int, int]], status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(b"", status, headers, self.media_type)
        self._lease, self._pieces = lease, pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        give = self._send_file if EXTENSION in scope.get("extensions", {}) else self._send_bytes
        with self._lease.inventory.giving(self._lease.world.clock):
            await send(begin)
            for name, start, end in self._pieces:
                await give(send, name, start, end)
                self._lease.active_at = self._lease.world.clock.monotonic()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, send: Send, name: str, start: int, end: int) -> None:
        file = await anyio.to_thread.run_sync(self._lease.place.blobs.path(name).open, "rb")
        with file:
            await send({"type": EXTENSION, "file": file, "offset": start, "count": end - start, "more_body": True})

    async def _send_bytes(self, send: Send, name: str, start: int, end: int) -> None:
        def piece(at: int) -> bytes:
            return b"".join(self._lease.place.blobs.read(name, at, min(end, at + CHUNK)))

        while start < end and (data := await anyio.to_thread.run_sync(piece, start)):
            start += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})


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
