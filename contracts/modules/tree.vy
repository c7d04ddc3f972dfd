# pragma version 0.4.3
"""
@title The Merkle tree over a trace, 16 children a round
@license Apache-2.0
@notice What it is: the same tree as `minga.protocol.merkle`: keccak nodes, leaves as they are, filled up with zero hashes
        to 16**rounds. What it does not know: what a leaf names.
        Rule: the number of rounds follows from the number of leaves, so that a node cannot pose as a leaf.
"""

ARITY: constant(uint256) = 16
PROOF_MAX: constant(uint256) = 20
LEAVES_MAX: constant(uint256) = 2**20


@internal
@pure
def _rounds(leaves: uint256) -> uint256:
    rounds: uint256 = 1
    room: uint256 = ARITY
    for _: uint256 in range(4):
        if room >= leaves:
            break
        rounds += 1
        room *= ARITY
    return rounds


@internal
@pure
def _fold(children: bytes32[16]) -> bytes32:
    level: bytes32[16] = children
    for width: uint256 in [8, 4, 2, 1]:
        for at: uint256 in range(width, bound=8):
            level[at] = keccak256(concat(level[2 * at], level[2 * at + 1]))
    return level[0]


@internal
@pure
def _root(leaf: bytes32, index: uint256, proof: bytes32[20], levels: uint256) -> bytes32:
    node: bytes32 = leaf
    for level: uint256 in range(levels, bound=PROOF_MAX):
        if (index >> level) & 1 == 1:
            node = keccak256(concat(proof[level], node))
        else:
            node = keccak256(concat(node, proof[level]))
    return node
