# pragma version 0.4.3
"""
@title What changes in a dispute, packed into words, and the sets of seats
@license Apache-2.0
@notice What it is: a game's state in one word, a voting's four sets of seats in another, and how a jury is drawn; the same
        as `minga.protocol.dispute` and `dispute_jury`. What it does not know: tokens, people, rules.
        Rule: a set of seats is a bit mask over 63 seats, so that four of them fit one word.
"""

struct State:
    phase: uint256
    outcome: uint256
    kind: uint256
    appellant: uint256
    rounds: uint256  # still to play in this tree
    leaves: uint256  # of this tree
    index: uint256  # of the node in play, in its round
    since: uint256  # chain time at which the present mover's time began
    provider_left: uint256  # seconds on the provider's clock
    challenger_left: uint256

struct Ballots:
    voters: uint256
    committed: uint256
    revealed: uint256
    follows: uint256

SEATS: constant(uint256) = 63
ALL: constant(uint256) = 2**63 - 1


@internal
@pure
def _pack(s: State) -> uint256:
    return (
        s.phase | (s.outcome << 8) | (s.kind << 16) | (s.appellant << 24) | (s.rounds << 32) | (s.leaves << 40)
        | (s.index << 72) | (s.since << 104) | (s.provider_left << 160) | (s.challenger_left << 208)
    )


@internal
@pure
def _unpack(word: uint256) -> State:
    return State(
        phase=word & 255,
        outcome=(word >> 8) & 255,
        kind=(word >> 16) & 255,
        appellant=(word >> 24) & 255,
        rounds=(word >> 32) & 255,
        leaves=(word >> 40) & (2**32 - 1),
        index=(word >> 72) & (2**32 - 1),
        since=(word >> 104) & (2**56 - 1),
        provider_left=(word >> 160) & (2**48 - 1),
        challenger_left=word >> 208,
    )


@internal
@pure
def _pack_ballots(b: Ballots) -> uint256:
    return b.voters | (b.committed << 63) | (b.revealed << 126) | (b.follows << 189)


@internal
@pure
def _unpack_ballots(word: uint256) -> Ballots:
    return Ballots(
        voters=word & ALL,
        committed=(word >> 63) & ALL,
        revealed=(word >> 126) & ALL,
        follows=(word >> 189) & ALL,
    )


@internal
@pure
def _count(seats: uint256) -> uint256:
    left: uint256 = seats
    count: uint256 = 0
    for _: uint256 in range(SEATS):
        if left == 0:
            break
        left = left & (left - 1)
        count += 1
    return count


@internal
@pure
def _provider_right(word: uint256) -> bool:
    # A tie, silence of all included, is for the provider: who accuses must convince.
    ballots: Ballots = self._unpack_ballots(word)
    return 2 * self._count(ballots.follows) >= self._count(ballots.revealed)


@internal
@pure
def _draw(pool: uint256, jury: uint256, seed: bytes32) -> uint256:
    # One seat after the other, each with the same chance among those that are left.
    left: uint256 = pool
    count: uint256 = self._count(pool)
    drawn: uint256 = 0
    for turn: uint256 in range(jury, bound=21):
        skip: uint256 = convert(keccak256(abi_encode(seed, turn)), uint256) % (count - turn)
        rest: uint256 = left
        for _: uint256 in range(SEATS):
            if skip == 0:
                break
            rest = rest & (rest - 1)
            skip -= 1
        seat: uint256 = rest & (max_value(uint256) - rest + 1)
        drawn = drawn | seat
        left = left ^ seat
    return drawn
