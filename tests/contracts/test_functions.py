"""What each external function does when all is well: one test per function of Market, Registry and the test token."""

from __future__ import annotations

import sys
from dataclasses import fields, replace

import pytest
from evm import ARTIFACTS, NOBODY, Reverted, artifact
from lockstep import FEE_RECIPIENT, FUNDS, MACHINES, address
from stage import DEPOSIT, HOLD, SECONDS, WINDOW, Stage
from token_signatures import authorization_signature, permit_signature

from minga.core.crypto import Hash32
from minga.protocol.lease import How, Phase, Why
from minga.protocol.settlement import split

HALF = DEPOSIT // 2


@pytest.fixture
def stage() -> Stage:
    """A fresh deployment."""
    return Stage()


def test_every_function_has_a_test() -> None:
    """Each function in the ABIs is named by a test here; views are read in them or below."""
    here = {name.removeprefix("test_").split("__")[0] for name in dir(sys.modules[__name__])}
    assert ARTIFACTS.is_dir()
    for name in ("Market", "Registry", "Token"):
        functions = [entry for entry in artifact(name)["abi"] if entry["type"] == "function"]
        missing = {each["name"] for each in functions if each["stateMutability"] == "nonpayable"} - here
        assert not missing, f"{name}: no test for {sorted(missing)}"


# ------------------------------------------------------------------------------------------------------------ Market


def test_views__are_what_was_deployed(stage: Stage) -> None:
    """The constructor's arguments and the derived domain can be read."""
    market, registry = stage.market, stage.registry
    assert [address(market.view(name)[0]) for name in ("token", "registry", "fee_recipient")] == [
        stage.token.address, registry.address, FEE_RECIPIENT,
    ]  # fmt: skip
    assert market.view("fee_bps") == (100,)
    assert market.call(NOBODY, "domain_separator") == stage.world.domain.separator
    assert address(registry.view("token")[0]) == stage.token.address
    assert address(registry.view("market_of", stage.arbiter.address)[0]) == market.address
    assert registry.view("factor_of", stage.world.arbiters[1].address) == (20,)


def test_open(stage: Stage) -> None:
    """The deposit moves, the lease can be found by its hash, the event carries what never changes."""
    lease = stage.open()
    assert stage.balance(stage.market.address) == DEPOSIT
    assert stage.account(lease) == (DEPOSIT, 0, stage.now + SECONDS, Phase.OPEN)
    assert stage.market.view("lease_hash", lease.id) == (int(lease.hash, 16),)
    assert stage.market.view("leased", stage.provider.address, MACHINES[0]) == (1,)
    stage.open(attempt=2)
    opened = stage.events["Opened"]
    second = replace(lease, attempt=2)
    assert opened["lease_id"] == int(second.id, 16)
    assert (opened["ends_at"], opened["deposit"]) == (stage.now + SECONDS, DEPOSIT)
    for name, value in zip((item.name for item in fields(second)), second.as_tuple(), strict=True):
        assert opened[name] == (value if isinstance(value, int) else int(value, 16)), name


def test_open__locks_stake_of_a_lease_with_an_arbiter(stage: Stage) -> None:
    """The exposure is the deposit; what is paid stays locked until the hold is over."""
    provider, arbiter = stage.provider.address, stage.arbiter.address
    lease = stage.open(stage.held_offer())
    assert stage.registry.view("stake_of", provider, arbiter)[1] == DEPOSIT
    stage.close(lease, HALF)
    assert stage.registry.view("stake_of", provider, arbiter)[1] == HALF
    stage.wait(HOLD)
    stage.send(stage.stranger, stage.market, "finish_hold", lease.as_tuple())
    assert stage.registry.view("stake_of", provider, arbiter)[1] == 0


def permit(stage: Stage, deadline: int) -> tuple[object, ...]:
    """A permit for the deposit."""
    v, r, s = permit_signature(stage.world, stage.tenant.address, DEPOSIT, 0, deadline, stage.tenant.key)
    return DEPOSIT, deadline, v, r, s


def test_open_with_permit(stage: Stage) -> None:
    """No allowance is needed before."""
    stage.send(stage.tenant, stage.token, "approve", stage.market.address, 0)
    stage.send(stage.tenant, stage.market, "open_with_permit", *stage.open_args(), permit(stage, stage.now))
    assert stage.balance(stage.market.address) == DEPOSIT


