"""D2 for whole steps: honest steps of another arithmetic lie under the threshold, cheats above it."""

from __future__ import annotations

import math

import pytest
import torch
from steps import Work

from minga.core.errors import InvalidInput
from minga.verify.grid import Grid
from minga.verify.operators_update import THRESHOLD, groups_of, is_same_step, step_error, update_error

BEFORE = {"w": torch.zeros(4), "n": torch.tensor(3)}
AFTER = {"w": torch.tensor([1.0, 0.0, 0.0, 0.0]), "n": torch.tensor(3)}


def changed(**values: torch.Tensor) -> dict[str, torch.Tensor]:
    return AFTER | values


def test_the_error_is_relative_to_the_update():
    near = changed(w=torch.tensor([1.0, THRESHOLD / 2, 0.0, 0.0]))
    assert update_error(BEFORE, near, AFTER) == pytest.approx(THRESHOLD / 2)
    far = changed(w=torch.tensor([1 + 2 * THRESHOLD, 0.0, 0.0, 0.0]))
    assert update_error(BEFORE, far, AFTER) == pytest.approx(2 * THRESHOLD, rel=1e-2)


def test_the_largest_group_counts():
    near, far = (changed(w=torch.tensor([1.0, size * THRESHOLD, 0.0, 0.0])) for size in (0.5, 2))
    before, after = {"parameters": BEFORE, "exp_avg": BEFORE}, {"parameters": AFTER, "exp_avg": AFTER}
    assert step_error(before, after, after)[0] == 0.0
    error, name = step_error(before, {"parameters": near, "exp_avg": far}, after)
    assert (error, name) == (pytest.approx(2 * THRESHOLD), "exp_avg")
    assert is_same_step(before, {"parameters": near, "exp_avg": near}, after)
    assert not is_same_step(before, {"parameters": near, "exp_avg": far}, after)
    assert is_same_step(before, {"parameters": near, "exp_avg": far}, after, limit=3 * THRESHOLD)
    for other in ({}, {"parameters": AFTER}):
        with pytest.raises(InvalidInput, match="groups"):
            step_error(before, other, after)
    with pytest.raises(InvalidInput, match="groups"):
        step_error({}, {}, {})


def test_groups_are_copies_of_what_has_a_parameters_shape():
    work = Work("cnn")
    groups = groups_of(work.model, work.optimizer)
    assert set(groups) == {"parameters", "exp_avg", "exp_avg_sq"}
    assert all(len(group) == len(list(work.model.parameters())) for group in groups.values())
    work.step()
    assert not torch.equal(groups["exp_avg"]["0.weight"], groups_of(work.model, work.optimizer)["exp_avg"]["0.weight"])


def test_nothing_moved_and_what_is_not_finite():
    assert update_error(BEFORE, BEFORE, BEFORE) == 0.0
    assert update_error(BEFORE, AFTER, BEFORE) == math.inf
    assert update_error(BEFORE, BEFORE, AFTER) == 1.0
    for value in (math.nan, math.inf):
        assert update_error(BEFORE, changed(w=torch.full((4,), value)), AFTER) == math.inf
        assert update_error(BEFORE, AFTER, changed(w=torch.full((4,), value))) == math.inf


def test_integers_must_agree_and_states_must_fit():
    assert update_error(BEFORE, changed(n=torch.tensor(4)), AFTER) == math.inf
    for other in ({"w": AFTER["w"]}, changed(w=torch.zeros(5)), changed(w=torch.zeros(4, dtype=torch.float64))):
        with pytest.raises(InvalidInput):
            update_error(BEFORE, other, AFTER)


@pytest.mark.parametrize("kind", ["llama", "cnn"])
def test_the_grid_and_float32_do_the_same_step_and_bf16_does_not(kind):
    work = Work(kind)
    work.rewind()
    before = work.state()
    states = []
    for context in (torch.no_grad, Grid, lambda: torch.autocast("cpu", torch.bfloat16)):
        work.rewind()
        if context is torch.no_grad:
            work.step()
        else:
            with context():
                work.step()
        states.append(work.state())
    plain, grid, half = states
    assert step_error(before, grid, plain)[0] < THRESHOLD / 5
    assert step_error(before, half, plain)[0] > 5 * THRESHOLD
    assert is_same_step(before, grid, plain)


def test_a_thousandth_of_noise_on_the_gradients_shows_in_the_moments():
    work = Work("llama", warm=14)
    work.rewind()
    before = work.state()
    work.step()
    replayed = work.state()
    work.rewind()
    moved = work.optimizer.step

    def noisy() -> None:
        for parameter in work.model.parameters():
            parameter.grad.mul_(1 + 1e-3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        moved()

    work.optimizer.step = noisy
    work.step()
    claimed = work.state()
    assert not is_same_step(before, claimed, replayed)
    assert update_error(before["parameters"], claimed["parameters"], replayed["parameters"]) < 1e-3
