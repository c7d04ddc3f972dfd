"""Replicas that die by SIGKILL in the middle of a stream; the client is OpenAI's own library, and notices nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from engines import Nursery

from fixtures import SeededDice, SystemClock
from minga.gateway.app import Gateway
from minga.gateway.books import NANODOLLARS, Books
from minga.gateway.relay import Pool
from minga.gateway.replicas import UrlReplica
from minga.gateway.requests import Model
from minga.transport.http import serve

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = 100
TOKENS = 48
MODEL = Model("tiny", NANODOLLARS, NANODOLLARS, 256)


@pytest.fixture(scope="module")
def nursery(tiny_model: Path) -> Iterator[Nursery]:
    made = Nursery(tiny_model)
    yield made
    made.close()


@asynccontextmanager
async def gateway(folder: Path, urls: list[str]) -> AsyncIterator[tuple[openai.AsyncOpenAI, Books, Pool]]:
    """A gateway before these engines, and OpenAI's client of it."""
    books = Books(folder / "keys.db", SystemClock(), SeededDice("keys"))
    secret = books.add("team", NANODOLLARS)
    pool = Pool(list(map(UrlReplica, urls)), SystemClock())
    served = Gateway({"tiny": MODEL}, {"tiny": pool}, books, SystemClock(), SeededDice("seeds"))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(served.app(), "127.0.0.1", 0))
        made = openai.AsyncOpenAI(api_key=secret, base_url=f"{server.url}/v1", max_retries=0)
        yield await stack.enter_async_context(made), books, pool
    for replica in pool.replicas:
        await replica.aclose()


def request(number: int) -> dict[str, Any]:
    """Greedy and seeded sampling in turn."""
    how = {"temperature": 0} if number % 2 else {"temperature": 0.8, "top_p": 0.95}
    messages = [{"role": "user", "content": f"number {number}"}]
    return {"model": "tiny", "messages": messages, "max_tokens": TOKENS, "seed": number, **how}


async def test_a_hundred_kills_lose_and_repeat_no_token_and_nothing_is_paid_twice(tmp_path, nursery):
    _, undisturbed = nursery.engine()
    expected = {}
    async with gateway(tmp_path / "undisturbed", [undisturbed]) as (client, books, _):
        for number in range(KILLS):
            reply = await client.chat.completions.create(**request(number))
            expected[number] = reply.choices[0].message.content
        spent_undisturbed = books.keys()[0].spent
    urls = {}
    for _ in range(2):
        pid, url = nursery.engine()
        urls[url] = pid
    async with gateway(tmp_path / "disturbed", list(urls)) as (client, books, pool):
        for number in range(KILLS):
            pieces = []
            async for event in await client.chat.completions.create(**request(number), stream=True):
                pieces.append(event.choices[0].delta.content or "")
                busy = [item.name for item in pool.standings.values() if item.under_way]
                if len(pieces) == 3 + number % 17 and busy:
                    (victim,) = busy
                    nursery.kill(urls.pop(victim))
                    pid, url = nursery.engine()
                    urls[url] = pid
                    pool.remove(victim)
                    pool.add(UrlReplica(url))
            assert "".join(pieces) == expected[number], f"request {number}"
        assert pool.failovers >= KILLS * 9 // 10, "most of the kills came in the middle of a stream"
        assert books.keys()[0].spent == spent_undisturbed
        assert books.keys()[0].held == 0


async def test_openai_s_client_gets_its_own_errors(tmp_path, nursery):
    _, url = nursery.engine()
    async with gateway(tmp_path, [url]) as (client, books, _):
        assert [model.id async for model in await client.models.list()] == ["tiny"]
        whole = await client.completions.create(model="tiny", prompt="once", max_tokens=3, logprobs=1)
        assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.tokens) == 3
        with pytest.raises(openai.NotFoundError, match="not sold here"):
            await client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError, match="tools") as refused:
            await client.chat.completions.create(**request(1), tools=[{"type": "function", "function": {"name": "f"}}])
        assert refused.value.param == "tools"
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="mk-none").models.list()
        poor = client.with_options(api_key=books.add("poor", 1))
        with pytest.raises(openai.RateLimitError, match="more than this key has left"):
            await poor.chat.completions.create(**request(1))
