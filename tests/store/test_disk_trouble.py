"""Disks that are full, failing or damaged: one error each, nothing acknowledged, and all of it goes on afterwards."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import blake3_hex
from minga.core.errors import BadArtifact, Conflict, DiskFull, InternalError, InvalidInput, NotFound, TooLarge
from minga.store.blobs import BlobStore, hash_file, sync_folder, write_atomic
from minga.store.chunks import DiskChunks
from minga.store.journal import Journal

DATA = bytes(range(256)) * 16
NAME = blake3_hex(DATA)
FULL = [errno.ENOSPC, errno.EDQUOT]


def failing(number: int) -> Callable[..., Any]:
    """Stands for a system call that fails."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def names_in(folder: Path) -> list[str]:
    """Every file beneath, by name."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


WRITES: dict[str, Callable[[BlobStore, Path], object]] = {
    "bytes": lambda store, _: store.add_bytes(DATA),
    "a file": lambda store, source: store.add_file(source),
    "a stream": lambda store, _: store.add_stream(io.BytesIO(DATA)),
}


@pytest.mark.parametrize("number", FULL)
@pytest.mark.parametrize("what", sorted(WRITES))
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_blob_that_could_not_be_made_durable_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, call: str, number: int
) -> None:
    store, source = BlobStore(tmp_path / "store"), tmp_path / "source"
    source.write_bytes(DATA)
    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", failing(number))
        else:
            patch.setattr(Path, "replace", failing(number))
        with pytest.raises(DiskFull) as caught:
            WRITES[what](store, source)
    assert caught.value.remedy
    assert not store.has(NAME)
    assert store.sizes() == {}
    WRITES[what](store, source)
    assert store.sizes() == {NAME: len(DATA)}
    assert b"".join(store.read(NAME)) == DATA


def test_another_failure_of_the_disk_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as caught:
        store.add_bytes(DATA)
    assert caught.value.errno == errno.EIO
    assert not store.has(NAME)


class HalfFull(io.FileIO):
    """A file on a disk with room for half of the bytes."""

    def write(self, data: Any) -> int:
        """The first bytes go through; the next call finds no room."""
        if self.tell() >= len(DATA) // 2:
            raise OSError(errno.ENOSPC, "full")
        return super().write(bytes(data)[: len(DATA) // 2])


def test_a_put_that_is_cut_by_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, buffering: HalfFull(path, mode))
        with pytest.raises(DiskFull):
            store.put(NAME, DATA)
    assert names_in(tmp_path) == []
    store.settle()
    assert store.sizes() == {}
    store.put(NAME, memoryview(DATA))
    store.put(NAME, DATA)
    assert not store.has(NAME), "it is a blob once it is settled"
    store.settle()
    store.put(NAME, b"other bytes are not looked at")
    assert b"".join(store.read(NAME)) == DATA


def test_what_was_put_is_settled_when_the_disk_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = BlobStore(tmp_path), blake3_hex(b"other")
    store.put(NAME, DATA)
    store.put(other, b"other")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(DiskFull):
            store.settle()
    assert store.sizes() == {}
    store.settle()
    assert store.sizes() == {NAME: len(DATA), other: 5}


def test_a_successor_adopts_whole_chunks_and_deletes_torn_ones(tmp_path: Path) -> None:
    killed = BlobStore(tmp_path)
    killed.put(NAME, DATA)
    torn = blake3_hex(b"torn")
    (tmp_path / "partial" / f"put-{torn}").write_bytes(b"to")
    (tmp_path / "partial" / "put-nonsense").write_bytes(b"")
    store = BlobStore(tmp_path)
    store.adopt()
    store.adopt()
    store.settle()
    assert store.sizes() == {NAME: len(DATA)}
    assert names_in(tmp_path) == [NAME]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 64), st.integers(0, 70))
def test_a_range_is_the_slice(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: int, end: int) -> None:
    store = BlobStore(tmp_path_factory.mktemp("blobs"))
    name = store.add_bytes(data)
    assert b"".join(store.read(name, start, end)) == data[start : max(start, end)]
    assert b"".join(store.read(name, start)) == data[start:]


def test_a_blob_that_another_store_holds_is_shared_and_outlives_it(tmp_path: Path) -> None:
    ours, theirs = BlobStore(tmp_path / "ours"), BlobStore(tmp_path / "theirs")
    assert not ours.borrow(NAME, theirs)
    theirs.add_bytes(DATA)
    assert ours.borrow(NAME, theirs)
    assert ours.borrow(NAME, theirs)
    theirs.remove(NAME)
    assert b"".join(ours.read(NAME)) == DATA
    with pytest.raises(NotFound):
        list(theirs.read(NAME))


def test_where_links_cannot_be_made_nothing_is_borrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = BlobStore(tmp_path / "ours"), BlobStore(tmp_path / "theirs")
    theirs.add_bytes(DATA)
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    assert not ours.borrow(NAME, theirs)
    assert ours.sizes() == {}


def test_a_complete_blob_takes_no_more_bytes(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.add_bytes(DATA)
    assert store.write_at(NAME, 5, b"evil") == len(DATA)
    assert store.offset(NAME) == len(DATA)
    assert hash_file(store.path(NAME)) == NAME


def test_the_limit_counts_what_is_held_already(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, bytes_max=10)
    store.write_at(NAME, 0, b"12345678")
    with pytest.raises(TooLarge):
        store.write_at(NAME, 8, b"901")
    assert store.write_at(NAME, 8, b"90") == 10
    with pytest.raises(BadArtifact):
        store.finish(NAME)
    assert store.write_at(NAME, 0, b"again") == 5, "the wrong bytes are gone, and the upload begins anew"
    with pytest.raises(Conflict):
        store.write_at(NAME, 10, b"x")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [*FULL, errno.EIO])
def test_an_atomic_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, failing(number))
        with pytest.raises(OSError if number == errno.EIO else DiskFull):
            write_atomic(path, b"newer and longer")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]
    write_atomic(path, b"new", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)


def test_a_folder_that_may_not_be_opened_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    sync_folder(tmp_path)


@pytest.mark.anyio
async def test_a_manifest_never_counts_before_its_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = DiskChunks(tmp_path / "job")
    await place.put(NAME, DATA)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(DiskFull):
            await place.seal("0-1", b"{}")
    assert await place.keys() == []
    with pytest.raises(NotFound):
        await place.manifest("0-1")
    await place.seal("0-1", b"{}")
    assert (await place.keys(), await place.manifest("0-1"), await place.get(NAME)) == (["0-1"], b"{}", DATA)


@pytest.mark.anyio
async def test_a_manifest_half_written_is_none(tmp_path: Path) -> None:
    place = DiskChunks(tmp_path)
    await place.seal("0-1", b"{}")
    (tmp_path / ".0-2.json.77.tmp").write_bytes(b"{")
    assert await place.keys() == ["0-1"]
    await place.remove(["0-1", "none"], [NAME])
    assert await place.keys() == []


# ------------------------------------------------------------------------------------------------------------ journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "j.db")
    yield made
    made.close()


def limit_pages(journal: Journal) -> None:
    """As if the disk ended where the file does now."""
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_batch_that_does_not_fit_is_not_there_in_part(journal: Journal) -> None:
    journal.append("a", "first", {}, at=1)
    limit_pages(journal)
    large = [("k", {"text": "x" * 4000}, None) for _ in range(20)]
    with pytest.raises(DiskFull) as caught:
        journal.append_all("a", large, at=2)
    assert "nothing was acknowledged" in caught.value.remedy
    assert [record.kind for record in journal.read("a")] == ["first"]
    journal._db.execute("PRAGMA max_page_count = 100000")
    assert journal.append_all("a", large, at=2) == 21


def test_a_batch_with_effects_that_were_written_writes_the_others(journal: Journal) -> None:
    journal.append("a", "open", {"n": 1}, at=1, effect="open/0")
    last = journal.append_all("a", [("open", {"n": 9}, "open/0"), ("pay", {}, "pay/1"), ("note", {}, None)], at=2)
    assert (last, journal.last("a"), journal.last("b")) == (3, 3, 0)
    assert [(record.kind, record.body) for record in journal.read("a")] == [
        ("open", {"n": 1}),
        ("pay", {}),
        ("note", {}),
    ]
    again = journal.append_all("a", [("open", {}, "open/0"), ("pay", {}, "pay/1")], at=3)
    assert (again, len(journal.read("a"))) == (3, 3), "nothing was new"


def test_a_value_without_a_canonical_form_is_refused_and_changes_nothing(journal: Journal) -> None:
    for body in ({"n": 1.5}, {"n": 2**60}, {"text": "\ud800"}, {"n": object()}):
        with pytest.raises(InvalidInput):
            journal.append("a", "k", body, at=1)
    assert (journal.last("a"), journal.streams()) == (0, [])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite3.OperationalError("database or disk is full"), DiskFull),
        (sqlite3.OperationalError("disk I/O error"), DiskFull),
        (sqlite3.OperationalError("database is locked"), InternalError),
        (sqlite3.DatabaseError("database disk image is malformed"), InternalError),
        (OSError(errno.ENOSPC, "full"), DiskFull),
    ],
    ids=str,
)
def test_each_failure_of_the_file_is_one_error_by_its_cause(
    journal: Journal, error: Exception, kind: type[Exception]
) -> None:
    class Failing:
        in_transaction = False

        def execute(self, *_: Any) -> Any:
            raise error

    whole, journal._db = journal._db, Failing()  # type: ignore[assignment]
    for call in (
        lambda: journal.append("a", "k", {}, at=1), lambda: journal.read("a"), lambda: journal.last("a"),
        lambda: journal.has_effect("a", "e"), journal.streams,
    ):  # fmt: skip
        with pytest.raises(kind) as caught:
            call()
        assert "j.db" in str(caught.value)
    journal._db = whole
    assert journal.append("a", "k", {}, at=1) == 1


def test_a_file_that_may_not_be_opened_is_told_by_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", failing(errno.ENOSPC))
    with pytest.raises(DiskFull):
        Journal(tmp_path / "j.db")
    monkeypatch.setattr(Path, "chmod", failing(errno.EPERM))
    with pytest.raises(PermissionError):
        Journal(tmp_path / "j.db")


def test_pages_that_were_overwritten_are_one_error_and_not_other_records(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = Journal(path)
    for number in range(200):
        journal.append("a", "k", {"text": f"{number:0500}"}, at=1)
    journal.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    damaged = Journal(path)
    with pytest.raises(InternalError, match="damaged"):
        damaged.read("a")
    damaged.close()


def test_a_log_of_writes_that_was_torn_loses_only_its_end(tmp_path: Path) -> None:
    """A power cut in the middle of the last write: what stands before it is whole."""
    path = tmp_path / "j.db"
    journal = Journal(path)
    for number in range(1, 6):
        journal.append("a", "k", {"n": number}, at=1)
    files = {name: (tmp_path / name).read_bytes() for name in ("j.db", "j.db-wal")}
    journal.close()
    after = tmp_path / "after"
    after.mkdir()
    (after / "j.db").write_bytes(files["j.db"])
    (after / "j.db-wal").write_bytes(files["j.db-wal"][:-100])
    again = Journal(after / "j.db")
    numbers = [record.body["n"] for record in again.read("a")]
    assert numbers == [1, 2, 3, 4]
    assert again.append("a", "k", {"n": 5}, at=2) == 5
    again.close()


def test_streams_with_names_for_paths_are_held_in_the_journals_folder(journal: Journal, tmp_path: Path) -> None:
    for stream in ("../../etc/passwd", "a/b\0c", "x" * 5000, ""):
        with journal.exclusive(stream), pytest.raises(Conflict), journal.exclusive(stream):
            pass
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))
