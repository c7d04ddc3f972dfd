"""Which operators are the same on every machine as they are, and what the others become under the grid.

Three kinds, and no fourth: an operator that is in none of them is refused, because nobody has shown that it is exact.

| kind                     | operators                                    | why it is exact                       |
|--------------------------|----------------------------------------------|---------------------------------------|
| `PASSED`, integers       | copies, views, comparisons, choices          | nothing is rounded, or as IEEE-754 says |
| `RULES`                  | sums, products, functions, several roundings | `grid_exact`, `grid_functions`        |
| PyTorch's decompositions | losses and activations that have no rule     | made of the other two, checked again  |

A rule takes the arguments of the functional form of its operator, on plain tensors, and gives its results, never a part
of what it was given. Sums and functions work in float64 and round to the argument's type once, at the end; what only
adds, multiplies or divides stays in float32. Scalars come from the host's math library (`beta ** step`), so they are
rounded to float32 first. Here stand the rules of single operations; `grid_activations`, `grid_sums`, `grid_layers`,
`grid_norms` and `grid_random` register theirs.

Assumes: one ATen operator of one operation rounds once. Does not know: modes, gradients. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from minga.core.errors import InvalidInput
from minga.verify import grid_functions as fn

_NAMES = """
    abs alias all amax amin any argmax argmin as_strided bitwise_and bitwise_left_shift bitwise_not bitwise_or
    bitwise_right_shift bitwise_xor bucketize cat ceil clamp clamp_max clamp_min clone constant_pad_nd copy copy_
    detach detach_ diagonal diagonal_backward empty empty_like empty_strided eq equal expand eye fill fill_ flip floor
    full full_like gather ge gt hardtanh hardtanh_backward im2col index index_fill index_select isin isinf isnan
    is_same_size le lift lift_fresh lift_fresh_copy _local_scalar_dense logical_and logical_not logical_or logical_xor
    lt masked_fill masked_select max max_pool2d_with_indices maximum min minimum ne neg new_empty new_empty_strided
    new_full new_ones new_zeros nonzero ones ones_like permute pixel_shuffle pixel_unshuffle reciprocal relu repeat
    _reshape_alias resize_ roll scalar_tensor searchsorted select select_backward select_scatter set_ sgn sign slice
    slice_backward slice_scatter split split_with_sizes squeeze stack t threshold threshold_backward _to_copy transpose
    tril tril_indices triu triu_indices trunc unbind unfold _unsafe_index _unsafe_view unsqueeze view where zero zero_
    zeros zeros_like embedding
"""
PASSED = frozenset(_NAMES.split())
"""Names of operators without their overload. `max`, `argmax` and pooling give the first of equal values."""

Rule = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for the operators of these names."""

    def keep(made: AnyRule) -> AnyRule:
        for name in names:
            RULES[name] = made
        return made

    return keep


def single(value: Any) -> Any:
    """A Python float as float32 would hold it; other values, and what float32 cannot hold, as they are.

    Two math libraries may differ by some units in the last place of float64. Boundaries of float32's rounding are 2**29
    such units apart, so a scalar that differs by d units changes what is computed with probability d · 2**-29.
    """
    if not isinstance(value, float) or not math.isfinite(value) or abs(value) > torch.finfo(torch.float32).max:
        return value
    return torch.tensor(value, dtype=torch.float32).item()


def wide(value: Tensor) -> Tensor:
    """As float64, a copy."""
    return value.to(torch.float64, copy=True)


def typed(value: Tensor, like: Tensor) -> Tensor:
    """Rounded to the type of `like`, once; float32 for integers."""
    return value.to(like.dtype if like.is_floating_point() else torch.get_default_dtype())


def whole(*values: Any) -> bool:
    """Whether nothing among them is floating point."""
    return not any(isinstance(v, float) or (isinstance(v, Tensor) and v.is_floating_point()) for v in values)


def narrow(value: Tensor, name: str) -> Tensor:
    """A float32 tensor. Raises InvalidInput: it is float64, for which this operator has no exact rule."""
    if value.dtype == torch.float64:
        raise InvalidInput(f"{name} of float64 is not exact under the grid", "train in float32")
    return value.to(torch.float32)


def axes(dims: int | Sequence[int] | None) -> list[int]:
    """Dimensions as a list; empty for all."""
    return [] if dims is None else [dims] if isinstance(dims, int) else list(dims)


# ------------------------------------------------------------------------------- one operation, or several made single


