"""Checkpoints at the provider: taken out of a job's folder, put into one, given to the tenant and to nobody else."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import SystemClock
from minga.client.provider_api import ProviderApi
from minga.core.checkpoint import CHUNK_BYTES, CheckpointManifest, ChunkedFile
from minga.core.crypto import blake3_hex
from minga.core.errors import (
    BadArtifact,
    InvalidInput,
    MingaError,
    NotFound,
    TooLarge,
    Unauthorized,
    UnsafePath,
)
from minga.core.spec import Bundle, Manifest, UnitSize
from minga.provider import checkpoints as module
from minga.provider import events as ev
from minga.provider.agent import begin
from minga.provider.checkpoints import CheckpointWatch
from minga.provider.inventory import BUSY_S, Inventory
from minga.provider.lease import LeaseRun, World
from minga.provider.prepare import Workplace
from minga.provider.serving import build_app
from minga.runtimes.runtime import OutputFile
from minga.store.blobs import BlobStore
from minga.store.checkpoints import assemble, read_manifest
from minga.store.journal import Journal
from minga.transport.bulk import Landing
from minga.transport.http import connect, serve
from minga.transport.memory import connect_memory

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CHANNEL = "0x" + "cd" * 32
JOB = "0x" + "ab" * 32
BIG = bytes(range(256)) * (CHUNK_BYTES // 256)
SIZE = UnitSize(cpu_milli=500, memory_bytes=1 << 27, disk_bytes=1 << 25)


class Folder:
    """A job's folder in memory, as a handle shows it."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"checkpoint/{name}": data for name, data in files.items()}
        self.on_open: Callable[[str], None] = lambda path: None

    async def list_outputs(self, **_: int) -> list[OutputFile]:
        return [OutputFile(path, len(data)) for path, data in sorted(self.files.items())]

    async def open_output(self, path: str) -> io.BytesIO:
        self.on_open(path)
        if path not in self.files:
            raise NotFound(f"no {path}", "")
        return io.BytesIO(self.files[path])


def watch_of(folder: Folder, blobs: BlobStore, bytes_max: int = 1 << 30, parent: str | None = None) -> CheckpointWatch:
    return CheckpointWatch(folder, blobs, bytes_max, parent)  # type: ignore[arg-type]


def contents(blobs: BlobStore, manifest: CheckpointManifest) -> dict[str, bytes]:
    """The files that a manifest names, out of the blobs."""
    return {file.path: b"".join(b"".join(blobs.read(name)) for name in file.chunks) for file in manifest.files}


# ------------------------------------------------------------------------------------------------------------- taking


