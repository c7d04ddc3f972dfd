"""A log in bounded space, against a model: all that was written, in a string."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.runtimes.logfile import SEGMENTS, LogWriter, extent, read


def read_to_end(folder: Path, offset: int = 0, limit: int = 7) -> list[tuple[int, bytes, int]]:
    chunks = []
    while (chunk := read(str(folder), offset, limit))[1]:
        chunks.append(chunk)
        offset = chunk[0] + len(chunk[1])
    return chunks


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(SEGMENTS, 120), st.integers(1, 50))
def test_what_is_read_is_what_was_written_and_the_rest_is_counted(parts: list[bytes], cap: int, limit: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        writer = LogWriter(name, cap)
        for part in parts:
            writer.write(part)
        writer.close()
        stream = b"".join(parts)
        chunks = read_to_end(folder, 0, limit)
        assert all(stream[start : start + len(data)] == data for start, data, _ in chunks)
        kept = sum(len(data) for _, data, _ in chunks)
        dropped = sum(count for _, _, count in chunks)
        assert kept + dropped == len(stream) == writer.total_bytes
        assert kept <= max(cap, 0)
        assert (writer.total_bytes, writer.dropped_bytes) == extent(name) == (len(stream), dropped)
        if chunks:
            assert chunks[-1][0] + len(chunks[-1][1]) == len(stream), "the end is kept"
            assert chunks[0][0] == 0, "so is the beginning"


def test_reading_between_and_behind(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), SEGMENTS)
    writer.write(b"abcdefghijklmnopqrstuvwxyz")
    assert read(str(tmp_path), 0, 9) == (0, b"a", 0)
    assert read(str(tmp_path), 5, 9) == (19, b"t", 14), "from inside what was dropped"
    assert read(str(tmp_path), 26, 9) == (26, b"", 0)
    assert read(str(tmp_path), 99, 9) == (99, b"", 0)


def test_an_empty_log(tmp_path: Path) -> None:
    assert read(str(tmp_path), 0, 9) == (0, b"", 0)
    assert extent(str(tmp_path)) == (0, 0)


def test_a_reader_sees_what_is_appended(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), 800)
    writer.write(b"one")
    assert read(str(tmp_path), 0, 100)[1] == b"one"
    writer.write(b"two")
    assert read(str(tmp_path), 3, 100)[1] == b"two"
    assert (tmp_path / f"log.{0:020d}").stat().st_mode & 0o777 == 0o600


def test_a_segment_that_goes_while_it_is_read_is_read_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minga.runtimes import logfile

    writer = LogWriter(str(tmp_path), SEGMENTS)
    writer.write(b"abcdefgh")
    listed = logfile._segments

    def listed_then_gone(folder: str) -> list[int]:
        names = listed(folder)
        if (tmp_path / f"log.{1:020d}").exists():
            (tmp_path / f"log.{1:020d}").unlink()
        return names

    monkeypatch.setattr(logfile, "_segments", listed_then_gone)
    assert read(str(tmp_path), 1, 9) == (2, b"c", 1)
