"""D2: how far one operator's float32 result may lie from the exact one, whatever the order of its sums.

Each bound takes the operator's arguments as float64 and gives (reference, allowed error) for each result. They are
worst cases of the IEEE-754 model fl(a ∘ b) = (a ∘ b)(1 + δ), |δ| ≤ u = 2⁻²⁴, as in TAO (arXiv 2510.16028), from

* γ(n) = n·u / (1 − n·u) for n roundings in sequence (Higham, *Accuracy and Stability*, lemma 3.1): a sum of n
  terms in any order errs by at most γ(n) · Σ|xᵢ|, a product over K by γ(K) · |A|·|B|;
* `LIBRARY` · u relative for a function of a library: 40 units, that is 20 ulp, which the fastest one states;
* γ̃(n) = λ·√n·u with λ = 8 instead of γ(n), where rounding errors are taken as independent and of mean zero
  (Higham, Mary 2019): fails with probability ≤ 2·exp(−λ²/2) = 2.5e-14 an entry. Never wider than γ; that is `tight`.

What moves, compares or counts must be equal. An operator without a bound is not judged here (`has_bound`).
Not sound for convolutions by Winograd or FFT, TF32, or half precision inside: those are what it is to find.
Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minga.core.errors import InvalidInput
from minga.verify.grid_rules import PASSED

U = 2.0**-24
LIBRARY = 40.0
LAMBDA = 8.0
SMALLEST = 2.0**-126
"""Below this float32 is subnormal or may be flushed: an absolute error of this size is always allowed."""

Pair = tuple[Tensor, Tensor]
Bound = Callable[..., list[Pair]]
BOUNDS: dict[str, Bound] = {}
EQUAL = PASSED - {"reciprocal"} | {"index_put", "scatter", "scalar_tensor", "arange", "view_as", "lift_fresh"}


class Growth:
    """γ as sums are judged now: `tight` for γ̃, else the worst case."""

    tight = False

    @classmethod
    def of(cls, count: float) -> float:
        """γ(count), or γ̃(count) if that is smaller and asked for."""
        worst = count * U / (1 - count * U) if count * U < 0.5 else math.inf
        return min(worst, LAMBDA * math.sqrt(count) * U) if cls.tight else worst


def bound(*names: str) -> Callable[[Bound], Bound]:
    """Register a bound for the operators of these names."""

    def keep(made: Bound) -> Bound:
        for name in names:
            BOUNDS[name] = made
        return made

    return keep


def base_name(full: str) -> str:
    """`addmm` for `aten.addmm.default`, `add` for `aten.add_.Tensor`."""
    return full.split(".")[1].removesuffix("_")


def is_equal_kind(name: str) -> bool:
    """Whether the operator rounds nothing, so that its result is the same everywhere."""
    return base_name(name) in EQUAL or name.split(".")[1] in EQUAL


def has_bound(name: str) -> bool:
    """Whether the operator's result can be judged here."""
    base = base_name(name)
    return is_equal_kind(name) or base in BOUNDS or _of_each(base) in BOUNDS


def bounds_of(name: str, args: list[Any], kwargs: dict[str, Any]) -> list[Pair]:
    """(reference, allowed error) for each result of the operator, float64.

    Raises:
        InvalidInput: it has no bound.
    """
    base, args, kwargs = base_name(name), wide(args), wide(kwargs)
    if base.startswith("_foreach_"):
        return _each(name, _of_each(base), args, kwargs)
    if base not in BOUNDS:
        raise InvalidInput(f"{name} has no error bound", "take class D0 or D1, or let referees vote")
    kwargs = {key: value for key, value in kwargs.items() if key not in ("dtype", "layout", "memory_format")}
    return BOUNDS[base](*args, **kwargs)


def _of_each(base: str) -> str:
    """The operator that one over lists of tensors applies to each, or nothing."""
    if not base.startswith("_foreach_"):
        return ""
    base = base.removeprefix("_foreach_")
    return "linalg_vector_norm" if base == "norm" else base


def _each(name: str, base: str, args: list[Any], kwargs: dict[str, Any]) -> list[Pair]:
    if base not in BOUNDS:
        raise InvalidInput(f"{name} has no error bound", "take class D0 or D1, or let referees vote")
    found: list[Pair] = []
    for at in range(len(args[0])):
        row = [arg[at] if isinstance(arg, list) else arg for arg in args]
        extra = dict(kwargs)
        if base in ("addcmul", "addcdiv") and len(row) > 3:
            extra["value"] = row.pop()
        found += BOUNDS[base](*row, **extra)
    return found


