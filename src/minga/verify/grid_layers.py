"""Rules for whole layers: convolutions, pooling, the loss over classes.

A convolution becomes a matrix product over copied patches, because libraries choose other algorithms for it by machine
(FFT, Winograd). Rule and assumptions are those of `grid_rules`. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minga.core.errors import InvalidInput
from minga.verify import grid_exact as exact
from minga.verify.grid_rules import rule, typed

# ------------------------------------------------------------------------------------------------------ convolution


def _patches(x: Tensor, kernel: tuple[int, ...], shape: dict[str, Any]) -> Tensor:
    """N × C·k₁·k₂ × L, by copying."""
    return functional.unfold(x, kernel, **shape)


def _flat_shape(a: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool) -> Any:
    """Arguments as those of a convolution in two dimensions. Raises InvalidInput: transposed, or in three."""
    if transposed or a.dim() not in (3, 4):
        raise InvalidInput("this convolution has no rule under the grid", "use 1 or 2 dimensions, not transposed")
    parts = [list(stride), list(padding), list(dilation)]
    if a.dim() == 3:
        a, weight = a.unsqueeze(2), weight.unsqueeze(2)
        parts = [[1, *parts[0]], [0, *parts[1]], [1, *parts[2]]]
    return a, weight, {"stride": parts[0], "padding": parts[1], "dilation": parts[2]}


@rule("convolution", "_convolution")
def _convolution(
    a: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, *ignored: Any,
) -> Tensor:  # fmt: skip
    x, w, shape = _flat_shape(a, weight, stride, padding, dilation, transposed)
    size = [
        (x.shape[2 + i] + 2 * shape["padding"][i] - shape["dilation"][i] * (w.shape[2 + i] - 1) - 1)
        // shape["stride"][i] + 1
        for i in range(2)
    ]  # fmt: skip
    columns = _patches(x, w.shape[2:], shape).view(x.shape[0], groups, -1, size[0] * size[1])
    kernels = w.reshape(groups, w.shape[0] // groups, -1)
    found = torch.stack([exact.product(kernels[g].expand(x.shape[0], -1, -1), columns[:, g]) for g in range(groups)], 1)
    found = found.reshape(x.shape[0], w.shape[0], *size)
    if bias is not None:
        found.add_(bias[:, None, None])
    return typed(found if a.dim() == 4 else found.squeeze(2), a)


@rule("convolution_backward")
def _convolution_backward(
    grad: Tensor, a: Tensor, weight: Tensor, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    x, w, shape = _flat_shape(a, weight, stride, padding, dilation, transposed)
    n, kernel = x.shape[0], w.shape[2:]
    kernels = w.reshape(groups, w.shape[0] // groups, -1)
    out = grad.reshape(n, groups, w.shape[0] // groups, -1)
    of_input = of_weight = of_bias = None
    if mask[0]:
        parts = [exact.product(kernels[g].T.expand(n, -1, -1), out[:, g]) for g in range(groups)]
        steps = exact.rounded(torch.cat(parts, 1), [], exact.sum_bits(kernel[0] * kernel[1]))
        of_input = typed(functional.fold(steps, x.shape[2:], kernel, **shape), a).reshape(a.shape)
    if mask[1]:
        columns = _patches(x, kernel, shape).view(n, groups, -1, out.shape[-1])
        made = [
            exact.product(
                out[:, g].transpose(0, 1).reshape(out.shape[2], -1),
                columns[:, g].transpose(1, 2).reshape(-1, columns.shape[2]),
            )
            for g in range(groups)
        ]
        of_weight = typed(torch.cat(made), a).reshape(weight.shape)
    if mask[2]:
        of_bias = typed(exact.total(out.reshape(n, w.shape[0], -1), [0, 2]), a)
    return of_input, of_weight, of_bias


# ---------------------------------------------------------------------------------------------------------- pooling


@rule("max_pool2d_with_indices_backward")
def _max_pool_backward(
    grad: Tensor, a: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: Tensor
) -> Tensor:
    flat = torch.zeros((*a.shape[:-2], a.shape[-2] * a.shape[-1]), dtype=torch.float64, device=a.device)
    steps = exact.rounded(grad, [], exact.sum_bits(math.prod(kernel)))
    flat.scatter_add_(-1, indices.flatten(-2), steps.flatten(-2))
    return typed(flat.view(a.shape), a)


def _windows(kernel: Any, stride: Any, padding: Any, ceil: bool, include_pad: bool, divisor: int | None) -> Any:
    if (ceil or not include_pad) and divisor is None:
        raise InvalidInput("this average pooling has no rule under the grid", "leave ceil_mode and count_include_pad")
    kernel = list(kernel) * (2 if len(kernel) == 1 else 1)
    return kernel, {"stride": list(stride) or kernel, "padding": padding}, float(divisor or math.prod(kernel))


@rule("avg_pool2d")
def _avg_pool(
    a: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    kernel, shape, divisor = _windows(kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    batch = a if a.dim() == 4 else a[None]
    empty = functional.avg_pool2d(batch, kernel, **shape)
    columns = functional.unfold(batch, kernel, **shape)
    sums = exact.total(columns.view(*batch.shape[:2], math.prod(kernel), -1), [2])
    return typed(sums.div_(torch.full_like(sums, divisor)).view(empty.shape), a).view(*a.shape[:-2], *empty.shape[-2:])


@rule("avg_pool2d_backward")
def _avg_pool_backward(
    grad: Tensor, a: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:  # fmt: skip
    kernel, shape, divisor = _windows(kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    count = math.prod(kernel)
    size = a.shape[-2:]
    flat = grad.reshape(-1, 1, grad.shape[-2] * grad.shape[-1])
    each = flat.to(torch.float64) / torch.full((), divisor, dtype=torch.float64, device=a.device)
    steps = exact.rounded(each, [], exact.sum_bits(count)).expand(-1, count, -1)
    return typed(functional.fold(steps, size, kernel, **shape), a).view(a.shape)


# ------------------------------------------------------------------------------------------- the loss over classes


def _kept(target: Tensor, weight: Tensor | None, ignore: int) -> tuple[Tensor, Tensor]:
    """Indices with the ignored ones at 0, and the weight of each, 0 for those; float64."""
    there = target != ignore
    index = target.masked_fill(~there, 0)
    each = there.to(torch.float64)
    return index, each if weight is None else each.mul_(weight[index])


def _by_row(a: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return (a[None], target[None]) if a.dim() == 1 else (a, target)


@rule("nll_loss_forward")
def _nll(a: Tensor, target: Tensor, weight: Any, reduction: int, ignore: int) -> tuple[Tensor, Tensor]:
    rows, to = _by_row(a, target)
    index, each = _kept(to, weight, ignore)
    loss = rows.gather(1, index[:, None]).squeeze(1).to(torch.float64).neg_().mul_(each)
    weights = exact.total(each, [])
    if reduction == 0:
        return typed(loss.view(target.shape), a), torch.zeros_like(typed(weights, a))
    found = exact.total(loss, [])
    return typed(found.div_(weights) if reduction == 1 else found, a), typed(weights, a)


@rule("nll_loss_backward")
def _nll_backward(
    grad: Tensor, a: Tensor, target: Tensor, weight: Any, reduction: int, ignore: int, weights: Tensor
) -> Tensor:
    rows, to = _by_row(a, target)
    index, each = _kept(to, weight, ignore)
    step = each.neg_().mul_(grad.reshape(-1) if reduction == 0 else grad)
    if reduction == 1:
        step.div_(weights)
    return typed(torch.zeros_like(rows, dtype=torch.float64).scatter_(1, index[:, None], step[:, None]), a).view(
        a.shape
    )
