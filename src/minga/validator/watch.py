"""What the chain shows of games and commitments, as events of cases and seats. Reads the chain; decides nothing.

| on chain                                     | event                                                    |
|----------------------------------------------|----------------------------------------------------------|
| a commitment that can be challenged          | Noticed                                                  |
| the beacon's round of its block              | BeaconSeen, with the audit rate from the public record   |
| a game of ours, or one that we sit on        | GameSeen, when anything changed                          |
| a jury or a pool with our seat               | Seated                                                   |

Rule: everything is derived from what is on chain now, so that nothing hangs on having seen it happen.
"""

from __future__ import annotations

from minga.chain.chain import Chain
from minga.chain.disputes import BlockBeacon, Disputes
from minga.chain.games import GameRecord
from minga.chain.view import LeaseRecord
from minga.core.crypto import Address, Hash32, from_hex
from minga.core.errors import ContractError
from minga.protocol import audit
from minga.protocol.dispute import Ballots, Commitment, Game, Kind, Outcome, Phase, Preset
from minga.protocol.merkle import rounds_for
from minga.validator import events as ev
from minga.validator.evidence import Claim
from minga.validator.world import Options

_STAGES: dict[Phase, ev.Stage] = {
    Phase.EXPAND: "expand", Phase.PICK: "pick", Phase.BEFORE: "before", Phase.OPERATORS: "expand", Phase.DRAW: "draw",
    Phase.VOTE: "vote", Phase.REVEAL: "reveal", Phase.JUDGED: "appeal", Phase.POOL_VOTE: "vote",
    Phase.POOL_REVEAL: "reveal", Phase.POOL_JUDGED: "decided", Phase.DONE: "over",
}  # fmt: skip
_MOVERS = {Phase.EXPAND: "provider", Phase.BEFORE: "provider", Phase.OPERATORS: "provider", Phase.PICK: "challenger"}


def seen_of(
    number: int, game: Game, ballots: tuple[Ballots, Ballots], preset: Preset, now: int, seat: int | None
) -> ev.GameSeen:
    """Where a game stands, for whoever has `seat` (None: nobody); `now` is chain time."""
    stage, mover, used = _STAGES[game.phase], _MOVERS.get(game.phase, ""), now - game.since
    pool = game.phase in (Phase.POOL_VOTE, Phase.POOL_REVEAL, Phase.POOL_JUDGED)
    if game.phase is Phase.JUDGED and used >= preset.vote_seconds:
        stage = "decided"
    left = {"provider": game.provider_left, "challenger": game.challenger_left}.get(mover)
    overdue = used > left if left is not None else stage == "draw" and used >= preset.vote_seconds
    votes = ballots[1] if pool else ballots[0]
    bit = 1 << seat if seat is not None else 0
    over_leaves = game.kind in (Kind.LEAVES, Kind.DEEP)
    told = {Phase.JUDGED: ballots[0], Phase.POOL_JUDGED: ballots[1]}.get(game.phase)
    return ev.GameSeen(
        game=number,
        stage=stage,
        done=rounds_for(game.leaves) - game.rounds if over_leaves else 0,
        node=int(game.node, 16) if game.phase is Phase.DRAW else game.index,
        mover=mover,
        overdue=overdue,
        ballot=2 if pool else 1 if votes.voters else 0,
        verdict=0 if told is None else ev.FOLLOWS if told.provider_right else ev.DOES_NOT_FOLLOW,
        seated=bool(votes.voters & bit),
        voted=bool(votes.committed & bit),
        told=bool(votes.revealed & bit),
        convicted=game.outcome is Outcome.CONVICTED,
    )


async def look(chain: Chain, contract: Disputes, record: GameRecord, preset: Preset, me: Address) -> ev.GameSeen:
    """Where a game stands now.

    Raises:
        NetworkError: no node answers.
    """
    game = await chain.read(contract.game_of(record.game))
    ballots = await chain.read(contract.votes_of(record.game))
    seen = seen_of(record.game, game, ballots, preset, await chain.time(), seat_of(chain, me))
    if seen.stage != "over" and await chain.read(contract.condemned(record.channel)):
        return ev.GameSeen(record.game, "decided")
    return seen


def seat_of(chain: Chain, me: Address) -> int | None:
    """The seat of a referee; None without one."""
    return next((seat for seat, who in chain.view.disputes.seats.items() if who == me), None)


def lease_of(chain: Chain, channel: str) -> LeaseRecord | None:
    """The lease of a channel."""
    return next((record for record in chain.view.leases.values() if record.lease.channel == channel), None)


def claim_of(chain: Chain, channel: str) -> Claim | None:
    """What stands on chain of a commitment; None before its events are read."""
    made, record = chain.view.commitments.get(Hash32(channel)), lease_of(chain, channel)
    if made is None or record is None:
        return None
    return Claim(made.channel, made.work, made.root, made.leaves, record.lease.signer)


def noticed(made: Commitment, lease: LeaseRecord, preset: Preset) -> ev.Noticed:
    """The first event of a case."""
    until = made.committed_at + preset.window
    return ev.Noticed(made.channel, lease.lease.id, made.provider, made.work, made.root, made.leaves, until)


def seated(record: GameRecord, made: Commitment, lease: LeaseRecord) -> ev.Seated:
    """The first event of a seat."""
    return ev.Seated(
        record.game, made.channel, lease.lease.id, made.provider, made.work, made.root, made.leaves, record.leaf,
        record.end,
    )  # fmt: skip


class Draws:
    """The beacon's values for commitments, and the audit rates that go with them."""

    def __init__(self, chain: Chain, options: Options, factor: int, me: Address) -> None:
        """Ask `chain`; `factor` is the arbiter's."""
        self._chain, self._options, self._factor, self._me = chain, options, factor, me
        self._delay: int | None = None

    async def value(self, channel: Hash32) -> Hash32 | None:
        """The value of the first round that nobody could know when the commitment was made; None: not out yet.

        Raises:
            ContractError: it was missed.
            NetworkError: no node answers.
        """
        beacon = BlockBeacon(self._chain.spec.deployment.beacon)
        if self._delay is None:
            head = await self._chain.head()
            self._delay = max(0, await self._chain.read(beacon.next_round()) - head)
        number = self._chain.view.disputes.committed_in[channel] + self._delay
        if await self._chain.head() < number:
            return None
        try:
            return await self._chain.read(beacon.value(number))
        except ContractError as error:
            if error.code == "beacon-not-yet":
                return None
            raise

    def seen(self, made: Commitment, value: Hash32, record: audit.Record) -> ev.BeaconSeen:
        """What the beacon decides about a commitment, for us."""
        if self._options.audit != "drawn":
            return ev.BeaconSeen(value, 10_000, self._me, self._options.audit == "all", self._options.leaves)
        rate = audit.rate_bps(record, max(1, made.exposure), self._factor)
        games, since = self._chain.view.disputes, self._chain.view.disputes.committed_in[made.channel]
        pool = [who for who in games.seats.values() if games.joined_in[who] <= since and who not in games.left]
        drawn = audit.drawn_validators(from_hex(value), made.channel, pool, audit.validators_for(rate))
        return ev.BeaconSeen(value, rate, self._me, self._me in drawn, self._options.leaves)
