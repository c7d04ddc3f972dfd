"""Walking, reading and writing folders that somebody hostile owns."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput, NotFound, TooLarge, UnsafePath
from minga.runtimes import outputs
from minga.runtimes.runtime import OutputFile


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with a good file, and every kind of thing that is not one."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "good").write_text("good")
    (root / "to-file").symlink_to(tmp_path / "secret")
    (root / "to-folder").symlink_to(tmp_path)
    (root / "deep" / "round").symlink_to("..")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    return root


def test_only_regular_files_are_listed(hostile: Path) -> None:
    assert outputs.list_files(hostile) == [OutputFile("deep/er/good", 4)]


def test_only_regular_files_are_opened(hostile: Path) -> None:
    with outputs.open_beneath(hostile, "deep/er/good") as file:
        assert file.read() == b"good"
    for path in ("to-file", "to-folder/secret", "deep/round/deep/er/good", "fifo", "socket", "deep", "dangling"):
        with pytest.raises(UnsafePath):
            outputs.open_beneath(hostile, path)
    for path in ("none", "deep/none", "none/none"):
        with pytest.raises(NotFound):
            outputs.open_beneath(hostile, path)
    with pytest.raises(UnsafePath):
        outputs.open_beneath(hostile, "deep/er/good/more")


@given(st.text(alphabet="a./\0", max_size=12))
def test_no_text_is_a_path_out(text: str) -> None:
    root = Path(__file__).parent
    try:
        with outputs.open_beneath(root, text) as file:
            found = Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))
    except (UnsafePath, NotFound):
        return
    assert found.is_relative_to(root)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/", "/etc/passwd", "a//b", "a/", "./a", "a/../b", "a\0b", "x/" * 70 + "x"]
)
def test_paths_that_are_never_taken(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        outputs.open_beneath(tmp_path, path)
    with pytest.raises(UnsafePath):
        outputs.create_beneath(tmp_path, path)
    assert not list(tmp_path.iterdir())


def test_counts_and_bytes_are_bounded(tmp_path: Path) -> None:
    for index in range(10):
        (tmp_path / str(index)).write_bytes(bytes(10))
    assert len(outputs.list_files(tmp_path, 10, 100)) == 10
    with pytest.raises(TooLarge):
        outputs.list_files(tmp_path, 9, 100)
    with pytest.raises(TooLarge):
        outputs.list_files(tmp_path, 10, 99)


def test_folders_count_and_end_at_a_depth(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(outputs.DEPTH_MAX + 20):
        folder = folder / "d"
        folder.mkdir()
        (folder / "f").touch()
    found = outputs.list_files(tmp_path)
    assert max(file.path.count("/") for file in found) == outputs.DEPTH_MAX
    with pytest.raises(TooLarge):
        outputs.list_files(tmp_path, count_max=20)


def test_names_that_are_not_text_are_left_out(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff", "w"):
        pass
    (tmp_path / "ok").touch()
    assert [file.path for file in outputs.list_files(tmp_path)] == ["ok"]


def test_a_missing_root_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        outputs.list_files(tmp_path / "none")
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(NotFound):
        outputs.list_files(tmp_path / "link")


def test_files_are_created_with_their_folders_and_once(tmp_path: Path) -> None:
    with outputs.create_beneath(tmp_path, "a/b/c", 0o755) as file:
        file.write(b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o755
    with pytest.raises(InvalidInput):
        outputs.create_beneath(tmp_path, "a/b/c")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")
    for path in ("out/x", "out"):
        with pytest.raises((UnsafePath, InvalidInput)):
            outputs.create_beneath(tmp_path, path)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_tree_is_copied_as_it_is(hostile: Path, tmp_path: Path) -> None:
    (hostile / "deep" / "er" / "good").chmod(0o4755)
    copy = tmp_path / "copy"
    copy.mkdir()
    outputs.copy_in(hostile, copy, "in/side")
    base = copy / "in" / "side"
    assert (base / "deep" / "er" / "good").read_text() == "good"
    assert (base / "deep" / "er" / "good").stat().st_mode & 0o7777 == 0o755, "no set-uid bit arrives"
    assert (base / "to-file").readlink() == tmp_path / "secret", "a link stays a link"
    assert not (base / "fifo").exists()
    assert not (base / "socket").exists()
    with pytest.raises(InvalidInput):
        outputs.copy_in(tmp_path / "none", copy, "x")
    with pytest.raises(UnsafePath):
        outputs.copy_in(hostile, copy, "in/side/to-folder")
    with pytest.raises(UnsafePath):
        outputs.copy_in(tmp_path / "secret", copy, "in/side/to-folder/new")
    assert not (tmp_path / "new").exists()


def test_ten_thousand_files_are_listed(tmp_path: Path) -> None:
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for index in range(1000):
            os.close(os.open(tmp_path / str(folder) / str(index), os.O_CREAT | os.O_WRONLY))
    assert len(outputs.list_files(tmp_path)) == 10_000
