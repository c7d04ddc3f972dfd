"""Who is right about one step: the first different operator, and whether one operator's result may be what is claimed.

| class  | first difference                                  | the operator                                           |
|--------|---------------------------------------------------|--------------------------------------------------------|
| D0, D1 | descend both trees: ⌈log₁₆ n⌉ rounds of 16 hashes | compute it again (D1: on the grid): the same bits      |
| D2     | the challenger checks every operator of the       | equal within the bound of its kind, from the very      |
|        | provider's own trace and names one                | contents that the provider says it read                |

Under D2 honest hashes differ from the first operator on, so descending by hashes proves nothing; the game's rounds then
only open the operator that was named. What is checked of a named operator, in this order, each with its fault:
`given` (the step did not start from what is known), `served` (contents do not have their hashes), `plan` (another
operator, number or source than the work has here), `wiring` (it read something else than what its source wrote),
`value` (the result), `bound` (nothing can be said: this kind has no bound; referees must vote).

Knows: traces, contents. Does not know: players, money. Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minga.core.errors import InvalidInput
from minga.protocol.merkle import ARITY, EMPTY_LEAF, Tree
from minga.verify import operators_bounds as bounds
from minga.verify import operators_layers
from minga.verify.grid import Grid
from minga.verify.operators import GIVEN, Entry, Kept, Trace, changed, has_content
from minga.verify.operators_plan import content, flat, tensors

REGISTERED = operators_layers
"""Its import adds bounds."""
SLACK = 1 + 2.0**-20
"""For the float64 arithmetic of reference and bound themselves."""


@dataclass(frozen=True)
class Verdict:
    """`ok`, or the fault and a sentence; `ratio` is the largest error in units of what is allowed (0: equal)."""

    ok: bool
    fault: str = ""
    fact: str = ""
    ratio: float = 0.0


def first_difference(one: Sequence[bytes], other: Sequence[bytes]) -> tuple[int, int]:
    """(leaf, rounds): the first leaf that differs, found as a game finds it, and how many rounds that took.

    `one` are the provider's leaves, whose number fixes the rounds. Raises InvalidInput: the roots are the same.
    """
    here = Tree(one)
    there = Tree(([*other] + [EMPTY_LEAF] * len(one))[: len(one)])
    if here.root == there.root:
        raise InvalidInput("both traces have the same root", "there is nothing to find")
    node = 0
    for done in range(here.rounds):
        pairs = zip(here.children(done, node), there.children(done, node), strict=True)
        node = ARITY * node + next(at for at, (mine, yours) in enumerate(pairs) if mine != yours)
    return node, here.rounds


def check_exactly(kept: Kept, grid: bool = False) -> Verdict:
    """D0, or D1 with `grid`: the operator once more, from the contents served; every bit must agree.

    Raises:
        InvalidInput: the plan does not fit this PyTorch or the storages.
    """
    if not kept.is_served():
        return Verdict(False, "served", f"{kept.entry.name}: contents do not have the hashes of the trace")
    again = _again(kept, Grid() if grid else nullcontext())
    if tuple(content(block) for block in _blocks(again)) == kept.entry.outputs:
        return Verdict(True)
    return Verdict(False, "value", f"operator {kept.entry.number}, {kept.entry.name}, gives other bits")


def check_within(kept: Kept, tight: bool = False) -> Verdict:
    """D2: the operator's results against float64 ones from the same inputs, within the bound of its kind.

    `tight` takes the probabilistic bound for sums. `ratio` may be a little over 1 by `SLACK` only.

    Raises:
        InvalidInput: the plan does not fit this PyTorch or the storages.
    """
    entry = kept.entry
    if not kept.is_served():
        return Verdict(False, "served", f"{entry.name}: contents do not have the hashes of the trace")
    claimed = kept.outputs()
    if bounds.is_equal_kind(entry.name) or not any(result.is_floating_point() for result in claimed):
        return _equal(kept, claimed)
    if not bounds.has_bound(entry.name):
        return Verdict(False, "bound", f"{entry.name} has no error bound")
    func, args, kwargs = kept.call()
    bounds.Growth.tight = tight
    try:
        allowed = bounds.bounds_of(entry.name, args, kwargs)
    finally:
        bounds.Growth.tight = False
    if func._schema.is_mutable:
        claimed = claimed[-len(allowed) :]
    return _judged(entry, [result for result in claimed if result.numel()], allowed)


def _judged(entry: Entry, claimed: list[Tensor], allowed: list[bounds.Pair]) -> Verdict:
    if len(claimed) != len(allowed):
        return Verdict(False, "value", f"{entry.name} gives {len(claimed)} results, not {len(allowed)}")
    worst = 0.0
    for result, (reference, error) in zip(claimed, allowed, strict=True):
        if result.shape != reference.shape:
            return Verdict(False, "value", f"{entry.name} gives {tuple(result.shape)}, not {tuple(reference.shape)}")
        off = (result.to(torch.float64) - reference).abs()
        off = torch.where(result.to(torch.float64) == reference, 0.0, off)
        ratio = (off / (error * SLACK + bounds.SMALLEST)).nan_to_num(nan=float("inf"))
        both_nan = result.isnan() & reference.isnan()
        worst = max(worst, ratio.masked_fill(both_nan, 0.0).max().item())
    if worst <= 1:
        return Verdict(True, ratio=worst)
    return Verdict(False, "value", f"operator {entry.number}, {entry.name}, errs by {worst:.3g} times its bound", worst)


def _equal(kept: Kept, claimed: list[Tensor]) -> Verdict:
    again = [result for result in _again(kept, nullcontext()) if isinstance(result, Tensor)]
    same = len(again) == len(claimed) and all(
        a.shape == b.shape and ((a == b) | ((a != a) & (b != b))).all() for a, b in zip(again, claimed, strict=False)
    )
    return Verdict(True) if same else Verdict(False, "value", f"{kept.entry.name} must give equal values, and does not")


def _again(kept: Kept, context: AbstractContextManager[Any]) -> list[Tensor]:
    """What the operator gives and changes here, from the contents served and its random state."""
    func, args, kwargs = kept.call()
    before = torch.get_rng_state()
    try:
        if kept.random:
            torch.set_rng_state(torch.frombuffer(bytearray(kept.random), dtype=torch.uint8))
        with context:
            result = func(*args, **kwargs)
    finally:
        torch.set_rng_state(before)
    return [*tensors([result]), *changed(func, tuple(args), kwargs)]


def _blocks(results: list[Tensor]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for result in results:
        found.setdefault(result.untyped_storage()._cdata, flat(result))
    return list(found.values())


def check_wiring(trace: Trace, number: int) -> Verdict:
    """Whether operator `number` read what its sources wrote, and otherwise what the step was given."""
    entry = trace.entries[number - 1]
    for wire in entry.inputs:
        held: Sequence[bytes] = trace.given if wire.source == GIVEN else ()
        if 0 < wire.source < number:
            held = trace.entries[wire.source - 1].outputs
        if not 0 <= wire.output < len(held) or held[wire.output] != wire.content:
            return Verdict(False, "wiring", f"operator {number} read what operator {wire.source} never wrote")
    return Verdict(True)


def first_fault(trace: Trace, kept: Mapping[int, Kept], plan: Trace, tight: bool = False) -> tuple[int, Verdict] | None:
    """D2: the first operator of the provider's `trace` that cannot be right, or None.

    `kept` are the contents as the provider serves them, `plan` the referee's own recording of the same step from the
    same state. The leaf is the operator's number; 0 when the step began elsewhere, n + 1 when it ended too early.
    Operators of a kind without a bound are passed over: see `unjudged`.
    """
    if (trace.declared, *trace.given[: trace.declared]) != (plan.declared, *plan.given[: plan.declared]):
        return 0, Verdict(False, "given", "the step did not start from the known state and data")
    for entry in trace.entries:
        number = entry.number
        if number > len(plan.entries) or (entry.name, entry.plan) != (
            plan.entries[number - 1].name,
            plan.entries[number - 1].plan,
        ):
            return number, Verdict(False, "plan", f"operator {number} is {entry.name}, which the work does not do here")
        verdict = check_wiring(trace, number)
        for wire in entry.inputs if verdict.ok else ():
            if wire.source == GIVEN and plan.given[wire.output] != wire.content:
                verdict = Verdict(False, "given", f"operator {number} read data that the work does not have")
        if verdict.ok and has_content(entry):
            verdict = _served(entry, kept.get(number), tight)
        if not verdict.ok and verdict.fault != "bound":
            return number, verdict
    if len(trace.entries) < len(plan.entries):
        return len(trace.entries) + 1, Verdict(False, "plan", "the trace ends before the step does")
    return None


def _served(entry: Entry, kept: Kept | None, tight: bool) -> Verdict:
    if kept is None or kept.entry != entry:
        return Verdict(False, "served", f"operator {entry.number}, {entry.name}, was not served")
    return check_within(kept, tight)


def unjudged(trace: Trace) -> list[str]:
    """Names of the trace's operators that D2 cannot judge, each once; a job with any should take D0 or D1."""
    return sorted({entry.name for entry in trace.entries if has_content(entry) and not bounds.has_bound(entry.name)})
