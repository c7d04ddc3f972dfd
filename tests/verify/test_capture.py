"""What decides the next step is taken, all of it, and comes back exactly."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from trained import Odd, Odds

from minga.core.errors import InvalidInput
from minga.verify.capture import Subject, capture_rng, restore_rng
from minga.verify.state import read_state, state_hash, write_state


def saved(subject: Subject, path, step: int = 0):
    """The state as somebody else reads it."""
    write_state(path, subject.capture(step))
    return read_state(path)


def test_a_restored_training_goes_on_as_if_nothing_had_been(tmp_path):
    one = Odds()
    for step in range(5):
        one.step(step)
    state = saved(one.subject(), tmp_path / "five.state", 5)
    for step in range(5, 9):
        one.step(step)
    expected = state_hash(one.subject().capture(9))

    other = Odds(seed=77)
    subject = other.subject()
    held = other.extra["average"], other.model.first.weight, other.extra["losses"]
    assert subject.restore(state) == 5
    assert state_hash(subject.capture(5)) == state_hash(state)
    assert other.model.second.weight is other.model.first.weight
    assert held[0] is other.extra["average"]
    assert held[1] is other.model.first.weight
    assert held[2] is other.extra["losses"]
    for step in range(5, 9):
        other.step(step)
    assert state_hash(subject.capture(9)) == expected
    assert other.extra["losses"] == one.extra["losses"]


CHANGES = {
    "a weight": lambda one: one.model.last.weight.data.add_(1e-6),
    "a buffer that no checkpoint has": lambda one: one.model.scale.add_(1e-6),
    "batch statistics": lambda one: one.model.norm.running_var.add_(1e-6),
    "extra state": lambda one: setattr(one.model, "calls", 99),
    "a frozen layer": lambda one: one.model.first.bias.requires_grad_(False),
    "a mode": lambda one: one.model.drop.eval(),
    "a moment": lambda one: one.optimizer.state[one.model.last.weight]["exp_avg"].add_(1e-9),
    "an optimiser's count": lambda one: one.optimizer.state[one.model.last.weight]["step"].add_(1),
    "a rate": lambda one: one.optimizer.param_groups[0].update(lr=0.5),
    "a decay": lambda one: one.optimizer.param_groups[0].update(weight_decay=0.5),
    "a dropped moment": lambda one: one.optimizer.state.pop(one.model.last.weight),
    "a scheduler": lambda one: setattr(one.scheduler, "last_epoch", 40),
    "Python's dice": lambda one: random.random(),
    "numpy's dice": lambda one: np.random.rand(),
    "PyTorch's dice": lambda one: torch.rand(1),
    "a generator": lambda one: one.extra["numpy"].random(),
    "an old generator": lambda one: one.extra["old"].rand(),
    "PyTorch's generator": lambda one: torch.rand(1, generator=one.extra["torch"]),
    "a list": lambda one: one.extra["losses"].append(0.0),
    "a map": lambda one: one.extra["named"].update(best=0.0),
    "an array": lambda one: one.extra["array"].__setitem__(1, 5.0),
    "a number": lambda one: one.extra.update(factor=2.0),
    "an object": lambda one: setattr(one.extra["counter"], "count", 7),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_part_counts_and_comes_back(name, tmp_path):
    one = Odds()
    one.step(0)
    subject = one.subject()
    state = saved(subject, tmp_path / "one.state", 1)
    before = state_hash(subject.capture(1))
    CHANGES[name](one)
    assert state_hash(subject.capture(1)) != before
    subject.restore(state)
    assert state_hash(subject.capture(1)) == before


def test_the_step_counts():
    subject = Odds().subject()
    assert state_hash(subject.capture(1)) != state_hash(subject.capture(2))


def test_gradients_do_not_count_and_are_cleared(tmp_path):
    one = Odds()
    subject = one.subject()
    state = saved(subject, tmp_path / "one.state")
    before = state_hash(subject.capture(0))
    one.model.last.weight.grad = torch.ones_like(one.model.last.weight)
    assert state_hash(subject.capture(0)) == before
    subject.restore(state)
    assert one.model.last.weight.grad is None


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), amsgrad=True),
        lambda p: torch.optim.AdamW(p, fused=True),
        lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
        lambda p: torch.optim.Adagrad(p),
        lambda p: torch.optim.NAdam(p),
        lambda p: torch.optim.Rprop(p),
        lambda p: torch.optim.Adafactor(p),
        lambda p: torch.optim.LBFGS(p, max_iter=2),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "rprop", "adafactor", "lbfgs"],
)
def test_pytorchs_optimisers_come_back(make, tmp_path):
    def begin(seed):
        torch.manual_seed(seed)
        model = nn.Linear(6, 4)
        return model, make(list(model.parameters()))

    def step(model, optimizer):
        x = torch.randn(5, 6)

        def closure():
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)

    model, optimizer = begin(1)
    for _ in range(3):
        step(model, optimizer)
    state = saved(Subject(model, optimizer), tmp_path / "one.state", 3)
    for _ in range(2):
        step(model, optimizer)
    expected = state_hash(Subject(model, optimizer).capture(5))
    model, optimizer = begin(2)
    subject = Subject(model, optimizer)
    subject.restore(state)
    assert state_hash(subject.capture(3)) == state_hash(state)
    for _ in range(2):
        step(model, optimizer)
    assert state_hash(subject.capture(5)) == expected


class FullMoments(torch.optim.Optimizer):
    """Momentum in float32 for weights in bfloat16, which PyTorch's own loading would round."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                moment = state.setdefault("moment", torch.zeros_like(parameter, dtype=torch.float32))
                moment.mul_(0.9).add_(parameter.grad.float())
                parameter.add_(moment.to(parameter.dtype), alpha=-group["lr"])


