"""Random programs of operators: copies, views, changes in place, lists. Whatever they do, a trace of them holds.

Each seed is a program over a few tensors; it is recorded twice, replayed operator by operator, and lied about in one
place, which must be found there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import ALL
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minga.protocol.merkle import Tree, fold, proves, rounds_for
from minga.verify.grid import Grid
from minga.verify.operators import Kept, Recorder, Trace, has_content
from minga.verify.operators_check import check_exactly, check_wiring, check_within, first_difference, first_fault

SIZE = 6
Move = Callable[[random.Random, list[Tensor]], None]
SEEDS = st.integers(0, 2**32 - 1)


def _new(dice: random.Random, held: list[Tensor], value: Tensor) -> None:
    """Kept as one of the program's tensors, bounded, in the place of another."""
    held[dice.randrange(len(held))] = value.clamp(-4, 4)


def _one(dice: random.Random, held: list[Tensor]) -> Tensor:
    return dice.choice(held)


MOVES: list[Move] = [
    lambda dice, held: _new(dice, held, _one(dice, held) + _one(dice, held)),
    lambda dice, held: _new(dice, held, _one(dice, held) * dice.choice((0.5, -1.25, 3))),
    lambda dice, held: _new(dice, held, _one(dice, held) @ _one(dice, held)),
    lambda dice, held: _new(dice, held, torch.addmm(_one(dice, held), _one(dice, held), _one(dice, held))),
    lambda dice, held: _new(dice, held, _one(dice, held).t().tanh()),
    lambda dice, held: _new(dice, held, _one(dice, held).softmax(dice.choice((0, 1)))),
    lambda dice, held: _new(dice, held, _one(dice, held).sum(0, keepdim=True).expand(SIZE, SIZE).contiguous()),
    lambda dice, held: _new(dice, held, torch.cat([_one(dice, held)[:2], _one(dice, held)[2:]])),
    lambda dice, held: _new(dice, held, torch.where(_one(dice, held) > 0, _one(dice, held), _one(dice, held))),
    lambda dice, held: _new(dice, held, torch.empty(SIZE, SIZE).fill_(dice.random())),
    lambda dice, held: _new(dice, held, torch.nn.functional.dropout(_one(dice, held), 0.25)),
    lambda dice, held: held.append(held.pop(0).t()),
    lambda dice, held: held.append(held.pop(0).clone()),
    lambda dice, held: _one(dice, held).mul_(0.75),
    lambda dice, held: _one(dice, held)[dice.randrange(SIZE)].add_(1),
    lambda dice, held: _one(dice, held)[:, :2].zero_(),
    lambda dice, held: _one(dice, held).copy_(_one(dice, held).clone()),
    lambda dice, held: torch._foreach_add_([held[0].clone(), held[1].clone()], 0.5),
    lambda dice, held: _one(dice, held).diagonal().fill_(0.5),
]  # fmt: skip


def begun() -> list[Tensor]:
    values = (torch.arange(4.0 * SIZE * SIZE) * 0.7).sin()
    return [part.clone() for part in values.reshape(4, SIZE, SIZE)]


