"""Sampling that anybody can do again: the noise follows from a seed, so a token follows from the logits.

In the manner of Token-DiFR (arXiv 2511.20621). With logits l, temperature T and nucleus p, token number i of a reply is
the v of the nucleus with the largest score log p(v) + gᵥ (Gumbel-max), where p = softmax(l / T) and

    gᵥ = −ln(−ln uᵥ),   uᵥ = (word v of BLAKE3(key = seed, i as 8 bytes) as XOF >> 12, plus ½) / 2⁵².

The nucleus holds v when the tokens before it, from the likeliest down, sum to less than p. At temperature 0 the
likeliest token is taken, without noise.

A checker who has nearly the same logits finds nearly the same scores: the *margin* of a token is how far its score is
below the best one, in nats; 0 when it is the best. At the nucleus's edge the benefit of the doubt is the provider's: a
token counts as inside up to p + slack, and its rivals only up to p − slack. Outside, the margin is the cap.

Knows: numbers. Does not know: who drew. Rule: prover and checker call the same functions.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from minga.verify.inference_record import Sampling

CAP = 8.0
"""The largest margin, nats: one impossible token weighs no more than e⁸."""
WIDTHS = (512, 8192)
"""How many of the likeliest tokens are sorted, before all are."""
ROWS = 32
"""Tokens that are judged at once; bounds the memory."""


@dataclass(frozen=True)
class Candidates:
    """Each row's tokens from the likeliest down as far as a nucleus may reach: ids, log p, and the mass before each."""

    ids: torch.Tensor
    logp: torch.Tensor
    before: torch.Tensor


def noise(seed: bytes, index: int, vocabulary: int) -> bytes:
    """The words of token `index` of a reply, 8 bytes for each entry of the vocabulary, little-endian."""
    return blake3(struct.pack("<Q", index), key=seed).digest(length=8 * vocabulary)


def gumbel(words: np.ndarray[Any, np.dtype[np.uint64]]) -> torch.Tensor:
    """Standard Gumbel numbers in float64, −3.6 … 36.7, from words."""
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return torch.from_numpy(-np.log(-np.log(uniform)))


def candidates(logits: torch.Tensor, sampling: Sampling, reach: float) -> Candidates:
    """The likeliest tokens of each row of `logits` (rows, vocabulary) until their mass is `reach`.

    All tokens, unsorted, where the nucleus is off.
    """
    logp = torch.log_softmax(logits.float() / (sampling.temperature_milli / 1000), -1)
    size = logp.shape[1]
    if sampling.top_p_milli == 1000:
        return Candidates(
            torch.arange(size).expand_as(logp), logp.double(), torch.zeros(logp.shape, dtype=torch.float64)
        )
    for width in (*(w for w in WIDTHS if w < size), size):
        values, ids = logp.topk(width)
        mass = values.double().exp()
        total = mass.cumsum(1)
        if width == size or float(total[:, -1].min()) >= reach:
            break
    before = total - mass
    before[:, 0] = 0
    return Candidates(ids, values.double(), before)


def scores(found: Candidates, seeds: Sequence[bytes], indices: Sequence[int], vocabulary: int) -> torch.Tensor:
    """log p + g of each candidate; row r is token `indices[r]` of the reply with `seeds[r]`."""
    drawn = b"".join(noise(seed, index, vocabulary) for seed, index in zip(seeds, indices, strict=True))
    words = np.frombuffer(drawn, dtype="<u8").reshape(len(seeds), vocabulary)
    return found.logp + gumbel(np.take_along_axis(words, found.ids.numpy(), 1))


def choose(logits: torch.Tensor, sampling: Sampling, seeds: Sequence[bytes], indices: Sequence[int]) -> list[int]:
    """The tokens that follow from `logits` (rows, vocabulary); rows are numbered as in `scores`."""
    logits = logits.detach().cpu()
    if sampling.temperature_milli == 0:
        return [int(token) for token in logits.argmax(1)]
    p = sampling.top_p_milli / 1000
    found = candidates(logits, sampling, p)
    kept = scores(found, seeds, indices, logits.shape[1]).masked_fill(found.before >= p, -torch.inf)
    return [int(token) for token in found.ids.gather(1, kept.argmax(1, keepdim=True))[:, 0]]


def margins(
    logits: torch.Tensor, sampling: Sampling, seed: bytes, first: int, tokens: Sequence[int], slack: float
) -> list[float]:
    """How far each of `tokens` is below the choice that `logits` (tokens, vocabulary) give: 0 … CAP nats.

    They are the tokens of one reply from number `first` on; `slack` is as in the module's text.
    """
    found: list[float] = []
    for at in range(0, len(tokens), ROWS):
        rows, some = logits[at : at + ROWS].detach().cpu(), torch.tensor(tokens[at : at + ROWS])[:, None]
        if sampling.temperature_milli == 0:
            below = rows.max(1, keepdim=True).values - rows.gather(1, some)
        else:
            below = _below(rows, sampling, [seed] * len(some), range(first + at, first + at + len(some)), some, slack)
        found += below[:, 0].double().clamp(0, CAP).tolist()
    return found


def _below(
    logits: torch.Tensor, sampling: Sampling, seeds: Sequence[bytes], indices: Sequence[int], tokens: torch.Tensor,
    slack: float,
) -> torch.Tensor:  # fmt: skip
    """Best score of the certain nucleus less the score of `tokens` (rows, 1); infinite outside the possible one."""
    p = sampling.top_p_milli / 1000
    found = candidates(logits, sampling, p + slack)
    scored = scores(found, seeds, indices, logits.shape[1])
    mine = (found.ids == tokens) & ((found.before < p + slack) | (found.before == 0))
    own = scored.masked_fill(~mine, -torch.inf).max(1, keepdim=True).values
    sure = (found.before < p - slack) | (found.before == 0)
    return scored.masked_fill(~sure, -torch.inf).max(1, keepdim=True).values - own
