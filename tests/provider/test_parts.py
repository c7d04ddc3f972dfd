"""The provider's pure and small parts: metering, admission, offers, machine, collecting, logs, variables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import SeededDice
from minga.core.crypto import ZERO_ADDRESS, keccak, new_key
from minga.core.eip712 import Domain
from minga.core.errors import BoardUnavailable, InvalidInput, NotFound, UnsafePath
from minga.core.spec import Bundle, Machine, Manifest, Terms, UnitSize
from minga.protocol.pricing import cost_down
from minga.provider.admission import place_of
from minga.provider.bidding import Ask, OfferBook, bundle_of, check_fits, make_offer, next_renewal, post, split
from minga.provider.collect import ProgressTail, collect_artifacts, parse_progress, wanted_path
from minga.provider.desk import Bucket
from minga.provider.logs import LogFile
from minga.provider.machine import describe_machine, kept_secret
from minga.provider.metering import Stopwatch, crosses, deposit_least, exhausted_at, limit_of, next_due
from minga.provider.prepare import variables
from minga.runtimes.launcher import environment_at
from minga.runtimes.probe import MachineFacts
from minga.runtimes.runtime import LogChunk, OutputFile
from minga.store.blobs import BlobStore

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(40)]
GIB = 1 << 30
H = "0x" + "ab" * 32

# ------------------------------------------------------------------------------------------------------- metering


def test_a_stopwatch_counts_what_ran_and_nothing_else():
    watch = Stopwatch(5)
    assert (watch.seconds(100.0), watch.running) == (5, False)
    watch.go(100.0)
    watch.go(101.0)
    assert watch.seconds(103.9) == 8
    watch.hold(104.0)
    watch.hold(200.0)
    assert watch.exact(300.0) == 9.0
    watch.go(400.0)
    watch.hold(450.0, at_most=12)
    assert watch.exact(500.0) == 12.0
    watch.go(500.0)
    assert watch.seconds(499.0) == 12


prices = st.integers(0, 2**80)


@given(prices, st.integers(1, 1000), st.integers(1, 86400), st.integers(0, 2**90))
def test_the_limit_is_reached_at_exactly_one_second(price: int, units: int, quantum: int, paid: int):
    seconds = exhausted_at(price, units, quantum, paid)
    if price == 0:
        assert seconds is None
        return
    limit = limit_of(price, units, quantum)
    assert seconds is not None
    assert cost_down(price, units, seconds) - paid >= limit
    assert seconds == 0 or cost_down(price, units, seconds - 1) - paid < limit


@given(st.integers(0, 10**6), st.integers(1, 86400), st.none() | st.integers(0, 10**6))
def test_the_next_reading_is_ahead_soon_and_never_past_the_limit(working: int, quantum: int, exhausted: int | None):
    due = next_due(working, quantum, exhausted)
    assert working < due <= working + 15
    assert exhausted is None or exhausted <= working or due <= exhausted
    assert due <= (working // max(1, quantum // 2) + 1) * max(1, quantum // 2)


def test_half_quanta_and_the_least_deposit():
    assert [second for second in range(1, 13) if crosses(second - 1, second, 10)] == [5, 10]
    assert [second for second in range(1, 4) if crosses(second - 1, second, 1)] == [1, 2, 3]
    assert deposit_least(3600, 60) == 60
    assert deposit_least(1, 60) == 1
    assert deposit_least(0, 60) == 1


def test_a_bucket_lets_so_many_through_and_refills():
    bucket = Bucket(2, 1.0, at=10.0)
    assert [bucket.take(10.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(11.0) for _ in range(2)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


# ------------------------------------------------------------------------------------------- admission, variables


@pytest.mark.parametrize(
    ("target", "place"),
    [("/job/work", "work"), ("/job/work/a/b", "work/a/b"), ("/job/home/x", "home/x"), ("/job/checkpoint", "checkpoint"),
     ("/data", "/data"), ("/data/set", "/data/set"), ("/mnt/x", "/mnt/x")],
)  # fmt: skip
def test_where_inputs_go(target: str, place: str):
    assert str(place_of(Bundle(kind="mount", target=target, blake3="ab" * 32, bytes=1))) == place


@pytest.mark.parametrize(
    "target", ["/", "/job", "/job/.minga", "/job/venv", "/job/progress.jsonl", "/usr/x", "/dev/null"]
)
def test_where_inputs_may_not_go(target: str):
    with pytest.raises(InvalidInput):
        place_of(Bundle(kind="mount", target=target, blake3="ab" * 32, bytes=1))


def test_the_jobs_variables_cannot_be_overridden_by_its_own():
    size = UnitSize(cpu_milli=2500, memory_bytes=GIB, disk_bytes=GIB)
    envs = {"MINGA_JOB": "fake", "OMP_NUM_THREADS": "9", "MINE": "x"}
    manifest = Manifest(job=H, attempt=3, name="n", run="true", size=size, envs=envs, egress=["index.test"])
    found = variables(manifest)
    assert found["MINGA_JOB"] == H
    assert (found["MINGA_CPUS"], found["OMP_NUM_THREADS"], found["MINE"]) == ("2", "9", "x")
    assert found["MINGA_EGRESS"] == "index.test"
    assert found["SKYPILOT_NUM_NODES"] == "1"


def test_what_a_folder_is_to_a_job(tmp_path: Path):
    assert environment_at(Path("/")).kind == "system"
    assert environment_at(tmp_path).kind == "rootfs"
    (tmp_path / "pyvenv.cfg").write_text("")
    assert environment_at(tmp_path).kind == "python"


# ------------------------------------------------------------------------------------------------ machine, offers

FACTS = MachineFacts("x86_64", "linux", "6.1", "CPU", 4, 16 * GIB, 100 * GIB + 5, ())


def test_the_machine_stays_the_same_while_its_disk_fills(tmp_path: Path):
    dice = SeededDice("m")
    first = describe_machine(FACTS, tmp_path, dice)
    assert first.disk_bytes == 100 * GIB

    def facts(**changes: Any) -> MachineFacts:
        from dataclasses import replace

        return replace(FACTS, **changes)

    assert describe_machine(facts(disk_free_bytes=60 * GIB), tmp_path, dice) == first
    assert describe_machine(facts(disk_free_bytes=40 * GIB), tmp_path, dice).hash32() != first.hash32()
    other = describe_machine(facts(cpus=8), tmp_path, dice)
    assert other.cpus == 8
    assert other.node == first.node
    (tmp_path / "node").write_text("broken")
    with pytest.raises(InvalidInput, match="not a key"):
        describe_machine(FACTS, tmp_path, dice)
    assert kept_secret(tmp_path / "new", dice) == kept_secret(tmp_path / "new", dice)


def machine() -> Machine:
    return Machine(node=H, arch="x", cpu="c", cpus=4, memory_bytes=16 * GIB, disk_bytes=100 * GIB, os="linux")


def test_a_machine_is_split_evenly_and_never_sold_twice():
    unit = split(machine(), 2)
    assert (unit.cpu_milli, unit.memory_bytes, unit.disk_bytes) == (2000, 16 * GIB * 45 // 100, 40 * GIB)
    check_fits(machine(), unit, 2)
    with pytest.raises(InvalidInput, match="cpu_milli"):
        check_fits(machine(), unit, 3)
    with pytest.raises(InvalidInput, match="gpus"):
        check_fits(machine(), unit.model_copy(update={"gpus": 1}), 1)
    with pytest.raises(InvalidInput, match="too many"):
        split(machine(), 1000)


ASK = Ask(3600, 2, 60, 60, 60, 86400, 3600, 600)
AGENT = new_key(keccak(b"agent"))
DOMAIN = Domain(1, "0x" + "44" * 20)


def bundle(now: int = 1000, salt: int = 1):
    size = UnitSize(cpu_milli=1000, memory_bytes=GIB, disk_bytes=GIB)
    terms = Terms(transport_key="ab" * 32, unit=size, sandbox="bubblewrap")
    offer = make_offer(ASK, AGENT.address, machine().hash32(), terms.hash32(), 7, now, bytes([salt]) * 32)
    return bundle_of(offer, machine(), terms, "http://127.0.0.1:1", now, DOMAIN, AGENT)


def test_an_offer_says_what_was_asked_and_is_signed_for_one_market():
    offer = bundle().check(DOMAIN, 1599)
    assert (offer.valid_until, offer.epoch, offer.units, offer.price_per_hour) == (1600, 7, 2, 3600)
    assert (offer.arbiter, offer.hold_bps, offer.hold_seconds) == (ZERO_ADDRESS, 0, 0)
    assert [next_renewal(offer, now, ASK) for now in (1000, 1299, 1300, 9999)] == [300, 1, 0, 0]


def test_the_book_keeps_an_offer_as_long_as_a_lease_may_live_on_it(tmp_path: Path):
    book = OfferBook(tmp_path / "offers")
    kept = bundle()
    book.keep(kept)
    assert OfferBook(tmp_path / "offers").get(kept.offer_hash()) == kept
    last = 1600 + 86400 + 3600 + 86400
    book.prune(last)
    assert book.get(kept.offer_hash()) == kept
    (tmp_path / "offers/x.json").write_text("damaged")
    book.prune(last + 1)
    with pytest.raises(NotFound):
        book.get(kept.offer_hash())
    with pytest.raises(NotFound):
        book.get("0x" + "x" * 64)


async def test_a_board_that_is_not_there_is_one_error():
    with pytest.raises(BoardUnavailable):
        await post("http://127.0.0.1:1", bundle())
    with pytest.raises(InvalidInput):
        await post("http://example.org", bundle())


# ------------------------------------------------------------------------------------------------------ collecting


class Folder:
    """A job's folder in memory, as a handle shows it."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "/"): data for name, data in files.items()}
        self.on_open = lambda path: None

    async def list_outputs(self, **_: int) -> list[OutputFile]:
        return [OutputFile(path, len(data)) for path, data in sorted(self.files.items())]

    async def open_output(self, path: str) -> io.BytesIO:
        self.on_open(path)
        if path not in self.files:
            raise NotFound(f"no {path}", "")
        return io.BytesIO(self.files[path])


