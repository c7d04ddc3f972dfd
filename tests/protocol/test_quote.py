"""Estimates: what each figure may depend on, in which direction, and that it is of the law that it names."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offers_made import matches_of

from minga.core.spec import Speed
from minga.core.units import HOUR
from minga.protocol.beliefs import Belief, Rate
from minga.protocol.matching import Ranked
from minga.protocol.quote import POINTS, estimates, grid, order
from minga.protocol.quote_model import (
    Habits,
    Limits,
    Risk,
    Work,
    pace,
    reference_of,
    risk_of,
    side_of,
    stretch,
)
from minga.protocol.reliability import Record, Rules, new_record

HABITS = Habits(Belief.of(20, 0.5), Belief.of(4, 0.5))
SURE = Habits(Belief.of(20, 0.0), Belief.of(4, 0.0))
SAFE = Risk(Rate(0, 1), Rate(0, 1))
NONE = Limits()


def risk(lost_per_hour: float = 0.0, reclaimed_per_hour: float = 0.0, events: float = 400.0) -> Risk:
    """Rates that are well known."""
    return Risk(*(Rate(events, events / rate) if rate else Rate(0, 1) for rate in (lost_per_hour, reclaimed_per_hour)))


def work(seconds: float | None = 7200, spread: float = 0.0, **more: object) -> Work:
    """A job that lasts about `seconds`."""
    belief = None if seconds is None else Belief(math.log(seconds), 1e9, spread, 1e6)
    return Work(seconds=belief, source="stated", **more)  # type: ignore[arg-type]


def only(matches: list[Ranked], job: Work, risks: Risk = SAFE, habits: Habits = HABITS, limits: Limits = NONE):
    """The estimate of the first offer."""
    return estimates(matches, job, habits, lambda provider: risks, limits)[0]


# -------------------------------------------------------------------------------------------------------- what is sure


def test_a_job_of_known_length_on_a_safe_machine_costs_its_time() -> None:
    found = only(matches_of(400_000), work(7200), habits=SURE)
    assert found.cost_p50 == pytest.approx(800_000, abs=112)
    assert found.cost_p50 == found.cost_p90 == found.cost_mean
    assert found.finish_p50_s == pytest.approx(7224, abs=2)
    assert found.per_work_hour == 400_000
    assert found.rework_ppm == found.breaks_per_day_ppm == 0


def test_without_a_duration_there_are_prices_and_no_totals() -> None:
    found = only(matches_of(400_000), work(None, checkpoint_s=600), risk(0.1), limits=Limits(1_000_000, 3600))
    assert found.cost_mean is found.cost_p50 is found.cost_p90 is None
    assert found.finish_p50_s is found.finish_p90_s is found.within_budget_ppm is found.within_deadline_ppm is None
    assert 400_000 < found.per_work_hour < 404_000
    assert found.start_p50_s < found.start_p90_s


def test_the_same_question_has_the_same_answer() -> None:
    job, risks = work(9000, 0.4, checkpoint_s=300), risk(0.05, 0.03)
    assert only(matches_of(400_000), job, risks) == only(matches_of(400_000), job, risks)


def test_a_prepaid_quantum_is_paid_by_the_shortest_job() -> None:
    plain, prepaid = (only(matches_of(360_000, prepaid_quanta=quanta), work(5), habits=SURE) for quanta in (0, 1))
    assert plain.cost_p90 == pytest.approx(500, abs=100)
    assert prepaid.cost_p90 == 6000


# ------------------------------------------------------------------------------------------------------------ the law


@pytest.mark.parametrize("checkpoint_s", [0, 60, 900])
@pytest.mark.parametrize("per_hour", [0.02, 0.3, 1.0])
def test_quantiles_are_those_of_a_job_that_breaks_and_is_restored(checkpoint_s: int, per_hour: float) -> None:
    """Against 4,000 jobs played through with exponential clocks."""
    length, dice = 7200.0, random.Random(f"{checkpoint_s} {per_hour}")
    found = only(matches_of(360_000), work(length, checkpoint_s=checkpoint_s), risk(per_hour), SURE)
    ends = []
    for _ in range(4000):
        done, clock = 0.0, 24.0
        while True:
            breaks = dice.expovariate(per_hour / HOUR)
            if breaks >= length - done:
                ends.append(clock + length - done)
                break
            clock += breaks + 20 + 15
            done += breaks // checkpoint_s * checkpoint_s if checkpoint_s else -done
    ends.sort()
    assert found.finish_p50_s == pytest.approx(ends[2000], rel=0.03)
    assert found.finish_p90_s == pytest.approx(ends[3600], rel=0.06)


@given(st.floats(1e-4, 0.5), st.integers(30, 1800))
def test_rework_is_half_a_checkpoint_an_interruption_to_the_first_order(per_hour: float, checkpoint_s: int) -> None:
    exact = stretch(per_hour / HOUR, checkpoint_s) - 1
    first = per_hour / HOUR * checkpoint_s / 2
    assert exact == pytest.approx(first, rel=0.1, abs=1e-9)


def test_a_restart_takes_time_and_costs_nothing() -> None:
    slow = Habits(Belief.of(600, 0.0), Belief.of(4, 0.0))
    job, risks = work(7200, checkpoint_s=60), risk(0.5)
    quick_one, slow_one = (only(matches_of(360_000), job, risks, habits) for habits in (SURE, slow))
    assert quick_one.per_work_hour == slow_one.per_work_hour
    assert (quick_one.cost_p50, quick_one.cost_p90) == (slow_one.cost_p50, slow_one.cost_p90)
    assert slow_one.rework_ppm - quick_one.rework_ppm == pytest.approx(0.5 / HOUR * 580 * 10**6, rel=0.01)
    assert slow_one.finish_p90_s > quick_one.finish_p90_s + 580


@settings(max_examples=40, deadline=None)
@given(
    st.floats(60, 2e5), st.floats(0.0, 0.8), st.sampled_from((0, 60, 600, 7200)), st.floats(0, 0.5), st.floats(0, 0.5),
    st.integers(1000, 10**9),
)  # fmt: skip
def test_every_figure_is_whole_and_in_order(
    length: float, spread: float, checkpoint_s: int, lost: float, reclaimed: float, price: int
) -> None:
    job = work(length, spread, checkpoint_s=checkpoint_s)
    found = only(matches_of(price), job, risk(lost, reclaimed, 2.0), limits=Limits(price, 3600))
    amounts = (found.cost_mean, found.cost_p50, found.cost_p90, found.per_work_hour)
    times = (found.finish_p50_s, found.finish_p90_s, found.start_p50_s, found.start_p90_s)
    assert all(type(value) is int and value >= 0 for value in (*amounts, *times))
    assert found.cost_p50 <= found.cost_p90
    assert found.finish_p50_s <= found.finish_p90_s
    assert found.per_work_hour >= price
    assert found.cost_p90 * HOUR >= price * math.floor(length * math.exp(-0.1 * spread)) - price
    assert 0 <= found.within_budget_ppm <= 10**6
    assert 0 <= found.within_deadline_ppm <= 10**6


@pytest.mark.parametrize("checkpoint_s", [0, 600])
def test_more_interruptions_cost_more_and_take_longer(checkpoint_s: int) -> None:
    job = work(4 * HOUR, 0.3, checkpoint_s=checkpoint_s)
    found = [only(matches_of(400_000), job, risk(rate)) for rate in (0.001, 0.05, 0.2)]
    for name in ("per_work_hour", "rework_ppm", "breaks_per_day_ppm", "cost_mean", "cost_p90", "finish_p90_s"):
        values = [getattr(item, name) for item in found]
        assert values == sorted(values), name
        assert values[0] < values[2], name


def test_checkpoints_save_money_where_machines_break() -> None:
    often, seldom, never = (
        only(matches_of(400_000), work(6 * HOUR, checkpoint_s=each), risk(0.2)) for each in (120, 3600, 0)
    )
    assert often.per_work_hour < seldom.per_work_hour < never.per_work_hour
    assert often.cost_p90 < seldom.cost_p90 < never.cost_p90


def test_notice_saves_the_work_if_it_is_long_enough_for_a_checkpoint() -> None:
    reclaims = risk(0.0, 0.3)
    job = work(4 * HOUR, checkpoint_s=1800, grace_s=30)
    none, short, enough = (only(matches_of(400_000, notice_s=notice), job, reclaims) for notice in (0, 10, 60))
    assert enough.per_work_hour == 400_000
    assert none.per_work_hour == short.per_work_hour > 420_000
    assert none.cost_p90 > enough.cost_p90
    assert enough.rework_ppm > 0, "moving takes time, though it costs nothing"
    without = only(matches_of(400_000, notice_s=60), work(4 * HOUR), reclaims)
    assert without.per_work_hour > 420_000, "a job that makes no checkpoint begins again"


def test_work_that_only_counts_when_accepted_is_not_paid_twice() -> None:
    job, risks = work(4 * HOUR, checkpoint_s=1800), risk(0.3)
    paid, unpaid = (only(matches_of(400_000), replace(job, pays_lost=pays), risks) for pays in (True, False))
    assert unpaid.per_work_hour == 400_000 < paid.per_work_hour
    assert unpaid.cost_p90 < paid.cost_p90
    assert unpaid.finish_p90_s == paid.finish_p90_s


def test_what_is_less_known_is_wider() -> None:
    sure, unsure = (only(matches_of(400_000), work(7200, spread)) for spread in (0.1, 0.5))
    assert sure.cost_p50 == pytest.approx(unsure.cost_p50, rel=0.01)
    assert sure.cost_p90 < unsure.cost_p90
    job = work(24 * HOUR, checkpoint_s=3600)
    known, prior = (only(matches_of(400_000), job, risk(0.1, 0, events)) for events in (1000, 1))
    assert known.per_work_hour == prior.per_work_hour
    assert known.finish_p90_s < prior.finish_p90_s


def test_leases_that_end_move_the_job() -> None:
    day, week = (
        only(matches_of(400_000, seconds_max=limit), work(60 * HOUR), habits=SURE) for limit in (86400, 604800)
    )
    assert day.finish_p50_s - week.finish_p50_s == pytest.approx(2 * 20, abs=2)


def test_the_budget_and_the_deadline_are_met_as_often_as_said() -> None:
    job = work(7200, 0.4)
    free = only(matches_of(400_000), job)
    at_p50, at_p90 = (only(matches_of(400_000), job, limits=Limits(cost)) for cost in (free.cost_p50, free.cost_p90))
    assert at_p50.within_budget_ppm == pytest.approx(500_000, abs=4000)
    assert at_p90.within_budget_ppm == pytest.approx(900_000, abs=4000)
    assert at_p50.within_deadline_ppm is None
    late = only(matches_of(400_000), job, limits=Limits(None, free.finish_p90_s))
    assert late.within_deadline_ppm == pytest.approx(900_000, abs=4000)
    assert (late.cost_p50, late.cost_p90) == (free.cost_p50, free.cost_p90)


# --------------------------------------------------------------------------------------------------------- the ranking


def test_ranking_is_by_cost_of_work_and_not_by_price() -> None:
    fast = matches_of(500_000, 1, speed=Speed(gemm_mops=2000, memory_mbps=2000))
    slow = matches_of(400_000, 2, speed=Speed(gemm_mops=1000, memory_mbps=1000))
    job = work(7200, reference=Speed(gemm_mops=1000, memory_mbps=1000))
    ordered = order([*slow, *fast], job, lambda provider: SAFE)
    assert [item.price_per_hour for item in ordered] == [500_000, 400_000]
    found = estimates(ordered, job, SURE, lambda provider: SAFE, NONE, 2)
    assert [item.per_work_hour for item in found] == [250_000, 400_000]
    assert found[0].finish_p50_s - 24 == pytest.approx(3600, abs=2)
    assert found[0].pace_ppm == 500_000


def test_ranking_counts_what_breaks() -> None:
    matches = [*matches_of(400_000, 1), *matches_of(420_000, 2)]
    by_provider = {matches[0].bundle.offer.provider: risk(0.5), matches[1].bundle.offer.provider: SAFE}
    often, seldom = work(8 * HOUR, checkpoint_s=60), work(8 * HOUR, checkpoint_s=7200)
    assert order(matches, often, by_provider.__getitem__)[0].price_per_hour == 400_000
    assert order(matches, seldom, by_provider.__getitem__)[0].price_per_hour == 420_000


@given(st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_ranking_does_not_depend_on_the_order_of_arrival(shuffled: list[int]) -> None:
    matches = [matches_of(400_000 + 1000 * (number % 3), number)[0] for number in range(6)]
    job = work(7200, 0.3)
    assert order([matches[number] for number in shuffled], job, lambda p: SAFE) == order(matches, job, lambda p: SAFE)


def test_a_broken_job_goes_on_at_the_next_machine_at_its_price() -> None:
    alone = matches_of(400_000, 1)
    twin = replace(alone[0], price_per_hour=9_000_000)
    job, risks = work(8 * HOUR, checkpoint_s=600), risk(0.3)
    by_itself, with_twin, with_dear = (
        estimates(matches, job, SURE, lambda p: risks, NONE)[0]
        for matches in (alone, [*alone, twin], [*alone, *matches_of(4_000_000, 2)])
    )
    assert by_itself.cost_p90 == with_twin.cost_p90, "another offer of the same machine is no other machine"
    assert with_dear.cost_p90 > 2 * by_itself.cost_p90
    assert with_dear.finish_p90_s == by_itself.finish_p90_s


# --------------------------------------------------------------------------------------------------------------- speed


def test_a_pace_is_the_geometric_mean_of_what_is_known() -> None:
    reference = Speed(gemm_mops=1000, memory_mbps=100)
    assert pace(reference, 1, reference) == (1.0, 0.0)
    assert pace(Speed(gemm_mops=4000, memory_mbps=100), 1, reference) == pytest.approx((0.5, math.log(4) / 2))
    assert pace(Speed(gemm_mops=500, memory_mbps=50), 2, reference) == pytest.approx((1.0, 0.0))
    assert pace(Speed(gemm_mops=2000), 1, reference) == pytest.approx((0.5, math.log(2) / 2))


def test_an_unknown_pace_is_one_and_uncertain() -> None:
    factor, spread = pace(None, 1, Speed(gemm_mops=1000))
    assert (factor, spread > 0.2) == (1.0, True)
    assert pace(None, 1, Speed()) == (1.0, 0.0), "nobody promises anything: nothing to compare"
    assert pace(Speed(gemm_mops=1), 1, Speed(gemm_mops=10**12))[0] == pytest.approx(20)


def test_the_reference_is_the_median_of_those_that_promise() -> None:
    speeds = [None, Speed(gemm_mops=100), Speed(gemm_mops=300, memory_mbps=7), Speed(gemm_mops=900)]
    matches = [matches_of(400_000, number, speed=speed)[0] for number, speed in enumerate(speeds, 1)]
    assert reference_of(matches) == Speed(gemm_mops=300, memory_mbps=7)
    assert reference_of(matches[:1]) == reference_of([]) == Speed()


# ---------------------------------------------------------------------------------------------------------------- risk


def test_a_new_provider_breaks_once_a_day_half_of_it_with_notice() -> None:
    found = risk_of(new_record("0x", Rules.of(6)))
    assert (found.lost.per_hour + found.reclaimed.per_hour) * 24 == pytest.approx(1, rel=0.001)
    assert found.lost.per_hour == pytest.approx(found.reclaimed.per_hour)
    assert found.lost.events == 1


def test_a_record_tells_which_way_leases_break_and_how_surely() -> None:
    found = risk_of(Record("0x", 900_000, 20_000, left=3, reclaimed=16))
    assert found.lost.per_hour + found.reclaimed.per_hour == pytest.approx(0.02)
    assert found.reclaimed.per_hour / found.lost.per_hour == pytest.approx(16.5 / 3.5)
    assert found.lost.events == 20


def test_a_side_sums_both_risks_where_notice_is_too_short() -> None:
    item, job = matches_of(400_000, notice_s=0)[0], work(7200, checkpoint_s=600)
    side = side_of(item, job, risk(0.02, 0.03))
    assert side.losing.per_hour == pytest.approx(0.05)
    assert side.kind.per_hour == 0


# ---------------------------------------------------------------------------------------------------------------- grid


def test_every_coordinate_of_the_grid_is_evenly_spread_and_none_follows_another() -> None:
    for place in range(9):
        assert len(set(grid(place))) == POINTS
    shares = {place: [sorted(grid(place)).index(value) for value in grid(place)] for place in range(9)}
    for one in range(9):
        for other in range(one):
            mean = (POINTS - 1) / 2
            both = sum((a - mean) * (b - mean) for a, b in zip(shares[one], shares[other], strict=True))
            assert abs(both) / (POINTS * (POINTS**2 - 1) / 12) < 0.1, (one, other)


def test_as_many_as_are_asked_for_are_estimated_in_their_order() -> None:
    matches = [matches_of(400_000 + number, number)[0] for number in range(40)]
    found = estimates(matches, work(7200, 0.3), HABITS, lambda p: risk(0.05), NONE, 10)
    assert [item.item for item in found] == matches[:10]
    assert len(estimates(matches[:2], work(), HABITS, lambda p: SAFE, NONE, 10)) == 2
    assert estimates([], work(), HABITS, lambda p: SAFE, NONE, 10) == ()
