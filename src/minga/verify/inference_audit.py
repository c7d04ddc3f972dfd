"""The audit of a reply: one prefill, two checks, one verdict.

| check       | sees                                                                     | is blind to            |
|-------------|--------------------------------------------------------------------------|------------------------|
| tokens      | another seed, temperature, nucleus, prompt or model, a cached reply, a   | what changes no choice |
|             | cheap model whose text the real one only prefills                        |                        |
| fingerprint | another model, prompt or precision, also where the token stayed the same | how tokens were drawn  |

Where an engine shows no activations (llama.cpp), log-probabilities stand in for the fingerprint: a weaker witness, see
docs/inference-audits.md. Both checks are of the same prefill of prompt and reply, so an audit costs one pass over what
the provider generated token by token.

Knows: a model, a request, a stranger's reply, the committed root. Does not know: the provider. Rule: whatever the reply
holds, the answer is a verdict with one reason; a reply that has not the right form does not follow.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minga.core.errors import BadEvidence, InvalidInput
from minga.verify.inference_fingerprint import distance, parse
from minga.verify.inference_fitted import LIMITS
from minga.verify.inference_limits import SLACK, Limits, Scores
from minga.verify.inference_prover import prefill
from minga.verify.inference_record import CHUNK, LOGPROB_SCALE, Reply, Request, opened, root
from minga.verify.inference_sampling import margins


@dataclass(frozen=True)
class Verdict:
    """Whether the reply follows from the request; if not, the reason, and how many tokens showed it (0: its form)."""

    follows: bool
    reason: str = ""
    tokens: int = 0
    scores: Scores | None = None


def audit(model: Any, request: Request, raw: Any, committed: bytes, limits: Limits | None = None) -> Verdict:
    """Check a stranger's reply (JSON) against `request`, with the model that the request names, in its numerics.

    `limits` are those of the request's numerics when not given. Idempotent; blocks for one prefill.

    Raises:
        InvalidInput: the prompt has a token that the model has not, or the model computes in other numerics.
    """
    vocabulary, width = _shape(model, request)
    try:
        reply = Reply.read(raw)
        evidence = opened(request, reply, vocabulary, width)
        if request.evidence == "activations":
            for at, shown in enumerate(evidence):
                parse(shown, reply.rows(at) * width)
        if root(request, reply) != committed:
            raise BadEvidence("the reply is not the one that was committed to", "ask for the committed reply")
    except BadEvidence as error:
        return Verdict(False, error.fact)
    found = score(model, request, reply, evidence)
    crossed = (limits or LIMITS[request.numerics]).crossed(found)
    if crossed is None:
        return Verdict(True, scores=found)
    return Verdict(False, crossed[1], crossed[0], found)


def score(model: Any, request: Request, reply: Reply, evidence: Sequence[bytes]) -> Scores:
    """What differs between the reply and one's own prefill; `evidence` is as `opened` gives it, and parses."""
    hidden, logits = prefill(model, request.prompt, reply.tokens)
    seed, slack = request.seed, SLACK[request.numerics]
    below = tuple(margins(logits, request.sampling, seed, 0, reply.tokens, slack))
    if request.evidence == "logprobs":
        return Scores(below, logprob=_differences(reply, logits, evidence))
    rows = [hidden[CHUNK * at : CHUNK * (at + 1)] for at in range(len(evidence))]
    found = [distance(shown, own) for shown, own in zip(evidence, rows, strict=True)]
    return Scores(below, tuple(float(d.far) for d in found), tuple(d.near for d in found))


def _differences(reply: Reply, logits: torch.Tensor, evidence: Sequence[bytes]) -> tuple[float, ...]:
    """|own − shown| of every token's log-probability, nats; own ones are cut where shown ones are."""
    own = torch.log_softmax(logits.float(), -1)
    shown = [step for raw in evidence for step in struct.unpack(f"<{len(raw) // 2}H", raw)]
    floor = -65_535 / LOGPROB_SCALE
    return tuple(
        abs(max(floor, float(own[at, token])) + steps / LOGPROB_SCALE)
        for at, (token, steps) in enumerate(zip(reply.tokens, shown, strict=True))
    )


def _shape(model: Any, request: Request) -> tuple[int, int]:
    """Vocabulary and width of the model."""
    head = model.get_output_embeddings()
    if head is None:
        raise InvalidInput("the model has no output embeddings", "use a model that predicts tokens")
    vocabulary, width = (int(size) for size in head.weight.shape)
    if max(request.prompt) >= vocabulary:
        raise InvalidInput(f"the prompt has a token that is not below {vocabulary}", "use the model's own tokenizer")
    declared = {"fp32": torch.float32, "bf16": torch.bfloat16}[request.numerics]
    if head.weight.dtype != declared:
        raise InvalidInput(
            f"the model computes in {head.weight.dtype}, the request declares {request.numerics}",
            "load the model in the declared type",
        )
    return vocabulary, width
