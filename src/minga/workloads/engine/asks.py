"""Requests as the engine takes them: checked, or refused by the name of what is wrong. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TOP_LOGPROBS_MAX = 20
STOPS_MAX = 4
SEED_MAX = 2**63 - 1
TOKENS_MAX = 1 << 20
KNOWN = frozenset((
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed",
    "stream", "stream_options", "logprobs", "top_logprobs", "n", "user", "frequency_penalty", "presence_penalty",
))  # fmt: skip
"""What a request may say. `user` is for the caller's own books; penalties must be 0, and `n` 1."""


class Refused(Exception):
    """The request cannot be served as it is. `param` names what is wrong."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": None}}


@dataclass(frozen=True)
class Ask:
    """A checked request. `top_logprobs` is None where no log-probabilities are asked for."""

    prompt: str
    chat: bool
    tokens_max: int | None
    temperature: float
    top_p: float
    stops: tuple[str, ...]
    seed: int
    stream: bool
    usage_in_stream: bool
    top_logprobs: int | None


def number(body: dict[str, Any], name: str, low: float, high: float, default: float) -> float:
    """A number of the request within its range, or the default.

    Raises:
        Refused: another type or range.
    """
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(f"{name} must be a number from {low} to {high}", name)
    return float(value)


def whole(body: dict[str, Any], name: str, low: int, high: int) -> int | None:
    """A whole number of the request within its range, or None.

    Raises:
        Refused: another type or range.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(f"{name} must be a whole number from {low} to {high}", name)
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """A boolean of the request; false where it is not given.

    Raises:
        Refused: another type.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{name} must be true or false", name)
    return bool(value)


def stops_of(body: dict[str, Any]) -> tuple[str, ...]:
    """The texts that end the reply.

    Raises:
        Refused: not a text or up to four texts.
    """
    value = body.get("stop")
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > STOPS_MAX or not all(isinstance(t, str) and t for t in texts):
        raise Refused(f"stop must be a text or up to {STOPS_MAX} texts", "stop")
    return tuple(texts)


def message_text(message: Any, place: str) -> dict[str, str]:
    """One message as role and plain text.

    Raises:
        Refused: no role, or content that is not text.
    """
    if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
        raise Refused("a message needs a role: system, developer, user or assistant", f"{place}.role")
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise Refused("this model reads text only", f"{place}.content")
        content = "".join(part for part in parts if part is not None)
    if not isinstance(content, str):
        raise Refused("content must be text", f"{place}.content")
    return {"role": "system" if message["role"] == "developer" else message["role"], "content": content}


def top_logprobs_of(body: dict[str, Any], chat: bool) -> int | None:
    """How many alternatives to each token are asked for, None for no log-probabilities at all.

    Raises:
        Refused: another type or range, or alternatives without log-probabilities.
    """
    if not chat:
        return whole(body, "logprobs", 0, TOP_LOGPROBS_MAX)
    wanted, top = flag(body, "logprobs"), whole(body, "top_logprobs", 0, TOP_LOGPROBS_MAX)
    if top is not None and not wanted:
        raise Refused("top_logprobs needs logprobs: true", "top_logprobs")
    return (top or 0) if wanted else None


def prompt_of(body: dict[str, Any], chat: bool, template: Callable[[list[dict[str, str]]], str]) -> str:
    """The text that the reply continues; `template` makes it from messages.

    Raises:
        Refused: no prompt, or no messages.
    """
    if not chat:
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise Refused("prompt must be a text", "prompt")
        return prompt
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages must be a list of at least one", "messages")
    return template([message_text(item, f"messages[{at}]") for at, item in enumerate(messages)])


def ask_of(body: Any, chat: bool, name: str, template: Callable[[list[dict[str, str]]], str]) -> Ask:
    """Check a request to the model `name`.

    Raises:
        Refused: it is not one, or asks for what this engine cannot do.
    """
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    for odd in sorted(set(body) - KNOWN):
        raise Refused(f"this engine does not know {odd[:80]!r}", odd[:80])
    if body.get("model") != name:
        raise Refused(f"the model {str(body.get('model'))[:80]!r} is not here; {name!r} is", "model", 404)
    for field, only in (("n", 1), ("frequency_penalty", 0), ("presence_penalty", 0)):
        if body.get(field) not in (None, only):
            raise Refused(f"{field} must be {only}", field)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage"}:
        raise Refused("stream_options may hold include_usage only", "stream_options")
    seed = whole(body, "seed", -SEED_MAX, SEED_MAX)
    most = whole(body, "max_completion_tokens", 1, TOKENS_MAX) or whole(body, "max_tokens", 1, TOKENS_MAX)
    return Ask(
        prompt=prompt_of(body, chat, template),
        chat=chat,
        tokens_max=most,
        temperature=number(body, "temperature", 0, 2, 1.0),
        top_p=number(body, "top_p", 0, 1, 1.0),
        stops=stops_of(body),
        seed=int.from_bytes(os.urandom(7), "big") if seed is None else seed,
        stream=flag(body, "stream"),
        usage_in_stream=flag(options, "include_usage"),
        top_logprobs=top_logprobs_of(body, chat),
    )
