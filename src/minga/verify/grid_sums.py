"""Rules for sums, means, spreads, norms, sums by index, and products of matrices.

Each rounds its summands to a grid (`grid_exact`) and its result once. Rule and assumptions are those of `grid_rules`.
Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minga.core.errors import InvalidInput
from minga.verify import grid_exact as exact
from minga.verify import grid_functions as fn
from minga.verify.grid_rules import axes, put, rule, single, typed, whole, wide


@rule("sum")
def _sum(a: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    found = exact.total(a, axes(dim), keepdim)
    return found.to(dtype or (a.dtype if a.is_floating_point() else torch.int64))


def _averaged(values: Tensor, dims: list[int], keepdim: bool, less: float = 0) -> Tensor:
    """The sum over the count, less `less`; float64."""
    found = exact.total(values, dims, keepdim)
    count = values.numel() / max(found.numel(), 1) - less
    return found.div_(torch.full_like(found, count))


@rule("mean")
def _mean(a: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    return _averaged(a, axes(dim), keepdim).to(dtype or a.dtype)


def mean_and_spread(a: Tensor, dims: Sequence[int], less: float = 0) -> tuple[Tensor, Tensor]:
    """Variance (its sum divided by the count less `less`) and mean over `dims`, kept as 1; float64."""
    middle = _averaged(a, list(dims), True)
    off = a - middle
    return _averaged(off.mul_(off), list(dims), True, less), middle


@rule("var_mean")
def _var_mean(a: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    dims = [axis % a.dim() for axis in axes(dim)] or list(range(a.dim()))
    both = mean_and_spread(a, dims, 1 if correction is None else correction)
    spread, middle = both if keepdim else (part.squeeze(dims) for part in both)
    return typed(spread, a), typed(middle, a)


@rule("var")
def _var(a: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    return _var_mean(a, dim, correction=correction, keepdim=keepdim)[0]


@rule("cumsum")
def _cumsum(a: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    found = exact.running_total(a, dim)
    return found.to(dtype or (a.dtype if a.is_floating_point() else torch.int64))


@rule("linalg_vector_norm")
def _norm(a: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    if ord == math.inf:
        return a.abs().amax(axes(dim), keepdim)
    if ord not in (1, 2):
        raise InvalidInput(f"a norm of order {ord} is not exact under the grid", "take 1, 2 or infinity")
    x = wide(a)
    found = exact.total(x.mul_(x) if ord == 2 else x.abs_(), axes(dim), keepdim).to(torch.float32)
    return fn.root(found) if ord == 2 else found


@rule("embedding_dense_backward")
def _embedding_backward(grad: Tensor, index: Tensor, rows: int, padding: int, by_frequency: bool) -> Tensor:
    if by_frequency:
        raise InvalidInput("an embedding scaled by frequency is not exact under the grid", "leave scale_grad_by_freq")
    flat = index.reshape(-1)
    values = grad.reshape(flat.shape[0], -1)
    return typed(exact.gathered(rows, flat, values.masked_fill((flat == padding)[:, None], 0.0)), grad)


@rule("index_add")
def _index_add(a: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    if whole(a):
        return torch.index_add(a, dim, index, source, alpha=alpha)
    moved = torch.mul(source, single(alpha)).movedim(dim, 0)
    return typed(exact.gathered(a.shape[dim], index, moved).movedim(0, dim).add(a), a)


@rule("scatter_add")
def _scatter_add(a: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    if whole(a):
        return torch.scatter_add(a, dim, index, source)
    held = source[tuple(slice(size) for size in index.shape)]
    steps = exact.rounded(held, [], exact.sum_bits(max(held.numel(), 1)))
    return typed(torch.zeros_like(a, dtype=torch.float64).scatter_add_(dim, index, steps).add_(a), a)


@rule("index_put", "_unsafe_index_put", "_index_put_impl")
def _index_put(a: Tensor, indices: list[Any], values: Tensor, accumulate: bool = False, unsafe: bool = False) -> Tensor:
    if not accumulate:
        return put(a, indices, values)
    if whole(a):
        counted: Tensor = torch.ops.aten.index_put(a, indices, values, True)
        return counted
    count = max(max(index.numel() for index in indices if index is not None), values.numel(), 1)
    steps = exact.rounded(values, [], exact.sum_bits(count))
    found = torch.ops.aten.index_put(torch.zeros_like(a, dtype=torch.float64), indices, steps, True)
    return typed(found.add_(a), a)


# --------------------------------------------------------------------------------------------------------- products


@rule("mm", "bmm", "matmul")
def _mm(a: Tensor, b: Tensor) -> Tensor:
    return typed(exact.product(a, b), a)


@rule("mv")
def _mv(a: Tensor, b: Tensor) -> Tensor:
    return typed(exact.product(a, b[:, None]).squeeze(1), a)


@rule("dot")
def _dot(a: Tensor, b: Tensor) -> Tensor:
    return typed(exact.product(a[None], b[:, None]).reshape(()), a)


@rule("addmm", "baddbmm")
def _addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    found = exact.product(a, b)
    if alpha != 1:
        found.mul_(single(alpha))
    return typed(found if beta == 0 else found.add_(c if beta == 1 else wide(c).mul_(single(beta))), a)
