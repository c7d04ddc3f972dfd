"""One canonical encoding, so that a hash names one value.

Canonical JSON is the integer subset of RFC 8785 (JCS): UTF-8, keys sorted by code point, no spaces, no floats, no
NaN, integers in ±(2**53 − 1); larger integers travel as decimal strings. Decoding refuses duplicate keys, so that
two readers can never see different values in one text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from minga.core.errors import InvalidInput, TooLarge

SAFE_INTEGER = 2**53 - 1
BODY_BYTES_MAX = 1 << 20
DEPTH_MAX = 32
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value.

    Raises:
        InvalidInput: a float, a non-string key, an integer over ±(2**53 − 1), a lone surrogate, or deeper than 32.
    """
    _check(value, 0)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidInput("text holds a lone surrogate", "send valid UTF-8") from None


def parse_json(data: bytes | str, limit: int = BODY_BYTES_MAX) -> Any:
    """A JSON value from untrusted bytes; floats, NaN and duplicate keys are refused.

    Raises:
        TooLarge: more than `limit` bytes.
        InvalidInput: not JSON, or outside the canonical subset.
    """
    if len(data) > limit:
        raise TooLarge(f"the body has {len(data)} bytes, the limit is {limit}", "send less")
    try:
        text = data if isinstance(data, str) else data.decode()
        check_nesting(text, DEPTH_MAX + 1)
        value = json.loads(text, object_pairs_hook=_pairs, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not JSON: {error}"[:200], "send one JSON value in UTF-8") from None
    _check(value, 0)
    return value


def check_nesting(text: str, most: int) -> None:
    """Return if JSON text opens at most `most` lists and objects at a time; to be asked before `json.loads`.

    Where a library has raised Python's recursion limit (some of Ethereum's do), deep nesting does not end in a
    `RecursionError` but ends the process.

    Raises:
        InvalidInput: it opens more.
    """
    if text.count("[") + text.count("{") <= most:
        return
    depth = 0
    for char in _NO_BRACKETS.sub("", _STRING.sub("", text)):
        depth += 1 if char in "[{" else -1
        if depth > most:
            raise InvalidInput("JSON is nested too deeply", f"use at most {most} levels")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"number {text[:20]!r} is not an integer")


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InvalidInput("JSON is nested too deeply", f"use at most {DEPTH_MAX} levels")
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            raise InvalidInput("an integer is over 2**53 - 1", "send large integers as decimal strings")
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"key {key!r} is not text", "use text keys")
            _check(item, depth + 1)
    else:
        raise InvalidInput(
            f"{type(value).__name__} has no canonical form", "use null, booleans, integers, text, lists, maps"
        )
