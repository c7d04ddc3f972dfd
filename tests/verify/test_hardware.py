"""The judge: honest machines pass under noise, capped and shared ones do not, and the sizes of challenges fit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provers import UNIT

from minga.core.spec import Speed, Terms, UnitSize
from minga.verify import hardware as hw
from minga.verify import hardware_math as hm

MEASURED = Speed(gemm_mops=80_000, memory_mbps=2_000, disk_mbps=400, link_mbps=0)
PROMISED = hw.promise(MEASURED)
FAR, NEAR = hw.Setting(), hw.Setting(near=True)
BESIDE = hw.Setting(beside_job=True)


def compute(seconds_at_full: float = 0.06, slower: float = 1.0, **more: float) -> hw.Round:
    """A round of compute that a free machine would do in `seconds_at_full`."""
    amount = MEASURED.gemm_mops * seconds_at_full
    return hw.Round("gemm_mops", amount, seconds_at_full * slower + more.pop("trip", 0.0), threads=2, **more)


def test_a_promise_is_seven_tenths_of_what_was_measured() -> None:
    assert Speed(gemm_mops=56_000, memory_mbps=1_400, disk_mbps=280) == PROMISED


def test_nothing_promised_passes_whatever_was_measured() -> None:
    assert hw.judge(Speed(), [compute(slower=100)], FAR).ok
    assert hw.judge(PROMISED, [], FAR).ok


def test_units_promise_together() -> None:
    terms = Terms(transport_key="00" * 32, unit=UNIT, sandbox="process", speed=PROMISED)
    assert hw.promised(terms, 3) == Speed(gemm_mops=168_000, memory_mbps=4_200, disk_mbps=840)
    assert hw.promised(terms.model_copy(update={"speed": None}), 3) == Speed()


def test_the_best_round_speaks_for_the_machine() -> None:
    verdict = hw.judge(PROMISED, [compute(slower=9), compute(slower=1.2), compute(slower=30)], FAR)
    assert verdict.ok
    assert verdict.measured.gemm_mops == pytest.approx(66_666, rel=0.01)
    assert verdict.shares["gemm_mops"] == pytest.approx(1190, abs=3)


def test_a_wrong_answer_condemns_the_fastest_machine() -> None:
    verdict = hw.judge(PROMISED, [compute()], FAR, "an answer is wrong")
    assert (verdict.ok, verdict.code, verdict.fact) == (False, "under-spec", "an answer is wrong")


def test_the_fact_says_what_was_measured_what_promised_and_what_is_needed() -> None:
    verdict = hw.judge(PROMISED, [compute(slower=1 / 0.3)], FAR)
    assert not verdict.ok
    assert verdict.fact == ("gemm_mops: 24000 million multiply-adds/s measured, 56000 promised; 43 % is under 75 %")


@pytest.mark.parametrize(
    ("quantity", "passes_from"), [("gemm_mops", 0.75), ("memory_mbps", 0.5), ("disk_mbps", 0.2), ("link_mbps", 0.5)]
)
def test_each_quantity_has_its_share(quantity: hw.Quantity, passes_from: float) -> None:
    promises = Speed(**{quantity: 1000})
    assert hw.judge(promises, [hw.Round(quantity, 1000 * (passes_from + 0.01), 1.0)], FAR).ok
    verdict = hw.judge(promises, [hw.Round(quantity, 1000 * (passes_from - 0.01), 1.0)], FAR)
    assert not verdict.ok
    assert verdict.fact.startswith(quantity)


def test_one_unit_posing_as_two_shows_too_little_in_every_setting_without_a_job() -> None:
    """Half of the machine each, at the same moment, is 71 % of the promise; honest is 143 %."""
    for setting in (FAR, NEAR):
        assert not hw.judge(PROMISED, [compute(slower=2.0)], setting).ok
        assert hw.judge(PROMISED, [compute(slower=1.0)], setting).ok


@given(st.floats(min_value=0.0, max_value=10.0), st.floats(min_value=1 / 0.35, max_value=20))
def test_no_claimed_distance_hides_a_cap(trip: float, slower: float) -> None:
    """A prover that answers pings slowly is forgiven at most a quarter of a round's expected time."""
    capped = compute(slower=slower, rtt_s=trip)
    assert not hw.judge(PROMISED, [capped], FAR).ok


def test_an_honest_distance_is_forgiven() -> None:
    """Rounds last at least four round trips, so that all of it is."""
    assert hw.judge(PROMISED, [compute(0.2, trip=0.05, rtt_s=0.05)], FAR).ok


def test_a_relay_beyond_the_deadline_is_found() -> None:
    assert not hw.judge(PROMISED, [compute(slower=1.0, trip=0.1)], FAR).ok


# ------------------------------------------------------------------------------------------------- crowded and oversold


def crowded(share: float, **more: float) -> hw.Round:
    """A round that got `share` of both CPUs of the tenant's own machine because others worked too."""
    wall = 0.06 / share
    return hw.Round("gemm_mops", MEASURED.gemm_mops * 0.06, wall, 0.0, 0.12, 2, more.get("idle", 0.02))


@pytest.mark.parametrize("share", [0.5, 0.33, 0.25, 0.17, 0.08])
def test_on_the_tenants_own_machine_waiting_for_a_cpu_is_no_fault(share: float) -> None:
    assert hw.judge(PROMISED, [crowded(share)], NEAR).ok
    assert not hw.judge(PROMISED, [crowded(share)], FAR).ok


