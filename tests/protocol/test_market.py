"""The specification of Market on its own: a call does what the design says, or raises and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, PrivateKey, keccak
from minga.core.eip712 import Domain
from minga.core.errors import ContractError
from minga.core.units import Amount
from minga.protocol.lease import How, Lease, Phase
from minga.protocol.market import Market, Order
from minga.protocol.messages import Extend, Offer, Release, Voucher, sign
from minga.protocol.stake import ALLOWANCE_UNLIMITED, Ledger, Registry

AGENT, SESSION, FORGER = (PrivateKey(keccak(role.encode())) for role in ("agent", "session", "forger"))
TENANT, PROVIDER, ARBITER, STRANGER, FEES, REFUGE = (Address("0x" + digit * 40) for digit in "123456")
MARKET, REGISTRY = Address("0x" + "7" * 40), Address("0x" + "8" * 40)
NOW, DEPOSIT, FUNDS = 1_000_000, 1_000, 10_000
OFFER = Offer(
    provider=PROVIDER, machine=Hash32("0x" + "aa" * 32), terms=Hash32("0x" + "bb" * 32), price_per_hour=Amount(7),
    units=2, deposit_min=Amount(10), seconds_min=60, seconds_max=3_600, quantum=60, close_window=3_600,
    arbiter=ZERO_ADDRESS, hold_bps=0, hold_seconds=0, valid_until=NOW + 60, epoch=0, salt=Hash32("0x" + "cc" * 32),
)  # fmt: skip
HELD = replace(OFFER, arbiter=ARBITER, hold_bps=2_000, hold_seconds=86_400)
ORDER = Order(Hash32("0x" + "dd" * 32), 1, 1, 3_600, DEPOSIT, SESSION.address)


@pytest.fixture
def market() -> Market:
    """One provider with stake, one tenant with money and an allowance."""
    funds = {TENANT: FUNDS, PROVIDER: FUNDS, STRANGER: FUNDS}
    allowances = {(who, to): ALLOWANCE_UNLIMITED for who in funds for to in (MARKET, REGISTRY)}
    registry = Registry(REGISTRY, Ledger(funds, allowances))
    registry.register(PROVIDER, AGENT.address)
    registry.appoint(ARBITER, MARKET, 2)
    registry.stake(PROVIDER, ARBITER, 2 * DEPOSIT)
    return Market(Domain(1, MARKET), registry, 100, FEES)


def opened(market: Market, offer: Offer = OFFER, **changes: object) -> Lease:
    """A lease of the tenant's."""
    return market.open(TENANT, NOW, offer, sign(offer, market.domain, AGENT), replace(ORDER, **changes))  # type: ignore[arg-type]


def voucher(market: Market, lease: Lease, amount: int) -> bytes:
    """The session signer's signature."""
    return sign(Voucher(lease.channel, Amount(amount)), market.domain, SESSION)


def refuses(market: Market, reason: str, act: Callable[[], object]) -> None:
    """Raises the contract's revert string and changes nothing."""
    before = deepcopy(market)
    with pytest.raises(ContractError) as caught:
        act()
    assert caught.value.fact == reason
    assert market == before


@pytest.mark.parametrize(
    ("reason", "offer", "order"),
    [
        ("market: offer expired", {"valid_until": NOW - 1}, {}),
        ("market: offer cancelled", {"epoch": 1}, {}),
        ("market: bad close window", {"close_window": 3_599}, {}),
        ("market: bad close window", {"close_window": 86_401}, {}),
        ("market: bad hold", {"hold_bps": 1}, {}),
        ("market: bad hold", {"hold_seconds": 1}, {}),
        ("market: bad hold", {"arbiter": ARBITER, "hold_seconds": 604_801}, {}),
        ("market: bad duration", {}, {"seconds": 59}),
        ("market: bad duration", {}, {"seconds": 3_601}),
        ("market: no units", {}, {"units": 0}),
        ("market: no signer", {}, {"signer": ZERO_ADDRESS}),
        ("market: deposit too small", {}, {"deposit": 9}),
        ("market: deposit too small", {"deposit_min": Amount(0)}, {"deposit": 0}),
        ("market: deposit too large", {}, {"deposit": 2**96}),
        ("market: machine fully leased", {}, {"units": 3}),
        ("market: unregistered provider", {"provider": STRANGER}, {}),
        ("market: transfer failed", {}, {"deposit": FUNDS + 1}),
        ("registry: stake too small", {"arbiter": ARBITER}, {"deposit": DEPOSIT + 1}),
        ("registry: not the market", {"arbiter": STRANGER}, {}),
    ],
)
def test_open_refuses(market: Market, reason: str, offer: dict[str, object], order: dict[str, object]) -> None:
    """Each term and each bound."""
    refuses(market, reason, lambda: opened(market, replace(OFFER, **offer), **order))  # type: ignore[arg-type]


