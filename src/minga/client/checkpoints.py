"""Checkpoints on their way: from a provider to where the tenant keeps them, and from there to the next provider.

A checkpoint counts once its destination has acknowledged its manifest, which is written after every chunk that it names
(`minga.store.chunks`). Only chunks that the destination lacks are fetched, a few at a time, each going on after a cut
where it ended; the last two checkpoints stay, and chunks that neither names are removed.

Trusted: the destination to keep what it acknowledged, and nothing else. Every chunk is hashed when it comes from a
provider and when it comes from the destination. A provider can withhold a checkpoint or send a useless one; it can not
fill the disk, name a path outside, or make half a checkpoint count.

Does not know: when a checkpoint should be fetched or restored, and what comes of it. Rule: one at a time, the newest
first; those that were overtaken while they waited are not fetched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from minga.client import points
from minga.client.chunk_source import Kept, Key, Restore, Source, batches, each, hash_of, kept_of, read_manifest
from minga.client.folder import JobFolder, NoRoomHere, beneath
from minga.core.checkpoint import Checkpoint, CheckpointManifest, ChunkedFile
from minga.core.crypto import blake3_hex
from minga.core.errors import BadArtifact, DiskFull, InvalidInput, MingaError, NotFound, TooLarge
from minga.core.spec import Bundle
from minga.store.buckets import REGION, Bucket, BucketChunks, credentials
from minga.store.chunks import Destination, DiskChunks

KEPT = 2
TARGET = "/job/checkpoint"

Accept = Callable[[Path], Awaitable[bool]]
"""The tenant's own check of a folder that holds a checkpoint's files."""


class CheckpointRejected(BadArtifact):
    """The tenant's own check refused a checkpoint. It has no code of its own: no answer of a peer becomes it."""


