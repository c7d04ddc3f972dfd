"""Manifests of checkpoints: what is one tree of whole files is read, everything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.checkpoint import CHUNK_BYTES, MANIFEST_BYTES_MAX, Checkpoint, CheckpointManifest, ChunkedFile
from minga.core.errors import InvalidInput, TooLarge
from minga.core.spec import FILES_MAX

A, B = "aa" * 32, "bb" * 32


def file(path: str, size: int = 1, chunks: list[str] | None = None) -> dict[str, Any]:
    return {"path": path, "bytes": size, "chunks": [A] if chunks is None else chunks}


@given(st.integers(0, 5 * CHUNK_BYTES))
def test_the_pieces_of_a_file_are_its_bytes(size: int):
    names = [f"{index:064x}" for index in range(-(-size // CHUNK_BYTES))]
    pieces = ChunkedFile(path="x", bytes=size, chunks=names).pieces()
    assert [name for name, _ in pieces] == names
    assert sum(count for _, count in pieces) == size
    assert all(count == CHUNK_BYTES for _, count in pieces[:-1])
    assert all(0 < count <= CHUNK_BYTES for _, count in pieces)


@pytest.mark.parametrize(
    "files",
    [
        [file("a"), file("a")],
        [file("a"), file("a/b")],
        [file("a/b/c"), file("a/b")],
        [file("../a")],
        [file("/etc/passwd")],
        [file("a\0b")],
        [file("")],
        [file("a", 1, [])],
        [file("a", 0, [A])],
        [file("a", CHUNK_BYTES + 1, [A])],
        [file("a", 10**18, [A])],
        [file("a", -1, [])],
        [file("a", 1, ["A" * 64])],
        [file("a", 1, [A + "\n"])],
        [file("a", 1, ["../../x"])],
        [file("a", 1), file("b", 2)],
        [file("a", CHUNK_BYTES + 1, [A, A])],
        [{**file("a"), "mode": 511}],
        [file(f"f{index}", 0, []) for index in range(FILES_MAX + 1)],
    ],
)
def test_what_is_not_one_tree_of_whole_files_is_refused(files: list[dict[str, Any]]):
    with pytest.raises(InvalidInput):
        CheckpointManifest.parse({"files": files})


def test_a_manifest_is_its_canonical_bytes_and_no_more():
    manifest = CheckpointManifest(
        step=7,
        parent=B,
        files=[
            ChunkedFile(path="model/w", bytes=CHUNK_BYTES + 3, chunks=[A, B]),
            ChunkedFile(path="run.sh", bytes=CHUNK_BYTES, chunks=[A], executable=True),
            ChunkedFile(path="empty", bytes=0, chunks=[]),
        ],
    )
    assert CheckpointManifest.read(manifest.canonical()) == manifest
    assert manifest.sizes() == {A: CHUNK_BYTES, B: 3}
    assert manifest.total_bytes == 2 * CHUNK_BYTES + 3


def test_a_long_list_is_refused_before_it_is_read():
    with pytest.raises(TooLarge):
        CheckpointManifest.read(b"[" * (MANIFEST_BYTES_MAX + 1))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"files": 1}', b'{"files": [], "version": 2}', b"\xff"])
def test_nonsense_is_one_clear_error(data: bytes):
    with pytest.raises(InvalidInput):
        CheckpointManifest.read(data)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0}, {"manifest_bytes": MANIFEST_BYTES_MAX + 1}, {"manifest_bytes": 0}, {"files": FILES_MAX + 1},
        {"files": 10**9}, {"bytes": -1}, {"manifest": "x"}, {"chunks": []}, {"step": -1},
    ],
)  # fmt: skip
def test_an_announcement_is_bounded(change: dict[str, Any]):
    good = {"number": 1, "manifest": A, "manifest_bytes": 10, "bytes": 5, "files": 1}
    Checkpoint.parse(json.dumps(good))
    with pytest.raises(InvalidInput):
        Checkpoint.parse(good | change)