def test_open_refuses_a_forged_offer_and_an_id_used_before(market: Market) -> None:
    """Also after that lease was closed."""
    forged = sign(OFFER, market.domain, FORGER)
    refuses(market, "market: bad signature", lambda: market.open(TENANT, NOW, OFFER, forged, ORDER))
    market.close(PROVIDER, NOW, opened(market), 0, b"")
    refuses(market, "market: lease exists", lambda: opened(market))


def test_open_with_a_permit_or_an_authorization(market: Market) -> None:
    """A good permit sets the allowance; a bad authorization moves nothing."""
    market.ledger.allowances[TENANT, MARKET] = 0
    signature = sign(OFFER, market.domain, AGENT)
    refuses(market, "market: transfer failed", lambda: market.open(TENANT, NOW, OFFER, signature, ORDER))
    refuses(
        market, "market: transfer failed",
        lambda: market.open(TENANT, NOW, OFFER, signature, ORDER, authorized=False),
    )  # fmt: skip
    market.open(TENANT, NOW, OFFER, signature, ORDER, authorized=True)
    market.open(TENANT, NOW, OFFER, signature, replace(ORDER, attempt=2), permit=DEPOSIT + 5)
    assert market.ledger.allowances[TENANT, MARKET] == 5
    assert market.ledger.balance(MARKET) == 2 * DEPOSIT == market.liabilities()


def test_a_wallet_signs_by_its_own_word(market: Market) -> None:
    """Where the agent key did not sign, the provider's address is asked."""
    market.wallet_signed = lambda provider, digest, signature: (provider, signature) == (PROVIDER, b"mine")
    market.open(TENANT, NOW, OFFER, b"mine", ORDER)
    refuses(
        market, "market: bad signature", lambda: market.open(TENANT, NOW, OFFER, b"other", replace(ORDER, attempt=2))
    )


def test_redeem_and_close(market: Market) -> None:
    """Pay as vouchers come, end with the last; every unit is somewhere."""
    lease = opened(market)
    due = market.redeem(lease, 150, voucher(market, lease, 150))
    assert (due.paid, due.fee) == (149, 1)
    assert market.redeem(lease, 149, voucher(market, lease, 149)).paid == 0
    refuses(market, "market: bad voucher", lambda: market.redeem(lease, 151, voucher(market, lease, 150)))
    refuses(market, "market: bad voucher", lambda: market.close(PROVIDER, NOW, lease, 1, b""))
    refuses(market, "market: not the provider", lambda: market.close(TENANT, NOW, lease, 0, b""))
    market.close(AGENT.address, NOW, lease, 250, voucher(market, lease, 250))
    assert market.ledger.balance(TENANT) == FUNDS - 250
    assert market.ledger.balance(PROVIDER) == FUNDS - 2 * DEPOSIT + 248
    assert (market.fees, market.liabilities(), market.leased[PROVIDER, OFFER.machine]) == (2, 2, 0)
    refuses(market, "market: lease closed", lambda: market.redeem(lease, 300, voucher(market, lease, 300)))
    refuses(market, "market: unknown lease", lambda: market.finish_close(NOW, replace(lease, units=2)))
    market.collect_fees()
    assert market.ledger.balance(FEES) == 2
    refuses(market, "market: no fees", market.collect_fees)


def test_top_up_and_extend(market: Market) -> None:
    """Anyone pays in; both sign a later end."""
    lease = opened(market, HELD, deposit=DEPOSIT - 5)
    refuses(market, "registry: stake too small", lambda: market.top_up(STRANGER, lease, 6))
    market.top_up(STRANGER, lease, 5)
    assert market.accounts[lease.id].deposit == DEPOSIT
    ends_at = NOW + 9_999
    signature = sign(Extend(lease.channel, ends_at), market.domain, AGENT)
    refuses(market, "market: not the tenant", lambda: market.extend(STRANGER, lease, ends_at, signature))
    refuses(market, "market: bad signature", lambda: market.extend(TENANT, lease, ends_at + 1, signature))
    market.extend(TENANT, lease, ends_at, signature)
    assert market.accounts[lease.id].ends_at == ends_at