async def test_a_checkpoint_is_taken_whole_and_only_what_changed_is_written(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    folder = Folder(big=BIG + b"1", same=BIG, empty=b"")
    folder.files |= {"checkpoint/.hidden": b"x", "checkpoint/x.tmp": b"x", "checkpoint/.d/y": b"x", "out/z": b"x"}
    watch = watch_of(folder, blobs)
    first = await watch.take(40)
    assert first is not None
    manifest = read_manifest(blobs, first["manifest"])
    assert (manifest.step, manifest.parent) == (40, None)
    assert contents(blobs, manifest) == {"big": BIG + b"1", "empty": b"", "same": BIG}
    assert (first["bytes"], first["files"]) == (2 * CHUNK_BYTES + 1, 3)
    assert first["manifest_bytes"] == blobs.size(first["manifest"])
    assert await watch.take() is None
    before = blobs.sizes().keys()
    folder.files["checkpoint/big"] = BIG + b"22"
    second = await watch.take()
    assert second is not None
    assert blobs.sizes().keys() - before == {blake3_hex(b"22"), second["manifest"]}
    assert read_manifest(blobs, second["manifest"]).parent == first["manifest"]


async def test_what_changes_while_it_is_copied_waits_for_the_next_look(tmp_path: Path):
    folder, opened = Folder(a=b"1", b=b"2"), []

    def change(path: str) -> None:
        opened.append(path)
        if len(opened) == 4:
            folder.files["checkpoint/a"] = b"longer"

    folder.on_open = change
    blobs = BlobStore(tmp_path)
    watch = watch_of(folder, blobs)
    assert await watch.take() is None
    taken = await watch.take()
    assert taken is not None
    assert contents(blobs, read_manifest(blobs, taken["manifest"])) == {"a": b"longer", "b": b"2"}


async def test_a_restart_or_a_restored_job_does_not_tell_again_what_is_known(tmp_path: Path):
    folder, blobs = Folder(a=b"1"), BlobStore(tmp_path)
    taken = await watch_of(folder, blobs).take()
    assert taken is not None
    again = watch_of(folder, blobs, parent=taken["manifest"])
    assert await again.take() is None
    folder.files["checkpoint/a"] = b"22"
    assert await again.take() is not None
    forgotten = watch_of(folder, blobs, parent="ab" * 32)
    assert await forgotten.take() is not None


@pytest.mark.parametrize(("bytes_max", "kept"), [(3, False), (4, True)])
async def test_one_larger_than_the_disk_is_refused_once(tmp_path: Path, bytes_max: int, kept: bool):
    watch = watch_of(Folder(a=b"12", b=b"34"), BlobStore(tmp_path), bytes_max)
    if kept:
        assert await watch.take() is not None
        return
    with pytest.raises(BadArtifact, match="not kept"):
        await watch.take()
    assert await watch.take() is None


async def test_names_and_lists_that_cannot_travel_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = Folder()
    folder.files["checkpoint/a\\b"] = b"x"
    with pytest.raises(BadArtifact):
        await watch_of(folder, BlobStore(tmp_path)).take()
    monkeypatch.setattr(module, "MANIFEST_BYTES_MAX", 10)
    with pytest.raises(BadArtifact, match="list"):
        await watch_of(Folder(a=b"x"), BlobStore(tmp_path)).take()


async def test_a_link_is_not_followed(tmp_path: Path):
    folder = Folder(a=b"x")

    def refuse(path: str) -> None:
        raise UnsafePath("a link", "")

    folder.on_open = refuse
    assert await watch_of(folder, BlobStore(tmp_path)).take() is None


# ---------------------------------------------------------------------------------------------------------- restoring


def stored(blobs: BlobStore, *files: tuple[str, bytes, bool]) -> str:
    """A checkpoint in the blobs; its manifest's name."""
    listed = []
    for path, data, executable in files:
        names = [blobs.add_bytes(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
        listed.append(ChunkedFile(path=path, bytes=len(data), chunks=names, executable=executable))
    return blobs.add_bytes(CheckpointManifest(files=listed).canonical())


def test_the_job_sees_the_same_files(tmp_path: Path):
    blobs, out = BlobStore(tmp_path / "blobs"), tmp_path / "out"
    name = stored(blobs, ("d/model", BIG + b"end", False), ("run", b"#!", True), ("none", b"", False))
    assemble(blobs, name, out, 1 << 30)
    assert (out / "d/model").read_bytes() == BIG + b"end"
    assert [bool((out / path).stat().st_mode & 0o100) for path in ("d/model", "run", "none")] == [False, True, False]


def test_what_is_not_whole_or_too_large_is_not_assembled(tmp_path: Path):
    blobs = BlobStore(tmp_path / "blobs")
    name = stored(blobs, ("a", BIG, False))
    with pytest.raises(TooLarge):
        assemble(blobs, name, tmp_path / "large", CHUNK_BYTES - 1)
    with pytest.raises(InvalidInput):
        assemble(blobs, blobs.add_bytes(b"rubbish"), tmp_path / "rubbish", 1 << 30)
    short = CheckpointManifest(files=[ChunkedFile(path="a", bytes=9, chunks=[blake3_hex(BIG)])])
    with pytest.raises(InvalidInput):
        assemble(blobs, blobs.add_bytes(short.canonical()), tmp_path / "short", 1 << 30)
    blobs.remove(blake3_hex(BIG))
    with pytest.raises(NotFound):
        assemble(blobs, name, tmp_path / "gone", 1 << 30)


def manifest_with(name: str, size: int) -> Manifest:
    bundle = Bundle(kind="checkpoint", target="/job/checkpoint", blake3=name, bytes=size)
    return Manifest(job=JOB, attempt=1, name="test", run="true", size=SIZE, inputs=[bundle])


def test_chunks_may_come_once_the_manifest_is_there_and_complete_it(tmp_path: Path):
    other = BlobStore(tmp_path / "tenant")
    name = stored(other, ("a", b"one", False), ("b", b"two", False))
    manifest, place = manifest_with(name, other.size(name)), Workplace(tmp_path / "lease")
    inventory = Inventory(place)
    one, two = blake3_hex(b"one"), blake3_hex(b"two")
    assert inventory.missing(manifest, (name,)) == [name]
    with pytest.raises(NotFound):
        inventory.expected_bytes(manifest, one)
    place.blobs.add_bytes(b"".join(other.read(name)))
    assert inventory.completed(manifest, (name,), name) == []
    assert inventory.missing(manifest, (name,)) == sorted([one, two])
    assert inventory.expected_bytes(manifest, one) == 3
    place.blobs.add_bytes(b"one")
    assert inventory.completed(manifest, (name,), one) == []
    again = Inventory(place)  # a restart
    assert again.missing(manifest, (name,)) == [two]
    place.blobs.add_bytes(b"two")
    assert again.completed(manifest, (name,), two) == [name]
    assert again.missing(manifest, ()) == []


@pytest.mark.parametrize("data", [b"rubbish", b'{"files":[{"path":"a","bytes":9,"chunks":[]}],"version":1}'])
def test_a_manifest_that_is_none_is_refused_and_removed(data: bytes, tmp_path: Path):
    place = Workplace(tmp_path)
    name = place.blobs.add_bytes(data)
    with pytest.raises(InvalidInput):
        Inventory(place).completed(manifest_with(name, len(data)), (name,), name)
    assert not place.blobs.has(name)


def test_a_checkpoint_larger_than_the_disk_that_was_ordered_is_refused(tmp_path: Path):
    place = Workplace(tmp_path)
    huge = ChunkedFile(path="a", bytes=CHUNK_BYTES * 9, chunks=["ab" * 32] * 9)
    name = place.blobs.add_bytes(CheckpointManifest(files=[huge]).canonical())
    with pytest.raises(TooLarge):
        Inventory(place).completed(manifest_with(name, 1), (name,), name)


def test_what_an_earlier_lease_of_the_job_left_is_not_sent_again(tmp_path: Path):
    earlier, place = Workplace(tmp_path / "earlier"), Workplace(tmp_path / "now")
    name = stored(earlier.blobs, ("a", b"one", False), ("b", b"two", False))
    earlier.blobs.remove(blake3_hex(b"two"))
    inventory, manifest = Inventory(place), manifest_with(name, 1)
    inventory.borrow(manifest, [BlobStore(tmp_path / "empty"), earlier.blobs])
    assert inventory.missing(manifest, (name,)) == [blake3_hex(b"two")]
    earlier.remove()
    assert b"".join(place.blobs.read(blake3_hex(b"one"))) == b"one"


# ------------------------------------------------------------------------------------------------------------- giving


def lease_at(home: Path, **changes: Any) -> LeaseRun:
    """A lease of which only its files matter."""
    facts = {item.name: 0 if item.type == "int" else "0" for item in fields(ev.Opened)} | {"channel": CHANNEL}
    parts: dict[str, Any] = {item.name: None for item in fields(World)}
    world = World(**(parts | {"clock": SystemClock(), "home": home, "journal": Journal(home / "journal.db")}))
    return LeaseRun(world, replace(begin(ev.Opened(**facts)), **changes), [], None)


def kept(number: int, name: str) -> dict[str, Any]:
    return {"number": number, "manifest": name, "manifest_bytes": 1, "bytes": 1, "files": 1}


class Desk:
    """Lets one token in."""

    def __init__(self, lease: LeaseRun) -> None:
        self.lease = lease

    def authorised(self, channel: str, token: str) -> LeaseRun:
        """The lease."""
        if (channel, token) != (CHANNEL, "token"):
            raise Unauthorized("no valid token", "log in")
        return self.lease


@asynccontextmanager
async def served(lease: LeaseRun, carrier: str) -> AsyncIterator[ProviderApi]:
    app: Any = build_app(Desk(lease))  # type: ignore[arg-type]
    if carrier == "memory":
        async with connect_memory(app) as client:
            yield _api(client)
    else:
        async with serve(app, "127.0.0.1", 0) as server, connect(server.url, timeout_s=5) as client:
            yield _api(client)


def _api(client: httpx.AsyncClient) -> ProviderApi:
    api = ProviderApi(client, CHANNEL)
    api.token = "token"
    return api


@pytest.mark.parametrize("carrier", ["http", "memory"])
async def test_a_tenant_fetches_chunks_of_kept_checkpoints_and_nothing_else(carrier: str, tmp_path: Path):
    blobs = Workplace(tmp_path / "leases" / CHANNEL[2:]).blobs
    name = stored(blobs, ("a", BIG + b"tail", False))
    private = blobs.add_bytes(b"an input of the tenant's")
    lease = lease_at(tmp_path, checkpoints=(kept(1, name), kept(2, "ab" * 32)))
    wanted = [blake3_hex(BIG), blake3_hex(b"tail")]
    async with served(lease, carrier) as api:
        landing = Landing(CHUNK_BYTES + 4)
        for start in (0, 7, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 3):
            landing.held = start
            await api.fetch(wanted, landing)
            assert landing.data == BIG + b"tail"
        for names in ([private], ["ab" * 32 + "x"], [wanted[0], "cd" * 32], [], wanted * 9):
            with pytest.raises(MingaError):
                await api.fetch(names, Landing(5))
        api.token = "other"
        with pytest.raises(Unauthorized):
            await api.fetch(wanted, Landing(CHUNK_BYTES + 4))


async def test_a_checkpoint_stays_while_it_is_fetched(tmp_path: Path):
    inventory, clock = Inventory(Workplace(tmp_path)), SystemClock()
    now = clock.monotonic()
    assert not inventory.is_fetched(now)
    with inventory.giving(clock):
        assert inventory.is_fetched(now + 1000)
    assert inventory.is_fetched(clock.monotonic())
    assert not inventory.is_fetched(clock.monotonic() + BUSY_S)
    with pytest.raises(anyio.BrokenResourceError), inventory.giving(clock):
        raise anyio.BrokenResourceError
    assert not inventory.is_fetched(clock.monotonic() + BUSY_S)


def test_what_no_kept_checkpoint_names_is_swept_away(tmp_path: Path):
    place = Workplace(tmp_path)
    blobs = place.blobs
    restored, old, new = (stored(blobs, (text, text.encode(), False)) for text in ("restored", "old", "new"))
    artifact, workdir = blobs.add_bytes(b"artifact"), blobs.add_bytes(b"workdir")
    blobs.put(blake3_hex(b"half"), b"half")
    inputs = [
        Bundle(kind="workdir", target="/job/work", blake3=workdir, bytes=7),
        *manifest_with(restored, blobs.size(restored)).inputs,
    ]
    manifest = manifest_with(restored, 1).model_copy(update={"inputs": inputs})
    lease = replace(
        begin(ev.Opened(**{item.name: 0 if item.type == "int" else "0" for item in fields(ev.Opened)})),
        manifest=manifest.plain(), checkpoints=(kept(2, new),), files=({"blake3": artifact},),
    )  # fmt: skip
    Inventory(place).sweep(lease)
    names = {restored, new, artifact, workdir, blake3_hex(b"restored"), blake3_hex(b"new")}
    assert blobs.sizes().keys() == names
    assert old not in names
    assert list((blobs.folder / "partial").glob("put-*")) == []
