"""Who is right: honest work on another machine passes, each cheat fails, at the operator where it happened."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import ALL, HIDDEN, Work

from minga.core.errors import InvalidInput
from minga.protocol.merkle import rounds_for
from minga.verify import operators_bounds as bounds
from minga.verify.operators import Kept, Recorder, Trace
from minga.verify.operators_check import (
    check_exactly,
    check_wiring,
    check_within,
    first_difference,
    first_fault,
    unjudged,
)  # fmt: skip


@pytest.fixture(scope="module")
def work() -> Work:
    return Work()


@pytest.fixture(scope="module")
def honest(work: Work) -> tuple[Trace, dict[int, Kept]]:
    return work.record(ALL)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 700), at=st.integers(0, 699), more=st.integers(-50, 50))
def test_the_first_different_leaf_is_found_whatever_follows(count, at, more):
    leaves = [bytes([n % 251, n // 251]) * 16 for n in range(count)]
    at %= count
    other = [*leaves[:at], *(b"\xff" * 32 for _ in range(max(count - at + more, 1)))]
    assert first_difference(leaves, other) == (at, rounds_for(count))
    with pytest.raises(InvalidInput, match="same root"):
        first_difference(leaves, list(leaves))


def test_a_trace_that_ends_early_differs_at_its_end(honest):
    trace, _ = honest
    short = replace(trace, entries=trace.entries[:-5])
    assert first_difference(short.leaves, trace.leaves) == (len(trace.entries) - 4, rounds_for(len(short.leaves)))


@pytest.mark.parametrize("lie", HIDDEN)
@pytest.mark.parametrize("grid", [False, True])
def test_d0_and_d1_every_hidden_cheat_is_found_by_descending(work, lie, grid):
    kind = HIDDEN[lie][1]
    honest = work.record(grid=grid)[0]
    trace, kept = work.record(ALL, grid=grid, lie=lie)
    at, rounds = first_difference(trace.leaves, honest.leaves)
    entry = trace.entries[at - 1]
    assert entry.name.split(".")[1] == kind
    assert rounds == rounds_for(len(honest.leaves)) <= 3
    assert entry.plan == honest.entries[at - 1].plan
    verdict = check_exactly(kept[at], grid)
    assert (verdict.ok, verdict.fault) == (False, "value")
    assert all(check_exactly(kept[number], grid).ok for number in kept if at - 40 < number < at)


def test_d1_an_honest_operator_is_the_same_again_in_any_order(work):
    trace, kept = work.record(ALL, grid=True)
    assert len(kept) > 300
    assert all(check_exactly(operator, grid=True).ok for operator in kept.values())
    assert trace.leaves == work.record(grid=True)[0].leaves


@pytest.mark.parametrize(("cheat", "name"), [({"rate": 1.5}, "mul_"), ({"dropped": True}, "")])
def test_an_open_cheat_shows_in_the_plan(work, honest, cheat, name):
    trace, kept = work.record(ALL, **cheat)
    at, rounds = first_difference(trace.leaves, honest[0].leaves)
    assert trace.entries[at - 1].plan != honest[0].entries[at - 1].plan or at > len(trace.entries)
    assert name in trace.entries[at - 1].name
    found = first_fault(trace, kept, honest[0])
    assert found is not None
    assert (found[0], found[1].fault, rounds) == (at, "plan", 3)


# ------------------------------------------------------------------------------------------------------------------ D2


@pytest.mark.parametrize("kind", ["llama", "cnn"])
def test_d2_honest_work_of_another_instruction_set_passes(kind, tmp_path):
    file = tmp_path / "operators"
    quiet = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("operators_worker.py")), str(file), kind],
        env={**os.environ, **quiet, "ATEN_CPU_CAPABILITY": "default"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data, there = file.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        there.append(Kept.unpack(data[8 : 8 + size]))
        data = data[8 + size :]
    plan, here = Work(kind).record(ALL)
    verdicts = [check_within(operator) for operator in there]
    assert [verdict.fact for verdict in verdicts if not verdict.ok] == []
    assert len(there) == len(here) == len([entry for entry in plan.entries if entry.number in here])
    assert [operator.entry.plan for operator in there] == [operator.entry.plan for operator in here.values()]
    if done.stdout.strip() == torch.backends.cpu.get_cpu_capability():
        pytest.skip("this processor has one instruction set only")
    assert sum(one.entry.leaf != other.entry.leaf for one, other in zip(there, here.values(), strict=True)) > 20


@pytest.mark.parametrize("tight", [False, True])
def test_d2_honest_work_has_no_fault_and_nothing_unjudged(work, honest, tight):
    trace, kept = honest
    assert first_fault(trace, kept, work.record()[0], tight) is None
    assert unjudged(trace) == []


@pytest.mark.parametrize("lie", HIDDEN)
def test_d2_every_hidden_cheat_is_found_where_it_happened(work, honest, lie):
    trace, kept = work.record(ALL, lie=lie)
    found = first_fault(trace, kept, honest[0])
    assert found is not None
    at, verdict = found
    assert verdict.fault == "value"
    assert verdict.ratio > 3
    assert trace.entries[at - 1].name.split(".")[1] == HIDDEN[lie][1]


def test_d2_contents_that_are_kept_back_or_swapped_lose(work, honest):
    trace, kept = honest
    some = {number: operator for number, operator in kept.items() if number != 50}
    found = first_fault(trace, some, trace)
    assert found is not None
    assert (found[0], found[1].fault) == (50, "served")
    blocks = tuple(block.clone() for block in kept[50].after)
    blocks[0][0] ^= 1
    verdict = check_within(replace(kept[50], after=blocks))
    assert (verdict.ok, verdict.fault) == (False, "served")
    assert check_exactly(replace(kept[50], after=blocks)).fault == "served"


def test_d2_reading_something_else_than_the_source_wrote_loses(honest):
    trace, _ = honest
    entry = next(entry for entry in trace.entries if entry.inputs and entry.inputs[0].source > 0)
    other = replace(entry, inputs=(replace(entry.inputs[0], content=bytes(32)), *entry.inputs[1:]))
    entries = tuple(other if e is entry else e for e in trace.entries)
    assert check_wiring(trace, entry.number).ok
    assert check_wiring(replace(trace, entries=entries), entry.number).fault == "wiring"
    later = replace(entry, inputs=(replace(entry.inputs[0], source=entry.number), *entry.inputs[1:]))
    entries = tuple(later if e is entry else e for e in trace.entries)
    assert check_wiring(replace(trace, entries=entries), entry.number).fault == "wiring"


def test_d2_another_start_or_an_early_end_loses(honest):
    trace, kept = honest
    elsewhere = replace(trace, given=(bytes(32), *trace.given[1:]))
    assert first_fault(elsewhere, kept, trace)[1].fault == "given"
    short = replace(trace, entries=trace.entries[:-3])
    assert first_fault(short, kept, trace)[0] == len(trace.entries) - 2


# -------------------------------------------------------------------------------------------------------------- bounds


def kept_of(run) -> list[Kept]:
    with Recorder(ALL) as recorder:
        run()
    return list(recorder.kept.values())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), inner=st.integers(1, 2000), spread=st.floats(0, 4))
def test_a_product_within_its_bound_in_any_order_and_bf16_beyond_it(seed, inner, spread):
    draws = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randn(4, inner, generator=draws) * torch.exp(spread * torch.randn(inner, generator=draws)) for _ in "ab"
    )
    [kept] = kept_of(lambda: torch.mm(a, b.t()))
    assert check_within(kept).ok
    order = torch.randperm(inner, generator=draws)
    total = torch.zeros(4, 4)
    for at in order.tolist():  # one after the other: the worst order that there is
        total = total + a[:, at, None] * b[:, at]
    reference, error = bounds.bounds_of("aten.mm.default", [a, b.t()], {})[0]
    assert ((total.double() - reference).abs() <= error * (1 + 2**-20)).all()


@pytest.mark.parametrize("inner", [64, 1024])
def test_half_precision_is_beyond_the_tight_bound(inner):
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(16, inner, generator=draws), torch.randn(inner, 16, generator=draws)
    [kept] = kept_of(lambda: torch.mm(a, b))
    low = torch.mm(a.bfloat16(), b.bfloat16()).float()
    reference, error = bounds.bounds_of("aten.mm.default", [a, b], {})[0]
    bounds.Growth.tight = True
    tighter = bounds.bounds_of("aten.mm.default", [a, b], {})[0][1]
    bounds.Growth.tight = False
    assert check_within(kept, tight=True).ok
    assert ((low - reference).abs() / tighter).max() > 3
    assert (tighter <= error).all()


LAYERS = {
    "layer norm": (torch.nn.LayerNorm(32), (6, 32)),
    "gelu": (torch.nn.GELU(), (50, 7)),
    "gelu by tanh": (torch.nn.GELU("tanh"), (50, 7)),
    "softmax": (torch.nn.Softmax(-1), (8, 33)),
    "tanh": (torch.nn.Tanh(), (50, 7)),
    "sigmoid": (torch.nn.Sigmoid(), (50, 7)),
    "convolution": (torch.nn.Conv2d(3, 5, 3, padding=1), (2, 3, 9, 9)),
    "convolution in groups": (torch.nn.Conv2d(4, 8, 3, stride=2, groups=2), (2, 4, 9, 9)),
    "max pool": (torch.nn.MaxPool2d(3, 2), (2, 3, 9, 9)),
    "average pool": (torch.nn.AvgPool2d(2), (2, 3, 8, 8)),
    "linear": (torch.nn.Linear(40, 3), (5, 40)),
}


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("name", LAYERS)
def test_bounds_hold_for_layers_and_find_a_thousandth(name, size):
    module, shape = LAYERS[name]
    given = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * size).requires_grad_()

    weights = torch.linspace(0.5, 1.5, module(given).numel())

    def run() -> None:
        (module(given).reshape(-1) * weights).sum().backward()

    found = kept_of(run)
    verdicts = [check_within(kept) for kept in found]
    assert [verdict.fact for verdict in verdicts if not verdict.ok] == []
    assert max(verdict.ratio for verdict in verdicts) < 1
    for kept in found:
        if kept.entry.name == "aten.sum.default":
            continue  # what cancels may err by more than a thousandth of what is left
        if not any(out.is_floating_point() and out.abs().max() > 1e-6 for out in kept.outputs()):
            continue
        blocks = tuple(_thousandth(block, kept) for block in kept.after)
        entry = replace(kept.entry, outputs=tuple(_content(block) for block in blocks))
        assert not check_within(replace(kept, entry=entry, after=blocks)).ok, kept.entry.name


def _thousandth(block: torch.Tensor, kept: Kept) -> torch.Tensor:
    types = {out.dtype for out in kept.outputs()}
    if torch.float32 not in types or block.numel() % 4:
        return block
    return (block.view(torch.float32) * 1.001).view(torch.uint8)


def _content(block: torch.Tensor) -> bytes:
    from minga.verify.operators_plan import content

    return content(block)


def test_an_operator_without_a_bound_is_said_to_have_none():
    [kept, *_] = [kept for kept in kept_of(lambda: torch.linalg.inv(torch.eye(3) * 2)) if "inv" in kept.entry.name]
    verdict = check_within(kept)
    assert (verdict.ok, verdict.fault) == (False, "bound")
    with pytest.raises(InvalidInput, match="no error bound"):
        bounds.bounds_of(kept.entry.name, [torch.eye(3)], {})
    with pytest.raises(InvalidInput, match="no error bound"):
        bounds.bounds_of("aten._foreach_erfc.default", [[torch.eye(3)]], {})
    assert not bounds.has_bound("aten._foreach_erfc.default")