def test_release(market: Market) -> None:
    """At once, by the tenant, at what the provider signed."""
    lease = opened(market)
    signature = sign(Release(lease.channel, Amount(400)), market.domain, AGENT)
    refuses(market, "market: not the tenant", lambda: market.release(PROVIDER, NOW, lease, 400, signature))
    refuses(market, "market: bad signature", lambda: market.release(TENANT, NOW, lease, 399, signature))
    market.release(TENANT, NOW, lease, 400, signature)
    assert market.ledger.balance(TENANT) == FUNDS - 400


@pytest.mark.parametrize("start", [False, True])
def test_finish_close(market: Market, start: bool) -> None:
    """After the window, by anyone; vouchers count until then."""
    lease = opened(market)
    at = NOW + 3_600 + (0 if start else 3_600)
    if start:
        refuses(market, "market: not the tenant", lambda: market.start_close(PROVIDER, NOW, lease))
        market.start_close(TENANT, NOW, lease)
        refuses(market, "market: lease closing", lambda: market.start_close(TENANT, NOW, lease))
    refuses(market, "market: too early", lambda: market.finish_close(at - 1, lease))
    market.redeem(lease, 100, voucher(market, lease, 100))
    assert market.finish_close(at, lease) is (How.WINDOW if start else How.END)
    assert market.ledger.balance(TENANT) == FUNDS - 100


def test_hold(market: Market) -> None:
    """The arbiter divides the held part before its time is over; then it is the provider's."""
    first = opened(market, HELD, deposit=400)
    second = opened(market, HELD, attempt=2, deposit=400)
    for lease in (first, second):
        refuses(market, "market: not held", lambda lease=lease: market.finish_hold(NOW, lease))  # type: ignore[misc]
        market.close(PROVIDER, NOW, lease, 400, voucher(market, lease, 400))
        assert market.accounts[lease.id].phase is Phase.HELD
    held, until = 79, NOW + 86_400
    assert market.liability(first) == held
    refuses(market, "market: not the arbiter", lambda: market.resolve(TENANT, NOW, first, 1))
    refuses(market, "market: above the held part", lambda: market.resolve(ARBITER, NOW, first, held + 1))
    refuses(market, "market: hold is over", lambda: market.resolve(ARBITER, until, first, 1))
    refuses(market, "market: too early", lambda: market.finish_hold(until - 1, second))
    market.resolve(ARBITER, until - 1, first, 50)
    assert market.registry.stake_of(PROVIDER, ARBITER).locked == 400
    market.finish_hold(until, second)
    assert market.registry.stake_of(PROVIDER, ARBITER).locked == 0
    assert market.ledger.balance(TENANT) == FUNDS - 800 + 50
    assert market.ledger.balance(PROVIDER) == FUNDS - 2 * DEPOSIT + 2 * 396 - 50
    assert market.ledger.balance(MARKET) == market.liabilities() == market.fees == 8


def test_a_frozen_party_is_owed_and_stops_nobody(market: Market) -> None:
    """It takes its money to another address."""
    lease = opened(market)
    market.ledger.frozen |= {TENANT, PROVIDER}
    market.close(PROVIDER, NOW, lease, 500, voucher(market, lease, 500))
    assert market.owed == {TENANT: 500, PROVIDER: 495}
    assert market.ledger.balance(MARKET) == market.liabilities() == DEPOSIT
    refuses(market, "market: transfer failed", lambda: market.withdraw(TENANT, TENANT))
    refuses(market, "market: bad receiver", lambda: market.withdraw(TENANT, MARKET))
    market.withdraw(TENANT, REFUGE)
    refuses(market, "market: nothing owed", lambda: market.withdraw(TENANT, REFUGE))
    assert market.ledger.balance(REFUGE) == 500


def test_cancel_offers(market: Market) -> None:
    """Offers of the old epoch die."""
    market.cancel_offers(PROVIDER)
    refuses(market, "market: offer cancelled", lambda: opened(market))
    opened(market, replace(OFFER, epoch=1))
