"""Blobs are named by their hash, resume, and never show half of themselves."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import blake3_hex
from minga.core.errors import BadArtifact, Conflict, DiskFull, InvalidInput, NotFound, TooLarge
from minga.store.blobs import BlobStore, hash_file, write_atomic


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 100), max_size=10))
def test_an_upload_in_pieces_is_the_blob(tmp_path_factory, data, cuts):
    store = BlobStore(tmp_path_factory.mktemp("blobs"))
    name, offset = blake3_hex(data), 0
    for size in [*cuts, len(data)]:
        piece = data[offset : offset + size]
        offset = store.write_at(name, offset, piece)
        assert store.offset(name) == offset
    store.write_at(name, offset, data[offset:])
    store.finish(name)
    store.finish(name)
    assert store.has(name)
    assert b"".join(store.read(name)) == data
    assert store.offset(name) == store.size(name) == len(data)
    assert hash_file(store.path(name)) == name


def test_wrong_bytes_are_thrown_away(tmp_path):
    store = BlobStore(tmp_path)
    name = blake3_hex(b"right")
    store.write_at(name, 0, b"wrong")
    with pytest.raises(BadArtifact):
        store.finish(name)
    assert not store.has(name)
    assert store.offset(name) == 0


def test_a_wrong_offset_changes_nothing(tmp_path):
    store = BlobStore(tmp_path)
    name = blake3_hex(b"abcdef")
    store.write_at(name, 0, b"abc")
    for offset in (0, 2, 4):
        with pytest.raises(Conflict) as caught:
            store.write_at(name, offset, b"x")
        assert caught.value.details == {"offset": 3}
    assert store.offset(name) == 3


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x"])
def test_names_that_are_no_hash_are_refused(tmp_path, name):
    store = BlobStore(tmp_path)
    for call in (store.has, store.size, store.offset, store.finish, store.remove):
        with pytest.raises(InvalidInput):
            call(name)


def test_limits_and_absence(tmp_path):
    store = BlobStore(tmp_path, bytes_max=4)
    with pytest.raises(TooLarge):
        store.write_at("0" * 64, 0, b"12345")
    for call in (store.size, store.finish):
        with pytest.raises(NotFound):
            call("0" * 64)


def test_files_and_bytes_go_in_and_ranges_come_out(tmp_path):
    store = BlobStore(tmp_path / "store")
    source = tmp_path / "file"
    source.write_bytes(b"0123456789")
    name = store.add_file(source)
    assert store.add_bytes(b"0123456789") == name
    assert b"".join(store.read(name, 2, 5)) == b"234"
    with pytest.raises(BadArtifact):
        store.add_file(source, name=blake3_hex(b"other"))
    store.remove(name)
    store.remove(name)
    assert not store.has(name)


@pytest.mark.root
def test_a_full_disk_keeps_what_was_there(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
    try:
        store = BlobStore(mount / "blobs")
        kept = store.add_bytes(b"kept")
        name = blake3_hex(b"x" * 200_000)
        with pytest.raises(DiskFull):
            store.write_at(name, 0, b"x" * 200_000)
        assert store.offset(name) == 0
        assert store.has(kept)
        write_atomic(mount / "f", b"old")
        with pytest.raises(DiskFull):
            write_atomic(mount / "f", b"x" * 200_000)
        assert (mount / "f").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_stream_is_hashed_as_it_is_copied_and_bounded(tmp_path: Path):
    store = BlobStore(tmp_path)
    name, size = store.add_stream(io.BytesIO(b"abc"), 3)
    assert (name, size, store.has(name)) == (blake3_hex(b"abc"), 3, True)
    assert store.add_stream(io.BytesIO(b"abc")) == (name, 3)
    with pytest.raises(TooLarge):
        store.add_stream(io.BytesIO(b"abcd"), 3)
    assert list((tmp_path / "partial").iterdir()) == []
