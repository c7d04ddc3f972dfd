"""What a request may say and cost, and OpenAI's shape of every error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import (
    BudgetSpent,
    InvalidInput,
    MingaError,
    NotFound,
    OutOfCapacity,
    TooManyRequests,
    Unauthorized,
)
from minga.gateway.requests import Model, error_body, parse, per_token, prompt_tokens_up

MODEL = Model("m", price_in=50_000_000, price_out=200_000_000, context=1000, created=7)
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def call(**changes):
    return parse(json.dumps(HELLO | changes).encode(), {"m": MODEL}, seed=5)


@pytest.mark.parametrize(
    ("price", "text"),
    [(0, "0"), (50_000_000, "0.00000005"), (10**15, "1"), (1, "0.000000000000001"), (2_500_000_000, "0.0000025")],
)
def test_a_price_per_token_is_decimal_text(price, text):
    assert per_token(price) == text


def test_a_cost_is_rounded_up_once():
    assert MODEL.cost_up(1, 0) == 50
    assert MODEL.cost_up(3, 2) == 550
    assert Model("m", 1, 1, 10).cost_up(1, 1) == 1
    assert MODEL.cost_up(0, 0) == 0


def test_the_card_says_price_and_context():
    card = MODEL.card()
    assert card["pricing"] == {"prompt": "0.00000005", "completion": "0.0000002"}
    assert (card["id"], card["object"], card["context_length"], card["created"]) == ("m", "model", 1000, 7)


def test_a_request_without_a_seed_gets_one_so_that_it_can_go_on_elsewhere():
    assert call().body["seed"] == 5
    assert call(seed=9).body["seed"] == 9
    assert call().seeded
    assert not call(tools=[{"type": "function"}]).seeded


def test_a_stream_always_asks_for_usage_and_tells_it_only_when_asked():
    asked = call(stream=True)
    assert asked.body["stream_options"] == {"include_usage": True}
    assert (asked.stream, asked.wants_usage) == (True, False)
    assert call(stream=True, stream_options={"include_usage": True}).wants_usage


def test_what_the_gateway_does_not_know_reaches_the_engine():
    assert call(tools=[1], weird={"x": 1.5}).body["weird"] == {"x": 1.5}


def test_the_length_is_bounded_by_the_smaller_name_and_the_context():
    assert call().completion_tokens_max == 1000
    assert call(max_tokens=7).completion_tokens_max == 7
    assert call(max_tokens=7, max_completion_tokens=5).completion_tokens_max == 5
    assert call(max_tokens=10**9).completion_tokens_max == 1000


@given(st.lists(st.text(max_size=30), max_size=5))
def test_a_prompt_has_no_more_tokens_than_bytes_and_room(texts):
    body = {"messages": [{"role": "user", "content": text} for text in texts]}
    assert prompt_tokens_up(body) >= sum(len(text.encode()) for text in texts) + 16 * len(texts)
    assert prompt_tokens_up({"prompt": [1, 2, 3]}) >= 3


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 2}, "n"),
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": [1]}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
    ],
)
def test_what_the_gateway_must_understand_is_checked(changes, param):
    with pytest.raises(InvalidInput) as refused:
        call(**changes)
    assert error_body(refused.value)[1]["error"]["param"] == param


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 5000, b'{"a":' * 5000])
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(InvalidInput):
        parse(raw, {"m": MODEL}, 1)


@pytest.mark.parametrize("name", ["other", None, 5, "M"])
def test_a_model_that_is_not_sold_is_named(name):
    with pytest.raises(NotFound) as refused:
        call(model=name)
    status, body = error_body(refused.value)
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (Unauthorized("x"), 401, "authentication_error", "invalid_api_key"),
        (BudgetSpent("x"), 429, "insufficient_quota", "insufficient_quota"),
        (TooManyRequests("x"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (OutOfCapacity("x"), 503, "server_error", "out-of-capacity"),
        (InvalidInput("x", "y"), 400, "invalid_request_error", "invalid-input"),
    ],
)
def test_errors_have_openai_s_shape(error: MingaError, status, kind, code):
    found, body = error_body(error)
    assert (found, body["error"]["type"], body["error"]["code"]) == (status, kind, code)
    assert body["error"]["message"] == ("x; y" if error.remedy else "x")