def test_moments_keep_their_own_precision(tmp_path):
    model = nn.Linear(4, 4, dtype=torch.bfloat16)
    optimizer = FullMoments(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.randn(2, 4, dtype=torch.bfloat16)) ** 2).mean().backward()
        optimizer.step()
    subject = Subject(model, optimizer)
    state = saved(subject, tmp_path / "one.state")
    other = nn.Linear(4, 4, dtype=torch.bfloat16)
    restored = Subject(other, FullMoments(other.parameters()))
    restored.restore(state)
    assert state_hash(restored.capture(0)) == state_hash(subject.capture(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4]),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.ConstantLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
            milestones=[3],
        ),
    ],
    ids=["onecycle", "multistep", "lambda", "sequential"],
)
def test_pytorchs_schedulers_come_back(make, tmp_path):
    def begin():
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
        return Subject(model, optimizer, make(optimizer)), optimizer

    def step(subject, optimizer):
        optimizer.step()
        subject.schedulers["0"].step()

    one, optimizer = begin()
    for _ in range(3):
        step(one, optimizer)
    state = saved(one, tmp_path / "one.state", 3)
    for _ in range(3):
        step(one, optimizer)
    other, optimizer = begin()
    other.restore(state)
    assert state_hash(other.capture(3)) == state_hash(state)
    for _ in range(3):
        step(other, optimizer)
    assert state_hash(other.capture(6)) == state_hash(one.capture(6))


def test_several_models_are_told_apart(tmp_path):
    pair = {"left": nn.Linear(2, 2), "right": nn.Linear(2, 2)}
    subject = Subject(pair, [torch.optim.SGD(pair["left"].parameters(), lr=0.1)])
    before = state_hash(subject.capture(0))
    state = saved(subject, tmp_path / "one.state")
    swapped = Subject({"left": pair["right"], "right": pair["left"]}, list(subject.optimizers.values()))
    assert state_hash(swapped.capture(0)) != before
    pair["left"].weight.data.zero_()
    subject.restore(state)
    assert state_hash(subject.capture(0)) == before


