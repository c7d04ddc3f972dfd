"""The index: what it is made of, what withholds it, and what no single vendor can do to it."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.protocol.price_index import (
    CURRENT_DAYS,
    SCREEN_RATIO,
    STALE_DAYS,
    VENDORS_MIN,
    WEIGHT_CAP,
    Value,
    Voice,
    Withheld,
    capped,
    price_index,
    settle,
    vendor_voices,
    weighted_quantile,
    without_outliers,
)
from minga.protocol.price_quotes import MICRO
from price_fixtures import CARD, TODAY, book, micro, quote

prices = st.integers(10_000, 20_000_000)
weights = st.integers(1, MICRO)


@st.composite
def voices(draw: st.DrawFn, least: int = 3, most: int = 12) -> list[Voice]:
    said = draw(st.lists(st.tuples(prices, weights), min_size=least, max_size=most))
    return [Voice(f"v{number:02}", price, weight) for number, (price, weight) in enumerate(said)]


def value_of(quotes, kind="on_demand", **more):
    return price_index(quotes, CARD, kind, TODAY, **more).value


# ----------------------------------------------------------------------------------------------------------- the value


def test_three_vendors_of_one_age_have_the_middle_price():
    found = value_of(book("1.00", "1.20", "1.10"))
    assert isinstance(found, Value)
    assert found.usd_micro == micro("1.10")
    assert (found.low, found.high) == (micro("1.00"), micro("1.20"))
    assert [voice.name for voice in found.voices] == ["a", "c", "b"]


def test_many_quotes_of_one_vendor_are_one_voice():
    many = [quote("loud", f"{9 + n / 100:.2f}", note=str(n)) for n in range(50)]
    found = value_of([*many, *book("4.00", "4.10", "4.20", "4.30")])
    assert isinstance(found, Value)
    assert found.usd_micro == micro("4.20")
    assert len(found.voices) == 5
    assert len(found.quotes) == 54


def test_a_newer_word_of_a_vendor_replaces_its_older_one():
    old, new = quote("a", "1.00", age=100), quote("a", "2.00", age=100 - CURRENT_DAYS - 1)
    (voice,) = vendor_voices([old, new], CARD, "on_demand", TODAY)
    assert (voice.usd_micro, voice.quotes) == (micro("2.00"), (new,))


def test_words_of_the_same_month_stand_together():
    old, new = quote("a", "1.00", age=100), quote("a", "2.00", age=100 - CURRENT_DAYS)
    (voice,) = vendor_voices([old, new], CARD, "on_demand", TODAY)
    assert voice.usd_micro == micro("1.50")


def test_a_vendor_with_medians_speaks_by_them_and_not_by_its_cheapest_corner():
    cheapest = quote("aws", "0.30", "spot", summary="lowest")
    middle = quote("aws", "1.00", "spot", summary="median")
    (voice,) = vendor_voices([cheapest, middle], CARD, "spot", TODAY)
    assert voice.usd_micro == micro("1.00")
    assert voice.quotes == (cheapest, middle), "both are named as sources"


def test_fresh_quotes_weigh_more():
    stale = [quote(name, "1.00", age=300) for name in "abc"]
    fresh = [quote(name, "1.50", age=0) for name in "xyz"]
    found = value_of([*stale, *fresh])
    assert isinstance(found, Value)
    assert found.usd_micro == micro("1.50")
    shares = {voice.name: share for voice, share in zip(found.voices, found.shares, strict=True)}
    assert shares["x"] > 5 * shares["a"]


def test_tomorrows_quotes_weigh_as_todays():
    (voice,) = vendor_voices([quote("a", "1.00", age=-3)], CARD, "on_demand", TODAY)
    assert voice.weight == MICRO


def test_a_region_is_asked_for_by_a_part_of_its_name():
    here = book("1.00", "1.10", "1.20", region="us-east1")
    there = book("2.00", "2.10", "2.20", region="eu-west4")
    found = value_of([*here, *there], region="US-")
    assert isinstance(found, Value)
    assert found.usd_micro == micro("1.10")
    missing = value_of(here, region="mars")
    assert missing == Withheld("none", "no price of L40S in 'mars' is known")


def test_other_cards_and_kinds_do_not_matter():
    quotes = book("1.00", "1.10", "1.20")
    noise = [*book("9.00", "9.10", "9.20", gpu="H200"), *book("0.10", "0.20", "0.25", kind="market")]
    assert value_of([*quotes, *noise]) == value_of(quotes)


# ------------------------------------------------------------------------------------------------------------ withheld


def test_nothing_known_is_said():
    assert value_of([]) == Withheld("none", "no price of L40S is known")


def test_two_vendors_are_too_few():
    found = value_of(book("1.00", "1.10"))
    assert found == Withheld("thin", "2 vendors, at least 3 are needed")
    assert value_of(book("1.00")) == Withheld("thin", "1 vendor, at least 3 are needed")


def test_two_vendors_and_an_outlier_are_too_few():
    found = value_of(book("1.00", "1.10", "9.00"))
    assert isinstance(found, Withheld)
    assert (found.why, found.fact) == ("thin", "2 vendors near the middle, at least 3 are needed")


@pytest.mark.parametrize("kind", list(STALE_DAYS))
def test_old_quotes_say_nothing_of_today(kind):
    limit = STALE_DAYS[kind]
    assert isinstance(value_of(book("1.00", "1.10", "1.20", kind=kind, age=limit), kind), Value)
    found = value_of(book("1.00", "1.10", "1.20", kind=kind, age=limit + 1), kind)
    assert isinstance(found, Withheld)
    assert found.why == "stale"
    assert f"{limit + 1} days old" in found.fact


def test_a_year_alone_is_as_old_as_its_first_day():
    quotes = [quote(name, "1.00", "spot", age=326) for name in "abc"]
    found = value_of(quotes, "spot")
    assert isinstance(found, Withheld)
    assert found.why == "stale"


def test_vendors_that_disagree_too_much_have_no_middle():
    found = value_of(book("1.00", "1.10", "4.80", "4.90", "2.00", "5.00", "1.05"))
    assert isinstance(found, Withheld)
    assert found.why == "spread"


def test_what_was_refused_is_told_with_the_reason():
    quotes = [quote("novita", "2.00"), quote("novita", "1.00", "spot")]
    found = price_index(quotes, CARD, "spot", TODAY)
    assert isinstance(found.value, Withheld)
    assert "1 more do not count: exactly half" in found.value.fact
    assert [item.trap for item in found.refused] == ["half-price"]
    assert price_index(quotes, CARD, "on_demand", TODAY).refused == ()


# ------------------------------------------------------------------------------------------------------ outlier screen


def test_far_ones_are_set_aside_on_both_sides():
    said = [
        Voice(name, micro(price), 1)
        for name, price in zip("abcdefg", ("0.1", "1", "1.1", "1.2", "1.3", "1.4", "20"), strict=True)
    ]
    kept, aside = without_outliers(said)
    assert aside == ("a", "g")
    assert len(kept) == 5


def test_equal_prices_are_screened_by_ratio():
    said = [Voice(str(n), 1000, 1) for n in range(5)]
    near, far = Voice("near", 1000 * SCREEN_RATIO, 1), Voice("far", 1000 * SCREEN_RATIO + 1, 1)
    assert without_outliers([*said, near])[1] == ()
    assert without_outliers([*said, far])[1] == ("far",)
    assert without_outliers([*said, Voice("low", 1000 // SCREEN_RATIO - 1, 1)])[1] == ("low",)


@given(voices())
def test_screening_keeps_at_least_half(said):
    kept, aside = without_outliers(said)
    assert len(kept) + len(aside) == len(said)
    assert len(kept) * 2 >= len(said)


@given(voices(), st.integers(2, 1000))
def test_screening_does_not_know_the_currency(said, factor):
    times = [Voice(voice.name, voice.usd_micro * factor * 2, voice.weight) for voice in said]
    twice = [Voice(voice.name, voice.usd_micro * 2, voice.weight) for voice in said]
    assert without_outliers(times)[1] == without_outliers(twice)[1]


# -------------------------------------------------------------------------------------------------------------- weights


@given(st.lists(weights, min_size=3, max_size=40))
def test_shares_add_up_and_keep_the_cap(given_weights):
    shares = capped(given_weights)
    assert sum(shares) == 1
    assert max(shares) <= WEIGHT_CAP
    order = sorted(range(len(shares)), key=lambda i: given_weights[i])
    assert all(shares[a] <= shares[b] for a, b in pairwise(order)), "more weight, no less share"


@given(st.lists(st.integers(100, 110), min_size=4, max_size=40))
def test_shares_below_the_cap_are_in_proportion(given_weights):
    total = sum(given_weights)
    assert capped(given_weights) == [Fraction(weight, total) for weight in given_weights]


def test_a_giant_is_capped_and_the_rest_keeps_its_proportions():
    assert capped([10**9, 2, 1]) == [Fraction(35, 100), Fraction(35, 100), Fraction(30, 100)]
    shares = capped([10**9, 4, 3, 2, 1])
    assert shares[0] == WEIGHT_CAP
    assert shares[1] == 4 * shares[4]


def test_fewer_than_three_cannot_keep_a_cap():
    assert capped([5, 1]) == [Fraction(1, 2)] * 2
    assert capped([5]) == [1]


def test_quantiles_of_weights():
    said = [Voice(name, price, 1) for name, price in zip("abcd", (10, 20, 30, 40), strict=True)]
    equal = [Fraction(1, 4)] * 4
    assert weighted_quantile(said, equal, Fraction(1, 2)) == 25
    assert weighted_quantile(said, equal, Fraction(3, 10)) == 20
    assert weighted_quantile(said, [Fraction(1, 10)] * 3 + [Fraction(7, 10)], Fraction(1, 2)) == 40
    assert weighted_quantile(said, equal, Fraction(1)) == 40


# ----------------------------------------------------------------------------------------------- what nobody alone can


@given(voices(), st.randoms(use_true_random=False))
def test_the_order_of_voices_changes_nothing(said, dice):
    first = settle(said, VENDORS_MIN, "vendors")
    mixed = list(said)
    dice.shuffle(mixed)
    assert settle(mixed, VENDORS_MIN, "vendors") == first


@settings(max_examples=300)
@given(voices(least=4), st.integers(0, 11), st.integers(1, 10**12), st.integers(1, 10**12))
def test_one_vendor_cannot_put_the_value_outside_the_range_of_the_others(said, which, price, weight):
    """Whatever it says, however loudly: a price of a millionth or a million, a weight of a billion."""
    which %= len(said)
    others = [voice.usd_micro for n, voice in enumerate(said) if n != which]
    attacked = [*said[:which], Voice(said[which].name, price, weight), *said[which + 1 :]]
    found = settle(attacked, VENDORS_MIN, "vendors")
    if isinstance(found, Value):
        assert min(others) <= found.usd_micro <= max(others)


@settings(max_examples=300)
@given(st.lists(st.integers(1_000_000, 1_400_000), min_size=4, max_size=12), st.integers(1, 10**12))
def test_one_vendor_among_close_ones_moves_the_value_between_inner_quantiles_of_the_others(near, price):
    """With a share of 35 % at most, no further than from the 23rd to the 77th percentile of the others' weight.

    Nor can it have the value withheld by saying something absurd.
    """
    said = [Voice(f"v{n:02}", value, MICRO) for n, value in enumerate(near)]
    found = settle([*said, Voice("liar", price, 10**9)], VENDORS_MIN, "vendors")
    assert isinstance(found, Value)
    ordered = sorted(near)
    low = ordered[max(0, len(ordered) * 3 // 13 - 1)]
    high = ordered[min(len(ordered) - 1, len(ordered) * 10 // 13 + 1)]
    assert low <= found.usd_micro <= high


def test_one_loud_vendor_that_is_no_outlier_cannot_have_the_value_withheld():
    """By weight its 35 % would be the upper quartile alone, and five times the middle; counted once it is a sixth."""
    said = [Voice(f"v{n}", price, 1) for n, price in enumerate((100, 150, 200, 250, 300))]
    found = settle([*said, Voice("loud", 1200, 10**6)], VENDORS_MIN, "vendors")
    assert isinstance(found, Value)
    assert found.aside == ()
    assert (found.low, found.high) == (150, 300)


@given(voices(), st.integers(2, 50))
def test_more_weight_of_all_changes_nothing(said, factor):
    heavier = [Voice(voice.name, voice.usd_micro, voice.weight * factor) for voice in said]
    first, second = settle(said, VENDORS_MIN, "vendors"), settle(heavier, VENDORS_MIN, "vendors")
    if isinstance(first, Value):
        assert isinstance(second, Value)
        assert (first.usd_micro, first.shares) == (second.usd_micro, second.shares)
    else:
        assert first == second


@given(voices())
def test_value_and_quartiles_lie_between_the_voices(said):
    found = settle(said, VENDORS_MIN, "vendors")
    if isinstance(found, Value):
        kept = [voice.usd_micro for voice in found.voices]
        assert min(kept) <= found.low <= found.high <= max(kept)
        assert min(kept) <= found.usd_micro <= max(kept)
        assert max(found.shares) <= 350_000
        assert len(kept) >= VENDORS_MIN


def test_shuffled_quotes_have_the_same_index():
    quotes = [*book("1.00", "1.30", "1.10", "2.00", "1.25"), quote("a", "1.02", note="two"), quote("b", "9", age=80)]
    first = price_index(quotes, CARD, "on_demand", TODAY)
    dice = random.Random(11)
    for _ in range(20):
        dice.shuffle(quotes)
        assert price_index(quotes, CARD, "on_demand", TODAY) == first