def test_open_with_permit__spent_first_by_somebody_else(stage: Stage) -> None:
    """Whoever sees the permit and sends it first only sets the allowance that the tenant wanted."""
    stage.send(stage.tenant, stage.token, "approve", stage.market.address, 0)
    seen = permit(stage, stage.now)
    args = (stage.tenant.address, stage.market.address, *seen)
    stage.send(stage.stranger, stage.token, "permit", *args)
    stage.send(stage.tenant, stage.market, "open_with_permit", *stage.open_args(), seen)
    assert stage.balance(stage.market.address) == DEPOSIT


def authorization(stage: Stage, nonce: bytes = b"n" * 32) -> tuple[object, ...]:
    """A signed transfer of the deposit to Market."""
    after, before = stage.now - 1, stage.now + 1
    v, r, s = authorization_signature(
        stage.world, stage.tenant.address, DEPOSIT, after, before, nonce, stage.tenant.key
    )
    return after, before, nonce, v, r, s


def test_open_with_authorization(stage: Stage) -> None:
    """One signed transfer, no allowance; nobody else can use it."""
    stage.send(stage.tenant, stage.token, "approve", stage.market.address, 0)
    args = (*stage.open_args(), authorization(stage))
    with pytest.raises(Reverted, match="market: transfer failed"):
        stage.send(stage.stranger, stage.market, "open_with_authorization", *args)
    stage.send(stage.tenant, stage.market, "open_with_authorization", *args)
    assert stage.balance(stage.market.address) == DEPOSIT


def test_top_up(stage: Stage) -> None:
    """Anyone pays; what is left at the end is the tenant's."""
    lease = stage.open()
    stage.send(stage.stranger, stage.market, "top_up", lease.as_tuple(), 7)
    assert stage.account(lease)[0] == DEPOSIT + 7
    assert stage.events["ToppedUp"]["payer"] == int(stage.stranger.address, 16)
    stage.close(lease, 0)
    assert stage.balance(stage.tenant.address) == FUNDS + 7


def test_extend(stage: Stage) -> None:
    """A later end, also of a lease whose time is over but that nobody finished."""
    lease = stage.open()
    stage.wait(SECONDS + 5)
    stage.send(stage.tenant, stage.market, "extend", *stage.extend_args(lease, stage.now + 9))
    assert stage.account(lease)[2] == stage.now + 9 == stage.events["Extended"]["ends_at"]


def test_redeem(stage: Stage) -> None:
    """Pays the difference at once, whoever sends it; an older voucher changes nothing and says nothing."""
    lease = stage.open()
    stage.redeem(lease, 101)
    assert stage.balance(stage.provider.address) == FUNDS - 10 * DEPOSIT + 100
    assert stage.events["Redeemed"] | {"lease_id": 0, "provider": 0} == {
        "lease_id": 0, "provider": 0, "settled": 101, "paid": 100, "fee": 1,
    }  # fmt: skip
    stage.redeem(lease, 100)
    assert stage.events == {}
    stage.redeem(lease, 2 * DEPOSIT)
    assert stage.account(lease)[:2] == (DEPOSIT, DEPOSIT)


def test_redeem__late_in_the_window_and_after_it_until_somebody_finishes(stage: Stage) -> None:
    """The tenant's start does not kill the vouchers that were signed."""
    lease = stage.open()
    stage.send(stage.tenant, stage.market, "start_close", lease.as_tuple(), Why.UNREACHABLE)
    stage.wait(WINDOW - 1)
    stage.redeem(lease, 1_000)
    stage.wait(1_000)
    stage.redeem(lease, 2_000)
    stage.send(stage.stranger, stage.market, "finish_close", lease.as_tuple())
    assert stage.events["Closed"]["settled"] == 2_000


