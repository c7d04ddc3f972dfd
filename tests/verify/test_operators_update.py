"""D2 for whole steps: honest steps of another arithmetic lie under the threshold, cheats above it."""

from __future__ import annotations

import math

import pytest
import torch
from steps import Work

from minga.core.errors import InvalidInput
from minga.verify.grid import Grid
from minga.verify.operators_update import THRESHOLD, is_same_step, update_error

BEFORE = {"w": torch.zeros(4), "n": torch.tensor(3)}
AFTER = {"w": torch.tensor([1.0, 0.0, 0.0, 0.0]), "n": torch.tensor(3)}


def changed(**values: torch.Tensor) -> dict[str, torch.Tensor]:
    return AFTER | values


def test_the_error_is_relative_to_the_update():
    near = changed(w=torch.tensor([1.0, 5e-4, 0.0, 0.0]))
    assert update_error(BEFORE, near, AFTER) == pytest.approx(5e-4)
    assert is_same_step(BEFORE, near, AFTER)
    assert not is_same_step(BEFORE, changed(w=torch.tensor([1.002, 0.0, 0.0, 0.0])), AFTER)
    assert not is_same_step(BEFORE, near, AFTER, threshold=4e-4)


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
    assert update_error(before, grid, plain) < THRESHOLD / 10
    assert update_error(before, half, plain) > THRESHOLD
