"""An attempt at a provider that refuses, stalls, lies or breaks off: what is paid and believed, when it is left."""

from __future__ import annotations

import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response, StreamingResponse
from strangers import BUNDLE, CHANNEL, NOW, Stranger, Watched, attempt_at, checkpoint_of, entry_of, event, lease_of, sse

from minga.client import attempt as module
from minga.client import folder as folder_module
from minga.client.acceptance import acceptance
from minga.client.folder import NoRoomHere
from minga.core.crypto import blake3_hex
from minga.core.errors import (
    BadAnswer,
    BadArtifact,
    Conflict,
    DiskFull,
    Expired,
    InvalidInput,
    MingaError,
    OutOfCapacity,
    ProviderUnreachable,
    StaleVoucher,
    Unauthorized,
    UnsafePath,
)
from minga.core.spec import Bundle
from minga.protocol import job_events as ev
from minga.protocol.wire import Event

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


def refuse(error: MingaError, times: int = 10**9, then=None):
    """An answer that is a refusal, so many times; then `then()`."""
    left = [times]

    def answer(request):
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return then(request)

    return answer


# ----------------------------------------------------------------------------------------------------------- talking


async def test_a_token_that_is_refused_is_replaced_once_for_all_requests(tmp_path: Path) -> None:
    stranger = Stranger()
    async with attempt_at(stranger, tmp_path) as watched:
        api = watched.attempt.api
        await watched.attempt.ask(api.status)
        stranger.tokens += 1  # what it gave out before counts no more
        results = []

        async def ask() -> None:
            results.append(await watched.attempt.ask(api.status))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert [status.phase for status in results] == ["running"] * 5
        assert stranger.asked.count("login") == 2


