"""D2 for a whole step: how far the update that was claimed lies from the one computed here.

The first question of an audit under D2, before any operator is looked at. The *update* is what the step added to each
parameter; its relative error is the L2 norm of the difference over the norm of the update computed here, over all
parameters together. Honest steps differ between instruction sets by rounding alone.

`THRESHOLD` is fitted on one set of seeds and reported on another by `benches/bench_determinism.py`, which also says
which cheats are too small to be seen by it. Does not know: where states come from. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from minga.core.errors import InvalidInput

THRESHOLD = 1e-3
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


def is_same_step(before: State, claimed: State, replayed: State, threshold: float = THRESHOLD) -> bool:
    """Whether the claimed state may come from an honest step. Raises as `update_error`."""
    return update_error(before, claimed, replayed) <= threshold
