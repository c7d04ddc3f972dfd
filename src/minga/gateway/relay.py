"""Asks one replica, then another, until an answer is whole: the gateway's way through failures.

A whole answer is asked for again from its beginning. A stream that breaks is spliced (`gateway.splice`): the client
sees one stream without a repeated or lost character, or an error that says that it ended early. A refusal of the
request itself (4xx) is the client's and is not tried elsewhere.

Knows: replicas and their standing. Does not know: keys and money. Rule: the usage that counts is that of the stream
which was finished, so that nobody pays twice for what two replicas computed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from minga.core.effects import Clock
from minga.core.errors import BadAnswer, Conflict, MingaError, OutOfCapacity, ProviderUnreachable, Unauthorized
from minga.gateway.replicas import Replica
from minga.gateway.requests import Call
from minga.gateway.routing import Standing, choose
from minga.gateway.splice import Splice

ANSWER_BYTES_MAX = 32 << 20
LINE_BYTES_MAX = 1 << 20
PATIENCE_S = 60.0
"""How long replicas are tried before the client is told: a job that loses its provider is elsewhere by then."""
PAUSE_S, PAUSE_MAX_S = 0.25, 2.0
TROUBLE = (ProviderUnreachable, Conflict, Unauthorized, BadAnswer, httpx.HTTPError)


class EngineRefused(Exception):
    """The engine's own answer to a request that it will not serve: status and JSON body, for the client as they are."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status, self.body = status, body


@dataclass
class Pool:
    """The replicas of one model."""

    replicas: list[Replica]
    clock: Clock
    patience_s: float = PATIENCE_S
    standings: dict[str, Standing] = field(default_factory=dict)
    failovers: int = 0

    def __post_init__(self) -> None:
        for replica in self.replicas:
            self.standings[replica.name] = Standing(replica.name)

    def add(self, replica: Replica) -> None:
        """Ask this one too; its name is nobody else's."""
        self.replicas.append(replica)
        self.standings[replica.name] = Standing(replica.name)

    def remove(self, name: str) -> None:
        """Ask this one no more; what is under way there goes on."""
        self.replicas = [replica for replica in self.replicas if replica.name != name]
        self.standings.pop(name, None)

    def _next(self, tried: frozenset[str]) -> Replica | None:
        now = self.clock.monotonic()
        known = [self.standings[replica.name] for replica in self.replicas]
        chosen = choose(known, now, tried)
        if chosen is None:
            return None
        self.standings[chosen.name] = chosen.asked(now)
        return next(replica for replica in self.replicas if replica.name == chosen.name)

    async def attempts(self) -> AsyncIterator[Replica]:
        """Replicas to ask, best first; after all of them, again, a little later, until patience ends."""
        until, pause = self.clock.monotonic() + self.patience_s, PAUSE_S
        while True:
            tried: frozenset[str] = frozenset()
            while (replica := self._next(tried)) is not None:
                tried |= {replica.name}
                yield replica
            if self.clock.monotonic() + pause > until:
                return
            await self.clock.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX_S)

    def note(self, replica: Replica, seconds: float | None) -> None:
        """How a request ended: after so many seconds, or (None) by the replica's fault."""
        if seconds is None:
            self.failovers += 1
        standing = self.standings.get(replica.name)
        if standing is not None:
            ended = standing.failed(self.clock.monotonic()) if seconds is None else standing.answered(seconds)
            self.standings[replica.name] = ended

    def release(self, replica: Replica) -> None:
        """A request ended for no fault of the replica."""
        standing = self.standings.get(replica.name)
        if standing is not None:
            self.standings[replica.name] = standing.left()


