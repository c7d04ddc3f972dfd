"""The job's state machine: money can never exceed its bounds, every job ends, and a replay is the same job.

A seeded world plays chain and provider, honest or not, in whatever order Hypothesis likes; the machine must hold its
promises in each of them. The named cases after it are the paths that a user meets.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_world import World, closed, deal_of, opened, plan_of, running

from minga.protocol import job as machine
from minga.protocol import job_events as ev
from minga.protocol.job_state import AT_WORK, effects, seconds_for, slice_for
from minga.protocol.pricing import cost_down

# ------------------------------------------------------------------------------------------------------- named paths


def test_a_job_that_works_is_paid_to_the_second() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Metered(0, 3, 3, 4))
    assert world.one(ev.Pay).cumulative == 3000
    world.tell(ev.Paid(0, 3000), ev.Exited(0, 4, 0, "done", 7, 7))
    assert world.state.phase == "collecting"
    assert not world.wants(ev.Pay), "the last seconds are paid after what they made was verified"
    world.tell(ev.Gathered(0))
    assert world.one(ev.Pay).cumulative == 7000
    world.tell(ev.Paid(0, 7000))
    world.one(ev.AskClose)
    world.tell(closed(world, 0, 7000))
    assert world.state.phase == "settling"
    world.one(ev.Return)
    world.tell(ev.Returned(93_000))
    assert world.state.phase == "done"
    assert world.state.settled
    assert world.state.ending is not None
    assert world.state.ending.exit_code == 0
    assert world.replayed() == world.state


def test_a_claim_beyond_the_clock_is_not_paid() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Metered(0, 3, 3000, 4))
    assert world.one(ev.Pay).cumulative == 5000


def test_time_unseen_while_the_runner_was_away_is_bounded_by_two_quanta() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Metered(0, 3, 3, 3), ev.Resumed(10_000), ev.Metered(0, 4, 9000, 13))
    assert world.state.lease is not None
    assert world.state.lease.signed == cost_down(3_600_000, 1, 14)
    assert world.state.lease.base_s == 13


def test_prepaid_quantum_is_signed_before_the_start() -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(prepaid_quanta=1), {}), opened(0), ev.Sent(0))
    assert world.one(ev.Pay).cumulative == 5000
    assert not world.wants(ev.Start)
    world.tell(ev.Paid(0, 5000))
    world.one(ev.Start)


def test_a_lost_provider_is_left_and_excluded_and_its_deposit_is_not_spent_twice() -> None:
    world = World(plan_of(budget=100_000))
    running(world)
    world.tell(ev.Metered(0, 3, 5, 5), ev.Paid(0, 5000))
    world.tell(ev.CheckpointSeen(0, 4), ev.CheckpointKept(0, 4, 1, 100))
    world.tell(ev.Lost(0, "provider-unreachable", "no answer for 15 s"))
    assert world.state.phase == "recovering"
    assert world.state.checkpoint == (0, 1, 100)
    assert deal_of().machine in dict(world.state.excluded)
    assert world.one(ev.StartClose).attempt == 0
    assert world.one(ev.Find).available == 75_000
    world.tell(ev.Found(deal_of(2), {}), opened(1), ev.ClosingStarted(0, 9999))
    assert world.state.locked == 25_000
    world.tell(ev.Sent(1), ev.Started(1), ev.PhaseSeen(1, 1, "running"), ev.Exited(1, 2, 0, "done", 1, 1))
    world.tell(ev.Gathered(1), ev.Paid(1, 1000), closed(world, 1, 1000), ev.Returned(74_000))
    assert world.state.phase == "done", "locked with amount and time known is settled enough"
    assert not world.state.settled
    assert world.one(ev.FinishClose).finish_at == 9999
    world.tell(closed(world, 0, 5000), ev.Returned(20_000))
    assert world.state.settled
    assert world.state.returned == 94_000
    assert world.replayed() == world.state


def test_a_refund_that_comes_while_another_is_returned_is_returned_by_a_transfer_of_its_own() -> None:
    """The transfer under way took what there was; an effect of the same name would find it done, and leave the rest."""
    world = World(plan_of(budget=100_000))
    running(world)
    world.tell(ev.Lost(0, "provider-unreachable", "no answer for 15 s"), ev.Found(deal_of(2), {}), opened(1))
    world.tell(ev.ClosingStarted(0, 9999), ev.Sent(1), ev.Started(1), ev.PhaseSeen(1, 1, "running"))
    world.tell(ev.Exited(1, 2, 0, "done", 1, 1), ev.Gathered(1), ev.Paid(1, 1000), closed(world, 1, 1000))
    under_way = world.one(ev.Return)
    world.tell(closed(world, 0, 0), ev.Returned(74_000))
    assert world.one(ev.Return) != under_way
    world.tell(ev.Returned(25_000))
    assert world.state.settled
    assert world.replayed() == world.state


def test_results_that_never_arrived_do_not_count_as_done() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Exited(0, 3, 0, "done", 5, 5), ev.Lost(0, "bad-artifact", "another hash"))
    assert world.state.ending is None
    assert world.state.phase == "recovering"
    assert world.one(ev.StartClose).why == 7


def test_a_provider_that_refuses_is_asked_to_close_so_that_nothing_is_locked() -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(), {}), opened(0))
    world.tell(ev.Lost(0, "out-of-capacity", "no room"))
    world.one(ev.AskClose)
    world.tell(closed(world, 0, 0))
    assert world.state.phase == "recovering"


def test_a_silent_close_is_overdue_and_we_close_ourselves() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Exited(0, 3, 0, "done", 2, 2), ev.Gathered(0), ev.Paid(0, 2000), ev.CloseOverdue(0))
    assert world.state.phase == "settling"
    world.one(ev.StartClose)
    assert not world.wants(ev.Return), "first the money that can still move"
    world.tell(ev.ClosingStarted(0, 5000))
    world.tell(ev.Returned(75_000))
    assert world.state.phase == "done"
    assert world.state.locked == 25_000


@pytest.mark.parametrize(("failures_max", "phase"), [(0, "collecting"), (1, "collecting")])
def test_the_jobs_own_failure_ends_it_unless_it_may_be_tried_again(failures_max: int, phase: str) -> None:
    world = World(plan_of(failures_max=failures_max))
    running(world)
    world.tell(ev.Exited(0, 3, 3, "the job ended with code 3", 2, 2))
    assert world.state.phase == phase
    world.tell(ev.Gathered(0), ev.Paid(0, 2000), closed(world, 0, 2000))
    if failures_max:
        assert world.state.phase == "recovering"
        assert dict(world.state.excluded) == {}
        return
    world.tell(ev.Returned(98_000))
    assert world.state.phase == "failed"
    assert world.state.ending == machine.Ending("failed", "the job ended with code 3", 3)


def test_a_budget_that_is_spent_stops_the_job_with_time_to_checkpoint() -> None:
    world = World(plan_of(budget=10_000))
    running(world)
    number = 3
    while not world.state.stopping:
        assert number < 40
        seconds = number - 2
        world.tell(ev.Metered(0, number, seconds, seconds))
        if world.wants(ev.Pay):
            world.tell(ev.Paid(0, world.one(ev.Pay).cumulative))
        if world.wants(ev.TopUp):
            world.tell(ev.ToppedUp(0, world.one(ev.TopUp).total))
        number += 1
    assert world.state.lease is not None
    assert world.state.lease.deposit == 10_000
    assert "budget" in world.one(ev.Stop).reason
    world.tell(ev.Exited(0, number, 143, "the budget is spent", number, number), ev.Gathered(0))
    if world.wants(ev.Pay):
        world.tell(ev.Paid(0, world.one(ev.Pay).cumulative))
    world.tell(closed(world, 0, world.state.lease.signed), ev.Returned(0))
    assert world.state.phase == "exhausted"
    assert world.state.spent <= 10_000


def test_a_deposit_that_cannot_grow_moves_the_job_instead_of_ending_it() -> None:
    world = World(plan_of(budget=200_000))
    running(world)
    world.tell(ev.Metered(0, 3, 32, 32))
    world.one(ev.TopUp)
    world.tell(ev.TopUpFailed(0, "lease-closing", "no"), ev.Metered(0, 4, 49, 49))
    assert world.state.ending is None
    world.one(ev.Stop)
    world.tell(ev.PhaseSeen(0, 5, "stopping", "asked"), ev.Exited(0, 6, 143, "asked", 49, 49), ev.Gathered(0))
    world.tell(ev.Paid(0, world.one(ev.Pay).cumulative), closed(world, 0, 49_000))
    assert world.state.phase == "recovering"
    assert dict(world.state.excluded) == {}


def test_no_voucher_at_the_provider_is_our_own_absence_and_its_machine_may_go_on() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.PhaseSeen(0, 3, "stopping", "no voucher", 5), ev.Exited(0, 4, 143, "no voucher", 5, 5))
    assert world.state.ending is None
    assert dict(world.state.excluded) == {}
    world.tell(ev.Gathered(0), ev.Paid(0, 5000), closed(world, 0, 5000))
    assert world.state.phase == "recovering"


@pytest.mark.parametrize("stage", range(6))
def test_a_stop_at_any_stage_ends_settled(stage: int) -> None:
    world = World(plan_of())
    script: list[ev.Event] = [
        ev.Funded(), ev.Found(deal_of(), {}), opened(0), ev.Sent(0), ev.Started(0),
        ev.PhaseSeen(0, 1, "running"),
    ]  # fmt: skip
    world.tell(*script[:stage], ev.StopAsked("enough"))
    for _ in range(30):
        if world.state.settled:
            break
        _obey(world, script)
    assert world.state.phase == "stopped"
    assert world.state.reason == "enough"
    assert world.state.settled


def _obey(world: World, script: list[ev.Event]) -> None:
    """Answer the first effect as an honest world would."""
    idle = ev.Watch | ev.Wake | ev.Start | ev.Patience
    wanted = [item for item in effects(world.state) if not isinstance(item, idle)]
    effect = wanted[0]
    lease = world.state.lease
    answers: dict[type, object] = {
        ev.Fund: lambda: ev.Funded(),
        ev.Open: lambda: opened(0),
        ev.Stop: lambda: ev.Exited(0, lease.seen + 1, 143, "stopped", 1, 1),
        ev.Gather: lambda: ev.Gathered(0),
        ev.Pay: lambda: ev.Paid(0, effect.cumulative),
        ev.AskClose: lambda: closed(world, 0, lease.signed),
        ev.Return: lambda: ev.Returned(1),
    }
    world.tell(answers[type(effect)]())


def test_the_deadline_stops_the_job() -> None:
    world = World(plan_of(deadline=1100))
    running(world)
    assert world.one(ev.Wake).at == 1100
    world.tell(ev.Ticked())
    assert world.state.ending is None
    world.now = 1100
    world.tell(ev.Ticked())
    assert world.state.ending is not None
    assert "deadline-passed" in world.one(ev.Stop).reason
    patience = world.one(ev.Patience)
    world.tell(ev.Overdue(0, patience.turn - 1))
    assert world.state.phase == "running", "what was overdue before the stop is not what is overdue now"
    world.tell(ev.Overdue(0, patience.turn))
    assert world.state.phase == "settling", "a provider that does not stop is left"


def test_offers_are_waited_for_and_then_given_up() -> None:
    world = World(plan_of(wait_s=10))
    world.tell(ev.Funded())
    first = world.one(ev.Find)
    world.tell(ev.NotFound("no-match", "nobody"))
    again = world.one(ev.Find)
    assert again.not_before == world.now + 1
    assert again != first
    world.now += 11
    world.tell(ev.NotFound("no-match", "nobody"))
    world.tell(ev.Returned(100_000))
    assert world.state.phase == "failed"
    assert "no-match" in world.state.reason


def test_an_offer_beyond_the_budget_is_never_opened() -> None:
    world = World(plan_of(budget=10))
    world.tell(ev.Funded(), ev.Found(deal_of(price=36_000_000_000), {}))
    assert world.state.phase == "settling"
    assert world.state.ending is not None
    assert "budget-too-small" in world.state.ending.reason


def test_a_top_up_on_its_way_is_counted_when_its_provider_is_lost() -> None:
    world = World(plan_of(budget=100_000))
    running(world)
    world.tell(ev.Metered(0, 3, 10, 10))
    top_up = world.one(ev.TopUp)
    world.tell(ev.Lost(0, "provider-unreachable", "gone"))
    assert world.one(ev.Find).available == 100_000 - top_up.total
    world.tell(ev.LeaseClosed(0, 4950, 50, 0, 20_000))
    assert world.state.available == 95_000, "the chain says that the top-up was not made"


def test_checkpoints_that_are_not_here_are_asked_for_again() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.CheckpointSeen(0, 3), ev.Metered(0, 4, 3, 3), ev.CheckpointSeen(0, 5))
    assert world.state.lease is not None
    assert world.state.lease.after == 2
    world.tell(ev.CheckpointKept(0, 5, 2, None))
    assert world.state.lease.after == 5
    world.tell(ev.CheckpointKept(0, 3, 1, None))
    assert world.state.checkpoint == (0, 2, None)


def test_a_failed_start_closes_and_avoids_the_machine() -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(), {}), opened(0), ev.Sent(0), ev.Started(0))
    world.tell(ev.PhaseSeen(0, 2, "failed", "sandbox-failed: no"))
    world.one(ev.AskClose)
    assert deal_of().machine in dict(world.state.excluded)


def test_a_stop_while_the_lease_is_being_opened_signs_nothing_and_closes() -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(prepaid_quanta=1), {}), ev.StopAsked("enough"))
    assert world.state.phase == "opening", "the transaction may be on its way"
    world.tell(opened(0))
    assert world.state.phase == "closing"
    assert not world.wants(ev.Pay)
    assert world.state.spent == 0
    world.tell(closed(world, 0, 0), ev.Returned(100_000))
    assert (world.state.phase, world.state.spent) == ("stopped", 0)


def test_a_refused_opening_avoids_the_machine_for_a_while_and_spends_nothing() -> None:
    world = World(plan_of(attempts_max=2))
    world.tell(ev.Funded(), ev.Found(deal_of(), {}), ev.OpenFailed(0, "lease-taken", "no unit is free", 60))
    assert dict(world.state.excluded) == {deal_of().machine: world.now + 60}
    assert world.one(ev.Find).available == 100_000
    world.tell(ev.Found(deal_of(2), {}), ev.OpenFailed(1, "lease-taken", "no unit is free", 0))
    assert deal_of(2).machine not in dict(world.state.excluded)
    assert world.state.phase == "settling", "two attempts were allowed"
    world.tell(ev.Returned(100_000))
    assert world.state.phase == "failed"
    assert "lease-taken" in world.state.reason


def test_events_that_come_twice_count_once() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Metered(0, 3, 3, 3), ev.CheckpointSeen(0, 4))
    before = world.state
    world.tell(
        ev.Metered(0, 3, 9, 9), ev.PhaseSeen(0, 4, "failed", "x"), ev.CheckpointSeen(0, 2), ev.Exited(0, 1, 0, "", 9, 9)
    )
    assert world.state == before


def test_a_top_up_of_another_total_is_not_ours() -> None:
    world = World(plan_of(budget=200_000))
    running(world)
    world.tell(ev.Metered(0, 3, 32, 32))
    wanted = world.one(ev.TopUp)
    world.tell(ev.ToppedUp(0, wanted.total + 1))
    assert world.one(ev.TopUp) == wanted
    world.tell(ev.ToppedUp(0, wanted.total))
    assert not world.wants(ev.TopUp)
    assert world.state.available == 200_000 - wanted.total


def test_the_machine_that_lost_the_job_is_never_taken_again_and_a_closed_lease_soon() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.Exited(0, 3, None, "the sandbox died", 2, 2))
    assert dict(world.state.excluded)[deal_of().machine] == machine.FOREVER
    other = World(plan_of())
    running(other)
    other.tell(closed(other, 0, 0))
    assert other.state.phase == "recovering"
    assert dict(other.state.excluded)[deal_of().machine] == other.now + machine.AGAIN_S


def test_a_checkpoint_of_an_older_attempt_never_replaces_a_newer_one() -> None:
    world = World(plan_of())
    running(world)
    world.tell(ev.CheckpointSeen(0, 3), ev.CheckpointKept(0, 3, 5, 500), ev.Lost(0, "provider-unreachable", "x"))
    world.tell(ev.Found(deal_of(2), {}), opened(1), ev.Sent(1), ev.Started(1), ev.PhaseSeen(1, 1, "running"))
    world.tell(ev.CheckpointSeen(1, 2), ev.CheckpointKept(1, 2, 1, 600), ev.CheckpointKept(0, 9, 9, 900))
    assert world.state.checkpoint == (1, 1, 600)


# ---------------------------------------------------------------------------------------------------- the whole space


def _any_deal(draw) -> ev.Deal:
    return deal_of(
        draw(st.integers(1, 3)),
        draw(st.sampled_from([0, 1, 360_000, 3_600_000])),
        draw(st.sampled_from([1, 5, 60])),
        prepaid_quanta=draw(st.integers(0, 1)),
        probe=draw(st.booleans()),
        notice_s=draw(st.sampled_from([0, 60])),
        deposit_min=draw(st.sampled_from([0, 1, 20_000])),
    )


PHASES_SEEN = ["starting", "running", "paused", "stopping", "failed", "closed"]
LOSSES = ["provider-unreachable", "bad-artifact", "refused", "under-spec", "bad-result", "reclaimed"]


def _answers(world: World, draw) -> ev.Event:
    """Any event that a world, honest or not, may bring now."""
    state, lease = world.state, world.state.lease
    attempt = lease.attempt if lease else 0

    def number() -> int:
        return (lease.seen if lease else 0) + draw(st.integers(0, 2))

    def worked() -> int:
        return (lease.working_s if lease else 0) + draw(st.integers(0, 40))

    def elapsed() -> int:
        return (lease.elapsed_s if lease else 0) + draw(st.integers(0, 15))

    codes = st.sampled_from([None, 0, 1, 143])
    makers = [
        ev.Funded,
        lambda: ev.Found(_any_deal(draw), {}),
        lambda: opened(attempt),
        lambda: ev.Sent(attempt),
        lambda: ev.Started(attempt),
        lambda: ev.Probed(attempt),
        lambda: ev.PhaseSeen(attempt, number(), draw(st.sampled_from(PHASES_SEEN)), "x", elapsed()),
        lambda: ev.Notified(attempt, number(), draw(st.integers(0, 10**6)), "reclaimed: gaming"),
        lambda: ev.Overdue(attempt, state.turn - draw(st.integers(0, 1))),
        lambda: ev.Metered(attempt, number(), worked(), elapsed()),
        lambda: ev.Metered(attempt, number(), worked(), elapsed(), draw(st.sampled_from([0, 5, 100]))),
        lambda: ev.Paid(attempt, draw(st.integers(0, 200_000))),
        lambda: ev.NotFound("no-match", "x", draw(st.booleans())),
        lambda: ev.Exited(attempt, number(), draw(codes), "x", worked(), elapsed()),
        lambda: ev.Gathered(attempt),
        lambda: ev.Lost(attempt, draw(st.sampled_from(LOSSES)), "x"),
        lambda: ev.CloseOverdue(attempt),
        ev.StopAsked,
        ev.Ticked,
        lambda: ev.Resumed(draw(st.integers(-5, 1000))),
        lambda: ev.CheckpointSeen(attempt, number(), elapsed()),
        lambda: ev.CheckpointKept(attempt, number(), draw(st.integers(1, 9)), None),
        lambda: ev.OpenFailed(attempt, "x", "y"),
        lambda: ev.TopUpFailed(attempt, "x", "y"),
        lambda: ev.FundingFailed("x", "y"),
    ]
    if state.top_up:
        makers.append(lambda: ev.ToppedUp(attempt, state.top_up[1]))
    if state.unreturned and state.phase == "settling":
        makers.append(lambda: ev.Returned(1))
    for item in state.leases:
        if item.status != "closed":
            makers.append(lambda item=item: ev.ClosingStarted(item.attempt, world.now + 3600))
            makers.append(lambda item=item: _any_close(item, draw))
    return draw(st.sampled_from(makers))()


def _any_close(lease, draw) -> ev.LeaseClosed:
    paid = draw(st.integers(0, lease.signed))
    return ev.LeaseClosed(lease.attempt, paid, 0, 0, lease.deposit - paid)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_in_every_world_money_is_bounded_and_a_replay_is_the_same_job(data) -> None:
    plan = plan_of(
        budget=data.draw(st.sampled_from([1, 5_000, 100_000])), deadline=data.draw(st.sampled_from([None, 1200])),
        failures_max=data.draw(st.integers(0, 1)), wait_s=30, attempts_max=4,
        per_hour=data.draw(st.sampled_from([None, 20_000])), accept=data.draw(st.booleans()),
        max_idle_s=data.draw(st.sampled_from([None, 60])), probe=data.draw(st.booleans()),
    )  # fmt: skip
    world = World(plan)
    for _ in range(data.draw(st.integers(1, 25))):
        world.now += data.draw(st.integers(0, 50))
        world.tell(_answers(world, data.draw))
    assert world.replayed() == world.state


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_job_ends_when_the_world_answers(data) -> None:
    """After any mess, a world that answers every effect, somehow, brings the job to its end."""
    more = {"accept": data.draw(st.booleans()), "max_idle_s": data.draw(st.sampled_from([None, 60]))}
    world = World(plan_of(wait_s=5, attempts_max=3, deadline=5000, **more))
    for _ in range(data.draw(st.integers(0, 25))):
        world.tell(_answers(world, data.draw))
    begun: dict[ev.Patience, int] = {}
    for _ in range(300):
        if world.state.settled:
            break
        world.now += 40
        wanted = effects(world.state)
        over = [item for item in wanted if isinstance(item, ev.Patience)]
        if any(isinstance(item, ev.Wake) and item.at <= world.now for item in wanted):
            world.tell(ev.Ticked())
        elif over and world.now - begun.setdefault(over[0], world.now) >= over[0].seconds:
            world.tell(ev.Overdue(over[0].attempt, over[0].turn))
        else:
            _any_answer(world, data.draw)
    assert world.state.settled, (world.state.phase, effects(world.state))
    assert world.state.terminal
    assert world.replayed() == world.state


def _any_answer(world: World, draw) -> None:
    state, lease = world.state, world.state.lease
    number = lease.attempt if lease else 0
    wanted = [item for item in effects(state) if not isinstance(item, ev.Wake | ev.Duty)]
    effect = draw(st.sampled_from(wanted or [ev.Wake(0)]))
    seen = (lease.seen if lease else 0) + 1
    seconds = (lease.elapsed_s if lease else 0) + 40
    found = ev.Found(deal_of(draw(st.integers(1, 3)), draw(st.sampled_from([0, 36_000, 3_600_000]))), {})
    lost = ev.Lost(number, "provider-unreachable", "x")
    totals = {item.attempt: item for item in state.leases}
    answers: dict[type, list] = {
        ev.Fund: [ev.Funded(), ev.FundingFailed("x", "y")],
        ev.Find: [found, ev.NotFound("no-match", "x")], ev.Open: [opened(number), ev.OpenFailed(number, "x", "y")],
        ev.Send: [ev.Sent(number), lost], ev.Start: [ev.Started(number), lost],
        ev.Watch: [
            ev.Metered(number, seen, seconds, seconds), ev.Exited(number, seen, 0, "done", seconds, seconds),
            ev.Exited(number, seen, 1, "failed", seconds, seconds), lost, ev.PhaseSeen(number, seen, "failed"),
        ],
        ev.Stop: [ev.Exited(number, seen, 143, "stopped", seconds, seconds), ev.Ticked()],
        ev.Pay: [ev.Paid(number, getattr(effect, "cumulative", 0)), lost, ev.CloseOverdue(number)],
        ev.TopUp: [ev.ToppedUp(number, getattr(effect, "total", 0)), ev.TopUpFailed(number, "x", "y")],
        ev.Gather: [ev.Gathered(number), lost], ev.AskClose: [ev.CloseOverdue(number), None],
        ev.StartClose: [ev.ClosingStarted(getattr(effect, "attempt", 0), world.now), None], ev.FinishClose: [None],
        ev.Return: [ev.Returned(1)], ev.Wake: [ev.Ticked()],
        ev.Probe: [ev.Probed(number), ev.Lost(number, "under-spec", "slow")],
        ev.Patience: [ev.Overdue(number, getattr(effect, "turn", 0))],
    }  # fmt: skip
    answer = draw(st.sampled_from(answers[type(effect)]))
    if answer is None:
        lease = totals[effect.attempt]
        answer = ev.LeaseClosed(effect.attempt, lease.signed, 0, 0, lease.deposit - lease.signed)
    world.tell(answer)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**9), st.integers(1, 8), st.integers(0, 10**9))
def test_a_slice_is_affordable_or_nothing(budget: int, available: int, price: int, units: int, least: int) -> None:
    deal = deal_of(price=price, deposit_min=least, units=units)
    amount = slice_for(budget, min(available, budget), deal)
    assert 0 <= amount <= min(available, budget)
    assert amount == 0 or (amount >= least and amount * 3600 >= price * units * deal.quantum)
    assert deal.seconds_min <= seconds_for(available, deal) <= deal.seconds_max


def test_every_event_has_a_rule_and_a_json_form() -> None:
    kinds = set(ev.Event.__subclasses__())
    assert kinds == set(machine.TABLE)
    found = ev.Found(deal_of(), {"offer": {"x": 1}})
    assert ev.decode(*ev.encode(found)) == found
    big = ev.Returned(2**90)
    assert ev.encode(big)[1]["tokens"] == str(2**90)
    assert ev.decode(*ev.encode(big)) == big


@pytest.mark.parametrize(
    ("kind", "body"), [("Nothing", {}), ("Sent", {"attempt": 0, "more": 1}), ("Paid", {"attempt": 0})]
)
def test_a_journal_of_another_version_is_a_clear_error(kind: str, body: dict) -> None:
    from minga.core.errors import InternalError

    with pytest.raises(InternalError):
        ev.decode(kind, body)


def test_an_event_of_another_attempt_changes_nothing() -> None:
    world = World(plan_of())
    running(world)
    before = world.state
    world.tell(ev.Exited(7, 9, 0, "done", 1, 1), ev.Paid(7, 5), ev.Lost(3, "provider-unreachable", "x"))
    assert world.state == before
    assert world.state.phase in AT_WORK
    assert replace(before) == before
