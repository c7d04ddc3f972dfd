"""What the event reader remembers: blocks, logs, and how far its consumer has come. SQLite, durable at each step.

Does not know nodes or what logs mean. Rules: a block's logs come and go with it; a log that was offered and whose block
went stays in `undone` until that is acknowledged; several processes may read on in one file, and what one of them did
since the other looked is not done again. The same file keeps the fold of its first blocks (`fold`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minga.chain.blocks import Header, Log
from minga.chain.foldstore import SCHEMA, FoldStore
from minga.chain.journal import open_database, transaction, translated
from minga.core.crypto import Address, Hash32

KEEP = 256
"""Blocks below the tip that are kept even when they hold no log."""

Stored = tuple[Log, int]
"""A log and its block's time."""

_COLUMNS = "block INTEGER, idx INTEGER, hash TEXT, tx TEXT, address TEXT, topics TEXT, data BLOB, time INTEGER"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, hash TEXT NOT NULL, parent TEXT NOT NULL, time INTEGER);
CREATE TABLE IF NOT EXISTS log ({_COLUMNS}, PRIMARY KEY (block, idx)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undone (id INTEGER PRIMARY KEY AUTOINCREMENT, {_COLUMNS});
CREATE TABLE IF NOT EXISTS cursor (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_FIELDS = "block, idx, hash, tx, address, topics, data, time"


class EventStore:
    """A file of blocks and logs of one deployment. Numbers are block numbers; −1 is before the first."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            DiskFull: there is no room.
            InternalError: the file is damaged or not ours.
        """
        self._lock = threading.RLock()
        self._db = open_database(path, _SCHEMA + SCHEMA)
        self.fold = FoldStore(self._db, self._lock)

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    def tip(self) -> Header | None:
        """The highest block."""
        return self._header("SELECT number, hash, parent, time FROM block ORDER BY number DESC LIMIT 1")

    def block_upto(self, number: int) -> Header | None:
        """The highest kept block that is not above `number`."""
        query = "SELECT number, hash, parent, time FROM block WHERE number <= ? ORDER BY number DESC LIMIT 1"
        return self._header(query, number)

    def _header(self, query: str, *values: int) -> Header | None:
        row = self._one(query, *values)
        return Header(row[0], Hash32(row[1]), Hash32(row[2]), row[3]) if row else None

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock, translated():
            return self._db.execute(query, values).fetchone()

    def add(self, after: Header | None, headers: Iterable[Header], logs: Iterable[Log]) -> None:
        """Store blocks above `after` and their logs, all or none: none when that is not the tip any more."""
        times = {}
        with self._lock, translated(), transaction(self._db):
            query = "SELECT number, hash FROM block ORDER BY number DESC LIMIT 1"
            if self._db.execute(query).fetchone() != ((after.number, after.hash) if after else None):
                return  # another process read on, or undid a block
            for header in headers:
                times[header.number] = header.time
                values = (header.number, header.hash, header.parent, header.time)
                self._db.execute("INSERT INTO block VALUES (?, ?, ?, ?)", values)
            query = f"INSERT INTO log ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.executemany(query, [_row(log, times[log.block]) for log in logs])
            empty = "number < ? AND NOT EXISTS (SELECT 1 FROM log WHERE log.block = block.number)"
            self._db.execute(f"DELETE FROM block WHERE {empty}", (max(times, default=0) - KEEP,))

    def undo(self, tip: Header) -> None:
        """Forget a block and all above it; logs that were offered move to `undone`, the newest first.

        Nothing happens when the block is not there any more.
        """
        number = tip.number
        with self._lock, translated(), transaction(self._db):
            query = "SELECT 1 FROM block WHERE number = ? AND hash = ?"
            if self._db.execute(query, (number, tip.hash)).fetchone() is None:
                return
            self._set("undos", self._cursor("undos") + 1)
            offered = self._cursor("offered")
            query = f"INSERT INTO undone ({_FIELDS}) SELECT {_FIELDS} FROM log WHERE block BETWEEN ? AND ?"
            self._db.execute(f"{query} ORDER BY block DESC, idx DESC", (number, offered))
            self._db.execute("DELETE FROM log WHERE block >= ?", (number,))
            self._db.execute("DELETE FROM block WHERE number >= ?", (number,))
            for name in ("offered", "acknowledged"):
                self._set(name, min(self._cursor(name), number - 1))
            if number <= self.fold.block():
                self.fold.forget()

    def undos(self) -> int:
        """A number that changes whenever blocks are forgotten, whichever process does it."""
        with self._lock, translated():
            return self._cursor("undos")

    def holds(self, header: Header) -> bool:
        """Whether this very block is kept."""
        return self._one("SELECT 1 FROM block WHERE number = ? AND hash = ?", header.number, header.hash) is not None

    def logs(self, first: int, last: int) -> list[Stored]:
        """Logs of blocks `first` … `last` in chain order."""
        query = f"SELECT {_FIELDS} FROM log WHERE block BETWEEN ? AND ? ORDER BY block, idx"
        with self._lock, translated():
            return [stored(row) for row in self._db.execute(query, (first, last))]

    def logs_of(self, kinds: Sequence[Hash32], last: int) -> list[Stored]:
        """Logs of blocks up to `last` whose first topic is one of `kinds`, in chain order."""
        marks = ",".join("?" * len(kinds))
        query = f"SELECT {_FIELDS} FROM log WHERE block <= ? AND substr(topics, 1, 66) IN ({marks}) ORDER BY block, idx"
        with self._lock, translated():
            return [stored(row) for row in self._db.execute(query, (last, *kinds))]

    def undone(self) -> tuple[list[Stored], int]:
        """Logs to take back, in that order, and the mark that acknowledges them."""
        query = f"SELECT {_FIELDS}, id FROM undone ORDER BY id"
        with self._lock, translated():
            rows = self._db.execute(query).fetchall()
        return [stored(row[:-1]) for row in rows], int(rows[-1][-1]) if rows else 0

    def offered(self) -> int:
        """The highest block whose events may have reached the consumer."""
        with self._lock, translated():
            return self._cursor("offered")

    def acknowledged(self) -> int:
        """The highest block whose events the consumer has."""
        with self._lock, translated():
            return self._cursor("acknowledged")

    def offer(self, upto: int) -> None:
        """Note that events up to this block go out."""
        with self._lock, translated(), transaction(self._db):
            self._set("offered", max(upto, self._cursor("offered")))

    def acknowledge(self, upto: int, upto_hash: str, mark: int) -> None:
        """Note that the consumer has events up to block `upto`, if that still stands, and undid those up to `mark`."""
        with self._lock, translated(), transaction(self._db):
            self._db.execute("DELETE FROM undone WHERE id <= ?", (mark,))
            query = "SELECT 1 FROM block WHERE number = ? AND hash = ?"
            if self._db.execute(query, (upto, upto_hash)).fetchone():
                reached = max(self._cursor("acknowledged"), min(upto, self._cursor("offered")))
                self._set("acknowledged", reached)

    def _cursor(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM cursor WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else -1

    def _set(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?)", (name, value))


def _row(log: Log, time: int) -> Sequence[Any]:
    topics = ",".join(log.topics)
    return (log.block, log.index, log.block_hash, log.transaction, log.address, topics, log.data, time)


def stored(row: Sequence[Any]) -> Stored:
    """A row of the table of logs."""
    block, index, block_hash, tx, address, topics, data, time = row
    names = tuple(Hash32(topic) for topic in topics.split(",") if topic)
    return Log(block, Hash32(block_hash), Hash32(tx), index, Address(address), names, bytes(data)), time
