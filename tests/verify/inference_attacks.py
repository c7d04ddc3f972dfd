"""Providers who serve something cheaper or other than what was asked for, each as strong as we can make it.

Every one of them commits to its own reply under the tenant's true request, in the right form: only the audit's two
checks are left to find it. `PROMISED` are to be caught; `CURVES` are measured and nothing is promised.

| name           | what the provider does                                                                          |
|----------------|-------------------------------------------------------------------------------------------------|
| other-model    | another training run of the same shape (tiny), every second layer left out (SmolLM2)            |
| int4           | 4-bit weights, a scale for each 64                                                              |
| temperature    | 1.0 instead of 0.8                                                                              |
| greedy         | the likeliest token instead of a drawn one                                                      |
| seed           | a seed of its own                                                                               |
| top-p          | no nucleus instead of 0.95                                                                      |
| truncated      | reads only the last half of the prompt                                                          |
| cached         | the honest reply to the same prompt of an earlier job                                           |
| prefill-replay | int4 weights write with the right seed, the real model prefills the text and makes the evidence |
| padding        | the second half is one token again and again; the real model makes the evidence                 |
| early-stop     | a stop token is put in the middle; the real model makes the evidence                            |
| low-precision  | bfloat16 arithmetic where fp32 is declared (in jobs that declare bf16: fp8 activations)         |
| skipped-layer  | one layer in the middle is left out                                                             |
| swap-midway    | honest for the first half, then int4 writes and makes the evidence                              |
| borrowed       | honest tokens, the evidence of the honest reply to another prompt                               |
| int8, fp8      | 8-bit weights, a scale a row                                                                    |
| warmer         | temperature 0.82 instead of 0.8                                                                 |
| one-token      | one token in the middle is the runner-up, all else is honest                                    |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import inference_models as models
import torch

from minga.verify.inference_prover import draw, generate, prefill, replay
from minga.verify.inference_record import CHUNK, Reply, Request, Sampling
from minga.verify.inference_sampling import margins

DECLARED = Sampling(temperature_milli=800, top_p_milli=950)
ELSEWHERE = "0x" + "ee" * 32


@dataclass
class Stage:
    """The model of the request, and copies of it that are made when they are first needed."""

    name: str
    numerics: str
    real: Any
    other: Callable[[], Any]
    copies: dict[str, Any] = field(default_factory=dict)

    def cheap(self, kind: str) -> Any:
        """A copy: int4, int8, fp8, half, skipped or other."""
        if kind not in self.copies:
            depth = self.real.config.num_hidden_layers
            makers: dict[str, Callable[[], Any]] = {
                "half": lambda: models.without(self.real, list(range(1, depth, 2))),
                "skipped": lambda: models.without(self.real, [depth // 2]),
                "other": self.other,
            }
            self.copies[kind] = makers.get(kind, lambda: models.narrowed(self.real, kind))()
        return self.copies[kind]


def changed(requests: Sequence[Request], **fields: Any) -> list[Request]:
    """The requests with other fields."""
    return [request.model_copy(update=fields) for request in requests]


def write(model: Any, requests: Sequence[Request], begun: Sequence[list[int]], total: int) -> list[list[int]]:
    """Go on from `begun` (equally long) up to `total` tokens with the right seeds, in one batch."""
    done = [list(tokens) for tokens in begun]
    inputs = torch.tensor([[*r.prompt, *tokens] for r, tokens in zip(requests, begun, strict=True)])
    cache: Any = None
    with torch.inference_mode():
        while len(done[0]) < total:
            out = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            drawn = draw(out.logits[:, -1], requests, [request.seed for request in requests], len(done[0]))
            for row, token in enumerate(drawn):
                done[row].append(token)
            inputs = torch.tensor(drawn)[:, None]
    return done


def honest(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    """What was asked for."""
    return generate(stage.real, requests)


def with_copy(kind: str) -> Callable[[Stage, Sequence[Request]], list[Reply]]:
    """Serve a cheaper copy."""
    return lambda stage, requests: generate(stage.cheap(kind), requests)


def other_model(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    return generate(stage.cheap("other"), requests)


def with_sampling(**fields: int) -> Callable[[Stage, Sequence[Request]], list[Reply]]:
    """Draw in another way."""
    sampling = DECLARED.model_copy(update=fields)
    return lambda stage, requests: generate(stage.real, changed(requests, sampling=sampling))


def elsewhere(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    """The seed of another beacon: a seed of one's own, or a reply that was kept from an earlier job."""
    return generate(stage.real, changed(requests, beacon=ELSEWHERE))


