"""D2 for a whole step: how far what was claimed lies from what was computed here.

The first question of an audit under D2, before any operator is looked at. A state is looked at in groups: parameters,
first moments, second moments. The *update* is what the step added to a group; its relative error is the L2 norm of the
difference over the norm of the update computed here, and the largest group's counts. Parameters alone are not enough:
after some steps most of AdamW's update comes from earlier gradients, so that a false gradient hardly shows in it, while
the first moment's update is (1 − β)·(gradient − moment) and shows all of it.

`THRESHOLD` is the geometric middle of the largest honest error (7.2e-6 of 72 steps over three machines) and of the
weakest cheat's (1.3e-3) on the seeds 0 … 17 of `benches/bench_determinism.py`, which reports what it does on others.
Does not know: where states come from. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minga.core.errors import InvalidInput

THRESHOLD = 1e-4
State = Mapping[str, Tensor]


def update_error(before: State, claimed: State, replayed: State) -> float:
    """‖claimed − replayed‖ / ‖replayed − before‖ over all floating tensors; infinite where anything is not finite.

    0 when both are equal, also when nothing moved; infinite when nothing should have moved and something did.

    Raises:
        InvalidInput: the states do not have the same names, shapes and types.
    """
    off = moved = 0.0
    if not before.keys() == claimed.keys() == replayed.keys():
        raise InvalidInput("the states do not hold the same tensors", "compare states of the same model")
    for name, start in before.items():
        here, there = replayed[name], claimed[name]
        if not (start.shape == here.shape == there.shape and start.dtype == here.dtype == there.dtype):
            raise InvalidInput(f"{name} has another shape or type", "compare states of the same model")
        if start.is_floating_point():
            wide = here.to(torch.float64)
            off += (there.to(torch.float64) - wide).square().sum().item()
            moved += (wide - start.to(torch.float64)).square().sum().item()
        elif not torch.equal(here, there):
            return math.inf
    if off == 0:
        return 0.0
    return math.sqrt(off / moved) if moved > 0 and math.isfinite(off) else math.inf


def step_error(
    before: Mapping[str, State], claimed: Mapping[str, State], replayed: Mapping[str, State]
) -> tuple[float, str]:
    """The largest `update_error` of any group, and that group's name. Groups as in `groups_of`, or any others.

    Raises:
        InvalidInput: the groups, or the tensors in one, do not have the same names, shapes and types; or there is none.
    """
    if not before.keys() == claimed.keys() == replayed.keys() or not before:
        raise InvalidInput("the states do not have the same groups", "compare states of the same model")
    return max((update_error(before[name], claimed[name], replayed[name]), name) for name in before)


def is_same_step(
    before: Mapping[str, State], claimed: Mapping[str, State], replayed: Mapping[str, State], limit: float = THRESHOLD
) -> bool:
    """Whether the claimed state may come from an honest step. Raises as `step_error`."""
    return step_error(before, claimed, replayed)[0] <= limit


def groups_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Copies of parameters, and of each kind of the optimiser's tensors with their shape, by name of the parameter."""
    found: dict[str, dict[str, Tensor]] = {"parameters": {}}
    for name, parameter in model.named_parameters():
        found["parameters"][name] = parameter.detach().clone()
        for kind, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                found.setdefault(kind, {})[name] = value.clone()
    return found
