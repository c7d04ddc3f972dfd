"""Rules for normalisations: their means and variances are sums, so they need a grid.

Statistics are computed in float64 and given in the input's type, as PyTorch gives them for the backward pass; what the
output is normalised with are the given ones, so that one definition serves both. Rule and assumptions are those of
`grid_rules`. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minga.verify import grid_exact as exact
from minga.verify import grid_functions as fn
from minga.verify.grid_rules import narrow, rule, single, typed
from minga.verify.grid_sums import mean_and_spread


def _inverse(spread: Tensor, eps: float) -> Tensor:
    """1 / √(variance + eps), float32."""
    return torch.reciprocal(fn.root((spread + single(eps)).to(torch.float32)))


def _scaled(a: Tensor, middle: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """(a − middle) · inverse · weight + bias, rounded once."""
    x = (a.to(torch.float64) - middle).mul_(inverse)
    if weight is not None:
        x.mul_(weight)
    if bias is not None:
        x.add_(bias)
    return typed(x, a)


@rule("native_layer_norm")
def _layer_norm(
    a: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    spread, middle = mean_and_spread(narrow(a, "layer norm"), list(range(-len(shape), 0)))
    middle, inverse = typed(middle, a), _inverse(spread, eps)
    return _scaled(a, middle, inverse, weight, bias), middle, inverse


@rule("_fused_rms_norm")
def _rms_norm(a: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor]:
    dims = list(range(-len(shape), 0))
    squares = exact.total(narrow(a, "RMS norm").to(torch.float64).square(), dims, True)
    count = a.numel() // max(squares.numel(), 1)
    squares.div_(torch.full_like(squares, count))
    inverse = _inverse(squares, torch.finfo(a.dtype).eps if eps is None else eps)
    return _scaled(a, torch.zeros_like(inverse), inverse, weight, None), inverse


@rule("_fused_rms_norm_backward")
def _rms_norm_backward(
    grad: Tensor, a: Tensor, shape: Sequence[int], inverse: Tensor, weight: Tensor | None, mask: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    dims = list(range(-len(shape), 0))
    others = list(range(a.dim() - len(shape)))
    normal = a.to(torch.float64).mul_(inverse)
    of_weight = typed(exact.total(normal * grad, others), a) if mask[1] and weight is not None else None
    inner = grad.to(torch.float64) if weight is None else grad.to(torch.float64).mul(weight)
    shares = exact.total(inner * normal, dims, True)
    shares.div_(torch.full_like(shares, a.numel() // shares.numel()))
    return typed((inner - normal.mul_(shares)).mul_(inverse), a) if mask[0] else None, of_weight


@rule("native_group_norm")
def _group_norm(
    a: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, rest: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    x = narrow(a, "group norm").reshape(n, groups, -1)
    spread, middle = mean_and_spread(x, [2])
    middle, inverse = typed(middle, a), _inverse(spread, eps)
    normal = _scaled(x.to(torch.float64), middle, inverse, None, None).view(n, channels, -1)
    if weight is not None:
        normal.mul_(weight.view(-1, 1))
    if bias is not None:
        normal.add_(bias.view(-1, 1))
    return typed(normal, a).view(a.shape), middle.view(n, groups), inverse.view(n, groups)


def _moved(kept: Tensor | None, found: Tensor, momentum: float) -> None:
    """The running statistic, a share `momentum` nearer to what was found; in place."""
    if kept is not None:
        old = kept.to(torch.float64).mul_(single(1 - momentum))
        kept.copy_(old.add_(found.reshape(-1).mul(single(momentum))))


@rule("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm")
def _batch_norm(
    a: Tensor, weight: Tensor | None, bias: Tensor | None, *stats: Any
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    kept_mean, kept_var, training, momentum, eps = stats if len(stats) == 5 else (None, None, *stats)
    dims = [0, *range(2, a.dim())]
    shape = [1, -1] + [1] * (a.dim() - 2)
    if not training:
        empty = torch.empty((0,), dtype=a.dtype, device=a.device)
        inverse = _inverse(kept_var, eps)
        return _scaled(a, kept_mean.view(shape), inverse.view(shape), *_shaped(shape, weight, bias)), empty, empty
    spread, middle = mean_and_spread(narrow(a, "batch norm"), dims)
    count = a.numel() // max(middle.numel(), 1)
    _moved(kept_mean, middle, momentum)
    _moved(kept_var, spread * torch.full_like(spread, count).div_(torch.full_like(spread, count - 1)), momentum)
    middle, inverse = typed(middle, a), _inverse(spread, eps)
    out = _scaled(a, middle, inverse, *_shaped(shape, weight, bias))
    return out, middle.reshape(-1), inverse.reshape(-1)


def _shaped(shape: list[int], *values: Tensor | None) -> list[Tensor | None]:
    return [None if value is None else value.view(shape) for value in values]