class Keeper:
    """The checkpoints of one job. Methods may be cut off anywhere and done again."""

    def __init__(self, destination: Destination, scratch: Path, bytes_max: int) -> None:
        """Keep at `destination`; `scratch` is for a while; a checkpoint of more than `bytes_max` is refused."""
        self._destination = destination
        self._scratch = scratch
        self._bytes_max = bytes_max
        self._lock = anyio.Lock()
        self._offered: dict[int, int] = {}
        self._damaged: set[Key] = set()

    async def aclose(self) -> None:
        """Let go of connections; idempotent."""
        await self._destination.aclose()

    async def keep(
        self, source: Source, attempt: int, checkpoint: Checkpoint, accept: Accept | None = None
    ) -> Kept | None:
        """Fetch a checkpoint and make it count; None when a newer one has been offered, or counts already.

        Args:
            source: has it.
            attempt: of the lease.
            checkpoint: as announced.
            accept: is asked before it counts; not again for one that counts.

        Raises:
            CheckpointRejected: `accept` refused it; it does not count.
            BadArtifact, NotFound, ProviderUnreachable: it cannot be had, or is not what was announced.
            NoRoomHere: no room on our own disk.
            BucketUnavailable: the bucket could not be written.
        """
        self._offered[attempt] = max(checkpoint.number, self._offered.get(attempt, 0))
        async with self._lock:
            if self._is_overtaken(attempt, checkpoint):
                return None
            key = Key(attempt, checkpoint.number, checkpoint.manifest)
            keys = await self._keys()
            if key in keys:
                restore = await self._restorable(key)
                return restore.kept if restore else None
            if any((known.attempt, known.number) >= (attempt, checkpoint.number) for known in keys):
                return None
            try:
                return await self._take(source, key, checkpoint, accept)
            except NotFound:
                if self._is_overtaken(attempt, checkpoint):
                    return None  # the provider holds newer ones alone
                raise
            except DiskFull as error:
                raise NoRoomHere(error.fact, error.remedy) from error

    def _is_overtaken(self, attempt: int, checkpoint: Checkpoint) -> bool:
        return self._offered[attempt] > checkpoint.number

    async def _take(self, source: Source, key: Key, seen: Checkpoint, accept: Accept | None) -> Kept:
        if seen.bytes > self._bytes_max:
            raise BadArtifact(f"a checkpoint of {seen.bytes} bytes is more than the job ordered", "it is not kept")
        data = bytes((await source.fetch([(seen.manifest, seen.manifest_bytes)]))[0])
        manifest = await anyio.to_thread.run_sync(read_manifest, data, seen)
        held = await self._destination.held()
        lacking = {name: size for name, size in manifest.sizes().items() if held.get(name) != size}

        async def store(item: tuple[str, memoryview]) -> None:
            await self._destination.put(*item)
            points.reach("client.checkpoint.chunk")

        async def bring(wanted: list[tuple[str, int]]) -> None:
            names = [name for name, _ in wanted]
            await each(zip(names, await source.fetch(wanted), strict=True), store)

        await each(batches(lacking), bring)
        points.reach("client.checkpoint.fetched")
        if accept is not None:
            await self._judge(manifest, accept)
        await self._destination.seal(str(key), data)
        points.reach("client.checkpoint.kept")
        with suppress(MingaError):  # what is not removed now is removed with the next
            await self._collect()
        points.reach("client.checkpoint.collected")
        return kept_of(key, manifest, sum(lacking.values()))

    async def _judge(self, manifest: CheckpointManifest, accept: Accept) -> None:
        folder = self._scratch / "judged"
        await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))
        try:
            await self._write(manifest, folder)
            if not await accept(folder):
                raise CheckpointRejected("the job's own check refused a checkpoint", "the work goes on elsewhere")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))

    async def _collect(self) -> None:
        """Drop all but the newest two, then every chunk that these do not name."""
        keys = sorted(await self._keys())
        used: set[str] = set()
        for key in keys[-KEPT:]:
            used |= CheckpointManifest.read(await self._destination.manifest(str(key))).sizes().keys()
        held = await self._destination.held()
        await self._destination.remove([str(key) for key in keys[:-KEPT]], sorted(held.keys() - used))

    async def _keys(self) -> list[Key]:
        return [key for text in await self._destination.keys() if (key := Key.parse(text)) is not None]

    # ------------------------------------------------------------------------------------------------------ restoring

    async def newest(self) -> Restore | None:
        """The newest checkpoint that counts and of which every chunk is there; None when there is none.

        Raises:
            BucketUnavailable: the bucket could not be read.
        """
        for key in sorted(await self._keys(), reverse=True):
            if key not in self._damaged and (found := await self._restorable(key)) is not None:
                return found
        return None

    async def _restorable(self, key: Key) -> Restore | None:
        try:
            data = await self._destination.manifest(str(key))
            manifest = CheckpointManifest.read(data)
        except (NotFound, InvalidInput, TooLarge):
            return None
        held = await self._destination.held()
        if blake3_hex(data) != key.manifest or any(held.get(name) != n for name, n in manifest.sizes().items()):
            return None
        bundle = Bundle(kind="checkpoint", target=TARGET, blake3=key.manifest, bytes=len(data))
        return Restore(kept_of(key, manifest), manifest, data, bundle)

    async def send(self, restore: Restore, source: Source, missing: Iterable[str]) -> None:
        """Give a provider what it lacks of a checkpoint.

        Args:
            restore: the checkpoint, which the provider's manifest names.
            source: the provider.
            missing: what it said when it took that manifest.

        Raises:
            BadArtifact: a chunk is damaged where it was kept; `newest` gives an older checkpoint from now on.
            BucketUnavailable: the bucket could not be read.
        """
        if restore.bundle.blake3 in missing:
            await source.send(restore.bundle.blake3, restore.data)
        chunks = restore.manifest.sizes()
        status = await source.ask(source.api.status)

        async def give(name: str) -> None:
            await source.send(name, await self._get(name))

        try:
            await each([name for name in status.missing if name in chunks], give)
        except (BadArtifact, NotFound):
            kept = restore.kept
            self._damaged.add(Key(kept.attempt, kept.number, kept.manifest))
            raise

    async def write(self, restore: Restore, target: Path) -> None:
        """Write a checkpoint's files beneath `target`.

        Raises:
            BadArtifact, NotFound: a chunk is damaged or gone.
            UnsafePath: something in `target` is in the way.
            NoRoomHere: no room on this disk.
        """
        await self._write(restore.manifest, target)

    async def _write(self, manifest: CheckpointManifest, target: Path) -> None:
        await anyio.to_thread.run_sync(partial(target.mkdir, parents=True, exist_ok=True))
        for file in manifest.files:
            path = await anyio.to_thread.run_sync(beneath, target, file.path)
            try:
                await self._write_file(file, path)
            except OSError as error:
                raise NoRoomHere(f"{file.path[:80]} cannot be written: {error.strerror}", "free some disk") from error

    async def _write_file(self, file: ChunkedFile, path: Path) -> None:
        await anyio.to_thread.run_sync(partial(path.unlink, missing_ok=True))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if file.executable else 0o644)
        with os.fdopen(descriptor, "wb") as handle:
            for name in file.chunks:
                await anyio.to_thread.run_sync(handle.write, await self._get(name))

    async def _get(self, name: str) -> bytes:
        data = await self._destination.get(name)
        if await hash_of(data) != name:
            raise BadArtifact(f"chunk {name[:16]} was damaged where it was kept", "an older checkpoint is taken")
        return data


def make_keeper(
    folder: JobFolder,
    job: str,
    bytes_max: int,
    to: str = "",
    endpoint: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Keeper:
    """What keeps a job's checkpoints; nothing is asked or made yet.

    Args:
        folder: the job's.
        job: its id, which names its part of a bucket.
        bytes_max: the disk that it orders.
        to: `s3://bucket/prefix`, or empty for the job's own folder.
        endpoint: the store's url; empty for AWS.
        environ: holds the bucket's credentials.

    Raises:
        InvalidInput: no such destination, or no credentials for it.
        MissingPrerequisite: what speaks S3 is not installed.
    """
    scratch = folder.path / "partial"
    if not to:
        return Keeper(DiskChunks(folder.path / "checkpoints"), scratch, bytes_max)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or REGION
    bucket = BucketChunks(Bucket.parse(to, endpoint), job, credentials(environ), region)
    return Keeper(bucket, scratch, bytes_max)


def check_destination(to: str, endpoint: str = "") -> None:
    """Return if checkpoints can be sent `to` a bucket at `endpoint`, as far as words tell; InvalidInput otherwise."""
    if to or endpoint:
        Bucket.parse(to, endpoint)


__all__ = ["Accept", "CheckpointRejected", "Keeper", "Kept", "Restore", "Source", "check_destination", "make_keeper"]
