"""Where checkpoints are kept: chunks by their hashes, and manifests, each of which makes its checkpoint count.

The order makes half a checkpoint impossible: a manifest is written once all of its chunks are durable (`seal`), and is
removed before any of them (`remove`). So whoever finds a manifest finds its chunks.

| destination               | chunks                            | manifests                           |
|---------------------------|-----------------------------------|-------------------------------------|
| `DiskChunks`              | `chunks/ab/ab…`                   | `KEY.json`, renamed into place      |
| `buckets.BucketChunks`    | objects `PREFIX/chunks/ab…`       | objects `PREFIX/checkpoints/KEY.json` |

Does not know: what manifests say, which checkpoints to keep, who checks hashes (the caller does, on the way in and on
the way out). Rule: one process writes to a destination at a time. One kit tests every destination.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from minga.core.errors import NotFound
from minga.store.blobs import BlobStore, sync_folder, write_atomic


class Destination(Protocol):
    """A place for the checkpoints of one job. Keys of manifests are letters, digits and dashes."""

    async def held(self) -> dict[str, int]:
        """Bytes of every whole chunk, by name."""

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """Store a chunk whose hash the caller has checked; durable at the latest when `seal` returns. Again changes
        nothing.
        """

    async def get(self, name: str) -> bytes:
        """A chunk's bytes, whose hash the caller checks.

        Raises:
            NotFound: it is not here.
        """

    async def seal(self, key: str, manifest: bytes) -> None:
        """Store a manifest, all of whose chunks were put; it and they are durable when it returns."""

    async def keys(self) -> list[str]:
        """The keys of all manifests, in no order."""

    async def manifest(self, key: str) -> bytes:
        """A manifest's bytes.

        Raises:
            NotFound: there is none of that key.
        """

    async def remove(self, keys: Iterable[str], chunks: Iterable[str]) -> None:
        """Remove manifests, then chunks that no other manifest names; what is not there is no error."""

    async def aclose(self) -> None:
        """Let go of connections; idempotent."""


class DiskChunks:
    """A folder of this machine. Raises `DiskFull` where there is no room; what was there stays."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; nothing is made before something is put."""
        self._folder = folder
        self._open: BlobStore | None = None

    @property
    def _blobs(self) -> BlobStore:
        if self._open is None:
            self._open = BlobStore(self._folder / "chunks")
        return self._open

    async def held(self) -> dict[str, int]:
        """As `Destination.held`."""

        def look() -> dict[str, int]:
            self._blobs.adopt()
            self._blobs.settle()
            return self._blobs.sizes()

        return await anyio.to_thread.run_sync(look)

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """As `Destination.put`."""
        await anyio.to_thread.run_sync(self._blobs.put, name, data)

    async def get(self, name: str) -> bytes:
        """As `Destination.get`."""

        def read() -> bytes:
            if not self._blobs.path(name).exists():
                self._blobs.settle()  # what was just put has no name yet
            return _read(self._blobs.path(name))

        return await anyio.to_thread.run_sync(read)

    async def seal(self, key: str, manifest: bytes) -> None:
        """As `Destination.seal`."""

        def write() -> None:
            self._blobs.settle()
            write_atomic(self._path(key), manifest)

        await anyio.to_thread.run_sync(write)

    async def keys(self) -> list[str]:
        """As `Destination.keys`."""
        return [path.stem for path in self._folder.glob("*.json") if not path.name.startswith(".")]

    async def manifest(self, key: str) -> bytes:
        """As `Destination.manifest`."""
        return await anyio.to_thread.run_sync(_read, self._path(key))

    async def remove(self, keys: Iterable[str], chunks: Iterable[str]) -> None:
        """As `Destination.remove`."""

        def unlink() -> None:
            for key in keys:
                self._path(key).unlink(missing_ok=True)
            sync_folder(self._folder)
            for name in chunks:
                self._blobs.remove(name)

        if self._folder.exists():
            await anyio.to_thread.run_sync(unlink)

    async def aclose(self) -> None:
        """As `Destination.aclose`."""

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path.name[:80]} is not here", "it is kept nowhere else") from None
