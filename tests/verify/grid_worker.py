"""Trains three small models and prints what came of it, as JSON: one machine of `test_grid_machines`.

    python grid_worker.py STEPS [--ordinary] [--seed N] [--models llama,cnn,mlp]

Initial weights, data and dropout come from the grid's own random numbers in both modes, so that two ordinary runs
differ by their arithmetic alone. Hashes are over parameters and the optimiser's moments after each step.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor, nn

from minga.verify.grid import Grid

BATCH, PERIOD = 8, 200
Loss = Callable[[int], Tensor]


def llama() -> tuple[nn.Module, Loss]:
    """A transformer of transformers' Llama kind, with grouped keys, over sequences that count modulo 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=32, num_key_value_heads=2, max_position_embeddings=16, **shape)
    model = LlamaForCausalLM(config)
    draws = torch.Generator().manual_seed(2)

    def loss(step: int) -> Tensor:
        tokens = torch.randint(0, 4, (BATCH, 16), generator=draws).cumsum(1) % 32
        return model(input_ids=tokens, labels=tokens).loss

    return model, loss


def images() -> tuple[Tensor, Tensor]:
    """Noise with a bright row that says its class."""
    labels = torch.arange(16) % 8
    pictures = torch.rand(16, 1, 8, 8) * 0.5
    pictures[torch.arange(16), 0, labels] += 1
    return pictures, labels


def cnn() -> tuple[nn.Module, Loss]:
    """Convolutions, batch norm, pooling, GELU, dropout, layer norm."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(32),
        nn.Linear(32, 8),
    )  # fmt: skip
    pictures, labels = images()

    def loss(step: int) -> Tensor:
        return nn.functional.cross_entropy(model(pictures), labels)

    return model, loss


def mlp() -> tuple[nn.Module, Loss]:
    """Wide enough that PyTorch splits its loops over threads."""
    model = nn.Sequential(nn.Linear(64, 320), nn.Tanh(), nn.Linear(320, 64), nn.SiLU(), nn.Linear(64, 1))
    points = torch.randn(128, 64)
    wanted = points[:, :1] * points[:, 1:2]

    def loss(step: int) -> Tensor:
        return nn.functional.mse_loss(model(points), wanted)

    return model, loss


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """BLAKE3 over parameters, buffers and moments."""
    hasher = blake3()
    for value in model.state_dict().values():
        hasher.update(value.detach().contiguous().numpy().tobytes())
    for parameter in model.parameters():
        for name, value in sorted(optimizer.state.get(parameter, {}).items()):
            hasher.update(name.encode() + value.numpy().tobytes())
    return hasher.hexdigest()


def train(build: Callable[[], tuple[nn.Module, Loss]], steps: int, seed: int, exact: bool) -> dict[str, Any]:
    """Losses and hashes of one run of AdamW with a cosine schedule and clipped gradients."""
    with Grid():
        torch.manual_seed(seed)
        model, loss = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, PERIOD)
    losses, hashes = [], [digest(model, optimizer)]
    with Grid() if exact else nullcontext():
        for step in range(steps):
            optimizer.zero_grad()
            value = loss(step)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(value.item())
            hashes.append(digest(model, optimizer))
    return {"losses": losses, "hashes": hashes}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=int)
    parser.add_argument("--ordinary", type=int, default=0, help="then so many ordinary steps, to compare with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default="llama,cnn,mlp")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found: dict[str, Any] = {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    for name in given.models.split(","):
        build = {"llama": llama, "cnn": cnn, "mlp": mlp}[name]
        found[name] = {
            "grid": train(build, given.steps, given.seed, True),
            "ordinary": train(build, given.ordinary, given.seed, False),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