def cached(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    return generate(stage.real, changed(requests, job=ELSEWHERE, index=7))


def truncated(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    return generate(stage.real, [r.model_copy(update={"prompt": r.prompt[len(r.prompt) // 2 :]}) for r in requests])


def prefill_replay(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    tokens = write(stage.cheap("int4"), requests, [[] for _ in requests], requests[0].tokens_max)
    return [replay(stage.real, request, found) for request, found in zip(requests, tokens, strict=True)]


def padding(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    half = requests[0].tokens_max // 2
    begun = write(stage.real, requests, [[] for _ in requests], half)
    return [
        replay(stage.real, request, [*found, *[found[-1]] * (request.tokens_max - half)])
        for request, found in zip(requests, begun, strict=True)
    ]


def early_stop(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    begun = write(stage.real, requests, [[] for _ in requests], requests[0].tokens_max // 2)
    ends = [[*found, request.stop[0]] for request, found in zip(requests, begun, strict=True)]
    cut = [tokens[: tokens.index(tokens[-1]) + 1] for tokens in ends]
    return [replay(stage.real, request, tokens) for request, tokens in zip(requests, cut, strict=True)]


def low_precision(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    if stage.numerics == "fp32":
        if "bf16" not in stage.copies:
            import copy

            stage.copies["bf16"] = copy.deepcopy(stage.real).to(torch.bfloat16)
        return generate(stage.copies["bf16"], requests)
    handles = [
        part.register_forward_pre_hook(lambda module, inputs: (_fp8(inputs[0]),))
        for layer in stage.real.model.layers
        for part in layer.modules()
        if isinstance(part, torch.nn.Linear)
    ]
    try:
        return generate(stage.real, requests)
    finally:
        for handle in handles:
            handle.remove()


def _fp8(values: torch.Tensor) -> torch.Tensor:
    top = values.abs().amax(-1, keepdim=True).clamp(min=1e-12).float()
    return ((values.float() * 448 / top).to(torch.float8_e4m3fn).float() * top / 448).to(values.dtype)


def swap_midway(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    total = requests[0].tokens_max
    half = total // 2 // CHUNK * CHUNK
    begun = generate(stage.real, changed(requests, tokens_max=half))
    tokens = write(stage.cheap("int4"), requests, [reply.tokens for reply in begun], total)
    made = [replay(stage.cheap("int4"), request, found) for request, found in zip(requests, tokens, strict=True)]
    return [
        late.model_copy(update={"chunks": [*early.chunks, *late.chunks[half // CHUNK :]]})
        for early, late in zip(begun, made, strict=True)
    ]


def borrowed(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    replies = generate(stage.real, requests)
    return [reply.model_copy(update={"chunks": replies[at - 1].chunks}) for at, reply in enumerate(replies)]


def one_token(stage: Stage, requests: Sequence[Request]) -> list[Reply]:
    middle = requests[0].tokens_max // 2
    begun = write(stage.real, requests, [[] for _ in requests], middle)
    for request, tokens in zip(requests, begun, strict=True):
        logits = prefill(stage.real, request.prompt, tokens)[1][-1]
        tokens[-1] = runner_up(logits, request, middle - 1, tokens[-1])
    tokens = write(stage.real, requests, begun, requests[0].tokens_max)
    return [replay(stage.real, request, found) for request, found in zip(requests, tokens, strict=True)]


def runner_up(logits: torch.Tensor, request: Request, index: int, best: int) -> int:
    """The token with the smallest margin but `best`."""
    likely = [int(token) for token in logits.topk(64).indices if int(token) != best]
    one = logits[None]
    return min(likely, key=lambda token: margins(one, request.sampling, request.seed, index, [token], 0.0)[0])


Attack = Callable[[Stage, Sequence[Request]], list[Reply]]

PROMISED: dict[str, Attack] = {
    "other-model": other_model,
    "int4": with_copy("int4"),
    "temperature": with_sampling(temperature_milli=1000),
    "greedy": with_sampling(temperature_milli=0),
    "seed": elsewhere,
    "top-p": with_sampling(top_p_milli=1000),
    "truncated": truncated,
    "cached": cached,
    "prefill-replay": prefill_replay,
    "padding": padding,
    "early-stop": early_stop,
    "low-precision": low_precision,
    "skipped-layer": with_copy("skipped"),
    "swap-midway": swap_midway,
    "borrowed": borrowed,
}
CURVES: dict[str, Attack] = {
    "int8": with_copy("int8"),
    "fp8": with_copy("fp8"),
    "warmer": with_sampling(temperature_milli=820),
    "one-token": one_token,
}
