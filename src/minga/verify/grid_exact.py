"""Sums and products whose result does not depend on order, instruction set, threads or device.

Before numbers are summed they are rounded to a *grid*: the multiples of a power of two, so coarse that every partial
sum is a multiple with at most 53 bits. Floating point holds those exactly, so each addition is exact, and an exact sum
is the same in every order, with or without fused multiply-add, in any blocking. Nothing here is a matter of luck.

| for         | bits of an entry b                | why                                                             |
|-------------|-----------------------------------|-----------------------------------------------------------------|
| sum of n    | min(51, 53 − ⌈log₂ n⌉)            | n · 2ᵇ ≤ 2⁵³                                                    |
| product, K  | min(26, ⌊(53 − ⌈log₂ K⌉) / 2⌋)    | K · 2ᵇ · 2ᵇ ≤ 2⁵³: 23 for K = 128, 21 for 2,048, 19 for 32,768  |

The grid of each row (or column, or sum) follows from its own largest magnitude: 2ᵉ is the power of two above it, the
grid is 2ᵉ⁻ᵇ. Rounding is `(x + C) − C` with C = 1.5 · 2⁵² · grid: two IEEE-754 operations, half to even.

What it costs in accuracy: float32 has 24 bits, and an entry near its row's largest loses 1 to 5 of them, a smaller one
more. Relative error of a product of normal entries (Frobenius), in units of 2⁻²⁴: 3 for K = 64, 14 for 1,024, 42 for
8,192; float32 itself errs by 2.5 to 4, TF32 by about 8,192. If few entries are large (log-normal), 9, 60 and 256.

Assumes: float64 additions, subtractions and multiplications round to nearest as IEEE-754 says, and an ATen operator
that adds does nothing else. Does not know: operators, modules. Imports torch; only code that has torch imports this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minga.core.errors import InvalidInput

SUM_BITS_MAX = 51
FACTOR_BITS_MAX = 26
FACTOR_BITS_MIN = 12
"""Products of more than 2**29 terms would get coarser than this and are refused."""
_EXPONENT = 0x7FF << 52


def sum_bits(count: int) -> int:
    """Bits that each of `count` summands may have, ≤ 51. Raises InvalidInput: more than 2**41 summands."""
    bits = 53 - _log2_up(count)
    if bits < FACTOR_BITS_MIN:
        raise InvalidInput(f"a sum of {count} terms has no grid", "sum in parts")
    return min(SUM_BITS_MAX, bits)


def factor_bits(count: int) -> int:
    """Bits that each factor of `count` summed products may have, ≤ 26. Raises InvalidInput: more than 2**29."""
    bits = (53 - _log2_up(count)) // 2
    if bits < FACTOR_BITS_MIN:
        raise InvalidInput(f"a product over {count} terms has no grid", "split the contraction")
    return min(FACTOR_BITS_MAX, bits)


def _log2_up(count: int) -> int:
    return max(count - 1, 0).bit_length()


def rounded(values: Tensor, dims: Sequence[int], bits: int) -> Tensor:
    """`values` as float64, each rounded to `bits` bits relative to the largest magnitude over `dims`.

    One grid for each index of the other dimensions; `dims` empty means one grid for all. Zeros stay, and what is not
    finite makes its whole grid NaN.
    """
    exact = values.to(torch.float64, copy=True)
    if exact.numel() == 0:
        return exact
    largest = values.abs().amax(dim=list(dims) or list(range(values.dim())), keepdim=True)
    power = (largest.to(torch.float64).view(torch.int64) & _EXPONENT).view(torch.float64)
    shift = power.mul_(1.5 * 2.0 ** (53 - bits))
    return exact.add_(shift).sub_(shift)


def total(values: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    """The sum over `dims` (empty: over all), float64, the same on any machine; of integers, an integer."""
    dims = [dim % max(values.dim(), 1) for dim in dims] or list(range(values.dim()))
    if not values.is_floating_point():
        return values.sum(dim=dims, keepdim=keepdim)
    if values.dim() == 0:
        return values.to(torch.float64, copy=True)
    count = 1
    for dim in dims:
        count *= values.shape[dim]
    if count == 0:
        return values.to(torch.float64).sum(dim=dims, keepdim=keepdim)
    return rounded(values, dims, sum_bits(count)).sum(dim=dims, keepdim=keepdim)


def running_total(values: Tensor, dim: int) -> Tensor:
    """The cumulative sum along `dim`, float64."""
    if not values.is_floating_point() or values.dim() == 0 or values.numel() == 0:
        return values.cumsum(dim)
    return rounded(values, [dim], sum_bits(values.shape[dim])).cumsum(dim)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, float64; both of 2 dimensions, or both of 3 (batches of matrices)."""
    bits = factor_bits(left.shape[-1])
    a, b = rounded(left, [-1], bits), rounded(right, [-2], bits)
    return torch.mm(a, b) if a.dim() == 2 else torch.bmm(a, b)


def gathered(rows: int, index: Tensor, values: Tensor) -> Tensor:
    """Row i is the sum of those `values` (n × …) whose `index` (n) is i; float64, `rows` × …; in any order."""
    out = torch.zeros((rows, *values.shape[1:]), dtype=torch.float64, device=values.device)
    if values.numel() == 0:
        return out
    return out.index_add_(0, index, rounded(values, [0], sum_bits(values.shape[0])))
