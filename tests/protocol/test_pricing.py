"""What seconds cost: rounding is down, and cutting time changes nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minga.protocol.pricing import cost_down, cost_up, seconds_covered

prices, units, seconds = st.integers(0, 10**12), st.integers(1, 64), st.integers(0, 10**7)


@given(prices, units, seconds)
def test_down_and_up_enclose_the_exact_cost(price, count, time):
    exact_times_hour = price * count * time
    assert cost_down(price, count, time) * 3600 <= exact_times_hour <= cost_up(price, count, time) * 3600
    assert cost_up(price, count, time) - cost_down(price, count, time) in (0, 1)


@given(prices, units, st.integers(0, 10**15))
def test_covered_seconds_are_the_most_that_fit(price, count, amount):
    covered = seconds_covered(price, count, amount)
    assert cost_down(price, count, covered) <= amount or covered == 2**32 - 1
    if covered < 2**32 - 1:
        assert cost_down(price, count, covered + 1) > amount


def test_an_hour_costs_its_price():
    assert cost_down(350_000, 1, 3600) == cost_up(350_000, 1, 3600) == 350_000
    assert cost_down(1, 1, 3599) == 0
