"""Playing cheats: the same rules as `protocol.audit`, the same expectation as the inequality, one seed one outcome."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.units import BPS, DAY
from minga.protocol import audit, audit_pay
from minga.protocol.audit import Record
from minga.sim import economics as eco
from minga.sim import economics_play as playing
from minga.sim.economics_cheats import BY_NAME, CHEATS
from minga.sim.economics_world import CHEAPEST, DOLLAR, RULES, Terms, drawn_jobs, leaves_owed, pay_down, rates

ALL = frozenset(RULES)


def one(value: int) -> np.ndarray:
    return np.array([value], dtype=np.int64)


# ------------------------------------------------------------------------------------------------ held to the protocol


@given(
    jobs=st.integers(0, 100),
    value=st.integers(0, 10**12),
    age=st.integers(0, 100 * DAY),
    exposure=st.integers(1, 10**9),
    factor=st.sampled_from((9, 19, 20, 40, 103)),
)
@settings(deadline=None)
def test_rates_are_those_of_the_protocol(jobs, value, age, exposure, factor):
    floor = audit.floor_bps(factor)
    terms = Terms(rate=max(floor, audit.RATE_SETTLED_BPS), factor=factor)
    found = rates(one(jobs), one(value), one(age), one(exposure), terms)
    assert int(found[0]) == audit.rate_bps(Record(jobs, value, age), exposure, factor)


@given(
    price=st.integers(CHEAPEST, 10**10),
    leaves=st.integers(2, 2**20),
    keep=st.integers(1, 100),
    rate=st.sampled_from((200, 948, 2000, 10_000)),
)
@settings(deadline=None)
def test_pay_and_leaves_are_those_of_the_protocol(price, leaves, keep, rate):
    assert int(pay_down(one(price), one(rate), Terms())[0]) == audit_pay.pay_down(price, rate)
    owed = int(leaves_owed(one(price), one(leaves), one(keep), one(rate), Terms())[0])
    assert owed == audit_pay.leaves_owed(price, leaves, keep, rate)


def test_the_terms_of_a_rate_have_the_stake_that_the_formula_asks():
    for rate, factor in ((200, 103), (500, 40), (948, 20), (1000, 19), (2000, 9)):
        terms = Terms.at(rate)
        assert terms.factor == factor
        assert factor * 10**6 >= audit.stake_for(10**6, rate) > (factor - 1) * 10**6
    assert Terms().rate == audit.floor_bps(audit.FACTOR)
    assert Terms().bond >= 70 * Terms().seat_fee
    assert Terms(collusion=3000).corrupt_seats == 19


def test_jobs_are_whole_numbers_in_their_ranges():
    jobs = drawn_jobs(3, 10_000)
    assert jobs.shape == (200, 50)
    assert jobs.price.min() >= CHEAPEST
    assert jobs.price.max() < 1024 * CHEAPEST
    assert (jobs.deposit == jobs.price).all()
    assert jobs.leaves.min() >= 200
    assert set(np.unique(jobs.keep)) == set(range(1, 11))
    again = drawn_jobs(3, 10_000)
    assert (again.price == jobs.price).all()
    assert (drawn_jobs(4, 10_000).price != jobs.price).any()
    above = drawn_jobs(3, 1_000, slack=2_500)
    assert (above.deposit >= above.price).all()
    assert (above.deposit <= above.price * 5 // 4).all()
    assert above.deposit.sum() > above.price.sum()
    assert drawn_jobs(3, 1_000, octaves=0).price.max() < 2 * CHEAPEST
    level = drawn_jobs(3, 1_000, level=True, least=DOLLAR)
    assert (level.price == level.price[:, :1]).all()
    assert (level.price == level.deposit).all()
    assert level.price.min() >= DOLLAR


# ------------------------------------------------------------------------------------- what is played, what is expected


@pytest.mark.parametrize("name", ["self-challenge", "fake-all"])
@pytest.mark.parametrize(("rate", "factor", "collusion"), [(948, 20, 3000), (2000, 8, 0), (5000, 4, 1000)])
def test_what_is_played_is_what_the_inequality_expects(name, rate, factor, collusion):
    terms = Terms(rate=rate, factor=factor, collusion=collusion, seat_fee=0, move_gas=0)
    jobs = drawn_jobs(11, 60_000)
    expected = np.mean(
        [
            playing.expected_gain(BY_NAME[name], rate, 1.0, float(ratio), terms)
            for ratio in (jobs.deposit / jobs.price).ravel()[:2000]
        ]
    )
    row, _ = eco.cheat_row(BY_NAME[name], jobs, terms, 11)
    assert abs(row.share - expected) < row.share_half + 0.01


def test_one_seed_is_one_outcome():
    jobs, terms = drawn_jobs(5, 5_000), Terms()
    for cheat in (BY_NAME["stall"], BY_NAME["whitewash"], BY_NAME["withhold-bait"]):
        first, second = (playing.play(cheat, jobs, terms, 5).gain for _ in range(2))
        assert (first == second).all()
        assert (playing.play(cheat, jobs, terms, 6).gain != first).any()


def test_who_is_never_audited_gains_the_whole_saving():
    terms = Terms(rate=1, factor=1, rules=ALL - {"floor"}, collusion=10_000)
    jobs = drawn_jobs(1, 2_000)
    tally = playing.play(BY_NAME["self-challenge"], jobs, terms, 1)
    assert (tally.gain == jobs.price * 9 // 10).all()
    assert tally.convicted == 0
    assert tally.faked == 2_000


def test_the_share_of_audits_is_the_rate_and_newcomers_are_always_audited():
    jobs = drawn_jobs(2, 40_000)
    settled = playing.play(BY_NAME["self-challenge"], jobs, Terms(), 2)
    assert settled.audited / 40_000 == pytest.approx(0.0948, abs=0.006)
    fresh = playing.play(BY_NAME["sybil-names"], jobs, Terms(), 2)
    assert fresh.audited == 40_000
    assert fresh.convicted / fresh.games == 1
    assert fresh.games / 40_000 == pytest.approx(0.7, abs=0.01)  # one validator, three in ten look away


def test_cheap_own_jobs_do_not_lower_the_rate_of_dear_ones():
    jobs = drawn_jobs(2, 20_000)
    tally = playing.play(BY_NAME["exit-scam"], jobs, Terms(), 2)
    assert tally.audited / 20_000 > 0.98


def test_money_that_is_slashed_is_divided_and_half_of_it_reaches_the_fund():
    tally = playing.play(BY_NAME["fake-all"], drawn_jobs(7, 20_000), Terms(), 7)
    assert tally.convicted == tally.games > 0
    assert 0.4 < tally.fund / tally.slashed <= 0.5


def test_bait_costs_the_challengers_their_bonds():
    tally = playing.play(BY_NAME["bait"], drawn_jobs(7, 20_000), Terms(), 7)
    assert tally.convicted == 0
    assert tally.games > 1_000
    assert tally.validators_lost == tally.games * Terms().bond


def test_a_stake_is_taken_once_however_many_games_there_are():
    """Without the rule `cover` a stalled game finds a stake that other games have emptied."""
    jobs = drawn_jobs(8, 20_000, level=True)
    usual, bare = (playing.play(BY_NAME["stall"], jobs, Terms(rules=rules), 8) for rules in (ALL, ALL - {"cover"}))
    assert usual.slashed / usual.convicted == pytest.approx(20 * jobs.price.mean(), rel=0.1)
    assert bare.slashed / bare.convicted < 0.8 * usual.slashed / usual.convicted


# ----------------------------------------------------------------------------------------- each cheat, and each rule


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_no_way_of_cheating_pays(cheat):
    row, _ = eco.cheat_row(cheat, eco.jobs_for(cheat, 1, 40_000), Terms(), 1)
    assert row.share < 0
    assert row.verdict != "pays"


@pytest.mark.parametrize(
    ("name", "rule", "rate"),
    [
        ("self-challenge", "floor", 948),
        ("rich-history", "floor", 948),
        ("stall", "cover", 948),
        ("never-commit", "demand", 948),
        ("withhold-bait", "bond", 948),
        ("bait", "bond", 948),
        ("flood-games", "void", 948),
        ("bait", "shared", 948),
        ("commit-early", "late", 948),
        ("self-challenge", "funded", 2000),
    ],
)
def test_each_rule_is_needed(name, rule, rate):
    """Leave one out and something pays; so a simulator that could not find a paying cheat would be found here."""
    cheat = BY_NAME[name]
    terms = Terms.at(rate, rules=ALL - {rule})
    row, _ = eco.cheat_row(cheat, eco.jobs_for(cheat, 1, 40_000), terms, 1)
    assert row.verdict == "pays"


def test_every_way_has_its_story_and_every_named_rule_exists():
    assert len(BY_NAME) == len(CHEATS) >= 14
    for cheat in CHEATS:
        assert cheat.story
        assert 0 <= cheat.fake <= BPS
        assert all(rule in RULES for rule in cheat.tests.split(", ") if rule)
    named = {rule for cheat in CHEATS for rule in cheat.tests.split(", ") if rule}
    assert named == ALL - {"funded", "coherent"}
