"""Disputes: the words of the game. Presets, commitments, the phases of a game and the numbers that stand for them.

What it is: the values that the contract, its specification (`disputes`) and the two players share. What it does not
know: moves, votes, money. Pure. Rule: names, order and numbers are those of `contracts/interfaces/IDisputes.vyi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from minga.core.crypto import Address, Hash32, from_hex, keccak, to_hex
from minga.core.units import Amount

SEATS = 63
"""Seats of the pool: four sets of them fit a word, and a vote of all of them a transaction."""
JURY_MAX = 21
FINE_PART = 20
"""A silent vote costs a referee this part of the least stake: 5 %."""
AMOUNT_MAX = 2**96 - 1
STAKE_LEAVES_SECONDS = 21 * 86400
"""Registry's unbonding time: a window and the longest game after it fit in."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What is fixed for ever when Disputes is deployed. Times are seconds, amounts token units.

    `clock`: each player's time for all its moves of a game; `vote_seconds`: for the draw, each commit, each reveal, and
    an appeal; `jury`: referees drawn, odd; `bond` covers every seat fee of a game; `factor`: stake for each unit of
    exposure.
    """

    window: int
    clock: int
    vote_seconds: int
    jury: int
    seat_fee: int
    bond: int
    referee_stake: int
    factor: int

    def as_tuple(self) -> tuple[int, ...]:
        """The fields in the order of the contract's struct."""
        return (
            self.window, self.clock, self.vote_seconds, self.jury, self.seat_fee, self.bond, self.referee_stake,
            self.factor,
        )  # fmt: skip

    @property
    def game_seconds_max(self) -> int:
        """From a challenge until its game must be decided: two clocks, a draw, two votings and an appeal."""
        return 2 * self.clock + 6 * self.vote_seconds

    @property
    def fine(self) -> int:
        """What one silent vote costs, token units."""
        return self.referee_stake // FINE_PART


PRODUCTION = Preset(
    # Long enough to do a sample of a day's work again; short enough that a hold of at most 7 days covers it.
    window=3 * 86400,
    # Of a whole game's ten answers most take seconds. Four days outlast a long week-end, and an attack that keeps
    # somebody off the chain for a day (Optimism and Arbitrum give 3.5 and 6.4 days for a whole game).
    clock=96 * 3600,
    vote_seconds=24 * 3600,
    # Of a pool with a third colluders a jury of 7 is wrong in 16 % of draws; the appeal to all is what makes it right.
    jury=7,
    # Half a dollar, with 6 decimals, for one leaf done again: minutes of a rented card.
    seat_fee=500_000,
    # 50 dollars: 35 would pay every seat of a jury and of a full pool.
    bond=50_000_000,
    # 2,000 dollars: filling the pool's 63 seats with one's own people ties up 126,000.
    referee_stake=2_000_000_000,
    # VERIFICATION: S >= 8.5 R at an audit rate of 10 %; twice that, as a sham challenger gets back half; rounded up.
    factor=20,
)
"""For networks with real money in a token of 6 decimals: every clock at least 24 hours."""

SHORT = Preset(
    # The same game within minutes, for an embedded network whose players are all on one machine.
    window=600,
    clock=120,
    # Referees of one machine do the same leaf at once, and a wrong one twice: 163 s on 2 cores that two dozen other
    # processes used, too. A voting ends when all have voted, so that nobody waits for the rest of it.
    vote_seconds=180,
    jury=3,
    seat_fee=10_000,
    bond=1_000_000,
    referee_stake=10_000_000,
    factor=20,
)
"""For embedded networks: a whole game in minutes, with three referees and small test money."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a provider says came of a job. `exposure` is token units, `committed_at` chain time; `channel` is its id."""

    channel: Hash32
    provider: Address
    tenant: Address
    work: Hash32
    root: Hash32
    leaves: int
    exposure: Amount
    committed_at: int

    def as_tuple(self) -> tuple[str | int, ...]:
        """The fields in the order of the contract's struct."""
        return (
            self.channel, self.provider, self.tenant, self.work, self.root, self.leaves, self.exposure,
            self.committed_at,
        )  # fmt: skip

    @property
    def hash(self) -> Hash32:
        """keccak256(abi.encode(Commitment)), as Disputes stores it."""
        return Hash32(to_hex(keccak(b"".join(_word(value) for value in self.as_tuple()))))


class Phase(IntEnum):
    """Where a game stands, and so who moves."""

    NONE = 0
    EXPAND = 1
    PICK = 2
    BEFORE = 3
    OPERATORS = 4
    DRAW = 5
    VOTE = 6
    REVEAL = 7
    JUDGED = 8
    POOL_VOTE = 9
    POOL_REVEAL = 10
    POOL_JUDGED = 11
    DONE = 12


class Outcome(IntEnum):
    """How a game ended."""

    NONE = 0
    ACQUITTED = 1
    CONVICTED = 2
    VOID = 3


class Kind(IntEnum):
    """What a game is over."""

    LEAVES = 0
    DEEP = 1
    OPERATORS = 2
    END = 3


class Player(IntEnum):
    """The two sides, and nobody."""

    NOBODY = 0
    PROVIDER = 1
    CHALLENGER = 2


class Verdict(IntEnum):
    """What a referee votes: the step follows; or it does not, or what is needed to check it was not served."""

    FOLLOWS = 1
    DOES_NOT = 2


@dataclass(frozen=True, slots=True)
class Game:
    """A game as `game_of` gives it; see the interface. `pool` is a set of seats, `since` chain time, clocks seconds."""

    channel: Hash32
    provider: Address
    challenger: Address
    phase: Phase
    outcome: Outcome
    kind: Kind
    appellant: Player
    rounds: int
    leaves: int
    index: int
    node: Hash32
    since: int
    provider_left: int
    challenger_left: int
    pool: int


@dataclass(frozen=True, slots=True)
class Ballots:
    """One voting as sets of seats (bit i is seat i); `follows` are the votes for the provider."""

    voters: int = 0
    committed: int = 0
    revealed: int = 0
    follows: int = 0

    @property
    def provider_right(self) -> bool:
        """A tie, silence of all included, is for the provider: who accuses must convince."""
        return 2 * self.follows.bit_count() >= self.revealed.bit_count()


def seats_in(seats: int) -> tuple[int, ...]:
    """The numbers of the seats in a set."""
    return tuple(seat for seat in range(SEATS) if seats >> seat & 1)


def vote_hash(game: int, voting: int, referee: Address, verdict: int, salt: bytes) -> Hash32:
    """What a referee commits: it binds game, voting (0 jury, 1 pool), referee, verdict and a salt of 32 bytes."""
    fields = (game, voting, referee, verdict, to_hex(salt))
    return Hash32(to_hex(keccak(b"".join(_word(value) for value in fields))))


def draw_jury(pool: int, jury: int, beacon: bytes, game: int) -> int:
    """The set of seats that a beacon's value of 32 bytes draws: one after the other, each with the same chance."""
    seed = keccak(beacon + game.to_bytes(32, "big"))
    left, drawn = list(seats_in(pool)), 0
    for turn in range(jury):
        lot = int.from_bytes(keccak(seed + turn.to_bytes(32, "big")), "big")
        drawn |= 1 << left.pop(lot % len(left))
    return drawn


def _word(value: str | int) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else from_hex(value).rjust(32, b"\0")
