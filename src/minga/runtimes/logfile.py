"""The output of a task in bounded space: the beginning and the end are kept, the middle is dropped and counted.

A log is a folder of segments `log.<stream offset>`. The first segment stays, since it says how the task was set up;
of the others the newest stay, since they say how it ended. One writer, any number of readers, no locks: a segment is
only ever appended to or removed. Rule: standard library only, the supervisor starts with this.
"""

from __future__ import annotations

import os

SEGMENTS = 8
_PREFIX = "log."


class LogWriter:
    """Appends to the log in `folder`, keeping at most `bytes_max` bytes (at least 8)."""

    def __init__(self, folder: str, bytes_max: int) -> None:
        self._folder = folder
        self._segment_bytes = max(1, bytes_max // SEGMENTS)
        self._kept: list[tuple[int, int]] = []
        self._file = -1
        self.total_bytes = 0
        self.dropped_bytes = 0

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when the disk is full; the log is then shorter than the stream."""
        view = memoryview(data)
        while view:
            if not self._kept or self._kept[-1][1] >= self._segment_bytes:
                self._next_segment()
            start, size = self._kept[-1]
            done = os.write(self._file, view[: self._segment_bytes - size])
            self._kept[-1] = (start, size + done)
            self.total_bytes += done
            view = view[done:]

    def close(self) -> None:
        """Flush to disk."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def _next_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        if len(self._kept) >= SEGMENTS:
            start, size = self._kept.pop(1)
            os.unlink(_name(self._folder, start))
            self.dropped_bytes += size
        self._file = os.open(_name(self._folder, self.total_bytes), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._kept.append((self.total_bytes, 0))


def read(folder: str, offset: int, limit: int) -> tuple[int, bytes, int]:
    """Up to `limit` bytes from stream offset `offset`: (where they start, the bytes, bytes dropped before them)."""
    while True:
        segments = _segments(folder)
        before = [start for start in segments if start <= offset]
        after = [start for start in segments if start > offset]
        try:
            if before and (data := _read_at(_name(folder, before[-1]), offset - before[-1], limit)):
                return offset, data, 0
            if not after:
                return offset, b"", 0
            if data := _read_at(_name(folder, after[0]), 0, limit):
                return after[0], data, after[0] - offset
        except FileNotFoundError:
            continue  # dropped since it was listed
        return offset, b"", 0


def extent(folder: str) -> tuple[int, int]:
    """(bytes written to the stream, bytes dropped of them)."""
    while True:
        try:
            sizes = [(start, os.stat(_name(folder, start)).st_size) for start in _segments(folder)]
        except FileNotFoundError:
            continue
        if not sizes:
            return 0, 0
        total = sizes[-1][0] + sizes[-1][1]
        return total, total - sum(size for _, size in sizes)


def _segments(folder: str) -> list[int]:
    return sorted(int(name[len(_PREFIX) :]) for name in os.listdir(folder) if name.startswith(_PREFIX))


def _name(folder: str, start: int) -> str:
    return f"{folder}/{_PREFIX}{start:020d}"


def _read_at(path: str, position: int, limit: int) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, limit, position)
    finally:
        os.close(file)
