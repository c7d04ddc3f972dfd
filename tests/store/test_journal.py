"""The journal is durable, ordered, idempotent by effect, and held by one process a stream."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.errors import Conflict, DiskFull, InternalError, InvalidInput
from minga.store.journal import Journal, Record


def test_records_come_back_in_order_by_stream(tmp_path):
    journal = Journal(tmp_path / "j.db")
    assert journal.append("a", "one", {"n": 1}, at=10) == 1
    assert journal.append("b", "other", {}, at=11) == 1
    assert journal.append("a", "two", {"n": 2}, at=12) == 2
    assert journal.read("a") == [Record("a", 1, 10, "one", {"n": 1}), Record("a", 2, 12, "two", {"n": 2})]
    assert [r.number for r in journal.read("a", after=1)] == [2]
    assert len(journal.read("a", limit=1)) == 1
    assert journal.streams() == ["a", "b"]


def test_an_effect_is_written_once(tmp_path):
    journal = Journal(tmp_path / "j.db")
    first = journal.append("a", "send", {"n": 1}, at=1, effect="open/0")
    assert journal.append("a", "send", {"n": 2}, at=2, effect="open/0") == first
    assert [r.body for r in journal.read("a")] == [{"n": 1}]
    assert journal.has_effect("a", "open/0")
    assert not journal.has_effect("b", "open/0")
    journal.append("b", "send", {}, at=1, effect="open/0")
    assert len(journal.read("b")) == 1


def test_a_batch_is_all_or_nothing(tmp_path):
    journal = Journal(tmp_path / "j.db")
    with pytest.raises(InvalidInput):
        journal.append_all("a", [("x", {}, None), ("y", {"bad": 1.5}, None)], at=1)
    assert journal.read("a") == []
    assert journal.append_all("a", [("x", {}, None), ("y", {}, None)], at=1) == 2


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from(["e1", "e2"])), max_size=20))
def test_reopening_shows_the_same_records(tmp_path_factory, writes):
    path = tmp_path_factory.mktemp("journal") / "j.db"
    journal = Journal(path)
    for stream, effect in writes:
        journal.append(stream, "k", {"e": effect}, at=1, effect=effect)
    before = {stream: journal.read(stream) for stream in "abc"}
    journal.close()
    again = Journal(path)
    assert {stream: again.read(stream) for stream in "abc"} == before
    for stream in "abc":
        numbers = [record.number for record in before[stream]]
        assert numbers == list(range(1, len(numbers) + 1))


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    program = textwrap.dedent("""
        import sys; from pathlib import Path; from minga.store.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        while True:
            print(journal.append("a", "k", {}, at=1), flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "j.db")], stdout=subprocess.PIPE, text=True
    )
    acknowledged = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    numbers = [record.number for record in Journal(tmp_path / "j.db").read("a")]
    assert numbers[: len(acknowledged)] == acknowledged


def test_one_process_holds_a_stream(tmp_path):
    journal = Journal(tmp_path / "j.db")
    program = textwrap.dedent("""
        import sys; from pathlib import Path; from minga.store.journal import Journal
        with Journal(Path(sys.argv[1])).exclusive("a"):
            print("held", flush=True); sys.stdin.read()
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(journal.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Conflict), journal.exclusive("a"):
        pass
    with journal.exclusive("b"):
        pass
    process.kill()
    process.wait()
    with journal.exclusive("a"):
        pass


def test_a_damaged_file_is_one_error(tmp_path):
    (tmp_path / "j.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(InternalError):
        Journal(tmp_path / "j.db")


def fill(journal):
    """Append until the disk is full; the last number that was acknowledged."""
    acknowledged = 0
    for _ in range(10_000):
        try:
            acknowledged = journal.append("a", "k", {"text": "x" * 1000}, at=1)
        except DiskFull:
            break
    return acknowledged


@pytest.mark.root
def test_a_full_disk_acknowledges_nothing(tmp_path):
    """On a 256 KiB file system of its own: appends fail with DiskFull, and what was acknowledged stays."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], check=True)
    try:
        journal = Journal(mount / "j.db")
        acknowledged = fill(journal)
        assert 10 < acknowledged < 10_000
        assert len(journal.read("a")) == acknowledged
        journal.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)
