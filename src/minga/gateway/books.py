"""API keys and what they spent: an account book on disk that cannot be overdrawn.

A request first *holds* the most that it can cost, then settles at what it did cost; both are transactions that are on
disk before anything else happens. So a key's settled and held amounts never exceed its budget, however many requests
run at once and whenever the process dies. What a dead process held is charged in full when the book is opened again,
because nobody knows how much of it was delivered.

Amounts are nanodollars (10⁻⁹ $), so that a token at $0.001 a million is a whole number. A key's secret is shown once;
the book has its BLAKE3. Does not know: models' prices, HTTP.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from minga.core.effects import Clock, Dice
from minga.core.errors import BudgetSpent, Conflict, InvalidInput, NotFound, Unauthorized
from minga.store.journal import translated

NANODOLLARS = 10**9
AMOUNT_MAX = 2**62
NAME_MAX = 64
PREFIX = "mk-"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS key (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, digest BLOB NOT NULL UNIQUE, models TEXT NOT NULL,
  budget INTEGER NOT NULL, spent INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0,
  per_minute INTEGER NOT NULL, made_at INTEGER NOT NULL, revoked_at INTEGER,
  requests INTEGER NOT NULL DEFAULT 0, prompt_tokens INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  CHECK (spent >= 0 AND held >= 0 AND spent + held <= budget)
);
CREATE TABLE IF NOT EXISTS hold (id INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL, amount INTEGER NOT NULL);
"""
_COLUMNS = (
    "id, name, models, budget, spent, held, per_minute, made_at, revoked_at, requests, prompt_tokens, completion_tokens"
)


@dataclass(frozen=True, slots=True)
class Key:
    """One API key. Amounts in nanodollars; `models` it may ask (empty: all); `per_minute` requests at most."""

    id: int
    name: str
    models: tuple[str, ...]
    budget: int
    spent: int
    held: int
    per_minute: int
    made_at: int
    revoked_at: int | None
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def left(self) -> int:
        """What is neither spent nor held."""
        return self.budget - self.spent - self.held


@dataclass(frozen=True, slots=True)
class Hold:
    """What one request may cost at most, taken out of its key's budget until it is settled."""

    id: int
    key: int
    amount: int


class Books:
    """The book of one gateway; safe for threads of one process. Other processes may read and add keys."""

    def __init__(self, path: Path, clock: Clock, dice: Dice, *, recover: bool = False) -> None:
        """Open or create the book at `path` (mode 0600).

        Args:
            path: the file.
            clock, dice: for a key's time and secret.
            recover: charge what a dead gateway held; only the gateway itself, and only one runs on a book.

        Raises:
            DiskFull: there is no room for the file.
            InternalError: the file is no book, or damaged.
        """
        self.path, self._clock, self._dice = path, clock, dice
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with translated(path):
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        if recover:
            with self._transaction():
                self._db.execute("UPDATE key SET spent = spent + held, held = 0 WHERE held > 0")
                self._db.execute("DELETE FROM hold")

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # ---------------------------------------------------------------------------------------------------------- keys

    def add(self, name: str, budget: int, models: tuple[str, ...] = (), per_minute: int = 600) -> str:
        """Make a key and return its secret, which is nowhere kept.

        Args:
            name: 1 … 64 printable characters, unique in this book.
            budget: nanodollars that it may ever spend.
            models: what it may ask; empty for all.
            per_minute: requests.

        Raises:
            InvalidInput: a value out of range.
            Conflict: there is a key of that name.
        """
        if not 1 <= len(name) <= NAME_MAX or not name.isprintable() or name != name.strip():
            raise InvalidInput(f"{name[:80]!r} is no name for a key", f"use 1 to {NAME_MAX} printable characters")
        if not 0 < budget <= AMOUNT_MAX or not 0 < per_minute <= 10**6:
            raise InvalidInput("a key needs a budget above zero and 1 to 1,000,000 requests a minute", "see --help")
        secret = PREFIX + self._dice.bytes(32).hex()
        with self._transaction():
            if self._db.execute("SELECT 1 FROM key WHERE name = ?", (name,)).fetchone():
                raise Conflict(f"there is a key {name!r}", "choose another name; a revoked key's name stays taken")
            self._db.execute(
                "INSERT INTO key (name, digest, models, budget, per_minute, made_at) VALUES (?, ?, ?, ?, ?, ?)",
                (name, _digest(secret), "\n".join(models), budget, per_minute, self._clock.now()),
            )
        return secret

    def revoke(self, name: str) -> None:
        """End a key; requests under way go on.

        Raises:
            NotFound: there is no such key, or it was revoked.
        """
        with self._transaction():
            changed = self._db.execute(
                "UPDATE key SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (self._clock.now(), name)
            )
            if changed.rowcount != 1:
                raise NotFound(f"there is no live key {name[:80]!r}", "see `minga gateway keys`")

    def keys(self) -> list[Key]:
        """Every key, oldest first."""
        with self._lock, translated(self.path):
            return [_key(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM key ORDER BY id")]

    def find(self, secret: str) -> Key:
        """The key with this secret.

        Raises:
            Unauthorized: there is none, or it was revoked.
        """
        with self._lock, translated(self.path):
            row = self._db.execute(f"SELECT {_COLUMNS} FROM key WHERE digest = ?", (_digest(secret),)).fetchone()
        if row is None or _key(row).revoked_at is not None:
            raise Unauthorized("the API key is not known, or was revoked", "ask the gateway's owner for one")
        return _key(row)

    # --------------------------------------------------------------------------------------------------------- money

    def hold(self, key: Key, amount: int) -> Hold:
        """Take `amount` nanodollars out of the key's budget until `settle`.

        Raises:
            BudgetSpent: less is left.
        """
        with self._transaction():
            took = self._db.execute(
                "UPDATE key SET held = held + ? WHERE id = ? AND budget - spent - held >= ?", (amount, key.id, amount)
            )
            if took.rowcount != 1:
                raise BudgetSpent(
                    f"the request could cost ${amount / NANODOLLARS:.6f}, more than this key has left",
                    "ask for fewer tokens, or for a larger budget",
                )
            made = self._db.execute("INSERT INTO hold (key, amount) VALUES (?, ?)", (key.id, amount))
            return Hold(int(made.lastrowid or 0), key.id, amount)

    def settle(self, hold: Hold, amount: int, prompt_tokens: int = 0, completion_tokens: int = 0) -> int:
        """Charge what a request did cost and free the rest; returns what was charged, at most what was held.

        Settling twice charges once.
        """
        charged = min(max(amount, 0), hold.amount)
        with self._transaction():
            if self._db.execute("DELETE FROM hold WHERE id = ?", (hold.id,)).rowcount != 1:
                return 0
            self._db.execute(
                "UPDATE key SET held = held - ?, spent = spent + ?, requests = requests + 1,"
                " prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ? WHERE id = ?",
                (hold.amount, charged, prompt_tokens, completion_tokens, hold.key),
            )
        return charged


def _key(row: tuple[object, ...]) -> Key:
    values: list[object] = list(row)
    values[2] = tuple(name for name in str(row[2]).split("\n") if name)
    return Key(*values)  # type: ignore[arg-type]


def _digest(secret: str) -> bytes:
    return blake3(secret.encode()).digest()
