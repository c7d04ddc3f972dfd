"""Names of cards become classes of price; each trap of a catalog is found, and nothing else is."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from minga.core.errors import InvalidInput
from minga.protocol.accelerators import Accelerator
from minga.protocol.price_quotes import BOOK_MIN, card_class, is_of, median, screen
from price_fixtures import quote


@pytest.mark.parametrize(
    ("name", "memory", "wanted"),
    [
        ("NVIDIA A100-SXM4-80GB", None, "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", None, "A100-80GB"),
        ("A100", 40, "A100-40GB"),
        ("A100", None, "A100"),
        ("NVIDIA H100 80GB HBM3", None, "H100"),
        ("NVIDIA H100 PCIe", None, "H100-PCIE"),
        ("H100-SXM", None, "H100-SXM"),
        ("H100NVL", 94, "H100-NVL"),
        ("H100-MEGA", 80, "H100-SXM"),
        ("H100-any", None, "H100"),
        ("H100-unspecified", None, "H100"),
        ("NVIDIA GeForce RTX 4090", None, "RTX4090"),
        ("Tesla V100-SXM2-16GB", None, "V100"),
        ("NVIDIA H200", 141, "H200"),
    ],
)
def test_a_card_is_priced_in_its_class(name, memory, wanted):
    assert str(card_class(name, memory)) == wanted
    assert card_class(wanted) == card_class(name, memory), "classes are their own class"


def test_a_name_that_is_none_is_refused():
    with pytest.raises(InvalidInput):
        card_class("any")
    with pytest.raises(InvalidInput):
        card_class("H100; rm")


def test_a_variant_counts_only_when_it_is_asked_for():
    sxm, pcie = quote("a", "3", gpu="H100-SXM"), quote("a", "2", gpu="H100-PCIe")
    big = quote("a", "2", gpu="A100-80GB")
    assert [is_of(item, card_class("H100")) for item in (sxm, pcie, big)] == [True, True, False]
    assert [is_of(item, card_class("H100-SXM")) for item in (sxm, pcie)] == [True, False]
    assert is_of(big, Accelerator("A100"))
    assert not is_of(big, card_class("A100-40GB"))
    assert not is_of(quote("a", "2", gpu="H100"), card_class("H100-SXM")), "an unnamed variant might be any"


def test_the_middle():
    assert median([3]) == 3
    assert median([5, 1, 3]) == 3
    assert median([1, 4, 2, 9]) == 3
    assert median([1, 2]) == 1, "rounded down"


# ------------------------------------------------------------------------------------------------------------- traps


def traps(quotes):
    """Trap → the quotes in it."""
    _, refused = screen(quotes)
    found: dict[str, list[str]] = {}
    for item in refused:
        found.setdefault(item.trap, []).append(item.quote.vendor)
    return found


def test_honest_quotes_pass_and_are_counted_once():
    quotes = [quote("a", "1.00"), quote("b", "1.10"), quote("a", "0.45", "spot")]
    good, refused = screen([*quotes, *quotes])
    assert sorted(good, key=str) == sorted(quotes, key=str)
    assert refused == []


@pytest.mark.parametrize("note", ["flex-start", "a2 Flex Start SKU", "DWS calendar"])
def test_a_flex_start_row_that_says_so_is_not_on_demand(note):
    assert traps([quote("gcp", "1.85", note=note)]) == {"flex-start": ["gcp"]}
    assert traps([quote("gcp", "1.85", "spot", note=note)]) == {}, "of spot nobody expects to be served at once"


def test_a_remark_about_a_flex_start_row_that_was_left_out_is_none():
    note = "a2-ultragpu-1g; us-central1 row 1.8462 looks like a flex-start SKU, ignored"
    assert traps([quote("gcp", "5.52", note=note)]) == {}
    assert traps([quote("gcp", "10.98", note="a3-highgpu-1g (list; 1g shapes only Spot/Flex)")]) == {}
    assert traps([quote("oracle", "2.00", note="VM.Standard.E4.Flex$_2_8")]) == {}


def regions(*prices, vendor="gcp", **more):
    return [
        quote(vendor, price, gpu="A100-80GB", region=f"region-{n}", note="a2-ultragpu-1g", **more)
        for n, price in enumerate(prices)
    ]


def test_a_flex_start_row_is_found_by_its_distance_from_the_other_regions():
    good, refused = screen(regions("1.8462", "5.5238", "5.60", "6.10"))
    assert [(item.trap, item.quote.usd_micro) for item in refused] == [("flex-start", 1_846_200)]
    assert len(good) == 3


def test_regions_may_differ_by_what_regions_differ():
    assert traps(regions("4.00", "5.00", "6.10", "6.40")) == {}


def test_two_regions_are_too_few_to_say_which_is_wrong():
    assert traps(regions("1.8462", "5.5238")) == {}


def test_other_instances_and_vendors_are_no_comparison():
    quotes = [*regions("5.5", "5.6", "5.7"), *regions("1.5", vendor="cheap"), quote("gcp", "1.5", gpu="A100-80GB")]
    assert traps(quotes) == {}


def test_spot_that_is_always_half_is_a_rule_and_no_price():
    quotes = [
        quote("oracle", "2.95", gpu="V100"), quote("oracle", "1.475", "spot", gpu="V100"),
        quote("oracle", "2.00", gpu="A10"), quote("oracle", "1.00", "spot", gpu="A10"),
    ]  # fmt: skip
    assert traps(quotes) == {"half-price": ["oracle", "oracle"]}


def test_half_is_meant_to_the_cent():
    quotes = [quote("novita", "2.59"), quote("novita", "1.30", "spot")]
    assert traps(quotes) == {"half-price": ["novita"]}
    assert traps([quote("novita", "2.60"), quote("novita", "1.32", "spot")]) == {}


def test_finer_prices_must_be_half_to_the_micro_dollar():
    assert traps([quote("a", "2.9501"), quote("a", "1.475", "spot")]) == {}


def test_a_vendor_with_one_price_that_is_not_half_sets_prices():
    quotes = [
        quote("a", "2.00"), quote("a", "1.00", "spot"),
        quote("a", "3.00", gpu="H200"), quote("a", "1.20", "spot", gpu="H200"),
    ]  # fmt: skip
    assert traps(quotes) == {}


def test_spot_above_the_full_price_is_not_what_it_says():
    quotes = [quote("runpod", "3.29"), quote("runpod", "4.76", "spot"), quote("b", "1.00"), quote("b", "0.9", "spot")]
    assert traps(quotes) == {"spot-above": ["runpod"]}
    asks = [quote("vast", "0.40", "market"), quote("vast", "0.47", "interruptible")]
    assert traps(asks) == {"spot-above": ["vast"]}


def test_spot_is_compared_with_the_same_source_and_place_only():
    elsewhere = {"region": "far", "source": "https://other.example.org"}
    assert traps([quote("a", "1.00"), quote("a", "2.00", "spot", **elsewhere)]) == {}


@pytest.mark.parametrize("offers", [1, 3, 4])
def test_a_thin_book_is_no_price(offers):
    assert traps([quote("vast", "6.15", "market", offers=offers)]) == {"thin-book": ["vast"]}


def test_a_book_of_five_is_one():
    assert traps([quote("vast", "2.40", "market", offers=BOOK_MIN)]) == {}


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("", ""),
        ("UNSOURCED here (list price from memory, g6.xlarge) -- verify", ""),
        ("https://prices.example.org", "verify"),
        ("a blog, GBP1.61/h x 1.27 (approx)", ""),
        ("costs.example.org (~0.70-0.80)", ""),
    ],
)
def test_hearsay_does_not_count(source, note):
    assert traps([quote("aws", "0.8048", source=source, note=note)]) == {"hearsay": ["aws"]}


def test_verified_is_not_hearsay():
    assert traps([quote("vast", "1.70", "market", note="median verified; was 1.1378 the previous day")]) == {}


def test_the_gpu_alone_is_half_a_price():
    assert traps([quote("gcp", "11.277", note="a4 GPU rows only")]) == {"partial": ["gcp"]}
    assert traps([quote("gcp", "3.67", source="catalog (host+GPU rows summed)")]) == {}


def test_the_order_of_quotes_changes_nothing():
    quotes = [
        *regions("1.8462", "5.5238", "5.60"), quote("oracle", "2.95"), quote("oracle", "1.475", "spot"),
        quote("vast", "6.15", "market", offers=3), quote("a", "1.0"), quote("a", "1.0", age=11),
    ]  # fmt: skip
    first = screen(quotes)
    dice = random.Random(7)
    for _ in range(20):
        dice.shuffle(quotes)
        assert screen(quotes) == first


def test_every_quote_is_either_good_or_refused_and_says_why():
    quotes = [*regions("1.8462", "5.5238", "5.60"), quote("b", "2", note="verify"), replace(quote("c", "3"), offers=2)]
    good, refused = screen(quotes)
    assert {*good, *(item.quote for item in refused)} == set(quotes)
    assert all(item.fact and item.trap for item in refused)
