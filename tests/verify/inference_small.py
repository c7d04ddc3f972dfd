"""A Llama of 30,000 parameters with random weights, and requests to it: for tests that need a model, not a good one."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from minga.verify.inference_record import Request, Sampling

VOCABULARY, WIDTH = 96, 32


@cache
def small(seed: int = 1, dtype: torch.dtype = torch.float32) -> Any:
    """The model; wide initial weights, so that it is not indifferent between tokens."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.4, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(shape).to(dtype).eval()


def request(**fields: Any) -> Request:
    """A request for 40 tokens; `fields` change it."""
    usual: dict[str, Any] = {
        "model": "0x" + "11" * 32,
        "prompt": [5, 7, 11, 13],
        "sampling": Sampling(temperature_milli=800, top_p_milli=950),
        "tokens_max": 40,
        "job": "0x" + "22" * 32,
        "beacon": "0x" + "33" * 32,
    }
    return Request(**{**usual, **fields})
