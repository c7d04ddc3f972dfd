"""A job whose pay is held back: settled when only the hold remains, and what a verdict gives back goes home."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_world import World, closed, deal_of, plan_of, running, work

from minga.protocol import job_events as ev
from minga.protocol.job_moves import NO_TRACE
from minga.protocol.job_state import TERMINAL
from minga.protocol.lease import Why


def held(world: World, attempt: int, paid: int, part: int = 10) -> ev.LeaseClosed:
    """The lease's end, with a part of its pay held back."""
    event = closed(world, attempt, paid)
    kept = event.paid // part
    return replace(event, paid=event.paid - kept, held=kept)


def settled(part: int = 10) -> World:
    """A job that is done; a part of what it paid is held back."""
    world = World(plan_of())
    running(world)
    work(world, 10)
    world.tell(ev.Exited(0, 90, 0, "", 10, 10), ev.Gathered(0))
    while world.wants(ev.Pay):
        world.tell(ev.Paid(0, world.one(ev.Pay).cumulative))
    world.tell(held(world, 0, 10_000, part), ev.Returned(90_000))
    return world


def test_the_tenant_is_settled_when_only_the_hold_remains() -> None:
    world = settled()
    state = world.state
    assert (state.phase, state.settled, state.over, state.on_hold) == ("done", True, False, 990)
    assert state.spent == 10_000
    assert state.available == 90_000
    assert world.one(ev.AwaitHold) == ev.AwaitHold(0)


def test_what_is_released_ends_it_and_brings_the_gas_home() -> None:
    world = settled()
    state = world.tell(ev.HoldEnded(0, 0, 990))
    assert (state.settled, state.on_hold) == (False, 0)
    assert world.one(ev.Return) == ev.Return(1)
    state = world.tell(ev.Returned(0))
    assert state.over
    assert not world.wants(ev.AwaitHold)
    assert (state.spent, state.past[0].paid) == (10_000, 9_900)


def test_what_a_verdict_gives_back_is_returned_and_not_spent() -> None:
    world = settled()
    state = world.tell(ev.HoldEnded(0, 990, 0, 7_000))
    assert state.spent == 9_010
    assert state.past[0].awarded == 7_000
    assert world.wants(ev.Return)
    state = world.tell(ev.Returned(7_990))
    assert (state.returned, state.over) == (97_990, True)


def test_it_is_heard_once_and_only_of_a_lease_that_holds() -> None:
    world = settled()
    state = world.tell(ev.HoldEnded(0, 990, 0), ev.Returned(990))
    assert world.tell(ev.HoldEnded(0, 990, 0)) == state
    plain = World(plan_of())
    running(plain)
    before = plain.state
    assert plain.tell(ev.HoldEnded(0, 1, 1)) == before


def test_a_verdict_that_comes_while_the_rest_is_on_its_way_is_followed_by_another_return() -> None:
    world = World(plan_of())
    running(world)
    work(world, 4)
    world.tell(ev.Exited(0, 90, 0, "", 4, 4), ev.Gathered(0))
    while world.wants(ev.Pay):
        world.tell(ev.Paid(0, world.one(ev.Pay).cumulative))
    world.tell(held(world, 0, 4_000))
    assert world.one(ev.Return) == ev.Return(0)
    world.tell(ev.HoldEnded(0, 396, 0))
    state = world.tell(ev.Returned(96_000))
    assert (state.unreturned, world.one(ev.Return)) == (True, ev.Return(1))
    assert world.tell(ev.Returned(396)).over


def test_a_lease_that_was_left_may_hold_while_the_job_goes_on() -> None:
    world = World(plan_of())
    running(world)
    work(world, 4)
    world.tell(ev.PhaseSeen(0, 91, "failed", "its machine died"), held(world, 0, 4_000))
    assert world.state.phase == "recovering"
    assert world.wants(ev.AwaitHold)
    available = world.state.available
    state = world.tell(ev.HoldEnded(0, 396, 0))
    assert state.available == available + 396, "it may be spent on the next lease"
    assert not world.wants(ev.Return)


def lost(world: World, attempt: int, code: str) -> None:
    """Exit, and results that are not accepted."""
    world.tell(ev.Exited(attempt, 90, 0, "", 1, 1), ev.Lost(attempt, code, "it lied"))


@pytest.mark.parametrize("code", ["bad-result", NO_TRACE])
def test_results_that_are_not_committed_to_are_not_paid_and_made_again(code: str) -> None:
    world = World(plan_of())
    running(world)
    world.now += 2
    world.tell(ev.Metered(0, 3, 2, 2))
    signed = world.state.leases[0].signed
    lost(world, 0, code)
    state = world.state
    assert (state.phase, state.ending) == ("recovering", None)
    (left,) = state.past
    assert (left.signed, left.why, left.left) == (signed, Why.BAD_RESULT, f"{code}: it lied")
    assert world.one(ev.StartClose) == ev.StartClose(0, Why.BAD_RESULT)


def test_a_job_that_leaves_no_trace_anywhere_is_itself_to_blame() -> None:
    world = World(plan_of())
    running(world)
    lost(world, 0, NO_TRACE)
    running(world, deal_of(2), 1)
    lost(world, 1, NO_TRACE)
    assert world.state.ending is not None
    assert (world.state.ending.phase, world.state.ending.reason) == ("failed", "no-trace: it lied")
    assert not world.wants(ev.Find)


@given(st.integers(0, 990), st.integers(0, 10**6))
def test_however_it_is_divided_the_books_are_exact(to_tenant: int, awarded: int) -> None:
    world = settled()
    world.tell(ev.HoldEnded(0, to_tenant, 990 - to_tenant, awarded), ev.Returned(to_tenant + awarded))
    (lease,) = world.state.past
    assert lease.deposit == lease.paid + lease.fee + lease.held + lease.refunded
    assert world.state.over
    assert world.state.phase in TERMINAL
    assert world.state.returned == 90_000 + to_tenant + awarded
    assert world.replayed() == world.state