def wide(value: Any) -> Any:
    """The same arguments with floating tensors as float64."""
    if isinstance(value, Tensor):
        return value.to(torch.float64) if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return [wide(item) for item in value]
    return {key: wide(item) for key, item in value.items()} if isinstance(value, dict) else value


def _size(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) else abs(value)


def _axes(a: Tensor, dim: Any) -> list[int]:
    dims = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    return [axis % max(a.dim(), 1) for axis in dims] or list(range(a.dim()))


def _count(a: Tensor, dims: list[int]) -> int:
    return math.prod(a.shape[dim] for dim in dims)


def _near(reference: Tensor, units: float) -> list[Pair]:
    return [(reference, reference.abs() * (units * U))]


# ------------------------------------------------------------------------------------------------- single operations


@bound("add")
def _add(a: Any, b: Any, *, alpha: Any = 1) -> list[Pair]:
    return [(torch.add(a, b, alpha=alpha), 3 * U * (_size(a) + _size(b) * abs(alpha)))]


@bound("sub")
def _sub(a: Any, b: Any, *, alpha: Any = 1) -> list[Pair]:
    return [(torch.sub(a, b, alpha=alpha), 3 * U * (_size(a) + _size(b) * abs(alpha)))]


@bound("rsub")
def _rsub(a: Any, b: Any, alpha: Any = 1) -> list[Pair]:
    return [(torch.rsub(a, b, alpha=alpha), 3 * U * (_size(a) * abs(alpha) + _size(b)))]


@bound("mul")
def _mul(a: Any, b: Any) -> list[Pair]:
    return _near(torch.mul(a, b), 3)


@bound("div")
def _div(a: Any, b: Any) -> list[Pair]:
    return _near(torch.div(a, b), 4)


@bound("addcmul")
def _addcmul(a: Tensor, b: Tensor, c: Tensor, *, value: Any = 1) -> list[Pair]:
    return [(torch.addcmul(a, b, c, value=value), 5 * U * (a.abs() + (b * c).abs() * abs(value)))]


@bound("addcdiv")
def _addcdiv(a: Tensor, b: Tensor, c: Tensor, *, value: Any = 1) -> list[Pair]:
    return [(torch.addcdiv(a, b, c, value=value), 5 * U * (a.abs() + (b / c).abs() * abs(value)))]


@bound("lerp")
def _lerp(a: Tensor, b: Tensor, weight: Any) -> list[Pair]:
    return [(torch.lerp(a, b, weight), 6 * U * (a.abs() + (a.abs() + b.abs()) * _size(weight)))]


@bound("sqrt")
def _sqrt(a: Tensor) -> list[Pair]:
    return _near(a.sqrt(), 3)


@bound("rsqrt")
def _rsqrt(a: Tensor) -> list[Pair]:
    return _near(a.rsqrt(), 6)


@bound("reciprocal")
def _reciprocal(a: Tensor) -> list[Pair]:
    return _near(a.reciprocal(), 4)


# ---------------------------------------------------------------------------------------------------------- functions


def _function(name: str, of: Callable[[Tensor], Tensor], absolute: float = 0.0, by_size: float = 0.0) -> None:
    def judge(a: Tensor) -> list[Pair]:
        found = of(a)
        return [(found, LIBRARY * U * found.abs() + absolute * U + by_size * U * a.abs())]

    bound(name)(judge)


for _name in ("exp", "log", "sigmoid", "tanh", "erf", "log1p", "expm1", "exp2", "log2"):
    _function(_name, getattr(torch, _name))
_function("sin", torch.sin, absolute=4)
_function("cos", torch.cos, absolute=4)
_function("silu", functional.silu)


@bound("pow")
def _pow(a: Any, b: Any) -> list[Pair]:
    found = torch.pow(a, b)
    steps = LIBRARY + 4 * _size(b) if not isinstance(b, Tensor) else LIBRARY + 4 * b.abs()
    return [(found, found.abs() * steps * U)]


@bound("gelu")
def _gelu(a: Tensor, *, approximate: str = "none") -> list[Pair]:
    found = functional.gelu(a, approximate=approximate)
    return [(found, LIBRARY * U * (found.abs() + a.abs()))]


@bound("sigmoid_backward")
def _sigmoid_backward(grad: Tensor, out: Tensor) -> list[Pair]:
    return _near(grad * out * (1 - out), 8)


@bound("tanh_backward")
def _tanh_backward(grad: Tensor, out: Tensor) -> list[Pair]:
    return [(grad * (1 - out * out), 6 * U * grad.abs() * (1 + out * out))]


@bound("silu_backward")
def _silu_backward(grad: Tensor, a: Tensor) -> list[Pair]:
    s = torch.sigmoid(a)
    sizes = s * (1 + a.abs() * (1 - s) + a.abs() * 2**-1)
    return [(grad * s * (1 + a * (1 - s)), LIBRARY * U * grad.abs() * sizes)]


