"""The provider's side: a loop that generates with a key-value cache and keeps the evidence as it goes.

    replies = generate(model, [request, …])         # any CausalLM of transformers
    root(request, replies[0])                       # what is committed

What an engine of another kind needs is smaller: `choose` on the logits of each step, and a `Record` that is told each
token with its hidden state or its log-probability.

Evidence is taken where the model itself has it: the input of its output embeddings (the last hidden state after the
last norm) and the logits that it returns, so scaling and soft-capping of logits are in them. Costs: one hash of 8 bytes
a vocabulary entry, one sort of the likeliest 512 tokens, and 3 ms a chunk. Idempotent: the same model, request and
hardware give the same reply.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from minga.core.errors import InternalError, InvalidInput
from minga.verify.inference_fingerprint import fingerprint
from minga.verify.inference_record import CHUNK, LOGPROB_SCALE, Reply, Request, first_leaf, next_leaf
from minga.verify.inference_sampling import choose


class Record:
    """One reply while it grows. `leaves` is the commitment so far; a chunk is in it as soon as it is full."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.leaves = [first_leaf(request)]
        self._chunks: list[bytes] = []
        self._rows: list[torch.Tensor] = []

    @property
    def done(self) -> bool:
        """Whether the reply has its last token."""
        stopped = bool(self.tokens) and self.tokens[-1] in self.request.stop
        return stopped or len(self.tokens) >= self.request.tokens_max

    def add(self, token: int, hidden: torch.Tensor, logits: torch.Tensor) -> None:
        """Take the next token with the hidden state (width,) and the logits (vocabulary,) that it was drawn from."""
        self.tokens.append(token)
        if self.request.evidence == "activations":
            self._rows.append(hidden.detach())
        else:
            self._rows.append(torch.log_softmax(logits.detach().float(), -1)[token])
        if len(self._rows) == CHUNK or self.done:
            self._close()

    def reply(self) -> Reply:
        """The reply, as far as it goes."""
        if self._rows:
            self._close()
        finish: Literal["stop", "length"] = "stop" if self.tokens[-1] in self.request.stop else "length"
        return Reply(tokens=self.tokens, finish=finish, chunks=[chunk.hex() for chunk in self._chunks])

    def _close(self) -> None:
        rows = torch.stack(self._rows)
        chunk = fingerprint(rows) if self.request.evidence == "activations" else logprob_bytes(rows)
        self._chunks.append(chunk)
        self.leaves.append(next_leaf(self.leaves[-1], self.tokens[len(self.tokens) - len(rows) :], chunk))
        self._rows = []


def logprob_bytes(values: torch.Tensor) -> bytes:
    """Log-probabilities (tokens,) as 2 bytes each; see `LOGPROB_SCALE`."""
    steps = (-values.double() * LOGPROB_SCALE).round().clamp(0, 65_535).long().tolist()
    return struct.pack(f"<{len(steps)}H", *steps)


@contextmanager
def tapped(model: Any) -> Iterator[list[torch.Tensor]]:
    """While it is open, the input of the model's output embeddings is appended to the list at each call."""
    seen: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    if head is None:
        raise InvalidInput("the model has no output embeddings", "use a model that predicts tokens")
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def generate(model: Any, requests: Sequence[Request]) -> list[Reply]:
    """Reply to requests of equally long prompts in one batch; the model is in evaluation mode.

    Raises:
        InvalidInput: no request, or prompts of several lengths.
    """
    if not requests or len({len(request.prompt) for request in requests}) != 1:
        raise InvalidInput("a batch has prompts of one length", "group the requests by the length of their prompts")
    records = [Record(request) for request in requests]
    inputs = torch.tensor([request.prompt for request in requests], device=model.device)
    seeds = [request.seed for request in requests]
    cache: Any = None
    step = 0
    with torch.inference_mode(), tapped(model) as seen:
        while not all(record.done for record in records):
            out = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            hidden, logits = seen.pop()[:, -1].cpu(), out.logits[:, -1].cpu()
            drawn = draw(logits, requests, seeds, step)
            for row, record in enumerate(records):
                if not record.done:
                    record.add(drawn[row], hidden[row], logits[row])
            inputs, step = torch.tensor(drawn, device=model.device)[:, None], step + 1
    return [record.reply() for record in records]


def draw(logits: torch.Tensor, requests: Sequence[Request], seeds: Sequence[bytes], step: int) -> list[int]:
    """Token number `step` of each reply, from logits (requests, vocabulary), each in its request's way of sampling."""
    drawn = [0] * len(requests)
    for sampling in {request.sampling for request in requests}:
        rows = [row for row, request in enumerate(requests) if request.sampling == sampling]
        tokens = choose(logits[rows], sampling, [seeds[row] for row in rows], [step] * len(rows))
        for row, token in zip(rows, tokens, strict=True):
            drawn[row] = token
    return drawn


def prefill(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (tokens, width) and logits (tokens, vocabulary) from which each of `tokens` had to be drawn.

    Raises:
        InternalError: a logit is not a number, so that nothing could be concluded from it.
    """
    inputs = torch.tensor([[*prompt, *tokens[:-1]]], device=model.device)
    with torch.inference_mode(), tapped(model) as seen:
        out = model(input_ids=inputs, use_cache=False, logits_to_keep=len(tokens))
    if bool(torch.isnan(out.logits).any()):
        raise InternalError("a logit is not a number", "compute in a wider type")
    return seen[0][0, -len(tokens) :].cpu(), out.logits[0, -len(tokens) :].cpu()


def replay(model: Any, request: Request, tokens: Sequence[int]) -> Reply:
    """A reply with given tokens and the evidence of a prefill: what an audit expects, and what a cheat would replay."""
    hidden, logits = prefill(model, request.prompt, tokens)
    record = Record(request)
    for at, token in enumerate(tokens):
        record.add(token, hidden[at], logits[at])
    return record.reply()