async def test_a_provider_whose_tokens_never_count_is_left_after_the_heartbeat_window(tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["status"] = refuse(Unauthorized("no", "log in"))
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(Unauthorized):
            await watched.attempt.ask(watched.attempt.api.status)
        assert module.HEARTBEAT_S <= watched.clock.passed < module.HEARTBEAT_S + 1


@pytest.mark.parametrize(
    "error",
    [OutOfCapacity("busy", "wait"), BadAnswer("nonsense", ""), Conflict("not visible yet", "again", retry=True)],
)
async def test_what_may_pass_is_waited_for(error: MingaError, tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["login"] = refuse(error, 3, stranger._login)
    async with attempt_at(stranger, tmp_path) as watched:
        assert (await watched.attempt.ask(watched.attempt.api.status)).phase == "running"
        assert stranger.asked.count("login") == 4
    stranger.answers["login"] = refuse(error)
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(type(error)):
            await watched.attempt.ask(watched.attempt.api.status, patience_s=2)
        assert watched.clock.passed <= 3


@pytest.mark.parametrize("error", [Conflict("never", ""), Expired("your clock is wrong", ""), InvalidInput("no", "")])
async def test_what_cannot_pass_is_not_asked_again(error: MingaError, tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["login"] = refuse(error)
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(type(error)):
            await watched.attempt.ask(watched.attempt.api.status)
        assert stranger.asked == ["login"]


@pytest.mark.parametrize("token", [None, 5, ["x"]])
async def test_a_login_without_a_token_is_no_login(token: object, tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["login"] = lambda request: {"token": token}
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(BadAnswer, match="no token"):
            await watched.attempt.ask(watched.attempt.api.status)


# ------------------------------------------------------------------------------------------------------ send and start


async def test_an_input_that_was_never_announced_is_not_read_from_our_disk(tmp_path: Path) -> None:
    stranger = Stranger(missing=["../../../etc/passwd"])
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(BadAnswer, match="does not have"):
            await watched.attempt.send()
        assert stranger.received == {}


async def test_the_checkpoint_that_is_kept_here_is_sent_along_and_the_secrets_stay_sealed_the_same(
    tmp_path: Path,
) -> None:
    stranger, manifests = Stranger(), []
    stranger.events = [[event(1, "checkpoint", **checkpoint_of(stranger, 3, {"deep/model.bin": b"weights"}, 100))]]

    async def manifest(request):
        manifests.append(await request.body())
        return {"lease": CHANNEL, "phase": "opened", "missing": stranger.missing}

    stranger.answers["manifest"] = manifest
    async with attempt_at(stranger, tmp_path, checkpoint=True) as watched:
        watched.folder.save_private("secrets.json", {"TOKEN": "hunter2"})
        async with watching(watched):
            await watched.until(lambda: watched.all(ev.CheckpointKept))
        await watched.attempt.send()
        (restored,) = [Bundle(**item) for item in json.loads(manifests[0])["inputs"]]
        stranger.missing = [restored.blake3, blake3_hex(b"weights")]
        assert isinstance(await watched.attempt.send(), ev.Sent)
        assert manifests[0] == manifests[1], "the provider takes one manifest alone"
        assert b"hunter2" not in manifests[0]
        assert (restored.kind, restored.target) == ("checkpoint", "/job/checkpoint")
        assert stranger.received[blake3_hex(b"weights")] == b"weights"
        assert blake3_hex(stranger.received[restored.blake3]) == restored.blake3


@pytest.mark.parametrize(("phase", "starts"), [("running", True), ("starting", True), ("opened", False), ("ready", 0)])
async def test_a_start_that_was_asked_for_before_is_no_error(phase: str, starts: bool, tmp_path: Path) -> None:
    stranger = Stranger(phase=phase)
    stranger.answers["start"] = refuse(Conflict("the lease is running: a start cannot be now", ""))
    async with attempt_at(stranger, tmp_path) as watched:
        if starts:
            assert await watched.attempt.start() == ev.Started(0)
        else:
            with pytest.raises(Conflict):
                await watched.attempt.start()


# --------------------------------------------------------------------------------------------------------------- money


async def test_a_voucher_that_it_holds_already_is_paid(tmp_path: Path) -> None:
    """As after a restart: the first run's voucher arrived, its answer did not."""
    stranger = Stranger(paid=5000)
    stranger.answers["vouchers"] = refuse(StaleVoucher("5000 is held", "sign more"))
    async with attempt_at(stranger, tmp_path) as watched:
        assert await watched.attempt.pay(5000) == ev.Paid(0, 5000)
        assert await watched.attempt.pay(4000) == ev.Paid(0, 4000), "what it holds above that is not ours to note"
        with pytest.raises(StaleVoucher):
            await watched.attempt.pay(6000)


@pytest.mark.parametrize("accepted", [0, 4999])
async def test_a_provider_that_keeps_less_than_it_was_sent_is_not_paid_for_ever(accepted: int, tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["vouchers"] = lambda request: {"accepted": str(accepted)}
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(BadAnswer, match="5000"):
            await watched.attempt.pay(5000)


async def test_the_same_voucher_is_signed_the_same_again(tmp_path: Path) -> None:
    stranger = Stranger()
    async with attempt_at(stranger, tmp_path) as watched:
        assert await watched.attempt.pay(7000) == ev.Paid(0, 7000)
        assert await watched.attempt.pay(7000) == ev.Paid(0, 7000)
    assert stranger.vouchers == [7000, 7000], "each was checked by the signer's address and the channel"


# --------------------------------------------------------------------------------------------------------------- watch


@asynccontextmanager
async def watching(watched: Watched, after: int = 0):
    """Watch in the background; what ends it is in the list given."""
    ended: list[MingaError] = []

    async def watch() -> None:
        try:
            await watched.attempt.watch(after)
        except* MingaError as group:
            ended.append(group.exceptions[0])  # type: ignore[arg-type]
            watched.note()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield ended
        tasks.cancel_scope.cancel()


async def test_a_claim_beyond_our_clock_is_told_with_what_our_clock_saw(tmp_path: Path) -> None:
    stranger = Stranger(events=[[event(1, "phase", phase="running"), event(2, "meter", working_s=3600)]])
    async with attempt_at(stranger, tmp_path) as watched, watching(watched):
        await watched.until(lambda: watched.all(ev.Metered))
        (metered,) = watched.all(ev.Metered)
        assert (metered.working_s, metered.elapsed_s) == (3600, 0)
        (warning,) = watched.kinds("warning")
        assert warning["code"] == "overclaim"


async def test_seconds_are_counted_from_the_first_sight_of_running(tmp_path: Path) -> None:
    async with attempt_at(Stranger(), tmp_path) as watched:
        await watched.clock.sleep(100)
        assert watched.attempt.elapsed_s() == 0
        watched.attempt.work.phase("running")
        await watched.clock.sleep(7.9)
        watched.attempt.work.phase("paused")
        watched.attempt.work.phase("running")
        assert watched.attempt.elapsed_s() == 7
    async with attempt_at(Stranger(), tmp_path, lease_of(elapsed_s=30, base_s=30)) as watched:
        await watched.clock.sleep(4)
        assert watched.attempt.elapsed_s() == 34, "it ran before this process did"


async def test_a_machine_that_slept_allows_two_quanta_of_what_it_did_not_see(tmp_path: Path) -> None:
    stranger = Stranger()
    async with attempt_at(stranger, tmp_path) as watched:
        watched.attempt.work.phase("running")
        await watched.clock.sleep(3)
        heard, calendar = await watched.attempt._check_calendar(0.0, NOW)
        assert (heard, calendar) == (3.0, NOW + 3)
        watched.clock.jumped = 8 * 3600
        await watched.attempt._check_calendar(heard, calendar)
        assert watched.all(ev.Resumed) == [ev.Resumed(8 * 3600)]
        assert watched.attempt.elapsed_s() == 3 + 2 * 5
        await watched.clock.sleep(2)
        assert watched.attempt.elapsed_s() == 3 + 2 * 5 + 2


async def test_silence_and_an_empty_stream_are_the_same(tmp_path: Path) -> None:
    """A provider that answers requests and tells nothing could hold a job for ever."""
    stranger = Stranger()
    stranger.answers["events"] = lambda request: Response(b"")
    async with attempt_at(stranger, tmp_path) as watched, watching(watched) as ended:
        await watched.until(lambda: ended)
        assert isinstance(ended[0], ProviderUnreachable)
        assert module.HEARTBEAT_S <= watched.clock.passed < 3 * module.HEARTBEAT_S


async def test_a_connection_that_breaks_is_taken_up_after_the_last_event(tmp_path: Path) -> None:
    stranger, places = Stranger(), []
    stranger.events = [[event(1, "phase", phase="running"), None], [event(2, "phase", phase="paused"), None]]
    honest = stranger._events

    def events(request):
        places.append(request.query_params["after"])
        return honest(request)

    stranger.answers["events"] = events
    async with attempt_at(stranger, tmp_path) as watched, watching(watched) as ended:
        await watched.until(lambda: len(watched.all(ev.PhaseSeen)) == 2)
        assert [seen.phase for seen in watched.all(ev.PhaseSeen)] == ["running", "paused"]
        assert places[:2] == ["0", "1"]
        assert not ended


KINDS = ["phase", "meter", "progress", "checkpoint", "exit", "artifacts", "notice", "warning", "closed"]
FIELDS = [
    "phase", "reason", "working_s", "step", "total", "text", "number", "files", "path", "bytes", "blake3", "exit_code",
    "code", "fact", "remedy", "count",
]  # fmt: skip
MALFORMED = [
    event(1, "meter"), event(1, "meter", working_s=-1), event(1, "meter", working_s="9"),
    event(1, "meter", working_s=True), event(1, "phase"), event(1, "exit", exit_code=0),
    event(1, "exit", exit_code="x", working_s=1), event(1, "checkpoint", number=1),
    event(1, "checkpoint", number=1, files=[{"path": "../x", "bytes": 1, "blake3": "ab" * 32}]),
    sse({"number": 1, "at": NOW, "kind": "gift", "data": {}}), sse([1]), sse({"number": 0}), b"data: {\n\n",
]  # fmt: skip


@pytest.mark.parametrize("chunk", MALFORMED)
async def test_a_malformed_event_ends_the_attempt_with_one_clear_error(chunk: bytes, tmp_path: Path) -> None:
    stranger = Stranger(events=[[chunk]])
    async with attempt_at(stranger, tmp_path) as watched, watching(watched) as ended:
        await watched.until(lambda: ended)
        assert ended[0].fact
        assert len(ended[0].fact) <= 300
        assert not watched.all(ev.Metered)
        assert not watched.all(ev.Exited)


async def test_texts_and_numbers_of_a_stranger_are_bounded(tmp_path: Path) -> None:
    chunks = [
        event(1, "phase", phase="running", reason="r" * 10_000),
        event(2, "progress", step=3, total="x", text="t" * 10_000, more="y"),
        event(3, "warning", code="c" * 999, fact="f" * 9999, remedy=None),
        event(4, "notice", seconds=30, reason="n" * 9999),
        event(5, "exit", exit_code=1 << 20, reason="x" * 9999, working_s=1),
    ]
    async with attempt_at(Stranger(events=[chunks]), tmp_path) as watched, watching(watched):
        await watched.until(lambda: watched.all(ev.Exited))
        assert len(watched.all(ev.PhaseSeen)[0].reason) == 500
        (progress,) = watched.kinds("progress")
        assert (progress["step"], progress["total"], set(progress)) == (3, None, {"attempt", "step", "total", "text"})
        assert len(progress["text"]) <= 500
        assert max(len(str(value)) for warning in watched.kinds("warning") for value in warning.values()) <= 500
        assert watched.all(ev.Notified) == [ev.Notified(0, 4, 30, "n" * 500)]
        (exited,) = watched.all(ev.Exited)
        assert exited.exit_code == 0
        assert len(exited.reason) == 500


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=8)
    | st.sampled_from(["../x", "ab" * 32]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)
"""What a provider may put into an event."""


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))))
def test_whatever_an_event_says_is_taken_or_is_one_of_our_errors(said: list[tuple[str, dict]]) -> None:
    async def take(path: Path) -> None:
        async with attempt_at(Stranger(), path) as watched, anyio.create_task_group() as tasks:
            for number, (kind, data) in enumerate(said, 1):
                try:
                    told = Event.parse({"number": number, "at": NOW, "kind": kind, "data": data})
                    await watched.attempt._take(told, tasks)
                except MingaError:
                    continue
            tasks.cancel_scope.cancel()
        for metered in watched.all(ev.Metered) + watched.all(ev.Exited):
            assert 0 <= metered.working_s <= 2**53
            assert metered.elapsed_s == 0
        assert all(ev.decode(*ev.encode(item)) == item for item in watched.events)

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(take, Path(folder))


