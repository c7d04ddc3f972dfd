"""One game of a dispute: how it gets from a root to one leaf, and how votes are counted. Part of the specification.

What it is: a `Table` and the moves on it as functions that give the next one, or raise `ContractError` with the
contract's revert string. What it does not know: who may move (`disputes` checks that), tokens, commitments beyond their
root.

    EXPAND ⇄ PICK ─▶ BEFORE ─▶ (OPERATORS ─▶ EXPAND ⇄ PICK) ─▶ DRAW ─▶ VOTE ─▶ REVEAL ─▶ JUDGED ─▶ DONE
    provider, challenger       when deepened                     POOL_VOTE ─▶ POOL_REVEAL ─▶ POOL_JUDGED on appeal

Rule: each state has one mover and one deadline; a player's clock runs while it is the mover, and silence loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.protocol.dispute import SEATS, Ballots, Game, Kind, Outcome, Phase, Player, Verdict, vote_hash
from minga.protocol.merkle import ARITY, LEAVES_MAX, LEVELS, fold, proves, rounds_for
from minga.protocol.stake import require

_VOTINGS = (Phase.VOTE, Phase.REVEAL, Phase.POOL_VOTE, Phase.POOL_REVEAL)


@dataclass(frozen=True, slots=True)
class Table:
    """A game's whole state. `node` is 32 bytes; times are chain time, clocks seconds; `pool` a set of seats.

    `rounds` are those still to play in this tree, `leaves` its leaves, `index` the place of the node in play.
    """

    channel: Hash32
    provider: Address
    challenger: Address
    exposure: int
    pool: int
    phase: Phase
    kind: Kind
    rounds: int
    leaves: int
    index: int
    node: bytes
    since: int
    provider_left: int
    challenger_left: int
    outcome: Outcome = Outcome.NONE
    appellant: Player = Player.NOBODY
    votings: tuple[Ballots, Ballots] = (Ballots(), Ballots())
    votes: dict[tuple[int, int], Hash32] = field(default_factory=dict)
    """(voting, seat) → what was committed."""

    def as_game(self) -> Game:
        """What `game_of` says of it."""
        return Game(
            self.channel, self.provider, self.challenger, self.phase, self.outcome, self.kind, self.appellant,
            self.rounds, self.leaves, self.index, Hash32(to_hex(self.node)), self.since, self.provider_left,
            self.challenger_left, self.pool,
        )  # fmt: skip

    @property
    def voting(self) -> int:
        """Whose votes are due or were counted last: 0 the jury's, 1 the pool's."""
        return int(self.phase >= Phase.POOL_VOTE)


def begin(
    channel: Hash32, parties: tuple[Address, Address], exposure: int, pool: int, root: bytes, leaves: int, clock: int,
    now: int, *, end: bool,
) -> Table:  # fmt: skip
    """The table of a game that begins now; `parties` are provider and challenger. With `end` it is about the end."""
    return Table(
        channel, *parties, exposure, pool, Phase.BEFORE if end else Phase.EXPAND, Kind.END if end else Kind.LEAVES,
        0 if end else rounds_for(leaves), leaves, leaves if end else 0, bytes(32) if end else root, now, clock, clock,
    )  # fmt: skip


def at(table: Table, now: int, vote_seconds: int) -> Table:
    """The table now: a voting moves on by itself when its time is over."""
    for _ in range(2):
        if table.phase in _VOTINGS and now >= table.since + vote_seconds:
            table = replace(table, phase=Phase(table.phase + 1), since=table.since + vote_seconds)
    return table


def provider_answers(table: Table, now: int) -> Table:
    """The provider's clock is stopped.

    Raises:
        ContractError: it ran out.
    """
    used = now - table.since
    require(used <= table.provider_left, "disputes: out of time")
    return replace(table, provider_left=table.provider_left - used, since=now)


def expand(table: Table, children: Sequence[bytes], now: int) -> Table:
    """The provider shows the 16 nodes below the one in play."""
    table = provider_answers(table, now)
    require(fold(children) == table.node, "disputes: other node")
    return replace(table, phase=Phase.PICK, node=keccak(b"".join(children)))


def pick(table: Table, children: Sequence[bytes], index: int, now: int, next_round: int) -> Table:
    """The challenger names one of them; `next_round` is the beacon's."""
    used = now - table.since
    require(used <= table.challenger_left, "disputes: out of time")
    require(keccak(b"".join(children)) == table.node, "disputes: other children")
    place, rounds = table.index * ARITY + index, table.rounds - 1
    first = 0 if table.kind is Kind.OPERATORS else 1
    require(index < ARITY and (rounds > 0 or first <= place < table.leaves), "disputes: no such leaf")
    table = replace(
        table, challenger_left=table.challenger_left - used, since=now, rounds=rounds, index=place, node=children[index]
    )
    if rounds > 0:
        return replace(table, phase=Phase.EXPAND)
    if table.kind is Kind.OPERATORS:
        return await_draw(table, next_round)
    return replace(table, phase=Phase.BEFORE) if index == 0 else leaf_open(table, next_round)


