"""Claims are measured: verdicts follow from the data, turn with it, and are withheld where it says nothing."""

from __future__ import annotations

import pytest

from minga.client.catalogs import shipped_history, shipped_quotes
from minga.protocol.price_claims import Take, claims, dollars, percent, savings
from minga.protocol.price_history import series_of
from minga.protocol.price_quotes import card_class
from price_fixtures import CARD, TODAY, quote

CARDS = ("H100", "A100-80GB")


def cheap_market(market: str, clouds: str = "10.00", spot: str | None = None, gpu: str = "L40S"):
    found = [
        quote("vast", market, "market", gpu=gpu), quote("akash", market, "market", gpu=gpu),
        quote("aws", clouds, gpu=gpu), quote("azure", clouds, gpu=gpu),
    ]  # fmt: skip
    if spot is not None:
        found += [quote("aws", spot, "spot", gpu=gpu), quote("gcp", spot, "spot", gpu=gpu)]
    return found


def verdicts(quotes, cards=(CARD,), series=None, take=None):
    said = claims(savings(quotes, cards, TODAY), series or {}, CARDS, take)
    return {item.text: item for item in said}


def cheaper(quotes, cards=(CARD,)):
    return next(item for text, item in verdicts(quotes, cards).items() if text.startswith("networks are"))


def test_ninety_per_cent_on_every_card_holds():
    found = cheaper(cheap_market("0.90"))
    assert found.verdict == "holds"
    assert found.measured.startswith("1 of 1 cards; middle 91.0 %")


def test_ninety_per_cent_on_one_card_of_three_holds_in_part():
    cards = [card_class(name) for name in ("L40S", "H200", "V100")]
    quotes = [*cheap_market("0.50"), *cheap_market("5.00", gpu="H200"), *cheap_market("4.00", gpu="V100")]
    found = cheaper(quotes, cards)
    assert found.verdict == "partly"
    assert "1 of 3 cards; middle 60.0 %, from 50.0 % (H200) to 95.0 % (L40S)" in found.measured


def test_ninety_per_cent_nowhere_fails():
    assert cheaper(cheap_market("5.00")).verdict == "fails"


@pytest.mark.parametrize("side", ["market", "clouds"])
def test_one_vendor_on_a_side_measures_nothing(side):
    quotes = cheap_market("0.50")
    del quotes[0 if side == "market" else 3]
    assert cheaper(quotes).verdict == "not measurable"


def test_small_clouds_are_not_large_ones():
    quotes = [item for item in cheap_market("0.50") if item.vendor not in ("aws", "azure")]
    assert savings([*quotes, quote("lambda", "9"), quote("runpod", "9")], [CARD], TODAY) == []


def test_against_spot_prices_it_may_be_otherwise():
    text = "… and cheaper than the clouds' own spot prices"
    assert verdicts(cheap_market("2.00", spot="1.00"))[text].verdict == "fails"
    assert verdicts(cheap_market("2.00", spot="4.00"))[text].verdict == "holds"
    assert verdicts(cheap_market("2.00"))[text].verdict == "not measurable"


def test_a_saving_names_prices_vendors_and_dates():
    (found,) = savings(cheap_market("2.50", spot="1.00"), [CARD], TODAY)
    assert (found.market, found.clouds, found.saving_ppm) == (2_500_000, 10_000_000, 750_000)
    assert (found.cheapest_ppm, found.spot_ppm) == (750_000, -1_500_000)
    assert found.vendors == ("akash", "vast", "aws", "azure")
    assert found.dates == ("2026-11-13", "2026-11-13")


def series(*prices: int, start: int = 2023 * 12) -> dict[int, int]:
    return {start + month: price for month, price in enumerate(prices)}


