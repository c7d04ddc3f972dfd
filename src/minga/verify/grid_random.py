"""Random numbers that are the same on every device, and dropout.

PyTorch's own differ between CPU and CUDA, and normal ones between instruction sets. Here they come from one 64-bit draw
of the CPU's generator and a counter, mixed by SplitMix64 (Steele, Lea, Flood 2014) in integers, so that the state of
PyTorch's CPU generator is all there is to keep. Rule and assumptions are those of `grid_rules`. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minga.core.errors import InvalidInput
from minga.verify import grid_functions as fn
from minga.verify.grid_rules import rule, typed, whole

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def draw(shape: Sequence[int], device: torch.device, generator: Any = None) -> Tensor:
    """64 random bits for each element, int64: SplitMix64 of a counter that starts at one draw of the CPU's generator.

    Raises:
        InvalidInput: a generator of another device was given.
    """
    if generator is not None and generator.device.type != "cpu":
        raise InvalidInput(f"a generator on {generator.device} draws other numbers elsewhere", "give a CPU generator")
    start = torch.randint(-(2**63), 2**63 - 1, (), generator=generator).to(device)
    bits = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=device).mul_(_GOLDEN).add_(start)
    for shift, mix in zip((30, 27), _MIX, strict=True):
        bits = bits.bitwise_xor_(_right(bits, shift)).mul_(mix)
    return bits.bitwise_xor_(_right(bits, 31)).view(list(shape))


def _right(bits: Tensor, shift: int) -> Tensor:
    """A shift that brings in zeros."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)


def evenly(shape: Sequence[int], device: torch.device, generator: Any = None) -> Tensor:
    """float64 multiples of 2⁻²⁴ in 0 … 1, without 1."""
    return _right(draw(shape, device, generator), 40).to(torch.float64).mul_(2.0**-24)


def bell_shaped(shape: Sequence[int], device: torch.device, generator: Any = None) -> Tensor:
    """Standard normal, float64, by Box and Muller; at most 5.9 from the middle."""
    size = [2, *shape]
    near, around = evenly(size, device, generator)
    far = fn.log(near.add_(2.0**-25)).mul_(-2).to(torch.float32)
    return fn.root(far).to(torch.float64).mul_(fn.sine(around.mul_(2 * math.pi), 1))


def _made(like: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": like.get("dtype") or torch.get_default_dtype()}


def _device(like: dict[str, Any]) -> torch.device:
    return torch.device(like.get("device") or "cpu")


@rule("rand")
def _rand(size: Sequence[int], *, generator: Any = None, **like: Any) -> Tensor:
    return evenly(size, _device(like), generator).to(**_made(like))


@rule("randn")
def _randn(size: Sequence[int], *, generator: Any = None, **like: Any) -> Tensor:
    return bell_shaped(size, _device(like), generator).to(**_made(like))


@rule("rand_like")
def _rand_like(a: Tensor, **like: Any) -> Tensor:
    return evenly(a.shape, a.device).to(like.get("dtype") or a.dtype)


@rule("randn_like")
def _randn_like(a: Tensor, **like: Any) -> Tensor:
    return bell_shaped(a.shape, a.device).to(like.get("dtype") or a.dtype)


@rule("uniform")
def _uniform(a: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Tensor:
    return typed(evenly(a.shape, a.device, generator).mul_(high - low).add_(low), a)


@rule("normal")
def _normal(a: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    return typed(bell_shaped(a.shape, a.device, generator).mul_(std).add_(mean), a)


@rule("bernoulli")
def _bernoulli(a: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    return (evenly(a.shape, a.device, generator) < (a if p is None else p)).to(a.dtype)


@rule("native_dropout")
def _dropout(a: Tensor, p: float, train: bool | None = True) -> tuple[Tensor, Tensor]:
    if not train:
        return a.clone(), torch.ones_like(a, dtype=torch.bool)
    kept = evenly(a.shape, a.device) < 1 - p
    return typed((a * kept).to(torch.float64).mul_(1 / (1 - p) if p < 1 else 0.0), a), kept


@rule("randint", "randperm")
def _integers(*args: Any, generator: Any = None, **like: Any) -> Tensor:
    """PyTorch's own, on the CPU: its generator makes integers one after the other."""
    device = _device(like)
    call = torch.randperm if len(args) == 1 and whole(*args) else torch.randint
    return call(*args, generator=generator, **{**like, "device": "cpu"}).to(device)
