"""What keeps checkpoints, against providers that lie about them; on this disk, and in a real bucket."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from buckets import ENVIRON
from minga.client import points
from minga.client.checkpoints import CheckpointRejected, Keeper, check_destination, make_keeper
from minga.client.chunk_source import BATCH, Source, batches
from minga.client.folder import JobFolder, NoRoomHere
from minga.core import faults
from minga.core.checkpoint import CHUNK_BYTES, Checkpoint, CheckpointManifest, ChunkedFile
from minga.core.crypto import blake3_hex
from minga.core.errors import BadArtifact, InvalidInput, MingaError, NotFound, ProviderUnreachable
from minga.store.chunks import DiskChunks
from minga.transport.bulk import Landing

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

Files = dict[str, bytes]
BIG = bytes(range(256)) * (CHUNK_BYTES // 256)


@dataclass
class Provider:
    """A provider's side: blobs it gives, what it is asked for, and what it holds. `cut_after`: bytes per answer."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    received: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    cut_after: int = 1 << 60
    gate: Callable[[list[str]], Awaitable[None]] | None = None

    def announce(self, number: int, files: Files, executable: tuple[str, ...] = (), **changes: Any) -> Checkpoint:
        """Make a checkpoint of `files`; `changes` are lies of the announcement."""
        listed = []
        for path, data in files.items():
            pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
            self.blobs |= {blake3_hex(piece): piece for piece in pieces}
            names = [blake3_hex(piece) for piece in pieces]
            listed.append(ChunkedFile(path=path, bytes=len(data), chunks=names, executable=path in executable))
        return self.manifest(number, CheckpointManifest(step=number * 10, files=listed).canonical(), **changes)

    def manifest(self, number: int, data: bytes, **changes: Any) -> Checkpoint:
        """Announce any bytes as a manifest."""
        name = blake3_hex(data)
        self.blobs[name] = data
        try:
            found = CheckpointManifest.read(data)
            counts = {"bytes": found.total_bytes, "files": len(found.files)}
        except MingaError:
            counts = {"bytes": 1, "files": 1}
        return Checkpoint(**({"number": number, "manifest": name, "manifest_bytes": len(data)} | counts | changes))

    async def fetch(self, names: list[str], landing: Landing) -> None:
        """As `ProviderApi.fetch`."""
        self.asked += names
        if self.gate is not None:
            await self.gate(names)
        if absent := [name for name in names if name not in self.blobs]:
            raise NotFound(f"blob {absent[0][:16]} is no file of this lease", "see its events")
        data = b"".join(self.blobs[name] for name in names)[landing.held :]
        landing.take(data[: self.cut_after])
        if not landing.is_whole:
            raise ProviderUnreachable("the answer ended early", "it is tried again")

    async def send_blob(self, name: str, piece: Callable[[int], Awaitable[bytes]], sent: Callable[[], None]) -> None:
        """As `ProviderApi.send_blob`."""
        self.received[name] = await piece(0)
        sent()

    async def status(self) -> Any:
        """As `ProviderApi.status`."""
        return self

    @property
    def source(self) -> Source:
        """What a keeper sees of it."""

        async def ask(what: Callable[[], Awaitable[Any]]) -> Any:
            return await what()

        return Source(self, ask)  # type: ignore[arg-type]


@pytest.fixture
def provider() -> Provider:
    return Provider()


def keeper_at(path: Path, bytes_max: int = 1 << 40) -> Keeper:
    return Keeper(DiskChunks(path / "kept"), path / "scratch", bytes_max)


async def files_of(keeper: Keeper, target: Path) -> Files | None:
    """The files of the newest checkpoint that counts."""
    restore = await keeper.newest()
    if restore is None:
        return None
    await keeper.write(restore, target)
    return tree(target)


def tree(target: Path) -> Files:
    """The files below a folder."""
    found = sorted(path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in found}


def chunks_on(path: Path) -> set[str]:
    """Every chunk file, also those that are on their way."""
    return {file.name.removeprefix("put-") for file in (path / "kept" / "chunks").rglob("*") if file.is_file()}


FIRST: Files = {"model/a.bin": BIG + b"tail", "run.sh": b"#!/bin/sh\n", "empty": b"", "same.bin": BIG}


