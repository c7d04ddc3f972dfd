"""Tokens and contract wallets that misbehave: nobody loses money to them, and nobody is stuck because of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evm import DEPLOYER, Reverted, deploy
from lockstep import FUNDS
from stage import DEPOSIT, WINDOW, Stage

from minga.protocol.messages import Offer
from minga.protocol.settlement import split

HALF = DEPOSIT // 2
FALSE, NOTHING, REVERTS, BURNS, LONG, TWO = 1, 2, 3, 4, 5, 6


@pytest.fixture
def stage() -> Stage:
    """A deployment on the hostile token, which behaves until it is told not to."""
    return Stage(freezing=True)


def set_mode(stage: Stage, mode: int) -> None:
    """Tell the token how to behave."""
    stage.send(stage.stranger, stage.token, "set_mode", mode)


@pytest.mark.parametrize("mode", [FALSE, REVERTS, BURNS, TWO])
def test_a_token_that_refuses_opens_no_lease(stage: Stage, mode: int) -> None:
    """No deposit, no lease, no units taken."""
    set_mode(stage, mode)
    with pytest.raises(Reverted, match="market: transfer failed"):
        stage.open()
    set_mode(stage, 0)
    stage.open()
    assert stage.market.view("leased", stage.provider.address, stage.offer().machine) == (1,)


@pytest.mark.parametrize("mode", [NOTHING, LONG])
def test_a_token_with_another_return_value_is_served(stage: Stage, mode: int) -> None:
    """Some real tokens return nothing."""
    set_mode(stage, mode)
    lease = stage.open()
    stage.close(lease, HALF)
    assert stage.balance(stage.tenant.address) == FUNDS - HALF
    assert stage.balance(stage.market.address) == split(HALF, 100).fee


@pytest.mark.parametrize("mode", [FALSE, REVERTS, BURNS])
def test_a_payout_that_fails_is_owed_and_stops_nobody(stage: Stage, mode: int) -> None:
    """Provider and tenant are booked; both withdraw when the token is itself again."""
    lease = stage.open()
    set_mode(stage, mode)
    stage.close(lease, HALF)
    paid = split(HALF, 100).paid
    assert stage.market.view("owed", stage.provider.address) == (paid,)
    assert stage.market.view("owed", stage.tenant.address) == (HALF,)
    set_mode(stage, 0)
    stage.send(stage.tenant, stage.market, "withdraw", stage.tenant.address)
    stage.send(stage.provider, stage.market, "withdraw", stage.provider.address)
    assert stage.balance(stage.tenant.address) == FUNDS - HALF
    assert stage.balance(stage.market.address) == split(HALF, 100).fee


def test_a_fee_that_the_token_starts_to_take_harms_no_running_lease(stage: Stage) -> None:
    """The receiver bears it; Market still holds what it owes to the others."""
    first, second = stage.open(), stage.open(attempt=2)
    stage.send(stage.stranger, stage.token, "set_fee", 5_000)
    stage.close(first, HALF)
    assert stage.balance(stage.market.address) == DEPOSIT + split(HALF, 100).fee
    stage.close(second, HALF)
    assert stage.balance(stage.market.address) == 2 * split(HALF, 100).fee


def test_nobody_starves_a_payout_into_the_books(stage: Stage) -> None:
    """With whatever gas a stranger sends a redeem: it fails whole, or it pays; it never books what could be paid."""
    lease = stage.open()
    args = stage.voucher(lease, HALF)
    data = stage.market.data("redeem", *args)
    outcomes = set()
    for gas in range(30_000, 200_000, 1_500):
        mark = stage.machine.mark()
        try:
            stage.machine.message(stage.stranger.address, stage.market.address, data, gas)
            outcomes.add("paid")
        except Reverted:
            outcomes.add("failed")
        assert stage.market.view("owed", stage.provider.address) == (0,)
        stage.machine.back_to(mark)
    assert outcomes == {"paid", "failed"}


def reentries(stage: Stage) -> dict[str, bytes]:
    """Calls that a token could make back into Market in the middle of a payout."""
    lease, other = stage.open(), stage.open(attempt=2)
    market = stage.market
    return {
        "redeem": market.data("redeem", *stage.voucher(other, HALF)),
        "finish_close": market.data("finish_close", lease.as_tuple()),
        "top_up": market.data("top_up", other.as_tuple(), 1),
        "collect_fees": market.data("collect_fees"),
        "withdraw": market.data("withdraw", stage.token.address),
        "cancel_offers": market.data("cancel_offers"),
        "owed": market.data("owed", stage.tenant.address),
        "account_of": market.data("account_of", lease.id),
    }


@pytest.mark.parametrize("name", sorted(reentries(Stage(freezing=True))))
def test_no_call_enters_in_the_middle_of_another(name: str) -> None:
    """Not even a view: what it would say is neither before nor after."""
    stage = Stage(freezing=True)
    payload = reentries(stage)[name]
    lease = stage.open(stage.offer(units=3), attempt=3)
    stage.send(stage.stranger, stage.token, "set_callback", stage.market.address, payload)
    stage.close(lease, HALF)
    assert stage.token.view("reentered") == (0,)
    assert stage.balance(stage.market.address) == 2 * DEPOSIT + split(HALF, 100).fee


def test_every_function_of_market_and_every_mover_of_registry_is_locked() -> None:
    """The lock is a pragma over the whole file: an entry from a token's callback finds each function shut."""
    stage = Stage(freezing=True)
    stage.send(stage.provider, stage.registry, "start_unstake", stage.arbiter.address, 5)
    stage.wait(21 * 86_400)
    payload = stage.registry.data("slash", stage.provider.address, 1, stage.token.address)
    stage.send(stage.stranger, stage.token, "set_callback", stage.registry.address, payload)
    args = (stage.arbiter.address, stage.provider.address)
    stage.send(stage.provider, stage.registry, "finish_unstake", *args)
    assert stage.token.view("reentered") == (0,)


