"""Stakes and the ledger, as the specification has them; the contracts are held to the same in tests/contracts."""

from __future__ import annotations

from copy import deepcopy

import pytest

from minga.core.crypto import ZERO_ADDRESS, Address
from minga.core.errors import ContractError
from minga.protocol.stake import ALLOWANCE_UNLIMITED, UNBONDING_SECONDS, Ledger, Registry, Stake

PROVIDER, ARBITER, OTHER, MARKET, REGISTRY, REFUGE = (Address("0x" + digit * 40) for digit in "123456")
NOW = 1_000


@pytest.fixture
def registry() -> Registry:
    """A hundred tokens staked of a provider's thousand, under an arbiter whose factor is four."""
    ledger = Ledger({PROVIDER: 1_000}, {(PROVIDER, REGISTRY): ALLOWANCE_UNLIMITED})
    made = Registry(REGISTRY, ledger)
    made.appoint(ARBITER, MARKET, 4)
    made.stake(PROVIDER, ARBITER, 100)
    return made


def refuses(registry: Registry, reason: str, name: str, *args: object) -> None:
    """The call raises the contract's revert string and changes nothing."""
    before = deepcopy(registry)
    with pytest.raises(ContractError) as caught:
        getattr(registry, name)(*args)
    assert caught.value.fact == reason
    assert registry == before


def test_ledger() -> None:
    """Moves exactly, or not at all."""
    ledger = Ledger({PROVIDER: 10}, {(PROVIDER, MARKET): 6})
    assert ledger.move(PROVIDER, OTHER, 4)
    assert not ledger.move(PROVIDER, OTHER, 7)
    ledger.frozen.add(OTHER)
    assert not ledger.move(PROVIDER, OTHER, 1)
    assert not ledger.move(OTHER, PROVIDER, 1)
    assert ledger.can_pull(PROVIDER, MARKET, 6)
    ledger.pull(PROVIDER, MARKET, 5)
    assert not ledger.can_pull(PROVIDER, MARKET, 2)
    assert ledger.balances == {PROVIDER: 1, OTHER: 4, MARKET: 5}


def test_keys(registry: Registry) -> None:
    """Once in, then changed."""
    refuses(registry, "registry: not registered", "update", PROVIDER, OTHER)
    refuses(registry, "registry: no agent key", "register", PROVIDER, ZERO_ADDRESS)
    registry.register(PROVIDER, OTHER)
    refuses(registry, "registry: already registered", "register", PROVIDER, OTHER)
    refuses(registry, "registry: no agent key", "update", PROVIDER, ZERO_ADDRESS)
    registry.update(PROVIDER, REFUGE)
    assert registry.agents == {PROVIDER: REFUGE}


def test_appoint(registry: Registry) -> None:
    """Once, for ever, within bounds."""
    refuses(registry, "registry: already appointed", "appoint", ARBITER, MARKET, 4)
    refuses(registry, "registry: no market", "appoint", OTHER, ZERO_ADDRESS, 4)
    refuses(registry, "registry: bad factor", "appoint", OTHER, MARKET, 0)
    refuses(registry, "registry: bad factor", "appoint", OTHER, MARKET, 1_001)


def test_stake(registry: Registry) -> None:
    """Adds up, under a known arbiter, with tokens that are there."""
    registry.stake(PROVIDER, ARBITER, 1)
    assert registry.stake_of(PROVIDER, ARBITER) == Stake(101)
    refuses(registry, "registry: no amount", "stake", PROVIDER, ARBITER, 0)
    refuses(registry, "registry: amount too large", "stake", PROVIDER, ARBITER, 2**128)
    refuses(registry, "registry: unknown arbiter", "stake", PROVIDER, OTHER, 1)
    refuses(registry, "registry: transfer failed", "stake", PROVIDER, ARBITER, 900)


def test_lock(registry: Registry) -> None:
    """Up to stake / factor, by the arbiter's Market alone; unlocking more than is locked is unlocking all."""
    registry.lock(MARKET, PROVIDER, ARBITER, 25)
    refuses(registry, "registry: stake too small", "lock", MARKET, PROVIDER, ARBITER, 1)
    refuses(registry, "registry: not the market", "lock", OTHER, PROVIDER, ARBITER, 0)
    refuses(registry, "registry: not the market", "unlock", OTHER, PROVIDER, ARBITER, 0)
    registry.unlock(MARKET, PROVIDER, ARBITER, 26)
    assert registry.stake_of(PROVIDER, ARBITER).locked == 0


def test_unstake(registry: Registry) -> None:
    """What covers leases stays; the rest leaves after its time, to any address."""
    registry.lock(MARKET, PROVIDER, ARBITER, 10)
    refuses(registry, "registry: stake is locked", "start_unstake", PROVIDER, ARBITER, 61, NOW)
    refuses(registry, "registry: no amount", "start_unstake", PROVIDER, ARBITER, 0, NOW)
    registry.start_unstake(PROVIDER, ARBITER, 60, NOW)
    free_at = NOW + UNBONDING_SECONDS
    refuses(registry, "registry: still unbonding", "finish_unstake", PROVIDER, ARBITER, REFUGE, free_at - 1)
    refuses(registry, "registry: bad receiver", "finish_unstake", PROVIDER, ARBITER, REGISTRY, free_at)
    registry.ledger.frozen.add(PROVIDER)
    refuses(registry, "registry: transfer failed", "finish_unstake", PROVIDER, ARBITER, PROVIDER, free_at)
    registry.finish_unstake(PROVIDER, ARBITER, REFUGE, free_at)
    assert registry.ledger.balance(REFUGE) == 60
    refuses(registry, "registry: nothing unbonding", "finish_unstake", PROVIDER, ARBITER, REFUGE, free_at)


def test_slash(registry: Registry) -> None:
    """By its own arbiter, unbonding tokens first, up to what is there."""
    registry.start_unstake(PROVIDER, ARBITER, 30, NOW)
    refuses(registry, "registry: nothing at stake", "slash", OTHER, PROVIDER, 1, REFUGE)
    refuses(registry, "registry: bad receiver", "slash", ARBITER, PROVIDER, 1, ZERO_ADDRESS)
    assert registry.slash(ARBITER, PROVIDER, 40, REFUGE) == 40
    assert registry.stake_of(PROVIDER, ARBITER).staked == 60
    assert registry.slash(ARBITER, PROVIDER, 10**9, REFUGE) == 60
    assert registry.ledger.balance(REFUGE) == 100
