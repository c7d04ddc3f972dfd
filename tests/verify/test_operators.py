"""Operator traces: the same for the same work, complete, and what a referee is served fits them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from steps import ALL, Work

from minga.core.errors import InvalidInput
from minga.protocol.merkle import Tree, proves
from minga.verify import operators_plan as plans
from minga.verify.grid import Grid
from minga.verify.operators import Entry, Kept, Recorder, Wire


@pytest.fixture(scope="module")
def work() -> Work:
    return Work()


@pytest.mark.parametrize("kind", ["llama", "cnn"])
@pytest.mark.parametrize("grid", [False, True])
def test_the_same_step_has_the_same_leaves(kind, grid):
    work = Work(kind)
    first, second = work.record(grid=grid)[0], work.record(grid=grid)[0]
    assert first.leaves == second.leaves
    assert len(set(first.leaves)) == len(first.leaves) == len(first.entries) + 2
    assert work.record(grid=not grid)[0].leaves != first.leaves
    tree = Tree(first.leaves)
    assert proves(tree.root, tree.rounds, 7, first.leaves[7], tree.proof(7))


def test_views_are_no_operators_and_changes_are(work):
    a = torch.arange(6.0).reshape(2, 3)
    with Recorder() as recorder:
        b = a.t()[1:].detach()
        b.add_(1)
        c = a.t().contiguous()
        _ = c[:2] + b
    names = [entry.name for entry in recorder.trace().entries]
    assert names == ["aten.add_.Tensor", "aten.clone.default", "aten.add.Tensor"]
    last = recorder.trace().entries[2]
    assert [wire.source for wire in last.inputs] == [2, 1]
    assert '"at":[0,[2,2],[2,1]]' in last.plan
    assert '"at":[1,[2,2],[1,3]]' in last.plan


def test_sources_follow_the_content_through_memory():
    a, b = torch.ones(4), torch.ones(4)
    with Recorder() as recorder:
        c = a * 2
        c[1:3].mul_(3)
        d = c + b
        del c
        e = torch.zeros(4)
        torch._foreach_add_([d, e], 1.0)
        _ = d + e
    entries = recorder.trace().entries
    assert [[wire.source for wire in entry.inputs] for entry in entries] == [[0], [1], [2, 0], [], [3, 4], [5, 5]]
    assert [wire.output for wire in entries[-1].inputs] == [0, 1]


def test_the_last_leaf_holds_what_the_step_left():
    a = torch.ones(3)
    traces = []
    for _ in range(2):
        with Recorder(given=[a]) as recorder:
            a.add_(1)
        traces.append(recorder.trace())
    assert traces[0].left == traces[1].given != traces[0].given
    assert traces[0].leaves[-1] != traces[1].leaves[-1]
    cut = replace(traces[0], entries=())
    assert cut.leaves[-1] != traces[0].leaves[-1]


def test_memory_without_content_and_numbers_for_python():
    def run() -> Recorder:
        with Recorder(ALL) as recorder:
            a = torch.empty(1000)
            a.fill_(2.0)
            a.sum().item()
        return recorder

    first, second = run(), run()
    assert first.trace().leaves == second.trace().leaves
    assert [entry.name for entry in first.trace().entries][::3] == [
        "aten.empty.memory_format",
        "aten._local_scalar_dense.default",
    ]
    assert sorted(first.kept) == [2, 3]


def test_random_operators_are_done_again_from_their_state():
    with Recorder(ALL) as recorder:
        torch.manual_seed(5)
        made = torch.nn.functional.dropout(torch.ones(64), 0.5)
    kept = next(kept for kept in recorder.kept.values() if "bernoulli" in kept.entry.name)
    assert len(kept.random) > 1000
    assert kept.is_served()
    assert not replace(kept, random=kept.random[::-1]).is_served()
    assert set(made.tolist()) == {0.0, 2.0}


def test_what_is_served_is_packed_and_read_again(work):
    _, kept = work.record(ALL)
    for operator in kept.values():
        again = Kept.unpack(operator.pack())
        assert again.entry == operator.entry
        assert again.is_served()
        assert all(torch.equal(a, b) for a, b in zip(again.outputs(), operator.outputs(), strict=True))
    some = kept[max(kept)]
    assert not replace(some, after=tuple(block ^ 1 for block in some.after)).is_served()
    assert not replace(some, before=()).is_served()


@pytest.mark.parametrize("cut", [0, 3, 20, -1])
def test_what_is_cut_short_is_refused_or_not_what_was_recorded(work, cut):
    operator = work.record(range(30, 31))[1][30]
    try:
        assert not Kept.unpack(operator.pack()[:cut]).is_served()
    except InvalidInput as error:
        assert "packed operator" in error.fact  # noqa: PT017 - either way it does not pass


def _altered(plan: str, **change: object) -> Kept:
    block = torch.zeros(16, dtype=torch.uint8)
    described = {"block": 0, "source": [0, 0], "type": "float32", "at": [0, [4], [1]], **change}
    text = json.dumps({"args": [{"tensor": described}], "kwargs": {}, "results": [], "random": ""})
    entry = Entry(1, plan, text, (Wire(0, 0, plans.content(block)),), ())
    return Kept(entry, (block,), ())


@pytest.mark.parametrize(
    "change",
    [
        {"at": [0, [5], [1]]}, {"at": [1, [4], [1]]}, {"at": [0, [2, 2], [4, 1]]}, {"at": [-1, [1], [1]]},
        {"at": [0, [4], [-1]]}, {"type": "float64"}, {"type": "nothing"}, {"type": "contiguous_format"}, {"block": 1},
        {"at": [0, ["a"], [1]]}, {"at": [0]},
    ],
)  # fmt: skip
def test_a_tensor_cannot_reach_beyond_what_was_served(change):
    assert _altered("aten.neg.default").call()[1][0].tolist() == [0.0] * 4
    with pytest.raises(InvalidInput, match="does not lie"):
        _altered("aten.neg.default", **change).call()


@pytest.mark.parametrize("name", ["aten.nothing.default", "aten.mm", "os.system.default", "aten.mm.nothing", "a b"])
def test_a_plan_names_operators_only(name):
    with pytest.raises(InvalidInput, match="operator"):
        _altered(name).call()


def test_numbers_keep_all_their_bits():
    for value in (0.1, -0.0, 1e-320, float("inf"), 3, True, None, "none", [0.1, 2]):
        found = plans.built(json.loads(json.dumps(plans.plain(value, plans.lie))), [])
        assert repr(found) == repr(value)
    for named in (torch.float32, torch.strided, torch.preserve_format):
        assert plans.built(plans.plain(named, plans.lie), []) is named
    with pytest.raises(InvalidInput, match="names"):
        plans.built({"named": "torch.load"}, [])


def test_a_trace_on_the_grid_is_that_of_the_grid():
    values = torch.arange(1000.0).sin()
    with Grid(), Recorder() as exact:
        forward = values.sum()
    with Grid(), Recorder() as again:
        assert values.flip(0).sum().shape == forward.shape
    assert exact.trace().entries[0].outputs == again.trace().entries[1].outputs