async def test_an_exit_without_a_code_is_the_machines(tmp_path: Path) -> None:
    stranger = Stranger(events=[[event(1, "exit", reason="lost", working_s=2)]])
    async with attempt_at(stranger, tmp_path) as watched, watching(watched):
        await watched.until(lambda: watched.all(ev.Exited))
        assert watched.all(ev.Exited)[0].exit_code is None


# ----------------------------------------------------------------------------------------------------- checkpoints, log


async def test_a_checkpoint_with_other_bytes_is_not_kept_and_the_job_goes_on(tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.events = [[event(1, "checkpoint", **checkpoint_of(stranger, 1, {"model": b"right"}, 7))]]
    stranger.blobs[blake3_hex(b"right")] = b"wrong"
    async with attempt_at(stranger, tmp_path, checkpoint=True) as watched, watching(watched) as ended:
        await watched.until(lambda: watched.kinds("warning"))
        assert watched.kinds("warning")[0]["code"] == "bad-artifact"
        assert watched.all(ev.CheckpointSeen) == [ev.CheckpointSeen(0, 1)]
        assert watched.all(ev.CheckpointKept) == []
        assert not ended


async def test_a_checkpoint_that_the_check_refuses_is_a_bad_result(tmp_path: Path) -> None:
    seen = []

    async def accept(folder: Path) -> bool:
        seen.append((folder / "model").read_bytes())
        return len(seen) == 1

    stranger = Stranger()
    stranger.events = [
        [event(1, "checkpoint", **checkpoint_of(stranger, 1, {"model": b"good"}, 7)), event(2, "progress", step=8)],
        [event(3, "checkpoint", **checkpoint_of(stranger, 2, {"model": b"forged"}, 9))],
    ]
    stranger.events[0].append(None)
    async with attempt_at(stranger, tmp_path, accept=accept, checkpoint=True) as watched, watching(watched):
        await watched.until(lambda: watched.all(ev.Lost))
        assert seen == [b"good", b"forged"]
        assert [kept.count for kept in watched.all(ev.CheckpointKept)] == [1]
        (lost,) = watched.all(ev.Lost)
        assert lost.code == "bad-result"


async def test_a_check_that_judges_nothing_blames_nobody(tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.events = [[event(1, "checkpoint", **checkpoint_of(stranger, 1, {"model": b"x"}))]]
    told: list = []
    check = acceptance({"run": "exit 127", "folder": str(tmp_path), "timeout_s": 5}, lambda *said: told.append(said))
    async with attempt_at(stranger, tmp_path, accept=check, checkpoint=True) as watched, watching(watched) as ended:
        await watched.until(lambda: watched.kinds("warning"))
        assert "judged nothing" in watched.kinds("warning")[0]["fact"]
        assert watched.all(ev.Lost) == watched.all(ev.CheckpointKept) == []
        assert not ended


async def test_the_log_goes_on_where_it_is_here_after_a_token_ran_out(tmp_path: Path) -> None:
    stranger = Stranger(log=b"one two three")
    stranger.answers["logs"] = refuse(Unauthorized("expired", "log in"), 1, stranger._logs)
    async with attempt_at(stranger, tmp_path) as watched:
        watched.folder.log_append(0, b"one ")
        await watched.attempt._follow_log()
        assert watched.folder.log_path(0).read_bytes() == b"one two three"
        assert stranger.asked.count("login") == 2


async def test_a_log_without_end_is_cut_and_the_job_is_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder_module, "LOG_BYTES_MAX", 100)
    stranger = Stranger(log=b"x" * 1000, events=[[event(1, "phase", phase="running")]])
    async with attempt_at(stranger, tmp_path) as watched, watching(watched) as ended:
        await watched.until(lambda: watched.kinds("warning") and watched.all(ev.PhaseSeen))
        assert [item["code"] for item in watched.kinds("warning")] == ["log-cut"]
        assert watched.folder.log_offset(0) <= 100
        assert not ended


# -------------------------------------------------------------------------------------------------------------- gather


def results(**files: bytes) -> Stranger:
    """A provider that ended and has these results."""
    stranger = Stranger(phase="exited", files=[entry_of(name, data) for name, data in files.items()], log=b"all of it")
    stranger.blobs = {blake3_hex(data): data for data in files.values()}
    stranger.events = [[event(9, "artifacts", count=len(files), bytes=1)]]
    return stranger


async def test_results_log_and_the_newest_checkpoint_are_gathered(tmp_path: Path) -> None:
    stranger = results(a=b"A", b=b"B")
    old, new = checkpoint_of(stranger, 1, {"gone": b"gone"}), checkpoint_of(stranger, 2, {"step": b"9"}, 9)
    stranger.events = [
        [event(6, "checkpoint", **old), event(7, "checkpoint", **new),
         event(8, "warning", code="not-collected", fact="too big"), b":\n\n", event(9, "artifacts", count=2, bytes=2)],
    ]  # fmt: skip
    async with attempt_at(stranger, tmp_path, checkpoint=True) as watched:
        assert await watched.attempt.gather(5) == ev.Gathered(0)
        assert sorted((item.path, item.file.read_bytes()) for item in watched.folder.artifacts()) == [
            ("a", b"A"), ("b", b"B"),
        ]  # fmt: skip
        assert watched.all(ev.CheckpointKept) == [ev.CheckpointKept(0, 7, 2, 9, 1)]
        assert watched.folder.log_path(0).read_bytes() == b"all of it"
        assert watched.kinds("artifacts") == [{"count": 2, "bytes": 2}]
        assert watched.kinds("warning")[0]["fact"] == "too big"
        stranger.events = [[event(9, "artifacts", count=2, bytes=2)]]
        assert await watched.attempt.gather(5) == ev.Gathered(0), "cut off after it was done, it is done again"


async def test_a_provider_that_wants_its_machine_back_is_held_on_the_line_while_we_fetch(tmp_path: Path) -> None:
    """It closes soon after its last event stream was hung up, and the last seconds are not paid yet."""
    stranger = results(a=b"A")
    fetching, held = stranger._blob, []

    def slowly(request):
        held.append(stranger.asked.count("events"))
        return fetching(request)

    stranger.answers["blobs"] = slowly
    async with attempt_at(stranger, tmp_path) as watched:
        await watched.attempt.gather(0)
        assert held == [2], "one stream was read to its end, a second one is open"


async def test_one_wrong_byte_and_nothing_counts_as_gathered(tmp_path: Path) -> None:
    stranger = results(good=b"good", bad=b"honest")
    stranger.blobs[blake3_hex(b"honest")] = b"forged"
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(BadArtifact, match="bad"):
            await watched.attempt.gather(0)
        assert watched.folder.artifacts() == []
        assert not (watched.folder.path / "artifacts").exists()


async def test_results_with_two_files_at_one_place_are_refused(tmp_path: Path) -> None:
    stranger = results(x=b"1")
    stranger.files.append(entry_of("x", b"2"))
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(UnsafePath):
            await watched.attempt.gather(0)


@pytest.mark.parametrize("stream", ["closed", "alive"])
async def test_a_provider_that_collects_for_ever_is_left(stream: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "COLLECT_S", 60)
    stranger = Stranger(phase="collecting")
    async with attempt_at(stranger, tmp_path) as watched:

        async def alive():
            while True:
                watched.clock.passed += 5
                yield b":\n\n"
                await anyio.lowlevel.checkpoint()

        stranger.answers["events"] = lambda request: (
            StreamingResponse(alive()) if stream == "alive" else Response(b":\n\n")
        )
        with anyio.fail_after(50), pytest.raises(ProviderUnreachable, match="handed over"):
            await watched.attempt.gather(0)
        assert 60 < watched.clock.passed < 80


async def test_results_of_a_provider_that_closed_meanwhile_are_fetched_still(tmp_path: Path) -> None:
    stranger = results(a=b"A")
    stranger.events, stranger.phase = [[b":\n\n"]], "closed"
    async with attempt_at(stranger, tmp_path) as watched:
        await watched.attempt.gather(0)
        assert [item.path for item in watched.folder.artifacts()] == ["a"]


@pytest.mark.parametrize("name", ["", "deep/"])
async def test_a_full_disk_here_is_no_fault_of_the_providers(name: str, tmp_path: Path) -> None:
    """Else the job would be run again and paid again, at one provider after the other."""
    stranger = results(**{f"{name}a": b"A" * 1000})
    async with attempt_at(stranger, tmp_path) as watched:
        parts = watched.folder.scratch("parts")
        (parts / blake3_hex(b"A" * 1000)).symlink_to("/dev/full")
        with pytest.raises(NoRoomHere, match="No space left"):
            await watched.attempt.gather(0)
        (parts / blake3_hex(b"A" * 1000)).unlink()
        stranger.events = [[event(9, "artifacts", count=1, bytes=1)]]
        await watched.attempt.gather(0)
        assert [item.bytes for item in watched.folder.artifacts()] == [1000]


async def test_a_full_disk_there_is(tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["manifest"] = refuse(DiskFull("no room", ""))
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(DiskFull) as caught:
            await watched.attempt.send()
        assert not isinstance(caught.value, NoRoomHere)
        assert NoRoomHere.code == DiskFull.code


async def test_asking_for_a_close_has_little_patience(tmp_path: Path) -> None:
    stranger = Stranger()
    stranger.answers["close"] = refuse(OutOfCapacity("busy", ""))
    async with attempt_at(stranger, tmp_path) as watched:
        with pytest.raises(OutOfCapacity):
            await watched.attempt.ask_close()
        assert watched.clock.passed < 6
        assert BUNDLE.url
