"""A tiny training, and every way of cheating at it that the campaign knows.

The job is a language model of 1,600 parameters on a made text: AdamW, warm-up, clipping that always bites, dropout,
batches from a generator of its own; tokens are read through a table that is not trained. `Cheat.at` is the first step
that is not done as ordered; `CHEATS` says which go on from there. What is committed instead of a computation (old runs,
copied roots) is in `campaign_training`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from minga.verify.capture import Subject
from minga.verify.trace import Settings, TracedRun

STEPS = 200
BATCH, CONTEXT, VOCABULARY, WIDTH = 16, 8, 16, 8
LEARNING_RATE = 1e-2
CLIP = 0.05

CHEATS = {
    "skipped step": False,
    "noise on the update": False,
    "half batch": True,
    "other learning rate": True,
    "wrong data": False,
    "frozen layer": True,
    "low precision": True,
    "random drift": True,
    "dropped optimiser state": False,
    "poisoned label": False,
    "dropped clipping": True,
    "dropped dropout": True,
    "dropped weight decay": True,
    "stopped early": True,
}
"""Kind: whether it goes on after its first step."""


@dataclass(frozen=True)
class Cheat:
    """One way of cheating, from step `at` (counted from 0) on."""

    kind: str
    at: int

    def on(self, step: int) -> bool:
        """Whether `step` is done otherwise than ordered."""
        return step == self.at or (step > self.at and CHEATS[self.kind])


@cache
def text(which: int = 0) -> np.ndarray:
    """A made text of 4,000 tokens: a random walk with memory, so that there is something to learn."""
    dice = np.random.default_rng(1000 + which)
    table = dice.integers(0, VOCABULARY, (VOCABULARY, 4))
    tokens = [0]
    for pick in dice.integers(0, 4, 3999):
        tokens.append(int(table[tokens[-1], pick]))
    return np.array(tokens, dtype=np.int64)


@cache
def table() -> np.ndarray:
    """What stands for each token: float32, shape (VOCABULARY, WIDTH)."""
    return np.random.default_rng(7).normal(size=(VOCABULARY, WIDTH)).astype(np.float32)


class Tiny:
    """The training; `cheat` is what its provider does instead."""

    def __init__(self, seed: int, cheat: Cheat | None = None) -> None:
        import random

        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.cheat = cheat
        first, last = nn.Linear(CONTEXT * WIDTH, 20, bias=False), nn.Linear(20, VOCABULARY, bias=False)
        self.model = nn.Sequential(first, nn.Tanh(), nn.Dropout(0.1), last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.1, fused=True)
        self.batches = np.random.default_rng(seed)

    def subject(self) -> Subject:
        """What decides the next step."""
        return Subject(self.model, self.optimizer, extra={"batches": self.batches})

    def train(self, settings: Settings, steps: int = STEPS) -> None:
        """Train as the job does."""
        with TracedRun(self.subject(), settings) as run:
            for step in run.steps(steps):
                self.step(step)

    def batch(self, cheating: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Contexts and the tokens after them."""
        tokens = text(1 if cheating == "wrong data" else 0)
        starts = self.batches.integers(0, len(tokens) - CONTEXT, size=BATCH)
        x = torch.from_numpy(table()[tokens[starts[:, None] + np.arange(CONTEXT)]].reshape(BATCH, -1))
        y = torch.from_numpy(tokens[starts + CONTEXT])
        if cheating == "poisoned label":
            y[0] = (y[0] + 1) % VOCABULARY
        half = BATCH // 2 if cheating == "half batch" else BATCH
        return x[:half], y[:half]

    def step(self, step: int) -> None:
        """One step, as ordered or not."""
        cheating = self.cheat.kind if self.cheat is not None and self.cheat.on(step) else ""
        if cheating == "stopped early":
            return
        x, y = self.batch(cheating)
        rate = LEARNING_RATE * min(1.0, (step + 1) / 20) * (1.01 if cheating == "other learning rate" else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            group["weight_decay"] = 0.0 if cheating == "dropped weight decay" else 0.1
        if cheating == "dropped optimiser state":
            self.optimizer.state.clear()
        self.model[2].train(cheating != "dropped dropout")
        low = torch.autocast("cpu", torch.bfloat16) if cheating == "low precision" else nullcontext()
        with low:
            loss = functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        if cheating != "dropped clipping":
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if cheating == "frozen layer":
            self.model[0].weight.grad = None
        if cheating != "skipped step":
            self.optimizer.step()
        self.model[2].train()
        self._disturb(cheating, step)

    def _disturb(self, cheating: str, step: int) -> None:
        """Changes of the weights after the update, as small as they can be."""
        weight: Any = self.model[3].weight.data
        if cheating == "noise on the update":
            noise = np.random.default_rng(step).normal(0, 1e-6, weight.shape)
            weight += torch.from_numpy(noise.astype(np.float32))
        if cheating == "random drift":  # the lowest bit of one weight
            where = int(np.random.default_rng(step).integers(weight.numel()))
            weight.view(torch.int32).view(-1)[where] ^= 1
