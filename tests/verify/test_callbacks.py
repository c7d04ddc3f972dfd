"""Loops that are somebody else's: transformers' own Trainer, and Lightning's hooks by their documented names."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from minga.core.errors import JobFailed
from minga.verify.callbacks import LightningTrace, TrainerTrace
from minga.verify.leaves import TraceFacts, read_trace, state_name
from minga.verify.replay import Replayed, collect, prepare, replay_command
from minga.verify.state import read_state
from minga.verify.trace import ReplayDone


class Words(torch.utils.data.Dataset):
    """Sixteen made rows."""

    def __len__(self):
        return 16

    def __getitem__(self, at):
        x = torch.from_numpy(np.random.default_rng(at).normal(size=6).astype(np.float32))
        return {"x": x, "labels": x.sum()}


class Regression(nn.Module):
    """A model as Trainer wants one, with dropout, so that dice matter."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(self, x, labels=None):
        out = self.layers(x).squeeze(-1)
        return {"loss": ((out - labels) ** 2).mean(), "logits": out}


def train_with_transformers(folder, **more) -> None:
    """Two and a half epochs of transformers' own Trainer, shuffled, two batches a step."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate, which is not installed")
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=10,
        learning_rate=1e-2, lr_scheduler_type="cosine", warmup_steps=2, logging_steps=1000, save_strategy="no",
        report_to=[], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=5, **more,
    )  # fmt: skip
    tracer = TrainerTrace()
    trainer = transformers.Trainer(Regression(), arguments, train_dataset=Words(), callbacks=[tracer])
    trainer.train(resume_from_checkpoint=tracer.start(trainer))


def replayed(monkeypatch, command, folder, start, job) -> Replayed:
    """Do a replay in this process, as the variables in `command` ask."""
    prepare(command, folder, start)
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MINGA_REPLAY_DIR", str(folder))
    with pytest.raises(ReplayDone):
        job()
    return collect(command, folder)


@pytest.fixture
def trainers_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGA_TRACE_DIR", str(tmp_path / "trace"))
    monkeypatch.setenv("MINGA_TRACE_KEEP", "1")
    train_with_transformers(tmp_path / "out")
    return tmp_path / "trace"


def test_transformers_trainer_is_traced_and_replayed_from_every_step(trainers_trace, tmp_path, monkeypatch):
    facts, leaves = read_trace(trainers_trace)
    assert facts == TraceFacts(1, "D0", 1, 1, 0, 10, 11)
    assert len(set(leaves)) == 11
    assert read_state(trainers_trace / state_name(4))["step"] == 4
    for after in range(10):
        command = replay_command("", facts, after, min(after + 3, 10), "")
        found = replayed(
            monkeypatch, command, tmp_path / "replay", trainers_trace / state_name(after),
            lambda: train_with_transformers(tmp_path / "again"),
        )  # fmt: skip
        assert list(found.leaves) == leaves[after + 1 : after + 4], f"from step {after}"


def test_a_cheat_at_transformers_trainer_differs_from_its_step_on(trainers_trace, tmp_path, monkeypatch):
    leaves = read_trace(trainers_trace)[1]
    monkeypatch.setenv("MINGA_TRACE_DIR", str(tmp_path / "cheat"))
    step, original = [], torch.nn.utils.clip_grad_norm_

    def clip(*given, **named):
        step.append(1)
        found = original(*given, **named)
        for parameter in given[0] if len(step) == 5 else ():
            parameter.grad.zero_()
            break
        return found

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    train_with_transformers(tmp_path / "out2")
    assert len(step) == 10
    theirs = read_trace(tmp_path / "cheat")[1]
    assert [mine == other for mine, other in zip(leaves, theirs, strict=True)] == [True] * 5 + [False] * 6


def test_transformers_trainer_untraced_is_untouched(tmp_path, monkeypatch):
    monkeypatch.delenv("MINGA_TRACE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    train_with_transformers(tmp_path / "out")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not list(tmp_path.rglob("leaves.bin"))


# -------------------------------------------------------------------------------------------------------- Lightning's


class Loop:
    """Calls the hooks that Lightning's documentation names, in its order; two batches an optimiser step.

    https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.callbacks.Callback.html
    """

    def __init__(self, callback, fail_at: int = -1) -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        self.callback, self.fail_at = callback, fail_at
        self.model = nn.Linear(4, 1)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        self.trainer = SimpleNamespace(
            optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)], global_step=0
        )

    def call(self, hook: str, *given) -> None:
        getattr(self.callback, hook)(self.trainer, self.model, *given)

    def fit(self, steps: int = 6) -> None:
        self.call("setup", "fit")
        for hook in ("on_fit_start", "on_sanity_check_start", "on_sanity_check_end", "on_train_start"):
            self.call(hook)
        self.call("on_train_epoch_start")
        optimizer = self.trainer.optimizers[0]
        for index in range(2 * steps):
            batch = torch.randn(3, 4)
            self.call("on_train_batch_start", batch, index)
            loss = (self.model(batch) ** 2).mean()
            self.call("on_before_backward", loss)
            loss.backward()
            self.call("on_after_backward")
            if index == self.fail_at:
                error = RuntimeError("the job's own mistake")
                self.call("on_exception", error)
                raise error
            if index % 2:
                self.call("on_before_optimizer_step", optimizer)
                optimizer.step()
                self.call("on_before_zero_grad", optimizer)
                optimizer.zero_grad()
                self.trainer.lr_scheduler_configs[0].scheduler.step()
                self.trainer.global_step += 1
            self.call("on_train_batch_end", None, batch, index)
        for hook in ("on_train_epoch_end", "on_train_end", "on_fit_end"):
            self.call(hook)
        self.call("teardown", "fit")


def test_lightnings_hooks_make_a_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGA_TRACE_DIR", str(tmp_path / "trace"))
    Loop(LightningTrace()).fit()
    facts, leaves = read_trace(tmp_path / "trace")
    assert (facts.steps, facts.leaves, len(set(leaves))) == (6, 7, 7)
    command = replay_command("", facts, 3, 5, "", "given")
    start = tmp_path / "trace" / state_name(0)  # not looked at: a replay begins at the beginning
    found = replayed(monkeypatch, command, tmp_path / "replay", start, lambda: Loop(LightningTrace()).fit())
    assert list(found.leaves) == leaves[4:6]


def test_a_failed_step_of_lightnings_is_not_in_the_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGA_TRACE_DIR", str(tmp_path / "whole"))
    Loop(LightningTrace()).fit()
    monkeypatch.setenv("MINGA_TRACE_DIR", str(tmp_path / "failed"))
    with pytest.raises(RuntimeError, match="mistake"):
        Loop(LightningTrace(), fail_at=7).fit()
    facts, leaves = read_trace(tmp_path / "failed")
    assert (facts.steps, leaves) == (3, read_trace(tmp_path / "whole")[1][:4])
    assert not torch.are_deterministic_algorithms_enabled()


def test_lightnings_loop_untraced_is_untouched(tmp_path, monkeypatch):
    monkeypatch.delenv("MINGA_TRACE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    callback = LightningTrace()
    Loop(callback).fit()
    assert callback.state_dict() == {}
    callback.load_state_dict({})
    assert list(tmp_path.iterdir()) == []


def test_a_replay_that_ends_early_is_no_difference(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGA_TRACE_DIR", str(tmp_path / "trace"))
    Loop(LightningTrace()).fit()
    facts, _ = read_trace(tmp_path / "trace")
    command = replay_command("", facts, 0, 6, "", "own")
    with pytest.raises(JobFailed, match="leaves of 6"):
        replayed(monkeypatch, command, tmp_path / "replay", None, lambda: Loop(LightningTrace()).fit(steps=2))


def test_what_is_no_hook_is_no_attribute():
    with pytest.raises(AttributeError):
        _ = TrainerTrace().anything
    assert TrainerTrace().on_evaluate(None, None, None) is None
