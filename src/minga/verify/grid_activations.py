"""Rules for functions of each element, their slopes, and softmax.

All are made of `grid_functions` in float64 and rounded once; softmax sums on a grid. Rule and assumptions are those of
`grid_rules`. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minga.verify import grid_exact as exact
from minga.verify import grid_functions as fn
from minga.verify.grid_rules import RULES, axes, narrow, rule, single, typed, whole, wide


def _function(name: str, of: Callable[[Tensor], Tensor]) -> None:
    def run(a: Tensor) -> Tensor:
        return of(wide(narrow(a, name))).to(torch.float32)

    rule(name)(run)


for _name, _of in {
    "exp": fn.exp, "log": fn.log, "sigmoid": fn.sigmoid, "tanh": fn.tanh, "erf": fn.erf, "sin": fn.sine,
    "cos": lambda x: fn.sine(x, 1), "silu": lambda x: fn.sigmoid(x).mul_(x), "log1p": fn.log1p, "expm1": fn.expm1,
    "log2": lambda x: fn.log(x).mul_(fn.LOG2E), "exp2": lambda x: fn.exp(x.mul_(fn.LN2)),
}.items():  # fmt: skip
    _function(_name, _of)


@rule("pow")
def _pow(a: Any, b: Any) -> Tensor:
    if isinstance(b, Tensor):
        base = wide(a) if isinstance(a, Tensor) else torch.full_like(wide(b), single(float(a)))
        return fn.exp(fn.log(base).mul_(wide(b))).to(torch.float32)
    if whole(a, b):
        return torch.pow(a, b)
    if b in (0.5, -0.5):
        found: Tensor = RULES["sqrt" if b > 0 else "rsqrt"](a)
        return found
    return typed(fn.power(wide(narrow(a, "a power")), float(b)), a)


@rule("sigmoid_backward")
def _sigmoid_backward(grad: Tensor, out: Tensor) -> Tensor:
    s = wide(out)
    return typed(s.mul(1 - s).mul_(grad), grad)


@rule("tanh_backward")
def _tanh_backward(grad: Tensor, out: Tensor) -> Tensor:
    t = wide(out)
    return typed((1 - t.mul(t)).mul_(grad), grad)


@rule("silu_backward")
def _silu_backward(grad: Tensor, a: Tensor) -> Tensor:
    x = wide(a)
    s = fn.sigmoid(x)
    return typed((1 - s).mul_(x).add_(1).mul_(s).mul_(grad), grad)


def _inner(x: Tensor) -> Tensor:
    """What the approximate GELU takes the tanh of."""
    return (x * x * x * 0.044715).add_(x).mul_(_ROOT_2_OVER_PI)


_ROOT_2_OVER_PI = float.fromhex("0x1.9884533d43651p-1")


@rule("gelu")
def _gelu(a: Tensor, *, approximate: str = "none") -> Tensor:
    x = wide(narrow(a, "gelu"))
    share = fn.gauss(x) if approximate == "none" else fn.tanh(_inner(x)).add_(1).mul_(0.5)
    return typed(share.mul_(x), a)


@rule("gelu_backward")
def _gelu_backward(grad: Tensor, a: Tensor, *, approximate: str = "none") -> Tensor:
    x = wide(narrow(a, "gelu"))
    if approximate == "none":
        slope = fn.bell(x).mul_(x).add_(fn.gauss(x))
    else:
        t = fn.tanh(_inner(x))
        rise = (x * x * (3 * 0.044715)).add_(1).mul_(_ROOT_2_OVER_PI)
        slope = (1 - t * t).mul_(rise).mul_(x).add_(t).add_(1).mul_(0.5)
    return typed(slope.mul_(grad), grad)


@rule("logsumexp")
def _logsumexp(a: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    x, dims = wide(narrow(a, "logsumexp")), axes(dim)
    top = x.amax(dims, keepdim=True)
    found = fn.log(exact.total(fn.exp(x - top), dims, True)).add_(top)
    return typed(found if keepdim else found.squeeze(dims), a)


def _shifted(a: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    x = wide(narrow(a, "softmax"))
    return x.sub_(x.amax(dim, keepdim=True)), x


@rule("_softmax")
def _softmax(a: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    e = fn.exp(_shifted(a, dim)[0])
    return typed(e.div_(exact.total(e, [dim], True)), a)


@rule("_safe_softmax")
def _safe_softmax(a: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """As softmax, and 0 where a whole row is masked."""
    empty = (a == -math.inf).all(dim, keepdim=True)
    return _softmax(a.masked_fill(empty, 0.0), dim).masked_fill(empty, 0.0)


@rule("_log_softmax")
def _log_softmax(a: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    x = _shifted(a, dim)[0]
    return typed(x.sub_(fn.log(exact.total(fn.exp(x), [dim], True))), a)


@rule("_softmax_backward_data")
def _softmax_backward(grad: Tensor, out: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    y = wide(out)
    share = y * grad
    return share.sub_(y.mul_(exact.total(share, [dim], True))).to(input_dtype)


@rule("_log_softmax_backward_data")
def _log_softmax_backward(grad: Tensor, out: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    return (grad - fn.exp(wide(out)).mul_(exact.total(grad, [dim], True))).to(input_dtype)