@pytest.mark.parametrize("agent", [False, True])
def test_close(stage: Stage, agent: bool) -> None:
    """One transaction pays the provider, refunds the tenant and frees the units; the agent key may send it."""
    lease = stage.open()
    sender = replace(stage.provider, address=stage.provider.agent.address) if agent else stage.provider
    stage.send(sender, stage.market, "close", *stage.voucher(lease, HALF), Why.SHUTTING_DOWN)
    whole = split(HALF, 100)
    closed = stage.events["Closed"]
    assert (closed["how"], closed["why"], closed["by"]) == (How.CLOSE, Why.SHUTTING_DOWN, int(sender.address, 16))
    assert (closed["paid"], closed["fee"], closed["refund"]) == (whole.paid, whole.fee, HALF)
    assert stage.balance(stage.tenant.address) == FUNDS - HALF
    assert stage.balance(stage.provider.address) == FUNDS - 10 * DEPOSIT + whole.paid
    assert stage.account(lease) == (0, 0, 0, Phase.CLOSED)
    assert stage.market.view("leased", stage.provider.address, MACHINES[0]) == (0,)
    assert stage.market.view("lease_hash", lease.id) == (int(lease.hash, 16),)


def test_close__without_a_voucher_ends_at_what_is_settled(stage: Stage) -> None:
    """A provider frees its units from a tenant who never paid."""
    lease = stage.open()
    stage.redeem(lease, 500)
    stage.close(lease, 0)
    assert stage.events["Closed"]["settled"] == 500
    assert stage.balance(stage.tenant.address) == FUNDS - 500


def test_release(stage: Stage) -> None:
    """Never below what was settled, never above the deposit."""
    low, high = stage.open(), stage.open(attempt=2)
    stage.redeem(low, 900)
    stage.send(stage.tenant, stage.market, "release", *stage.release_args(low, 5))
    assert (stage.events["Closed"]["settled"], stage.events["Closed"]["how"]) == (900, How.RELEASE)
    stage.send(stage.tenant, stage.market, "release", *stage.release_args(high, 2 * DEPOSIT))
    assert stage.events["Closed"]["refund"] == 0


def test_start_close(stage: Stage) -> None:
    """The event says from when anyone may finish, and why the tenant wants out."""
    lease = stage.open()
    stage.send(stage.tenant, stage.market, "start_close", lease.as_tuple(), Why.UNDER_SPEC)
    seen = stage.events["ClosingStarted"]
    assert (seen["finish_at"], seen["why"]) == (stage.now + WINDOW, Why.UNDER_SPEC)


def test_start_close__after_the_agreed_end_delays_nothing(stage: Stage) -> None:
    """The window runs from the agreed end."""
    lease = stage.open()
    stage.wait(SECONDS + WINDOW)
    stage.send(stage.tenant, stage.market, "start_close", lease.as_tuple(), 0)
    stage.send(stage.tenant, stage.market, "finish_close", lease.as_tuple())


@pytest.mark.parametrize("started", [False, True])
def test_finish_close(stage: Stage, started: bool) -> None:
    """At the first second of the right, by anyone."""
    lease = stage.open()
    if started:
        stage.send(stage.tenant, stage.market, "start_close", lease.as_tuple(), 0)
    stage.wait(WINDOW if started else SECONDS + WINDOW)
    stage.send(stage.stranger, stage.market, "finish_close", lease.as_tuple())
    assert stage.events["Closed"]["how"] == (How.WINDOW if started else How.END)
    assert stage.balance(stage.tenant.address) == FUNDS


def held(stage: Stage) -> tuple[object, int]:
    """A lease whose held part waits, and that part."""
    lease = stage.open(stage.held_offer())
    stage.close(lease, DEPOSIT)
    return lease, split(DEPOSIT, 100, 2_000).held


def test_resolve(stage: Stage) -> None:
    """The arbiter divides the held part and nothing else."""
    lease, part = held(stage)
    stage.send(stage.arbiter, stage.market, "resolve", lease.as_tuple(), 50_000)
    assert stage.balance(stage.tenant.address) == FUNDS - DEPOSIT + 50_000
    assert stage.balance(stage.provider.address) == FUNDS - 10 * DEPOSIT + 990_000 - 50_000
    assert stage.events["HoldEnded"]["to_provider"] == part - 50_000
    assert stage.account(lease)[3] == Phase.CLOSED


def test_finish_hold(stage: Stage) -> None:
    """When the time is over the held part is the provider's."""
    lease, _ = held(stage)
    assert stage.balance(stage.provider.address) == FUNDS - 10 * DEPOSIT + 792_000
    stage.wait(HOLD)
    stage.send(stage.stranger, stage.market, "finish_hold", lease.as_tuple())
    assert stage.balance(stage.provider.address) == FUNDS - 10 * DEPOSIT + 990_000


