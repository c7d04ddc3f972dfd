"""The network's own price: few leases say nothing, one party cannot make it, trading with oneself is capped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.protocol.executed_index import EXECUTED_DAYS, LEASES_MIN, Executed, executed_index
from minga.protocol.price_index import Value, Withheld
from minga.protocol.price_quotes import card_class
from price_fixtures import CARD, TODAY, micro


def lease(number: int, provider: str, tenant: str, dollars: str, paid: int = 1_000_000, age: int = 1) -> Executed:
    return Executed(f"lease {number:04}", tenant, provider, CARD, micro(dollars), paid, TODAY - age)


def market(count: int = 12, parties: int = 4) -> list[Executed]:
    """`count` leases between `parties` tenants and as many providers, at $0.50 … $0.53 by provider."""
    return [
        lease(n, f"provider {n % parties}", f"tenant {n // parties % parties}", f"0.{50 + n % parties}")
        for n in range(count)
    ]


def test_a_market_has_a_price():
    found = executed_index(market(), CARD, TODAY)
    assert isinstance(found.value, Value)
    assert micro("0.50") <= found.value.usd_micro <= micro("0.53")
    assert (found.leases, found.tenants, found.providers) == (12, 3, 4)
    assert found.first_day == found.last_day == TODAY - 1


def test_no_lease_is_said():
    found = executed_index([], CARD, TODAY)
    assert found.value == Withheld("none", f"no lease was paid in the last {EXECUTED_DAYS} days")
    assert found.leases == 0


def test_few_leases_are_withheld():
    found = executed_index(market(LEASES_MIN - 1), CARD, TODAY)
    assert found.value == Withheld("thin", "9 leases, at least 10 are needed")
    assert found.leases == 9
    assert executed_index(market(1), CARD, TODAY).value == Withheld("thin", "1 lease, at least 10 are needed")


def test_few_tenants_are_withheld():
    leases = [replace(item, tenant=f"tenant {n % 2}") for n, item in enumerate(market(30))]
    assert executed_index(leases, CARD, TODAY).value == Withheld("thin", "2 tenants, at least 3 are needed")


def test_few_providers_are_withheld():
    leases = [replace(item, provider=f"provider {n % 2}") for n, item in enumerate(market(30))]
    assert executed_index(leases, CARD, TODAY).value == Withheld("thin", "2 providers, at least 3 are needed")


def test_what_was_not_paid_or_is_old_or_another_card_is_not_counted():
    noise = [
        lease(100, "provider 9", "tenant 9", "90", paid=0),
        lease(101, "provider 9", "tenant 9", "90", age=EXECUTED_DAYS + 1),
        lease(102, "provider 9", "tenant 9", "90", age=-1),
        replace(lease(103, "provider 9", "tenant 9", "90"), gpu=card_class("H100")),
    ]
    assert executed_index([*market(), *noise], CARD, TODAY) == executed_index(market(), CARD, TODAY)


@given(st.randoms(use_true_random=False))
def test_order_changes_nothing(dice):
    leases = market(20)
    first = executed_index(leases, CARD, TODAY)
    dice.shuffle(leases)
    assert executed_index(leases, CARD, TODAY) == first


@given(st.integers(1, 10**12), st.integers(1, 10**9), st.integers(1, 40))
def test_whoever_trades_with_himself_cannot_leave_the_range_of_the_others(paid, price, count):
    """One provider and one tenant's wallet, any price, any amount, any number of leases."""
    fake = [
        Executed(f"fake {n:03}", "tenant fake", "provider fake", CARD, price, paid, TODAY - 1) for n in range(count)
    ]
    found = executed_index([*market(), *fake], CARD, TODAY).value
    assert isinstance(found, Value), "nor can it silence the index"
    assert micro("0.50") <= found.usd_micro <= micro("0.53")


@pytest.mark.parametrize("wallets", [1, 3, 10])
def test_many_wallets_of_one_provider_are_one_voice(wallets):
    fake = [lease(500 + n, "provider fake", f"wallet {n % wallets}", "0.60", paid=10**9) for n in range(30)]
    found = executed_index([*market(), *fake], CARD, TODAY).value
    assert isinstance(found, Value)
    shares = {voice.name: share for voice, share in zip(found.voices, found.shares, strict=True)}
    assert shares["provider fake"] <= 350_000
    assert found.usd_micro <= micro("0.53")


def test_a_rich_tenant_is_capped_before_its_providers_are_weighed():
    """Spread over two providers, its money would weigh 35 % at each; as one wallet it weighs 35 % in all."""
    poor = [lease(n, f"provider {n % 3}", f"tenant {n % 5}", f"0.{50 + n % 3}") for n in range(15)]
    rich = [lease(100 + n, f"provider rich {n}", "tenant rich", "0.60", paid=10**9) for n in range(2)]
    found = executed_index([*poor, *rich], CARD, TODAY).value
    assert isinstance(found, Value)
    shares = {voice.name: share for voice, share in zip(found.voices, found.shares, strict=True)}
    assert shares["provider rich 0"] + shares["provider rich 1"] == pytest.approx(350_000, abs=2)
    assert micro("0.50") <= found.usd_micro <= micro("0.52")


def test_one_tenants_fortune_does_not_choose_the_provider():
    """A tenant that pays a thousand times what all others pay, at one provider: capped before providers are weighed."""
    rich = lease(900, "provider 3", "tenant rich", "0.53", paid=10**9)
    found = executed_index([*market(), rich], CARD, TODAY).value
    assert isinstance(found, Value)
    assert max(found.shares) <= 350_000