# ----------------------------------------------------------------------------------------------------------- wallets


@pytest.fixture
def wallets() -> Stage:
    """A deployment whose provider is a contract wallet; its owner, not its agent key, signs the offer."""
    stage = Stage()
    stage.provider = stage.wallet_provider
    return stage


def owners_offer(stage: Stage) -> tuple[Offer, bytes]:
    """A sound offer, signed by the wallet's owner."""
    offer = stage.offer()
    return offer, stage.signed(offer, stage.provider.key)


def test_a_contract_wallet_sells_and_closes(wallets: Stage) -> None:
    """By EIP-1271 for its owner's signature, by ecrecover for its agent key's."""
    offer, signature = owners_offer(wallets)
    first, second = wallets.open(offer, signature=signature), wallets.open(offer, attempt=2)
    wallets.close(first, HALF)
    wallets.close(second, HALF)
    assert wallets.balance(wallets.provider.address) == FUNDS + 2 * split(HALF, 100).paid


@pytest.mark.parametrize("mode", [1, 3, 4])
def test_a_hostile_wallet_cannot_burn_the_caller_or_sell(wallets: Stage, mode: int) -> None:
    """Its answer is asked with capped gas; the agent key goes on working, and so does the tenant's way out."""
    offer, signature = owners_offer(wallets)
    lease = wallets.open(offer, attempt=2)
    wallets.send(wallets.stranger, wallets.provider.wallet, "set_mode", mode)
    with pytest.raises(Reverted, match="market: bad signature"):
        wallets.machine.message(
            wallets.tenant.address, wallets.market.address,
            wallets.market.data("open", *wallets.open_args(offer, signature=signature)), 400_000,
        )  # fmt: skip
    wallets.send(wallets.tenant, wallets.market, "start_close", lease.as_tuple(), 0)
    wallets.wait(WINDOW)
    wallets.send(wallets.tenant, wallets.market, "finish_close", lease.as_tuple())
    assert wallets.balance(wallets.tenant.address) == FUNDS


def test_a_wallet_that_answers_more_than_was_asked_has_answered(wallets: Stage) -> None:
    """Only the first word counts, and it is all that is copied."""
    offer, signature = owners_offer(wallets)
    wallets.send(wallets.stranger, wallets.provider.wallet, "set_mode", 2)
    wallets.open(offer, signature=signature)


def test_a_contract_cannot_be_a_session_signer(wallets: Stage) -> None:
    """A voucher counts by ecrecover alone: a wallet's word could be taken back after the work."""
    wallet = wallets.provider.address
    lease = wallets.open(signer=wallet)
    voucher = wallets.voucher(lease, HALF)
    with pytest.raises(Reverted, match="market: bad voucher"):
        wallets.send(wallets.stranger, wallets.market, "redeem", *voucher)


def test_a_contract_arbiter_stands_in_the_place_of_the_dispute_contract(stage: Stage) -> None:
    """It names its Market, divides the held part and takes stake, all from its own address."""
    arbiter = deploy(stage.machine, "Arbiter")
    party = replace(stage.arbiter, address=arbiter.address)
    deployer = replace(stage.stranger, address=DEPLOYER)
    stage.send(deployer, arbiter, "appoint", stage.registry.address, stage.market.address, 2)
    stage.send(stage.provider, stage.registry, "stake", arbiter.address, 2 * DEPOSIT)
    stage.arbiter = party
    lease = stage.open(stage.held_offer())
    stage.close(lease, DEPOSIT)
    stage.send(deployer, arbiter, "resolve", stage.market.address, lease.as_tuple(), 198_000)
    assert stage.balance(stage.tenant.address) == FUNDS - DEPOSIT + 198_000
    victim = stage.provider.address
    stage.send(deployer, arbiter, "slash", stage.registry.address, victim, 7, stage.tenant.address)
    assert stage.registry.view("stake_of", victim, arbiter.address)[0] == 2 * DEPOSIT - 7
