"""D2's bounds, kind by kind: what PyTorch gives lies within, half a bound off passes, three bounds off does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from steps import ALL
from torch import Tensor

from minga.verify import operators_bounds as bounds
from minga.verify.operators import Kept, Recorder
from minga.verify.operators_check import check_within
from minga.verify.operators_plan import content


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


A, B, C = numbers(12, 16), numbers(12, 16, seed=1), numbers(16, 12, seed=2)
POSITIVE = A.abs() + 0.1
ROWS = torch.arange(12) % 5
aten = torch.ops.aten
KINDS: dict[str, Callable[[], Any]] = {
    "add": lambda: torch.add(A, B, alpha=0.3), "sub": lambda: torch.sub(A, B, alpha=0.3), "rsub": lambda: 1 - A,
    "mul": lambda: A * B, "div": lambda: A / POSITIVE, "reciprocal": lambda: POSITIVE.reciprocal(),
    "addcmul": lambda: torch.addcmul(A, B, B, value=0.1), "lerp": lambda: torch.lerp(A, B, 0.1),
    "addcdiv": lambda: torch.addcdiv(A, B, POSITIVE, value=-0.1), "sqrt": lambda: POSITIVE.sqrt(),
    "rsqrt": lambda: POSITIVE.rsqrt(), "exp": lambda: A.exp(), "log": lambda: POSITIVE.log(), "erf": lambda: A.erf(),
    "sin": lambda: A.sin(), "cos": lambda: A.cos(), "log1p": lambda: POSITIVE.log1p(), "pow": lambda: POSITIVE**1.5,
    "silu": lambda: aten.silu(A), "gelu": lambda: aten.gelu(A), "sum": lambda: A.sum(1), "mean": lambda: A.mean(0),
    "cumsum": lambda: A.cumsum(1), "linalg_vector_norm": lambda: A.norm(dim=1), "mm": lambda: A @ C,
    "bmm": lambda: torch.bmm(A[None], C[None]), "addmm": lambda: torch.addmm(numbers(12), A, C, alpha=0.5),
    "baddbmm": lambda: torch.baddbmm(numbers(1, 12, 12), A[None], C[None], beta=0.5),
    "_softmax": lambda: A.softmax(1), "_log_softmax": lambda: A.log_softmax(1),
    "sigmoid_backward": lambda: aten.sigmoid_backward(A, B.sigmoid()),
    "tanh_backward": lambda: aten.tanh_backward(A, B.tanh()), "silu_backward": lambda: aten.silu_backward(A, B),
    "gelu_backward": lambda: aten.gelu_backward(A, B),
    "_softmax_backward_data": lambda: aten._softmax_backward_data(A, B.softmax(1), 1, torch.float32),
    "_log_softmax_backward_data": lambda: aten._log_softmax_backward_data(A, B.log_softmax(1), 1, torch.float32),
    "embedding_dense_backward": lambda: aten.embedding_dense_backward(A, ROWS, 5, -1, False),
    "_foreach_lerp": lambda: torch._foreach_lerp([A, B], [B, A], 0.1),
    "_foreach_addcdiv": lambda: torch._foreach_addcdiv([A, B], [B, A], [POSITIVE, POSITIVE], 0.5),
    "_foreach_norm": lambda: torch._foreach_norm([A, B]),
}  # fmt: skip


def recorded(name: str) -> Kept:
    with Recorder(ALL) as recorder:
        KINDS[name]()
    return [kept for kept in recorder.kept.values() if bounds.base_name(kept.entry.name) == name][-1]


def claimed(kept: Kept, results: list[Tensor]) -> Kept:
    """The operator with other results, and hashes that fit them."""
    blocks = tuple(result.to(torch.float32).contiguous().reshape(-1).view(torch.uint8) for result in results)
    return replace(kept, after=blocks, entry=replace(kept.entry, outputs=tuple(map(content, blocks))))


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_half_a_bound_passes_and_three_do_not(name, tight):
    kept = recorded(name)
    verdict = check_within(kept, tight)
    assert verdict.ok, verdict.fact
    _, args, kwargs = kept.call()
    bounds.Growth.tight = tight
    allowed = bounds.bounds_of(kept.entry.name, args, kwargs)
    bounds.Growth.tight = False
    assert all((error >= 0).all() and error.shape == reference.shape for reference, error in allowed)
    for share, passes in ((0.4, True), (3.0, False), (-3.0, False)):
        moved = claimed(kept, [reference + share * error for reference, error in allowed])
        assert check_within(moved, tight).ok == passes, (share, check_within(moved, tight))


@pytest.mark.parametrize("name", ["sum", "mm", "_foreach_norm"])
def test_what_is_not_finite_or_has_another_number_of_results_does_not_pass(name):
    kept = recorded(name)
    for value in (float("nan"), float("inf")):
        assert not check_within(claimed(kept, [torch.full_like(out, value) for out in kept.outputs()])).ok


def test_equal_means_equal():
    with Recorder(ALL) as recorder:
        torch.maximum(A, B)
    [kept] = recorder.kept.values()
    assert check_within(kept).ok
    [result] = kept.outputs()
    off = torch.nextafter(result, torch.tensor(9.0))
    assert not check_within(claimed(kept, [off])).ok


def test_growth_is_that_of_the_books():
    assert bounds.Growth.of(1) == pytest.approx(2.0**-24, rel=1e-6)
    assert bounds.Growth.of(2**23) == float("inf")
    bounds.Growth.tight = True
    assert bounds.Growth.of(4) == pytest.approx(4 * 2.0**-24, rel=1e-6)
    assert bounds.Growth.of(2**20) == pytest.approx(8 * 2.0**10 * 2.0**-24)
    bounds.Growth.tight = False
