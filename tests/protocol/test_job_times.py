"""Where the time of a job went: every second has a state, and was paid or has a reason."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from job_world import World, closed, deal_of, opened, plan_of

from minga.protocol import job_events as ev
from minga.protocol.job_lease import Lease
from minga.protocol.job_times import Times, account


def told(world: World, times: Times, *events: ev.Event, after: int = 0) -> None:
    """Tell events, the first of them `after` seconds later."""
    world.now += after
    for event in events:
        before = world.state
        world.tell(event)
        times.note(before, event, world.now)


def begin(plan: ev.Plan | None = None, **deal) -> tuple[World, Times]:
    world, times = World(plan or plan_of()), Times()
    told(world, times, ev.Funded(), ev.Found(deal_of(**deal), {}))
    told(world, times, opened(0), after=2)
    told(world, times, ev.Sent(0), after=3)
    told(world, times, ev.Started(0), ev.PhaseSeen(0, 1, "running"), after=4)
    return world, times


def test_a_lease_that_worked_paused_and_ended() -> None:
    world, times = begin()
    told(world, times, ev.Metered(0, 2, 5, 5), after=5)
    told(world, times, ev.PhaseSeen(0, 3, "paused"), after=1)
    told(world, times, ev.PhaseSeen(0, 4, "running"), after=7)
    told(world, times, ev.Exited(0, 5, 0, "done", 8, 15), after=2)
    told(world, times, ev.Gathered(0), after=4)
    lease = world.state.lease
    assert lease is not None
    told(world, times, ev.Paid(0, lease.signed))
    told(world, times, closed(world, 0, 8000), after=1)
    found = account(world.state.past[0], times.seconds[0])
    assert found.seconds == {
        "opening": 2, "sending": 3, "starting": 4, "working": 8, "paused": 7, "collecting": 4, "closing": 1,
    }  # fmt: skip
    assert found.paid_s == 8
    assert found.unpaid == {name: count for name, count in found.seconds.items() if name != "working"}


def test_a_silence_is_no_work_and_what_was_not_vouched_for_is_said() -> None:
    world, times = begin()
    told(world, times, ev.Metered(0, 2, 5, 5), after=5)
    told(world, times, ev.Lost(0, "provider-unreachable", "no answer", 15), after=19)
    found = account(world.state.past[0], times.seconds[0])
    assert (found.seconds["working"], found.seconds["unreachable"]) == (9, 15)
    assert found.paid_s == 5
    assert found.unpaid["unreachable"] == 15
    assert found.unpaid["not claimed as work"] == 4


def test_each_reason_is_named() -> None:
    lease = Lease(0, deal_of(), {}, 100_000, working_s=30, elapsed_s=30, signed=10_000, checked=True, accepted_s=12)
    found = account(lease, {"working": 40})
    assert (found.paid_s, found.unpaid) == (
        10, {"not accepted": 18, "no voucher before it ended": 2, "not claimed as work": 10},
    )  # fmt: skip
    reclaimed = replace(lease, checked=False, limit_s=20, limit_why="reclaimed", signed=20_000)
    assert account(reclaimed, {"working": 40}).unpaid == {"reclaimed": 10, "not claimed as work": 10}
    idle = replace(lease, checked=False, limit_s=0, limit_why="idle", signed=0, away=True)
    assert account(idle, {"working": 31, "away": 5}).unpaid == {"idle": 30, "our runner was away": 6}


def test_time_of_an_absent_runner_is_its_own() -> None:
    world, times = begin()
    told(world, times, ev.Metered(0, 2, 5, 5), after=5)
    told(world, times, ev.Resumed(600), after=600)
    assert times.seconds[0]["away"] == 600
    assert times.seconds[0]["working"] == 5


def test_a_calendar_that_goes_back_takes_nothing_away() -> None:
    world, times = begin()
    told(world, times, ev.Metered(0, 2, 5, 5), after=5)
    told(world, times, ev.Metered(0, 3, 6, 6), after=-3600)
    told(world, times, ev.Metered(0, 4, 7, 7), after=1)
    assert times.seconds[0]["working"] == 6


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_second_is_paid_or_has_a_reason(data) -> None:
    world, times = begin(plan_of(accept=data.draw(st.booleans()), max_idle_s=data.draw(st.sampled_from([None, 20]))))
    start, number = 1000, 2
    for _ in range(data.draw(st.integers(0, 15))):
        lease = world.state.lease
        if lease is None:
            break
        number += 1
        passed, worked = data.draw(st.integers(0, 9)), lease.working_s + data.draw(st.integers(0, 9))
        seen = lease.elapsed_s + passed
        event = data.draw(
            st.sampled_from(
                [
                    ev.Metered(0, number, worked, seen, data.draw(st.integers(0, 30))),
                    ev.PhaseSeen(0, number, "paused", "", seen), ev.PhaseSeen(0, number, "running", "", seen),
                    ev.PhaseSeen(0, number, "stopping", "reclaimed: x", seen), ev.CheckpointSeen(0, number, seen),
                    ev.CheckpointKept(0, number, 1), ev.Lost(0, "provider-unreachable", "x", passed),
                    ev.Exited(0, number, 0, "done", worked, seen), ev.Gathered(0), ev.Resumed(passed),
                ]
            )
        )  # fmt: skip
        told(world, times, event, after=passed)
    lease = world.state.lease or world.state.past[0]
    found = account(lease, times.seconds[0])
    if world.state.lease is not None:
        assert sum(found.seconds.values()) == world.now - start
    covered = sum(found.seconds.values()) - sum(found.unpaid.values())
    assert covered == min(found.paid_s, found.seconds.get("working", 0) + found.seconds.get("away", 0))
    assert all(count > 0 for count in found.unpaid.values())
