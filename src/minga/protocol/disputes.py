"""The executable specification of Disputes.

What it is: every call of the contract as a method that changes state, or raises `ContractError` with the contract's own
revert string and changes nothing. Tests drive it in lockstep with the compiled contract, over the specifications of
Market and Registry. What it does not know: gas, events, storage layout; the caller gives the sender and the chain time.
Rule, in every method, as in the contract: check, accrue, effects, interaction. Money that leaves is owed first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, from_hex, recover
from minga.core.eip712 import Domain
from minga.core.errors import InvalidSignature
from minga.protocol import dispute_game, settlement
from minga.protocol.beacon import BlockBeacon
from minga.protocol.dispute import Commitment, Game, Kind, Outcome, Phase, Player, Preset, draw_jury, seats_in
from minga.protocol.dispute_game import Table
from minga.protocol.dispute_pool import Pool
from minga.protocol.lease import NO_ACCOUNT, Account, Lease
from minga.protocol.lease import Phase as LeasePhase
from minga.protocol.market import Market
from minga.protocol.merkle import LEAVES_MAX
from minga.protocol.messages import Ordered
from minga.protocol.stake import Ledger, Registry, require


@dataclass
class Disputes:
    """All commitments, games and referees. `fund` gets the audits' share; amounts are token units."""

    address: Address
    preset: Preset
    market: Market
    beacon: BlockBeacon
    fund: Address
    commitments: dict[Hash32, Commitment] = field(default_factory=dict)
    condemned: set[Hash32] = field(default_factory=set)
    tables: dict[int, Table] = field(default_factory=dict)
    owed: dict[Address, int] = field(default_factory=dict)
    paid: dict[Hash32, int] = field(default_factory=dict)
    """What tenants paid, gross, once it was taken down."""
    reserves: dict[Hash32, tuple[Address, int]] = field(default_factory=dict)
    """Of a slash, what waits for the tenant's claim; the challenger gets the rest."""
    left: dict[Hash32, int] = field(default_factory=dict)
    """What a conviction left, kept while there are games that it made void: it pays their seats."""

    def __post_init__(self) -> None:
        self.pool = Pool(self.preset)
        self.registry.appoint(self.address, self.market.address, self.preset.factor)

    @property
    def registry(self) -> Registry:
        """Where stakes are."""
        return self.market.registry

    @property
    def ledger(self) -> Ledger:
        """The token."""
        return self.market.ledger

    @property
    def domain(self) -> Domain:
        """Where `Ordered` counts."""
        return Domain(self.market.domain.chain_id, self.address)

    # --------------------------------------------------------------------------------------- commitments, challenges

    def commit(
        self, sender: Address, now: int, lease: Lease, work: Hash32, root: Hash32, leaves: int, signature: bytes
    ) -> Commitment:
        """The provider, or its agent key, says what came of a job."""
        self._check_lease(lease)
        require(lease.arbiter == self.address, "disputes: other arbiter")
        require(self._speaks_for(sender, lease.provider), "disputes: not the provider")
        require(lease.channel not in self.commitments, "disputes: committed before")
        require(0 < leaves <= LEAVES_MAX, "disputes: bad leaves")
        require(self._ordered(lease, work, signature), "disputes: bad order")
        account = self._account(lease)
        require(account.phase is not LeasePhase.CLOSED, "disputes: lease closed")
        commitment = Commitment(
            lease.channel, lease.provider, lease.tenant, work, root, leaves, account.deposit, committed_at=now
        )
        self.commitments[lease.channel] = commitment
        return commitment

    def challenge(self, sender: Address, now: int, commitment: Commitment, *, end: bool = False) -> int:
        """Anyone, with a bond, says that a state does not follow; with `end`, that the work does not end there."""
        self._check_commitment(commitment.channel, commitment)
        require(commitment.channel not in self.condemned, "disputes: condemned")
        require(now < commitment.committed_at + self.preset.window, "disputes: window is over")
        pool = self.pool.active
        require(pool.bit_count() >= self.preset.jury, "disputes: too few referees")
        self._pull(sender, self.preset.bond)
        game = len(self.tables) + 1
        self.tables[game] = dispute_game.begin(
            commitment.channel, (commitment.provider, sender), commitment.exposure, pool, from_hex(commitment.root),
            commitment.leaves, self.preset.clock, now, end=end,
        )  # fmt: skip
        return game

    # ---------------------------------------------------------------------------------------------- down to one leaf

    def expand(self, sender: Address, now: int, game: int, commitment: Commitment, children: Sequence[bytes]) -> None:
        """The provider shows the 16 nodes below the one in play."""
        table = self._turn(game, now, Phase.EXPAND)
        self._check_commitment(table.channel, commitment)
        require(self._speaks_for(sender, commitment.provider), "disputes: not the provider")
        self.tables[game] = dispute_game.expand(table, children, now)

    def pick(self, sender: Address, now: int, game: int, children: Sequence[bytes], index: int) -> None:
        """The challenger names the first that it holds to be wrong."""
        table = self._turn(game, now, Phase.PICK)
        require(sender == table.challenger, "disputes: not the challenger")
        self.tables[game] = dispute_game.pick(table, children, index, now, self.beacon.next_round())

    def before(
        self, sender: Address, now: int, game: int, commitment: Commitment, leaf: bytes, proof: Sequence[bytes]
    ) -> None:
        """The provider opens the leaf before the disputed one."""
        table = self._turn(game, now, Phase.BEFORE)
        self._check_commitment(table.channel, commitment)
        require(self._speaks_for(sender, commitment.provider), "disputes: not the provider")
        root, next_round = from_hex(commitment.root), self.beacon.next_round()
        self.tables[game] = dispute_game.before(table, root, leaf, proof, now, next_round)

    def deepen(self, sender: Address, now: int, game: int) -> None:
        """The challenger wants the step played down to one operator."""
        table = self._table(game, now)
        require(table.phase < Phase.OPERATORS and table.kind is Kind.LEAVES, "disputes: not now")
        require(table.channel not in self.condemned, "disputes: condemned")
        require(sender == table.challenger, "disputes: not the challenger")
        self.tables[game] = replace(table, kind=Kind.DEEP)

    def operators(self, sender: Address, now: int, game: int, root: bytes, count: int) -> None:
        """The provider commits to the operators of the disputed step."""
        table = self._turn(game, now, Phase.OPERATORS)
        require(self._speaks_for(sender, table.provider), "disputes: not the provider")
        self.tables[game] = dispute_game.operators(table, root, count, now)

    # ----------------------------------------------------------------------------------------------------- the votes

    def draw(self, now: int, game: int) -> None:
        """Anyone draws the jury, or has another round awaited when this one was missed."""
        table = self._turn(game, now, Phase.DRAW)
        require(now < table.since + self.preset.vote_seconds, "disputes: out of time")
        round = int.from_bytes(table.node, "big")
        if self.beacon.missed(round):
            self.tables[game] = dispute_game.await_draw(table, self.beacon.next_round())
            return
        voters = draw_jury(table.pool, self.preset.jury, self.beacon.value(round), game)
        self.tables[game] = dispute_game.begin_vote(table, voters, now)

    def commit_vote(self, sender: Address, now: int, game: int, seat: int, vote: Hash32) -> None:
        """A referee commits its vote."""
        table = self._turn(game, now, Phase.VOTE, Phase.POOL_VOTE)
        self._check_voter(table, sender, seat)
        self.tables[game] = dispute_game.commit_vote(table, seat, vote, now)

    def reveal_vote(self, sender: Address, now: int, game: int, seat: int, verdict: int, salt: bytes) -> None:
        """A referee reveals its vote."""
        table = self._turn(game, now, Phase.REVEAL, Phase.POOL_REVEAL)
        self._check_voter(table, sender, seat)
        self.tables[game] = dispute_game.reveal_vote(table, game, seat, sender, verdict, salt, now)

    def appeal(self, sender: Address, now: int, game: int) -> None:
        """The jury's loser pays the seats of the whole pool."""
        table = self._turn(game, now, Phase.JUDGED)
        require(now < table.since + self.preset.vote_seconds, "disputes: not now")
        if table.votings[0].provider_right:
            require(sender == table.challenger, "disputes: not the loser")
            appellant = Player.CHALLENGER
        else:
            require(self._speaks_for(sender, table.provider), "disputes: not the loser")
            appellant = Player.PROVIDER
        self._pull(sender, self._appeal_price(table))
        self.tables[game] = dispute_game.begin_vote(table, table.pool, now, appellant)

    # ------------------------------------------------------------------------------------------------------ the ends

    def timeout(self, now: int, game: int) -> None:
        """Anyone ends a game whose mover was silent."""
        table = self._table(game, now)
        require(table.phase <= Phase.DRAW, "disputes: not now")
        require(table.channel not in self.condemned, "disputes: condemned")
        self._settle(game, table, dispute_game.silence(table, now, self.preset.vote_seconds), now)

    def finish(self, now: int, game: int) -> None:
        """Anyone ends a game that is decided, or void because another condemned the commitment."""
        table = self._table(game, now)
        outcome = dispute_game.decided(table, now, self.preset.vote_seconds)
        if table.channel in self.condemned:
            outcome = Outcome.VOID
        require(outcome is not Outcome.NONE and table.phase is not Phase.DONE, "disputes: not decided")
        self._settle(game, table, outcome, now)

    def apply(self, now: int, lease: Lease) -> None:
        """Anyone takes down what the tenant paid, and carries out a verdict, once the lease has ended."""
        self._check_lease(lease)
        channel = lease.channel
        require(channel in self.commitments, "disputes: unknown commitment")
        account = self._account(lease)
        held_phase = account.phase is LeasePhase.HELD
        require(held_phase or account.phase is LeasePhase.CLOSED, "disputes: lease running")
        noted = held_phase and channel not in self.paid
        condemned = channel in self.condemned
        held = 0
        if condemned and held_phase and now < account.ends_at:
            held = settlement.split(account.settled, self.market.fee_bps, lease.hold_bps).held
        challenger, reserve = self.reserves.get(channel, (ZERO_ADDRESS, 0))
        require(noted or held > 0 or reserve > 0, "disputes: nothing to apply")
        if noted:
            self.paid[channel] = account.settled
        if reserve > 0:
            claim = min(reserve, self.paid[channel] - held) if channel in self.paid else reserve
            del self.reserves[channel]
            self._owe(lease.tenant, claim)
            self._owe(challenger, reserve - claim)
        if held > 0:
            self.market.resolve(self.address, now, lease, held)

    # ------------------------------------------------------------------------------------------------------ referees

    def join(self, sender: Address, now: int, amount: int) -> None:
        """Take a seat, or add to its stake. Who has left for good does not keep others out."""
        self.pool.check_join(sender, amount, now)
        self._pull(sender, amount)
        for freed in self.pool.join(sender, amount, len(self.tables), now):
            self._owe(freed.referee, freed.stake)

    def leave(self, sender: Address, now: int) -> None:
        """Judge no new games."""
        self.pool.leave(sender, now)

    def withdraw(self, sender: Address, now: int, receiver: Address) -> None:
        """Take what is owed, and the stake when it is free."""
        require(receiver not in (ZERO_ADDRESS, self.address), "disputes: bad receiver")
        amount = self.owed.get(sender, 0) + self.pool.free_stake(sender, now)
        require(amount > 0, "disputes: nothing owed")
        require(self.ledger.move(self.address, receiver, amount), "disputes: transfer failed")
        self.owed[sender] = 0
        self.pool.free(sender, now)

    def liabilities(self) -> int:
        """What the contract must hold, token units: owed, reserves, referees' stakes, bonds and appeals in play."""
        playing = [table for table in self.tables.values() if table.phase is not Phase.DONE]
        prepaid = sum(self._appeal_price(table) for table in playing if table.appellant)
        reserves = sum(amount for _, amount in self.reserves.values())
        kept = reserves + sum(self.left.values()) + self.pool.stakes + len(playing) * self.preset.bond
        return sum(self.owed.values()) + kept + prepaid

    def game_of(self, game: int, now: int) -> Game:
        """The game as it is now."""
        return self._table(game, now).as_game()

    # ------------------------------------------------------------------------------------------------------ internals

    def _check_lease(self, lease: Lease) -> None:
        require(self.market.leases.get(lease.id) == lease, "disputes: unknown lease")

    def _account(self, lease: Lease) -> Account:
        return self.market.accounts.get(lease.id, NO_ACCOUNT)

    def _check_commitment(self, channel: Hash32, commitment: Commitment) -> None:
        require(self.commitments.get(channel) == commitment, "disputes: unknown commitment")

    def _speaks_for(self, sender: Address, provider: Address) -> bool:
        return sender in (provider, self.registry.agents.get(provider))

    def _ordered(self, lease: Lease, work: Hash32, signature: bytes) -> bool:
        try:
            return recover(Ordered(lease.channel, work).digest(self.domain), signature) == lease.signer
        except InvalidSignature:
            return False

    def _table(self, game: int, now: int) -> Table:
        require(game in self.tables, "disputes: unknown game")
        return dispute_game.at(self.tables[game], now, self.preset.vote_seconds)

    def _turn(self, game: int, now: int, *phases: Phase) -> Table:
        table = self._table(game, now)
        require(table.phase in phases, "disputes: not now")
        require(table.channel not in self.condemned, "disputes: condemned")
        return table

    def _check_voter(self, table: Table, sender: Address, seat: int) -> None:
        taken = self.pool.seats.get(seat)
        mine = taken is not None and taken.referee == sender
        require(dispute_game.votes_here(table, seat) and mine, "disputes: not a voter")

    def _appeal_price(self, table: Table) -> int:
        return table.pool.bit_count() * self.preset.seat_fee

    def _pull(self, owner: Address, amount: int) -> None:
        if amount > 0:
            require(self.ledger.can_pull(owner, self.address, amount), "disputes: transfer failed")
            self.ledger.pull(owner, self.address, amount)

    def _owe(self, owner: Address, amount: int) -> None:
        self.owed[owner] = self.owed.get(owner, 0) + amount

    def _settle(self, game: int, table: Table, outcome: Outcome, now: int) -> None:
        """Pay everybody; a conviction slashes."""
        self.tables[game] = replace(table, phase=Phase.DONE, outcome=outcome, since=now)
        slashed = self._slash(table) if outcome is Outcome.CONVICTED else 0
        lost = {Outcome.CONVICTED: Player.PROVIDER, Outcome.ACQUITTED: Player.CHALLENGER}.get(outcome)
        prepaid = self._appeal_price(table) if table.appellant else 0
        back = {Player.PROVIDER: 0, Player.CHALLENGER: 0 if lost is Player.CHALLENGER else self.preset.bond}
        pot = self.left.pop(table.channel, 0) + (self.preset.bond if lost is Player.CHALLENGER else slashed)
        if table.appellant is lost:
            pot += prepaid
        elif table.appellant:
            back[table.appellant] += prepaid
        rest = self._pay_seats(game, table, pot)
        if lost is Player.PROVIDER:
            self.condemned.add(table.channel)
            share = min(slashed // 2, rest)  # for tenant and challenger together
            reserve = min(table.exposure, share)
            self.reserves[table.channel] = table.challenger, reserve
            back[Player.CHALLENGER] += share - reserve
            rest -= share
        elif lost is Player.CHALLENGER:
            back[Player.PROVIDER] += rest
            rest = 0
        if any(each.channel == table.channel and each.phase is not Phase.DONE for each in self.tables.values()):
            self.left[table.channel] = rest
        else:
            self._owe(self.fund, rest)
        if lost is not None:
            self._fine(game, table, now)
        self._owe(table.provider, back[Player.PROVIDER])
        self._owe(table.challenger, back[Player.CHALLENGER])

    def _slash(self, table: Table) -> int:
        stake = self.registry.stake_of(table.provider, self.address)
        wanted = table.exposure * self.preset.factor
        if wanted == 0 or stake.staked + stake.unbonding == 0:
            return 0
        return self.registry.slash(self.address, table.provider, wanted, self.address)

    def _pay_seats(self, game: int, table: Table, pot: int) -> int:
        """Pay revealed votes out of the pot, less each where it is too small; what the pot has left."""
        votes = [seat for ballots in table.votings for seat in seats_in(ballots.revealed)]
        fee = min(self.preset.seat_fee, pot // len(votes)) if votes else 0
        for seat in votes:
            present = self.pool.was_in(seat, game)
            self._owe(self.pool.seats[seat].referee if present else self.fund, fee)
        return pot - fee * len(votes)

    def _fine(self, game: int, table: Table, now: int) -> None:
        silent = [seat for each in table.votings for seat in seats_in(each.voters & ~each.revealed)]
        for seat in sorted(set(silent)):
            if self.pool.was_in(seat, game):
                self._owe(self.fund, self.pool.fine(seat, silent.count(seat), now))
