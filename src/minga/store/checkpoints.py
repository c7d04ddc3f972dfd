"""A checkpoint out of a blob store: its manifest, and its files in a folder again.

Knows: blobs and `core.checkpoint`. Does not know: who kept it, or for which job. Rule: nothing is written that the
manifest, which is checked when it is read, does not say. Blocking.
"""

from __future__ import annotations

import os
from pathlib import Path

from minga.core.checkpoint import MANIFEST_BYTES_MAX, CheckpointManifest, ChunkedFile
from minga.core.errors import DiskFull, InvalidInput, NotFound, TooLarge
from minga.store.blobs import BlobStore


def read_manifest(blobs: BlobStore, name: str) -> CheckpointManifest:
    """A checkpoint's manifest out of the blobs. Blocking.

    Raises:
        NotFound: it is not here.
        InvalidInput: it is none.
        TooLarge: over `MANIFEST_BYTES_MAX`.
    """
    if blobs.size(name) > MANIFEST_BYTES_MAX:
        raise TooLarge(f"a checkpoint's manifest has {blobs.size(name)} bytes", f"stay below {MANIFEST_BYTES_MAX}")
    return CheckpointManifest.read(b"".join(blobs.read(name)))


def assemble(blobs: BlobStore, name: str, folder: Path, bytes_max: int) -> None:
    """Make the files of a checkpoint in `folder`, which is made. Blocking.

    Args:
        blobs: hold its manifest and every chunk.
        name: its manifest.
        folder: must not exist.
        bytes_max: of all files together.

    Raises:
        NotFound: a chunk is not here.
        InvalidInput, TooLarge: no manifest, or more bytes than allowed.
        DiskFull: no room.
    """
    manifest = read_manifest(blobs, name)
    if manifest.total_bytes > bytes_max:
        raise TooLarge(f"the checkpoint holds more than {bytes_max} bytes", "order more disk")
    folder.mkdir(mode=0o755, parents=True)
    try:
        for file in manifest.files:
            place = folder / file.path
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _write(blobs, file, place)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise NotFound("a chunk of the checkpoint is gone", "send it again") from None
        raise DiskFull(f"a checkpoint cannot be restored: {error.strerror}", "free some disk") from error


def _write(blobs: BlobStore, file: ChunkedFile, place: Path) -> None:
    mode = 0o755 if file.executable else 0o644
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    with os.fdopen(descriptor, "wb") as writer:
        for name, size in file.pieces():
            if blobs.size(name) != size:
                raise InvalidInput(f"chunk {name[:16]} is not of {size} bytes", "send the checkpoint that was kept")
            for data in blobs.read(name):
                writer.write(data)