class Twist(TorchDispatchMode):
    """Changes one number in the first result of the operator with the number `at`, counted as the recorder counts."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.recorder: Recorder | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        target = result if isinstance(result, Tensor) else args[0] if args else None
        if self.recorder is None or len(self.recorder._entries) + 1 != self.at or not isinstance(target, Tensor):
            return result
        place = target.untyped_storage().data_ptr()
        view = any(isinstance(arg, Tensor) and arg.untyped_storage().data_ptr() == place for arg in args)
        if target.dtype == torch.float32 and (func._schema.is_mutable or not view):
            target.add_(0.125)
        return result


def record(seed: int, moves: int, grid: bool = False, twist: int = 0) -> tuple[Trace, dict[int, Kept]]:
    """A program of so many moves."""
    dice, held = random.Random(seed), begun()
    torch.manual_seed(seed % 2**31)
    lie = Twist(twist)
    with Grid() if grid else nullcontext(), lie if twist else nullcontext():
        recorder = Recorder(ALL, held)
        lie.recorder = recorder
        with recorder:
            for _ in range(moves):
                dice.choice(MOVES)(dice, held)
        lie.recorder = None
    return recorder.trace(), recorder.kept


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, moves=st.integers(1, 40), grid=st.booleans())
def test_a_program_has_one_trace_and_each_operator_can_be_done_again(seed, moves, grid):
    trace, kept = record(seed, moves, grid)
    again, _ = record(seed, moves, grid)
    assert trace.leaves == again.leaves
    assert [entry.number for entry in trace.entries] == list(range(1, len(trace.entries) + 1))
    assert {entry.number for entry in trace.entries if has_content(entry)} == set(kept)
    for number, operator in kept.items():
        assert operator.is_served()
        assert check_wiring(trace, number).ok
        assert check_exactly(operator, grid).ok, operator.entry.name


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, moves=st.integers(1, 40))
def test_d2_finds_no_fault_in_an_honest_program(seed, moves):
    trace, kept = record(seed, moves)
    for operator in kept.values():
        verdict = check_within(operator)
        assert verdict.ok or verdict.fault == "bound", verdict
    assert first_fault(trace, kept, record(seed, moves)[0]) is None


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, moves=st.integers(5, 40), share=st.floats(0, 1))
def test_a_lie_is_found_where_it_was_told(seed, moves, share):
    honest, contents = record(seed, moves)
    places = [number for number in contents if not honest.entries[number - 1].name.startswith("aten._foreach")]
    if not places:
        return
    at = places[min(int(share * len(places)), len(places) - 1)]
    trace, kept = record(seed, moves, twist=at)
    if trace.leaves == honest.leaves:  # an operator that gives no float32
        return
    found, rounds = first_difference(trace.leaves, honest.leaves)
    assert (found, rounds) == (at, rounds_for(len(honest.leaves)))
    assert not check_exactly(kept[at]).ok or kept[at].random
    fault = first_fault(trace, kept, honest)
    assert fault is None or fault[0] >= at


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 400), at=st.integers(0, 399))
def test_a_game_over_operators_is_one_that_the_contract_can_follow(count, at):
    """Round by round: 16 nodes that fold to the one in play, a pick, and at the end a proof of the leaf."""
    leaves = [index.to_bytes(32, "big") for index in range(1, count + 1)]
    at %= count
    lied = [*leaves[:at], b"\xee" * 32, *leaves[at + 1 :]]
    here, there = Tree(lied), Tree(leaves)
    node, value = 0, here.root
    for done in range(here.rounds):
        shown = here.children(done, node)
        assert fold(shown) == value
        pick = next(n for n in range(16) if shown[n] != there.children(done, node)[n])
        node, value = 16 * node + pick, shown[pick]
    assert (node, value) == (at, b"\xee" * 32)
    assert (node, here.rounds) == first_difference(lied, leaves)
    assert proves(here.root, here.rounds, node, value, here.proof(node))


def test_what_a_lie_costs_the_liar_in_bytes():
    """A referee reads one operator's storages, not the step's."""
    _, kept = record(3, 40)
    served = max(len(operator.pack()) for operator in kept.values())
    assert served < 8192
    assert sum(len(operator.pack()) for operator in kept.values()) > 10 * served


def test_a_recorder_reads_but_does_not_change():
    plain, watched = begun(), begun()
    for held, context in ((plain, nullcontext()), (watched, Recorder(ALL))):
        dice = random.Random(11)
        torch.manual_seed(1)
        with context:
            for _ in range(60):
                dice.choice(MOVES)(dice, held)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_programs_on_the_grid_and_off_it_have_the_same_plan(seed):
    off, on = record(seed, 30)[0], record(seed, 30, grid=True)[0]
    assert [entry.name for entry in off.entries] == [entry.name for entry in on.entries]
    assert off.leaves[0] == on.leaves[0]
