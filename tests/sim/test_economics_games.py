"""Games as money: what comes in goes out, as the contract divides it, and juries err as often as the odds say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.sim import economics_games as games
from minga.sim.economics_world import DOLLAR, RULES, SEATS, Terms

AS_IS = frozenset(RULES) - {"bond", "shared"}
"""The rules that say nothing of how a bond is divided: the contract's own division."""


def one(value: int) -> np.ndarray:
    return np.array([value], dtype=np.int64)


def ruling(convicted: bool, seats: int, challenger: bool = False, provider: bool = False) -> games.Ruling:
    return games.Ruling(np.array([convicted]), one(seats), np.array([challenger]), np.array([provider]))


def settle(found: games.Ruling, exposure: int, staked: int, paid: int, held: int, terms: Terms) -> dict[str, int]:
    payout = games.settle(found, one(exposure), one(staked), one(paid), one(held), terms)
    return {name: int(getattr(payout, name)[0]) for name in games.Payout.__slots__}


def by_hand(
    convicted: bool, seats: int, lost_appeal: bool, exposure: int, staked: int, paid: int, held: int, terms: Terms
) -> dict[str, int]:
    """The same, one game at a time, written after the contract's `_settle` and `apply`, line by line."""
    slashed = min(exposure * terms.factor, staked) if convicted else 0
    pot = (slashed if convicted else terms.bond) + (SEATS * terms.seat_fee if lost_appeal else 0)
    seat_fee = terms.seat_fee
    if seats > 0:
        seat_fee = min(seat_fee, pot // seats)
    fees = seats * seat_fee
    rest = pot - min(fees, pot)
    claim = to_challenger = to_provider = 0
    if convicted:
        share = min(slashed // 2, rest)
        reserve = min(exposure, share)
        claim = min(reserve, paid - held)
        to_challenger = share - reserve + (reserve - claim)
        rest -= share
    else:
        to_provider, rest = rest, 0
    return {
        "slashed": slashed, "seats": fees, "tenant": claim, "challenger": to_challenger, "provider": to_provider,
        "fund": rest,
    }  # fmt: skip


@given(
    convicted=st.booleans(),
    seats=st.integers(0, 70),
    appealed=st.booleans(),
    exposure=st.integers(0, 10**9),
    staked=st.integers(0, 10**10),
    spent=st.integers(0, 10_000),
    hold=st.integers(0, 10_000),
)
@settings(deadline=None)
def test_money_is_divided_as_the_contract_does(convicted, seats, appealed, exposure, staked, spent, hold):
    terms = Terms(rules=AS_IS)
    paid = exposure * spent // 10_000
    held = paid * hold // 10_000
    found = ruling(convicted, seats, challenger=appealed and not convicted, provider=appealed and convicted)
    expected = by_hand(convicted, seats, appealed, exposure, staked, paid, held, terms)
    assert settle(found, exposure, staked, paid, held, terms) == expected


@given(
    convicted=st.booleans(),
    seats=st.integers(0, 70),
    appealed=st.booleans(),
    exposure=st.integers(0, 10**9),
    staked=st.integers(0, 10**10),
    rules=st.sets(st.sampled_from(("bond", "shared"))),
)
@settings(deadline=None)
def test_what_comes_in_goes_out(convicted, seats, appealed, exposure, staked, rules):
    terms = Terms(rules=frozenset(rules))
    found = ruling(convicted, seats, challenger=appealed and not convicted, provider=appealed and convicted)
    out = settle(found, exposure, staked, exposure, 0, terms)
    lost = (0 if convicted else terms.bond) + (SEATS * terms.seat_fee if appealed else 0)
    gone = sum(out[name] for name in ("seats", "tenant", "challenger", "provider", "fund"))
    assert gone == out["slashed"] + lost


def test_a_convicted_provider_that_challenged_itself_gets_back_less_than_half():
    terms = Terms()
    out = settle(ruling(True, 7), 10 * DOLLAR, 1000 * DOLLAR, 10 * DOLLAR, DOLLAR, terms)
    assert out["slashed"] == 200 * DOLLAR
    assert out["tenant"] == 9 * DOLLAR
    assert out["challenger"] == 91 * DOLLAR
    # R + S/2 in all: held 1, slash 200, back 91
    assert DOLLAR + out["slashed"] - out["challenger"] == 10 * DOLLAR + out["slashed"] // 2


def test_an_acquitted_provider_gets_what_is_left_of_the_bond_unless_a_rule_says_otherwise():
    found, bond, fee = ruling(False, 7), Terms().bond, Terms().seat_fee
    assert settle(found, DOLLAR, 0, DOLLAR, 0, Terms(rules=AS_IS))["provider"] == bond - 7 * fee
    assert settle(found, DOLLAR, 0, DOLLAR, 0, Terms(rules=AS_IS | {"bond"}))["provider"] == 0
    assert settle(found, DOLLAR, 0, DOLLAR, 0, Terms(rules=AS_IS | {"bond"}))["fund"] == bond - 7 * fee
    assert settle(found, DOLLAR, 0, DOLLAR, 0, Terms())["provider"] == -7 * fee // 2


def test_a_stake_that_is_gone_pays_nobody():
    assert settle(ruling(True, 7), 10 * DOLLAR, 0, 10 * DOLLAR, 0, Terms()) == dict.fromkeys(games.Payout.__slots__, 0)


@pytest.mark.parametrize("collusion", [0, 1000, 3000, 4500])
def test_a_jury_errs_as_often_as_the_odds_say(collusion):
    terms = Terms(collusion=collusion, online=10_000)
    n = 40_000
    found = games.judge(np.random.default_rng(1), n, np.ones(n, dtype=bool), terms, appeals=False)
    wrong, odds = 1 - found.convicted.mean(), games.jury_errs(terms)
    assert abs(wrong - odds) <= 4 * (odds * (1 - odds) / n) ** 0.5
    assert (found.seats == terms.jury).all()


def test_the_odds_of_a_jury_are_counted_right():
    """Every jury of three from seven seats of which two are corrupt, by hand: wrong where both corrupt sit."""
    terms = Terms(jury=3, collusion=3_000)
    assert terms.corrupt_seats == 19
    wrong = sum(1 for a, b, c in product(range(63), repeat=3) if a < b < c and (a < 19) + (b < 19) + (c < 19) >= 2)
    assert games.jury_errs(terms) == pytest.approx(wrong / (63 * 62 * 61 / 6))
    assert games.jury_errs(Terms(collusion=0)) == 0
    assert 0.11 < games.jury_errs(Terms()) < 0.13


def test_an_appeal_to_the_pool_is_right_with_three_tenths_corrupt():
    n = 20_000
    found = games.judge(np.random.default_rng(2), n, np.ones(n, dtype=bool), Terms(online=10_000))
    assert found.convicted.all()
    assert games.judge(np.random.default_rng(2), n, np.ones(n, dtype=bool), Terms(online=9_000)).convicted.all()
    assert found.challenger_appealed.mean() == pytest.approx(games.jury_errs(Terms()), abs=0.02)
    assert not found.provider_appealed.any()
    assert (found.seats[found.challenger_appealed] > 50).all()


def test_the_honest_are_never_convicted_while_three_tenths_are_corrupt_and_they_appeal():
    n = 100_000
    assert not games.accuse_honest(np.random.default_rng(3), n, Terms()).convicted.any()
    assert games.accuse_honest(np.random.default_rng(3), n, Terms(), appeals=False).convicted.mean() > 0.1


def test_a_corrupt_majority_rules():
    n = 1_000
    dice = np.random.default_rng(4)
    most = Terms(collusion=7_000)
    assert not games.judge(dice, n, np.ones(n, dtype=bool), most, stalls=True).convicted.any()
    assert games.accuse_honest(dice, n, most).convicted.mean() > 0.8


def test_a_true_leaf_convicts_nobody_and_a_stalling_provider_pays_for_its_appeal():
    n = 2_000
    dice = np.random.default_rng(5)
    assert not games.judge(dice, n, np.zeros(n, dtype=bool), Terms()).convicted.any()
    stalled = games.judge(dice, n, np.ones(n, dtype=bool), Terms(), stalls=True)
    assert stalled.convicted.all()
    assert (stalled.provider_appealed ^ stalled.challenger_appealed).all()
    out = settle(ruling(True, 70, provider=True), 10 * DOLLAR, 200 * DOLLAR, 10 * DOLLAR, 0, Terms())
    assert out["fund"] == 100 * DOLLAR + SEATS * Terms().seat_fee - 70 * Terms().seat_fee
