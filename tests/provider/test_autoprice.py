"""The price that is left to the market: where it begins, how it moves, what it survives, and that offers follow it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenants import FastClock, Market0, Tenant, running

from fixtures import eventually
from minga.client.catalogs import shipped_quotes
from minga.core.errors import InvalidInput
from minga.core.spec import Gpu, Machine, UnitSize
from minga.core.units import DAY
from minga.protocol.suggested_price import PriceBounds, Suggestion
from minga.provider.autoprice import CORE_CEILING_USD_MICRO, CORE_USD_MICRO, AutoPrice, Meter, PriceBook, first_price
from minga.store.journal import Journal

TODAY = 20_750
MIB = 1 << 20
H = "0x" + "ab" * 32


def machine(*gpus: str) -> Machine:
    """With two cores, and these cards."""
    cards = [Gpu(vendor="nvidia", model=name, memory_bytes=80 << 30) for name in gpus]
    size = {"cpus": 2, "memory_bytes": 1 << 34, "disk_bytes": 1 << 34}
    return Machine(node=H, arch="x86_64", cpu="c", os="linux", gpus=cards, **size)


def unit(cpu_milli: int = 2000, gpus: int = 0) -> UnitSize:
    return UnitSize(cpu_milli=cpu_milli, memory_bytes=MIB, disk_bytes=MIB, gpus=gpus)


def test_cores_begin_at_a_price_of_our_own_and_say_so():
    found = first_price(machine(), unit(1500), AutoPrice(()), TODAY)
    assert found.usd_micro == 1500 * CORE_USD_MICRO // 1000
    assert found.bounds == PriceBounds(0, 1500 * CORE_CEILING_USD_MICRO // 1000)
    assert "no index counts cores" in found.why


def test_the_owners_floor_is_stronger_than_any_index():
    found = first_price(machine(), unit(), AutoPrice((), 1_000_000), TODAY)
    assert (found.usd_micro, found.bounds.floor) == (1_000_000, 1_000_000)


def test_a_unit_with_two_cards_begins_at_twice_the_index_of_one():
    quotes = shipped_quotes()
    card = "NVIDIA A100-SXM4-80GB"
    one = first_price(machine(card), unit(gpus=1), AutoPrice(quotes), TODAY)
    two = first_price(machine(card, card), unit(gpus=2), AutoPrice(quotes), TODAY)
    assert two.usd_micro == 2 * one.usd_micro
    assert one.bounds.ceiling is not None
    assert two.bounds.ceiling == 2 * one.bounds.ceiling
    assert 0 < one.usd_micro <= one.bounds.ceiling
    floor = first_price(machine(card, card), unit(gpus=2), AutoPrice(quotes, 7_000_001), TODAY)
    assert floor.usd_micro >= 7_000_001


def test_a_card_that_the_index_does_not_know_asks_the_owner_for_a_price():
    with pytest.raises(InvalidInput, match="no price can be suggested") as caught:
        first_price(machine("NVIDIA Nothing 1"), unit(gpus=1), AutoPrice(shipped_quotes()), TODAY)
    assert "--price" in caught.value.remedy


def test_the_share_that_was_leased_is_weighted_by_time():
    meter = Meter(4, 100.0)
    meter.note(4, 110.0)  # idle until here
    meter.note(1, 130.0)
    meter.note(0, 150.0)
    assert meter.seconds == 50
    assert meter.take() == ((4 * 20 + 1 * 20) * 1_000_000 // (50 * 4), 50)
    assert meter.take() == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1e4)), max_size=20), st.integers(1, 8))
def test_a_share_is_a_share_whatever_is_noted(notes: list[tuple[int, float]], units: int):
    meter, at = Meter(units, 0.0), 0.0
    for leased, seconds in notes:
        at += seconds
        meter.note(leased, at)
    busy, elapsed = meter.take()
    assert 0 <= busy <= 1_000_000
    assert elapsed == int(at)


def begin(usd_micro: int = 100_000, floor: int = 50_000, ceiling: int = 200_000) -> Suggestion:
    return Suggestion(usd_micro, PriceBounds(floor, ceiling), "a test")


def test_an_idle_machine_gets_cheaper_to_its_floor_and_a_full_one_dearer_to_its_ceiling(tmp_path: Path):
    book = PriceBook(Journal(tmp_path / "j"), "thing", begin(), 1000)
    falling = [book.step(0, 600, 1000 + n) for n in range(30)]
    assert falling[0] == 94_176
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == 50_000
    rising = [book.step(1_000_000, 600, 2000 + n) for n in range(99)]
    assert rising == sorted(rising)
    assert rising[-1] == 200_000
    assert book.step(750_000, 600, 3000) == 200_000


def test_a_provider_that_comes_back_goes_on_from_the_last_price_of_the_same_thing(tmp_path: Path):
    journal = Journal(tmp_path / "j")
    PriceBook(journal, "thing", begin(), 1000).step(0, 600, 1600)
    assert PriceBook(journal, "thing", begin(), 1700).usd_micro == 94_176
    assert PriceBook(journal, "thing", begin(floor=95_000), 1800).usd_micro == 95_000
    assert PriceBook(journal, "another", begin(), 1900).usd_micro == 100_000
    assert PriceBook(journal, "thing", begin(), 1900).usd_micro == 100_000
    PriceBook(journal, "thing", begin(), 2000).step(0, 600, 2600)
    assert PriceBook(journal, "thing", begin(), 2600 + DAY).usd_micro == 100_000
    series = [(record.body["usd_micro"], record.body["why"]) for record in journal.read("price")]
    assert series[:3] == [(100_000, "a test"), (94_176, "0 % leased"), (94_176, "the last price")]


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_offers_follow_the_price_and_those_of_before_are_honoured(market: Market0, folder: Path):
    """Ten minutes pass in a second; the machine is idle, so it gets cheaper, and a lease opens on the first offer."""
    config = market.config(folder / "home", price_per_hour=0, auto=AutoPrice((), 1000), offer_seconds=3600)
    async with running(config, clock=FastClock(300)) as provider, Tenant(market, provider.url) as tenant:
        held = await tenant.offers()
        assert held[0]["offer"]["price_per_hour"] == str(500 * CORE_USD_MICRO // 1000)
        assert ("price", "0.005") in [(kind, facts.get("dollars")) for kind, facts in provider.told]
        await eventually(lambda: [kind for kind, _ in provider.told].count("offer") > 1)
        now = int((await tenant.offers())[0]["offer"]["price_per_hour"])
        assert 1000 <= now < 500 * CORE_USD_MICRO // 1000
        await tenant.open(held=held)
        await tenant.login()
        assert (await tenant.record()).lease.price_per_hour == 500 * CORE_USD_MICRO // 1000
        assert (await tenant.status())["reason"] == ""
