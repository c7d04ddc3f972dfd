"""exp, log, tanh, erf, sine and others, made of operations that IEEE-754 defines to the last bit.

Libraries' own functions differ by a unit in the last place between instruction sets and devices. These take and give
float64 and use only +, −, ×, ÷, rounding to integers and bit patterns, one ATen operator each, so that no compiler can
contract two of them. Each is accurate to well below a unit of float32, to which its caller rounds; how exact, a test
measures against the math library.

| function | how                                                                                | relative error  |
|----------|------------------------------------------------------------------------------------|-----------------|
| exp      | x = k·ln 2 + r, Taylor to r⁹, 2ᵏ as a bit pattern                                   | 3e-11           |
| log      | mantissa m in √½ … √2, s = (m−1)/(m+1), 2·atanh s to s¹⁵                            | 1e-13           |
| erfc     | t·exp(−x² + P₁₄(t)), t = 2/(2+x); P fitted by Chebyshev to the math library's erfc   | 4e-11           |
| sin, cos | k·π/2 taken off in three parts, Taylor to r¹³ or r¹⁴; |x| < 2²⁰                     | 1e-12 absolute  |

Does not know: gradients, float32. A square root is float32's only (`root`): see there why.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG2E = float.fromhex("0x1.71547652b82fep+0")
LN2 = float.fromhex("0x1.62e42fefa39efp-1")
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")
TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
HALF_PI = tuple(map(float.fromhex, ("0x1.921fb54400000p+0", "0x1.0b4611a600000p-34", "0x1.3198a2e037073p-69")))
SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
EXP_LIMIT = 700.0
ERFC_LIMIT = 6.0
ERFC = (
    -0.5083065203564258, 0.5220213518150891, 0.0066048542812425825, -0.02241974132836519, 0.0003768642426465801,
    0.002195141891484539, -0.0003374040455753433, -0.0002235188899468605, 8.928053333482797e-05, 1.2650666757230515e-05,
    -1.593172752418655e-05, 1.6062026250370438e-06, 1.8874895342573545e-06, -4.0937952515740583e-07,
    -1.1140039076466601e-07,
)  # fmt: skip
"""P₁₄'s coefficients in u = (t − 0.24) · 2 / 0.76 − 1, from the constant up; fitted over t in 0.24 … 1."""


def polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's scheme, coefficients from the constant up; a multiplication and an addition each."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


_EXP = tuple(1 / math.factorial(n) for n in range(10))
_ATANH = tuple(2 / n for n in range(1, 17, 2))
_SIN = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(7))
_COS = tuple((-1) ** n / math.factorial(2 * n) for n in range(8))


def exp(x: Tensor) -> Tensor:
    """eˣ; 0 below −700 (also for −∞), infinity above 700, far outside what float32 holds."""
    held = x.clamp(-EXP_LIMIT, EXP_LIMIT)
    k = (held * LOG2E).round_()
    r = held.sub_(k * LN2_HIGH).sub_(k * LN2_LOW)
    power = k.to(torch.int64).add_(1023).bitwise_left_shift_(52).view(torch.float64)
    value = polynomial(r, _EXP).mul_(power)
    value.masked_fill_(x < -EXP_LIMIT, 0.0)
    return value.masked_fill_(x > EXP_LIMIT, math.inf)


def log(x: Tensor) -> Tensor:
    """ln x of normal numbers ≥ 0; −∞ at 0, NaN below."""
    mantissa, exponent = torch.frexp(x)
    low = mantissa < SQRT_HALF
    m = torch.where(low, mantissa + mantissa, mantissa)
    e = (exponent - low.to(exponent.dtype)).to(torch.float64)
    s = (m - 1).div_(m + 1)
    value = polynomial(s * s, _ATANH).mul_(s).add_(e * LN2_LOW).add_(e * LN2_HIGH)
    value.masked_fill_(x == 0, -math.inf)
    value.masked_fill_(x == math.inf, math.inf)
    return value.masked_fill_(x < 0, math.nan)


def log1p(x: Tensor) -> Tensor:
    """ln(1 + x), and x − x²/2 for |x| < 2⁻²⁰."""
    return torch.where(x.abs() < 2.0**-20, x - x * x * 0.5, log(x + 1))


def expm1(x: Tensor) -> Tensor:
    """eˣ − 1, and x + x²/2 for |x| < 2⁻¹⁶."""
    return torch.where(x.abs() < 2.0**-16, x + x * x * 0.5, exp(x).sub_(1))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ)."""
    return exp(-x).add_(1).reciprocal_()


def tanh(x: Tensor) -> Tensor:
    """(e²ˣ − 1) / (e²ˣ + 1), and x − x³/3 for |x| < 2⁻¹²."""
    e = exp((x + x).clamp_(-80, 80))
    small = x - x * x * x * (1 / 3)
    return torch.where(x.abs() < 2.0**-12, small, (e - 1).div_(e + 1))


def erf(x: Tensor) -> Tensor:
    """The error function, absolute error 1e-10."""
    size = x.abs().clamp_(max=ERFC_LIMIT)
    t = torch.reciprocal(size + 2).mul_(2)
    u = (t - 0.24).mul_(2 / 0.76).sub_(1)
    complement = exp(polynomial(u, ERFC).sub_(size * size)).mul_(t)
    return torch.where(x < 0, complement - 1, 1 - complement)


def gauss(x: Tensor) -> Tensor:
    """The normal distribution's share below x."""
    return erf(x * SQRT_HALF).add_(1).mul_(0.5)


def bell(x: Tensor) -> Tensor:
    """The normal distribution's density at x."""
    return exp(x * x * -0.5).mul_(float.fromhex("0x1.9884533d43651p-2"))


def sine(x: Tensor, quarter: int = 0) -> Tensor:
    """sin(x + quarter · π/2) for |x| < 2**20; beyond that the same everywhere, but no sine."""
    k = (x * TWO_OVER_PI).round_()
    r = x - k * HALF_PI[0]
    r.sub_(k * HALF_PI[1]).sub_(k * HALF_PI[2])
    square = r * r
    turn = k.to(torch.int64).add_(quarter).bitwise_and_(3)
    even = polynomial(square, _SIN).mul_(r)
    value = torch.where(turn & 1 == 0, even, polynomial(square, _COS))
    return torch.where(turn & 2 == 0, value, -value)


def root(x: Tensor) -> Tensor:
    """√x of float32 values, as float32, correctly rounded even where float64's root errs by 3 units.

    Why: with 24-bit x and a 25-bit midpoint m, x − m² is a multiple of 2⁻⁴⁸ (for x in 1 … 4) and not zero, so √x lies
    at least 2⁻⁵⁰ off every midpoint, four units of float64; what rounds to float32 from within that is the same number.
    """
    return torch.sqrt(x.to(torch.float64)).to(torch.float32)


def power(x: Tensor, exponent: float) -> Tensor:
    """xᵉ for whole exponents of 0 … 16 by products, else exp(e · ln x)."""
    if exponent == int(exponent) and 0 <= exponent <= 16:
        value = torch.ones_like(x)
        for _ in range(int(exponent)):
            value.mul_(x)
        return value
    if exponent == int(exponent) and -16 <= exponent < 0:
        return power(x, -exponent).reciprocal_()
    return exp(log(x).mul_(exponent))
