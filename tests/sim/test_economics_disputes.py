"""The simulator's games against the executable specification of Disputes: the same preset, the same division."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.eip712 import Domain
from minga.protocol.audit_pay import CHALLENGE_FROM_SECONDS
from minga.protocol.market import Market
from minga.protocol.stake import Ledger, Registry
from minga.sim import economics_games as games
from minga.sim.economics_play import STALL_STEPS, STEP_SECONDS
from minga.sim.economics_world import DOLLAR, RULES, SEATS, Terms

AS_IS = Terms(rules=frozenset(RULES) - {"bond", "shared"})
CHANNEL = Hash32(to_hex(keccak(b"a channel")))


def part(name: str) -> Any:
    """A module of the specification."""
    return importlib.import_module(f"minga.protocol.{name}")


def address(name: str) -> Address:
    return Address(to_hex(keccak(name.encode())[:20]))


REFEREES = [address(f"referee {seat}") for seat in range(SEATS)]
PROVIDER, CHALLENGER, FUND, DISPUTES, MARKET, REGISTRY = map(
    address, ("provider", "challenger", "fund", "disputes", "market", "registry")
)


def disputes(staked: int) -> Any:
    """A specification with a full pool, and a provider with `staked` under it."""
    preset, beacon = (
        part("dispute").PRODUCTION,
        part("beacon").BlockBeacon(lambda number: keccak(bytes((number % 256,)))),
    )
    ledger = Ledger()
    registry = Registry(REGISTRY, ledger)
    market = Market(Domain(1, MARKET), registry, 100, FUND)
    found = part("disputes").Disputes(DISPUTES, preset, market, beacon, FUND)
    every = [(PROVIDER, REGISTRY, staked), *((each, DISPUTES, preset.referee_stake) for each in REFEREES)]
    for owner, spender, amount in every:
        ledger.balances[owner] = amount
        ledger.allowances[owner, spender] = amount
    if staked:
        registry.stake(PROVIDER, DISPUTES, staked)
    for referee in REFEREES:
        found.join(referee, 0, preset.referee_stake)
    return found


def ended(exposure: int, jury: int, pool: int, appellant: int, convicted: bool, staked: int) -> dict[str, int]:
    """What a game that ended so left to everybody, by the specification."""
    words, spec = part("dispute"), disputes(staked)
    votings = tuple(words.Ballots(voters=(1 << n) - 1, revealed=(1 << n) - 1) for n in (jury, pool))
    table = part("dispute_game").Table(
        CHANNEL, PROVIDER, CHALLENGER, exposure, spec.pool.active, words.Phase.JUDGED, words.Kind.LEAVES, 0, 2, 1,
        bytes(32), 0, 0, 0, appellant=words.Player(appellant), votings=votings,
    )  # fmt: skip
    spec.tables[1] = table
    spec._settle(1, table, words.Outcome.CONVICTED if convicted else words.Outcome.ACQUITTED, 0)
    _, reserve = spec.reserves.get(CHANNEL, (CHALLENGER, 0))
    return {
        "fund": spec.owed.get(FUND, 0),
        "provider": spec.owed.get(PROVIDER, 0),
        "challenger": spec.owed.get(CHALLENGER, 0),
        "seats": sum(spec.owed.get(each, 0) for each in REFEREES),
        "reserve": reserve,
    }


@given(
    exposure=st.integers(1, 10**9),
    stake=st.integers(0, 30),
    jury=st.integers(0, 7),
    appeal=st.sampled_from((0, 1, 2)),
    pool=st.integers(0, SEATS),
    convicted=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_the_division_is_that_of_the_specification(exposure, stake, jury, appeal, pool, convicted):
    pool = pool if appeal else 0
    staked = exposure * stake
    spec = ended(exposure, jury, pool, appeal, convicted, staked)

    ruling = games.Ruling(*(np.array([value]) for value in (convicted, jury + pool, appeal == 2, appeal == 1)))
    ours = games.settle(ruling, *(np.array([value]) for value in (exposure, staked, exposure, 0)), AS_IS)
    prepaid = SEATS * AS_IS.seat_fee
    provider_back = prepaid if appeal == 1 and not convicted else 0
    challenger_back = (AS_IS.bond + (prepaid if appeal == 2 else 0)) if convicted else 0

    assert spec["seats"] == int(ours.seats[0])
    assert spec["fund"] == int(ours.fund[0])
    assert spec["provider"] == int(ours.provider[0]) + provider_back
    # the tenant paid its whole deposit, so that all of the reserve is its claim
    assert spec["reserve"] == int(ours.tenant[0])
    assert spec["challenger"] == int(ours.challenger[0]) + challenger_back


def test_the_terms_are_the_production_preset():
    preset, terms = part("dispute").PRODUCTION, Terms()
    assert (terms.jury, terms.seat_fee, terms.bond, terms.referee_stake, terms.factor) == (
        preset.jury,
        preset.seat_fee,
        preset.bond,
        preset.referee_stake,
        preset.factor,
    )
    assert terms.silence == preset.fine


def test_games_that_are_dragged_out_last_as_many_holds_as_is_played():
    preset = part("dispute").PRODUCTION
    assert preset.window == STEP_SECONDS
    assert -(-preset.game_seconds_max // STEP_SECONDS) == STALL_STEPS


def test_canaries_are_opened_and_challenges_begin_within_the_window():
    preset = part("dispute").PRODUCTION
    assert preset.window - 12 * 3600 >= CHALLENGE_FROM_SECONDS


def test_games_that_a_conviction_ends_are_paid_out_of_the_slash():
    """What the way `flood-games` lives on: when Disputes changes this, the page has to say so."""
    words, exposure = part("dispute"), 100 * DOLLAR
    staked = 20 * exposure
    spec = disputes(staked)
    everybody = (1 << SEATS) - 1
    votings = tuple(words.Ballots(voters=votes, revealed=votes) for votes in (0b1111111, everybody))
    for game in range(1, 21):
        spec.tables[game] = part("dispute_game").Table(
            CHANNEL, PROVIDER, CHALLENGER, exposure, everybody, words.Phase.POOL_JUDGED, words.Kind.LEAVES, 0, 2, 1,
            bytes(32), 0, 0, 0, appellant=words.Player.PROVIDER, votings=votings,
        )  # fmt: skip
    spec._settle(1, spec.tables[1], words.Outcome.CONVICTED, 0)
    for game in range(2, 21):
        spec._settle(game, spec.tables[game], words.Outcome.VOID, 0)
    preset, seats = words.PRODUCTION, sum(spec.owed.get(each, 0) for each in REFEREES)
    assert seats == 20 * (SEATS + 7) * preset.seat_fee
    appeal = SEATS * preset.seat_fee
    assert spec.owed.get(FUND, 0) == staked // 2 + appeal - seats
    assert spec.owed[CHALLENGER] == 20 * preset.bond + staked // 2 - exposure
    assert spec.owed[PROVIDER] == 19 * appeal