async def whole(pool: Pool, path: str, call: Call) -> dict[str, Any]:
    """The answer to a request without a stream.

    Raises:
        EngineRefused: an engine refuses the request itself.
        OutOfCapacity: no replica gave an answer.
    """
    body, trouble = json.dumps(call.body).encode(), "no replica is there"
    async for replica in pool.attempts():
        began = pool.clock.monotonic()
        ended: float | None = None
        fault = True
        try:
            async with replica.ask("POST", path, body) as answer:
                value = await _json(answer)
            ended, fault = pool.clock.monotonic() - began, False
            return value
        except EngineRefused:
            fault = False
            raise
        except TROUBLE as error:
            trouble = _words(error)
        except BaseException:
            fault = False  # the client left
            raise
        finally:
            _settle(pool, replica, ended, fault)
    raise OutOfCapacity(f"no replica of {call.model!r} gave an answer: {trouble}", "try again later")


async def stream(pool: Pool, path: str, call: Call, splice: Splice) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a streamed answer, each once; `splice` holds its text and usage as they grow.

    Raises:
        EngineRefused: an engine refuses the request itself; only before the first event.
        OutOfCapacity: no replica could finish it.
        BadAnswer: another replica continues it differently, so that it ends here.
    """
    body, trouble = json.dumps(call.body).encode(), "no replica is there"
    async for replica in pool.attempts():
        began = pool.clock.monotonic()
        ended: float | None = None
        fault = True
        try:
            splice.restart()
            async with replica.ask("POST", path, body) as answer:
                async for event in _events(answer):
                    new = splice.take(event)
                    if new is not None:
                        yield new
            if splice.ended is None:
                raise ProviderUnreachable("the stream ended early", "another replica goes on")
            ended, fault = pool.clock.monotonic() - began, False
            return
        except EngineRefused as error:
            fault = False
            if splice.began:
                raise BadAnswer("another replica refuses the request", "send it again") from error
            raise
        except TROUBLE as error:
            trouble = _words(error)
            if splice.began and not call.seeded:
                raise BadAnswer(f"the stream broke off: {trouble}", "send the request again") from None
        except BaseException:
            fault = False  # the client left
            raise
        finally:
            _settle(pool, replica, ended, fault)
    raise OutOfCapacity(f"no replica of {call.model!r} finished the answer: {trouble}", "try again later")


def _settle(pool: Pool, replica: Replica, ended: float | None, fault: bool) -> None:
    if ended is not None or fault:
        pool.note(replica, ended)
    else:
        pool.release(replica)


def _words(error: Exception) -> str:
    return error.fact if isinstance(error, MingaError) else type(error).__name__


async def _json(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer, an object."""
    data = bytearray()
    async for piece in answer.aiter_bytes():
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            raise BadAnswer("a replica's answer is too long", "the gateway tries another")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer(f"a replica answered HTTP {answer.status_code} without JSON", "is it an engine?") from None
    if not isinstance(value, dict):
        raise BadAnswer("a replica answered with no object", "is it an engine?")
    if answer.status_code >= 500 or (answer.status_code != 200 and "error" not in value):
        raise BadAnswer(f"a replica answered HTTP {answer.status_code}", "the gateway tries another")
    if answer.status_code != 200:
        _raise_refusal(answer.status_code, value)
    return value


def _raise_refusal(status: int, value: dict[str, Any]) -> None:
    """A refusal of the engine is the client's; one of a provider (ours, by its `blame`) is the replica's trouble."""
    error = value.get("error")
    if isinstance(error, dict) and "blame" in error:
        raise Conflict(str(error.get("fact", "refused"))[:200], "the gateway tries another")
    raise EngineRefused(status, value)


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream up to its `[DONE]`."""
    if answer.status_code != 200:
        await _json(answer)
        raise BadAnswer("a replica answered without a stream", "the gateway tries another")
    held = b""
    async for piece in answer.aiter_bytes():
        *lines, held = (held + piece).split(b"\n")
        if len(held) > LINE_BYTES_MAX:
            raise BadAnswer("a replica's event is too long", "the gateway tries another")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _event(data)
    raise ProviderUnreachable("the stream ended without its end", "another replica goes on")


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer("a replica's event is not JSON", "the gateway tries another") from None
    if not isinstance(event, dict) or "error" in event:
        raise BadAnswer("a replica's stream ended with an error", "the gateway tries another")
    return event
