"""The token's own signatures: EIP-2612 permits and EIP-3009 authorizations, as a wallet would make them."""

from __future__ import annotations

from evm import NOBODY, words
from lockstep import World

from minga.core.crypto import PrivateKey, keccak

PERMIT = keccak(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
RECEIVE = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
Signature = tuple[int, bytes, bytes]


def permit_signature(world: World, owner: str, value: int, nonce: int, deadline: int, signer: PrivateKey) -> Signature:
    """v, r, s of a permit for Market."""
    return _sign(world, words(PERMIT, owner, world.market.address, value, nonce, deadline), signer)


def authorization_signature(
    world: World,
    owner: str,
    value: int,
    after: int,
    before: int,
    nonce: bytes,
    signer: PrivateKey,
    receiver: str | None = None,
) -> Signature:
    """v, r, s of a transfer to Market, or to `receiver`."""
    receiver = receiver or world.market.address
    return _sign(world, words(RECEIVE, owner, receiver, value, after, before, nonce), signer)


def _sign(world: World, struct: bytes, signer: PrivateKey) -> Signature:
    separator = world.token.call(NOBODY, "DOMAIN_SEPARATOR")
    raw = signer.sign(keccak(b"\x19\x01" + separator + keccak(struct)))
    return raw[64], raw[:32], raw[32:64]