@pytest.mark.parametrize(
    ("path", "outputs", "name"),
    [
        ("out/a", [], "a"),
        ("out/d/a", [], "d/a"),
        ("work/a", [], None),
        ("work/a", ["a"], "a"),
        ("work/d/a.txt", ["*.txt"], None),
        ("work/d/a.txt", ["**/*.txt"], "d/a.txt"),
        ("work/a.txt", ["**/*.txt"], "a.txt"),
        ("work/d/e/f", ["d"], "d/e/f"),
        ("work/d/e/f", ["d/*"], "d/e/f"),
        ("work/dx", ["d"], None),
        ("work/a.b", ["a?b"], "a.b"),
        ("work/axb", ["a.b"], None),
        ("checkpoint/a", ["**"], None),
        (".minga/run.sh", ["**"], None),
        ("out", [], None),
    ],
)
def test_which_files_are_artifacts(path: str, outputs: list[str], name: str | None):
    assert wanted_path(path, outputs) == name


async def test_artifacts_are_hashed_as_they_are_copied_and_bounded(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    folder = Folder(out__a=b"one", out__b=b"x" * 50, out__c=b"three", work__a=b"shadowed", work__z=b"z")
    found = await collect_artifacts(folder, blobs, ["*"], 20)  # type: ignore[arg-type]
    assert [(item["path"], item["bytes"]) for item in found.files] == [("a", 3), ("c", 5), ("z", 1)]
    assert len(found.warnings) == 1
    assert "'out/b'" in found.warnings[0]
    assert b"".join(blobs.read(found.files[0]["blake3"])) == b"one"
    folder.on_open = lambda path: (_ for _ in ()).throw(UnsafePath("a link", ""))
    found = await collect_artifacts(folder, blobs, [], 20)  # type: ignore[arg-type]
    assert (found.files, len(found.warnings)) == ([], 3)


@given(st.binary(max_size=300))
def test_no_progress_line_breaks_the_journal(line: bytes):
    found = parse_progress(line)
    assert found is None or json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"step": 3, "total": 9}', {"step": 3, "total": 9}),
        (b'{"loss": 4.16, "x": NaN}', {"loss": "4.16", "x": "NaN"}),
        (b'{"a b": 1, "ok": true, "list": [1], "none": null}', {"ok": True}),
        (b'{"big": 99999999999999999999}', None),
        (b'{"text": "\\ud800"}', {"text": "?"}),
        (b"[1]", None),
        (b"", None),
        (b"{", None),
        (b'{"x":"' + b"y" * 5000 + b'"}', None),
    ],
)
def test_progress_lines(line: bytes, found: dict[str, Any] | None):
    assert parse_progress(line) == found


