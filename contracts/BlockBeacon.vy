# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title BlockBeacon: the hash of a block to come
@license Apache-2.0
@notice What it is: a beacon for chains whose block producers are trusted not to grind hashes; a round is a block number.
        What it does not know: who asks, and why.
        Rule: a value is the block's own hash, as the chain gives it for 256 blocks; `keep` makes it last. A producer can
        throw away a block, or try several, at the price of what that costs it: where a verdict is worth more than that,
        or where hashes are a sequencer's choice, take another beacon.
"""

from interfaces import IBeacon

implements: IBeacon

REACH: constant(uint256) = 256  # blocks back that the chain gives hashes of
DELAY_MAX: constant(uint256) = 128

DELAY: immutable(uint256)

_kept: HashMap[uint256, bytes32]

event Kept:
    round: indexed(uint256)
    value: bytes32


@deploy
def __init__(delay: uint256):
    """
    @param delay Blocks between now and the next round, 0 ... 128. Zero names the block being made, which only its own
                 producer can bend: for chains that make a block for each transaction and none without.
    """
    assert delay <= DELAY_MAX, "beacon: bad delay"
    DELAY = delay


@external
@view
def next_round() -> uint256:
    return block.number + DELAY


@external
@view
def value(round: uint256) -> bytes32:
    return self._value(round)


@external
@view
def missed(round: uint256) -> bool:
    return block.number > round + REACH and self._kept[round] == empty(bytes32)


@external
def keep(round: uint256):
    """
    @notice Anyone: store a round's value while the chain still gives it.
    @dev Reverts as `value`.
    """
    kept: bytes32 = self._value(round)
    self._kept[round] = kept
    log Kept(round=round, value=kept)


@internal
@view
def _value(round: uint256) -> bytes32:
    assert block.number > round, "beacon: not yet"
    kept: bytes32 = self._kept[round]
    if kept != empty(bytes32):
        return kept
    assert block.number <= round + REACH, "beacon: missed"
    return blockhash(round)
