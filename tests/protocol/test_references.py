"""Three references, each dated or withheld; savings and effective prices in integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.protocol.price_quotes import MICRO
from minga.protocol.references import Reference, Withheld, effective_price, references, saving_ppm
from price_fixtures import CARD, TODAY, book, micro, quote

amounts = st.integers(1, 10**9)


def test_all_three_are_given_with_vendor_date_source_and_age():
    quotes = [
        *book("1.00", "1.20", "1.10", age=20), quote("d", "1.30", age=5, source="https://d.example.org"),
        quote("s", "0.40", "spot", age=7, source="https://s.example.org"), quote("t", "0.50", "spot", age=3),
    ]  # fmt: skip
    found = references("NVIDIA L40S", quotes, TODAY)
    assert found.gpu == CARD
    assert found.on_demand_min == Reference(micro("1.00"), "a", "2026-11-03", "https://prices.example.org", 20, 4)
    assert isinstance(found.on_demand_median, Reference)
    assert found.on_demand_median.usd_micro == micro("1.20")
    assert found.on_demand_median.dated == "2026-11-03 … 2026-11-18"
    assert found.on_demand_median.age_days == 20
    assert found.on_demand_median.source.startswith("median of 4 vendors; in the middle: ")
    assert found.spot_min == Reference(micro("0.40"), "s", "2026-11-16", "https://s.example.org", 7, 2)
    assert [name for name, _ in found.named()] == ["on-demand minimum", "on-demand median", "spot minimum"]


def test_a_card_without_quotes_has_none_of_them():
    found = references("MI300X", book("1.00", "1.10", "1.20"), TODAY)
    assert [item.why for _, item in found.named() if isinstance(item, Withheld)] == ["none"] * 3


def test_one_vendor_is_no_minimum_and_two_are_no_median():
    found = references(CARD, book("1.00"), TODAY)
    assert found.on_demand_min == Withheld("thin", "one vendor only (a), at least 2 are needed")
    found = references(CARD, book("1.00", "1.40"), TODAY)
    assert isinstance(found.on_demand_min, Reference)
    assert found.on_demand_min.vendors == 2
    assert isinstance(found.on_demand_median, Withheld)
    assert found.on_demand_median.why == "thin"


def test_stale_prices_are_no_reference():
    found = references(CARD, book("1.00", "1.10", "1.20", kind="spot", age=214), TODAY)
    assert isinstance(found.spot_min, Withheld)
    assert found.spot_min.why == "stale"


def test_a_slip_does_not_become_the_minimum():
    quotes = [*book("1.00", "1.10", "1.20", "1.30"), quote("slip", "0.01")]
    found = references(CARD, quotes, TODAY).on_demand_min
    assert isinstance(found, Reference)
    assert (found.vendor, found.usd_micro) == ("a", micro("1.00"))


def test_traps_do_not_become_the_minimum():
    quotes = [
        *book("2.00", "2.10"), quote("a", "1.00", "spot"), quote("b", "1.05", "spot"),
        quote("c", "0.30", "spot", note="verify"), quote("m", "0.10", "market"),
    ]  # fmt: skip
    found = references(CARD, quotes, TODAY)
    assert isinstance(found.on_demand_min, Reference)
    assert found.on_demand_min.usd_micro == micro("2.00")
    assert isinstance(found.spot_min, Withheld), "half prices and hearsay are all there is"


def test_an_unsaid_variant_is_any_and_a_said_one_is_that():
    quotes = [
        quote("a", "1.00", gpu="A100-40GB"), quote("b", "1.10", gpu="A100-40GB"),
        quote("a", "2.00", gpu="A100-80GB"), quote("b", "2.10", gpu="A100-80GB"),
    ]  # fmt: skip
    for name, wanted in (("A100", "1.00"), ("NVIDIA A100-SXM4-80GB", "2.00"), ("A100-40GB", "1.00")):
        found = references(name, quotes, TODAY).on_demand_min
        assert isinstance(found, Reference)
        assert found.usd_micro == micro(wanted), name


def test_what_is_not_a_name_is_refused():
    with pytest.raises(InvalidInput):
        references("", [], TODAY)


@given(st.lists(amounts, min_size=3, max_size=9), st.randoms(use_true_random=False))
def test_minimum_is_at_most_the_median(prices, dice):
    quotes = [quote(f"v{n}", f"{price / 10**6:.6f}") for n, price in enumerate(prices)]
    found = references(CARD, quotes, TODAY)
    if isinstance(found.on_demand_median, Reference):
        assert isinstance(found.on_demand_min, Reference)
        assert found.on_demand_min.usd_micro <= found.on_demand_median.usd_micro
    dice.shuffle(quotes)
    assert references(CARD, quotes, TODAY) == found


# --------------------------------------------------------------------------------------------------------------- saving


def test_savings():
    assert saving_ppm(micro("1"), micro("4")) == 750_000
    assert saving_ppm(micro("4"), micro("4")) == 0
    assert saving_ppm(micro("8"), micro("4")) == -MICRO
    assert saving_ppm(0, micro("4")) == MICRO
    assert saving_ppm(1, 3) == 666_666, "rounded against us"


@given(amounts, amounts)
def test_a_saving_is_never_flattered(price, reference):
    saved = saving_ppm(price, reference)
    assert price * MICRO >= reference * (MICRO - saved) - reference
    assert price * MICRO <= reference * (MICRO - saved)
    assert (saved > 0) <= (price < reference)


def test_the_effective_price_of_a_perfect_machine_is_its_price():
    assert effective_price(1_870_000, 0, MICRO, 0) == 1_870_000


def test_the_effective_price_is_the_formula_of_the_docs():
    # 1.00 · 1.05 / (0.98 · (1 − 0.02)) = 1.093294…
    assert effective_price(1_000_000, 50_000, 980_000, 20_000) == 1_093_295


@given(amounts, st.integers(0, MICRO), st.integers(1, MICRO), st.integers(0, MICRO - 1))
def test_the_effective_price_is_never_below_the_price_and_grows_with_every_evil(price, overhead, up, rework):
    found = effective_price(price, overhead, up, rework)
    assert found >= price
    assert effective_price(price, overhead + 1000, up, rework) >= found
    assert effective_price(price, overhead, max(1, up - 1000), rework) >= found
    assert effective_price(price, overhead, up, max(0, rework - 1000)) <= found
