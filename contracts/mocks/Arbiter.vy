# pragma version 0.4.3
"""
@title An arbiter that does what its owner says
@license Apache-2.0
@notice For tests: stands where the dispute contract will stand.
"""

from interfaces import IMarket
from interfaces import IRegistry

OWNER: immutable(address)


@deploy
def __init__():
    OWNER = msg.sender


@external
def appoint(registry: address, market: address, factor: uint256):
    assert msg.sender == OWNER
    extcall IRegistry(registry).appoint(market, factor)


@external
def resolve(market: address, lease: IMarket.Lease, to_tenant: uint128):
    assert msg.sender == OWNER
    extcall IMarket(market).resolve(lease, to_tenant)


@external
def slash(registry: address, provider: address, amount: uint256, receiver: address) -> uint256:
    assert msg.sender == OWNER
    return extcall IRegistry(registry).slash(provider, amount, receiver)
