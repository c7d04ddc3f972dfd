"""One answer out of several broken streams: nothing repeated, nothing lost, whatever the pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import BadAnswer
from minga.gateway.splice import Splice


def chat_stream(pieces: list[str], name: str = "a", *, logprobs: bool = False) -> list[dict[str, Any]]:
    """The events of a chat's stream that says `pieces`."""
    head = {"id": name, "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(delta: dict[str, Any], reason: str | None = None, entries: Any = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": entries}]}

    events = [event({"role": "assistant", "content": ""})]
    for at, piece in enumerate(pieces):
        events.append(event({"content": piece}, None, {"content": [{"token": piece, "n": at}]} if logprobs else None))
    events.append(event({}, "stop"))
    events.append({**head, "choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": len(pieces)}})
    return events


def play(splice: Splice, events: list[dict[str, Any]], until: int | None = None) -> list[dict[str, Any]]:
    splice.restart()
    return [new for event in events[:until] if (new := splice.take(event)) is not None]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


def cut_up(text: str, cuts: list[int]) -> list[str]:
    at = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in pairwise(at)]


CUTS = st.lists(st.integers(0, 100), max_size=8)


@given(st.text(min_size=1, max_size=40), st.lists(st.tuples(CUTS, st.integers(0, 12)), max_size=4), CUTS)
def test_any_breaks_and_any_pieces_give_the_text_once(text, broken, last):
    splice = Splice()
    events = []
    for cuts, until in broken:
        stream = chat_stream(cut_up(text, cuts))
        events += play(splice, stream, min(until, len(stream) - 2))
    events += play(splice, chat_stream(cut_up(text, last), "b"))
    assert text_of(events) == text == splice.text
    assert sum("role" in event["choices"][0]["delta"] for event in events) == 1
    assert [event["choices"][0]["finish_reason"] for event in events].count("stop") == 1
    assert len({event["id"] for event in events}) == 1, "one answer has one id"
    assert splice.usage == {"prompt_tokens": 2, "completion_tokens": len(cut_up(text, last))}


@given(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=8), st.lists(st.integers(0, 12), max_size=3))
def test_logprobs_come_once_each(pieces, broken):
    splice, events = Splice(), []
    stream = chat_stream(pieces, logprobs=True)
    for until in broken:
        events += play(splice, stream, min(until, len(stream) - 2))
    events += play(splice, stream)
    entries = [entry for event in events for entry in (event["choices"][0]["logprobs"] or {}).get("content", [])]
    assert [entry["n"] for entry in entries] == list(range(len(pieces)))


def test_a_completion_is_spliced_too():
    def stream(pieces):
        return [{"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces] + [
            {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
        ]

    splice = Splice()
    events = play(splice, stream(["once ", "upon"]), 2) + play(splice, stream(["on", "ce upon a", " time"]))
    assert "".join(event["choices"][0]["text"] for event in events) == "once upon a time"
    assert splice.ended == "length"


def test_another_reply_is_no_continuation():
    splice = Splice()
    play(splice, chat_stream(["once upon"]), 2)
    with pytest.raises(BadAnswer, match="differently"):
        play(splice, chat_stream(["one day"]))
    assert splice.text == "once upon"


def test_a_reply_that_ends_sooner_is_found_out():
    splice = Splice()
    play(splice, chat_stream(["once upon"]), 2)
    with pytest.raises(BadAnswer, match="differently"):
        play(splice, chat_stream(["once"]))


def test_a_tool_call_cannot_be_continued():
    splice = Splice()
    call = {"delta": {"role": "assistant", "tool_calls": [{"index": 0}]}, "finish_reason": None}
    assert play(splice, [{"choices": [call]}])[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0}]
    with pytest.raises(BadAnswer, match="tool call"):
        splice.restart()


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"choices": None},
        {"choices": [1]},
        {"choices": [{}, {}]},
        {"choices": [{"delta": 1}]},
        {"choices": [{"delta": {"content": 5}}]},
    ],
)
def test_what_is_no_event_is_the_replica_s_fault(event):
    with pytest.raises(BadAnswer):
        Splice().take(event)
