"""The durable list of transactions that were signed: one effect id, one nonce, one or more fee versions.

`Transactions` is the protocol, `SqliteTransactions` the store (WAL, synchronous=FULL). Does not know nodes or keys.
Rule: a signed transaction is written here before anybody hears of it, so that a killed process broadcasts the same one
again and never makes a second.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minga.chain.transactions import transaction_hash
from minga.core.crypto import Address, Hash32
from minga.core.errors import DiskFull, InternalError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS effect (
  sender TEXT NOT NULL, effect TEXT NOT NULL, nonce INTEGER NOT NULL, name TEXT NOT NULL, target TEXT NOT NULL,
  receipt TEXT, block INTEGER, PRIMARY KEY (sender, effect), UNIQUE (sender, nonce)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (
  sender TEXT NOT NULL, nonce INTEGER NOT NULL, number INTEGER NOT NULL, raw BLOB NOT NULL,
  PRIMARY KEY (sender, nonce, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One effect: who sends it, its nonce, what it calls, and its signed versions, the newest last.

    `receipt` is the node's JSON once it stood at depth in `block`.
    """

    sender: Address
    effect: str
    nonce: int
    name: str
    target: str
    raws: tuple[bytes, ...]
    receipt: str | None = None
    block: int | None = None

    @property
    def hashes(self) -> tuple[Hash32, ...]:
        """The hashes of all versions, the newest first."""
        return tuple(transaction_hash(raw) for raw in reversed(self.raws))


class Transactions(Protocol):
    """Where a sender keeps what it signed. All methods raise `DiskFull` or `InternalError` when the disk fails."""

    def find(self, sender: Address, effect: str) -> Entry | None:
        """The entry of an effect, or None."""
        ...

    def add(self, entry: Entry) -> bool:
        """Write a new entry durably; False when its effect or nonce is taken (by another process): nothing changed."""
        ...

    def add_version(self, entry: Entry, raw: bytes) -> Entry:
        """Write another version of the same transaction durably; returns the entry with it."""
        ...

    def set_receipt(self, entry: Entry, receipt: str, block: int) -> None:
        """Note how it ended; may be written again after a reorg."""
        ...

    def from_nonce(self, sender: Address, nonce: int) -> list[Entry]:
        """Entries of `sender` with at least this nonce, in nonce order."""
        ...

    def next_nonce(self, sender: Address) -> int:
        """One more than the highest nonce journaled, or 0."""
        ...

    def active(self, block: int) -> list[Address]:
        """Senders with an entry that has no receipt, or one in `block` or later."""
        ...


class SqliteTransactions:
    """`Transactions` in a SQLite file; several processes may share one."""

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600).

        Raises:
            DiskFull: there is no room.
            InternalError: the file is damaged or not ours.
        """
        self._lock = threading.Lock()
        self._db = open_database(path, _SCHEMA)

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    def find(self, sender: Address, effect: str) -> Entry | None:
        """See `Transactions`."""
        found = self._select("sender = ? AND effect = ?", (sender, effect))
        return found[0] if found else None

    def from_nonce(self, sender: Address, nonce: int) -> list[Entry]:
        """See `Transactions`."""
        return self._select("sender = ? AND nonce >= ? ORDER BY nonce", (sender, nonce))

    def _select(self, where: str, values: tuple[str | int, ...]) -> list[Entry]:
        columns = "sender, effect, nonce, name, target, receipt, block"
        with self._lock, translated():
            rows = self._db.execute(f"SELECT {columns} FROM effect WHERE {where}", values).fetchall()
            return [self._entry(row) for row in rows]

    def _entry(self, row: tuple[str, str, int, str, str, str | None, int | None]) -> Entry:
        sender, effect, nonce, name, target, receipt, block = row
        query = "SELECT raw FROM version WHERE sender = ? AND nonce = ? ORDER BY number"
        raws = tuple(bytes(found[0]) for found in self._db.execute(query, (sender, nonce)))
        return Entry(Address(sender), effect, nonce, name, target, raws, receipt, block)

    def add(self, entry: Entry) -> bool:
        """See `Transactions`."""
        values = (entry.sender, entry.effect, entry.nonce, entry.name, entry.target)
        with self._lock, translated(), transaction(self._db):
            query = "INSERT OR IGNORE INTO effect VALUES (?, ?, ?, ?, ?, NULL, NULL)"
            if self._db.execute(query, values).rowcount != 1:
                return False
            for number, raw in enumerate(entry.raws):
                self._db.execute("INSERT INTO version VALUES (?, ?, ?, ?)", (entry.sender, entry.nonce, number, raw))
        return True

    def add_version(self, entry: Entry, raw: bytes) -> Entry:
        """See `Transactions`."""
        with self._lock, translated(), transaction(self._db):
            query = "INSERT INTO version SELECT ?, ?, MAX(number) + 1, ? FROM version WHERE sender = ? AND nonce = ?"
            self._db.execute(query, (entry.sender, entry.nonce, raw, entry.sender, entry.nonce))
        return Entry(entry.sender, entry.effect, entry.nonce, entry.name, entry.target, (*entry.raws, raw))

    def set_receipt(self, entry: Entry, receipt: str, block: int) -> None:
        """See `Transactions`."""
        query = "UPDATE effect SET receipt = ?, block = ? WHERE sender = ? AND nonce = ?"
        with self._lock, translated(), transaction(self._db):
            self._db.execute(query, (receipt, block, entry.sender, entry.nonce))

    def next_nonce(self, sender: Address) -> int:
        """See `Transactions`."""
        query = "SELECT COALESCE(MAX(nonce) + 1, 0) FROM effect WHERE sender = ?"
        with self._lock, translated():
            return int(self._db.execute(query, (sender,)).fetchone()[0])

    def active(self, block: int) -> list[Address]:
        """See `Transactions`."""
        query = "SELECT DISTINCT sender FROM effect WHERE receipt IS NULL OR block >= ? ORDER BY sender"
        with self._lock, translated():
            return [Address(row[0]) for row in self._db.execute(query, (block,))]


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """A SQLite connection that is durable at each commit; the file and its folder are private.

    Raises:
        DiskFull: there is no room.
        InternalError: the file is damaged or not ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with translated():
        database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(schema)
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, against other processes too."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as ours: `DiskFull` when nothing more fits, `InternalError` otherwise."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "disk I/O" in str(error):
            raise DiskFull("no room to write the chain journal", "free some disk; nothing was sent") from error
        raise InternalError(f"the chain journal cannot be used: {error}", "is another program holding it?") from error
    except sqlite3.DatabaseError as error:
        raise InternalError(f"the chain journal is damaged: {error}", "restore it from a copy") from error
    except OSError as error:
        if error.errno == 28:
            raise DiskFull("no room to write the chain journal", "free some disk; nothing was sent") from error
        raise
