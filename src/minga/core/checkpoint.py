"""Checkpoints as they travel: files cut into chunks that are named by their hashes, and one manifest of them all.

A file is cut into pieces of `CHUNK_BYTES`, each named by its BLAKE3, so that what two checkpoints share has one name
and is sent once. The manifest lists the files by their chunks; it is a blob too, so that its hash names the whole.
Every model is checked when it is read: what passed can be written to a disk as it says. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from minga.core.codec import parse_json
from minga.core.spec import FILES_MAX, Blake3Text, Count, Model, Positive, RelativePath

CHUNK_BYTES = 4 << 20
MANIFEST_BYTES_MAX = 8 << 20

ChunkName = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ChunkedFile(Model):
    """One file of a checkpoint: its pieces of `CHUNK_BYTES` (the last may be shorter), each by its BLAKE3, in order."""

    path: RelativePath
    bytes: Count
    chunks: list[ChunkName]
    executable: bool = False

    @model_validator(mode="after")
    def _chunks_make_up_the_bytes(self) -> Self:
        if len(self.chunks) != -(-self.bytes // CHUNK_BYTES):
            raise ValueError("the number of chunks is not that of the bytes")
        return self

    def pieces(self) -> list[tuple[str, int]]:
        """Name and bytes of each chunk, in order."""
        last = len(self.chunks) - 1
        return [
            (name, CHUNK_BYTES if index < last else self.bytes - last * CHUNK_BYTES)
            for index, name in enumerate(self.chunks)
        ]


class CheckpointManifest(Model):
    """A checkpoint, whole: every file by its chunks. Its canonical JSON is a blob, named by its BLAKE3.

    `step` is the job's own count when it was taken, `parent` the manifest of the checkpoint before it, both only if
    known. No path stands twice or runs through another file, and no chunk has two sizes.
    """

    version: Literal[1] = 1
    step: Count | None = None
    parent: Blake3Text | None = None
    files: list[ChunkedFile] = Field(max_length=FILES_MAX)

    @model_validator(mode="after")
    def _is_one_tree(self) -> Self:
        paths = {file.path for file in self.files}
        if len(paths) != len(self.files):
            raise ValueError("a path stands twice")
        for file in self.files:
            parts = file.path.split("/")
            if any("/".join(parts[:count]) in paths for count in range(1, len(parts))):
                raise ValueError("a path runs through another file")
        sizes: dict[str, int] = {}
        for file in self.files:
            for name, size in file.pieces():
                if sizes.setdefault(name, size) != size:
                    raise ValueError("a chunk has two sizes")
        return self

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From a blob; errors as `parse`, but for up to `MANIFEST_BYTES_MAX` bytes."""
        return cls.parse(parse_json(data, MANIFEST_BYTES_MAX))

    @property
    def total_bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files)

    def sizes(self) -> dict[str, int]:
        """Bytes of each chunk, by name, in the order of the files."""
        return {name: size for file in self.files for name, size in file.pieces()}


class Checkpoint(Model):
    """What an event tells of a complete checkpoint: `number` counts within the lease from 1; the rest is in its
    manifest, a blob of `manifest_bytes`. `files` is a count, `bytes` what they hold together.
    """

    number: Positive
    step: Count | None = None
    manifest: Blake3Text
    manifest_bytes: Annotated[int, Field(ge=1, le=MANIFEST_BYTES_MAX)]
    bytes: Count
    files: Annotated[int, Field(ge=0, le=FILES_MAX)]