async def test_only_whole_new_lines_are_read_however_many_there_are():
    folder = Folder()
    tail = ProgressTail(folder)  # type: ignore[arg-type]
    assert await tail.latest() is None
    folder.files["progress.jsonl"] = b'{"step": 1}\n{"step": 2'
    assert await tail.latest() == {"step": 1}
    assert await tail.latest() is None
    folder.files["progress.jsonl"] += b"}\nrubbish\n"
    assert await tail.latest() == {"step": 2}
    folder.files["progress.jsonl"] += b'{"step": 3}\n' * 100_000
    assert await tail.latest() == {"step": 3}
    folder.files["progress.jsonl"] = b'{"step": 4}\n'
    await tail.latest()


def test_a_log_goes_on_after_a_restart_and_says_what_was_dropped(tmp_path: Path):
    log = LogFile(tmp_path / "log")
    assert (log.size(), log.read(0), log.stream_offset()) == (0, b"", 0)
    log.append(LogChunk(0, b"hello\n", 0))
    assert LogFile(tmp_path / "log").stream_offset() == 6
    log.append(LogChunk(1006, b"later\n", 1000))
    text = log.read(0)
    assert text == b"hello\n\n[minga: 1000 bytes of output were dropped here]\nlater\n"
    again = LogFile(tmp_path / "log")
    assert again.stream_offset() == 1012
    again.append(LogChunk(1012, b"end", 0))
    assert again.stream_offset() == 1015
    assert (again.read(6, 3), again.read(99999)) == (text[6:9], b"")
