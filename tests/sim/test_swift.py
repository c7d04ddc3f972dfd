"""The faster copy gives what `dataclasses.replace` gives, and where it cannot, it is that."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol import job_moves
from minga.protocol.job_lease import Lease
from minga.protocol.job_state import begin
from minga.provider import turn
from minga.sim import swift
from minga.sim.shape import shape_of
from minga.sim.world import World, run_world

DEAL = ev.Deal("p", "m", "o", Amount(9), 1, 10, Amount(1), 60, 99, 3600)


@dataclass(frozen=True)
class Plain:
    """Fields and no more."""

    one: int
    two: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Slotted:
    """The same in slots."""

    one: int
    two: tuple[int, ...] = ()


@dataclass(frozen=True)
class Derived:
    """A field that its own `__init__` makes."""

    one: int
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", 2 * self.one)


@dataclass(frozen=True)
class Remembering:
    """A value that is kept beside the fields."""

    one: int

    @cached_property
    def twice(self) -> int:
        """Of the one."""
        return 2 * self.one


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (Plain(1, (2,)), {"one": 5}),
        (Plain(1, (2,)), {}),
        (Slotted(1, (2,)), {"two": (7, 8)}),
        (Slotted(1), {"one": 2, "two": (3,)}),
        (begin(ev.Plan("job", Amount(5))), {"phase": "quoting", "seek_at": 9}),
        (Lease(0, DEAL, {"a": 1}, Amount(7)), {"signed": Amount(3)}),
    ],
)
def test_a_copy_is_what_the_usual_one_is(value, changes):
    usual = dataclasses.replace(value, **changes)
    for _ in range(2):  # the second from the plan that the first made
        quick = swift.replace(value, **changes)
        assert quick == usual
        assert type(quick) is type(value)
        assert hash(quick) == hash(usual) if not isinstance(value, Lease) else True
    assert quick is not value


@pytest.mark.parametrize("value", [Plain(1), Slotted(1)])
def test_a_change_that_is_no_field_is_refused(value):
    with pytest.raises(TypeError):
        swift.replace(value, three=3)


def test_a_derived_field_is_derived_anew():
    assert swift.replace(Derived(1), one=4).twice == 8


def test_what_is_kept_beside_the_fields_is_not_carried_over():
    value = Remembering(1)
    assert value.twice == 2
    assert swift.replace(value, one=4).twice == 8


def test_a_frozen_copy_is_frozen():
    copy = swift.replace(Slotted(1), one=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.one = 3


def test_it_is_there_while_it_is_wanted_and_gone_afterwards():
    for wanted in (True, False):
        with swift.installed(wanted):
            for module in (job_moves, turn):
                assert (module.replace is swift.replace) is wanted
        assert job_moves.replace is turn.replace is dataclasses.replace


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_one_seed_has_one_trace_with_it_and_without(seed, monkeypatch):
    quick = run_world(shape_of(seed)).trace
    monkeypatch.setattr(swift, "installed", lambda wanted: nullcontext())
    assert run_world(shape_of(seed)).trace == quick


def test_worlds_of_real_keys_go_without(monkeypatch):
    asked = []
    monkeypatch.setattr(swift, "installed", lambda wanted: asked.append(wanted) or nullcontext())
    for seed in (1, 64):
        World(shape_of(seed)).run()
    assert asked == [True, False]