@pytest.mark.parametrize(
    ("listed", "spot", "verdict"),
    [((100, 110, 130), (50, 60, 70), "holds"), ((100, 110), (60, 50), "partly"), ((110, 100), (60, 50), "fails")],
)
def test_a_year_that_rose_and_one_that_fell(listed, spot, verdict):
    names = ("neocloud_on_demand_raw_median", "neocloud_spot_raw_median")
    known = {("H100", names[0]): series(*listed), ("H100", names[1]): series(*spot)}
    said = verdicts([], series=known)
    assert said["H100 prices rose through 2023"].verdict == verdict
    assert said["A100-80GB prices rose through 2023"].verdict == "not measurable"


def test_a_price_that_halves_fast_enough_holds_and_one_that_rises_fails():
    falling = series(*(round(10**7 * 0.5 ** (month / 24)) for month in range(30)))
    rising = series(*range(100, 130))
    said = verdicts([], series={("H100", "neocloud_index"): falling, ("A100-80GB", "neocloud_index"): rising})
    halves = said["the price of an H100-hour halves in 30 months"]
    assert (halves.verdict, halves.measured) == ("holds", "in 24 months, by the trend of 29")
    rises = said["the price of an A100-80GB-hour halves in 30 months"]
    assert rises.verdict == "fails"
    assert "does not fall" in rises.measured


def test_what_fell_and_came_back_is_cheap_in_part():
    text = "H100 rental has become cheap since its peak"
    fell = {("H100", "neocloud_index"): series(100, 90, 50)}
    back = {("H100", "neocloud_index"): series(100, 50, 75)}
    top = {("H100", "neocloud_index"): series(50, 75, 100)}
    assert [verdicts([], series=known)[text].verdict for known in (fell, back, top)] == ["holds", "partly", "fails"]
    assert verdicts([])[text].verdict == "not measurable"


def test_overhead_is_measured_on_the_networks_own_leases():
    text = "a blockchain removes overhead"
    assert verdicts([])[text].verdict == "not measurable"
    assert verdicts([], take=Take(0, 0, 0))[text].verdict == "not measurable"
    found = verdicts([], take=Take(99_000, 1_000, 7))[text]
    assert found.measured.startswith("1.0 % of what tenants spent in 7 leases was fee")


def test_net_new_supply_is_never_claimed():
    assert verdicts([])["networks bring supply that nobody had"].verdict == "not measurable"


def test_the_shipped_data_say_what_the_docs_say():
    """Golden: a change of data or method shows here first."""
    quotes = shipped_quotes()
    cards = sorted({item.gpu for item in quotes if not item.gpu.form} | {card_class("H100")}, key=str)
    found = {str(item.gpu): percent(item.saving_ppm) for item in savings(quotes, cards, TODAY)}
    assert found == {
        "V100": "94.6 %", "L40S": "73.8 %", "H100": "73.1 %", "B200": "63.4 %", "A100-80GB": "62.2 %", "H200": "55.5 %",
    }  # fmt: skip
    said = claims(savings(quotes, cards, TODAY), series_of(shipped_history()), CARDS, None)
    assert [item.verdict for item in said] == [
        "partly", "fails", "partly", "partly", "partly", "fails", "fails", "not measurable", "not measurable",
    ]  # fmt: skip
    assert said[0].measured.startswith("1 of 6 cards; middle 68.3 %")
    assert said[0].dates == "2026 … 2026-11-09"


@pytest.mark.parametrize(
    ("ppm", "text"), [(0, "0.0 %"), (946_000, "94.6 %"), (-32_000, "-3.2 %"), (-500, "-0.1 %"), (1_000_000, "100.0 %")]
)
def test_percent(ppm, text):
    assert percent(ppm) == text


@pytest.mark.parametrize(
    ("micro", "text"),
    [(1_870_000, "$1.87"), (1_874_999, "$1.87"), (1_875_000, "$1.88"), (50_000, "$0.050"), (0, "$0.00"),
     (99_999, "$0.100"), (14_241_600, "$14.24"), (400, "$0.000")],
)  # fmt: skip
def test_dollars(micro, text):
    assert dollars(micro) == text
