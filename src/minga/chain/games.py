"""Every game about a commitment, move by move, derived from events alone: what anybody can follow.

A fold: the same events in the same order give the same games, so a reorg is a replay. What no event says is the time
that is left on a clock; the contract's own `game_of` says that. Does not know nodes, files or screens. Rule: nothing
here that an event does not say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minga.chain.chain import ContractEvent, Seen
from minga.chain.contract_events import Slashed, Staked, UnstakeStarted
from minga.chain.dispute_events import (
    Appealed,
    Applied,
    AwardWithdrawn,
    Challenged,
    Committed,
    Deepened,
    DrawAwaited,
    Drawn,
    Expanded,
    Fined,
    Finished,
    Joined,
    LeafOpened,
    Left,
    OperatorOpened,
    OperatorsShown,
    Picked,
    VoteCommitted,
    VoteRevealed,
)
from minga.core.crypto import Address, Hash32
from minga.protocol.dispute import Outcome, seats_in


@dataclass(frozen=True, slots=True)
class Move:
    """One event of a game and the chain time of its block."""

    at: int
    event: ContractEvent


@dataclass
class GameRecord:
    """One game. `leaf` is the disputed one, once it is open (0: not yet); `jury` and `pool` are sets of seats.

    `children` are the nodes shown last; `votes` maps (ballot, seat) to a verdict, 0 while only its hash is known;
    ballot 1 is the jury's, 2 the pool's.
    """

    game: int
    channel: Hash32
    challenger: Address
    end: bool
    pool: int
    opened_at: int
    moves: list[Move] = field(default_factory=list)
    children: tuple[Hash32, ...] = ()
    leaf: int = 0
    before: Hash32 | None = None
    after: Hash32 | None = None
    jury: int = 0
    appellant: int = 0
    votes: dict[tuple[int, int], int] = field(default_factory=dict)
    finished: Finished | None = None
    fined: list[Fined] = field(default_factory=list)

    @property
    def ballot(self) -> int:
        """The voting under way or over last: 0 none yet, 1 the jury's, 2 the pool's."""
        return 2 if self.appellant else 1 if self.jury else 0

    @property
    def picks(self) -> list[int]:
        """The indices picked so far, each among the nodes of its round."""
        return [move.event.index for move in self.moves if isinstance(move.event, Picked)]

    @property
    def rounds_shown(self) -> int:
        """In how many rounds the provider has shown its nodes."""
        return sum(isinstance(move.event, Expanded) for move in self.moves)

    def voters(self, ballot: int) -> tuple[int, ...]:
        """The seats that may vote on a ballot."""
        mask = {1: self.jury, 2: self.pool if self.appellant else 0}.get(ballot, 0)
        return seats_in(mask)


@dataclass
class Games:
    """Games by their numbers, who has which seat, and what else audits hang on.

    `committed_in` and `joined_in`: in which block a commitment (by channel) and a referee's first stake stand;
    `stakes`: (chain time, token units) after each change of a provider's stake under an arbiter, oldest first;
    `convicted`: chain time of a provider's last conviction; `withdrawn`: token units that somebody took in all.
    """

    committed_in: dict[Hash32, int] = field(default_factory=dict)
    joined_in: dict[Address, int] = field(default_factory=dict)
    stakes: dict[tuple[Address, Address], list[tuple[int, int]]] = field(default_factory=dict)
    convicted: dict[Address, int] = field(default_factory=dict)
    withdrawn: dict[Address, int] = field(default_factory=dict)
    providers: dict[Hash32, Address] = field(default_factory=dict)
    """Whose commitment stands on a channel."""
    games: dict[int, GameRecord] = field(default_factory=dict)
    applied: dict[Hash32, list[Applied]] = field(default_factory=dict)
    seats: dict[int, Address] = field(default_factory=dict)
    left: dict[Address, int] = field(default_factory=dict)
    """Referee who leaves → chain time from which its stake is free."""

    def about(self, channel: Hash32) -> list[GameRecord]:
        """The games about one commitment, oldest first."""
        return [game for game in self.games.values() if game.channel == channel]

    def take(self, seen: Seen) -> None:
        """Fold one event in; in chain order."""
        match seen.event:
            case Committed() as event:
                self.committed_in[event.channel] = seen.at.block
                self.providers[event.channel] = event.provider
            case AwardWithdrawn() as event:
                self.withdrawn[event.owner] = self.withdrawn.get(event.owner, 0) + event.amount
            case Challenged() as event:
                made = GameRecord(event.game, event.channel, event.challenger, event.end, event.pool, seen.at.time)
                self.games[event.game] = made
                made.moves.append(Move(seen.at.time, event))
            case Applied() as event:
                self.applied.setdefault(event.channel, []).append(event)
            case Joined() as event:
                self.seats[event.seat] = event.referee
                self.joined_in.setdefault(event.referee, seen.at.block)
                self.left.pop(event.referee, None)
            case Left() as event:
                self.left[event.referee] = event.free_at
            case Staked() | Slashed() | UnstakeStarted() as event:
                self._stake(event, seen.at.time)
            case event:
                number = getattr(event, "game", None)
                if isinstance(number, int) and number in self.games:
                    self._move(self.games[number], Move(seen.at.time, event))

    def _stake(self, event: Staked | Slashed | UnstakeStarted, at: int) -> None:
        known = self.stakes.setdefault((event.provider, event.arbiter), [])
        before = known[-1][1] if known else 0
        # A slash takes unbonding stake first, which no event says; counting it as staked only makes a record younger.
        left = event.staked if isinstance(event, Staked) else max(0, before - event.amount)
        known.append((at, left))

    def _move(self, game: GameRecord, move: Move) -> None:
        game.moves.append(move)
        match move.event:
            case Expanded() as event:
                game.children = tuple(event.children)
            case LeafOpened() as event:
                game.leaf, game.before, game.after = event.leaf, event.before, event.after
            case Drawn() as event:
                game.jury = event.voters
            case Appealed() as event:
                game.appellant = event.appellant
            case VoteCommitted() as event:
                game.votes[game.ballot, event.seat] = 0
            case VoteRevealed() as event:
                game.votes[game.ballot, event.seat] = event.verdict
            case Fined() as event:
                game.fined.append(event)
            case Finished() as event:
                game.finished = event
                if event.outcome == Outcome.CONVICTED and event.channel in self.providers:
                    self.convicted[self.providers[event.channel]] = move.at
            case Picked() | Deepened() | OperatorsShown() | OperatorOpened() | DrawAwaited():
                pass  # told by the moves themselves
