"""Hostile archives: nothing lands outside, nothing is followed, everything is bounded, nothing half is left."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.errors import Conflict, DiskFull, InvalidInput, MingaError, TooLarge, UnsafePath
from minga.runtimes.unpacking import HEADER_BYTES_MAX, unpack

BYTES_MAX = 100_000


def archive(path: Path, *members: tuple[str, bytes | str | None], **fields: object) -> Path:
    """A tar of (name, content): bytes are a file, text a link to it, None a folder."""
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def test_a_plain_archive_is_unpacked_with_plain_modes(tmp_path: Path):
    source = archive(tmp_path / "t", ("a/b.txt", b"text"), ("run.sh", b"x"), ("empty", None), mode=0o7777, uid=5)
    unpack(source, tmp_path / "out", BYTES_MAX)
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"text"
    assert (tmp_path / "out/empty").is_dir()
    info = os.stat(tmp_path / "out/run.sh")
    assert stat.S_IMODE(info.st_mode) == 0o755
    assert info.st_uid == os.geteuid()


def test_links_that_stay_inside_are_kept_as_links(tmp_path: Path):
    source = archive(
        tmp_path / "t", ("a/real", b"x"), ("a/link", "real"), ("up", "a/../a/real"), ("deep/er/l", "../../a")
    )
    unpack(source, tmp_path / "out", BYTES_MAX)
    assert os.readlink(tmp_path / "out/a/link") == "real"
    assert os.readlink(tmp_path / "out/deep/er/l") == "../../a"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..", "a\\b", "line\nbreak", "x" * 1025, "bell\x07"])
def test_names_that_leave_the_folder(tmp_path: Path, name: str):
    with pytest.raises(UnsafePath):
        unpack(archive(tmp_path / "t", (name, b"x")), tmp_path / "out", BYTES_MAX)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../x", "a/../../x", "x" * 1025, ""])
def test_links_that_leave_the_folder(tmp_path: Path, target: str):
    with pytest.raises(UnsafePath):
        unpack(archive(tmp_path / "t", ("link", target)), tmp_path / "out", BYTES_MAX)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    source = archive(tmp_path / "t", ("d/here", b"x"), ("link", "d"), ("link/new", b"evil"))
    with pytest.raises(InvalidInput):
        unpack(source, tmp_path / "out", BYTES_MAX)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind",
    [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_kinds_that_are_not_plain(tmp_path: Path, kind: bytes):
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    (tmp_path / "t").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(UnsafePath):
        unpack(tmp_path / "t", tmp_path / "out", BYTES_MAX)


def test_a_sparse_file_by_pax_headers_is_refused(tmp_path: Path):
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    info = tarfile.TarInfo("x")
    info.pax_headers = headers
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(MingaError):
        unpack(tmp_path / "t", tmp_path / "out", BYTES_MAX)


def test_too_many_bytes_members_and_too_large_headers(tmp_path: Path):
    with pytest.raises(TooLarge, match="bytes"):
        unpack(archive(tmp_path / "a", ("x", b"x" * 60), ("y", b"y" * 41)), tmp_path / "out", 100)
    unpack(archive(tmp_path / "b", ("x", b"x" * 60), ("y", b"y" * 40)), tmp_path / "fits", 100)
    many = archive(tmp_path / "c", *((f"f{n}", b"") for n in range(11)))
    with pytest.raises(TooLarge, match="members"):
        unpack(many, tmp_path / "out", 100, count_max=10)
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, HEADER_BYTES_MAX + 1
    (tmp_path / "d").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(TooLarge, match="header"):
        unpack(tmp_path / "d", tmp_path / "out", 100)
    chain = tarfile.TarInfo("././@LongLink")
    chain.type, chain.size = tarfile.GNUTYPE_LONGNAME, 512
    (tmp_path / "e").write_bytes((chain.tobuf() + b"x" * 512) * 5000)
    with pytest.raises(InvalidInput):
        unpack(tmp_path / "e", tmp_path / "out", 100)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "members",
    [(("x", b"1"), ("x", b"2")), (("x", b"1"), ("x/y", b"2")), (("x/y", b"1"), ("x", b"2")), (("x", b"1"), ("x", "y"))],
)
def test_two_members_at_one_path(tmp_path: Path, members: tuple[tuple[str, bytes], ...]):
    with pytest.raises(InvalidInput):
        unpack(archive(tmp_path / "t", *members), tmp_path / "out", BYTES_MAX)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(Conflict):
        unpack(archive(tmp_path / "t", ("a", b"x")), tmp_path / "out", BYTES_MAX)
    assert (tmp_path / "out/mine").exists()


@pytest.mark.parametrize("pack", [lambda data: data[:700], lambda data: b"\x1f\x8b" + data, lambda data: b""])
def test_what_is_not_a_tar(tmp_path: Path, pack: Callable[[bytes], bytes]):
    good = archive(tmp_path / "good", ("a", b"x" * 600)).read_bytes()
    (tmp_path / "t").write_bytes(pack(good))
    with pytest.raises(InvalidInput):
        unpack(tmp_path / "t", tmp_path / "out", BYTES_MAX)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch):
    real = os.open

    def full(path: object, flags: int, *rest: object, **options: object) -> int:
        if flags & os.O_EXCL:
            raise OSError(28, "No space left on device")
        return real(path, flags, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(DiskFull):
        unpack(archive(tmp_path / "t", ("a", b"x")), tmp_path / "out", BYTES_MAX)
    assert not (tmp_path / "out").exists()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_nothing_lands_outside(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    tmp_path = tmp_path_factory.mktemp("x")
    names = st.sampled_from(["a", "b/c", "../e", "/abs", "a/d", "l", "l/in", "..", ".", "b"])
    content = st.one_of(st.binary(max_size=40), st.sampled_from(["a", "..", "/etc", "b/c", "../.."]), st.none())
    members = data.draw(st.lists(st.tuples(names, content), max_size=6))
    raw = bytearray(archive(tmp_path / "t", *members).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "t").write_bytes(raw)
    try:
        unpack(tmp_path / "t", tmp_path / "box/out", 200)
    except MingaError:
        assert not (tmp_path / "box/out").exists()
    else:
        for path in (tmp_path / "box/out").rglob("*"):
            assert path.is_symlink() or path.is_file() or path.is_dir()
            assert path.parent.resolve().is_relative_to(tmp_path / "box/out")
    assert sorted(item.name for item in tmp_path.iterdir()) in (["t"], ["box", "t"])
