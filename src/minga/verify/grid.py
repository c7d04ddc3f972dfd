"""D1: training that gives the same bits on every machine.

    from minga.verify.grid import Grid

    with Grid():                      # an ordinary PyTorch loop; model and optimiser stay as they are, in float32
        for step in range(steps):
            ...

Inside, every operator of forward pass, backward pass and optimiser is either the same on each machine as it is, or is
replaced by one that is (`grid_rules`), or refused. Sums and matrix products round their inputs to a grid so coarse that
each partial sum is exact (`grid_exact`); functions are made of the operations that IEEE-754 defines (`grid_functions`).

**What is promised, and why.** Two runs of the same PyTorch release from the same state and data have the same bits
after each step, on any number of threads, instruction set and device whose float32 and float64 +, −, ×, ÷ round to
nearest, half to even, with subnormal numbers. This follows from the definitions, and is not a matter of odds.

Rounding to a grid *after* a sum whose order varies would be: with values spread evenly over a grid g and an honest
difference δ, a value flips with probability δ/g. For float64 sums of n terms (δ ≈ √n · 2⁻⁵³ of their size) on a grid of
2⁻²⁴ of the size that is √n · 2⁻²⁹ for each value and step: 10⁶ values, n = 1,024 and 200 steps would flip 12 times.

**What is left to odds**: scalars that Python computes (`beta ** step`, a cosine schedule) come from the host's math
library. They are rounded to float32 on their way in, so that one that differs by d units of float64 changes the result
with probability d · 2⁻²⁹ = d · 1.9e-9. `tests/verify/test_grid_machines.py` measures d over two libraries.

Not covered: float16, bfloat16, `torch.compile`, fused optimisers, three-dimensional and transposed convolutions, NaN's
bits; what is not covered is refused, with its name. Initial weights are data, or made inside. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from minga.core.errors import InvalidInput
from minga.verify import grid_activations, grid_layers, grid_norms, grid_random, grid_sums
from minga.verify.grid_rules import PASSED, RULES, whole

HALVES = (torch.float16, torch.bfloat16, torch.complex64, torch.complex128)
REGISTERED = (grid_activations, grid_layers, grid_norms, grid_random, grid_sums)
"""Modules whose import adds their rules to `RULES`."""


def refusal(name: str) -> InvalidInput:
    """The error for an operator that is not known to be exact."""
    return InvalidInput(f"{name} is not known to be the same on every machine", "take another operator, or class D0")


class Grid(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which training is bit-exact on any machine. See the module for what that means.

    May be entered again after it was left, not while it is entered. Raises InvalidInput inside, at an operator or a
    type that it does not cover; nothing has then been computed by that operator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._depth = 0
        self._settings = ExitStack()

    def __enter__(self) -> Grid:
        """Attention by plain products, no other library's layers, subnormal numbers kept."""
        if self._depth == 0:
            self._settings.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._settings.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
            torch.set_flush_denormal(False)
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As it was before."""
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth == 0:
            self._settings.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator exactly, or raise InvalidInput."""
        given = kwargs or {}
        space, _, full = func._schema.name.partition("::")
        if space == "profiler":
            return func(*args, **given)
        if space == "prims" and (full in RULES or full in PASSED or not hasattr(torch.ops.aten, full)):
            with self:
                return getattr(torch.ops.prims, full).impl_aten(*args, **given)
        if space != "aten":
            raise refusal(func._schema.name)
        _check_types(full, args, given)
        if full in PASSED and full not in RULES:
            return func(*args, **given)
        if full.startswith("_foreach_"):
            return self._each(full.removeprefix("_foreach_"), args, given)
        return self._run(func, full, args, given)

    def _run(self, func: Any, full: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        in_place = full.endswith("_") and not full.endswith("__")
        name = full[:-1] if in_place else full
        if name in RULES:
            out = given.pop("out", None) if "out" in given else None
            result = RULES[name](*args, **given)
            target = args[0] if in_place else out
            return result if target is None else target.copy_(result)
        if name in PASSED:
            return func(*args, **given)
        with self:
            result = func.decompose(*args, **given)
        if result is not NotImplemented:
            return result
        if whole(*_leaves(args), *_leaves(given.values())):
            result = func(*args, **given)
            if whole(*_leaves([result])):
                return result
            raise refusal(f"aten.{full} of integers")
        if func in decomposition_table:
            with self:
                return decomposition_table[func](*args, **given)
        raise refusal(f"aten.{full}")

    def _each(self, full: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """An operator over lists of tensors, one tensor after the other."""
        name = {"norm": "linalg_vector_norm"}.get(full.rstrip("_"), full.rstrip("_"))
        count = len(args[0])
        rows = [[arg[at] if isinstance(arg, list | tuple) else arg for arg in args] for at in range(count)]
        if name == "linalg_vector_norm" and "dtype" in given:
            given = {key: value for key, value in given.items() if key != "dtype"}
        if name in ("addcmul", "addcdiv") and len(args) > 3:
            rows, values = [row[:3] for row in rows], [row[3] for row in rows]
        else:
            values = [None] * count
        results = []
        for row, value in zip(rows, values, strict=True):
            extra = given if value is None else {**given, "value": value}
            with self:
                results.append(getattr(torch.ops.aten, name)(*row, **extra))
        if not full.endswith("_"):
            return results
        for target, result in zip(args[0], results, strict=True):
            target.copy_(result)
        return None


def _leaves(values: Iterable[Any]) -> list[Any]:
    """The values in nested lists, flat."""
    return [leaf for value in values for leaf in (_leaves(value) if isinstance(value, list | tuple) else [value])]


def _check_types(name: str, args: tuple[Any, ...], given: dict[str, Any]) -> None:
    """Raises InvalidInput: a tensor or a wanted type has less than 32 bits, or is complex."""
    for value in (*args, *given.values()):
        dtype = value.dtype if isinstance(value, Tensor) else value
        if isinstance(dtype, torch.dtype) and dtype in HALVES:
            raise InvalidInput(f"aten.{name} in {dtype} is not exact under the grid", "train in float32")
