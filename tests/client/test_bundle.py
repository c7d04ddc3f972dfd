"""Bundles: the same bytes everywhere, nothing from outside the tree, limits that name their cause."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from minga.client import bundle
from minga.client.bundle import pack, pack_files
from minga.core.errors import NotFound, TooLarge, UnsafePath
from minga.store.blobs import BlobStore


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in {"b.txt": "b", "a/x.py": "x", "a/y.log": "y", ".git/config": "no", "keep.log": "k"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "run.sh").chmod(0o700)
    (root / "link").symlink_to("a/x.py")
    return root


def names(blobs: BlobStore, packed: bundle.Packed) -> list[str]:
    with tarfile.open(blobs.path(packed.blake3)) as tar:
        return tar.getnames()


def test_the_same_files_make_the_same_bytes(tree: Path, blobs: BlobStore, tmp_path: Path) -> None:
    first = pack(tree, blobs)
    os.utime(tree / "b.txt", (1, 1))
    (tree / "run.sh").chmod(0o755)
    assert pack(tree, blobs) == first
    assert names(blobs, first) == ["a", "a/x.py", "a/y.log", "b.txt", "keep.log", "link", "run.sh"]
    with tarfile.open(blobs.path(first.blake3)) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        assert tar.getmember("run.sh").mode == 0o755
        assert tar.getmember("b.txt").mode == 0o644
        assert tar.getmember("link").linkname == "a/x.py"
    (tree / "b.txt").write_text("other")
    assert pack(tree, blobs) != first


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("*.log\n", ["a", "a/x.py", "b.txt", "link", "run.sh"]),
        ("*.log\n!keep.log\n# x\n\n", ["a", "a/x.py", "b.txt", "keep.log", "link", "run.sh"]),
        ("a/\n", ["b.txt", "keep.log", "link", "run.sh"]),
        ("/a/*.log\n", ["a", "a/x.py", "b.txt", "keep.log", "link", "run.sh"]),
        ("**/x.py\n", ["a", "a/y.log", "b.txt", "keep.log", "link", "run.sh"]),
        ("[ab]*\n", ["keep.log", "link", "run.sh"]),
    ],
)
def test_ignore_files(rules: str, left: list[str], tree: Path, blobs: BlobStore) -> None:
    (tree / ".skyignore").write_text("b.txt")
    (tree / ".mingaignore").write_text(rules)
    found = [name for name in names(blobs, pack(tree, blobs)) if "ignore" not in name]
    assert found == left


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside"])
def test_a_link_out_of_its_tree_is_refused(target: str, tree: Path, blobs: BlobStore) -> None:
    (tree / "a" / "bad").symlink_to(target) if target.startswith("/") else (tree / "bad").symlink_to(target)
    with pytest.raises(UnsafePath, match="leads out"):
        pack(tree, blobs)


def test_what_is_no_file_is_refused(tree: Path, blobs: BlobStore) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(UnsafePath, match="pipe"):
        pack(tree, blobs)
    (tree / "pipe").unlink()
    (tree / "new\nline").write_text("x")
    with pytest.raises(UnsafePath, match="plain name"):
        pack(tree, blobs)
    with pytest.raises(NotFound):
        pack(tree / "nowhere", blobs)


def test_a_hundred_thousand_files_are_refused_with_the_folder_to_blame(tree: Path, blobs: BlobStore) -> None:
    many = tree / "cache"
    many.mkdir()
    for number in range(100_000):
        os.mknod(many / str(number)) if os.geteuid() == 0 else (many / str(number)).touch()
    with pytest.raises(TooLarge, match=r"100006 files, 100000 of them in cache; the limit is 20000") as caught:
        pack(tree, blobs)
    assert ".mingaignore" in caught.value.remedy
    assert not list((blobs.folder / "partial").iterdir())


def test_too_many_bytes_are_refused(tree: Path, blobs: BlobStore) -> None:
    os.truncate(tree / "b.txt", 5000)
    with pytest.raises(TooLarge):
        pack(tree, blobs, bytes_max=4000)


def test_single_files_take_the_names_of_their_targets(tree: Path, blobs: BlobStore) -> None:
    packed = pack_files({"renamed": tree / "b.txt", "second": tree / "link"}, blobs)
    with tarfile.open(blobs.path(packed.blake3)) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == {"renamed": b"b", "second": b"x"}
    assert names(blobs, pack(tree / "b.txt", blobs)) == ["b.txt"]
