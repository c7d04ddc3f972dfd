"""Fingerprints of activations: 258 bytes for 32 tokens, in the manner of TOPLOC (arXiv 2501.16007).

The last hidden states of a chunk's tokens are flattened; its 128 largest by magnitude (of equal ones the first) are
rounded to bfloat16. The polynomial over F₆₅₅₂₁ through (index mod m, bits) is the fingerprint: m, then its
coefficients, 2 bytes each, little-endian. A checker evaluates it at *its own* 128 largest indices: where both agree it
finds nearly its own bits, and elsewhere noise.

| statistic | meaning                                                                                                |
|-----------|--------------------------------------------------------------------------------------------------------|
| far       | points whose sign differs or that are over 64 bfloat16 steps (half a binade) apart: 0 … 128              |
| near      | mean distance in bfloat16 steps of the others                                                          |

These are TOPLOC's exponent and mantissa errors, but that 1.999 and 2.001 are close. m is not free: where all indices
are below 65,521 it is 65,521, otherwise 32,768 … 65,521, so no m makes points collide or divides by zero, and both
sides reduce by it. Rule: a stranger's fingerprint either has this form to the byte or is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from minga.core.errors import BadEvidence, InternalError
from minga.verify.inference_record import TOP

P = 65_521
"""The largest prime below 2¹⁶. Bits of finite bfloat16 numbers are at most 0xFF7F, below it."""
MODULUS_MIN = 1 << 15
FAR_STEPS = 64

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Distance:
    """How far a fingerprint is from one's own activations; see the module's table."""

    far: int
    near: float


def fingerprint(hidden: torch.Tensor) -> bytes:
    """The fingerprint of `hidden` (tokens of one chunk, width): 2 + 2 · min(128, size) bytes.

    Raises:
        InternalError: an activation is not finite.
    """
    indices, bits = largest(hidden)
    modulus = injective(indices, hidden.numel())
    coefficients = interpolate(indices % modulus, bits)
    return struct.pack(f"<{len(coefficients) + 1}H", modulus, *coefficients.tolist())


def distance(shown: bytes, hidden: torch.Tensor) -> Distance:
    """Compare a stranger's fingerprint with one's own activations of the same tokens, (tokens, width).

    Raises:
        BadEvidence: `shown` is not a fingerprint of so many activations.
    """
    modulus, coefficients = parse(shown, hidden.numel())
    indices, bits = largest(hidden)
    found = evaluate(coefficients, indices % modulus)
    steps = np.abs(found - bits)
    far = (found >> 15 != bits >> 15) | (steps > FAR_STEPS)
    return Distance(int(far.sum()), float(steps[~far].mean()) if not far.all() else 0.0)


def parse(shown: bytes, size: int) -> tuple[int, Ints]:
    """Modulus and coefficients of a fingerprint over `size` activations.

    Raises:
        BadEvidence: another length, a modulus or a coefficient out of range.
    """
    points = min(TOP, size)
    if len(shown) != 2 + 2 * points:
        raise BadEvidence(f"a fingerprint of {len(shown)} bytes, not {2 + 2 * points}", "ask for the committed reply")
    modulus, *values = struct.unpack(f"<{points + 1}H", shown)
    lowest = P if size <= P else MODULUS_MIN
    if not lowest <= modulus <= P:
        raise BadEvidence(f"a fingerprint with modulus {modulus}, not {lowest} to {P}", "ask for the committed reply")
    if max(values) >= P:
        raise BadEvidence(f"a coefficient of a fingerprint is not below {P}", "ask for the committed reply")
    return modulus, np.array(values, dtype=np.int64)


def largest(hidden: torch.Tensor) -> tuple[Ints, Ints]:
    """Indices of the largest activations and their bfloat16 bits, largest first.

    Raises:
        InternalError: an activation is not finite.
    """
    flat = hidden.detach().reshape(-1).float().cpu()
    if not bool(torch.isfinite(flat).all()):
        raise InternalError("an activation is not a finite number", "compute in a wider type")
    indices = torch.sort(flat.abs(), descending=True, stable=True).indices[:TOP]
    chosen = flat[indices].clamp(-3.38e38, 3.38e38).to(torch.bfloat16)
    bits = chosen.view(torch.int16).to(torch.int64) & 0xFFFF
    return indices.numpy(), bits.numpy()


def injective(indices: Ints, size: int) -> int:
    """The largest allowed modulus under which no two of `indices` (below `size`) coincide.

    Raises:
        InternalError: there is none; of 128 indices, hardly ever (each candidate serves with probability 0.88).
    """
    if size <= P:
        return P
    for modulus in range(P, MODULUS_MIN - 1, -1):
        if len(np.unique(indices % modulus)) == len(indices):
            return modulus
    raise InternalError("no modulus keeps the indices apart")


@cache
def inverses() -> Ints:
    """1/i modulo P for i = 1 … P−1; entry 0 is 0."""
    table = [0, 1]
    for i in range(2, P):
        table.append(-(P // i) * table[P % i] % P)
    return np.array(table, dtype=np.int64)


def interpolate(x: Ints, y: Ints) -> Ints:
    """Coefficients, constant first, of the polynomial of degree < n through n points with distinct x (Newton)."""
    inverse, divided = inverses(), y % P
    for order in range(1, len(x)):
        rise = (divided[order:] - divided[order - 1 : -1]) % P
        divided[order:] = rise * inverse[(x[order:] - x[:-order]) % P] % P
    coefficients = np.zeros(len(x), dtype=np.int64)
    for at in range(len(x) - 1, -1, -1):
        lower = coefficients * (P - x[at])
        lower[1:] += coefficients[:-1]
        lower[0] += divided[at]
        coefficients = lower % P
    return coefficients


def evaluate(coefficients: Ints, x: Ints) -> Ints:
    """The polynomial at each x (Horner)."""
    value = np.zeros(len(x), dtype=np.int64)
    for coefficient in coefficients[::-1]:
        value = (value * x + coefficient) % P
    return value
