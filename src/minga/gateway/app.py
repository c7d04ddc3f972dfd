"""The gateway's routes: OpenAI's API before replicas that run on the network.

| route                     | who          | what                                                        |
|---------------------------|--------------|-------------------------------------------------------------|
| GET  /v1/models[/NAME]    | an API key   | what is sold, with prices per token and context length      |
| POST /v1/chat/completions | an API key   | a reply, whole or streamed                                  |
| POST /v1/completions      | an API key   | the continuation of a prompt, whole or streamed             |
| POST /v1/embeddings       | an API key   | vectors, from a replica that makes them                     |
| GET  /v1/usage            | an API key   | what this key spent, holds and has left                     |
| GET  /health              | anybody      | whether the gateway answers                                 |
| GET  /metrics             | loopback     | counts for Prometheus; no key's name is in them             |

A request holds the most that it can cost before a replica is asked, and settles at the tokens that the replica counted
when it ended; one that was not served costs nothing. A stream that the client leaves is charged for what it was sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from minga.core.effects import Clock, Dice
from minga.core.errors import (
    BadAnswer,
    InternalError,
    MingaError,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from minga.gateway import relay
from minga.gateway.books import NANODOLLARS, Books, Hold, Key
from minga.gateway.meter import Meter
from minga.gateway.relay import EngineRefused, Pool
from minga.gateway.requests import Call, Model, error_body, parse
from minga.gateway.splice import Splice
from minga.transport.http import is_loopback

BODY_BYTES_MAX = 8 << 20
TOKEN_CHARACTERS = 8
"""A stream that was left is charged one token for each so many characters that were sent; most are shorter."""


@dataclass
class Gateway:
    """What every request uses. `models` and `pools` have the same names."""

    models: dict[str, Model]
    pools: dict[str, Pool]
    books: Books
    clock: Clock
    dice: Dice
    meter: Meter = field(default_factory=Meter)
    _windows: dict[int, tuple[int, int]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The ASGI app."""
        routes = [
            Route("/v1/models", self._guarded(self.list_models)),
            Route("/v1/models/{name:path}", self._guarded(self.one_model)),
            Route("/v1/chat/completions", self._guarded(self.reply), methods=["POST"]),
            Route("/v1/completions", self._guarded(self.reply), methods=["POST"]),
            Route("/v1/embeddings", self._guarded(self.reply), methods=["POST"]),
            Route("/v1/usage", self._guarded(self.usage)),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        handlers: dict[Any, Any] = {404: _no_route, 405: _no_route}
        return Starlette(routes=routes, exception_handlers=handlers)

    # ------------------------------------------------------------------------------------------------- every request

    def _guarded(self, route: Callable[[Request, Key], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                key = await anyio.to_thread.run_sync(self.books.find, _secret(request))
                self._admit(key)
                response: Response = await route(request, key)
                return response
            except EngineRefused as refused:
                return JSONResponse(refused.body, refused.status)
            except MingaError as error:
                return _refusal(error)

        return answer

    def _admit(self, key: Key) -> None:
        """Count the request in the key's minute.

        Raises:
            TooManyRequests: the minute is full.
        """
        minute = int(self.clock.monotonic() // 60)
        began, count = self._windows.get(key.id, (minute, 0))
        count = count if began == minute else 0
        if count >= key.per_minute:
            raise TooManyRequests(f"this key may send {key.per_minute} requests a minute", "wait until the next minute")
        self._windows[key.id] = (minute, count + 1)

    # ------------------------------------------------------------------------------------------------------- looking

    async def list_models(self, request: Request, key: Key) -> Response:
        """What this key may ask."""
        cards = [model.card() for model in self.models.values() if _may(key, model.name)]
        return JSONResponse({"object": "list", "data": cards})

    async def one_model(self, request: Request, key: Key) -> Response:
        """One of them."""
        name = request.path_params["name"]
        if name not in self.models or not _may(key, name):
            raise NotFound(f"the model {name[:80]!r} is not sold here", "see /v1/models", param="model")
        return JSONResponse(self.models[name].card())

    async def usage(self, request: Request, key: Key) -> Response:
        """The key's account; dollars as decimal text."""
        amounts = {name: _dollars(getattr(key, name)) for name in ("budget", "spent", "held", "left")}
        counts = {name: getattr(key, name) for name in ("requests", "prompt_tokens", "completion_tokens")}
        return JSONResponse({"object": "usage", "name": key.name, **amounts, **counts})

    async def health(self, request: Request) -> Response:
        """Whether it answers."""
        return JSONResponse({"ok": True})

    async def metrics(self, request: Request) -> Response:
        """Counts, for this machine alone."""
        if request.client is None or not is_loopback(request.client.host):
            return _refusal(Unauthorized("metrics are for this machine", "ask from loopback"))
        return PlainTextResponse(self.meter.text(self.pools), media_type="text/plain; version=0.0.4")

    # ------------------------------------------------------------------------------------------------------- replies

    async def reply(self, request: Request, key: Key) -> Response:
        """Ask a replica, within the key's budget."""
        began = self.clock.monotonic()
        seed = int.from_bytes(self.dice.bytes(6), "big")
        call = parse(await _body(request), {n: m for n, m in self.models.items() if _may(key, n)}, seed)
        model = self.models[call.model]
        if request.url.path == "/v1/embeddings":
            call = _embedding(call, model)
        most = model.cost_up(call.prompt_tokens_max, call.completion_tokens_max)
        hold = await anyio.to_thread.run_sync(self.books.hold, key, most)
        order = _Order(self, call, model, hold, request.url.path, began)
        if call.stream:
            return await order.streamed()
        return await order.whole()


@dataclass
class _Order:
    """One request that holds money, until it is settled: exactly once, whatever happens."""

    gateway: Gateway
    call: Call
    model: Model
    hold: Hold
    path: str
    began: float
    settled: bool = False

    async def whole(self) -> Response:
        value: dict[str, Any] = {}
        status = 503
        try:
            value = await relay.whole(self.gateway.pools[self.model.name], self.path, self.call)
            status = 200
            self.gateway.meter.began(self.model.name, self.gateway.clock.monotonic() - self.began)
        except EngineRefused as refused:
            status = refused.status
            raise
        finally:
            await self.settle(status, _counted(value.get("usage"), self.call) if value else (0, 0))
        return JSONResponse(value)

    async def streamed(self) -> Response:
        """The response, once its first event is there: until then an error is an ordinary one."""
        splice = Splice()
        events = relay.stream(self.gateway.pools[self.model.name], self.path, self.call, splice)
        try:
            first = await anext(events, None)
        except BaseException as error:
            status = error.status if isinstance(error, EngineRefused) else 503
            await self.settle(status, (0, 0))
            raise
        self.gateway.meter.began(self.model.name, self.gateway.clock.monotonic() - self.began)
        return _Stream(self._lines(first, events, splice), lambda: self._left(events, splice))

    async def _left(self, events: AsyncGenerator[dict[str, Any], None], splice: Splice) -> None:
        """The response is over, sent or not: nothing goes on for it, and it is settled."""
        with anyio.CancelScope(shield=True):
            await events.aclose()
            await self.settle(499, self._sent(splice))

    async def _lines(
        self, first: dict[str, Any] | None, events: AsyncIterator[dict[str, Any]], splice: Splice
    ) -> AsyncIterator[bytes]:
        head: dict[str, Any] = first or {}
        try:
            if first is not None:
                yield _line(first)
            async for event in events:
                yield _line(event)
            await self.settle(200, self._sent(splice))
            if self.call.wants_usage:
                yield _line({**head, "choices": [], "usage": splice.usage})
            yield b"data: [DONE]\n\n"
        except MingaError as error:
            # The head has left; the client's library raises on an event with an error.
            await self.settle(502 if isinstance(error, BadAnswer) else 503, self._sent(splice))
            yield _line(error_body(error)[1])

    def _sent(self, splice: Splice) -> tuple[int, int]:
        if splice.usage is not None:
            return _counted(splice.usage, self.call)
        if not splice.began:
            return 0, 0
        return 0, min(self.call.completion_tokens_max, math.ceil(len(splice.text) / TOKEN_CHARACTERS))

    async def settle(self, status: int, tokens: tuple[int, int]) -> None:
        if self.settled:
            return
        self.settled = True
        with anyio.CancelScope(shield=True):
            amount = self.model.cost_up(*tokens)
            charged = await anyio.to_thread.run_sync(self.gateway.books.settle, self.hold, amount, *tokens)
            self.gateway.meter.answered(self.model.name, status, *tokens, charged)


class _Stream(StreamingResponse):
    """Server-sent events; `over` is awaited once, whether they were sent to their end or not begun."""

    def __init__(self, lines: AsyncIterator[bytes], over: Callable[[], Awaitable[None]]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._over()


def _counted(usage: Any, call: Call) -> tuple[int, int]:
    """Prompt and completion tokens of a replica's count, never more than the request allows."""
    found = usage if isinstance(usage, dict) else {}
    counts = []
    for name, most in (("prompt_tokens", call.prompt_tokens_max), ("completion_tokens", call.completion_tokens_max)):
        value = found.get(name, 0)
        counts.append(min(value, most) if type(value) is int and value > 0 else 0)
    return counts[0], counts[1]


def _embedding(call: Call, model: Model) -> Call:
    body = {name: value for name, value in call.body.items() if name not in ("seed", "stream_options")}
    return Call(call.model, body, False, False, call.prompt_tokens_max, 0, True)


def _may(key: Key, model: str) -> bool:
    return not key.models or model in key.models


def _secret(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("the request has no API key", "send `Authorization: Bearer KEY`")
    return secret.strip()


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise TooLarge(f"the body is over {BODY_BYTES_MAX} bytes", "send less")
    return bytes(data)


def _refusal(error: MingaError) -> Response:
    if isinstance(error, InternalError):
        error = InternalError("the gateway failed", "its owner finds the reason in its log")
    status, body = error_body(error)
    return JSONResponse(body, status)


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    body = error_body(NotFound(f"there is no {request.method} {request.url.path[:80]}", "see the docs of the gateway"))
    return JSONResponse(body[1], status)


def _line(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _dollars(amount: int) -> str:
    whole, rest = divmod(amount, NANODOLLARS)
    return f"{whole}.{rest:09d}"
