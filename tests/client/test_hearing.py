"""A provider's events as the job hears them: bounded, typed, beside our own clock; anything else is its bad answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minga.client.hearing import NOTICE_MAX_S, REASON_CHARS, hear
from minga.client.work_clock import WorkClock
from minga.core.errors import BadAnswer
from minga.protocol import job_events as ev
from minga.protocol.wire import Event

KINDS = ("phase", "meter", "progress", "checkpoint", "exit", "warning", "notice", "artifacts", "closed")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=700),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    ["phase", "reason", "working_s", "cpu_ms", "gpu_busy", "step", "total", "text", "exit_code", "code", "fact",
     "remedy", "seconds"]
)  # fmt: skip


class StillClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> int:
        return int(self.at)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def told(kind: str, data: dict[str, Any], number: int = 7) -> Event:
    return Event(number=number, at=1, kind=kind, data=data)


@pytest.fixture
def clock() -> WorkClock:
    return new_clock()


def new_clock() -> WorkClock:
    return WorkClock(StillClock(), 0, 0, 0)


@given(st.sampled_from(KINDS), st.dictionaries(names, values, max_size=6))
@example("progress", {"step": 10**400, "total": -1})
@example("exit", {"working_s": 2**53 + 1})
@example("meter", {"working_s": True})
def test_whatever_is_said_is_bounded_or_a_bad_answer(kind: str, data: dict[str, Any]) -> None:
    event, screens, refused = None, [], None
    try:
        event, screens = hear(3, told(kind, data), new_clock())
    except BadAnswer as error:
        refused = error
    assert refused is None or (kind in refused.fact and len(refused.fact) <= 200)
    if event is not None:
        name, body = ev.encode(event)
        assert ev.decode(name, json.loads(json.dumps(body))) == event, "it can be journaled"
        assert body["attempt"] == 3
        assert body["number"] == 7
        assert len(str(body.get("reason", ""))) <= REASON_CHARS
    for _, facts in screens:
        assert facts["attempt"] == 3
        for value in facts.values():
            assert value is None or (len(value) <= REASON_CHARS + 60 if isinstance(value, str) else 0 <= value <= 2**53)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("phase", {}), ("meter", {}), ("meter", {"working_s": "5"}), ("meter", {"working_s": -1}),
        ("meter", {"working_s": 1.5}), ("meter", {"working_s": 1, "cpu_ms": "x"}), ("exit", {"exit_code": 0}),
        ("exit", {"exit_code": "0", "working_s": 1}), ("exit", {"exit_code": -9, "working_s": 1}),
        ("notice", {"reason": "x"}), ("notice", {"seconds": None}),
    ],
)  # fmt: skip
def test_what_is_missing_or_of_another_type_is_the_providers_fault(
    kind: str, data: dict[str, Any], clock: WorkClock
) -> None:
    with pytest.raises(BadAnswer, match=f"a {kind} event of the provider is malformed"):
        hear(0, told(kind, data), clock)


def test_a_claim_beyond_our_own_clock_is_heard_and_told(clock: WorkClock) -> None:
    event, screens = hear(0, told("meter", {"working_s": 500}), clock)
    assert isinstance(event, ev.Metered)
    assert (event.working_s, event.elapsed_s) == (500, 0), "both stand; the job takes the smaller"
    ((kind, facts),) = screens
    assert (kind, facts["code"]) == ("warning", "overclaim")
    assert "500 s of work" in facts["fact"]
    assert hear(0, told("meter", {"working_s": 1}), clock)[1] == [], "the second that is under way is no overclaim"


def test_load_is_for_screens_and_only_where_it_was_measured(clock: WorkClock) -> None:
    _, screens = hear(2, told("meter", {"working_s": 0, "cpu_ms": 1200, "gpu_busy": None}), clock)
    assert screens == [("load", {"attempt": 2, "cpu_ms": 1200})]
    assert hear(2, told("meter", {"working_s": 0}), clock)[1] == []


def test_a_notice_is_both_an_event_of_the_job_and_a_warning(clock: WorkClock) -> None:
    event, screens = hear(1, told("notice", {"seconds": 1 << 40, "reason": "a guest " * 200}), clock)
    assert isinstance(event, ev.Notified)
    assert event.seconds == NOTICE_MAX_S
    assert len(event.reason) == REASON_CHARS
    assert screens[0][1]["code"] == "notice"


@pytest.mark.parametrize(("code", "kept"), [(None, None), (0, 0), (137, 137), (1 << 20, 0), ((1 << 16) + 3, 3)])
def test_an_exit_code_is_a_systems_one_or_none(code: int | None, kept: int | None, clock: WorkClock) -> None:
    event, _ = hear(0, told("exit", {"exit_code": code, "working_s": 9, "reason": None}), clock)
    assert isinstance(event, ev.Exited)
    assert (event.exit_code, event.working_s, event.reason) == (kept, 9, "")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"step": 5, "total": 10, "text": "half"}, (5, 10, "half")), ({"step": True, "total": "10"}, (None, None, "")),
        ({"step": -1, "total": 2**53 + 1}, (None, None, "")), ({"step": 2**53, "total": 0}, (2**53, 0, "")),
        ({"step": 1.5, "text": None}, (None, None, "")), ({}, (None, None, "")),
    ],
)  # fmt: skip
def test_progress_is_counts_that_a_screen_can_draw(said: dict[str, Any], kept: tuple, clock: WorkClock) -> None:
    event, ((kind, facts),) = hear(0, told("progress", said), clock)
    assert event is None
    assert kind == "progress"
    assert (facts["step"], facts["total"], facts["text"]) == kept


@pytest.mark.parametrize("kind", ["artifacts", "closed"])
def test_what_the_chain_and_the_files_tell_is_not_taken_from_words(kind: str, clock: WorkClock) -> None:
    assert hear(0, told(kind, {"count": 1, "bytes": 1, "tx": "0x12"}), clock) == (None, [])