async def test_a_checkpoint_comes_back_as_it_was(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    assert await keeper.newest() is None
    kept = await keeper.keep(provider.source, 0, provider.announce(1, FIRST, ("run.sh",)))
    assert kept is not None
    assert (kept.attempt, kept.number, kept.step, kept.files) == (0, 1, 10, 4)
    assert kept.bytes == sum(map(len, FIRST.values()))
    assert kept.fetched_bytes == CHUNK_BYTES + 4 + 10
    assert await files_of(keeper, tmp_path / "out") == FIRST
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o111
    assert not (tmp_path / "out" / "empty").stat().st_mode & 0o111


async def test_only_what_changed_is_fetched_and_the_last_two_are_kept(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    for number in (1, 2, 3):
        files = {"big": BIG, "small": b"%d" % number}
        provider.asked.clear()
        kept = await keeper.keep(provider.source, 0, provider.announce(number, files))
        assert kept is not None
        assert kept.fetched_bytes == (CHUNK_BYTES + 1 if number == 1 else 1)
        assert len(provider.asked) == (3 if number == 1 else 2)
        assert await files_of(keeper, tmp_path / str(number)) == files
    assert chunks_on(tmp_path) == {blake3_hex(BIG), blake3_hex(b"2"), blake3_hex(b"3")}
    assert len(list((tmp_path / "kept").glob("*.json"))) == 2
    kept = await keeper.keep(provider.source, 1, provider.announce(1, {"other": b"x"}))
    assert await files_of(keeper, tmp_path / "next") == {"other": b"x"}
    await keeper.keep(provider.source, 1, provider.announce(2, {"other": b"y"}))
    assert chunks_on(tmp_path) == {blake3_hex(b"x"), blake3_hex(b"y")}


async def test_a_cut_at_any_byte_is_gone_on_from(provider: Provider, tmp_path: Path):
    files = {"a": b"0123456789", "b": b"abc"}
    checkpoint = provider.announce(1, files)
    for cut_after in range(7, 14):
        provider.cut_after = cut_after
        keeper = keeper_at(tmp_path / str(cut_after))
        await keeper.keep(provider.source, 0, checkpoint)
        assert await files_of(keeper, tmp_path / str(cut_after) / "out") == files
    provider.cut_after = 1  # of a manifest of hundreds of bytes
    with pytest.raises(ProviderUnreachable):
        await keeper_at(tmp_path / "dribbled").keep(provider.source, 0, checkpoint)
    provider.cut_after = 0
    with pytest.raises(ProviderUnreachable):
        await keeper_at(tmp_path / "none").keep(provider.source, 0, checkpoint)


async def test_what_came_before_a_kill_is_not_fetched_again(provider: Provider, tmp_path: Path):
    files = {f"f{index}": b"%d" % index * 100 for index in range(50 * BATCH)}
    checkpoint = provider.announce(1, files)
    written = 0

    class Killed(BaseException):
        pass

    def kill(point: str) -> None:
        nonlocal written
        written += point == "client.checkpoint.chunk"
        if written == 5:
            raise Killed

    faults.install(kill)
    try:
        with pytest.raises(BaseException) as caught:
            await keeper_at(tmp_path).keep(provider.source, 0, checkpoint)
        assert caught.group_contains(Killed) if isinstance(caught.value, BaseExceptionGroup) else True
    finally:
        faults.remove(kill)
    again = keeper_at(tmp_path)
    assert await again.newest() is None
    kept = await again.keep(provider.source, 0, checkpoint)
    assert kept is not None
    assert 0 < kept.fetched_bytes < kept.bytes
    assert await files_of(again, tmp_path / "out") == files


KEEP_POINTS = [point for point in points.POINTS if point.startswith("client.checkpoint.")]


@pytest.mark.parametrize("point", KEEP_POINTS)
async def test_cut_off_at_any_point_the_next_try_ends_it(point: str, provider: Provider, tmp_path: Path):
    await keeper_at(tmp_path).keep(provider.source, 0, provider.announce(1, {"a": b"old"}))
    checkpoint = provider.announce(2, {"a": b"new", "b": BIG})
    with anyio.CancelScope() as scope:

        def cut(reached: str) -> None:
            if reached == point:
                scope.cancel()
                raise InterruptedError(reached)

        faults.install(cut)
        try:
            await keeper_at(tmp_path).keep(provider.source, 0, checkpoint)
        except (InterruptedError, BaseExceptionGroup):
            pass
        finally:
            faults.remove(cut)
    counts = await keeper_at(tmp_path).newest()
    assert counts is not None
    assert counts.kept.number == (2 if point in ("client.checkpoint.kept", "client.checkpoint.collected") else 1)
    again = await keeper_at(tmp_path).keep(provider.source, 0, checkpoint)
    assert again is not None
    assert await files_of(keeper_at(tmp_path), tmp_path / "out") == {"a": b"new", "b": BIG}


# ------------------------------------------------------------------------------------------------------ bad providers


def lies(provider: Provider) -> dict[str, Checkpoint]:
    """Checkpoints that must not count."""
    good = provider.announce(1, {"a": b"x"})
    name = blake3_hex(b"x")
    far = {"path": "a", "bytes": 10**15, "chunks": [name]}
    withheld = provider.announce(1, {"a": b"never served"})
    del provider.blobs[blake3_hex(b"never served")]
    forged = provider.announce(1, {"a": b"honest"})
    provider.blobs[blake3_hex(b"honest")] = b"forged"
    longer = provider.announce(1, {"a": b"len"})
    provider.blobs[blake3_hex(b"len")] = b"length"
    shorter = provider.announce(1, {"a": b"length two"})
    provider.blobs[blake3_hex(b"length two")] = b"len"

    def listing(*files: Any) -> Checkpoint:
        return provider.manifest(1, json.dumps({"files": files, "version": 1}).encode())

    one = {"path": "a", "bytes": 1, "chunks": [name]}
    many = {"path": "a", "bytes": CHUNK_BYTES * 120_000, "chunks": [name] * 120_000}
    return {
        "more bytes than chunks": listing(far),
        "more than the job ordered": listing(many),
        "another count": good.model_copy(update={"files": 2}),
        "another size": good.model_copy(update={"bytes": 2}),
        "a manifest that is shorter": good.model_copy(update={"manifest_bytes": 5}),
        "a manifest that is longer": good.model_copy(update={"manifest_bytes": 5000}),
        "a manifest that is not served": good.model_copy(update={"manifest": "ab" * 32}),
        "no manifest": provider.manifest(1, b"rubbish"),
        "a path outside": listing({**one, "path": "../../x"}),
        "an absolute path": listing({**one, "path": "/tmp/x"}),
        "one path twice": listing(one, one),
        "a path through a file": listing(one, {**one, "path": "a/b"}),
        "a chunk of two sizes": listing(one, {"path": "b", "bytes": 2, "chunks": [name]}),
        "an unknown field": listing({**one, "mode": 0o4755}),
        "a chunk that is never served": withheld,
        "a chunk of other bytes": forged,
        "a chunk that is longer": longer,
        "a chunk that is shorter": shorter,
    }


@pytest.mark.parametrize("lie", sorted(lies(Provider())))
async def test_a_lie_counts_for_nothing_and_fills_nothing(lie: str, provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path, bytes_max=1 << 20)
    await keeper.keep(provider.source, 0, provider.announce(1, {"a": b"honest work"}))
    bad = lies(provider)[lie]
    with pytest.raises(MingaError):
        await keeper.keep(provider.source, 1, bad)
    assert await files_of(keeper, tmp_path / "out") == {"a": b"honest work"}
    assert chunks_on(tmp_path) <= {blake3_hex(b"honest work"), blake3_hex(b"x")}
    assert {name.partition("/")[0] for name in tree(tmp_path)} == {"kept", "out"}
    kept = await keeper.keep(provider.source, 1, provider.announce(2, {"a": b"honest again"}))
    assert kept is not None


async def test_checkpoints_that_come_faster_than_they_can_be_fetched_are_left_out(provider: Provider, tmp_path: Path):
    keeper, results = keeper_at(tmp_path), {}
    started, go_on = anyio.Event(), anyio.Event()

    async def gate(names: list[str]) -> None:
        started.set()
        await go_on.wait()

    async def keep(number: int) -> None:
        results[number] = await keeper.keep(provider.source, 0, provider.announce(number, {"a": b"%d" % number}))

    provider.gate = gate
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep, 1)
        await started.wait()
        for number in range(2, 200):
            tasks.start_soon(keep, number)
        await anyio.lowlevel.checkpoint()
        go_on.set()
    assert [number for number, kept in results.items() if kept is not None] == [1, 199]
    assert len(provider.asked) == 4
    assert await files_of(keeper, tmp_path / "out") == {"a": b"199"}


async def test_one_that_was_replaced_while_it_was_fetched_is_left_for_the_newer(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    first = provider.announce(1, {"a": b"gone"})
    del provider.blobs[blake3_hex(b"gone")]
    async with anyio.create_task_group() as tasks:

        async def newer(names: list[str]) -> None:
            provider.gate = None
            tasks.start_soon(keeper.keep, provider.source, 0, provider.announce(2, {"a": b"here"}))
            await anyio.lowlevel.checkpoint()

        provider.gate = newer
        assert await keeper.keep(provider.source, 0, first) is None
    assert await files_of(keeper, tmp_path / "out") == {"a": b"here"}


async def test_an_older_number_never_replaces_a_newer(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    newer, older = provider.announce(5, {"a": b"5"}), provider.announce(3, {"a": b"3"})
    assert await keeper.keep(provider.source, 1, newer) is not None
    for attempt, checkpoint in ((1, older), (0, provider.announce(9, {"a": b"9"}))):
        assert await keeper.keep(provider.source, attempt, checkpoint) is None
    again = await keeper_at(tmp_path).keep(provider.source, 1, newer)
    assert again is not None
    assert again.fetched_bytes == 0
    assert await files_of(keeper, tmp_path / "out") == {"a": b"5"}


# -------------------------------------------------------------------------------------------------- the tenant's check


async def test_what_the_tenants_check_refuses_does_not_count(provider: Provider, tmp_path: Path):
    keeper, seen = keeper_at(tmp_path), []

    async def accept(folder: Path) -> bool:
        seen.append(tree(folder))
        return seen[-1]["loss"] == b"low"

    good, bad = provider.announce(1, {"loss": b"low"}), provider.announce(2, {"loss": b"high"})
    assert await keeper.keep(provider.source, 0, good, accept) is not None
    assert await keeper.keep(provider.source, 0, good, accept) is not None
    with pytest.raises(CheckpointRejected):
        await keeper.keep(provider.source, 0, bad, accept)
    assert seen == [{"loss": b"low"}, {"loss": b"high"}]
    assert await files_of(keeper, tmp_path / "out") == {"loss": b"low"}
    assert not (tmp_path / "scratch" / "judged").exists()


async def test_a_check_that_cannot_run_leaves_nothing_behind(provider: Provider, tmp_path: Path):
    async def accept(folder: Path) -> bool:
        raise InvalidInput("the check is not there", "install it")

    with pytest.raises(InvalidInput):
        await keeper_at(tmp_path).keep(provider.source, 0, provider.announce(1, {"a": b"x"}), accept)
    assert await keeper_at(tmp_path).newest() is None
    assert not (tmp_path / "scratch" / "judged").exists()


# ---------------------------------------------------------------------------------------------------------- restoring


async def test_the_next_provider_is_sent_what_it_lacks(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    await keeper.keep(provider.source, 0, provider.announce(1, FIRST))
    restore = await keeper.newest()
    assert restore is not None
    assert (restore.bundle.kind, restore.bundle.target) == ("checkpoint", "/job/checkpoint")
    lacks = blake3_hex(b"tail")
    other = Provider(missing=[lacks, "0" * 64])
    await keeper.send(restore, other.source, [restore.bundle.blake3])
    assert other.received == {restore.bundle.blake3: restore.data, lacks: b"tail"}
    knows = Provider()
    await keeper.send(restore, knows.source, [])
    assert knows.received == {}


async def test_a_damaged_chunk_is_never_restored(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    await keeper.keep(provider.source, 0, provider.announce(1, {"a": b"old"}))
    await keeper.keep(provider.source, 0, provider.announce(2, {"a": b"new"}))
    name = blake3_hex(b"new")
    (tmp_path / "kept" / "chunks" / name[:2] / name).write_bytes(b"bad")
    restore = await keeper.newest()
    assert restore is not None
    with pytest.raises(BadArtifact):
        await keeper.write(restore, tmp_path / "out")
    with pytest.raises(BadArtifact):
        await keeper.send(restore, Provider(missing=[name]).source, [])
    assert await files_of(keeper, tmp_path / "old") == {"a": b"old"}


@pytest.mark.parametrize("harm", ["a chunk is gone", "a chunk is short", "the manifest is torn", "a stranger's file"])
async def test_half_a_checkpoint_never_counts(harm: str, provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    await keeper.keep(provider.source, 0, provider.announce(1, {"a": b"old"}))
    await keeper.keep(provider.source, 0, provider.announce(2, {"a": b"new"}))
    name, kept = blake3_hex(b"new"), tmp_path / "kept"
    chunk, (manifest,) = kept / "chunks" / name[:2] / name, list(kept.glob("0-2-*.json"))
    match harm:
        case "a chunk is gone":
            chunk.unlink()
        case "a chunk is short":
            chunk.write_bytes(b"ne")
        case "the manifest is torn":
            manifest.write_bytes(manifest.read_bytes()[:-1])
        case "a stranger's file":
            manifest.rename(kept / f"7-7-{'0' * 64}.json")
            (kept / "notes.json").write_text("{}")
    assert await files_of(keeper, tmp_path / "out") == {"a": b"old"}


async def test_files_are_not_written_through_what_stands_there(provider: Provider, tmp_path: Path):
    keeper = keeper_at(tmp_path)
    await keeper.keep(provider.source, 0, provider.announce(1, {"sub/a": b"x", "b": b"y"}))
    out, precious = tmp_path / "out", tmp_path / "precious"
    precious.mkdir()
    out.mkdir()
    (out / "sub").symlink_to(precious)
    restore = await keeper.newest()
    assert restore is not None
    with pytest.raises(MingaError):
        await keeper.write(restore, out)
    assert list(precious.iterdir()) == []


async def test_no_room_here_is_our_own_trouble(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keeper = keeper_at(tmp_path)
    monkeypatch.setattr("minga.store.blobs.BlobStore.put", lambda *_: (_ for _ in ()).throw(NoRoomHere("full", "free")))
    with pytest.raises(NoRoomHere):
        await keeper.keep(provider.source, 0, provider.announce(1, {"a": b"x"}))
    assert await keeper.newest() is None


def test_chunks_are_asked_for_in_groups():
    sizes = {f"{index:064x}": index for index in range(2 * BATCH + 1)}
    found = batches(sizes)
    assert [len(group) for group in found] == [BATCH, BATCH, 1]
    assert {name: size for group in found for name, size in group} == sizes
    assert batches({}) == []


# -------------------------------------------------------------------------------------------------------- the bucket


async def test_another_machine_with_the_same_keys_finds_the_newest_in_the_bucket(
    bucket_server: str, provider: Provider, tmp_path: Path
):
    def machine(name: str, job: str = "0xjob") -> Keeper:
        folder = JobFolder(tmp_path / name)
        return make_keeper(folder, job, 1 << 40, "s3://keeper/prefix", bucket_server, ENVIRON)

    await machine("one", "0xneighbour")._destination.put("ab" * 32, b"a store has its bucket before it is used")
    for number in (1, 2, 3):
        kept = await machine("one").keep(provider.source, 0, provider.announce(number, {"a": b"%d" % number, "b": BIG}))
        assert kept is not None
        assert kept.fetched_bytes == (CHUNK_BYTES + 1 if number == 1 else 1)
    other = machine("two")
    assert await files_of(other, tmp_path / "out") == {"a": b"3", "b": BIG}
    restore = await other.newest()
    assert restore is not None
    target = Provider(missing=sorted(restore.manifest.sizes()))
    await other.send(restore, target.source, [restore.bundle.blake3])
    assert target.received.keys() == {restore.bundle.blake3, *restore.manifest.sizes()}
    assert await machine("two", "0xother").newest() is None
    assert not any(ENVIRON["AWS_SECRET_ACCESS_KEY"].encode() in data for data in target.received.values())
    held = await other._destination.held()
    assert held.keys() == {blake3_hex(b"2"), blake3_hex(b"3"), blake3_hex(BIG)}


def test_destinations_are_judged_by_their_words(tmp_path: Path):
    check_destination("")
    check_destination("s3://bucket/prefix", "https://example.org")
    for to, endpoint in (("bucket", ""), ("", "https://example.org"), ("s3://bucket", "http://example.org")):
        with pytest.raises(InvalidInput):
            check_destination(to, endpoint)
    with pytest.raises(InvalidInput, match="credentials"):
        make_keeper(JobFolder(tmp_path), "0xjob", 1, "s3://bucket/prefix", "", {"HOME": str(tmp_path)})