def before(table: Table, root: bytes, leaf: bytes, proof: Sequence[bytes], now: int, next_round: int) -> Table:
    """The provider opens the leaf before the disputed one, with siblings from the bottom up."""
    table = provider_answers(table, now)
    rounds = rounds_for(table.leaves)
    require(proves(root, rounds, table.index - 1, leaf, proof[: LEVELS * rounds]), "disputes: bad proof")
    return leaf_open(table, next_round)


def leaf_open(table: Table, next_round: int) -> Table:
    """Both leaves are known: down to an operator, or to the draw."""
    return replace(table, phase=Phase.OPERATORS) if table.kind is Kind.DEEP else await_draw(table, next_round)


def await_draw(table: Table, next_round: int) -> Table:
    """The jury comes with this round of the beacon."""
    return replace(table, phase=Phase.DRAW, node=next_round.to_bytes(32, "big"))


def operators(table: Table, root: bytes, count: int, now: int) -> Table:
    """The provider commits to the operators of the disputed step."""
    table = provider_answers(table, now)
    require(0 < count <= LEAVES_MAX, "disputes: bad leaves")
    return replace(
        table, kind=Kind.OPERATORS, phase=Phase.EXPAND, index=0, leaves=count, rounds=rounds_for(count), node=root
    )


def begin_vote(table: Table, voters: int, now: int, appellant: Player = Player.NOBODY) -> Table:
    """A voting of these seats begins: the jury's, or on appeal the pool's."""
    if appellant is Player.NOBODY:
        return replace(table, phase=Phase.VOTE, since=now, votings=(Ballots(voters), Ballots()))
    votings = table.votings[0], Ballots(voters)
    return replace(table, phase=Phase.POOL_VOTE, since=now, votings=votings, appellant=appellant)


def commit_vote(table: Table, seat: int, vote: Hash32, now: int) -> Table:
    """A seat's vote is committed; the last one begins the revealing."""
    voting = table.voting
    ballots = table.votings[voting]
    require(not ballots.committed >> seat & 1, "disputes: voted before")
    require(int(vote, 16) != 0, "disputes: no vote")
    ballots = replace(ballots, committed=ballots.committed | 1 << seat)
    table = replace(_counted(table, voting, ballots), votes={**table.votes, (voting, seat): vote})
    return _next(table, now) if ballots.committed == ballots.voters else table


def reveal_vote(table: Table, game: int, seat: int, referee: Address, verdict: int, salt: bytes, now: int) -> Table:
    """A seat's vote is revealed; the last one ends the voting."""
    voting = table.voting
    ballots = table.votings[voting]
    require(verdict in (Verdict.FOLLOWS, Verdict.DOES_NOT), "disputes: bad verdict")
    committed = table.votes.get((voting, seat))
    require(committed == vote_hash(game, voting, referee, verdict, salt), "disputes: other vote")
    follows = ballots.follows | (1 << seat if verdict == Verdict.FOLLOWS else 0)
    ballots = replace(ballots, revealed=ballots.revealed | 1 << seat, follows=follows)
    table = _counted(table, voting, ballots)
    return _next(table, now) if ballots.revealed == ballots.committed else table


def votes_here(table: Table, seat: int) -> bool:
    """Whether the seat votes in the voting that is under way."""
    return seat < SEATS and bool(table.votings[table.voting].voters >> seat & 1)


def silence(table: Table, now: int, vote_seconds: int) -> Outcome:
    """How a game ends whose mover let its time pass.

    Raises:
        ContractError: it has time left.
    """
    used = now - table.since
    if table.phase is Phase.DRAW:
        require(used >= vote_seconds, "disputes: too early")
        return Outcome.VOID
    if table.phase is Phase.PICK:
        require(used > table.challenger_left, "disputes: too early")
        return Outcome.ACQUITTED
    require(used > table.provider_left, "disputes: too early")
    return Outcome.CONVICTED


def decided(table: Table, now: int, vote_seconds: int) -> Outcome:
    """What the votes say, once nothing can change it; NONE before."""
    open_to_appeal = table.phase is Phase.JUDGED and now < table.since + vote_seconds
    if table.phase not in (Phase.JUDGED, Phase.POOL_JUDGED) or open_to_appeal:
        return Outcome.NONE
    return Outcome.ACQUITTED if table.votings[table.voting].provider_right else Outcome.CONVICTED


def _counted(table: Table, voting: int, ballots: Ballots) -> Table:
    return replace(table, votings=(ballots, table.votings[1]) if voting == 0 else (table.votings[0], ballots))


def _next(table: Table, now: int) -> Table:
    return replace(table, phase=Phase(table.phase + 1), since=now)
