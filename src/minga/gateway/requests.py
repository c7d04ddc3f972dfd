"""What a request may say, what it can cost at most, and what is answered when it cannot be served. Pure.

The gateway checks what it must understand itself: the model, the number of replies, the length, the stream. The rest is
the engine's to take or to refuse; unknown fields reach it as they are, so that nothing is dropped in silence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from minga.core.codec import DEPTH_MAX, check_nesting
from minga.core.errors import BudgetSpent, InvalidInput, MingaError, NotFound, TooManyRequests, Unauthorized

MESSAGE_TOKENS = 16
"""Room for a chat template's own tokens, per message and once more."""
SEED_BITS = 53


@dataclass(frozen=True)
class Model:
    """What a gateway sells. Prices are nanodollars per million tokens; `context` is tokens, prompt and reply."""

    name: str
    price_in: int
    price_out: int
    context: int
    quantization: str = "unknown"
    parameters: int | None = None
    created: int = 0

    def cost_up(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nanodollars, rounded up once."""
        return -(-(prompt_tokens * self.price_in + completion_tokens * self.price_out) // 10**6)

    def card(self) -> dict[str, Any]:
        """Its entry in `/v1/models`; prices per token are decimal text in dollars, as OpenRouter has them."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "minga",
            "context_length": self.context,
            "quantization": self.quantization,
            "parameters": self.parameters,
            "pricing": {"prompt": per_token(self.price_in), "completion": per_token(self.price_out)},
        }


@dataclass(frozen=True)
class Call:
    """A checked request: what goes on to a replica, and what it may cost in tokens at most."""

    model: str
    body: dict[str, Any]
    stream: bool
    wants_usage: bool
    prompt_tokens_max: int
    completion_tokens_max: int
    seeded: bool
    """Whether the reply is a function of the request, so that another replica gives the same."""


def per_token(nanodollars_per_million: int) -> str:
    """Dollars for one token, as decimal text without an exponent."""
    whole, rest = divmod(nanodollars_per_million, 10**15)
    return f"{whole}.{rest:015d}".rstrip("0").rstrip(".")


def parse(raw: bytes, models: dict[str, Model], seed: int) -> Call:
    """Check the body of a request for a reply.

    Args:
        raw: the body.
        models: what is sold here.
        seed: used when the request has none, so that a stream can go on at another replica.

    Raises:
        InvalidInput: not JSON, or a field that the gateway must understand and cannot; `details["param"]` names it.
        NotFound: the model is not sold here.
    """
    body = json_object(raw)
    name = body.get("model")
    if not isinstance(name, str) or name not in models:
        raise NotFound(f"the model {str(name)[:80]!r} is not sold here", "see /v1/models", param="model")
    model = models[name]
    if body.get("n") not in (None, 1):
        raise _bad("n", "n must be 1", "send the request several times")
    stream = body.get("stream") or False
    options = body.get("stream_options") or {}
    if not isinstance(stream, bool):
        raise _bad("stream", "stream must be true or false", "leave it out for a whole answer")
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise _bad("stream_options", "stream_options must be an object", 'write {"include_usage": true}')
    if options and not stream:
        raise _bad("stream_options", "stream_options needs stream: true", "leave it out")
    longest = min(_length(body, "max_tokens"), _length(body, "max_completion_tokens"), model.context)
    seeded = body | ({} if body.get("seed") is not None else {"seed": seed})
    if stream:
        seeded["stream_options"] = {**options, "include_usage": True}
    return Call(
        name, seeded, stream, bool(options.get("include_usage")), min(prompt_tokens_up(body), model.context), longest,
        not body.get("tools"),
    )  # fmt: skip


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object, numbers of any kind allowed.

    Raises:
        InvalidInput: it is none, or nested more than 32 deep.
    """
    try:
        text = raw.decode()
        check_nesting(text, DEPTH_MAX)
        value = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}"[:200], "send one JSON object in UTF-8") from None
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object", "see the reference of the route")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def prompt_tokens_up(body: dict[str, Any]) -> int:
    """How many tokens a prompt can have at most: a byte-level tokenizer makes no more tokens than there are bytes."""
    messages = body.get("messages")
    said = _texts([messages, *(body.get(name) for name in ("prompt", "input", "tools"))])
    texts = sum(len(text.encode("utf-8", "surrogatepass")) for text in said)
    count = len(messages) if isinstance(messages, list) else 0
    return texts + MESSAGE_TOKENS * (count + 1)


def _texts(value: Any) -> list[str]:
    found, todo = [], [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, int):
            found.append("1")  # a prompt may be a list of token ids
    return found


def _length(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if value is None:
        return 1 << 62
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _bad(name, f"{name} must be a whole number above zero", "leave it out for as much as fits")
    return value


def _bad(param: str, fact: str, remedy: str) -> InvalidInput:
    return InvalidInput(fact, remedy, param=param)


def error_body(error: MingaError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error in OpenAI's shape; `code` is ours, `type` theirs."""
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    code = error.code
    if isinstance(error, Unauthorized):
        kind, code = "authentication_error", "invalid_api_key"
    elif isinstance(error, BudgetSpent):
        kind = code = "insufficient_quota"
    elif isinstance(error, TooManyRequests):
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    elif isinstance(error, NotFound) and error.details.get("param") == "model":
        code = "model_not_found"
    message = f"{error.fact}; {error.remedy}" if error.remedy else error.fact
    return error.http_status, {
        "error": {"message": message, "type": kind, "param": error.details.get("param"), "code": code}
    }
