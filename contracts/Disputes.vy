# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Disputes
@license Apache-2.0
@notice Prose: interfaces/IDisputes.vyi. Order of every function: check, accrue, effects, event, interaction.
"""

from interfaces import IBeacon
from interfaces import IDisputes
from interfaces import IMarket
from interfaces import IRegistry
from modules import accounting
from modules import eip712
from modules import payments
from modules import play
from modules import tree

implements: IDisputes

NAME: constant(bytes32) = keccak256("Minga")
ORDERED_TYPE: constant(bytes32) = keccak256("Ordered(bytes32 lease,bytes32 work)")

# Registry's UNBONDING_SECONDS: within it a slash must have happened.
STAKE_LEAVES_SECONDS: constant(uint256) = 21 * 86400
AMOUNT_MAX: constant(uint256) = 2**96 - 1
SEATS: constant(uint256) = 63
JURY_MAX: constant(uint256) = 21
FINE_PART: constant(uint256) = 20  # a silent vote costs this part of the least stake

EXPAND: constant(uint256) = 1
PICK: constant(uint256) = 2
BEFORE: constant(uint256) = 3
OPERATORS: constant(uint256) = 4
DRAW: constant(uint256) = 5
VOTE: constant(uint256) = 6
REVEAL: constant(uint256) = 7
JUDGED: constant(uint256) = 8
POOL_VOTE: constant(uint256) = 9
POOL_REVEAL: constant(uint256) = 10
POOL_JUDGED: constant(uint256) = 11
DONE: constant(uint256) = 12

ACQUITTED: constant(uint256) = 1
CONVICTED: constant(uint256) = 2
VOID: constant(uint256) = 3

OVER_LEAVES: constant(uint256) = 0
DEEP: constant(uint256) = 1
OVER_OPERATORS: constant(uint256) = 2
THE_END: constant(uint256) = 3

PROVIDER: constant(uint256) = 1
CHALLENGER: constant(uint256) = 2

struct Table:  # one game
    state: uint256  # play.State
    node: bytes32
    channel: bytes32
    accuser: uint256  # challenger | pool << 160
    accused: uint256  # provider | exposure << 160
    votes: uint256[2]  # play.Ballots of the jury and of the pool

MARKET: immutable(address)
TOKEN: immutable(address)
REGISTRY: immutable(address)
BEACON: immutable(address)
FUND: immutable(address)
FEE_BPS: immutable(uint256)
WINDOW: immutable(uint256)
CLOCK: immutable(uint256)
VOTE_SECONDS: immutable(uint256)
JURY: immutable(uint256)
SEAT_FEE: immutable(uint256)
BOND: immutable(uint256)
REFEREE_STAKE: immutable(uint256)
FACTOR: immutable(uint256)

commitment_hash: public(HashMap[bytes32, bytes32])
condemned: public(HashMap[bytes32, bool])
games: public(uint256)
owed: public(HashMap[address, uint256])
pool: public(uint256)
seat_of: public(HashMap[address, uint256])
_tables: HashMap[uint256, Table]
_vote_hashes: HashMap[uint256, HashMap[uint256, bytes32]]
_seat_owner: HashMap[uint256, uint256]  # referee | stake << 160
_seat_times: HashMap[uint256, uint256]  # the last game that began before it was taken | free_at << 128
# One more than what the tenant paid, gross, once that was taken down.
_paid_plus_one: HashMap[bytes32, uint256]
_reserves: HashMap[bytes32, uint256]  # challenger | amount << 160
# Games under way << 128 | what a conviction left, kept while there are any: it pays the seats of games that it made void.
_purses: HashMap[bytes32, uint256]


@deploy
def __init__(
    market: address, token: address, registry: address, beacon: address, fund: address, preset: IDisputes.Preset
):
    assert market.is_contract and beacon.is_contract, "disputes: not a contract"
    assert (
        staticcall IMarket(market).token() == token and staticcall IMarket(market).registry() == registry
    ), "disputes: other deployment"
    assert fund != empty(address) and fund != self, "disputes: no fund"
    assert preset.jury <= JURY_MAX and preset.jury % 2 == 1, "disputes: bad jury"
    assert (
        preset.window > 0 and preset.clock > 0 and preset.vote_seconds > 0
        and preset.window <= STAKE_LEAVES_SECONDS
        and preset.clock <= STAKE_LEAVES_SECONDS
        and preset.vote_seconds <= STAKE_LEAVES_SECONDS
        and preset.window + 2 * preset.clock + 6 * preset.vote_seconds <= STAKE_LEAVES_SECONDS
    ), "disputes: bad times"
    assert (
        preset.bond <= AMOUNT_MAX and preset.seat_fee <= preset.bond // (preset.jury + SEATS)
        and preset.referee_stake > 0 and preset.referee_stake <= AMOUNT_MAX
    ), "disputes: bad amounts"
    MARKET = market
    TOKEN = token
    REGISTRY = registry
    BEACON = beacon
    FUND = fund
    FEE_BPS = staticcall IMarket(market).fee_bps()
    WINDOW = preset.window
    CLOCK = preset.clock
    VOTE_SECONDS = preset.vote_seconds
    JURY = preset.jury
    SEAT_FEE = preset.seat_fee
    BOND = preset.bond
    REFEREE_STAKE = preset.referee_stake
    FACTOR = preset.factor
    extcall IRegistry(registry).appoint(market, preset.factor)


# ------------------------------------------------------------------------------------------------------------- views


@external
@view
def preset() -> IDisputes.Preset:
    return IDisputes.Preset(
        window=WINDOW,
        clock=CLOCK,
        vote_seconds=VOTE_SECONDS,
        jury=JURY,
        seat_fee=SEAT_FEE,
        bond=BOND,
        referee_stake=REFEREE_STAKE,
        factor=FACTOR,
    )


@external
@view
def places() -> (address, address, address, address, address):
    return MARKET, TOKEN, REGISTRY, BEACON, FUND


@external
@view
def domain_separator() -> bytes32:
    return eip712._separator(NAME)


@external
@view
def game_of(game: uint256) -> IDisputes.Game:
    state: play.State = self._state(game)
    return IDisputes.Game(
        channel=self._tables[game].channel,
        provider=self._low(self._tables[game].accused),
        challenger=self._low(self._tables[game].accuser),
        phase=state.phase,
        outcome=state.outcome,
        kind=state.kind,
        appellant=state.appellant,
        rounds=state.rounds,
        leaves=state.leaves,
        index=state.index,
        node=self._tables[game].node,
        since=state.since,
        provider_left=state.provider_left,
        challenger_left=state.challenger_left,
        pool=self._tables[game].accuser >> 160,
    )


@external
@view
def votes_of(game: uint256) -> (IDisputes.Ballots, IDisputes.Ballots):
    return self._ballots(game, 0), self._ballots(game, 1)


@external
@view
def seat(number: uint256) -> IDisputes.Seat:
    owner: uint256 = self._seat_owner[number]
    return IDisputes.Seat(
        referee=self._low(owner),
        stake=owner >> 160,
        active=number < SEATS and (self.pool >> number) & 1 == 1,
        free_at=self._seat_times[number] >> 128,
    )


# ------------------------------------------------------------------------------------------- commitments, challenges


@external
def commit(lease: IMarket.Lease, work: bytes32, root: bytes32, leaves: uint32, signature: Bytes[65]):
    lease_id: bytes32 = empty(bytes32)
    channel: bytes32 = empty(bytes32)
    lease_id, channel = self._known(lease)
    assert lease.arbiter == self, "disputes: other arbiter"
    self._check_provider(lease.provider)
    assert self.commitment_hash[channel] == empty(bytes32), "disputes: committed before"
    assert leaves > 0 and convert(leaves, uint256) <= tree.LEAVES_MAX, "disputes: bad leaves"
    digest: bytes32 = eip712._digest(NAME, keccak256(abi_encode(ORDERED_TYPE, channel, work)))
    # A lease's signer is never zero, so that a signature which recovers to nobody is nobody's.
    assert eip712._recover(digest, signature) == lease.signer, "disputes: bad order"
    account: accounting.Account = self._account(lease_id)
    assert account.phase != accounting.CLOSED, "disputes: lease closed"
    commitment: IDisputes.Commitment = IDisputes.Commitment(
        channel=channel,
        provider=lease.provider,
        tenant=lease.tenant,
        work=work,
        root=root,
        leaves=leaves,
        exposure=convert(account.deposit, uint128),
        committed_at=convert(block.timestamp, uint64),
    )
    self.commitment_hash[channel] = keccak256(abi_encode(commitment))
    log IDisputes.Committed(
        channel=channel, provider=lease.provider, tenant=lease.tenant, commitment=commitment
    )


@external
def challenge(commitment: IDisputes.Commitment) -> uint256:
    return self._challenge(commitment, False)


@external
def challenge_end(commitment: IDisputes.Commitment) -> uint256:
    return self._challenge(commitment, True)


# -------------------------------------------------------------------------------------------------- down to one leaf


@external
def expand(game: uint256, commitment: IDisputes.Commitment, children: bytes32[16]):
    state: play.State = self._turn(game, EXPAND)
    self._check_commitment(self._tables[game].channel, commitment)
    state = self._providers_move(commitment.provider, state)
    assert tree._fold(children) == self._tables[game].node, "disputes: other node"
    state.phase = PICK
    self._tables[game].state = play._pack(state)
    self._tables[game].node = keccak256(abi_encode(children))
    log IDisputes.Expanded(game=game, children=children)


@external
def pick(game: uint256, children: bytes32[16], index: uint256):
    state: play.State = self._turn(game, PICK)
    self._check_challenger(game)
    used: uint256 = block.timestamp - state.since
    assert used <= state.challenger_left, "disputes: out of time"
    assert keccak256(abi_encode(children)) == self._tables[game].node, "disputes: other children"
    state.challenger_left -= used
    state.since = block.timestamp
    state.rounds -= 1
    at: uint256 = state.index * tree.ARITY + min(index, tree.ARITY)
    last: bool = state.rounds == 0
    over_operators: bool = state.kind == OVER_OPERATORS
    assert (
        index < tree.ARITY and (not last or (at < state.leaves and (at > 0 or over_operators)))
    ), "disputes: no such leaf"
    state.index = at
    self._tables[game].node = children[index]
    log IDisputes.Picked(game=game, index=at)
    if not last:
        state.phase = EXPAND
    elif over_operators:
        log IDisputes.OperatorOpened(game=game, operator=at, output=children[index])
        state.phase = self._await(game)
    elif index == 0:
        state.phase = BEFORE
    else:
        state.phase = self._open_leaf(game, state, children[index - 1], children[index])
    self._tables[game].state = play._pack(state)


@external
def before(game: uint256, commitment: IDisputes.Commitment, leaf: bytes32, proof: bytes32[20]):
    state: play.State = self._turn(game, BEFORE)
    self._check_commitment(self._tables[game].channel, commitment)
    state = self._providers_move(commitment.provider, state)
    levels: uint256 = 4 * tree._rounds(state.leaves)
    assert tree._root(leaf, state.index - 1, proof, levels) == commitment.root, "disputes: bad proof"
    state.phase = self._open_leaf(game, state, leaf, self._tables[game].node)
    self._tables[game].state = play._pack(state)


@external
def deepen(game: uint256):
    state: play.State = self._state(game)
    assert state.phase != 0, "disputes: unknown game"
    assert state.phase < OPERATORS and state.kind == OVER_LEAVES, "disputes: not now"
    assert not self.condemned[self._tables[game].channel], "disputes: condemned"
    self._check_challenger(game)
    state.kind = DEEP
    self._tables[game].state = play._pack(state)
    log IDisputes.Deepened(game=game)


@external
def operators(game: uint256, root: bytes32, count: uint256):
    state: play.State = self._turn(game, OPERATORS)
    state = self._providers_move(self._low(self._tables[game].accused), state)
    assert count > 0 and count <= tree.LEAVES_MAX, "disputes: bad leaves"
    state.kind = OVER_OPERATORS
    state.phase = EXPAND
    state.index = 0
    state.leaves = count
    state.rounds = tree._rounds(count)
    self._tables[game].state = play._pack(state)
    self._tables[game].node = root
    log IDisputes.OperatorsShown(game=game, root=root, count=count)


# --------------------------------------------------------------------------------------------------------- the votes


@external
def draw(game: uint256):
    state: play.State = self._turn(game, DRAW)
    assert block.timestamp < state.since + VOTE_SECONDS, "disputes: out of time"
    round: uint256 = convert(self._tables[game].node, uint256)
    if staticcall IBeacon(BEACON).missed(round):
        state.phase = self._await(game)
        return
    beacon: bytes32 = staticcall IBeacon(BEACON).value(round)
    seed: bytes32 = keccak256(abi_encode(beacon, game))
    voters: uint256 = play._draw(self._tables[game].accuser >> 160, JURY, seed)
    state.phase = VOTE
    state.since = block.timestamp
    self._tables[game].state = play._pack(state)
    self._tables[game].votes[0] = voters
    log IDisputes.Drawn(game=game, voters=voters)


@external
def commit_vote(game: uint256, seat: uint256, vote: bytes32):
    state: play.State = self._polls(game, VOTE, POOL_VOTE)
    voting: uint256 = 0 if state.phase == VOTE else 1
    ballots: play.Ballots = self._check_voter(game, voting, seat)
    bit: uint256 = 1 << seat
    assert ballots.committed & bit == 0, "disputes: voted before"
    assert vote != empty(bytes32), "disputes: no vote"
    ballots.committed = ballots.committed | bit
    self._tables[game].votes[voting] = play._pack_ballots(ballots)
    self._vote_hashes[game][voting * SEATS + seat] = vote
    if ballots.committed == ballots.voters:
        state.phase += 1
        state.since = block.timestamp
        self._tables[game].state = play._pack(state)
    log IDisputes.VoteCommitted(game=game, seat=seat)


@external
def reveal_vote(game: uint256, seat: uint256, verdict: uint256, salt: bytes32):
    state: play.State = self._polls(game, REVEAL, POOL_REVEAL)
    voting: uint256 = 0 if state.phase == REVEAL else 1
    ballots: play.Ballots = self._check_voter(game, voting, seat)
    assert verdict == 1 or verdict == 2, "disputes: bad verdict"
    vote: bytes32 = self._vote_hashes[game][voting * SEATS + seat]
    assert vote == keccak256(abi_encode(game, voting, msg.sender, verdict, salt)), "disputes: other vote"
    bit: uint256 = 1 << seat
    ballots.revealed = ballots.revealed | bit
    if verdict == 1:
        ballots.follows = ballots.follows | bit
    self._tables[game].votes[voting] = play._pack_ballots(ballots)
    if ballots.revealed == ballots.committed:
        state.phase += 1
        state.since = block.timestamp
        self._tables[game].state = play._pack(state)
    log IDisputes.VoteRevealed(game=game, seat=seat, verdict=verdict)


@external
def appeal(game: uint256):
    state: play.State = self._turn(game, JUDGED)
    assert block.timestamp < state.since + VOTE_SECONDS, "disputes: not now"
    if play._provider_right(self._tables[game].votes[0]):
        assert msg.sender == self._low(self._tables[game].accuser), "disputes: not the loser"
        state.appellant = CHALLENGER
    else:
        assert self._speaks_for(self._low(self._tables[game].accused)), "disputes: not the loser"
        state.appellant = PROVIDER
    voters: uint256 = self._tables[game].accuser >> 160
    state.phase = POOL_VOTE
    state.since = block.timestamp
    self._tables[game].state = play._pack(state)
    self._tables[game].votes[1] = voters
    log IDisputes.Appealed(game=game, appellant=state.appellant, voters=voters)
    self._pull(play._count(voters) * SEAT_FEE)


# ---------------------------------------------------------------------------------------------------------- the ends


@external
def timeout(game: uint256):
    state: play.State = self._state(game)
    assert state.phase != 0, "disputes: unknown game"
    assert state.phase <= DRAW, "disputes: not now"
    assert not self.condemned[self._tables[game].channel], "disputes: condemned"
    used: uint256 = block.timestamp - state.since
    if state.phase == DRAW:
        assert used >= VOTE_SECONDS, "disputes: too early"
        self._settle(game, state, VOID)
    elif state.phase == PICK:
        assert used > state.challenger_left, "disputes: too early"
        self._settle(game, state, ACQUITTED)
    else:
        assert used > state.provider_left, "disputes: too early"
        self._settle(game, state, CONVICTED)


@external
def finish(game: uint256):
    state: play.State = self._state(game)
    assert state.phase != 0, "disputes: unknown game"
    outcome: uint256 = 0
    if self.condemned[self._tables[game].channel]:
        outcome = VOID
    elif state.phase == POOL_JUDGED or (
        state.phase == JUDGED and block.timestamp >= state.since + VOTE_SECONDS
    ):
        voting: uint256 = 0 if state.phase == JUDGED else 1
        outcome = ACQUITTED if play._provider_right(self._tables[game].votes[voting]) else CONVICTED
    assert outcome != 0 and state.phase != DONE, "disputes: not decided"
    self._settle(game, state, outcome)


@external
def apply(lease: IMarket.Lease):
    lease_id: bytes32 = empty(bytes32)
    channel: bytes32 = empty(bytes32)
    lease_id, channel = self._known(lease)
    assert self.commitment_hash[channel] != empty(bytes32), "disputes: unknown commitment"
    account: accounting.Account = self._account(lease_id)
    ended: bool = account.phase == accounting.HELD
    assert ended or account.phase == accounting.CLOSED, "disputes: lease running"
    paid_plus_one: uint256 = self._paid_plus_one[channel]
    noted: bool = ended and paid_plus_one == 0
    if noted:
        paid_plus_one = account.settled + 1
        self._paid_plus_one[channel] = paid_plus_one
    held: uint256 = 0
    reserve: uint256 = 0
    claim: uint256 = 0
    if self.condemned[channel]:
        if ended and block.timestamp < account.ends_at:
            held = accounting._held_down(account.settled, FEE_BPS, convert(lease.hold_bps, uint256))
        word: uint256 = self._reserves[channel]
        reserve = word >> 160
        if reserve > 0:
            claim = reserve
            if paid_plus_one > 0:
                claim = min(reserve, paid_plus_one - 1 - held)
            self._reserves[channel] = 0
            self.owed[lease.tenant] += claim
            self.owed[self._low(word)] += reserve - claim
    assert noted or held > 0 or reserve > 0, "disputes: nothing to apply"
    log IDisputes.Applied(
        channel=channel,
        paid=max(paid_plus_one, 1) - 1,
        held=held,
        for_tenant=claim,
        for_challenger=reserve - claim,
    )
    if held > 0:
        extcall IMarket(MARKET).resolve(lease, convert(held, uint128))


# ---------------------------------------------------------------------------------------------------------- referees


@external
def join(amount: uint256):
    place: uint256 = self.seat_of[msg.sender]
    if place > 0 and self._is_free(place - 1):
        self._free(place - 1)
        place = 0
    number: uint256 = 0
    owner: uint256 = convert(convert(msg.sender, uint160), uint256)
    if place > 0:
        number = place - 1
        assert (self.pool >> number) & 1 == 1, "disputes: leaving"
        owner = self._seat_owner[number]
    else:
        for _: uint256 in range(SEATS):
            if self._seat_owner[number] == 0:
                break
            if self._is_free(number):
                # Who has left for good does not keep others out.
                self._free(number)
                break
            number += 1
        assert number < SEATS, "disputes: pool is full"
        self.seat_of[msg.sender] = number + 1
        self._seat_times[number] = self.games
        self.pool = self.pool | (1 << number)
    stake: uint256 = (owner >> 160) + min(amount, 2**128)
    assert stake >= REFEREE_STAKE, "disputes: stake too small"
    assert stake <= AMOUNT_MAX, "disputes: stake too large"
    self._seat_owner[number] = (owner & (2**160 - 1)) | (stake << 160)
    log IDisputes.Joined(referee=msg.sender, seat=number, stake=stake)
    self._pull(amount)


@external
def leave():
    place: uint256 = self.seat_of[msg.sender]
    assert place > 0 and (self.pool >> (place - 1)) & 1 == 1, "disputes: not a referee"
    self._retire(msg.sender, place - 1)


@external
def withdraw(receiver: address):
    assert receiver != empty(address) and receiver != self, "disputes: bad receiver"
    place: uint256 = self.seat_of[msg.sender]
    if place > 0 and self._is_free(place - 1):
        self._free(place - 1)
    amount: uint256 = self.owed[msg.sender]
    assert amount > 0, "disputes: nothing owed"
    self.owed[msg.sender] = 0
    log IDisputes.Withdrawn(owner=msg.sender, receiver=receiver, amount=amount)
    assert payments._send(TOKEN, receiver, amount, msg.gas), "disputes: transfer failed"


# -------------------------------------------------------------------------------------------------- playing internals


@internal
def _challenge(commitment: IDisputes.Commitment, end: bool) -> uint256:
    self._check_commitment(commitment.channel, commitment)
    assert not self.condemned[commitment.channel], "disputes: condemned"
    assert (
        block.timestamp < convert(commitment.committed_at, uint256) + WINDOW
    ), "disputes: window is over"
    pool: uint256 = self.pool
    assert play._count(pool) >= JURY, "disputes: too few referees"
    leaves: uint256 = convert(commitment.leaves, uint256)
    game: uint256 = self.games + 1
    self.games = game
    self._tables[game].state = play._pack(
        play.State(
            phase=BEFORE if end else EXPAND,
            outcome=0,
            kind=THE_END if end else OVER_LEAVES,
            appellant=0,
            rounds=0 if end else tree._rounds(leaves),
            leaves=leaves,
            index=leaves if end else 0,
            since=block.timestamp,
            provider_left=CLOCK,
            challenger_left=CLOCK,
        )
    )
    if not end:
        self._tables[game].node = commitment.root
    self._tables[game].channel = commitment.channel
    self._purses[commitment.channel] += 2**128
    self._tables[game].accuser = convert(convert(msg.sender, uint160), uint256) | (pool << 160)
    self._tables[game].accused = (
        convert(convert(commitment.provider, uint160), uint256)
        | (convert(commitment.exposure, uint256) << 160)
    )
    log IDisputes.Challenged(
        game=game, channel=commitment.channel, challenger=msg.sender, end=end, pool=pool
    )
    self._pull(BOND)
    return game


@internal
@view
def _state(game: uint256) -> play.State:
    # A voting moves on by itself when its time is over.
    state: play.State = play._unpack(self._tables[game].state)
    for _: uint256 in range(2):
        votes: bool = state.phase == VOTE or state.phase == REVEAL or state.phase == POOL_VOTE or state.phase == POOL_REVEAL
        if votes and block.timestamp >= state.since + VOTE_SECONDS:
            state.phase += 1
            state.since += VOTE_SECONDS
    return state


@internal
@view
def _turn(game: uint256, phase: uint256) -> play.State:
    return self._polls(game, phase, phase)


@internal
@view
def _polls(game: uint256, phase: uint256, or_phase: uint256) -> play.State:
    state: play.State = self._state(game)
    assert state.phase != 0, "disputes: unknown game"
    assert state.phase == phase or state.phase == or_phase, "disputes: not now"
    assert not self.condemned[self._tables[game].channel], "disputes: condemned"
    return state


@internal
@view
def _check_commitment(channel: bytes32, commitment: IDisputes.Commitment):
    # Its channel is hashed with the rest: one that hashes to what is stored for this channel is this game's.
    assert self.commitment_hash[channel] == keccak256(abi_encode(commitment)), "disputes: unknown commitment"


@internal
@view
def _check_challenger(game: uint256):
    assert msg.sender == self._low(self._tables[game].accuser), "disputes: not the challenger"


@internal
@view
def _check_provider(provider: address):
    assert self._speaks_for(provider), "disputes: not the provider"


@internal
@view
def _speaks_for(provider: address) -> bool:
    return msg.sender == provider or msg.sender == staticcall IRegistry(REGISTRY).agent_of(provider)


@internal
@view
def _providers_move(provider: address, state: play.State) -> play.State:
    self._check_provider(provider)
    used: uint256 = block.timestamp - state.since
    assert used <= state.provider_left, "disputes: out of time"
    moved: play.State = state
    moved.provider_left -= used
    moved.since = block.timestamp
    return moved


@internal
def _open_leaf(game: uint256, state: play.State, before_: bytes32, after_: bytes32) -> uint256:
    log IDisputes.LeafOpened(game=game, leaf=state.index, before=before_, after=after_)
    if state.kind == DEEP:
        return OPERATORS
    return self._await(game)


@internal
def _await(game: uint256) -> uint256:
    round: uint256 = staticcall IBeacon(BEACON).next_round()
    self._tables[game].node = convert(round, bytes32)
    log IDisputes.DrawAwaited(game=game, round=round)
    return DRAW


@internal
@view
def _check_voter(game: uint256, voting: uint256, seat: uint256) -> play.Ballots:
    ballots: play.Ballots = play._unpack_ballots(self._tables[game].votes[voting])
    assert (
        seat < SEATS
        and (ballots.voters >> seat) & 1 == 1
        and self._low(self._seat_owner[seat]) == msg.sender
    ), "disputes: not a voter"
    return ballots


# -------------------------------------------------------------------------------------------------- settling internals


@internal
def _settle(game: uint256, state: play.State, outcome: uint256):
    over: play.State = state
    over.phase = DONE
    over.outcome = outcome
    over.since = block.timestamp
    self._tables[game].state = play._pack(over)
    channel: bytes32 = self._tables[game].channel
    accused: uint256 = self._tables[game].accused
    accuser: uint256 = self._tables[game].accuser
    exposure: uint256 = accused >> 160
    slashed: uint256 = 0
    to_challenger: uint256 = BOND
    to_provider: uint256 = 0
    purse: uint256 = self._purses[channel]
    others: uint256 = (purse >> 128) - 1
    pot: uint256 = purse & (2**128 - 1)  # what the loser leaves, or the one who was convicted before
    if outcome == CONVICTED:
        self.condemned[channel] = True
        slashed = self._slash(self._low(accused), exposure * FACTOR)
        pot = slashed
    elif outcome == ACQUITTED:
        pot = BOND
        to_challenger = 0
    if state.appellant != 0:
        prepaid: uint256 = play._count(accuser >> 160) * SEAT_FEE
        if state.appellant == PROVIDER:
            if outcome == CONVICTED:
                pot += prepaid
            else:
                to_provider = prepaid
        elif outcome == ACQUITTED:
            pot += prepaid
        else:
            to_challenger += prepaid
    seats: uint256 = (
        play._count(self._ballots(game, 0).revealed) + play._count(self._ballots(game, 1).revealed)
    )
    seat_fee: uint256 = SEAT_FEE
    if seats > 0:
        seat_fee = min(seat_fee, pot // seats)
    fees: uint256 = seats * seat_fee
    rest: uint256 = pot - fees
    reserve: uint256 = 0
    if outcome == CONVICTED:
        share: uint256 = min(slashed // 2, rest)
        reserve = min(exposure, share)
        to_challenger += share - reserve
        self._reserves[channel] = (accuser & (2**160 - 1)) | (reserve << 160)
        rest -= share
    elif outcome == ACQUITTED:
        to_provider += rest
        rest = 0
    kept: uint256 = rest if others > 0 else 0
    self._purses[channel] = (others << 128) | kept
    paid: uint256 = 0
    fined: uint256 = 0
    paid, fined = self._pay_seats(game, seat_fee, outcome != VOID)
    self.owed[FUND] += rest - kept + fees - paid + fined
    if to_challenger > 0:
        self.owed[self._low(accuser)] += to_challenger
    if to_provider > 0:
        self.owed[self._low(accused)] += to_provider
    log IDisputes.Finished(
        game=game,
        channel=channel,
        outcome=outcome,
        slashed=slashed,
        for_tenant=reserve,
        to_challenger=to_challenger,
        to_provider=to_provider,
        seat_fee=seat_fee,
    )


@internal
def _slash(provider: address, amount: uint256) -> uint256:
    stake: IRegistry.Stake = staticcall IRegistry(REGISTRY).stake_of(provider, self)
    if amount == 0 or stake.staked + stake.unbonding == 0:
        return 0
    held: uint256 = payments._balance(TOKEN)
    taken: uint256 = extcall IRegistry(REGISTRY).slash(provider, amount, self)
    # What arrived, and not what was said: a token that takes a fee must not make this contract owe what it has not.
    return min(taken, payments._balance(TOKEN) - held)


@internal
def _pay_seats(game: uint256, seat_fee: uint256, fines: bool) -> (uint256, uint256):
    # What went to referees, and what those who were silent lost.
    jury: play.Ballots = play._unpack_ballots(self._tables[game].votes[0])
    pool: play.Ballots = play._unpack_ballots(self._tables[game].votes[1])
    paid: uint256 = 0
    fined: uint256 = 0
    for seat: uint256 in range(SEATS):
        duties: uint256 = ((jury.voters >> seat) & 1) + ((pool.voters >> seat) & 1)
        owner: uint256 = 0
        if duties > 0:
            owner = self._seat_owner[seat]
        # A game that nobody finished for long outlives its referees: a seat's next owner has no part in it.
        if owner == 0 or self._seat_times[seat] & (2**128 - 1) >= game:
            continue
        done: uint256 = ((jury.revealed >> seat) & 1) + ((pool.revealed >> seat) & 1)
        referee: address = self._low(owner)
        if done * seat_fee > 0:
            self.owed[referee] += done * seat_fee
            paid += done * seat_fee
        if fines and duties > done:
            fine: uint256 = min(owner >> 160, (duties - done) * REFEREE_STAKE // FINE_PART)
            left: uint256 = (owner >> 160) - fine
            self._seat_owner[seat] = (owner & (2**160 - 1)) | (left << 160)
            fined += fine
            log IDisputes.Fined(referee=referee, game=game, amount=fine)
            if left < REFEREE_STAKE // 2 and (self.pool >> seat) & 1 == 1:
                self._retire(referee, seat)
    return paid, fined


@internal
@view
def _is_free(seat: uint256) -> bool:
    free_at: uint256 = self._seat_times[seat] >> 128
    return free_at > 0 and block.timestamp >= free_at


@internal
def _free(seat: uint256):
    owner: uint256 = self._seat_owner[seat]
    self._seat_owner[seat] = 0
    self._seat_times[seat] = 0
    self.seat_of[self._low(owner)] = 0
    self.owed[self._low(owner)] += owner >> 160


@internal
def _retire(referee: address, seat: uint256):
    free_at: uint256 = block.timestamp + 2 * CLOCK + 6 * VOTE_SECONDS
    self.pool = self.pool ^ (1 << seat)
    self._seat_times[seat] = self._seat_times[seat] | (free_at << 128)
    log IDisputes.Left(referee=referee, seat=seat, free_at=free_at)


@internal
@view
def _ballots(game: uint256, voting: uint256) -> IDisputes.Ballots:
    ballots: play.Ballots = play._unpack_ballots(self._tables[game].votes[voting])
    return IDisputes.Ballots(
        voters=ballots.voters, committed=ballots.committed, revealed=ballots.revealed, follows=ballots.follows
    )


# ------------------------------------------------------------------------------------------------------------- beside


@internal
@view
def _known(lease: IMarket.Lease) -> (bytes32, bytes32):
    lease_id: bytes32 = keccak256(abi_encode(lease.tenant, lease.job, lease.attempt))
    assert (
        staticcall IMarket(MARKET).lease_hash(lease_id) == keccak256(abi_encode(lease))
    ), "disputes: unknown lease"
    return lease_id, keccak256(abi_encode(lease_id, lease.offer, lease.signer))


@internal
@view
def _account(lease_id: bytes32) -> accounting.Account:
    account: accounting.Account = empty(accounting.Account)
    account.deposit, account.settled, account.ends_at, account.phase = staticcall IMarket(MARKET).account_of(lease_id)
    return account


@internal
@pure
def _low(word: uint256) -> address:
    return convert(convert(word & (2**160 - 1), uint160), address)


@internal
def _pull(amount: uint256):
    if amount == 0:
        return
    held: uint256 = payments._balance(TOKEN)
    assert payments._take(TOKEN, amount), "disputes: transfer failed"
    assert payments._balance(TOKEN) == held + amount, "disputes: token took a fee"
