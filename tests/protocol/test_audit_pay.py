"""Audit pay: votes bind, canaries tell work from guesses, and the fund spends no more than the audited jobs brought."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.crypto import ZERO_HASH, Address, Hash32, keccak, to_hex
from minga.core.errors import InvalidInput
from minga.core.units import BPS, DAY
from minga.protocol import audit, audit_pay
from minga.protocol.audit_pay import Outcome, Standing, Vote

DOLLAR = 10**6
ID = Hash32(to_hex(keccak(b"a commitment")))
VALIDATOR, OTHER = (Address(to_hex(keccak(name)[:20])) for name in (b"one", b"other"))
SAMPLED = (3, 8, 20)


def vote(*failed: int) -> Vote:
    return Vote(ID, VALIDATOR, failed, ZERO_HASH)


def test_a_vote_hash_binds_everything_in_it():
    salt = Hash32(to_hex(keccak(b"salt")))
    hashes = {
        audit_pay.vote_hash(each)
        for each in (
            vote(),
            vote(3),
            vote(3, 8),
            Vote(ID, OTHER, (3,), ZERO_HASH),
            Vote(ID, VALIDATOR, (3,), salt),
            Vote(salt, VALIDATOR, (3,), ZERO_HASH),
        )
    }
    assert len(hashes) == 6
    assert audit_pay.vote_hash(vote(3)) == audit_pay.vote_hash(vote(3))


def test_a_canary_hash_is_no_vote_hash_and_has_no_order():
    assert audit_pay.canary_hash(ID, VALIDATOR, (8, 3), ZERO_HASH) == audit_pay.canary_hash(
        ID, VALIDATOR, (3, 8), ZERO_HASH
    )
    assert audit_pay.canary_hash(ID, VALIDATOR, (3,), ZERO_HASH) != audit_pay.vote_hash(vote(3))


def test_nobody_challenges_before_canaries_are_opened_and_the_window_still_is_long_enough():
    window = 3 * DAY
    assert audit_pay.CHALLENGE_FROM_SECONDS == 60 * 3600
    assert window - audit_pay.CHALLENGE_FROM_SECONDS >= 12 * 3600


@pytest.mark.parametrize(
    ("failed", "spoilt", "expected"),
    [
        ((8,), {8, 9}, Outcome.FOUND),
        ((3, 8), {2, 8}, Outcome.WRONG),
        ((3, 8), {3, 8}, Outcome.FOUND),
        ((), {9}, Outcome.UNTESTED),
        ((), set(), Outcome.UNTESTED),
        ((), {8}, Outcome.WRONG),
        ((3,), {8}, Outcome.WRONG),
        ((3, 8, 20), {8}, Outcome.WRONG),
        ((8, 9), {8, 9}, Outcome.WRONG),
        ((8, 20), {8, 20}, Outcome.FOUND),
        ((3,), set(), Outcome.WRONG),
    ],
)
def test_canaries_are_found_exactly_or_missed(failed, spoilt, expected):
    assert audit_pay.outcome(vote(*failed), SAMPLED, 1, frozenset(spoilt)) is expected


def test_a_spoilt_leaf_spoils_the_rest_of_its_segment():
    assert audit_pay.failing((3, 8, 20), frozenset({2}), 10) == {3, 8}
    assert audit_pay.failing((3, 8, 20), frozenset({5}), 10) == {8}
    assert audit_pay.failing((3, 8, 20), frozenset({11, 30}), 10) == {20}
    assert audit_pay.failing((3, 8, 10, 11), frozenset({10}), 10) == {10}
    assert audit_pay.outcome(vote(3, 8), SAMPLED, 10, frozenset({2})) is Outcome.FOUND


def test_an_honest_vote_is_never_wrong():
    for spoilt in (frozenset(), frozenset({3}), frozenset(range(30)), frozenset({1, 2})):
        for keep in (1, 4, 50):
            honest = vote(*sorted(audit_pay.failing(SAMPLED, spoilt, keep)))
            assert audit_pay.outcome(honest, SAMPLED, keep, spoilt) is not Outcome.WRONG


def test_a_failure_that_nobody_convicts_is_wrong():
    assert audit_pay.outcome(vote(3), SAMPLED, 1) is Outcome.WRONG
    assert audit_pay.outcome(vote(3), SAMPLED, 1, condemned=True) is Outcome.UNTESTED
    assert audit_pay.outcome(vote(4), SAMPLED, 1, condemned=True) is Outcome.WRONG
    assert audit_pay.outcome(vote(), SAMPLED, 1) is Outcome.UNTESTED
    assert audit_pay.outcome(None, SAMPLED, 1) is Outcome.SILENT
    assert audit_pay.outcome(None, SAMPLED, 1, frozenset({3})) is Outcome.SILENT


def test_pay_waits_for_a_canary():
    standing = Standing()
    for _ in range(9):
        standing = audit_pay.after(standing, Outcome.UNTESTED, 5)
    assert standing == Standing(retained=45)
    assert audit_pay.after(standing, Outcome.SILENT, 5) == standing
    assert audit_pay.after(standing, Outcome.FOUND, 5) == Standing(released=50)
    gone = audit_pay.after(standing, Outcome.WRONG, 5)
    assert gone == Standing(forfeited=50, barred=True)
    with pytest.raises(InvalidInput, match="barred"):
        audit_pay.after(gone, Outcome.FOUND, 5)


def test_who_does_nothing_is_never_paid():
    """Passing everything and failing everything: both end barred at the first canary that is meant for them."""
    for failed in ((), SAMPLED):
        standing = Standing()
        for spoilt in (None, None, frozenset({8}), None):
            if standing.barred:
                break
            found = audit_pay.outcome(vote(*failed), SAMPLED, 1, spoilt)
            standing = audit_pay.after(standing, found, 5)
        assert standing.barred
        assert standing.released == 0


@given(settled=st.integers(0, 10**12), rate=st.integers(1, BPS), fee=st.integers(0, 300))
def test_the_fund_spends_on_average_less_than_the_audited_jobs_fee(settled, rate, fee):
    """So that nobody gains by buying own jobs and auditing them, even with every validator's name."""
    spent = Fraction(rate, BPS) * audit_pay.pay_down(settled, rate, fee) * audit.validators_for(rate)
    assert spent <= Fraction(audit_pay.AUDIT_SHARE_BPS, BPS) * Fraction(settled * fee, BPS)


