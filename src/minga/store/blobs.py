"""Content-addressed files: a blob is named by its BLAKE3 (64 hex digits) and never changes.

Uploads resume: bytes go to a partial file, whose length is the offset to go on from; the blob appears under its name
by an atomic rename once the hash is right, so a reader never sees half a blob. `links` to job folders are copies or
hard links made by the caller; nothing outside may write into the store.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from minga.core.errors import BadArtifact, Conflict, DiskFull, InvalidInput, NotFound, TooLarge

CHUNK = 1 << 20
_SYNCS = 4


class BlobStore:
    """Blobs under one folder. Methods block; call them in a worker thread from async code."""

    def __init__(self, folder: Path, bytes_max: int = 1 << 40) -> None:
        """Use `folder` (made, mode 0700). A blob over `bytes_max` bytes is refused."""
        self.folder = folder
        self.bytes_max = bytes_max
        self._staged: set[str] = set()
        (folder / "partial").mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, name: str) -> Path:
        """Where a blob stands or would stand.

        Raises:
            InvalidInput: the name is not 64 lower-case hex digits.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            raise InvalidInput(f"{name[:80]!r} is not a blob's name", "use its BLAKE3 as 64 lower-case hex digits")
        return self.folder / name[:2] / name

    def has(self, name: str) -> bool:
        """Whether the blob is complete here."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """Bytes of a complete blob.

        Raises:
            NotFound: it is not here.
        """
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"blob {name[:16]} is not here", "upload it first") from None

    def offset(self, name: str) -> int:
        """Bytes held so far: the whole size when complete, the partial length otherwise, 0 when unknown."""
        for path in (self.path(name), self._partial(name)):
            if path.is_file():
                return path.stat().st_size
        return 0

    def write_at(self, name: str, offset: int, data: bytes) -> int:
        """Append `data` to a partial blob at `offset`, which must be what `offset()` says; returns the new length.

        Raises:
            Conflict: `offset` is not where the partial blob ends (details: the right one).
            TooLarge: over `bytes_max`.
            DiskFull: no room; what was there before is kept.
        """
        if self.has(name):
            return self.size(name)
        held = self.offset(name)
        if offset != held:
            raise Conflict(f"blob {name[:16]} ends at {held}, not at {offset}", "go on from there", offset=held)
        if held + len(data) > self.bytes_max:
            raise TooLarge(f"blob {name[:16]} is over {self.bytes_max} bytes", "send less")
        with _room(name), self._partial(name).open("ab") as handle:
            try:
                handle.write(data)
                handle.flush()
            except OSError:
                handle.truncate(held)
                raise
        return held + len(data)

    def finish(self, name: str) -> None:
        """Check a partial blob against its name and make it visible; idempotent.

        Raises:
            NotFound: there is no partial blob.
            BadArtifact: the bytes have another hash; the partial blob is deleted.
        """
        if self.has(name):
            return
        partial = self._partial(name)
        if not partial.is_file():
            raise NotFound(f"blob {name[:16]} is not here", "upload it first")
        if hash_file(partial) != name:
            partial.unlink(missing_ok=True)
            raise BadArtifact(f"the bytes sent as blob {name[:16]} have another hash", "send the right bytes")
        self._publish(partial, name)

    def add_file(self, source: Path, name: str | None = None) -> str:
        """Copy a file in and return its name; with `name`, it must have that hash (see `finish`)."""
        digest = hash_file(source) if name is None else name
        if self.has(digest):
            return digest
        partial = self._partial(digest)
        with _room(digest), source.open("rb") as reader, partial.open("wb") as writer:
            while chunk := reader.read(CHUNK):
                writer.write(chunk)
        self.finish(digest)
        return digest

    def add_stream(self, source: BinaryIO, bytes_max: int | None = None) -> tuple[str, int]:
        """Copy an open file in, hashing what is copied: a file that changes meanwhile cannot lie about its hash.

        Returns its name and size.

        Raises:
            TooLarge: over `bytes_max` (or the store's own limit); nothing is kept.
            DiskFull: no room; nothing is kept.
        """
        from blake3 import blake3

        limit = self.bytes_max if bytes_max is None else min(bytes_max, self.bytes_max)
        hasher, size = blake3(), 0
        descriptor, text = tempfile.mkstemp(dir=self.folder / "partial", prefix="stream-")
        partial = Path(text)
        try:
            with _room("a file"), os.fdopen(descriptor, "wb") as writer:
                while chunk := source.read(CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise TooLarge(f"a file has more than {limit} bytes", "leave less")
                    hasher.update(chunk)
                    writer.write(chunk)
            name = str(hasher.hexdigest())
            if not self.has(name):
                self._publish(partial, name)
        finally:
            partial.unlink(missing_ok=True)
        return name, size

    def add_bytes(self, data: bytes) -> str:
        """Store bytes and return their name."""
        from minga.core.crypto import blake3_hex

        name = blake3_hex(data)
        if not self.has(name):
            partial = self._partial(name)
            with _room(name):
                partial.write_bytes(data)
            self._publish(partial, name)
        return name

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Take bytes whose hash the caller has checked; they are a blob once `settle` was called. Threads may put too.

        Raises:
            DiskFull: no room; nothing is kept.
        """
        if self.has(name):
            return
        staged = self.folder / "partial" / f"put-{name}"
        with _room(name):
            try:
                with staged.open("wb", buffering=0) as writer:
                    view = memoryview(data)
                    while view:
                        view = view[writer.write(view) :]
            except OSError:
                staged.unlink(missing_ok=True)
                raise
        self._staged.add(name)

    def settle(self) -> None:
        """Make blobs of all that was put, durably: on disk first, then under their names."""

        def sync(name: str) -> Path:
            staged = self.folder / "partial" / f"put-{name}"
            with staged.open("rb") as handle:
                os.fsync(handle.fileno())
            return staged

        names = list(self._staged)
        with _room("blobs"):
            with ThreadPoolExecutor(_SYNCS) as pool:
                synced = list(pool.map(sync, names))
            for name, staged in zip(names, synced, strict=True):
                self.path(name).parent.mkdir(exist_ok=True, mode=0o700)
                staged.replace(self.path(name))
            for folder in {self.path(name).parent for name in names}:
                sync_folder(folder)
            sync_folder(self.folder)
        self._staged.difference_update(names)

    def adopt(self) -> None:
        """Take up what an earlier process put and did not settle; what was cut off half-way is deleted."""
        for staged in (self.folder / "partial").glob("put-*"):
            name = staged.name.removeprefix("put-")
            if name in self._staged:
                continue
            if hash_file(staged) == name:
                self._staged.add(name)
            else:
                staged.unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Bytes of every complete blob, by name."""
        return {
            path.name: path.stat().st_size
            for folder in self.folder.iterdir()
            if len(folder.name) == 2
            for path in folder.iterdir()
        }

    def borrow(self, name: str, other: BlobStore) -> bool:
        """Share a complete blob of another store of the same disk, if it has it; returns whether it is here now."""
        if not self.has(name) and other.has(name):
            self.path(name).parent.mkdir(exist_ok=True, mode=0o700)
            with suppress(OSError):
                os.link(other.path(name), self.path(name))
        return self.has(name)

    def read(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Chunks of a complete blob from byte `start` up to but not including `end`.

        Raises:
            NotFound: it is not here.
        """
        left = (self.size(name) if end is None else end) - start
        with self.path(name).open("rb") as handle:
            handle.seek(start)
            while left > 0 and (chunk := handle.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    def remove(self, name: str) -> None:
        """Forget a blob and its partial; idempotent."""
        self.path(name).unlink(missing_ok=True)
        self._partial(name).unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        self.path(name)
        return self.folder / "partial" / name

    def _publish(self, partial: Path, name: str) -> None:
        target = self.path(name)
        with _room(name):
            target.parent.mkdir(exist_ok=True, mode=0o700)
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            partial.replace(target)
            sync_folder(target.parent)


def hash_file(path: Path) -> str:
    """BLAKE3 of a file, 64 hex digits."""
    from blake3 import blake3

    hasher = blake3()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            hasher.update(chunk)
    return str(hasher.hexdigest())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (a no-op where folders cannot be opened, as on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file durably: a reader sees the old bytes or the new ones, also after a power cut.

    Raises:
        DiskFull: no room; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _room(path.name):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def _room(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room for {name[:16]}", "free some disk; nothing was acknowledged") from error
        raise
