# pragma version 0.4.3
"""
@title A contract wallet: EIP-1271, one owner, any call
@license Apache-2.0
@notice For tests. Modes: 0 honest; 1 burns all gas it is given; 2 answers with 64 bytes; 3 answers nothing; 4 reverts.
"""

from modules import eip712

MAGIC: constant(bytes32) = 0x1626ba7e00000000000000000000000000000000000000000000000000000000
OWNER: immutable(address)
mode: public(uint256)
spins: uint256


@deploy
def __init__(owner: address):
    OWNER = owner


@external
def set_mode(mode: uint256):
    self.mode = mode


@external
def run(target: address, data: Bytes[2048]) -> Bytes[1024]:
    assert msg.sender == OWNER
    return raw_call(target, data, max_outsize=1024)


@external
@view
@raw_return
def isValidSignature(digest: bytes32, signature: Bytes[256]) -> Bytes[64]:
    if self.mode == 1:
        word: bytes32 = digest
        for _: uint256 in range(1_000_000):
            word = keccak256(word)
        return concat(word, word)
    if self.mode == 2:
        return concat(MAGIC, MAGIC)
    if self.mode == 3:
        return b""
    assert self.mode != 4
    if eip712._recover(digest, signature) == OWNER:
        return slice(concat(MAGIC, b""), 0, 32)
    return slice(concat(empty(bytes32), b""), 0, 32)
