"""Checkpoints at the provider: out of a hostile folder into chunks (back again: `minga.store.checkpoints`).

Complete is what an atomic rename has put into the job's checkpoint folder: names that begin with a dot or end in .tmp,
.part or .partial are still being written. A checkpoint is copied whole or not at all; each chunk is hashed as it is
copied, so what the job does to a file meanwhile can only make the copy be thrown away.

Knows: the job's handle, which opens files without following links, and the lease's blobs. Does not know: leases, HTTP,
who keeps a checkpoint. Rule: everything is bounded by the disk that the job ordered.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import anyio

from minga.core.checkpoint import CHUNK_BYTES, MANIFEST_BYTES_MAX, CheckpointManifest, ChunkedFile
from minga.core.crypto import blake3_hex
from minga.core.errors import BadArtifact, DiskFull, TenantError, TooLarge
from minga.core.spec import FILES_MAX, safe_relative
from minga.provider.collect import Collection, listing, stat_of
from minga.provider.points import reach
from minga.runtimes.runtime import Handle
from minga.store.blobs import BlobStore
from minga.store.checkpoints import read_manifest

CHECKPOINT = "checkpoint"
_UNFINISHED = (".tmp", ".part", ".partial")
_REMEDY = "write smaller checkpoints, of plain files"


class CheckpointWatch:
    """Sees when a complete checkpoint stands in the job's checkpoint folder, and copies it."""

    def __init__(self, handle: Handle, blobs: BlobStore, bytes_max: int, parent: str | None = None) -> None:
        """Watch the checkpoints of `handle`; one of more than `bytes_max` bytes is refused. `parent` is the manifest of
        the one before it, of this lease or the one that was restored.
        """
        self._handle = handle
        self._blobs = blobs
        self._bytes_max = bytes_max
        self._parent = parent
        self._last: tuple[Any, ...] = ()
        self._known: list[ChunkedFile] | None = None

    async def take(self, step: int | None = None) -> dict[str, Any] | None:
        """Copy a new complete checkpoint; None when there is nothing new, or it changed while it was copied.

        Args:
            step: what its manifest says of the job's progress.

        Returns:
            `step`, `manifest`, `manifest_bytes`, `bytes` and `files`, as in `checkpoint.Checkpoint`.

        Raises:
            BadArtifact: it is larger than allowed, or a file of it cannot be read.
        """
        before = await self._signature()
        if not before or before == self._last:
            return None
        try:
            files = await self._copy([path for path, *_ in before])
        except (TenantError, DiskFull) as error:
            if await self._signature() == before:
                self._last = before  # say it once
                raise BadArtifact(f"a checkpoint was not kept: {error.fact}", _REMEDY) from error
            return None
        if await self._signature() != before:
            return None
        self._last = before
        if files == await self._files_before():
            return None
        manifest = CheckpointManifest(step=step, parent=self._parent, files=files)
        data = manifest.canonical()
        if len(data) > MANIFEST_BYTES_MAX:
            raise BadArtifact(f"a checkpoint was not kept: its list has {len(data)} bytes", _REMEDY)
        name = await anyio.to_thread.run_sync(self._blobs.add_bytes, data)
        self._known, self._parent = files, name
        counts = {"manifest_bytes": len(data), "bytes": manifest.total_bytes, "files": len(files)}
        return {"step": step, "manifest": name, **counts}

    async def _files_before(self) -> list[ChunkedFile] | None:
        """What the parent holds, so that a restart, or a restored job, does not tell again what is known."""
        if self._known is None and self._parent is not None:
            try:
                self._known = (await anyio.to_thread.run_sync(read_manifest, self._blobs, self._parent)).files
            except TenantError:
                self._known = []
        return self._known

    async def _copy(self, paths: list[str]) -> list[ChunkedFile]:
        files, left = [], self._bytes_max
        for path in paths:
            name = safe_relative(path.partition("/")[2])
            with await self._handle.open_output(path) as reader:
                executable = bool(stat_of(reader)[3] & 0o100)
                chunks, size = await anyio.to_thread.run_sync(self._cut, reader, left)
            left -= size
            files.append(ChunkedFile(path=name, bytes=size, chunks=chunks, executable=executable))
        await anyio.to_thread.run_sync(self._blobs.settle)
        return files

    def _cut(self, reader: BinaryIO, bytes_max: int) -> tuple[list[str], int]:
        chunks, size = [], 0
        while data := reader.read(CHUNK_BYTES):
            while len(data) < CHUNK_BYTES and (more := reader.read(CHUNK_BYTES - len(data))):
                data += more
            size += len(data)
            if size > bytes_max:
                raise TooLarge(f"it has more than {self._bytes_max} bytes", _REMEDY)
            name = blake3_hex(data)
            if not self._blobs.has(name):
                self._blobs.put(name, data)
                reach("provider.checkpoint.chunk")
            chunks.append(name)
        return chunks, size

    async def _signature(self) -> tuple[Any, ...]:
        found = []
        for file in await listing(self._handle, Collection()):
            if _is_finished(file.path):
                try:
                    with await self._handle.open_output(file.path) as reader:
                        found.append((file.path, *stat_of(reader)))
                except TenantError:
                    continue
        return tuple(found[:FILES_MAX])


def _is_finished(path: str) -> bool:
    top, _, rest = path.partition("/")
    return (
        top == CHECKPOINT
        and bool(rest)
        and not any(part.startswith(".") or part.endswith(_UNFINISHED) for part in rest.split("/"))
    )