@bound("gelu_backward")
def _gelu_backward(grad: Tensor, a: Tensor, *, approximate: str = "none") -> list[Pair]:
    found = torch.ops.aten.gelu_backward(grad, a, approximate=approximate)
    return [(found, LIBRARY * U * grad.abs() * (1 + a.abs()).clamp(max=8))]


# --------------------------------------------------------------------------------------------------------------- sums


@bound("sum")
def _sum(a: Tensor, dim: Any = None, keepdim: bool = False) -> list[Pair]:
    dims = _axes(a, dim)
    size = a.abs().sum(dims, keepdim) if a.dim() else a.abs()
    return [(a.sum(dims, keepdim) if a.dim() else a, size * Growth.of(_count(a, dims)))]


@bound("mean")
def _mean(a: Tensor, dim: Any = None, keepdim: bool = False) -> list[Pair]:
    [(found, error)] = _sum(a, dim, keepdim)
    count = _count(a, _axes(a, dim))
    return [(found / count, error / count + (found / count).abs() * 3 * U)]


@bound("cumsum")
def _cumsum(a: Tensor, dim: int) -> list[Pair]:
    return [(a.cumsum(dim), a.abs().cumsum(dim) * Growth.of(a.shape[dim] if a.dim() else 1))]


@bound("linalg_vector_norm")
def _norm(a: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> list[Pair]:
    found = torch.linalg.vector_norm(a, ord, dim, keepdim)
    return _near(found, 4 + Growth.of(_count(a, _axes(a, dim)) + 2) / U)


@bound("mm", "bmm")
def _mm(a: Tensor, b: Tensor) -> list[Pair]:
    return [(a @ b, (a.abs() @ b.abs()) * Growth.of(a.shape[-1]))]


@bound("addmm", "baddbmm")
def _addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> list[Pair]:
    size = (a.abs() @ b.abs()) * abs(alpha)
    first = c * beta if beta else torch.zeros_like(size)
    return [(first + (a @ b) * alpha, size * (Growth.of(a.shape[-1] + 1) + 3 * U) + first.abs() * 3 * U)]


@bound("convolution", "_convolution")
def _convolution(a: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> list[Pair]:
    shape = shape[:6]
    found = torch.ops.aten.convolution(a, weight, bias, *shape)
    size = torch.ops.aten.convolution(a.abs(), weight.abs(), None if bias is None else bias.abs(), *shape)
    return [(found, size * Growth.of(weight[0].numel() + 1))]


@bound("convolution_backward")
def _convolution_backward(grad: Tensor, a: Tensor, weight: Tensor, *shape: Any) -> list[Pair]:
    found = torch.ops.aten.convolution_backward(grad, a, weight, *shape)
    sizes = torch.ops.aten.convolution_backward(grad.abs(), a.abs(), weight.abs(), *shape)
    per_image = grad.numel() // grad.shape[1]
    terms = (weight.numel() // weight.shape[1], per_image, per_image)
    return [
        (one, size * Growth.of(count)) for one, size, count in zip(found, sizes, terms, strict=True) if one is not None
    ]


@bound("embedding_dense_backward")
def _embedding_backward(grad: Tensor, index: Tensor, rows: int, padding: int, scaled: bool) -> list[Pair]:
    found, size = (torch.ops.aten.embedding_dense_backward(g, index, rows, padding, scaled) for g in (grad, grad.abs()))
    return [(found, size * Growth.of(int(torch.bincount(index.reshape(-1)).max()) + 1))]


@bound("max_pool2d_with_indices_backward")
def _max_pool_backward(grad: Tensor, *rest: Any) -> list[Pair]:
    found, size = (torch.ops.aten.max_pool2d_with_indices_backward(g, *rest) for g in (grad, grad.abs()))
    return [(found, size * Growth.of(math.prod(rest[1])))]


@bound("avg_pool2d")
def _avg_pool(a: Tensor, kernel: Any, *rest: Any) -> list[Pair]:
    found, size = (torch.ops.aten.avg_pool2d(x, kernel, *rest) for x in (a, a.abs()))
    return [(found, size * (Growth.of(math.prod(kernel)) + 3 * U))]


@bound("avg_pool2d_backward")
def _avg_pool_backward(grad: Tensor, a: Tensor, kernel: Any, *rest: Any) -> list[Pair]:
    found, size = (torch.ops.aten.avg_pool2d_backward(g, a, kernel, *rest) for g in (grad, grad.abs()))
    return [(found, size * (Growth.of(math.prod(kernel)) + 3 * U))]
