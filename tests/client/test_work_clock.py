"""Our own clock of an attempt, and what a stranger's events mean beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strangers import NOW, TestClock

from minga.client.hearing import hear
from minga.client.work_clock import WorkClock
from minga.core.errors import BadAnswer
from minga.protocol import job_events as ev
from minga.protocol.wire import Event


def begun(**changes) -> tuple[TestClock, WorkClock]:
    clock = TestClock()
    return clock, WorkClock(clock, **({"elapsed_s": 0, "base_s": 0, "idle_s": 0} | changes))


def event(kind: str, **data) -> Event:
    return Event(number=5, at=NOW, kind=kind, data=data)


def test_nothing_counts_before_the_job_runs_and_pauses_are_no_idleness() -> None:
    clock, work = begun()
    clock.passed = 100
    assert work.elapsed_s == 0
    work.phase("starting")
    work.phase("running")
    clock.passed += 10
    assert (work.elapsed_s, work.idle_s) == (10, 10)
    work.phase("paused")
    clock.passed += 50
    work.phase("paused")
    work.phase("running")
    assert (work.elapsed_s, work.idle_s) == (60, 10)
    work.moved()
    assert work.idle_s == 0


def test_a_step_that_was_reached_before_is_no_progress() -> None:
    clock, work = begun()
    work.phase("running")
    work.step(5)
    clock.passed += 30
    for step in (5, 4, None):
        work.step(step)
    assert work.idle_s == 30
    work.step(6)
    assert work.idle_s == 0


def test_a_gpu_that_is_not_used_is_idleness_whatever_the_log_says() -> None:
    clock, work = begun()
    work.phase("running")
    for _ in range(6):
        clock.passed += 10
        work.moved()
        work.gpu_busy(4)
    assert work.idle_s == 50, "from the first measurement on"
    work.gpu_busy(5)
    assert work.idle_s == 0


def test_a_restart_goes_on_where_the_journal_was() -> None:
    clock, work = begun(elapsed_s=40, base_s=30, idle_s=7)
    clock.passed += 3
    assert (work.elapsed_s, work.idle_s) == (33, 10)
    work.slept(1000, 10)
    assert work.elapsed_s == 43


@given(st.lists(st.sampled_from(["running", "paused", "moved", "wait", "slept"]), max_size=30))
def test_elapsed_never_falls_nor_exceeds_what_went_by(steps: list[str]) -> None:
    clock, work = begun()
    last = slept = 0
    for step in steps:
        if step in ("running", "paused"):
            work.phase(step)
        elif step == "moved":
            work.moved()
        elif step == "slept":
            work.slept(50, 4)
            slept += 4
        else:
            clock.passed += 1.5
        assert last <= work.elapsed_s <= clock.passed + slept + 1
        assert work.idle_s <= clock.passed
        last = work.elapsed_s


def test_a_meter_is_heard_with_load_and_idleness_beside_it() -> None:
    clock, work = begun()
    hear(0, event("phase", phase="running"), work)
    clock.passed += 20
    heard, told = hear(0, event("meter", working_s=19, cpu_ms=5000, gpu_busy=80), work)
    assert heard == ev.Metered(0, 5, 19, 20, 20)
    assert told == [("load", {"attempt": 0, "cpu_ms": 5000, "gpu_busy": 80})]
    heard, told = hear(0, event("meter", working_s=99), work)
    assert [kind for kind, _ in told] == ["warning"]
    assert told[0][1]["code"] == "overclaim"


def test_a_notice_is_the_jobs_and_the_screens() -> None:
    _, work = begun()
    heard, told = hear(1, event("notice", seconds=60, reason="reclaimed: a guest"), work)
    assert heard == ev.Notified(1, 5, 60, "reclaimed: a guest")
    assert "60 s" in told[0][1]["fact"]
    heard, _ = hear(1, event("notice", seconds=2**50, reason="x"), work)
    assert isinstance(heard, ev.Notified)
    assert heard.seconds < 2**21


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("meter", {"working_s": 1, "cpu_ms": -1}), ("meter", {"working_s": 1, "gpu_busy": "x"}), ("notice", {}),
        ("notice", {"seconds": True, "reason": "x"}), ("meter", {}), ("phase", {}), ("exit", {"exit_code": 0}),
    ],
)  # fmt: skip
def test_what_is_not_as_it_must_be_is_a_bad_answer(kind: str, data: dict) -> None:
    _, work = begun()
    with pytest.raises(BadAnswer, match=kind):
        hear(0, event(kind, **data), work)
