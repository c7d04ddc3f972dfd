"""The words, votings, seats and beacon of disputes, apart from the contract that they are the specification of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import ContractError
from minga.core.units import Amount
from minga.protocol import dispute_game
from minga.protocol.beacon import BlockBeacon
from minga.protocol.dispute import (
    PRODUCTION,
    SEATS,
    SHORT,
    Ballots,
    Commitment,
    Kind,
    Outcome,
    Phase,
    Player,
    draw_jury,
    seats_in,
    vote_hash,
)
from minga.protocol.dispute_game import Table
from minga.protocol.dispute_pool import Pool
from minga.protocol.merkle import Tree

CHANNEL = Hash32("0x" + "11" * 32)
PROVIDER, CHALLENGER, REFEREE = (Address("0x" + digit * 40) for digit in "abc")
TREE = Tree([keccak(bytes([leaf])) for leaf in range(40)])
STAKE = SHORT.referee_stake


def begun(*, end: bool = False) -> Table:
    """A game over 40 leaves that begins at time 100."""
    return dispute_game.begin(CHANNEL, (PROVIDER, CHALLENGER), 5, 0b111, TREE.root, 40, SHORT.clock, 100, end=end)


def test_a_commitment_hashes_as_the_abi_encodes_it() -> None:
    made = Commitment(CHANNEL, PROVIDER, CHALLENGER, CHANNEL, CHANNEL, 40, Amount(7), 9)
    kinds = ["bytes32", "address", "address", "bytes32", "bytes32", "uint32", "uint128", "uint64"]
    raw = [bytes.fromhex(each[2:]) if isinstance(each, str) and len(each) == 66 else each for each in made.as_tuple()]
    assert made.hash == to_hex(keccak(encode(kinds, raw)))


def test_a_vote_binds_everything_that_it_is_about() -> None:
    said = (3, 0, REFEREE, 1, b"s" * 32)
    kinds = ["uint256", "uint256", "address", "uint256", "bytes32"]
    assert vote_hash(*said) == to_hex(keccak(encode(kinds, said)))
    others = [(4, 0, REFEREE, 1, b"s" * 32), (3, 1, *said[2:]), (3, 0, PROVIDER, 1, b"s" * 32)]
    others += [(3, 0, REFEREE, 2, b"s" * 32), (3, 0, REFEREE, 1, b"t" * 32)]
    assert len({vote_hash(*each) for each in [said, *others]}) == 6


@pytest.mark.parametrize(
    ("revealed", "follows", "right"),
    [(0, 0, True), (0b1, 0, False), (0b11, 0b01, True), (0b111, 0b001, False), (0b111, 0b011, True)],
)
def test_a_majority_convicts_and_a_tie_does_not(revealed: int, follows: int, right: bool) -> None:
    assert Ballots(0b111, 0b111, revealed, follows).provider_right is right


def test_a_jury_is_of_the_pool_without_repetition() -> None:
    for beacon in range(200):
        jury = draw_jury(0b1011_0110_1001 << 40, 5, beacon.to_bytes(32, "big"), 1)
        assert jury.bit_count() == 5
        assert jury & ~(0b1011_0110_1001 << 40) == 0
    whole = (1 << SEATS) - 1
    assert draw_jury(whole, 7, b"b" * 32, 1) != draw_jury(whole, 7, b"b" * 32, 2)
    assert seats_in(0b101) == (0, 2)


@pytest.mark.parametrize("preset", [PRODUCTION, SHORT])
def test_every_seat_of_a_game_is_paid_for(preset: object) -> None:
    assert isinstance(preset, type(SHORT))
    assert preset.bond >= (preset.jury + SEATS) * preset.seat_fee
    assert preset.window + preset.game_seconds_max <= 21 * 86_400


def test_a_game_goes_down_to_one_leaf_on_two_clocks() -> None:
    table = dispute_game.expand(begun(), TREE.children(0, 0), 110)
    assert (table.phase, table.provider_left) == (Phase.PICK, SHORT.clock - 10)
    table = dispute_game.pick(table, TREE.children(0, 0), 1, 130, 55)
    assert (table.phase, table.index, table.challenger_left) == (Phase.EXPAND, 1, SHORT.clock - 20)
    table = dispute_game.expand(table, TREE.children(1, 1), 130)
    table = dispute_game.pick(table, TREE.children(1, 1), 0, 130, 55)
    assert (table.phase, table.index) == (Phase.BEFORE, 16)
    table = dispute_game.before(table, TREE.root, TREE.leaves[15], TREE.proof(15), 130, 55)
    assert (table.phase, int.from_bytes(table.node, "big")) == (Phase.DRAW, 55)


def test_silence_loses_for_whoever_is_to_move() -> None:
    assert dispute_game.silence(begun(), 101 + SHORT.clock, 30) is Outcome.CONVICTED
    picking = dispute_game.expand(begun(), TREE.children(0, 0), 100)
    assert dispute_game.silence(picking, 101 + SHORT.clock, 30) is Outcome.ACQUITTED
    assert dispute_game.silence(replace(picking, phase=Phase.DRAW), 130, 30) is Outcome.VOID
    for table in (begun(), picking, replace(picking, phase=Phase.DRAW)):
        with pytest.raises(ContractError, match="too early"):
            dispute_game.silence(table, 129 if table.phase is Phase.DRAW else 100 + SHORT.clock, 30)


def test_a_voting_moves_on_by_itself() -> None:
    table = dispute_game.begin_vote(begun(), 0b111, 200)
    expected = [(229, Phase.VOTE), (230, Phase.REVEAL), (259, Phase.REVEAL), (260, Phase.JUDGED), (10**6, Phase.JUDGED)]
    for now, phase in expected:
        assert dispute_game.at(table, now, 30).phase is phase
    assert dispute_game.decided(dispute_game.at(table, 289, 30), 289, 30) is Outcome.NONE
    assert dispute_game.decided(dispute_game.at(table, 290, 30), 290, 30) is Outcome.ACQUITTED


def test_an_appeal_is_counted_instead_of_the_jury() -> None:
    table = dispute_game.begin_vote(begun(), 0b1, 200)
    table = replace(table, votings=(Ballots(0b1, 0b1, 0b1, 0b1), Ballots()))
    table = dispute_game.begin_vote(table, 0b111, 300, Player.CHALLENGER)
    for seat in range(3):
        table = dispute_game.commit_vote(table, seat, vote_hash(1, 1, REFEREE, 2, b"s" * 32), 301)
    for seat in range(3):
        table = dispute_game.reveal_vote(table, 1, seat, REFEREE, 2, b"s" * 32, 302)
    assert (table.phase, table.appellant) == (Phase.POOL_JUDGED, Player.CHALLENGER)
    assert dispute_game.decided(table, 302, 30) is Outcome.CONVICTED


def test_the_end_of_a_trace_is_disputed_without_a_walk() -> None:
    table = begun(end=True)
    assert (table.phase, table.kind, table.index) == (Phase.BEFORE, Kind.END, 40)
    table = dispute_game.before(table, TREE.root, TREE.leaves[39], TREE.proof(39), 100, 1)
    assert table.phase is Phase.DRAW


def test_a_seat_is_free_when_its_games_must_have_ended() -> None:
    pool = Pool(SHORT)
    assert pool.join(REFEREE, STAKE, 3, 0) == []
    assert (pool.active, pool.was_in(0, 3), pool.was_in(0, 4)) == (0b1, False, True)
    pool.leave(REFEREE, 50)
    with pytest.raises(ContractError, match="leaving"):
        pool.check_join(REFEREE, 1, 49 + SHORT.game_seconds_max)
    assert pool.free_stake(REFEREE, 49 + SHORT.game_seconds_max) == 0
    (freed,) = pool.join(PROVIDER, STAKE, 3, 50 + SHORT.game_seconds_max)
    assert (freed.referee, freed.stake) == (REFEREE, STAKE)
    assert pool.number_of(PROVIDER) == 0


def test_silence_costs_a_twentieth_and_at_last_the_seat() -> None:
    pool = Pool(SHORT)
    pool.join(REFEREE, STAKE, 0, 0)
    assert [pool.fine(0, 2, 0) for _ in range(5)] == [STAKE // 10] * 5
    assert pool.active == 0b1
    pool.fine(0, 1, 7)
    assert (pool.active, pool.seats[0].free_at) == (0, 7 + SHORT.game_seconds_max)
    assert sum(pool.fine(0, 2, 0) for _ in range(9)) == pool.preset.referee_stake * 9 // 20
    assert pool.stakes == 0


def test_a_round_is_known_after_its_block_until_it_is_out_of_reach() -> None:
    beacon = BlockBeacon(lambda number: number.to_bytes(32, "big"), delay=2, number=10)
    round = beacon.next_round()
    assert round == 12
    for number, reason in ((12, "not yet"), (13 + 256, "missed")):
        beacon.number = number
        assert beacon.missed(round) is (reason == "missed")
        with pytest.raises(ContractError, match=reason):
            beacon.value(round)
    beacon.number = 12 + 256
    beacon.keep(round)
    beacon.number = 10**6
    assert beacon.value(round) == (12).to_bytes(32, "big")
    assert not beacon.missed(round)