def test_cancel_offers(stage: Stage) -> None:
    """Offers die, the lease that runs goes on."""
    lease, old = stage.open(), stage.offer()
    stage.send(stage.provider, stage.market, "cancel_offers")
    with pytest.raises(Reverted, match="market: offer cancelled"):
        stage.open(old, attempt=2)
    stage.open(stage.offer(epoch=1), attempt=2)
    stage.redeem(lease, 10)


def test_collect_fees(stage: Stage) -> None:
    """All fees, once."""
    stage.close(stage.open(), DEPOSIT)
    assert stage.market.view("fees") == (10_000,)
    stage.send(stage.stranger, stage.market, "collect_fees")
    assert stage.balance(FEE_RECIPIENT) == 10_000
    assert stage.market.view("fees") == (0,)


def test_withdraw() -> None:
    """A refused payout is owed, reverts nobody's exit, and goes where its owner says."""
    stage = Stage(freezing=True)
    lease = stage.open()
    stage.send(stage.stranger, stage.token, "freeze", stage.tenant.address, 1)
    stage.close(lease, HALF)
    assert stage.market.view("owed", stage.tenant.address) == (HALF,)
    with pytest.raises(Reverted, match="market: transfer failed"):
        stage.send(stage.tenant, stage.market, "withdraw", stage.tenant.address)
    stage.send(stage.tenant, stage.market, "withdraw", "0x" + "5a" * 20)
    assert stage.balance("0x" + "5a" * 20) == HALF
    assert stage.market.view("owed", stage.tenant.address) == (0,)


# ---------------------------------------------------------------------------------------------------------- Registry


def test_register(stage: Stage) -> None:
    """The agent key signs from now on."""
    stage.send(stage.stranger, stage.registry, "register", "https://host:1", stage.stranger.agent.address)
    assert stage.registry.view("agent_of", stage.stranger.address) == (int(stage.stranger.agent.address, 16),)


def test_update(stage: Stage) -> None:
    """Offers of the old key die at once."""
    old = stage.offer()
    stage.send(stage.provider, stage.registry, "update", "https://host:2", stage.stranger.address)
    with pytest.raises(Reverted, match="market: bad signature"):
        stage.open(old)
    stage.open(old, signature=stage.signed(old, stage.stranger.key))


def test_attest(stage: Stage) -> None:
    """Anyone may; it is an event."""
    args = (stage.provider.address, MACHINES[0], b"gemm", 42, stage.now + 1)
    stage.send(stage.stranger, stage.registry, "attest", *args)
    name, seen = stage.registry.decode(stage.machine.logs()[0])
    assert (name, seen["score"], seen["validator"]) == ("Attested", 42, int(stage.stranger.address, 16))


def test_appoint(stage: Stage) -> None:
    """Once, for ever."""
    stage.send(stage.stranger, stage.registry, "appoint", stage.market.address, 3)
    assert stage.registry.view("factor_of", stage.stranger.address) == (3,)


def test_stake(stage: Stage) -> None:
    """Under one arbiter alone."""
    stage.send(stage.provider, stage.registry, "stake", stage.world.arbiters[1].address, 5)
    assert stage.registry.view("stake_of", stage.provider.address, stage.world.arbiters[1].address)[0] == 5
    assert stage.registry.view("stake_of", stage.provider.address, stage.arbiter.address)[0] == 10 * DEPOSIT


@pytest.mark.parametrize("name", ["lock", "unlock"])
def test_lock(stage: Stage, name: str) -> None:
    """Only the Market that the arbiter named, at its factor; unlocking more than is locked leaves nothing locked."""
    arbiter = stage.world.arbiters[2]
    stage.send(arbiter, stage.registry, "appoint", stage.stranger.address, 7)
    stage.send(stage.provider, stage.registry, "stake", arbiter.address, 70)
    args = (stage.provider.address, arbiter.address)
    stage.send(stage.stranger, stage.registry, "lock", *args, 10)
    if name == "unlock":
        stage.send(stage.stranger, stage.registry, "unlock", *args, 11)
        assert stage.registry.view("stake_of", *args)[1] == 0
    else:
        with pytest.raises(Reverted, match="registry: stake too small"):
            stage.send(stage.stranger, stage.registry, "lock", *args, 1)


