"""What a checkpoint is called where it is kept, and the provider that has its chunks, or shall have them.

Does not know: which checkpoints to keep, or where. Rule: bytes of a provider are its own until their hash was checked.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from blake3 import blake3

from minga.client import points
from minga.client.groups import first_of
from minga.client.provider_api import PIECE_BYTES, ProviderApi
from minga.core.checkpoint import Checkpoint, CheckpointManifest
from minga.core.errors import BadArtifact, InvalidInput, ProviderUnreachable, TooLarge
from minga.core.spec import Bundle
from minga.transport.bulk import Landing

AT_ONCE, BATCH = 6, 4
"""So many requests at a time, for so many chunks each: what is held in memory at most is their product."""
TRIES = 100

Ask = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Key:
    """What a manifest is stored under: newest last."""

    attempt: int
    number: int
    manifest: str

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}-{self.manifest}"

    @classmethod
    def parse(cls, text: str) -> Key | None:
        """A key's text; None when it is none of ours."""
        found = re.fullmatch(r"(\d{1,10})-(\d{1,16})-([0-9a-f]{64})", text)
        return cls(int(found[1]), int(found[2]), found[3]) if found else None


@dataclass(frozen=True)
class Kept:
    """A checkpoint that counts. `fetched_bytes`: what had to be transferred for it just now."""

    attempt: int
    number: int
    step: int | None
    bytes: int
    files: int
    fetched_bytes: int
    manifest: str


@dataclass(frozen=True)
class Restore:
    """A checkpoint that can be restored: `bundle` names it in what is sent to a provider."""

    kept: Kept
    manifest: CheckpointManifest
    data: bytes
    bundle: Bundle


class Source:
    """A provider that has chunks, or shall have them. `ask` logs in, and tries again while the provider is silent."""

    def __init__(self, api: ProviderApi, ask: Ask) -> None:
        """One lease at one provider."""
        self.api = api
        self.ask = ask

    async def fetch(self, wanted: list[tuple[str, int]]) -> list[memoryview]:
        """Some blobs, given by name and bytes, verified; a cut at any byte is gone on from as long as anything comes,
        `TRIES` times: a provider that dribbles is given up.

        Raises:
            BadArtifact: the bytes of one have another hash.
            ProviderUnreachable, NotFound: there is no more of it.
        """
        landing = Landing(sum(size for _, size in wanted))
        names = [name for name, _ in wanted]
        for left in range(TRIES - 1, -1, -1):
            held = landing.held
            try:
                await self.ask(lambda: self.api.fetch(names, landing))
                break
            except ProviderUnreachable:
                if landing.held == held or not left:
                    raise
        return await anyio.to_thread.run_sync(_verified, memoryview(landing.data), wanted)

    async def send(self, name: str, data: bytes) -> None:
        """Make the provider hold a blob."""

        async def piece(offset: int) -> bytes:
            return data[offset : offset + PIECE_BYTES]

        await self.ask(lambda: self.api.send_blob(name, piece, partial(points.reach, "client.send.piece")))


async def each(items: Iterable[T], do: Callable[[T], Awaitable[None]]) -> None:
    """`do` all items, `AT_ONCE` at a time; the first error ends the rest."""
    waiting = iter(list(items))

    async def work() -> None:
        for item in waiting:
            await do(item)

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work)
    except BaseExceptionGroup as group:
        raise first_of(group) from None


def _verified(data: memoryview, wanted: list[tuple[str, int]]) -> list[memoryview]:
    pieces, at = [], 0
    for name, size in wanted:
        pieces.append(data[at : at + size])
        if blake3(pieces[-1]).hexdigest() != name:
            raise BadArtifact(f"chunk {name[:16]} does not have its hash", "it is fetched elsewhere")
        at += size
    return pieces


def batches(sizes: dict[str, int]) -> list[list[tuple[str, int]]]:
    """Chunks in the groups in which they are fetched."""
    items = list(sizes.items())
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


async def hash_of(data: bytes | bytearray) -> str:
    """BLAKE3 of much, in a thread; 64 hex digits."""
    return await anyio.to_thread.run_sync(lambda: str(blake3(data).hexdigest()))


def read_manifest(data: bytes, seen: Checkpoint) -> CheckpointManifest:
    """A manifest's bytes, whose hash was checked, read as what was announced; BadArtifact when it is not."""
    try:
        manifest = CheckpointManifest.read(data)
    except (InvalidInput, TooLarge) as error:
        raise BadArtifact(f"a checkpoint's manifest is none: {error.fact}", "it is not kept") from None
    if (manifest.total_bytes, len(manifest.files)) != (seen.bytes, seen.files):
        raise BadArtifact("a checkpoint's manifest is not what was announced", "it is not kept")
    return manifest


def kept_of(key: Key, manifest: CheckpointManifest, fetched_bytes: int = 0) -> Kept:
    """What is known of a checkpoint that counts."""
    return Kept(
        key.attempt, key.number, manifest.step, manifest.total_bytes, len(manifest.files), fetched_bytes, key.manifest
    )
