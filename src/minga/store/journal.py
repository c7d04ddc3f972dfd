"""An append-only journal in SQLite: what was decided, in order, durable before anybody is told.

An agent's state is a fold over its journal. `append` returns only after the record is on disk (WAL, synchronous=FULL),
so whatever was acknowledged is there after a kill -9 or a power cut. A record has a *stream* (a job id, a channel id),
a number counting from 1 within the stream, a kind and a JSON object; an optional *effect id* makes an append
idempotent: the second append with the same stream and effect id changes nothing and returns the first number.

Not known here: what records mean. Rule: one process writes a stream at a time (`exclusive` holds it).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.core.codec import canonical_json, parse_json
from minga.core.errors import Conflict, DiskFull, InternalError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
  stream TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL,
  effect TEXT, body BLOB NOT NULL, PRIMARY KEY (stream, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS record_effect ON record (stream, effect) WHERE effect IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry: its stream, number (from 1), Unix seconds, kind and JSON body."""

    stream: str
    number: int
    at: int
    kind: str
    body: dict[str, Any]


class Journal:
    """A journal file. Safe for threads of one process and for readers of others; writes are short transactions."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal at `path` (mode 0600; its folder 0700 if it is made here).

        Raises:
            DiskFull: there is no room for the file.
            InternalError: the file is not a journal or is damaged.
        """
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with translated(path):
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    def append(self, stream: str, kind: str, body: dict[str, Any], at: int, effect: str | None = None) -> int:
        """Write one record durably and return its number.

        Args:
            stream: what it belongs to.
            kind: its kind, the writer's vocabulary.
            body: a JSON object of the canonical subset.
            at: Unix seconds (the caller's clock).
            effect: with it, appending twice writes once.

        Raises:
            DiskFull: nothing was written.
            InternalError: the file is damaged or gone.
        """
        return self.append_all(stream, [(kind, body, effect)], at)

    def append_all(self, stream: str, records: list[tuple[str, dict[str, Any], str | None]], at: int) -> int:
        """Write several records in one transaction, all or none; returns the last number. Errors as `append`."""
        encoded = [(kind, canonical_json(body), effect) for kind, body, effect in records]
        with self._lock, translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                number = self._insert(stream, encoded, at)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return number

    def _insert(self, stream: str, records: list[tuple[str, bytes, str | None]], at: int) -> int:
        row = self._db.execute("SELECT COALESCE(MAX(number), 0) FROM record WHERE stream = ?", (stream,)).fetchone()
        number = int(row[0])
        for kind, body, effect in records:
            if effect is not None:
                query = "SELECT number FROM record WHERE stream = ? AND effect = ?"
                found = self._db.execute(query, (stream, effect)).fetchone()
                if found:
                    number = max(number, int(found[0])) if len(records) > 1 else int(found[0])
                    continue
            number += 1
            self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", (stream, number, at, kind, effect, body))
        return number

    def read(self, stream: str, after: int = 0, limit: int = -1) -> list[Record]:
        """Records of a stream with a number over `after`, in order; at most `limit` (−1: all)."""
        query = "SELECT number, at, kind, body FROM record WHERE stream = ? AND number > ? ORDER BY number LIMIT ?"
        with self._lock, translated(self.path):
            rows = self._db.execute(query, (stream, after, limit)).fetchall()
        return [Record(stream, number, at, kind, parse_json(body, 1 << 30)) for number, at, kind, body in rows]

    def last(self, stream: str) -> int:
        """The number of a stream's newest record; 0 without any."""
        query = "SELECT COALESCE(MAX(number), 0) FROM record WHERE stream = ?"
        with self._lock, translated(self.path):
            return int(self._db.execute(query, (stream,)).fetchone()[0])

    def has_effect(self, stream: str, effect: str) -> bool:
        """Whether a record with this effect id was written."""
        query = "SELECT 1 FROM record WHERE stream = ? AND effect = ?"
        with self._lock, translated(self.path):
            return self._db.execute(query, (stream, effect)).fetchone() is not None

    def streams(self) -> list[str]:
        """The names of all streams, by the time of their first record."""
        query = "SELECT stream FROM record WHERE number = 1 ORDER BY at, stream"
        with self._lock, translated(self.path):
            return [row[0] for row in self._db.execute(query)]

    @contextmanager
    def exclusive(self, stream: str) -> Iterator[None]:
        """Hold a stream for writing: one process of this machine at a time, released at its death.

        Raises:
            Conflict: another process holds it.
        """
        name = "".join(char if char.isalnum() else "_" for char in stream)[:128]
        path = self.path.with_name(f"{self.path.name}.{name}.lock")
        with path.open("a+b") as handle:
            if not _lock_file(handle):
                raise Conflict(f"another process works on {stream}", "attach to it, or stop it first")
            yield


def _lock_file(handle: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "disk I/O" in str(error):
            raise DiskFull(f"no room to write {path.name}", "free some disk; nothing was acknowledged") from error
        raise InternalError(
            f"the journal {path.name} cannot be used: {error}", "is another program holding it?"
        ) from error
    except sqlite3.DatabaseError as error:
        raise InternalError(f"the journal {path.name} is damaged: {error}", "restore it from a copy") from error
    except OSError as error:
        if error.errno == 28:
            raise DiskFull(f"no room to write {path.name}", "free some disk; nothing was acknowledged") from error
        raise
