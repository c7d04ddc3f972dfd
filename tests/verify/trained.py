"""Small trainings for the tests of traces: every kind of thing that a state can hold is in the first of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from minga.verify.capture import Subject
from minga.verify.trace import Settings, TracedRun


class Odd(nn.Module):
    """Weights shared by two layers, a buffer that no checkpoint has, dropout, batch statistics, extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.drop = nn.Dropout(0.1)
        self.last = nn.Linear(8, 1)
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.calls = 0

    def get_extra_state(self) -> Any:
        return {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = state["calls"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.scale.mul_(0.999)
        hidden = self.drop(torch.tanh(self.second(self.norm(self.first(x)))))
        return self.last(hidden) * self.scale * (1 + 0.001 * self.calls)


class Counter:
    """Something of the job's own with `state_dict`."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Odds:
    """A training whose next step depends on everything that can be registered."""

    def __init__(self, seed: int = 0) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.model = Odd()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 50)
        self.extra: dict[str, Any] = {
            "numpy": np.random.default_rng(seed),
            "old": np.random.RandomState(seed),
            "torch": torch.Generator().manual_seed(seed),
            "losses": [],
            "named": {"best": 9.0},
            "average": torch.zeros(8),
            "array": np.zeros(3),
            "factor": 1.0,
            "counter": Counter(),
        }

    def subject(self) -> Subject:
        return Subject(self.model, self.optimizer, self.scheduler, self.extra)

    def step(self, step: int) -> None:
        """One step: every die is thrown, every extra is changed, a layer is frozen on the way."""
        extra = self.extra
        dice = random.random() + np.random.rand() + extra["numpy"].random() + extra["old"].rand()
        x = torch.randn(4, 8) + torch.rand(4, 8, generator=extra["torch"]) * dice + extra["average"]
        loss = ((self.model(x) - x.sum(1, keepdim=True)) ** 2).mean() * extra["factor"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        extra["losses"].append(loss.item())
        extra["named"]["best"] = min(extra["named"]["best"], loss.item())
        extra["average"].mul_(0.9).add_(x.mean(0).detach(), alpha=0.1 + extra["named"]["best"] / 100)
        extra["array"] += len(extra["losses"]) + extra["counter"].count
        extra["factor"] = extra["factor"] * 0.99 + float(extra["array"][0]) * 1e-6
        extra["counter"].count += 1
        if step == 6:
            self.model.second.bias.requires_grad_(False)
            self.model.drop.eval()

    def train(self, settings: Settings, steps: int = 12, stop: int | None = None) -> None:
        """Train as a job does; `stop` leaves the loop after that step."""
        with TracedRun(self.subject(), settings) as run:
            for step in run.steps(steps):
                self.step(step)
                if step == stop:
                    break


def traced(folder: Path, train: Callable[[Settings], Any], every: int = 1, keep: int = 4) -> Settings:
    """Train once, traced into `folder`."""
    settings = Settings(folder, every=every, keep=keep)
    train(settings)
    return settings
