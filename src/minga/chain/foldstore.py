"""The fold of the first blocks, kept in the event store's own file: a view of them, and their ledger of reliability.

So that a process takes in only what is new. Does not know nodes. Rules: the blocks that are folded are an unbroken
beginning of the chain that the file holds; one transaction reads their logs, folds them and moves the mark, so that a
process that is killed leaves the fold of before or of after; forgetting one of these blocks forgets the fold
(`EventStore.undo`), and so does another version. Several processes may advance one fold: each goes on from the mark.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from minga.chain.chain import Position, Seen
from minga.chain.contract_events import Attested, Closed, HoldEnded
from minga.chain.journal import transaction, translated
from minga.chain.view import LeaseRecord, Leases, ProviderRecord, View, fact_of
from minga.core.crypto import Address, Hash32
from minga.core.units import Amount
from minga.protocol.lease import Lease, Phase
from minga.protocol.reliability import FORMULA, Fact, Ledger, Rules, Sums, Tally

SHAPE = 1
"""Of what is kept of a view and how it is written."""
BATCH = 4096
"""Logs that one transaction folds, about."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS fold_mark (id INTEGER PRIMARY KEY CHECK (id = 0), version TEXT NOT NULL, block INTEGER);
CREATE TABLE IF NOT EXISTS fold_lease (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, provider TEXT NOT NULL, closed INTEGER, record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS fold_lease_by_provider ON fold_lease (provider) WHERE closed;
CREATE TABLE IF NOT EXISTS fold_provider (address TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fold_attested (
  provider TEXT, machine TEXT, validator TEXT, record TEXT NOT NULL, PRIMARY KEY (provider, machine, validator)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fold_sums (provider TEXT PRIMARY KEY, sums TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fold_tally (
  provider TEXT, tenant TEXT, week INTEGER, tally TEXT NOT NULL, PRIMARY KEY (provider, tenant, week)
) WITHOUT ROWID;
"""
_TABLES = ("fold_mark", "fold_lease", "fold_provider", "fold_attested", "fold_sums", "fold_tally")
_FIELDS = "block, idx, hash, tx, address, topics, data, time"

Decode = Callable[[Sequence[Any]], Iterable[Seen]]
"""Rows of the table of logs as the events that they are."""


class FoldStore:
    """`minga.chain.view.Kept`, in tables of `database`, which `lock` guards (it may be taken again by its holder)."""

    def __init__(self, database: sqlite3.Connection, lock: threading.RLock, version: str = "") -> None:
        """Use tables that `SCHEMA` made."""
        self._db = database
        self._lock = lock
        self.version = version or f"{SHAPE}.{FORMULA}"

    def block(self) -> int:
        """See `Kept`."""
        row = self._one("SELECT block, version FROM fold_mark")
        return int(row[0]) if row and row[1] == self.version else -1

    def forget(self) -> None:
        """Drop all of it, in the caller's transaction."""
        for table in _TABLES:
            self._db.execute(f"DELETE FROM {table}")

    def advance(self, upto: int, decode: Decode, rules: Rules) -> bool:
        """Fold the logs of blocks after the mark, at most `upto`; about `BATCH` of them.

        Returns whether there is more to fold. Every block up to `upto` must be in the file.

        Raises:
            DiskFull, InternalError: the disk fails; nothing was changed.
            BadAnswer: a log does not fit its event's declaration.
        """
        with self._lock, translated(), transaction(self._db):
            mark = self.block()
            if mark < 0:
                self.forget()
            if upto <= mark:
                return False
            query = f"SELECT {_FIELDS} FROM log WHERE block > ? AND block <= ? ORDER BY block, idx LIMIT ?"
            rows = self._db.execute(query, (mark, upto, BATCH)).fetchall()
            if is_cut := len(rows) == BATCH:
                upto = rows[-1][0]  # whole blocks alone: the rest of the last one belongs to it
                query = f"SELECT {_FIELDS} FROM log WHERE block = ? AND idx > ? ORDER BY idx"
                rows += self._db.execute(query, rows[-1][:2]).fetchall()
            self._take_in(decode(rows), rules)
            self._db.execute("INSERT OR REPLACE INTO fold_mark VALUES (0, ?, ?)", (self.version, upto))
            return is_cut

    def _take_in(self, news: Iterable[Seen], rules: Rules) -> None:
        view, ledger = View.over(self), Ledger(rules, self)
        providers, attestations = dict(view.providers), dict(view.attestations)
        view.apply(news)
        for lease_id in view.ended:
            ledger.end(fact_of(view.leases[lease_id]))
        for provider, sums, tallies in ledger.news():
            self._db.execute("INSERT OR REPLACE INTO fold_sums VALUES (?, ?)", (provider, _of_sums(sums)))
            rows = [(provider, tenant, week, _flat(tally)) for (week, tenant), tally in tallies.items()]
            self._db.executemany("INSERT OR REPLACE INTO fold_tally VALUES (?, ?, ?, ?)", rows)
        for address, record in view.providers.items():
            if providers.get(address) != record:
                self._db.execute("INSERT OR REPLACE INTO fold_provider VALUES (?, ?)", (address, _flat(record)))
        for key, event in view.attestations.items():
            if attestations.get(key) != event:
                self._db.execute("INSERT OR REPLACE INTO fold_attested VALUES (?, ?, ?, ?)", (*key, _flat(event)))
        assert isinstance(view.leases, Leases)
        query = (
            "INSERT INTO fold_lease (id, provider, closed, record) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET closed = excluded.closed, record = excluded.record"
        )
        self._db.executemany(query, [_row(record) for record in view.leases.changed.values()])

    # --------------------------------------------------------------------------------------------------------- the view

    def lease(self, lease_id: str) -> LeaseRecord | None:
        """See `Kept`."""
        row = self._one("SELECT record FROM fold_lease WHERE id = ?", lease_id)
        return _lease(row[0]) if row else None

    def leases(self) -> Iterator[LeaseRecord]:
        """See `Kept`."""
        return (_lease(row[0]) for row in self._all("SELECT record FROM fold_lease ORDER BY number"))

    def registered(self) -> dict[Address, ProviderRecord]:
        """See `Kept`."""
        found = (ProviderRecord(*json.loads(row[0])) for row in self._all("SELECT record FROM fold_provider"))
        return {record.address: record for record in found}

    def attested(self) -> dict[tuple[Address, Hash32, Address], Attested]:
        """See `Kept`."""
        found = (Attested(*json.loads(row[0])) for row in self._all("SELECT record FROM fold_attested"))
        return {(event.provider, event.machine, event.validator): event for event in found}

    # ------------------------------------------------------------------------------------------------------- the ledger

    def sums(self, provider: str) -> Sums | None:
        """See `KeptLedger`."""
        row = self._one("SELECT sums FROM fold_sums WHERE provider = ?", provider)
        if row is None:
            return None
        weeks, counts, tenants, first, last = json.loads(row[0])
        by_week = {int(week): Tally(*tally) for week, tally in weeks.items()}
        return Sums(by_week, defaultdict(int, counts), tenants, first, last)

    def tally(self, provider: str, tenant: str, week: int) -> Tally | None:
        """See `KeptLedger`."""
        query = "SELECT tally FROM fold_tally WHERE provider = ? AND tenant = ? AND week = ?"
        row = self._one(query, provider, tenant, week)
        return Tally(*json.loads(row[0])) if row else None

    def has_tenant(self, provider: str, tenant: str) -> bool:
        """See `KeptLedger`."""
        query = "SELECT 1 FROM fold_tally WHERE provider = ? AND tenant = ? LIMIT 1"
        return self._one(query, provider, tenant) is not None

    def fact(self, lease_id: str) -> Fact | None:
        """See `KeptLedger`."""
        row = self._one("SELECT record FROM fold_lease WHERE id = ? AND closed", lease_id)
        return fact_of(_lease(row[0])) if row else None

    def facts(self, provider: str) -> list[Fact]:
        """See `KeptLedger`."""
        query = "SELECT record FROM fold_lease WHERE provider = ? AND closed"
        return [fact_of(_lease(row[0])) for row in self._all(query, provider)]

    def sellers(self) -> list[str]:
        """See `KeptLedger`."""
        return [row[0] for row in self._all("SELECT provider FROM fold_sums")]

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock, translated():
            return self._db.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._lock, translated():
            return self._db.execute(query, values).fetchall()


def _values(value: Any) -> list[Any]:
    return [getattr(value, field.name) for field in fields(value)]


def _flat(value: Any) -> str:
    return json.dumps(_values(value))


def _of_sums(sums: Sums) -> str:
    weeks = {week: _values(tally) for week, tally in sums.by_week.items()}
    return json.dumps((weeks, sums.counts, sums.tenants, sums.first, sums.last))


def _row(record: LeaseRecord) -> tuple[str, str, int, str]:
    ends = [None if event is None else _values(event) for event in (record.closed, record.hold_ended)]
    amounts = (record.deposit, record.settled, record.paid, record.fee)
    times = (record.ends_at, record.finish_at, record.tenant_said, record.closed_at)
    body = json.dumps((record.phase, record.lease.as_tuple(), _values(record.opened), *ends, amounts, times))
    return record.lease.id, record.lease.provider, int(record.phase is Phase.CLOSED), body


def _lease(text: str) -> LeaseRecord:
    phase, lease, opened, closed, hold_ended, amounts, times = json.loads(text)
    deposit, settled, paid, fee = amounts
    ends_at, finish_at, tenant_said, closed_at = times
    return LeaseRecord(
        lease=Lease(*lease),
        phase=Phase(phase),
        deposit=Amount(deposit),
        settled=Amount(settled),
        paid=Amount(paid),
        fee=Amount(fee),
        ends_at=ends_at,
        opened=Position(*opened),
        finish_at=finish_at,
        closed=None if closed is None else Closed(*closed),
        hold_ended=None if hold_ended is None else HoldEnded(*hold_ended),
        tenant_said=tenant_said,
        closed_at=closed_at,
    )
