"""D2's bounds for operators that do several things: softmax, the loss over classes, layer norm.

Derived from the parts of `operators_bounds`: the errors of the parts, each to first order, added. δm, δv, δr are those
of mean, variance and 1/√(variance + ε); an exponential takes the rounding of its argument, u·|x − max|, as a relative
error. Rule and assumptions are those of `operators_bounds`, which registers these. Imports torch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from minga.verify.operators_bounds import LIBRARY, Growth, Pair, U, bound


def _shares(a: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """x − max, softmax, and the relative error that all of a row's shares have in common."""
    held = a - a.amax(dim, keepdim=True)
    share = torch.softmax(a, dim)
    spread = (share * held.abs().nan_to_num(posinf=0.0)).sum(dim, keepdim=True) * (2 * U)
    return held, share, spread + Growth.of(a.shape[dim]) + 2 * LIBRARY * U


@bound("_softmax", "_safe_softmax")
def _softmax(a: Tensor, dim: int, *ignored: Any) -> list[Pair]:
    held, share, common = _shares(a, dim)
    share = share.nan_to_num()
    return [(share, share * (common + held.abs().nan_to_num(posinf=0.0) * (2 * U)).nan_to_num(posinf=0.0))]


@bound("_log_softmax")
def _log_softmax(a: Tensor, dim: int, half_to_float: bool = False) -> list[Pair]:
    held, _, common = _shares(a, dim)
    found = torch.log_softmax(a, dim)
    top = a.amax(dim, keepdim=True).abs()
    return [(found, common + 4 * U * (held.abs() + found.abs() + top) + LIBRARY * U * (found - held).abs())]


@bound("_softmax_backward_data")
def _softmax_backward(grad: Tensor, out: Tensor, dim: int, kind: Any) -> list[Pair]:
    weighed = grad * out
    total, size = weighed.sum(dim, keepdim=True), weighed.abs().sum(dim, keepdim=True)
    error = out.abs() * (6 * U * grad.abs() + (Growth.of(out.shape[dim] + 1) + 6 * U) * size)
    return [(out * (grad - total), error)]


@bound("_log_softmax_backward_data")
def _log_softmax_backward(grad: Tensor, out: Tensor, dim: int, kind: Any) -> list[Pair]:
    total, size = grad.sum(dim, keepdim=True), grad.abs().sum(dim, keepdim=True)
    share = torch.exp(out)
    error = 4 * U * grad.abs() + share * size * (Growth.of(out.shape[dim]) + (LIBRARY + 4) * U)
    return [(grad - share * total, error)]


@bound("nll_loss_forward")
def _nll(a: Tensor, target: Tensor, *rest: Any) -> list[Pair]:
    found = torch.ops.aten.nll_loss_forward(a, target, *rest)
    sizes = torch.ops.aten.nll_loss_forward(-a.abs(), target, *rest)
    growth = Growth.of(target.numel() + 2)
    return [(found[0], sizes[0].abs() * 2 * growth), (found[1], sizes[1] * growth)]


@bound("nll_loss_backward")
def _nll_backward(*args: Any) -> list[Pair]:
    found = torch.ops.aten.nll_loss_backward(*args)
    return [(found, found.abs() * (4 * U))]


@bound("native_layer_norm")
def _layer_norm(a: Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> list[Pair]:
    dims = list(range(a.dim() - len(shape), a.dim()))
    n = math.prod(shape)
    found = torch.ops.aten.native_layer_norm(a, shape, weight, bias, eps)
    middle, inverse = found[1], found[2]
    of_mean = a.abs().mean(dims, keepdim=True) * (Growth.of(n) + 2 * U)
    spread = (a - middle).square().mean(dims, keepdim=True)
    of_spread = (spread + middle.square()) * (Growth.of(4 * n) + 8 * U) + of_mean.square()
    of_inverse = inverse * (of_spread / (spread + eps) * 0.5 + 8 * U)
    scale: Any = 1.0 if weight is None else weight.abs()
    error = scale * (inverse * (of_mean + 4 * U * (a.abs() + middle.abs())) + (a - middle).abs() * of_inverse)
    shift = torch.zeros_like(found[0]) if bias is None else bias.abs()
    return [(found[0], error + 4 * U * (found[0].abs() + shift)), (middle, of_mean), (inverse, of_inverse)]


@bound("native_layer_norm_backward")
def _layer_norm_backward(
    grad: Tensor, a: Tensor, shape: list[int], mean: Tensor, inverse: Tensor, weight: Any, bias: Any, mask: list[bool]
) -> list[Pair]:
    dims, rows = list(range(a.dim() - len(shape), a.dim())), list(range(a.dim() - len(shape)))
    n, count = math.prod(shape), math.prod(a.shape[: a.dim() - len(shape)])
    found = torch.ops.aten.native_layer_norm_backward(grad, a, shape, mean, inverse, weight, bias, mask)
    normal = (a.abs() + mean.abs()) * inverse
    inner = grad.abs() if weight is None else (grad * weight).abs()
    parts = inner + inner.mean(dims, keepdim=True) + normal * (inner * normal).mean(dims, keepdim=True)
    errors = (
        inverse * parts * (Growth.of(n) + 16 * U),
        (grad.abs() * normal).sum(rows) * (Growth.of(count) + 8 * U) if rows else grad.abs() * normal * 8 * U,
        grad.abs().sum(rows) * Growth.of(count) if rows else grad.abs() * U,
    )
    return [(one, error) for one, error in zip(found, errors, strict=True) if one is not None and one.numel()]