def test_a_tensor_that_the_job_replaces_is_read_from_the_map(tmp_path):
    extra = {"latents": torch.zeros(2), "taken": np.zeros(2)}
    subject = Subject(extra=extra)
    extra["latents"], extra["taken"] = torch.ones(3), np.ones(4)
    state = saved(subject, tmp_path / "one.state")
    extra["latents"], extra["taken"] = torch.zeros(2), np.zeros(2)
    subject.restore(state)
    assert torch.equal(extra["latents"], torch.ones(3))
    assert extra["taken"].tolist() == [1.0] * 4


def spoilt(state, *path_and_value):
    *path, name, value = path_and_value
    inner = state
    for key in path:
        inner = inner[key]
    inner[name] = value
    return state


SPOILT = {
    "no state": lambda state: [state],
    "another format": lambda state: spoilt(state, "format", "other"),
    "a step that is none": lambda state: spoilt(state, "step", "5"),
    "other models": lambda state: spoilt(state, "models", {}),
    "another layer": lambda state: spoilt(state, "models", "0", "parameters", "more", torch.zeros(1)),
    "another shape": lambda state: spoilt(state, "models", "0", "parameters", "last.bias", torch.zeros(2)),
    "another type": lambda state: spoilt(state, "models", "0", "parameters", "last.bias", torch.zeros(1).double()),
    "text for a tensor": lambda state: spoilt(state, "models", "0", "parameters", "last.bias", "text"),
    "a missing extra": lambda state: spoilt(state, "extra", {}),
    "another extra": lambda state: spoilt(state, "extra", "numpy", {"generator": {"bit_generator": "PCG65"}}),
    "no moments": lambda state: spoilt(state, "optimizers", "0", {"state": {}}),
    "dice of nobody": lambda state: spoilt(state, "rng", "python", {"version": 3, "words": [], "gauss": None}),
    "short dice": lambda state: spoilt(state, "rng", "torch", torch.zeros(3, dtype=torch.uint8)),
    "accelerators that are not here": lambda state: spoilt(state, "rng", "cuda", [torch.zeros(1)] * 99),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_state_of_something_else_is_refused(name, tmp_path):
    one = Odds()
    one.step(0)
    state = saved(one.subject(), tmp_path / "one.state", 1)
    with pytest.raises(InvalidInput):
        Odds(1).subject().restore(SPOILT[name](state))


def test_dice_that_nobody_seeded_or_used_are_no_part_of_a_state(monkeypatch):
    """Two processes of one job begin with other secrets; that alone must not make their states differ."""
    before = np.random.get_bit_generator()
    hashes = set()
    try:
        for _ in range(2):
            np.random.set_bit_generator(np.random.MT19937())
            random.seed()
            monkeypatch.setattr("minga.PYTHON_DICE", random.getstate())
            state = capture_rng()
            assert state["python"] is state["numpy"] is None
            hashes.add(state_hash(state))
            restore_rng(state)
            assert state_hash(capture_rng()) in hashes
        assert len(hashes) == 1
        np.random.rand()
        random.random()
        state = capture_rng()
        assert state["python"] is not None
        assert state["numpy"] is not None
        expected = random.random(), np.random.rand()
        restore_rng(state)
        assert (random.random(), np.random.rand()) == expected
        np.random.seed(3)
        assert capture_rng()["numpy"] is not None, "seeded, and not used yet"
    finally:
        np.random.set_bit_generator(before)


def test_dice_alone_come_back():
    state = capture_rng()
    expected = random.random(), np.random.rand(), torch.rand(1).item(), random.gauss()
    restore_rng(state)
    assert (random.random(), np.random.rand(), torch.rand(1).item(), random.gauss()) == expected


def test_a_half_used_pair_of_gauss_comes_back():
    random.seed(0)
    random.gauss(0, 1)
    state = capture_rng()
    assert state["python"]["gauss"] is not None
    expected = random.gauss(0, 1)
    restore_rng(state)
    assert random.gauss(0, 1) == expected


def test_an_odd_model_is_odd():
    """The model of these tests has what they say it has."""
    model = Odd()
    assert "scale" not in model.state_dict()
    assert len(list(model.parameters())) == 7
