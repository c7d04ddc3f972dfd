"""The suggested price follows how busy a machine is, inside its bounds, the same on every machine."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.protocol.price_quotes import MICRO
from minga.protocol.references import Withheld
from minga.protocol.suggested_price import (
    STEP_S,
    TARGET_PPM,
    PriceBounds,
    Suggestion,
    energy_cost,
    start_price,
    suggested_price,
)
from price_fixtures import CARD, TODAY, book, micro, quote

FREE = PriceBounds(0, None)
amounts = st.integers(1, 10**9)
busy = st.integers(0, MICRO)


def test_at_the_target_the_price_stays():
    assert suggested_price(500_000, TARGET_PPM, STEP_S, FREE) == 500_000


def test_an_idle_machine_gets_six_per_cent_cheaper_in_ten_minutes():
    assert suggested_price(1_000_000, 0, STEP_S, FREE) == round(1_000_000 * math.exp(-0.06))


def test_a_full_one_gets_two_per_cent_dearer():
    assert suggested_price(1_000_000, MICRO, STEP_S, FREE) == round(1_000_000 * math.exp(0.02))


@given(amounts, busy, st.integers(0, 86_400))
def test_it_is_the_formula_of_the_design(price, share, seconds):
    push = max(-1.0, min(1.0, (share - TARGET_PPM) / TARGET_PPM))
    wanted = price * math.exp(0.06 * seconds / STEP_S * push)
    assert suggested_price(price, share, seconds, FREE) == pytest.approx(max(1, wanted), rel=1e-9, abs=1)


@given(amounts, busy, busy, st.integers(1, 3600))
def test_busier_is_never_cheaper(price, one, other, seconds):
    low, high = sorted((one, other))
    assert suggested_price(price, low, seconds, FREE) <= suggested_price(price, high, seconds, FREE)


@given(st.integers(10**5, 10**9), busy)
def test_two_half_steps_are_one_step(price, share):
    half = suggested_price(price, share, STEP_S // 2, FREE)
    assert suggested_price(half, share, STEP_S // 2, FREE) == pytest.approx(
        suggested_price(price, share, STEP_S, FREE), abs=2
    )


@given(amounts, busy, st.integers(0, 86_400), st.integers(0, 10**6), st.one_of(st.none(), amounts))
def test_the_price_stays_inside_and_the_floor_is_the_stronger_bound(price, share, seconds, floor, ceiling):
    found = suggested_price(price, share, seconds, PriceBounds(floor, ceiling))
    assert found >= max(1, floor)
    assert ceiling is None or found <= max(1, floor, ceiling)


@pytest.mark.parametrize(("price", "share", "seconds"), [(1, -1, 1), (1, MICRO + 1, 1), (-1, 0, 1), (1, 0, -1)])
def test_nonsense_is_refused(price, share, seconds):
    with pytest.raises(InvalidInput):
        suggested_price(price, share, seconds, FREE)


def test_an_idle_machine_ends_at_its_energy_cost():
    bounds = PriceBounds(energy_cost(450, 150_000), micro("2.00"))
    price = micro("1.00")
    for _ in range(200):
        price = suggested_price(price, 0, STEP_S, bounds)
    assert price == bounds.floor == 67_500


def test_a_machine_that_is_always_full_ends_at_the_cheapest_cloud():
    bounds = PriceBounds(67_500, micro("2.00"))
    price = micro("1.00")
    for _ in range(200):
        price = suggested_price(price, MICRO, STEP_S, bounds)
    assert price == micro("2.00")


def test_a_market_that_answers_to_the_price_settles_at_the_target():
    """Leased share falls from 1 to 0 between 0.50 and 1.50: at 0.75 it is three quarters."""
    price = micro("1.40")
    for _ in range(300):
        share = max(0, min(MICRO, MICRO - (price - micro("0.50"))))
        price = suggested_price(price, share, STEP_S, FREE)
    assert price == pytest.approx(micro("0.75"), rel=0.01)


def test_energy_is_rounded_up():
    assert energy_cost(300, 100_000) == 30_000
    assert energy_cost(1, 1) == 1
    assert energy_cost(0, 100_000) == 0


# ---------------------------------------------------------------------------------------------------------------- start


def test_the_start_is_what_markets_ask():
    quotes = [*book("2.00", "2.10"), *book("0.50", "0.60", "0.70", kind="market")]
    found = start_price("L40S", quotes, TODAY, floor=30_000)
    assert found == Suggestion(micro("0.60"), PriceBounds(30_000, micro("2.00")), "market index of 3 vendors")


def test_without_markets_it_is_spot_and_without_spot_half_of_the_cheapest_cloud():
    clouds = book("2.00", "2.10")
    spot = book("0.90", "0.95", "0.99", kind="spot")
    found = start_price(CARD, [*clouds, *spot], TODAY)
    assert isinstance(found, Suggestion)
    assert found.usd_micro == micro("0.95")
    found = start_price(CARD, clouds, TODAY)
    assert isinstance(found, Suggestion)
    assert (found.usd_micro, found.why) == (micro("1.00"), "half of a's on-demand price")


def test_the_start_keeps_to_the_bounds():
    quotes = [*book("0.55", "0.58"), *book("0.50", "0.60", "0.70", kind="market")]
    assert isinstance(found := start_price(CARD, quotes, TODAY), Suggestion)
    assert found.usd_micro == micro("0.55"), "never above the cheapest cloud"
    assert isinstance(found := start_price(CARD, quotes, TODAY, floor=micro("0.80")), Suggestion)
    assert found.usd_micro == micro("0.80"), "never below what the energy costs"


def test_without_a_cloud_there_is_no_ceiling():
    found = start_price(CARD, book("0.50", "0.60", "0.70", kind="market"), TODAY)
    assert isinstance(found, Suggestion)
    assert found.bounds.ceiling is None


def test_nothing_known_is_withheld_with_the_reason():
    found = start_price("RTX2080", [quote("a", "1.00")], TODAY)
    assert found == Withheld("none", "no price of RTX2080 is known")
