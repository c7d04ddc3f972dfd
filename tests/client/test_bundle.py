"""Bundles: the same bytes everywhere, nothing from outside the tree, limits that name their cause."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.client import bundle
from minga.client.bundle import pack, pack_files
from minga.core.errors import InvalidInput, NotFound, TooLarge, UnsafePath
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


NAMES = ["a", "b", "ab", "a.log", "a/a", "a/b", "a/a.log", "b/a/b", "b/a/a.log", "b/ab/a", "b/b.log", ".a", "b/.a"]
PIECES = ["a", "b", ".log", "*", "**", "?", "/", "[ab]", "[!a]", "[a-b]", "."]
ODD_STARS = re.compile(r"[^/]\*\*|\*\*[^/]")
"""What git's page leaves open, and its versions do differently."""

patterns = (
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5)
    .map("".join)
    .filter(lambda text: not ODD_STARS.search(text))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "", "!", "#"]), patterns).map("".join), min_size=1, max_size=3))
def test_ignore_files_mean_what_they_mean_to_git(lines: list[str]) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "tree"
        # A name is a folder or a file, not both: those that begin with another and `/` make it a folder.
        files = [path for path in NAMES if not any(other.startswith(path + "/") for other in NAMES)]
        for path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        (root / ".gitignore").write_text("\n".join(lines) + "\n")
        subprocess.run(["git", "init", "-q", root], check=True)
        listing = ["git", "-C", root, "ls-files", "--others", "--exclude-standard", "-z"]
        expected = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]
        blobs = BlobStore(Path(name) / "blobs")
        with tarfile.open(blobs.path(pack(root, blobs).blake3)) as tar:
            packed = sorted(member.name for member in tar if member.isfile())
        assert packed == sorted(expected), lines


@given(st.text(max_size=20))
def test_no_line_of_an_ignore_file_is_an_error(line: str) -> None:
    for rule in bundle._rule(line):
        rule.pattern.match("a/b.py")


def test_a_tree_that_cannot_be_read_is_one_clear_error(tree: Path, blobs: BlobStore) -> None:
    with pytest.raises(NotFound, match="cannot be read"):
        pack(tree / "nowhere", blobs)
    with pytest.raises(NotFound, match="cannot be read"):
        pack_files({"x": tree / "nowhere"}, blobs)
    os.mkfifo(tree / "pipe")
    with pytest.raises(UnsafePath, match="neither"):
        pack(tree / "pipe", blobs)
    (tree / "pipe").unlink()
    (tree / "new\nline").write_text("x")
    with pytest.raises(UnsafePath, match="plain name"):
        pack(tree, blobs)


def test_a_file_that_shrinks_while_it_is_read_is_named(tree: Path, blobs: BlobStore, monkeypatch) -> None:
    big = tree / "growing.bin"
    big.write_bytes(b"x" * 1_000_000)
    honest = bundle._Exactly.read

    def read(reader, size: int = -1) -> bytes:
        if reader._name == "growing.bin":
            os.truncate(big, 10)
        return honest(reader, size)

    monkeypatch.setattr(bundle._Exactly, "read", read)
    with pytest.raises(InvalidInput, match=r"growing\.bin shrank"):
        pack(tree, blobs)
    assert not list((blobs.folder / "partial").iterdir()), "nothing half-made is left"
