"""Typed bindings of Disputes and BlockBeacon, in the manner of `contracts`: a method makes a `Call`.

Knows the shipped ABIs and nothing of nodes; pure. The prose of every function stands in
`contracts/interfaces/IDisputes.vyi`. Rule: argument order, names and units are the contract's own; amounts are token
units, times chain time in Unix seconds, sets of seats bit masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minga.chain.chain import Call
from minga.chain.contracts import Contract
from minga.core.crypto import Address, Hash32
from minga.core.errors import BadAnswer, InvalidInput
from minga.core.units import Amount
from minga.protocol.dispute import Ballots, Commitment, Game, Kind, Outcome, Phase, Player, Preset
from minga.protocol.lease import Lease
from minga.protocol.merkle import ARITY, LEVELS, ROUNDS_MAX

PROOF_LENGTH = LEVELS * ROUNDS_MAX
Node = bytes | Hash32
"""32 bytes, as a tree gives them, or `0x…`, as events do."""


@dataclass(frozen=True, slots=True)
class Places:
    """The addresses that a Disputes was deployed with; `fund` is the audit fund."""

    market: Address
    token: Address
    registry: Address
    beacon: Address
    fund: Address


@dataclass(frozen=True, slots=True)
class Seat:
    """Who has a seat of the pool. `stake` is token units; `free_at` chain time, zero while it is `active`."""

    referee: Address
    stake: Amount
    active: bool
    free_at: int


class Disputes(Contract):
    """The arbiter: commitments, games, referees."""

    artifact = "Disputes"

    def preset(self) -> Call[Preset]:
        """The constants of this deployment."""
        return self._view("preset", lambda values: Preset(*values))

    def places(self) -> Call[Places]:
        """The contracts that it works with, and the audit fund."""
        return self._view("places", Places)

    def domain_separator(self) -> Call[Hash32]:
        """The EIP-712 domain of `Ordered` and `Auditor`."""
        return self._view("domain_separator", Hash32)

    def commitment_hash(self, channel: Hash32) -> Call[Hash32]:
        """`Commitment.hash` of the channel's; zero without one."""
        return self._view("commitment_hash", Hash32, channel)

    def condemned(self, channel: Hash32) -> Call[bool]:
        """Whether the channel's commitment was found false."""
        return self._view("condemned", bool, channel)

    def games(self) -> Call[int]:
        """How many games there were; they are numbered from 1."""
        return self._view("games", int)

    def game_of(self, game: int) -> Call[Game]:
        """A game as it is now; its phase is NONE when there is none."""
        return self._view("game_of", _game, game)

    def votes_of(self, game: int) -> Call[tuple[Ballots, Ballots]]:
        """The jury's and the pool's votes."""
        return self._view("votes_of", lambda jury, pool: (Ballots(*jury), Ballots(*pool)), game)

    def seat_of(self, referee: Address) -> Call[int | None]:
        """The referee's seat; None for none."""
        return self._view("seat_of", lambda place: place - 1 if place else None, referee)

    def seat(self, number: int) -> Call[Seat]:
        """Who has the seat; the zero address: nobody."""
        return self._view("seat", lambda values: Seat(*values), number)

    def pool(self) -> Call[int]:
        """The set of seats that judge games which begin now."""
        return self._view("pool", int)

    def owed(self, owner: Address) -> Call[Amount]:
        """What `withdraw` takes, stake aside."""
        return self._view("owed", Amount, owner)

    def commit(self, lease: Lease, work: Hash32, root: Hash32, leaves: int, signature: bytes) -> Call[None]:
        """As provider or its agent: say what came of the job; `signature` is the session signer's over `Ordered`."""
        return self._send("commit", lease.as_tuple(), work, root, leaves, signature)

    def challenge(self, commitment: Commitment) -> Call[None]:
        """Say that a state does not follow (needs an allowance for the bond); `Challenged` tells the game."""
        return self._send("challenge", commitment.as_tuple())

    def challenge_end(self, commitment: Commitment) -> Call[None]:
        """Say that the work does not end where the trace does."""
        return self._send("challenge_end", commitment.as_tuple())

    def expand(self, game: int, commitment: Commitment, children: Sequence[Node]) -> Call[None]:
        """As provider: show the 16 nodes below the one in play."""
        return self._send("expand", game, commitment.as_tuple(), _nodes(children))

    def pick(self, game: int, children: Sequence[Node], index: int) -> Call[None]:
        """As challenger: name the first wrong child, 0 … 15."""
        return self._send("pick", game, _nodes(children), index)

    def before(self, game: int, commitment: Commitment, leaf: Node, proof: Sequence[Node]) -> Call[None]:
        """As provider: open the leaf before the disputed one, with `merkle.Tree.proof`."""
        padded = (*proof, *[bytes(32)] * (PROOF_LENGTH - len(proof)))
        return self._send("before", game, commitment.as_tuple(), leaf, padded)

    def deepen(self, game: int) -> Call[None]:
        """As challenger: play the disputed step down to one operator."""
        return self._send("deepen", game)

    def operators(self, game: int, root: Hash32, count: int) -> Call[None]:
        """As provider: commit to the operators of the disputed step."""
        return self._send("operators", game, root, count)

    def draw(self, game: int) -> Call[None]:
        """Draw the jury, once the beacon's round is out."""
        return self._send("draw", game)

    def commit_vote(self, game: int, seat: int, vote: Hash32) -> Call[None]:
        """As referee: commit to a vote (`protocol.dispute.vote_hash`)."""
        return self._send("commit_vote", game, seat, vote)

    def reveal_vote(self, game: int, seat: int, verdict: int, salt: bytes) -> Call[None]:
        """As referee: reveal it."""
        return self._send("reveal_vote", game, seat, verdict, salt)

    def appeal(self, game: int) -> Call[None]:
        """As the jury's loser: pay the whole pool's seats (needs an allowance); it votes once more."""
        return self._send("appeal", game)

    def timeout(self, game: int) -> Call[None]:
        """End a game whose mover was silent."""
        return self._send("timeout", game)

    def finish(self, game: int) -> Call[None]:
        """End a game that is decided, or void."""
        return self._send("finish", game)

    def apply(self, lease: Lease) -> Call[None]:
        """Take down what the tenant paid, and carry out a verdict, once the lease has ended."""
        return self._send("apply", lease.as_tuple())

    def join(self, amount: int) -> Call[None]:
        """Become a referee, or add to the stake (needs an allowance)."""
        return self._send("join", amount)

    def leave(self) -> Call[None]:
        """Judge no new games."""
        return self._send("leave")

    def withdraw(self, receiver: Address) -> Call[None]:
        """Take what is owed, and the stake when it is free, to any address."""
        return self._send("withdraw", receiver)


class BlockBeacon(Contract):
    """The hash of a block to come."""

    artifact = "BlockBeacon"

    def next_round(self) -> Call[int]:
        """The first round whose value nobody can know now."""
        return self._view("next_round", int)

    def value(self, round: int) -> Call[Hash32]:
        """The value of a round that is out."""
        return self._view("value", Hash32, round)

    def missed(self, round: int) -> Call[bool]:
        """Whether the round's value can never be known any more."""
        return self._view("missed", bool, round)

    def keep(self, round: int) -> Call[None]:
        """Store a round's value while the chain still gives it."""
        return self._send("keep", round)


def _game(values: tuple[Any, ...]) -> Game:
    channel, provider, challenger, phase, outcome, kind, appellant, *rest = values
    try:
        numbers = Phase(phase), Outcome(outcome), Kind(kind), Player(appellant)
    except ValueError as error:
        raise BadAnswer(f"a game has an unknown number: {error}", "ask another node") from None
    return Game(channel, provider, challenger, *numbers, *rest)


def _nodes(children: Sequence[Node]) -> tuple[Node, ...]:
    if len(children) != ARITY:
        raise InvalidInput(f"{len(children)} nodes are shown, not 16", "show all children of the node")
    return tuple(children)