@given(
    settled=st.integers(1, 10**10),
    leaves=st.integers(2, 2**20),
    keep=st.integers(1, 200),
    rate=st.integers(1, BPS),
    fee=st.integers(1, 300),
)
def test_what_is_owed_is_paid_with_the_margin_and_one_leaf_more_would_not_be(settled, leaves, keep, rate, fee):
    owed = audit_pay.leaves_owed(settled, leaves, keep, rate, fee)
    pay = audit_pay.pay_down(settled, rate, fee)
    if owed:
        assert audit_pay.cost_up(settled, leaves, owed, keep) * audit_pay.MARGIN_BPS <= (pay + 2) * BPS
        assert owed <= leaves - 1
    if owed < leaves - 1:
        assert audit_pay.cost_up(settled, leaves, owed + 1, keep) * audit_pay.MARGIN_BPS > (pay - 2) * BPS


def test_figures_of_the_page():
    """A thousand leaves at a dollar; what docs/audits.md tabulates."""
    assert audit_pay.pay_down(10 * DOLLAR, 862) == 309_358
    assert audit_pay.pay_down(10 * DOLLAR, BPS) == 80_000
    assert audit_pay.leaves_owed(10 * DOLLAR, 1001, 1, 862) == 19
    assert audit_pay.leaves_owed(10 * DOLLAR, 1001, 1, BPS) == 4
    assert audit_pay.leaves_owed(10 * DOLLAR, 1001, 50, BPS) == 0
    assert audit_pay.leaves_owed(DOLLAR // 10, 1001, 1, BPS) == 0
    assert [audit_pay.leaves_min(1, rate) for rate in (862, 2000, BPS)] == [50, 114, 189]
    assert [audit_pay.leaves_min(50, rate) for rate in (862, 2000, BPS)] == [1238, 2870, 4783]


@given(keep=st.integers(1, 100), rate=st.integers(1, BPS), fee=st.integers(1, 300))
def test_the_fewest_leaves_are_just_enough_for_a_dear_job(keep, rate, fee):
    fewest = audit_pay.leaves_min(keep, rate, fee)
    assert audit_pay.leaves_owed(10**15, max(2, fewest + 1), keep, rate, fee, fixed=0) >= 1
    if fewest > 3:
        assert audit_pay.leaves_owed(10**15, fewest - 2, keep, rate, fee, fixed=0) == 0


def test_numbers_out_of_range_are_refused():
    for call in (
        lambda: audit_pay.pay_down(1, 0),
        lambda: audit_pay.cost_up(1, 1, 1, 1),
        lambda: audit_pay.cost_up(1, 2, 1, 0),
        lambda: audit_pay.leaves_min(0, 1),
        lambda: audit_pay.leaves_min(1, 1, 0),
    ):
        with pytest.raises(InvalidInput):
            call()
