"""What keeps a job safe from its provider and itself: probes, checks, patience, idleness, slices, caps, reclaims."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_world import World, answer, closed, deal_of, opened, plan_of, running, work

from minga.protocol import job_events as ev
from minga.protocol.job_money import slice_for
from minga.protocol.job_moves import AGAIN_S, FOREVER
from minga.protocol.job_state import effects
from minga.protocol.lease import Why

HOUR = 3600
SECOND = 1000
"""Token units of one second of `deal_of`."""


# ----------------------------------------------------------------------------------------------------------- the probe


@pytest.mark.parametrize("first", ["sent", "probed"])
def test_nothing_is_paid_and_nothing_starts_before_the_machine_showed_itself(first: str) -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(prepaid_quanta=1, probe=True), {}), opened(0))
    assert world.wants(ev.Send)
    assert world.wants(ev.Probe), "both at once"
    assert not world.wants(ev.Pay)
    world.tell(*{"sent": (ev.Sent(0),), "probed": (ev.Probed(0, "fast"),)}[first])
    assert world.state.phase == "sending"
    assert world.wants(ev.Pay) == (first == "probed")
    world.tell(ev.Probed(0, "fast") if first == "sent" else ev.Sent(0))
    assert world.state.phase == "starting"
    assert world.one(ev.Pay).cumulative == 5 * SECOND
    assert not world.wants(ev.Start)
    world.tell(ev.Paid(0, 5 * SECOND))
    world.one(ev.Start)
    assert world.replayed() == world.state


def test_an_under_spec_machine_costs_nothing_and_is_never_taken_again() -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(prepaid_quanta=1, probe=True), {}), opened(0), ev.Sent(0))
    world.tell(ev.Lost(0, "under-spec", "memory at 312 of 1000"))
    assert world.state.phase == "recovering"
    assert world.one(ev.StartClose).why == Why.UNDER_SPEC
    assert dict(world.state.excluded)[deal_of().machine] == FOREVER
    assert (world.state.spent, world.state.past[0].vouchers) == (0, 0)
    assert "memory at 312" in world.state.past[0].left


@pytest.mark.parametrize(("plan", "deal"), [(False, True), (True, False)])
def test_no_probe_where_none_is_wanted_or_nothing_is_promised(plan: bool, deal: bool) -> None:
    world = World(plan_of(probe=plan))
    world.tell(ev.Funded(), ev.Found(deal_of(probe=deal), {}), opened(0))
    assert not world.wants(ev.Probe)
    world.tell(ev.Sent(0))
    assert world.state.phase == "starting"
    world.tell(ev.Started(0), ev.PhaseSeen(0, 1, "running"))
    assert not world.wants(ev.Duty)


def test_a_machine_that_turns_slow_is_left_with_its_checkpoint() -> None:
    world = World(plan_of())
    running(world, deal_of(probe=True))
    world.one(ev.Duty)
    world.tell(ev.PhaseSeen(0, 3, "paused"))
    assert not world.wants(ev.Duty)
    world.tell(ev.PhaseSeen(0, 4, "running"), ev.Metered(0, 5, 3, 3), ev.CheckpointSeen(0, 6, 3))
    world.tell(ev.CheckpointKept(0, 6, 1, 40), ev.Lost(0, "under-spec", "compute at 140 of 1000"))
    assert world.state.phase == "recovering"
    assert world.state.checkpoint == (0, 1, 40)
    assert world.one(ev.StartClose).why == Why.UNDER_SPEC


# ----------------------------------------------------------------------------------------------- checks of checkpoints


def test_with_a_check_only_what_an_accepted_checkpoint_covers_is_paid() -> None:
    world = World(plan_of(accept=True))
    running(world)
    world.tell(ev.Metered(0, 3, 3, 3))
    assert not world.wants(ev.Pay)
    world.tell(ev.CheckpointSeen(0, 4, 4), ev.Metered(0, 5, 6, 6))
    assert not world.wants(ev.Pay), "announced is not accepted"
    world.tell(ev.CheckpointKept(0, 4, 1, 10))
    assert world.one(ev.Pay).cumulative == 4 * SECOND, "what was worked when it was announced"
    world.tell(ev.Paid(0, 4 * SECOND), ev.Exited(0, 6, 0, "done", 8, 8), ev.Gathered(0))
    assert world.state.spent == 4 * SECOND, "the last seconds have no checkpoint"
    assert world.replayed() == world.state


def test_a_checkpoint_that_is_judged_while_it_is_gathered_counts() -> None:
    world = World(plan_of(accept=True))
    running(world)
    world.tell(ev.Metered(0, 3, 3, 3), ev.CheckpointSeen(0, 4, 4), ev.Exited(0, 5, 0, "done", 4, 4))
    world.tell(ev.CheckpointKept(0, 4, 1, 10))
    assert not world.wants(ev.Pay), "results first"
    world.tell(ev.Gathered(0))
    assert world.one(ev.Pay).cumulative == 4 * SECOND


def test_a_claim_beyond_the_clock_is_not_made_true_by_a_checkpoint() -> None:
    world = World(plan_of(accept=True))
    running(world)
    world.tell(ev.Metered(0, 3, 9999, 2), ev.CheckpointSeen(0, 4, 3), ev.CheckpointKept(0, 4, 1, 10))
    assert world.one(ev.Pay).cumulative <= 4 * SECOND


def test_a_refused_checkpoint_leaves_its_provider_and_the_last_good_one_is_restored() -> None:
    world = World(plan_of(accept=True))
    running(world)
    world.tell(ev.Metered(0, 3, 3, 3), ev.CheckpointSeen(0, 4, 3), ev.CheckpointKept(0, 4, 1, 10, 500))
    world.tell(ev.Paid(0, 3 * SECOND), ev.CheckpointSeen(0, 5, 5))
    world.tell(ev.Lost(0, "bad-result", "the job's own check refused a checkpoint"))
    assert world.state.phase == "recovering"
    assert (world.state.checkpoint, world.state.checkpoint_bytes) == ((0, 1, 10), 500)
    assert world.one(ev.StartClose).why == Why.BAD_RESULT
    assert dict(world.state.excluded)[deal_of().machine] == FOREVER
    assert world.state.spent == 3 * SECOND, "what was accepted is paid"


def test_a_job_that_writes_no_checkpoint_within_a_quantum_ends_with_a_clear_reason() -> None:
    world = World(plan_of(accept=True))
    running(world)
    world.tell(ev.Metered(0, 3, 5, 5), ev.PhaseSeen(0, 4, "paused", "waiting", 5))
    world.tell(ev.PhaseSeen(0, 5, "stopping", "no voucher", 15), ev.Exited(0, 6, 143, "no voucher", 5, 15))
    assert world.state.ending is not None
    assert world.state.ending.phase == "failed"
    assert "no-checkpoint" in world.state.ending.reason
    assert "accept.every" in world.state.ending.reason


@pytest.mark.parametrize("why", ["accepted one", "was away"])
def test_a_pause_that_is_not_the_jobs_doing_does_not_end_it(why: str) -> None:
    world = World(plan_of(accept=True))
    running(world)
    if why == "accepted one":
        world.tell(ev.Metered(0, 3, 3, 3), ev.CheckpointSeen(0, 4, 3), ev.CheckpointKept(0, 4, 1, 10))
    else:
        world.tell(ev.Metered(0, 3, 3, 3), ev.Resumed(600))
    world.tell(ev.PhaseSeen(0, 5, "stopping", "no voucher", 15), ev.Exited(0, 6, 143, "no voucher", 5, 15))
    assert world.state.ending is None


# ------------------------------------------------------------------------------------------------------------ idleness


def test_a_job_without_progress_is_stopped_and_pays_nothing_after_its_limit() -> None:
    world = World(plan_of(max_idle_s=60))
    running(world)
    world.tell(ev.Metered(0, 3, 10, 10, 9))
    assert world.state.ending is None
    world.tell(
        ev.Paid(0, 10 * SECOND), ev.ToppedUp(0, world.one(ev.TopUp).total) if world.wants(ev.TopUp) else ev.Ticked()
    )
    world.tell(ev.Metered(0, 4, 20, 20, 62))
    assert "idle: the job made no progress for 1m 2s" in world.one(ev.Stop).reason
    assert world.one(ev.Pay).cumulative == 18 * SECOND, "two seconds after the limit are free"
    world.tell(ev.Paid(0, 18 * SECOND), ev.Metered(0, 5, 40, 40, 82))
    assert not world.wants(ev.Pay)
    world.tell(ev.Exited(0, 6, 143, "idle", 45, 45), ev.Gathered(0), closed(world, 0, 18 * SECOND), ev.Returned(82_000))
    assert world.state.phase == "stopped"
    assert world.state.reason.startswith("idle:")
    assert world.replayed() == world.state


# ------------------------------------------------------------------------------------------------------------ patience


def test_no_phase_at_a_provider_lasts_without_end() -> None:
    for phase, reached in (("sending", 0), ("starting", 1), ("running", 2), ("paused", 3)):
        world = World(plan_of(setup_wait_s=600, input_bytes=5_000_000))
        world.tell(ev.Funded(), ev.Found(deal_of(), {}), opened(0))
        steps = [ev.Sent(0), ev.PhaseSeen(0, 1, "running"), ev.PhaseSeen(0, 2, "paused")]
        world.tell(*steps[:reached])
        assert world.state.phase == phase
        patience = world.one(ev.Patience)
        assert patience.seconds == {"sending": 605, "starting": 600}.get(phase, 2 * 5 + 10 + 60)
        world.tell(ev.Overdue(0, patience.turn))
        assert world.state.phase == ("closing" if phase in ("sending", "starting") else "recovering"), phase
        assert dict(world.state.excluded)[deal_of().machine] == FOREVER


def test_pausing_again_and_again_is_no_sign_of_work() -> None:
    world = World(plan_of())
    running(world)
    turn = world.one(ev.Patience).turn
    for number in range(3, 40):
        world.tell(ev.PhaseSeen(0, number, ("paused", "running")[number % 2]))
    assert world.one(ev.Patience).turn == turn
    world.tell(ev.Metered(0, 40, 1, 30))
    assert world.one(ev.Patience).turn == turn + 1, "a second of work is"


def test_a_stop_has_an_end_whatever_is_claimed_meanwhile() -> None:
    world = World(plan_of(grace_s=30))
    running(world)
    world.tell(ev.StopAsked())
    patience = world.one(ev.Patience)
    assert patience.seconds == 90
    world.tell(ev.Metered(0, 3, 2, 2), ev.PhaseSeen(0, 4, "paused"), ev.Metered(0, 5, 4, 4))
    assert world.one(ev.Patience) == patience
    world.tell(ev.Overdue(0, patience.turn))
    assert world.state.phase == "settling"


def test_a_provider_that_lets_the_job_run_for_moments_only_is_left() -> None:
    world = World(plan_of(budget=10**9))
    running(world)
    world.tell(ev.Metered(0, 3, 59, 599))
    assert world.state.phase == "running"
    world.tell(ev.Metered(0, 4, 59, 600))
    assert world.state.phase == "closing"
    assert "too-slow" in world.state.reason


# ------------------------------------------------------------------------------------------------------------- reclaim


def test_a_reclaimed_machine_is_left_for_a_while_and_seconds_after_the_notice_are_free() -> None:
    world = World(plan_of())
    running(world, deal_of(notice_s=60))
    world.tell(ev.Metered(0, 3, 5, 5), ev.Paid(0, 5 * SECOND))
    world.tell(ev.Notified(0, 4, 60, "reclaimed: gaming tonight"))
    world.tell(ev.PhaseSeen(0, 5, "stopping", "reclaimed: gaming tonight", 7))
    assert world.one(ev.Patience).seconds == 60 + 60
    world.tell(ev.Metered(0, 6, 30, 30))
    assert world.state.spent == 7 * SECOND
    world.tell(ev.CheckpointSeen(0, 7, 30), ev.CheckpointKept(0, 7, 1, 10), ev.Exited(0, 8, 0, "reclaimed", 30, 30))
    assert world.state.ending is None, "even an exit code of 0 is the reclaim's"
    world.tell(ev.Gathered(0), ev.Paid(0, 7 * SECOND), closed(world, 0, 7 * SECOND))
    assert world.state.phase == "recovering"
    assert dict(world.state.excluded)[deal_of().machine] == world.now + AGAIN_S
    assert world.state.past[0].left == "reclaimed: gaming tonight"
    assert world.state.past[0].why == Why.NOT_SAID
    running(world, deal_of(2), attempt=1)
    assert world.state.attempt == 2
    assert world.replayed() == world.state


def test_a_reclaim_without_the_notice_that_was_promised_is_a_fault() -> None:
    world = World(plan_of())
    running(world, deal_of(notice_s=60))
    world.tell(ev.Notified(0, 3, 5, "reclaimed: now"), ev.PhaseSeen(0, 4, "stopping", "reclaimed: now", 2))
    assert world.state.lease is not None
    assert world.state.lease.why == Why.SHUTTING_DOWN


def test_a_reclaim_while_inputs_are_sent_is_no_reason_to_avoid_the_machine_for_ever() -> None:
    world = World(plan_of())
    world.tell(ev.Funded(), ev.Found(deal_of(), {}), opened(0))
    world.tell(ev.Lost(0, "reclaimed", "the lease is closing (reclaimed: gaming): a blob cannot be now"))
    assert world.state.phase == "closing"
    assert dict(world.state.excluded)[deal_of().machine] == world.now + AGAIN_S


# -------------------------------------------------------------------------------------------------------------- slices


@settings(max_examples=60, deadline=None)
@given(st.integers(60, 2 * HOUR - 120))
def test_a_two_hour_job_with_a_two_hour_budget_fails_over_at_once_whenever_its_provider_vanishes(when: int) -> None:
    world = World(plan_of(budget=2 * HOUR * SECOND))
    running(world, deal_of(quantum=60))
    work(world, when, every=30)
    assert world.state.lease is not None
    world.tell(ev.CheckpointSeen(0, 10**6), ev.CheckpointKept(0, 10**6, 1, 1))
    unsigned = world.state.lease.deposit - world.state.lease.signed
    world.tell(ev.Lost(0, "provider-unreachable", "gone"), ev.ClosingStarted(0, world.now + HOUR))
    available = world.one(ev.Find).available
    assert slice_for(world.plan.budget, available, deal_of(2, quantum=60)) > 0
    assert unsigned <= max(world.plan.budget // 4, 120 * SECOND) + 120 * SECOND
    running(world, deal_of(2, quantum=60), attempt=1)


def test_a_job_waits_at_its_checkpoint_for_its_own_money_and_then_goes_on() -> None:
    world = World(plan_of(budget=100_000, wait_s=10))
    running(world)
    work(world, 20)
    world.tell(ev.CheckpointSeen(0, 100), ev.CheckpointKept(0, 100, 1, 7))
    world.tell(ev.Lost(0, "provider-unreachable", "gone"), ev.ClosingStarted(0, world.now + HOUR))
    running(world, deal_of(2), attempt=1)
    work(world, 500, attempt=1)
    assert world.state.ending is None, "it moves, it does not end"
    number = world.state.lease.seen + 1
    worked = world.state.lease.working_s + 1
    world.tell(ev.Exited(1, number, 143, "moving", worked, worked), ev.Gathered(1))
    answer(world, 1)
    world.tell(closed(world, 1, world.state.lease.signed))
    assert world.state.phase == "recovering"
    for _ in range(20):
        world.now += 30
        world.tell(ev.NotFound("budget-too-small", "nothing can be paid", True))
    assert world.state.phase == "recovering"
    assert "locked" in world.state.reason
    world.tell(closed(world, 0, world.state.past[0].signed))
    running(world, deal_of(3), attempt=2)
    assert world.replayed() == world.state


def test_without_a_checkpoint_there_is_nothing_to_wait_for() -> None:
    world = World(plan_of(budget=100_000, wait_s=10))
    running(world)
    world.tell(ev.Lost(0, "provider-unreachable", "gone"), ev.NotFound("budget-too-small", "nothing", True))
    world.tell(ev.ClosingStarted(0, world.now + HOUR), ev.Returned(75_000))
    assert world.state.phase == "exhausted"


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(1, 10**9), st.sampled_from([1, 60, 600]))
def test_a_slice_is_a_quarter_an_hour_and_half_at_most(budget: int, available: int, price: int, quantum: int) -> None:
    deal, available = deal_of(price=price, quantum=quantum), min(available, budget)
    amount = slice_for(budget, available, deal)
    least = -(-price * quantum // HOUR)
    assert amount <= max(least, 1, min(budget // 4, price, available // 2))


# ------------------------------------------------------------------------------------------------------ the hour's cap


def test_no_hour_costs_more_than_its_cap_and_what_was_held_back_follows() -> None:
    world = World(plan_of(budget=100_000_000, per_hour=3_600_000))
    running(world, deal_of(quantum=60, prepaid_quanta=1))
    work(world, 1800, every=30)
    world.tell(ev.Lost(0, "provider-unreachable", "gone"))
    running(world, deal_of(2, quantum=60, prepaid_quanta=1), attempt=1)
    work(world, 1800, attempt=1, every=30)
    world.tell(ev.Resumed(600))
    work(world, 120, attempt=1, every=30)
    assert sum(amount for at, amount in world.spends if at > world.now - HOUR) <= 3_600_000
    lease = world.state.lease
    assert lease is not None
    assert lease.signed < lease.cost(lease.payable_s), "some is held back"
    wake = world.one(ev.Wake)
    signed, world.now = lease.signed, wake.at
    world.tell(ev.Ticked())
    assert world.state.lease is not None
    assert world.state.lease.signed > signed
    assert world.replayed() == world.state


def test_a_prepaid_quantum_over_the_hours_cap_waits() -> None:
    world = World(plan_of(budget=100_000_000, per_hour=50 * SECOND, wait_s=10_000))
    world.tell(ev.Funded(), ev.Found(deal_of(quantum=60, prepaid_quanta=1), {}))
    assert world.state.phase == "quoting"
    assert "per-hour" in world.state.reason
    assert any(isinstance(item, ev.Find) for item in effects(world.state))
