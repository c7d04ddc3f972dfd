# pragma version 0.4.3
"""
@title EIP-712 digests and canonical ECDSA signatures
@license Apache-2.0
@notice What it is: the hash that a signature is bound to, and the address that made a signature.
        What it does not know: who should have signed.
        Rule: an address comes out of a canonical signature only (65 bytes r, s, v; low s; v 27 or 28);
        every other one gives the zero address, which no caller may accept.
"""

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
VERSION: constant(bytes32) = keccak256("1")
# Half of the curve's order: above it lies the mirror image of a signature (EIP-2).
S_MAX: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168


@internal
@view
def _separator(name: bytes32) -> bytes32:
    # Never cached: after a fork of the chain a cached id would let one signature count on both sides.
    return keccak256(abi_encode(DOMAIN_TYPE, name, VERSION, chain.id, self))


@internal
@view
def _digest(name: bytes32, struct_hash: bytes32) -> bytes32:
    return keccak256(concat(x"1901", self._separator(name), struct_hash))


@internal
@pure
def _recover_vrs(digest: bytes32, v: uint256, r: uint256, s: uint256) -> address:
    if s > S_MAX or (v != 27 and v != 28):
        return empty(address)
    return ecrecover(digest, v, r, s)


@internal
@pure
def _recover(digest: bytes32, signature: Bytes[256]) -> address:
    if len(signature) != 65:
        return empty(address)
    return self._recover_vrs(
        digest,
        convert(slice(signature, 64, 1), uint256),
        extract32(signature, 0, output_type=uint256),
        extract32(signature, 32, output_type=uint256),
    )
