"""What the engine takes for a request, and how it refuses the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.workloads.engine.asks import Refused, ask_of

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def plain(messages: list[dict[str, str]]) -> str:
    return "|".join(f"{message['role']}={message['content']}" for message in messages)


def ask(chat: bool = True, **changes):
    return ask_of(HELLO | changes, chat, "m", plain)


def test_what_is_left_out_has_openai_s_defaults():
    asked = ask()
    assert (asked.prompt, asked.temperature, asked.top_p, asked.stops) == ("user=hello", 1.0, 1.0, ())
    assert (asked.stream, asked.top_logprobs, asked.tokens_max) == (False, None, None)
    assert ask().seed != ask().seed, "without a seed every reply has its own"


def test_everything_said_is_taken():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = ask(
        messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": parts}], max_tokens=5,
        temperature=0.5, top_p=0.9, stop=["x", "y"], seed=-7, stream=True, stream_options={"include_usage": True},
        logprobs=True, top_logprobs=3, n=1, user="u", frequency_penalty=0, presence_penalty=0,
    )  # fmt: skip
    assert asked.prompt == "system=x|user=ab"
    assert (asked.tokens_max, asked.temperature, asked.top_p, asked.stops) == (5, 0.5, 0.9, ("x", "y"))
    assert (asked.seed, asked.stream, asked.usage_in_stream, asked.top_logprobs) == (-7, True, True, 3)
    assert ask(max_tokens=5, max_completion_tokens=3).tokens_max == 3, "the newer name wins"
    assert ask(stop="end").stops == ("end",)


def test_a_completion_has_a_prompt_and_counts_logprobs():
    asked = ask_of({"model": "m", "prompt": "once", "logprobs": 2}, False, "m", plain)
    assert (asked.prompt, asked.top_logprobs, asked.chat) == ("once", 2, False)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": "other"}, "model"),
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"x": 1}}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "include_usage"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(changes, param):
    with pytest.raises(Refused) as refused:
        ask(**changes)
    body = refused.value.body()["error"]
    assert body["param"] == param
    assert body["type"] == "invalid_request_error"
    assert refused.value.status in (400, 404)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["model", "messages", "prompt", "stop", "seed", "stream_options", "temperature", "logprobs", "n"]
)


@given(JSON | st.dictionaries(NAMES, JSON), st.booleans())
def test_no_body_does_anything_but_pass_or_be_refused(body, chat):
    try:
        ask_of(body, chat, "m", plain)
    except Refused as refused:
        json.dumps(refused.body())
