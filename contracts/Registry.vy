# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Registry
@license Apache-2.0
@notice Prose: interfaces/IRegistry.vyi. Order of every function: check, accrue, effects, event, interaction.
"""

from interfaces import IRegistry
from modules import payments

implements: IRegistry

UNBONDING_SECONDS: constant(uint256) = 21 * 86400
FACTOR_MAX: constant(uint256) = 1000
# So that factor * locked and every sum stay far from overflow: an overflow would be a revert that another could cause.
AMOUNT_MAX: constant(uint256) = 2**128 - 1

TOKEN: immutable(address)

agent_of: public(HashMap[address, address])
market_of: public(HashMap[address, address])
factor_of: public(HashMap[address, uint256])
_stakes: HashMap[address, HashMap[address, IRegistry.Stake]]


@deploy
def __init__(token: address):
    assert token.is_contract, "registry: not a contract"
    TOKEN = token


@external
@view
def token() -> address:
    return TOKEN


@external
@view
def stake_of(provider: address, arbiter: address) -> IRegistry.Stake:
    return self._stakes[provider][arbiter]


@external
def register(uri: String[256], agent_key: address):
    assert self.agent_of[msg.sender] == empty(address), "registry: already registered"
    self._set_agent(uri, agent_key)


@external
def update(uri: String[256], agent_key: address):
    assert self.agent_of[msg.sender] != empty(address), "registry: not registered"
    self._set_agent(uri, agent_key)


@external
def attest(provider: address, machine: bytes32, class_: bytes32, score: uint256, expires: uint64):
    assert self.agent_of[provider] != empty(address), "registry: not registered"
    assert convert(expires, uint256) > block.timestamp, "registry: attestation expired"
    log IRegistry.Attested(
        validator=msg.sender, provider=provider, machine=machine, class_=class_, score=score, expires=expires
    )


@external
def appoint(market: address, factor: uint256):
    assert self.market_of[msg.sender] == empty(address), "registry: already appointed"
    assert market != empty(address), "registry: no market"
    assert factor >= 1 and factor <= FACTOR_MAX, "registry: bad factor"
    self.market_of[msg.sender] = market
    self.factor_of[msg.sender] = factor
    log IRegistry.Appointed(arbiter=msg.sender, market=market, factor=factor)


@external
def stake(arbiter: address, amount: uint256):
    assert amount > 0, "registry: no amount"
    assert amount <= AMOUNT_MAX, "registry: amount too large"
    assert self.market_of[arbiter] != empty(address), "registry: unknown arbiter"
    staked: uint256 = self._stakes[msg.sender][arbiter].staked + amount
    self._stakes[msg.sender][arbiter].staked = staked
    log IRegistry.Staked(provider=msg.sender, arbiter=arbiter, amount=amount, staked=staked)
    before: uint256 = payments._balance(TOKEN)
    assert payments._take(TOKEN, amount), "registry: transfer failed"
    assert payments._balance(TOKEN) == before + amount, "registry: token took a fee"


@external
def lock(provider: address, arbiter: address, exposure: uint256):
    assert self.market_of[arbiter] == msg.sender, "registry: not the market"
    locked: uint256 = self._stakes[provider][arbiter].locked + exposure
    assert locked * self.factor_of[arbiter] <= self._stakes[provider][arbiter].staked, "registry: stake too small"
    self._stakes[provider][arbiter].locked = locked
    log IRegistry.Locked(provider=provider, arbiter=arbiter, locked=locked)


@external
def unlock(provider: address, arbiter: address, exposure: uint256):
    assert self.market_of[arbiter] == msg.sender, "registry: not the market"
    locked: uint256 = self._stakes[provider][arbiter].locked
    locked -= min(locked, exposure)
    self._stakes[provider][arbiter].locked = locked
    log IRegistry.Locked(provider=provider, arbiter=arbiter, locked=locked)


@external
def slash(provider: address, amount: uint256, receiver: address) -> uint256:
    assert receiver != empty(address) and receiver != self, "registry: bad receiver"
    held: IRegistry.Stake = self._stakes[provider][msg.sender]
    from_unbonding: uint256 = min(amount, held.unbonding)
    from_staked: uint256 = min(amount - from_unbonding, held.staked)
    taken: uint256 = from_unbonding + from_staked
    assert taken > 0, "registry: nothing at stake"
    self._stakes[provider][msg.sender].unbonding = held.unbonding - from_unbonding
    self._stakes[provider][msg.sender].staked = held.staked - from_staked
    log IRegistry.Slashed(provider=provider, arbiter=msg.sender, receiver=receiver, amount=taken)
    self._send(receiver, taken)
    return taken


@external
def start_unstake(arbiter: address, amount: uint256):
    assert amount > 0, "registry: no amount"
    held: IRegistry.Stake = self._stakes[msg.sender][arbiter]
    covered: uint256 = held.locked * self.factor_of[arbiter]
    # Not a difference: after a slash the stake may be below what it should cover.
    assert amount <= held.staked and held.staked - amount >= covered, "registry: stake is locked"
    free_at: uint256 = block.timestamp + UNBONDING_SECONDS
    self._stakes[msg.sender][arbiter].staked = held.staked - amount
    self._stakes[msg.sender][arbiter].unbonding = held.unbonding + amount
    self._stakes[msg.sender][arbiter].free_at = free_at
    log IRegistry.UnstakeStarted(provider=msg.sender, arbiter=arbiter, amount=amount, free_at=free_at)


@external
def finish_unstake(arbiter: address, receiver: address):
    assert receiver != empty(address) and receiver != self, "registry: bad receiver"
    held: IRegistry.Stake = self._stakes[msg.sender][arbiter]
    assert held.unbonding > 0, "registry: nothing unbonding"
    assert block.timestamp >= held.free_at, "registry: still unbonding"
    self._stakes[msg.sender][arbiter].unbonding = 0
    log IRegistry.UnstakeFinished(provider=msg.sender, arbiter=arbiter, receiver=receiver, amount=held.unbonding)
    self._send(receiver, held.unbonding)


@internal
def _set_agent(uri: String[256], agent_key: address):
    assert agent_key != empty(address), "registry: no agent key"
    self.agent_of[msg.sender] = agent_key
    log IRegistry.Registered(provider=msg.sender, agent_key=agent_key, uri=uri)


@internal
def _send(receiver: address, amount: uint256):
    assert payments._send(TOKEN, receiver, amount, msg.gas), "registry: transfer failed"
