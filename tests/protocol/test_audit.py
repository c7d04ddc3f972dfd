"""Audits: the rate follows audited value and age, draws are fair and everybody's, stakes are those of the design."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import InvalidInput
from minga.core.units import BPS, DAY
from minga.protocol import audit
from minga.protocol.audit import NEWCOMER, Record

DOLLAR = 10**6
BEACON = keccak(b"a round")
SETTLED = Record(jobs=500, value=10**6 * DOLLAR, stake_age=365 * DAY)
POOL = tuple(Address(to_hex(keccak(bytes((n,)))[:20])) for n in range(20))


def commitment(n: int) -> Hash32:
    return Hash32(to_hex(keccak(n.to_bytes(4, "big"))))


# ------------------------------------------------------------------------------------------------------------ the rate


def test_a_newcomer_is_always_audited():
    assert audit.rate_bps(NEWCOMER, DOLLAR) == BPS
    assert audit.rate_bps(Record(19, 10**9 * DOLLAR, 10 * 365 * DAY), DOLLAR) == BPS


def test_the_rate_falls_in_two_steps_with_value_and_age():
    def rate(value: int, days: int) -> int:
        return audit.rate_bps(Record(20, value * DOLLAR, days * DAY), DOLLAR, factor=100)

    assert rate(19, 365) == 10_000
    assert rate(20, 365) == 2_000
    assert rate(99, 365) == 2_000
    assert rate(100, 365) == 500
    assert rate(10**6, 5) == 10_000
    assert rate(10**6, 6) == 2_000
    assert rate(10**6, 29) == 2_000
    assert rate(10**6, 30) == 500


def test_cheap_jobs_are_no_credit_for_a_dear_one():
    cheap = Record(jobs=10_000, value=10_000 * DOLLAR // 100, stake_age=365 * DAY)
    assert audit.rate_bps(cheap, DOLLAR // 100, factor=100) == 500
    assert audit.rate_bps(cheap, 100 * DOLLAR, factor=100) == 10_000


@given(
    jobs=st.integers(0, 10_000),
    value=st.integers(0, 10**12),
    age=st.integers(0, 400 * DAY),
    exposure=st.integers(1, 10**9),
    more=st.integers(0, 10**6),
)
def test_more_jobs_of_the_same_value_never_lower_the_rate_once_there_are_twenty(jobs, value, age, exposure, more):
    jobs = max(jobs, audit.JOBS_NEW)
    before = audit.rate_bps(Record(jobs, value, age), exposure)
    assert audit.rate_bps(Record(jobs + more, value, age), exposure) == before
    assert audit.rate_bps(Record(jobs, value + more, age), exposure) <= before
    assert audit.rate_bps(Record(jobs, value, age), exposure + more) >= before


@given(
    record=st.builds(Record, st.integers(0, 10_000), st.integers(0, 10**12), st.integers(0, 400 * DAY)),
    exposure=st.integers(1, 10**9),
    factor=st.integers(1, 1000),
)
def test_whatever_record_is_bought_a_fake_still_loses(record, exposure, factor):
    """The rule that makes self-bought history worthless: p·q·(R + S/2) ≥ g·R at the rate that it gives."""
    p = Fraction(audit.rate_bps(record, exposure, factor), BPS)
    q, g = Fraction(audit.DETECTION_BPS, BPS), Fraction(audit.GUARDED_SAVING_BPS, BPS)
    assert p * q * (1 + Fraction(factor, 2)) >= g


def test_a_record_is_not_negative_and_neither_is_an_exposure():
    for record, exposure in ((NEWCOMER, 0), (Record(-1), 1), (Record(1, -1), 1), (Record(1, 1, -1), 1)):
        with pytest.raises(InvalidInput):
            audit.rate_bps(record, exposure)


def test_a_stake_is_as_old_as_its_youngest_part_that_is_needed():
    history = [(100, 50), (200, 80), (300, 30), (400, 90)]
    assert audit.stake_age(history, 40, 1000) == 600
    assert audit.stake_age(history, 30, 1000) == 900
    assert audit.stake_age(history, 91, 1000) == 0
    assert audit.stake_age([], 1, 1000) == 0
    assert audit.stake_age(history, 40, 399) == 0


def test_stake_under_a_game_covers_nothing_else():
    assert audit.covers(400, 10, 0, 10)
    assert not audit.covers(399, 10, 0, 10)
    assert not audit.covers(400, 0, 11, 10)
    assert audit.covers(420, 0, 11, 10)
    assert audit.covers(300, 1, 1, 1, factor=100)
    assert not audit.covers(299, 1, 1, 1, factor=100)


# ----------------------------------------------------------------------------------------------------------- the draws


def test_draws_do_not_change():
    """Golden values: another implementation must draw the same."""
    assert audit.number(BEACON, "rate", b"x") == int.from_bytes(keccak(b"minga audit rate\0" + BEACON + b"x"), "big")
    assert audit.sampled_leaves(BEACON, commitment(1), POOL[0], 4, 1000) == (128, 193, 218, 352)
    assert [n for n in range(60) if audit.audits(BEACON, commitment(n), 1000)] == [3, 7, 11, 12, 14, 18, 25, 33, 41, 49]
    assert [POOL.index(who) for who in audit.drawn_validators(BEACON, commitment(1), POOL, 3)] == [8, 10, 19]


@pytest.mark.parametrize("rate", [200, 948, 2000])
def test_a_rate_is_kept(rate):
    n = 4000
    hits = sum(audit.audits(BEACON, commitment(i), rate) for i in range(n))
    mean, sigma = n * rate / BPS, (n * rate / BPS * (1 - rate / BPS)) ** 0.5
    assert abs(hits - mean) < 4 * sigma


def test_nothing_and_everything_are_rates_too():
    assert not any(audit.audits(BEACON, commitment(i), 0) for i in range(200))
    assert all(audit.audits(BEACON, commitment(i), BPS) for i in range(200))
    for rate in (-1, BPS + 1):
        with pytest.raises(InvalidInput):
            audit.audits(BEACON, commitment(0), rate)
    with pytest.raises(InvalidInput, match="32 bytes"):
        audit.audits(b"short", commitment(0), 1)


def test_a_higher_rate_audits_all_that_a_lower_one_does():
    for i in range(300):
        drawn = [audit.audits(BEACON, commitment(i), rate) for rate in (500, 948, 2000, BPS)]
        assert drawn == sorted(drawn)


def test_validators_are_drawn_evenly_and_do_not_depend_on_the_order_or_on_others():
    counts: Counter[Address] = Counter()
    for i in range(2000):
        drawn = audit.drawn_validators(BEACON, commitment(i), POOL, 3)
        assert len(set(drawn)) == 3
        assert drawn == audit.drawn_validators(BEACON, commitment(i), [*POOL[::-1], POOL[3]], 3)
        without = [who for who in POOL if who != drawn[0]]
        assert audit.drawn_validators(BEACON, commitment(i), without, 2) == drawn[1:]
        counts.update(drawn)
    mean = 2000 * 3 / len(POOL)
    assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())
    assert audit.drawn_validators(BEACON, commitment(0), POOL[:2], 3) != ()
    assert len(audit.drawn_validators(BEACON, commitment(0), POOL[:2], 3)) == 2
    assert audit.drawn_validators(BEACON, commitment(0), [], 3) == ()


def test_leaves_are_sampled_evenly_without_the_first_state():
    counts: Counter[int] = Counter()
    for i in range(3000):
        leaves = audit.sampled_leaves(BEACON, commitment(i), POOL[i % 20], 5, 21)
        assert len(set(leaves)) == 5
        assert list(leaves) == sorted(leaves)
        counts.update(leaves)
    assert set(counts) == set(range(1, 21))
    assert all(abs(count - 750) < 5 * 750**0.5 for count in counts.values())


def test_validators_of_one_commitment_have_leaves_of_their_own():
    same = sum(
        audit.sampled_leaves(BEACON, commitment(i), POOL[0], 5, 2000)
        == audit.sampled_leaves(BEACON, commitment(i), POOL[1], 5, 2000)
        for i in range(200)
    )
    assert same == 0


@given(count=st.integers(0, 40), leaves=st.integers(1, 60))
@settings(deadline=None)
def test_never_more_leaves_than_there_are(count, leaves):
    found = audit.sampled_leaves(BEACON, commitment(0), POOL[0], count, leaves)
    assert len(found) == min(count, leaves - 1)
    assert set(found) <= set(range(1, leaves))


def test_a_trace_has_a_size():
    for count, leaves in ((1, 0), (1, 2**20 + 1), (-1, 5)):
        with pytest.raises(InvalidInput):
            audit.sampled_leaves(BEACON, commitment(0), POOL[0], count, leaves)


def test_segments_begin_at_kept_states():
    assert audit.segments((1, 3, 50, 51, 100, 230), 50) == ((0, 50), (50, 100), (200, 230))
    assert audit.segments((7, 9), 1) == ((6, 7), (8, 9))
    assert audit.segments((), 50) == ()
    for leaves, keep in (((0,), 50), ((1,), 0)):
        with pytest.raises(InvalidInput):
            audit.segments(leaves, keep)


@given(st.sets(st.integers(1, 500)), st.integers(1, 70))
def test_segments_contain_every_leaf_and_begin_before_it(sampled, keep):
    found = audit.segments(sorted(sampled), keep)
    inside = {leaf for a, b in found for leaf in range(a + 1, b + 1)}
    assert sampled <= inside
    assert all(a % keep == 0 and a < b <= a + keep for a, b in found)


# -------------------------------------------------------------------------------------------------- odds and stakes


def test_the_figures_of_the_design():
    assert audit.leaves_for(1000, 9900) == 44
    assert audit.leaves_for(100, 9900) == 459
    # "S ≥ 8.5R at p = 10 %, 17.9R at 5 %. Use twice that."
    g = audit.SAVING_BPS
    assert audit.stake_for(10_000, 1000, saving=g, recoverable=0) == 84_737
    assert audit.stake_for(10_000, 500, saving=g, recoverable=0) == 179_474
    assert audit.stake_for(10_000, 1000, saving=g) == 169_474
    assert audit.stake_for(10_000, 500, saving=g) == 358_948
    assert audit.floor_bps(20, saving=g) == 862


def test_the_figures_that_are_asked_for_are_a_tenth_more_careful():
    assert audit.GUARDED_SAVING_BPS == audit.SAVING_BPS * 11 // 10
    assert audit.stake_for(10_000, 1000) == 188_422
    assert audit.stake_for(10_000, 500) == 396_843
    assert audit.floor_bps(20) == 948
    assert audit.floor_bps(40) <= audit.RATE_SETTLED_BPS < audit.floor_bps(39)


@given(faked=st.integers(1, BPS), detection=st.integers(0, 9_999))
@settings(deadline=None, max_examples=60)
def test_the_count_of_leaves_is_exact(faked, detection):
    count = audit.leaves_for(faked, detection)

    def missed(n: int) -> bool:
        return (BPS - faked) ** n * BPS > (BPS - detection) * BPS**n

    assert not missed(count)
    assert count == 0 or missed(count - 1)


@given(price=st.integers(0, 10**12), rate=st.integers(1, BPS), recoverable=st.integers(0, 9_000))
def test_the_stake_is_the_least_that_is_enough(price, rate, recoverable):
    stake = audit.stake_for(price, rate, recoverable=recoverable)
    p, q = Fraction(rate, BPS), Fraction(audit.DETECTION_BPS, BPS)
    kept, gain = 1 - Fraction(recoverable, BPS), Fraction(audit.GUARDED_SAVING_BPS, BPS) * price
    assert p * q * (price + kept * stake) >= gain
    assert stake == 0 or p * q * (price + kept * (stake - 1)) < gain


@given(factor=st.integers(1, 1000), recoverable=st.integers(0, 9_000))
def test_the_floor_is_the_least_rate_that_is_enough_for_a_factor(factor, recoverable):
    floor = audit.floor_bps(factor, recoverable=recoverable)
    assert audit.stake_for(10**9, floor, recoverable=recoverable) <= factor * 10**9
    assert floor == 1 or audit.stake_for(10**9, floor - 1, recoverable=recoverable) > factor * 10**9


def test_one_leaf_is_enough_to_make_every_share_of_fakes_lose():
    """Saving x·g, found with probability 1 − (1−x)^n by n leaves: at every x the odds are at least x."""
    for leaves in (1, 2, 22):
        for tenths in range(1, 11):
            x = Fraction(tenths, 10)
            assert 1 - (1 - x) ** leaves >= x


def test_three_validators_of_whom_three_tenths_are_corrupt_keep_the_odds_of_the_design():
    corrupt = Fraction(3, 10)
    honest_one = 1 - corrupt**audit.VALIDATORS
    assert honest_one >= Fraction(audit.DETECTION_BPS, BPS)
    assert audit.validators_for(BPS) == 1
    assert audit.validators_for(2000) == audit.VALIDATORS
    # where every job is audited one validator is enough by far: p·q is 0.7 instead of 0.0948·0.95
    assert 1 - corrupt >= 7 * Fraction(audit.floor_bps(audit.FACTOR), BPS)


def test_out_of_range_shares_are_refused():
    for call in (
        lambda: audit.leaves_for(0, 9900),
        lambda: audit.leaves_for(100, BPS),
        lambda: audit.stake_for(1, 0),
        lambda: audit.stake_for(-1, 1),
        lambda: audit.stake_for(1, 1, detection=0),
        lambda: audit.stake_for(1, 1, recoverable=BPS),
        lambda: audit.floor_bps(-1),
        lambda: audit.floor_bps(0, detection=1),
    ):
        with pytest.raises(InvalidInput):
            call()
