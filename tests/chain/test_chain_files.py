"""What the chain's readers and senders keep on disk, when the disk fails, is shared, or holds another's file."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minga.chain.blocks import Header, Log
from minga.chain.eventstore import KEEP, EventStore
from minga.chain.journal import Entry, SqliteTransactions, translated
from minga.chain.keys import KeyStore, passphrase_from
from minga.core.crypto import Address, Hash32
from minga.core.errors import Conflict, DiskFull, InternalError, InvalidInput, KeyLocked, NotFound

TENANT = Address("0x" + "0a" * 20)
ENTRY = Entry(TENANT, "open", 0, "Market.open", "0x12", (b"raw",))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite3.OperationalError("database or disk is full"), DiskFull),
        (sqlite3.OperationalError("disk I/O error"), DiskFull),
        (sqlite3.OperationalError("database is locked"), InternalError),
        (sqlite3.DatabaseError("file is not a database"), InternalError),
        (OSError(errno.ENOSPC, "no space"), DiskFull),
        (OSError(errno.EACCES, "not yours"), OSError),
        (KeyError("a defect"), KeyError),
    ],
    ids=str,
)
def test_a_failure_of_the_file_is_named_by_its_cause(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, translated():
        raise error
    if isinstance(caught.value, DiskFull | InternalError):
        assert caught.value.remedy


class CutAt:
    """A database that fails at the n-th statement of those that write."""

    def __init__(self, database: sqlite3.Connection, number: int) -> None:
        self._database = database
        self._left = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, query: str, *values: Any) -> Any:
        """As the database, until the disk is full."""
        if not query.startswith(("SELECT", "ROLLBACK")):
            self._left -= 1
            if self._left < 0:
                raise sqlite3.OperationalError("database or disk is full")
        return self._database.execute(query, *values)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteTransactions]:
    store = SqliteTransactions(tmp_path / "journal.sqlite")
    yield store
    store.close()


@pytest.mark.parametrize("number", range(4))
def test_a_transaction_that_could_not_be_noted_takes_no_nonce(journal: SqliteTransactions, number: int) -> None:
    """At whichever statement the disk is full: begin, the effect, its bytes, commit."""
    whole = journal._db
    journal._db = CutAt(whole, number)  # type: ignore[assignment]
    with pytest.raises(DiskFull):
        journal.add(ENTRY)
    journal._db = whole
    assert (journal.find(TENANT, "open"), journal.next_nonce(TENANT), journal.active(0)) == (None, 0, [])
    assert journal.add(ENTRY)
    assert journal.find(TENANT, "open") == ENTRY


@pytest.mark.parametrize("number", range(3))
def test_a_dearer_version_is_there_whole_or_not_at_all(journal: SqliteTransactions, number: int) -> None:
    journal.add(ENTRY)
    whole = journal._db
    journal._db = CutAt(whole, number)  # type: ignore[assignment]
    for change in (lambda: journal.add_version(ENTRY, b"dearer"), lambda: journal.set_receipt(ENTRY, "{}", 5)):
        journal._db = CutAt(whole, number)  # type: ignore[assignment]
        with pytest.raises(DiskFull):
            change()
    journal._db = whole
    assert journal.find(TENANT, "open") == ENTRY
    assert journal.add_version(ENTRY, b"dearer").raws == (b"raw", b"dearer")


def header(number: int, branch: str = "a") -> Header:
    """Block `number` of a branch named by one hex digit."""
    parent = f"0x{branch}{max(0, number - 1):063x}"
    return Header(number, Hash32(f"0x{branch}{number:063x}"), Hash32(parent), 1000 + number)


def log(number: int, index: int = 0) -> Log:
    """A log of that block."""
    return Log(number, header(number).hash, Hash32("0x" + "11" * 32), index, TENANT, (Hash32("0x" + "22" * 32),), b"d")


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventStore]:
    store = EventStore(tmp_path / "events.sqlite")
    yield store
    store.close()


@pytest.mark.parametrize("number", range(4))
def test_blocks_and_their_logs_come_together(events: EventStore, number: int) -> None:
    events.add(None, [header(1)], [log(1)])
    whole = events._db
    events._db = CutAt(whole, number)  # type: ignore[assignment]
    with pytest.raises(DiskFull):
        events.add(header(1), [header(2), header(3)], [log(2), log(3)])
    events._db = whole
    assert (events.tip(), events.logs(0, 9)) == (header(1), [(log(1), 1001)])
    events.add(header(1), [header(2), header(3)], [log(2), log(3)])
    assert [found.block for found, _ in events.logs(0, 9)] == [1, 2, 3]


def test_what_another_process_read_is_not_read_again(events: EventStore, tmp_path: Path) -> None:
    other = EventStore(tmp_path / "events.sqlite")
    events.add(None, [header(1)], [])
    other.add(header(1), [header(2)], [log(2)])
    events.add(header(1), [header(2, "b")], [])
    events.add(None, [header(9)], [])
    assert events.tip() == header(2)
    before = events.undos()
    events.undo(header(2, "b"))
    assert (events.tip(), events.undos()) == (header(2), before), "that block was never kept"
    other.undo(header(2))
    assert (events.tip(), events.undos(), events.logs(0, 9)) == (header(1), before + 1, [])
    other.close()


def test_empty_blocks_far_below_the_tip_are_forgotten_and_those_with_logs_are_not(events: EventStore) -> None:
    events.add(None, [header(number) for number in range(KEEP + 50)], [log(3)])
    assert events.holds(header(3))
    assert not events.holds(header(4))
    assert events.block_upto(40) == header(3)
    assert events.holds(header(KEEP + 49))
    assert events.block_upto(2) is None


@pytest.mark.parametrize("kind", [SqliteTransactions, EventStore])
def test_a_file_of_another_program_is_refused(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    path = tmp_path / "theirs.sqlite"
    path.write_bytes(b"SQLite format 4\0" + bytes(8192))
    with pytest.raises(InternalError) as caught:
        kind(path)
    assert caught.value.remedy


# --------------------------------------------------------------------------------------------------------------- keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys", lambda name: "words", scrypt_n=2)


def test_files_that_are_no_keys_are_not_listed(keys: KeyStore) -> None:
    assert keys.info() == []
    kept = keys.create_embedded("good", b"\x01" * 32)
    for name, content in {
        "torn": b'{"address": "0x', "list": b"[]", "none": b"{}", "number": b'{"address": 5}',
        "short": b'{"address": "0x12"}', "binary": b"\xff\xfe", "empty": b"",
    }.items():  # fmt: skip
        (keys.folder / f"{name}.json").write_bytes(content)
    assert [(found.name, found.address, found.embedded) for found in keys.info()] == [("good", kept.address, True)]


@pytest.mark.parametrize(
    "body",
    [
        {"embedded": True, "address": "0x" + "00" * 20}, {"embedded": True, "secret": "zz"},
        {"embedded": True, "secret": 5}, {"embedded": True, "secret": "00" * 32}, {"secret": "01" * 32},
        {"embedded": "yes", "secret": "01" * 32},
    ],
)  # fmt: skip
def test_an_open_key_that_does_not_fit_its_file_is_refused(keys: KeyStore, body: dict[str, Any]) -> None:
    keys.create_embedded("own", b"\x01" * 32)
    (keys.folder / "own.embedded.json").write_text(json.dumps(body))
    with pytest.raises(InvalidInput) as caught:
        keys.load("own", embedded_ok=True)
    assert "01" * 32 not in str(caught.value), "no secret is told"


def test_a_name_is_taken_by_either_kind_of_key(keys: KeyStore) -> None:
    own = keys.create_embedded("own", b"\x01" * 32)
    for make in (lambda: keys.create("own", b"\x02" * 32), lambda: keys.create_embedded("own", b"\x02" * 32)):
        with pytest.raises(Conflict):
            make()
    assert keys.load("own", embedded_ok=True).address == own.address
    with pytest.raises(NotFound):
        keys.load("other")


def test_a_passphrase_file_that_cannot_be_read_is_told_and_nothing_else_is_asked(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "binary"):
        ask = passphrase_from({"MINGA_PASSPHRASE_FILE": str(path)}, prompt=lambda name: "typed")
        with pytest.raises(KeyLocked) as caught:
            ask("own")
        assert str(tmp_path) not in str(caught.value)
    (tmp_path / "good").write_text("two words \r\n")
    assert passphrase_from({"MINGA_PASSPHRASE_FILE": str(tmp_path / "good")})("own") == "two words "
    assert passphrase_from({"MINGA_PASSPHRASE": "", "MINGA_PASSPHRASE_FILE": "none"})("own") == ""
    assert passphrase_from({}, prompt=lambda name: f"for {name}", use_keyring=False)("own") == "for own"
