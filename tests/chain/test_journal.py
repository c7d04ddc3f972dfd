"""The list of signed transactions: durable, one nonce for one effect, shared between processes."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minga.chain.journal import Entry, SqliteTransactions
from minga.chain.transactions import transaction_hash
from minga.core.crypto import Address
from minga.core.errors import DiskFull, InternalError

TENANT, PROVIDER = Address("0x" + "0a" * 20), Address("0x" + "0b" * 20)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteTransactions]:
    store = SqliteTransactions(tmp_path / "new" / "journal.sqlite")
    yield store
    store.close()


def entry(effect: str, nonce: int, sender: Address = TENANT) -> Entry:
    return Entry(sender, effect, nonce, "Market.open", "0x12", (f"raw {effect}".encode(),))


def test_what_was_added_is_there_after_a_restart(journal: SqliteTransactions, tmp_path: Path) -> None:
    assert journal.add(entry("open", 0))
    wider = journal.add_version(entry("open", 0), b"dearer")
    journal.set_receipt(wider, "{}", 7)
    journal.close()
    again = SqliteTransactions(tmp_path / "new" / "journal.sqlite")
    found = again.find(TENANT, "open")
    assert found == Entry(TENANT, "open", 0, "Market.open", "0x12", (b"raw open", b"dearer"), "{}", 7)
    assert found.hashes == (transaction_hash(b"dearer"), transaction_hash(b"raw open"))
    again.close()
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "new" / "journal.sqlite").stat().st_mode) == 0o600


def test_an_effect_and_a_nonce_are_taken_once(journal: SqliteTransactions, tmp_path: Path) -> None:
    other = SqliteTransactions(tmp_path / "new" / "journal.sqlite")  # as another process would
    assert journal.add(entry("open", 0))
    assert not other.add(entry("open", 1))
    assert not other.add(entry("close", 0))
    assert other.add(entry("close", 1))
    assert other.add(entry("open", 0, PROVIDER))
    assert journal.find(TENANT, "close") == entry("close", 1)
    assert (journal.next_nonce(TENANT), journal.next_nonce(PROVIDER)) == (2, 1)
    assert journal.next_nonce(Address("0x" + "0c" * 20)) == 0
    other.close()


def test_what_may_have_to_be_sent_again(journal: SqliteTransactions) -> None:
    for nonce in (2, 0, 1):
        journal.add(entry(f"effect {nonce}", nonce))
    assert [found.nonce for found in journal.from_nonce(TENANT, 1)] == [1, 2]
    assert journal.active(100) == [TENANT]
    for nonce in range(3):
        journal.set_receipt(entry(f"effect {nonce}", nonce), "{}", 10 + nonce)
    assert journal.active(12) == [TENANT]
    assert journal.active(13) == []


def test_a_full_disk_and_a_damaged_file_are_told(journal: SqliteTransactions, tmp_path: Path) -> None:
    journal._db.execute("PRAGMA max_page_count = 1")
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        fill(journal)
    journal._db.execute("PRAGMA max_page_count = 100000")
    count = journal.next_nonce(TENANT)
    assert journal.find(TENANT, f"effect {count}") is None  # all or nothing
    assert journal.add(entry("after", count))
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"not a database" * 500)
    with pytest.raises(InternalError):
        SqliteTransactions(damaged)


def fill(journal: SqliteTransactions) -> None:
    for nonce in range(1000):
        journal.add(Entry(TENANT, f"effect {nonce}", nonce, "n", "t", (bytes(4000),)))