test_unlock = test_lock


def test_slash(stage: Stage) -> None:
    """Unbonding tokens first, then what is staked, never more than there is."""
    provider, arbiter, bin_ = stage.provider.address, stage.arbiter.address, "0x" + "b1" * 20
    stage.send(stage.provider, stage.registry, "start_unstake", arbiter, DEPOSIT)
    stage.send(stage.arbiter, stage.registry, "slash", provider, DEPOSIT + 1, bin_)
    assert stage.registry.view("stake_of", provider, arbiter)[::2] == (9 * DEPOSIT - 1, 0)
    stage.send(stage.arbiter, stage.registry, "slash", provider, 2**255, bin_)
    assert stage.balance(bin_) == 10 * DEPOSIT


def test_start_unstake(stage: Stage) -> None:
    """What covers a lease stays; a second start restarts the time."""
    arbiter = stage.arbiter.address
    stage.open(stage.held_offer())
    with pytest.raises(Reverted, match="registry: stake is locked"):
        stage.send(stage.provider, stage.registry, "start_unstake", arbiter, 9 * DEPOSIT + 1)
    stage.send(stage.provider, stage.registry, "start_unstake", arbiter, 1)
    stage.wait(100)
    stage.send(stage.provider, stage.registry, "start_unstake", arbiter, 9 * DEPOSIT - 1)
    staked, locked, unbonding, free_at = stage.registry.view("stake_of", stage.provider.address, arbiter)
    assert (staked, locked, unbonding, free_at) == (DEPOSIT, DEPOSIT, 9 * DEPOSIT, stage.now + 21 * 86_400)


def test_finish_unstake(stage: Stage) -> None:
    """To an address of the provider's choice, at the first second of the right."""
    stage.send(stage.provider, stage.registry, "start_unstake", stage.arbiter.address, 5)
    stage.wait(21 * 86_400)
    stage.send(stage.provider, stage.registry, "finish_unstake", stage.arbiter.address, "0x" + "5a" * 20)
    assert stage.balance("0x" + "5a" * 20) == 5


# -------------------------------------------------------------------------------------------------------- test token


def test_mint(stage: Stage) -> None:
    """Anyone, for tests."""
    before = stage.token.view("totalSupply")[0]
    stage.send(stage.stranger, stage.token, "mint", "0x" + "5a" * 20, 3)
    assert (stage.balance("0x" + "5a" * 20), stage.token.view("totalSupply")[0]) == (3, before + 3)
    assert stage.token.view("decimals") == (6,)


def test_transfer(stage: Stage) -> None:
    """Out of one's own balance."""
    stage.send(stage.stranger, stage.token, "transfer", "0x" + "5a" * 20, 3)
    assert stage.balance("0x" + "5a" * 20) == 3


def test_approve(stage: Stage) -> None:
    """An allowance is used up."""
    stage.send(stage.tenant, stage.token, "approve", stage.stranger.address, 5)
    stage.send(stage.stranger, stage.token, "transferFrom", stage.tenant.address, stage.stranger.address, 3)
    assert stage.token.view("allowance", stage.tenant.address, stage.stranger.address) == (2,)


test_transferFrom = test_approve


def test_permit(stage: Stage) -> None:
    """Once per nonce."""
    args = (stage.tenant.address, stage.market.address, *permit(stage, stage.now))
    stage.send(stage.stranger, stage.token, "permit", *args)
    assert stage.token.view("nonces", stage.tenant.address) == (1,)
    with pytest.raises(Reverted, match="token: bad signature"):
        stage.send(stage.stranger, stage.token, "permit", *args)


def test_receiveWithAuthorization(stage: Stage) -> None:
    """Only its receiver can send it, once: see also `open_with_authorization`."""
    nonce = b"m" * 32
    stage.send(stage.tenant, stage.market, "open_with_authorization", *stage.open_args(), authorization(stage, nonce))
    assert stage.token.view("authorizationState", stage.tenant.address, nonce) == (1,)
    args = (*stage.open_args(attempt=2, job=Hash32("0x" + "11" * 32)), authorization(stage, nonce))
    with pytest.raises(Reverted, match="market: transfer failed"):
        stage.send(stage.tenant, stage.market, "open_with_authorization", *args)
