"""Monthly series: their turns, how fast they move, and that the limits of staleness follow from the shipped ones."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.client.catalogs import shipped_history
from minga.protocol.price_history import (
    Point,
    change_ppm,
    month_name,
    monthly_trend,
    series_of,
    turns,
    typical_move,
)
from minga.protocol.price_index import STALE_DAYS
from price_fixtures import CARD

JANUARY = 2025 * 12
months = st.dictionaries(st.integers(JANUARY, JANUARY + 60), st.integers(1, 10**8), min_size=1, max_size=40)


def test_months_have_names():
    assert month_name(JANUARY) == "2025-01"
    assert month_name(2026 * 12 + 11) == "2026-12"


def test_points_become_series_in_order():
    points = [
        Point(CARD, "index", JANUARY + 1, 200, "s"),
        Point(CARD, "index", JANUARY, 100, "s"),
        Point(CARD, "index", JANUARY + 2, None, "s"),
        Point(CARD, "spot", JANUARY, 50, "s"),
        Point(CARD, "index", JANUARY + 1, 210, "s"),
    ]
    found = series_of(points)
    assert found == {("L40S", "index"): {JANUARY: 100, JANUARY + 1: 210}, ("L40S", "spot"): {JANUARY: 50}}
    assert list(found["L40S", "index"]) == [JANUARY, JANUARY + 1]


def test_turns_of_a_fall_and_a_rise():
    found = turns({0: 5, 1: 9, 2: 9, 3: 4, 4: 4, 5: 6})
    assert (found.high, found.low, found.last) == ((1, 9), (3, 4), (5, 6))
    assert (change_ppm(9, 4), change_ppm(4, 6)) == (-555_556, 500_000)


def test_the_low_before_the_high_is_not_the_low_after_it():
    assert turns({0: 1, 1: 9, 2: 8}).low == (2, 8)


@given(months)
def test_turns_are_points_of_the_series(series):
    found = turns(series)
    for month, price in (found.high, found.low, found.last):
        assert series[month] == price
    assert found.high[1] == max(series.values())
    assert found.high[0] <= found.low[0] <= found.last[0] == max(series)


def test_typical_moves_count_both_ways():
    assert typical_move([{0: 100, 1: 200, 2: 100}], 1) == 2
    assert typical_move([{0: 100, 1: 200, 2: 100}], 2) == 1
    assert typical_move([{0: 100, 1: 110}, {0: 100, 1: 100}, {5: 100, 6: 400}], 1) == Fraction(11, 10)
    assert typical_move([{0: 100}], 1) is None


@pytest.mark.parametrize("halving", [6, 30, 200])
def test_the_trend_of_a_price_that_halves(halving):
    series = {month: round(10**9 * 0.5 ** (month / halving)) for month in range(24)}
    found = monthly_trend(series)
    assert found is not None
    assert math.log(2) / -found == pytest.approx(halving, rel=1e-3)


def test_one_mad_month_does_not_turn_a_trend():
    series = {month: 1000 - month for month in range(24)}
    found = monthly_trend({**series, 23: 90_000})
    assert found is not None
    assert found < 0
    assert monthly_trend({0: 1}) is None


def longest_month_that_moved_at_most(share: Fraction, names: set[str]) -> int:
    many = [series for (_, name), series in series_of(shipped_history()).items() if name in names]
    for span in range(1, 13):
        move = typical_move(many, span)
        assert move is not None
        if move - 1 > share:
            return span - 1
    return 12


def test_quotes_are_stale_when_the_middle_price_has_moved_by_a_fifth():
    """The limits are what the shipped history says, not what suits: at most a year, and at most a fifth."""
    fifth = Fraction(1, 5)
    listed = longest_month_that_moved_at_most(fifth, {"neocloud_index", "neocloud_on_demand_raw_median"})
    spot = longest_month_that_moved_at_most(fifth, {"neocloud_spot_raw_median"})
    assert round(listed * 365.25 / 12) == STALE_DAYS["on_demand"]
    assert round(spot * 365.25 / 12) == STALE_DAYS["spot"] == STALE_DAYS["market"] == STALE_DAYS["interruptible"]


def test_the_page_on_prices_gives_the_moves_and_the_limits_that_the_data_give():
    page = (Path(__file__).parents[2] / "docs" / "prices.md").read_text()
    rows = re.findall(r"^\| (\d+) months? \| (\d+) % \| (\d+) % \|", page, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [1, 3, 6, 7, 8, 12]
    sides = ({"neocloud_index", "neocloud_on_demand_raw_median"}, {"neocloud_spot_raw_median"})
    many = [[series for (_, name), series in series_of(shipped_history()).items() if name in names] for names in sides]
    for span, *shown in rows:
        moves = [typical_move(side, int(span)) for side in many]
        assert [round(100 * (move - 1)) for move in moves if move is not None] == [int(text) for text in shown]
    assert f"over {STALE_DAYS['on_demand']} days old (lists), {STALE_DAYS['spot']} days (spot, markets)" in page


def test_the_shipped_history_says_what_the_design_quotes():
    found = turns(series_of(shipped_history())["H100", "neocloud_index"])
    assert [month_name(month) for month, _ in (found.high, found.low, found.last)] == ["2024-02", "2025-10", "2026-09"]
    assert [round(price / 10**6, 2) for _, price in (found.high, found.low, found.last)] == [4.84, 2.73, 3.79]
