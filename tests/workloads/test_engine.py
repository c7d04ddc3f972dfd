"""The engine with a real, tiny model: replies, streams, stops, seeds, log-probabilities; over real HTTP."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_models import CONTEXT

import minga.workloads
from minga.workloads.engine.http import BODY_BYTES_MAX

ENGINES = Path(minga.workloads.__file__).parent
PROMPT = {"model": "tiny", "prompt": "the quick brown", "max_tokens": 20, "seed": 1}


@pytest.fixture(scope="module")
def here(tiny_model: Path) -> Iterator[httpx.Client]:
    """A client of an engine in a process of its own, as a job has it."""
    command = [sys.executable, "-m", "engine", "--model", str(tiny_model), "--name", "tiny", "--port", "0"]
    with subprocess.Popen(command, cwd=ENGINES, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("engine: tiny on cpu at 127.0.0.1:"), said
        url = "http://" + said.split()[-1]
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield client
        process.terminate()
        assert process.wait(30) == 0


def complete(here: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = here.post("/v1/completions", json=PROMPT | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(here: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with here.stream("POST", path, json=body | {"stream": True}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_it_says_what_it_serves(here):
    assert here.get("/health").json() == {"ok": True, "waiting": 0}
    (card,) = here.get("/v1/models").json()["data"]
    assert (card["id"], card["context_length"], card["quantization"]) == ("tiny", CONTEXT, "float32")
    assert card["parameters"] > 10_000


def test_a_reply_is_a_function_of_request_and_seed(here):
    first, again, other = complete(here), complete(here), complete(here, seed=2)
    assert first["choices"] == again["choices"]
    assert first["choices"] != other["choices"]
    greedy = [complete(here, temperature=0, seed=seed)["choices"][0]["text"] for seed in (1, 2)]
    assert greedy[0] == greedy[1]


def test_usage_counts_tokens_and_length_ends_the_reply(here):
    reply = complete(here, max_tokens=7)
    assert reply["choices"][0]["finish_reason"] == "length"
    usage = reply["usage"]
    assert usage["completion_tokens"] == 7
    assert usage["total_tokens"] == usage["prompt_tokens"] + 7


def test_a_stream_gives_the_same_text(here):
    whole = complete(here)["choices"][0]
    events = streamed(here, "/v1/completions", PROMPT | {"stream_options": {"include_usage": True}})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 20
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole["text"]
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]][-1] == "length"


def test_a_chat_begins_with_its_role(here):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "seed": 3}
    whole = here.post("/v1/chat/completions", json=body).json()
    events = streamed(here, "/v1/chat/completions", body)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(event["choices"][0]["delta"]["content"] for event in events)
    assert text == whole["choices"][0]["message"]["content"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


def test_a_stop_is_cut_off_and_never_sent(here):
    text = complete(here, temperature=0, max_tokens=60)["choices"][0]["text"]
    stop = text[10:14]
    cut = complete(here, temperature=0, max_tokens=60, stop=stop)["choices"][0]
    assert cut["text"] == text[: text.index(stop)]
    assert cut["finish_reason"] == "stop"
    events = streamed(here, "/v1/completions", PROMPT | {"temperature": 0, "max_tokens": 60, "stop": stop})
    assert "".join(event["choices"][0]["text"] for event in events) == cut["text"]


def test_logprobs_come_one_a_token(here):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}
    asked = body | {"logprobs": True, "top_logprobs": 2}
    entries = here.post("/v1/chat/completions", json=asked).json()["choices"][0]["logprobs"]["content"]
    assert len(entries) == 4
    for entry in entries:
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0, "greedy takes the likeliest"
        assert len(entry["top_logprobs"]) == 2
    pieces = streamed(here, "/v1/chat/completions", asked)
    told = [entry for event in pieces for entry in (event["choices"][0]["logprobs"] or {}).get("content", [])]
    assert told == entries
    plain = complete(here, logprobs=1, max_tokens=3)["choices"][0]["logprobs"]
    assert [len(plain[name]) for name in ("tokens", "token_logprobs", "top_logprobs")] == [3, 3, 3]


def test_a_prompt_that_fills_the_context_is_refused(here):
    answer = here.post("/v1/completions", json=PROMPT | {"prompt": "the " * CONTEXT * 2})
    assert answer.status_code == 400
    assert f"the context is {CONTEXT}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nothing", b"", 404),
        ("POST", "/v1/embeddings", b"{}", 404),
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b"[" * 100_000, 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b"\xff", 400),
    ],
)
def test_bad_requests_get_one_clear_error(here, method, path, content, status):
    answer = here.request(method, path, content=content)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_is_too_large_is_not_read(here):
    asked = http.client.HTTPConnection(here.base_url.host, here.base_url.port, timeout=30)
    asked.putrequest("POST", "/v1/completions")
    asked.putheader("content-length", str(BODY_BYTES_MAX + 1))
    asked.endheaders()
    answer = asked.getresponse()
    assert (answer.status, answer.getheader("connection")) == (413, "close")
    asked.close()


def test_it_goes_on_after_a_reader_who_left(here):
    with here.stream("POST", "/v1/completions", json=PROMPT | {"stream": True, "max_tokens": 200}) as answer:
        next(answer.iter_raw())
    assert complete(here, max_tokens=2)["usage"]["completion_tokens"] == 2