def test_waiting_while_cpus_stood_idle_is_a_quota_and_no_excuse() -> None:
    assert not hw.judge(PROMISED, [crowded(0.3, idle=1.4)], NEAR).ok


def test_a_heavily_oversold_machine_is_under_the_floor() -> None:
    assert not hw.judge(PROMISED, [crowded(0.03)], NEAR).ok


def test_a_power_cap_shows_in_cpu_time_too() -> None:
    """Crowded and capped to 30 %: its CPU seconds do a third of the work."""
    slow = hw.Round("gemm_mops", MEASURED.gemm_mops * 0.06, 0.06 / 0.3 / 0.5, 0.0, 0.12 / 0.3, 2, 0.0)
    assert not hw.judge(PROMISED, [slow], NEAR).ok


def test_a_claimed_cpu_time_of_nothing_gains_at_most_the_promise() -> None:
    """What a prover says of its CPU time is capped, and counts only while the wall clock is above the floor."""
    lie = hw.Round("gemm_mops", MEASURED.gemm_mops * 0.06, 0.2, 0.0, 1e-6, 2, 0.0)
    assert hw.rate(lie, PROMISED.gemm_mops, NEAR) == PROMISED.gemm_mops
    assert hw.rate(lie, PROMISED.gemm_mops, FAR) < PROMISED.gemm_mops / 2


def test_beside_a_job_half_of_the_machine_is_enough_and_a_third_of_half_is_not() -> None:
    assert hw.judge(PROMISED, [compute(slower=2.0)], BESIDE).ok
    assert not hw.judge(PROMISED, [compute(slower=2.0 / 0.3)], BESIDE).ok
    assert not hw.judge(PROMISED, [compute(slower=1 / 0.3)], BESIDE).ok


def test_ten_thousand_honest_probes_of_a_noisy_machine_raise_no_alarm() -> None:
    """Noise as recorded on a busy two-core machine (benches/results/probe.json has the real ones), seed 1."""
    throw = random.Random(1)
    refused = 0
    for _ in range(10_000):
        rounds = [compute(slower=1.0 + throw.expovariate(1 / 0.35), rtt_s=0.002, trip=0.002) for _ in range(5)]
        refused += not hw.judge(PROMISED, rounds, FAR).ok
    assert refused == 0


def test_ten_thousand_capped_probes_are_all_found() -> None:
    throw = random.Random(2)
    for _ in range(10_000):
        rounds = [compute(slower=(1 + throw.expovariate(3)) / 0.3, rtt_s=throw.uniform(0, 1)) for _ in range(5)]
        assert not hw.judge(PROMISED, rounds, FAR).ok


# ------------------------------------------------------------------------------------------------------ sizes and score


@given(st.integers(min_value=1, max_value=10**9), st.booleans())
def test_a_chain_takes_about_the_time_that_was_asked_for_or_what_can_be_checked(mops: int, has_numpy: bool) -> None:
    n, links = hw.gemm_shape(mops, 0.08, has_numpy)
    assert 64 <= n <= 8192
    assert 1 <= links <= 4096
    assert 36 * n < 2**24
    area = hw.LINK_AREA_NUMPY if has_numpy else hw.LINK_AREA
    assert links == 1 or links * n * n <= area
    if 50 < mops < 100_000:
        assert 0.02 <= n**3 * links / 1e6 / mops <= 0.4


def test_the_side_grows_with_the_machine() -> None:
    sides = [hw.gemm_shape(mops, 0.08, True)[0] for mops in (10, 1_000, 50_000, 500_000, 5_000_000, 400_000_000)]
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (64, 8192)


def test_memory_and_disk_stay_within_what_was_sold() -> None:
    small = UnitSize(cpu_milli=500, memory_bytes=64 << 20, disk_bytes=64 << 20)
    assert hw.fill_chunks(small, 1, 10**6, 1.0) == 8
    assert hw.fill_chunks(small, 1, 1, 0.1) == 1
    assert hw.fill_chunks(small, 2, 1000, 0.1) == 16
    assert hw.disk_chunks(small, 1, 10**6, 1.0) == 4
    tiny = UnitSize(cpu_milli=500, memory_bytes=64 << 20, disk_bytes=8 << 20)
    assert hw.disk_chunks(tiny, 1, 100, 0.1) == 0


def test_threads_are_the_cpus_rounded_up() -> None:
    assert hw.threads_of(UnitSize(cpu_milli=50, memory_bytes=1, disk_bytes=1), 1) == 1
    assert hw.threads_of(UnitSize(cpu_milli=1500, memory_bytes=1, disk_bytes=1), 3) == 5


def test_a_walk_without_half_the_memory_is_over_the_limit() -> None:
    """By the least that a missing chunk costs anybody: 2 MiB on average at 20 GB/s, for half of the steps."""
    missing = hw.WALK_STEPS / 2 * (hm.CHUNK_BYTES / 2) / 20e9
    assert missing > hw.walk_limit(FAR) * 1.3
    ours = hw.WALK_STEPS / 2 * (hm.CHUNK_BYTES / 2) / 3e9
    assert ours > hw.walk_limit(NEAR) * 2


def test_the_score_and_the_work_per_dollar() -> None:
    assert hw.score(Speed(gemm_mops=50_000, memory_mbps=1_000)) == 1000
    assert hw.score(Speed(gemm_mops=200_000, memory_mbps=1_000)) == 2000
    assert hw.score(Speed(gemm_mops=200_000)) == 0
    assert hw.work_per_dollar(Speed(gemm_mops=50_000), 500_000) == 360
    assert hw.work_per_dollar(Speed(gemm_mops=50_000), 0) is None
