"""Beliefs learn, stay wide while little was seen, and their quantiles are those of the laws that they name."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.protocol.beliefs import LEAST_S, SCORE_MAX, Belief, Rate, failures_at, student

SCORE_90 = NormalDist().inv_cdf(0.9)
SECONDS = st.floats(1, 1e7)


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [(0.9, 3, 1.638), (0.9, 5, 1.476), (0.9, 10, 1.372), (0.95, 4, 2.132), (0.975, 6, 2.447), (0.5, 3, 0.0)],
)
def test_scores_become_students(share: float, freedom: float, value: float) -> None:
    assert student(NormalDist().inv_cdf(share), freedom) == pytest.approx(value, abs=0.04)


@given(st.floats(-6, 6), st.floats(0.1, 200))
def test_students_law_is_symmetric_and_wider_than_the_normal(score: float, freedom: float) -> None:
    assert student(-score, freedom) == pytest.approx(-student(score, freedom))
    assert abs(student(score, freedom)) >= min(abs(score), SCORE_MAX) - 1e-9


@given(st.lists(SECONDS, min_size=1, max_size=30), SECONDS, st.floats(0.05, 2))
def test_what_is_seen_at_once_is_what_is_seen_one_by_one(values: list[float], median: float, spread: float) -> None:
    prior = Belief.of(median, spread)
    one_by_one = prior
    for value in values:
        one_by_one = one_by_one.seen([value])
    at_once = prior.seen(values)
    assert one_by_one.mean == pytest.approx(at_once.mean)
    assert one_by_one.spread == pytest.approx(at_once.spread, abs=1e-6)
    assert (one_by_one.weight, one_by_one.freedom) == pytest.approx((at_once.weight, at_once.freedom))


@given(st.lists(SECONDS, max_size=20), SECONDS, st.floats(0.05, 2), st.floats(-3, 2.9))
def test_quantiles_rise_with_their_score(values: list[float], median: float, spread: float, score: float) -> None:
    belief = Belief.of(median, spread).seen(values)
    assert belief.at(score) <= belief.at(score + 0.1)
    assert belief.at(0) == pytest.approx(belief.median)


def test_many_equal_values_are_believed() -> None:
    belief = Belief.of(20, 1.0).seen([300] * 50)
    assert belief.median == pytest.approx(300, rel=0.06)
    assert belief.at(SCORE_90) / belief.median < 2
    assert Belief.of(20, 1.0).at(SCORE_90) / 20 > 5


def test_nothing_seen_changes_nothing() -> None:
    prior = Belief.of(20, 1.0)
    assert prior.seen([]) is prior


def test_a_shift_is_a_factor() -> None:
    belief = Belief.of(1000, 0.3).seen([900, 1200, 1500])
    for score in (-2.0, 0.0, SCORE_90):
        assert belief.shifted(2.5).at(score) == pytest.approx(2.5 * belief.at(score))


def test_times_under_a_second_count_as_half_a_one() -> None:
    assert Belief.of(0, 0.5).median == pytest.approx(LEAST_S)
    assert Belief.of(5, 0.5).seen([0, 0, 0]) == Belief.of(5, 0.5).seen([LEAST_S] * 3)


def test_another_cause_widens_and_never_moves() -> None:
    belief = Belief.of(100, 0.3)
    assert belief.at(0, 2.0) == pytest.approx(belief.at(0))
    assert belief.at(SCORE_90, 0.5) > belief.at(SCORE_90)
    assert belief.at(-SCORE_90, 0.5) < belief.at(-SCORE_90)


def test_what_is_absurd_stays_finite() -> None:
    assert math.isfinite(Belief.of(1e30, 50).at(3.5))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_rate_seen_once_is_exponential(share: float) -> None:
    found = Rate(1, 24).at(NormalDist().inv_cdf(share))
    assert found == pytest.approx(-math.log(1 - share) / 24, rel=0.06, abs=0.0005)


def test_a_rate_narrows_as_events_are_seen() -> None:
    few, many = Rate(1, 24), Rate(1, 24).seen(99, 24 * 99)
    assert few.per_hour == many.per_hour
    assert few.at(SCORE_90) / few.per_hour > 2.2
    assert many.at(SCORE_90) / many.per_hour < 1.15
    assert Rate(0, 1).at(3) == 0


@pytest.mark.parametrize(("runs", "odds"), [(1, 0.1), (1, 3.0), (12, 0.05), (400, 0.01), (3.5, 0.4)])
def test_failures_follow_the_negative_binomial(runs: float, odds: float) -> None:
    shares = [(number + 0.5) / 20_000 for number in range(20_000)]
    found = [failures_at(share, runs, odds) for share in shares]
    mean = sum(found) / len(found)
    assert mean == pytest.approx(runs * odds, rel=0.02)
    assert sum((value - mean) ** 2 for value in found) / len(found) == pytest.approx(runs * odds * (1 + odds), rel=0.06)
    assert found.count(0) / len(found) == pytest.approx((1 + odds) ** -runs, abs=1e-3)
    assert found == sorted(found)


def test_many_failures_follow_their_mean_and_variance() -> None:
    found = [failures_at((number + 0.5) / 2000, 100, 1.0) for number in range(2000)]
    assert sum(found) / 2000 == pytest.approx(100, rel=0.02)
    assert found[1000] == pytest.approx(100, abs=3)
    assert found[1800] - 100 == pytest.approx(SCORE_90 * math.sqrt(200), rel=0.15)
    assert failures_at(0.5, 10, 0) == 0
