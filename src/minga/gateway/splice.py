"""One answer out of the streams of several replicas: nothing repeated, nothing lost, or an honest error. Pure.

A stream that breaks is asked for again from another replica, from its beginning. The second replica gives the same
text, because request and seed are the same and replicas of one model are of one determinism class; what the client has
already is compared with it, character by character, and dropped. Where they differ, no honest continuation exists and
the splice says so.

Knows: the events of OpenAI's streams (chat and completion). Does not know: sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minga.core.errors import BadAnswer


@dataclass
class Splice:
    """What the client has of an answer, and how the next stream fits to it.

    `text` and `logprobs` (entries) were delivered; `usage` is what the stream that ended told, `ended` its reason.
    """

    text: str = ""
    logprobs: int = 0
    began: bool = False
    ended: str | None = None
    usage: dict[str, int] | None = None
    opaque: bool = False
    """Something was delivered that cannot be compared, such as a tool call."""
    _head: dict[str, Any] = field(default_factory=dict)
    _at: int = 0
    _entries: int = 0

    def restart(self) -> None:
        """A new stream begins.

        Raises:
            BadAnswer: what was delivered cannot be continued.
        """
        if self.opaque:
            raise BadAnswer("the stream broke off within a tool call", "send the request again")
        self._at = self._entries = 0

    def take(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """What of this event is new for the client, or None.

        Raises:
            BadAnswer: it contradicts what was delivered, or is no event of a reply.
        """
        usage = event.get("usage")
        if isinstance(usage, dict):
            self.usage = {name: value for name, value in usage.items() if type(value) is int and value >= 0}
        choices = event.get("choices")
        if not isinstance(choices, list) or len(choices) > 1:
            raise BadAnswer("a replica sent what is no part of a reply", "the gateway tries another")
        if not choices:
            return None
        choice = choices[0]
        if not isinstance(choice, dict):
            raise BadAnswer("a replica sent what is no part of a reply", "the gateway tries another")
        if not self._head:
            self._head = {name: event.get(name) for name in ("id", "object", "created", "model")}
        fresh = self._fresh(choice)
        return None if fresh is None else {**event, **self._head, "choices": [fresh], "usage": None}

    def _fresh(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        chat = "delta" in choice
        delta = choice.get("delta") if chat else choice
        if not isinstance(delta, dict):
            raise BadAnswer("a replica sent what is no part of a reply", "the gateway tries another")
        content = delta.get("content" if chat else "text") or ""
        if not isinstance(content, str):
            raise BadAnswer("a replica sent what is no text", "the gateway tries another")
        new = self._new_text(content)
        entries, logprobs = self._new_logprobs(choice.get("logprobs"))
        reason = choice.get("finish_reason")
        if reason and self._at < len(self.text):
            raise BadAnswer("another replica ends the reply differently: sooner", "send the request again")
        tools = chat and bool(delta.get("tool_calls") or delta.get("function_call"))
        first = chat and bool(delta.get("role")) and not self.began
        if not (new or entries or reason or tools or first):
            return None
        self.began, self.ended, self.opaque = True, reason or self.ended, self.opaque or tools
        if not chat:
            return {**choice, "text": new, "logprobs": logprobs}
        told = {name: value for name, value in delta.items() if name not in ("role", "content")}
        if first:
            told["role"] = delta["role"]
        if "content" in delta:
            told["content"] = new
        return {**choice, "delta": told, "logprobs": logprobs}

    def _new_text(self, content: str) -> str:
        """The part of `content`, which begins at `_at`, that the client does not have."""
        begin, self._at = self._at, self._at + len(content)
        known = self.text[begin : self._at]
        if not content.startswith(known):
            raise BadAnswer("another replica continues the reply differently", "send the request again")
        new = content[len(known) :]
        self.text += new
        return new

    def _new_logprobs(self, logprobs: Any) -> tuple[int, Any]:
        """How many entries are new, and the object with those alone."""
        if not isinstance(logprobs, dict):
            return 0, logprobs
        lists = {name: value for name, value in logprobs.items() if isinstance(value, list)}
        count = max((len(value) for value in lists.values()), default=0)
        begin, self._entries = self._entries, self._entries + count
        drop = min(count, max(0, self.logprobs - begin))
        self.logprobs = max(self.logprobs, self._entries)
        return count - drop, {**logprobs, **{name: value[drop:] for name, value in lists.items()}}
