"""`minga chat`: talk to a model behind any gateway from a terminal; speed and cost on a line of their own.

A client of OpenAI's API: it knows a url and a key, and nothing else of Minga.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from minga.cli.output import plain, tell


def chat(
    url: Annotated[str, typer.Option(envvar="OPENAI_BASE_URL", help="The gateway, with its /v1.")] = "",
    key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", help="The API key.")] = "",
    model: Annotated[str | None, typer.Option(help="Its name (default: the first that is sold).")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 gives the likeliest words.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each reply.")] = 512,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same replies.")] = None,
) -> None:
    """Chat with a model; an empty line or Ctrl-D ends it. One message on a pipe gets one reply."""
    from minga.core.errors import InvalidInput
    from minga.transport.http import connect

    if not url or not key:
        raise InvalidInput("no gateway is named", "set OPENAI_BASE_URL and OPENAI_API_KEY, as `minga serve` says them")

    async def main() -> None:
        async with connect(url.rstrip("/"), token=key) as http:
            name = model or await first_model(http)
            account = await usage(http)
            tell(f"{plain(name)}; an empty line ends the chat")
            history: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
            while (said := await ask()) is not None:
                history.append({"role": "user", "content": said})
                body = {"model": name, "messages": history, "max_tokens": max_tokens, "temperature": temperature}
                if seed is not None:
                    body["seed"] = seed
                began = time.monotonic()
                text, tokens = await reply(http, body)
                account, spent = await usage(http), account
                rate = tokens / max(time.monotonic() - began, 1e-9)
                cost = _nano(account) - _nano(spent)
                tell(f"[{tokens} tokens, {rate:.1f}/s, ${cost / 1e9:.6f}; ${_nano(account) / 1e9:.6f} in all]")
                history.append({"role": "assistant", "content": text})

    import httpx

    from minga.cli.world import run_async
    from minga.core.errors import BadAnswer

    try:
        run_async(main)
    except httpx.HTTPError as error:
        raise BadAnswer(f"the gateway does not answer: {type(error).__name__}", "is `minga serve` running?") from None


async def ask() -> str | None:
    """The next message; None at the end."""
    import anyio

    def read() -> str:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        return sys.stdin.readline()

    line = await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
    return line.strip() or None


async def first_model(http: Any) -> str:
    """The first model that is sold.

    Raises:
        NotFound: none is.
    """
    from minga.core.errors import NotFound

    cards = (await _json(http, "GET", "/models"))["data"]
    if not cards:
        raise NotFound("the gateway sells nothing to this key", "ask its owner")
    return str(cards[0]["id"])


async def usage(http: Any) -> dict[str, Any]:
    """The key's account; of a gateway that has none, nothing spent."""
    from minga.core.errors import MingaError

    try:
        return await _json(http, "GET", "/usage")
    except MingaError:
        return {"spent": "0"}


async def reply(http: Any, body: dict[str, Any]) -> tuple[str, int]:
    """Print a reply as it comes; its text and tokens.

    Raises:
        MingaError: the gateway refuses, or the reply broke off.
    """
    import json

    from minga.core.errors import BadAnswer

    told, tokens = [], 0
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", "/chat/completions", json=asked, timeout=300) as answer:
        await _check(answer)
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise BadAnswer(f"the reply broke off: {plain(str(event['error'].get('message')))[:200]}", "ask again")
            for choice in event["choices"]:
                text = choice["delta"].get("content") or ""
                told.append(text)
                sys.stdout.write("\n".join(plain(part) for part in text.split("\n")))
                sys.stdout.flush()
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    sys.stdout.write("\n")
    sys.stdout.flush()
    return "".join(told), tokens


async def _json(http: Any, method: str, path: str) -> dict[str, Any]:
    answer = await http.request(method, path)
    await _check(answer)
    value: dict[str, Any] = answer.json()
    return value


async def _check(answer: Any) -> None:
    """Raise the gateway's refusal as one of our errors."""
    from minga.core.errors import NetworkError, TenantError

    if answer.status_code < 400:
        return
    await answer.aread()
    try:
        message = plain(str(answer.json()["error"]["message"]))[:300]
    except (ValueError, KeyError, TypeError):
        message = "the answer has no reason"
    kind = TenantError if answer.status_code < 500 else NetworkError
    raise kind(f"HTTP {answer.status_code}: {message}", "is it a gateway, and is the key its own?")


def _nano(account: dict[str, Any]) -> int:
    whole, _, rest = str(account["spent"]).partition(".")
    return int(whole) * 10**9 + int(rest.ljust(9, "0")[:9])
