"""A model, its tokenizer, and replies that grow token by token. Knows nothing of HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .asks import Ask, Refused


@dataclass
class Reply:
    """A reply as it grows. `ended` is stop or length once it is over; `logprobs` has one entry a token."""

    prompt_tokens: int
    tokens: int = 0
    text: str = ""
    sent: int = 0
    ended: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def usage(self) -> dict[str, int]:
        """What is counted."""
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}


class Engine:
    """A model and its tokenizer; `generate` gives a reply piece by piece."""

    def __init__(self, folder: str, name: str, device: str) -> None:
        """Load the checkpoint in `folder` onto `device`."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch, self.name = torch, name
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        self.model = model.to(device).eval()
        self.context = int(self.model.config.max_position_embeddings)
        found = self.model.generation_config.eos_token_id
        ends = found if isinstance(found, list) else [found]
        self.ends = {*ends, self.tokenizer.eos_token_id} - {None}
        self.created = int(time.time())
        self.lock = threading.Lock()
        self.waiting = 0

    def card(self) -> dict[str, Any]:
        """What `/v1/models` says of the model."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "provider",
            "context_length": self.context,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "quantization": str(self.model.dtype).removeprefix("torch."),
        }

    def prompt_of(self, messages: list[dict[str, str]]) -> str:
        """The text that asks for the next message: by the model's own template where it has one."""
        if self.tokenizer.chat_template:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant:"

    def begin(self, ask: Ask) -> tuple[Any, Reply, int]:
        """Token ids of the prompt, the empty reply, and how many tokens it may have.

        Raises:
            Refused: the prompt leaves no room in the context.
        """
        ids = self.tokenizer(ask.prompt, return_tensors="pt", add_special_tokens=not ask.chat).input_ids
        room = self.context - ids.shape[1]
        if ids.shape[1] < 1 or room < 1:
            raise Refused(f"the prompt has {ids.shape[1]} tokens; the context is {self.context}", "messages")
        return ids.to(self.model.device), Reply(ids.shape[1]), min(ask.tokens_max or room, room)

    def generate(self, ask: Ask, ids: Any, reply: Reply, most: int) -> Iterator[str]:
        """Yield the reply's text as it becomes certain; `reply` has the rest. One reply at a time computes."""
        torch = self.torch
        dice = torch.Generator().manual_seed(ask.seed)
        found: list[int] = []
        cache = None
        with torch.inference_mode():
            while not reply.ended:
                out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache, logits = out.past_key_values, out.logits[0, -1].float().cpu()
                token = self.choose(logits, ask, dice)
                if token in self.ends:
                    reply.ended = "stop"
                else:
                    found.append(token)
                    reply.tokens += 1
                    if ask.top_logprobs is not None:
                        reply.logprobs.append(self.logprob(logits, token, ask.top_logprobs))
                    reply.ended = "length" if reply.tokens == most else ""
                    ids = torch.tensor([[token]], device=self.model.device)
                yield self.grow(reply, found, ask.stops)

    def choose(self, logits: Any, ask: Ask, dice: Any) -> int:
        """The next token: the likeliest at temperature 0, else drawn from the smallest set with probability `top_p`."""
        torch = self.torch
        if ask.temperature == 0 or ask.top_p == 0:
            return int(logits.argmax())
        odds, order = torch.softmax(logits.double() / ask.temperature, -1).sort(descending=True, stable=True)
        odds[1:][odds.cumsum(-1)[:-1] >= ask.top_p] = 0
        return int(order[torch.multinomial(odds, 1, generator=dice)])

    def logprob(self, logits: Any, token: int, top: int) -> dict[str, Any]:
        """Log-probability (natural) of a token before temperature, and of the `top` likeliest."""
        logs = self.torch.log_softmax(logits, -1)
        best = logs.topk(top) if top else None

        def entry(at: int) -> dict[str, Any]:
            text = self.tokenizer.decode([at])
            return {"token": text, "logprob": float(logs[at]), "bytes": list(text.encode())}

        likeliest = [] if best is None else [entry(int(at)) for at in best.indices]
        return {**entry(token), "top_logprobs": likeliest}

    def grow(self, reply: Reply, found: list[int], stops: tuple[str, ...]) -> str:
        """Take the new text in and return what may be sent: nothing that a later token could change."""
        reply.text = self.tokenizer.decode(found, skip_special_tokens=True)
        cuts = [at for at in (reply.text.find(stop) for stop in stops) if at >= 0]
        if cuts:
            reply.text, reply.ended = reply.text[: min(cuts)], "stop"
        certain = len(reply.text)
        if not reply.ended:
            # A token may be a part of a character, and a text the beginning of a stop.
            certain -= len(reply.text) - len(reply.text.rstrip("\ufffd"))
            starts = [n for stop in stops for n in range(1, len(stop)) if reply.text[:certain].endswith(stop[:n])]
            certain -= max(starts, default=0)
        new = reply.text[reply.sent : certain]
        reply.sent = max(reply.sent, certain)
        return new