@rule("add")
def _add(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    return torch.add(a, single(b)) if alpha == 1 else torch.add(a, torch.mul(b, single(alpha)))


@rule("sub", "subtract")
def _sub(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    return torch.sub(a, single(b)) if alpha == 1 else torch.sub(a, torch.mul(b, single(alpha)))


@rule("rsub")
def _rsub(a: Any, b: Any, alpha: Any = 1) -> Any:
    return _add(torch.neg(a if alpha == 1 else torch.mul(a, single(alpha))), b)


@rule("mul")
def _mul(a: Any, b: Any) -> Any:
    return torch.mul(a, single(b))


@rule("div")
def _div(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    """Never as a product with the reciprocal, which CUDA takes for a scalar divisor."""
    if rounding_mode is not None and not whole(a, b):
        raise InvalidInput("a division that rounds to integers is not exact under the grid", "divide integers")
    if not isinstance(b, Tensor):
        of = b if isinstance(b, int) and whole(a) else single(float(b))
        dtype = a.dtype if a.is_floating_point() else None
        b = torch.full((), of, dtype=dtype, device=a.device)
    return torch.div(a, b, rounding_mode=rounding_mode)


@rule("addcmul")
def _addcmul(a: Tensor, b: Tensor, c: Tensor, *, value: Any = 1) -> Tensor:
    return torch.add(a, torch.mul(b if value == 1 else torch.mul(b, single(value)), c))


@rule("addcdiv")
def _addcdiv(a: Tensor, b: Tensor, c: Tensor, *, value: Any = 1) -> Tensor:
    return torch.add(a, torch.div(b if value == 1 else torch.mul(b, single(value)), c))


@rule("lerp")
def _lerp(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return torch.add(a, torch.mul(torch.sub(b, a), single(weight)))


@rule("sqrt")
def _sqrt(a: Tensor) -> Tensor:
    return fn.root(narrow(a, "a root"))


@rule("rsqrt")
def _rsqrt(a: Tensor) -> Tensor:
    return torch.reciprocal(fn.root(narrow(a, "a root")))


@rule("round")
def _round(a: Tensor, *, decimals: int = 0) -> Tensor:
    if decimals:
        raise InvalidInput("rounding to decimals is not exact under the grid", "round to integers")
    return torch.round(a)


@rule("arange")
def _arange(*bounds: Any, **like: Any) -> Tensor:
    """Whole numbers as they are; others in float64, because vectors of other lengths add them up otherwise."""
    if all(float(bound).is_integer() for bound in bounds):
        return torch.arange(*bounds, **like)
    start, end, step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    count = max(math.ceil((end - start) / step), 0)
    at = torch.arange(count, dtype=torch.float64, device=like.get("device"))
    return at.mul_(float(step)).add_(float(start)).to(like.get("dtype") or torch.get_default_dtype())


@rule("linspace")
def _linspace(start: Any, end: Any, steps: int, **like: Any) -> Tensor:
    at = torch.arange(steps, dtype=torch.float64, device=like.get("device"))
    rise = torch.full_like(at, float(end) - float(start)).div_(torch.full_like(at, max(steps - 1, 1)))
    return at.mul_(rise).add_(float(start)).to(like.get("dtype") or torch.get_default_dtype())


def _refuse_twice(places: Tensor, there: Tensor) -> None:
    """Raises InvalidInput: two different values were put in one place, and which one stays is a matter of chance."""
    if not torch.equal(places, there):
        raise InvalidInput("two values were written to one place", "write each place once, or accumulate")


@rule("scatter")
def _scatter(a: Tensor, dim: int, index: Tensor, value: Any, *, reduce: str | None = None) -> Tensor:
    if reduce is not None:
        raise InvalidInput("scatter with a reduction is not exact under the grid", "use scatter_add")
    if isinstance(value, Tensor) and value.numel() > 1 and index.numel() > 1:
        places = torch.arange(index.numel(), device=a.device).view(index.shape)
        filled = torch.zeros(a.shape, dtype=torch.int64, device=a.device).scatter(dim, index, places)
        _refuse_twice(places, filled.gather(dim, index))
    result: Tensor = torch.ops.aten.scatter(a, dim, index, value)
    return result


def put(a: Tensor, indices: list[Tensor | None], values: Tensor) -> Tensor:
    """`a` with `values` at `indices`. Raises InvalidInput: one place is written twice."""
    if values.numel() > 1:
        shape = torch.ops.aten.index(a, indices).shape
        places = torch.arange(math.prod(shape), device=a.device).view(shape)
        filled = torch.zeros(a.shape, dtype=torch.int64, device=a.device)
        filled = torch.ops.aten.index_put(filled, indices, places)
        _refuse_twice(places, torch.ops.aten.index(filled, indices))
    result: Tensor = torch.ops.aten.index_put(a, indices, values)
    return result
