"""The gateway over real HTTP: routes, keys, budgets, failover, streams that break, clients that leave."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from engines import Script, scripted

from fixtures import SeededDice, SystemClock
from minga.gateway.app import BODY_BYTES_MAX, Gateway
from minga.gateway.books import NANODOLLARS, Books
from minga.gateway.relay import Pool
from minga.gateway.replicas import UrlReplica
from minga.gateway.requests import Model
from minga.transport.http import serve

pytestmark = pytest.mark.anyio

MODEL = Model("m", price_in=NANODOLLARS, price_out=2 * NANODOLLARS, context=100)
"""A token of the prompt costs 1,000 nanodollars, one of the reply 2,000."""
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
COST = 3 * 1000 + 4 * 2000


@dataclass
class Stage:
    """A gateway that listens, its book, and a client with a key of a dollar."""

    gateway: Gateway
    books: Books
    here: httpx.AsyncClient

    @property
    def spent(self) -> int:
        (key, *_) = self.books.keys()
        assert key.held == 0, "nothing stays held"
        return key.spent


@asynccontextmanager
async def stage(
    folder: Path, *scripts: Script, budget: int = NANODOLLARS, patience_s: float = 2
) -> AsyncIterator[Stage]:
    books = Books(folder / "keys.db", SystemClock(), SeededDice("keys"))
    secret = books.add("team", budget)
    async with scripted(*scripts) as urls:
        replicas = [UrlReplica(url, f"replica {at}") for at, url in enumerate(urls)]
        pool = Pool(replicas, SystemClock(), patience_s)
        gateway = Gateway({"m": MODEL}, {"m": pool}, books, SystemClock(), SeededDice("seeds"))
        async with serve(gateway.app(), "127.0.0.1", 0) as server:
            headers = {"authorization": f"Bearer {secret}"}
            async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=30) as here:
                yield Stage(gateway, books, here)
        for replica in pool.replicas:
            await replica.aclose()


async def events(here: httpx.AsyncClient, **changes: Any) -> list[dict[str, Any]]:
    async with here.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True} | changes) as answer:
        assert answer.status_code == 200, await answer.aread()
        lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"] + (
        [{"done": True}] if lines[-1] == "[DONE]" else []
    )


def said(found: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content", "") for event in found if event.get("choices"))


async def test_a_whole_answer_costs_what_the_replica_counted(tmp_path):
    script = Script()
    async with stage(tmp_path, script) as on:
        answer = (await on.here.post("/v1/chat/completions", json=CHAT)).json()
        assert answer["choices"][0]["message"]["content"] == "once upon a time"
        assert on.spent == COST
        assert 0 <= script.asked[0]["seed"] < 2**48
        usage = (await on.here.get("/v1/usage")).json()
        assert (usage["spent"], usage["left"]) == ("0.000011000", "0.999989000")
        assert (usage["requests"], usage["completion_tokens"]) == (1, 4)


async def test_a_stream_costs_the_same_and_tells_usage_only_when_asked(tmp_path):
    async with stage(tmp_path, Script()) as on:
        found = await events(on.here)
        assert said(found) == "once upon a time"
        assert found[-1] == {"done": True}
        assert not any(event.get("usage") for event in found)
        found = await events(on.here, stream_options={"include_usage": True})
        assert found[-2]["usage"]["completion_tokens"] == 4
        assert on.spent == 2 * COST


@pytest.mark.parametrize("breaks_after", [0, 1, 2, 3])
async def test_a_stream_that_breaks_goes_on_at_another_replica_and_is_paid_once(tmp_path, breaks_after):
    first, second = Script(breaks_after=breaks_after), Script(words=["on", "ce upo", "n a time"])
    async with stage(tmp_path, first, second) as on:
        found = await events(on.here)
        assert said(found) == "once upon a time"
        assert first.asked[0]["seed"] == second.asked[0]["seed"], "the reply is a function of the request"
        assert len({event["id"] for event in found if "id" in event}) == 1
        assert on.spent == 3 * 1000 + 3 * 2000
        assert on.gateway.pools["m"].failovers == 1


async def test_a_reply_that_goes_on_differently_ends_with_an_error(tmp_path):
    async with stage(tmp_path, Script(breaks_after=2), Script(words=["one day"]), patience_s=0.1) as on:
        found = await events(on.here)
        assert said(found) == "once upon "
        assert "differently" in found[-1]["error"]["message"]
        assert on.spent == 2 * 2000, "what was sent is charged, by its length"


async def test_a_replica_that_is_down_is_passed_by(tmp_path):
    async with stage(tmp_path, Script(status=500, body={"error": {"message": "broken"}}), Script()) as on:
        for _ in range(3):
            answer = await on.here.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200
        assert on.spent == 3 * COST


async def test_when_nobody_answers_nothing_is_paid(tmp_path):
    async with stage(tmp_path, Script(status=503, body={"error": {"message": "x"}}), patience_s=0.1) as on:
        for changes in ({}, {"stream": True}):
            answer = await on.here.post("/v1/chat/completions", json=CHAT | changes)
            assert answer.status_code == 503
            assert answer.json()["error"]["type"] == "server_error"
        assert on.spent == 0


async def test_the_engine_s_refusal_is_the_client_s_and_free(tmp_path):
    refusal = {"error": {"message": "n must be 1", "type": "invalid_request_error", "param": "n", "code": None}}
    first, second = Script(status=400, body=refusal), Script(status=400, body=refusal)
    async with stage(tmp_path, first, second) as on:
        for changes in ({}, {"stream": True}):
            answer = await on.here.post("/v1/chat/completions", json=CHAT | changes)
            assert (answer.status_code, answer.json()) == (400, refusal)
        assert len(first.asked) + len(second.asked) == 2, "it is not tried elsewhere"
        assert on.spent == 0


async def test_a_budget_is_hard(tmp_path):
    script = Script()
    most = MODEL.cost_up(100, 10)
    async with stage(tmp_path, script, budget=most) as on:
        big = CHAT | {"messages": [{"role": "user", "content": "x" * 200}]}
        assert (await on.here.post("/v1/chat/completions", json=big)).status_code == 200
        refused = await on.here.post("/v1/chat/completions", json=big)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert len(script.asked) == 1, "nobody computes what cannot be paid"
        assert on.spent == COST


async def test_many_at_once_stay_within_the_budget(tmp_path):
    script = Script()
    async with stage(tmp_path, script, budget=5 * MODEL.cost_up(35, 10)) as on:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await on.here.post("/v1/chat/completions", json=CHAT)).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(ask)
        assert set(statuses) <= {200, 429}
        assert on.spent == statuses.count(200) * COST <= 5 * MODEL.cost_up(35, 10)


async def test_a_client_that_leaves_ends_the_work_and_pays_for_what_it_had(tmp_path):
    script = Script(breaks_after=2, hangs=True)
    async with stage(tmp_path, script) as on:
        async with on.here.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
            async for line in answer.aiter_lines():
                if "upon" in line:
                    break
        with anyio.fail_after(20):
            while on.books.keys()[0].held or not script.left:  # noqa: ASYNC110
                await anyio.sleep(0.01)  # between two looks, with a deadline
        assert on.spent == 2 * 2000
        assert on.gateway.pools["m"].failovers == 0
        assert [item.under_way for item in on.gateway.pools["m"].standings.values()] == [0]


async def test_embeddings_are_passed_on_and_paid_by_their_prompt(tmp_path):
    script = Script()
    async with stage(tmp_path, script) as on:
        answer = await on.here.post("/v1/embeddings", json={"model": "m", "input": "some words"})
        assert answer.json()["data"][0]["embedding"] == [0.5, 0.25]
        assert script.asked == [{"model": "m", "input": "some words"}]
        assert on.spent == 4000


async def test_what_a_key_may_ask(tmp_path):
    async with stage(tmp_path, Script()) as on:
        secret = on.books.add("narrow", NANODOLLARS, ("other",))
        narrow = {"authorization": f"Bearer {secret}"}
        assert (await on.here.get("/v1/models", headers=narrow)).json()["data"] == []
        assert (await on.here.get("/v1/models/m", headers=narrow)).status_code == 404
        assert (await on.here.post("/v1/chat/completions", json=CHAT, headers=narrow)).status_code == 404
        assert (await on.here.get("/v1/models/m")).json()["pricing"]["completion"] == "0.000002"


async def test_a_key_has_a_rate(tmp_path):
    async with stage(tmp_path, Script()) as on:
        slow = {"authorization": f"Bearer {on.books.add('slow', NANODOLLARS, (), 2)}"}
        statuses = [(await on.here.get("/v1/models", headers=slow)).status_code for _ in range(4)]
        # The minute may change between two of them, once.
        assert statuses in ([200, 200, 429, 429], [200, 200, 200, 429], [200, 200, 429, 200], [200, 200, 200, 200])


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "invalid-input"),
        ("POST", "/v1/chat/completions", b'{"model": "x"}', 404, "model_not_found"),
        ("POST", "/v1/chat/completions", b"[" * 50_000, 400, "invalid-input"),
        ("POST", "/v1/chat/completions", b"x" * (BODY_BYTES_MAX + 1), 413, "too-large"),
        ("GET", "/v1/chat/completions", b"", 405, "not-found"),
        ("POST", "/v1/audio/speech", b"{}", 404, "not-found"),
        ("GET", "/v1/models/none", b"", 404, "model_not_found"),
    ],
)
async def test_bad_requests_get_one_clear_error(tmp_path, method, path, content, status, code):
    async with stage(tmp_path, Script()) as on:
        answer = await on.here.request(method, path, content=content)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert on.spent == 0


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer mk-none", "Basic abc", "mk-none"])
async def test_without_a_key_nothing_is_said(tmp_path, header):
    async with stage(tmp_path, Script()) as on, httpx.AsyncClient(base_url=on.here.base_url, trust_env=False) as bare:
        headers = {} if header is None else {"authorization": header}
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/v1/usage")):
            answer = await bare.request(method, path, headers=headers, json=CHAT if method == "POST" else None)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await bare.get("/health")).json() == {"ok": True}


async def test_metrics_count_what_was_served_and_name_no_key(tmp_path):
    async with stage(tmp_path, Script(breaks_after=1), Script()) as on:
        await events(on.here)
        text = (await on.here.get("/metrics")).text
        assert 'minga_gateway_requests_total{model="m",status="200"} 1' in text
        assert 'minga_gateway_completion_tokens_total{model="m"} 4' in text
        assert 'minga_gateway_failovers_total{model="m"} 1' in text
        assert 'minga_gateway_charged_dollars_total{model="m"} 1.1e-05' in text
        assert 'minga_gateway_first_byte_seconds_count{model="m"} 1' in text
        assert "team" not in text
