"""A log on a disk that fills up, and control groups whose kernel refuses: what was written stays, and is counted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.runtimes import logfile
from minga.runtimes.cgroups import Cgroup, Hierarchy, detect
from minga.runtimes.logfile import SEGMENTS, LogWriter, extent, read


class Disk:
    """`os` of a machine with room for so many more bytes; it writes at most three at a time."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, file: int, data: memoryview) -> int:
        """Short writes, then none."""
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        done = os.write(file, data[: min(3, self.room)])
        self.room -= done
        return done


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=8), st.integers(0, 60), st.integers(8, 80))
def test_what_fitted_on_the_disk_is_the_beginning_of_the_stream(parts: list[bytes], room: int, cap: int) -> None:
    stream, disk = b"".join(parts), Disk(room)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "os", disk)
        writer = LogWriter(folder, cap)
        full = False
        for part in parts:
            try:
                writer.write(part)
            except OSError as error:
                full = error.errno == errno.ENOSPC
                break
        assert full == (room < len(stream))
        written = min(room, len(stream))
        assert (writer.total_bytes, extent(folder)[0]) == (written, written)
        assert extent(folder)[1] == writer.dropped_bytes
        disk.room = 10
        writer.write(b"!")
        writer.close()
        start, data, _ = read(folder, written, 10)
        assert (start, data) == (written, b"!"), "it goes on where it stopped"


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_a_read_never_gives_more_than_it_is_asked_for(tmp_path: Path, limit: int) -> None:
    writer = LogWriter(str(tmp_path), 8 * SEGMENTS)
    writer.write(b"x" * 20)
    writer.close()
    assert len(read(str(tmp_path), 0, limit)[1]) == min(limit, 8)
    writer.close()


def test_other_files_in_the_folder_are_no_part_of_the_log(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), 800)
    writer.write(b"one")
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "old-log.5").write_text("x")
    assert (read(str(tmp_path), 0, 99), extent(str(tmp_path))) == ((0, b"one", 0), (3, 0))


def test_a_log_is_not_continued_by_another_writer(tmp_path: Path) -> None:
    LogWriter(str(tmp_path), 800).write(b"one")
    with pytest.raises(FileExistsError):
        LogWriter(str(tmp_path), 800).write(b"two")
    assert read(str(tmp_path), 0, 99)[1] == b"one"


@pytest.mark.parametrize(
    ("text", "found"),
    [("", 0), ("oom_killer 3\n", 0), ("oom_kills 5\n", 0), ("x 1\noom_kill 7\noom_kill 9\n", 7), ("oom_kill 0\n", 0)],
)
def test_a_field_is_found_by_its_whole_name(tmp_path: Path, text: str, found: int) -> None:
    (tmp_path / "memory.events").write_text(text)
    assert Cgroup(2, {"": str(tmp_path)}).oom_kills() == found


def test_a_group_that_could_not_be_made_everywhere_is_made_nowhere(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file stands where the folder should")
    hierarchy = Hierarchy(1, {"cpu": str(tmp_path / "cpu"), "memory": str(tmp_path / "blocked")})
    with pytest.raises(OSError, match="blocked"):
        hierarchy.create("task")
    assert not (tmp_path / "cpu" / "task").exists()


def test_a_version_2_tree_that_cannot_be_read_lacks_every_controller(tmp_path: Path) -> None:
    assert Hierarchy(2, {"": str(tmp_path / "none" / "minga")}).missing == ["cpu", "memory", "pids"]


def test_a_limit_that_the_kernel_refuses_is_an_error_and_not_silence(tmp_path: Path) -> None:
    group = Cgroup(2, {"": str(tmp_path / "gone")})
    for limits in ((1000, None, None), (None, 1 << 20, None), (None, None, 5)):
        with pytest.raises(OSError, match="gone"):
            group.limit(*limits)


def test_mounts_that_are_no_groups_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:cpu,cpuacct:/a:b/c\n0::/user.slice\n")
    folder = tmp_path / "memory"
    folder.mkdir()
    (tmp_path / "mountinfo").write_text(
        "25 1 254:0 / / rw shared:1 master:2 - ext4 /dev/vda rw\n"
        "26 1 0:5 / /proc rw - proc proc rw\n"
        f"30 20 0:20 /../.. {folder} rw - cgroup cgroup rw,memory,unknown\n"
        "31 20 0:21 / /sys/fs/named rw - cgroup cgroup rw,name=systemd\n"
    )
    found = detect(str(tmp_path / "mountinfo"), str(tmp_path / "own"))
    assert found is not None
    assert (found.version, set(found.parents)) == (1, {"memory"})
    assert Path(found.parents["memory"]).is_relative_to(folder), "never above the mount"
