"""The record of providers: the formula, and what it costs to fake it, to spoil it, or to be forgotten by it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.protocol.lease import Why
from minga.protocol.reliability import (
    CUT_MAX,
    FORGOTTEN_WEEKS,
    HALF_LIFE_WEEKS,
    PPM,
    WEEK,
    Fact,
    Ledger,
    Record,
    Rules,
    Tally,
    new_record,
    tally_of,
    worth_to_reach,
)

USD = 10**6
RULES = Rules.of(6)
NOW = 3000 * WEEK
PROVIDER = "0x" + "0a" * 20
GOOD = int(Why.DONE)


def fact(number: int = 1, worth: int = USD, said: int | None = GOOD, tenant_said: int | None = None, **more) -> Fact:
    """A lease of an hour that ended just now, by its own tenant unless said otherwise."""
    values = {
        "lease_id": f"0x{number:064x}", "tenant": f"0x{number:040x}", "provider": PROVIDER, "price_per_hour": USD,
        "worth": worth, "fee": worth // 100, "opened_at": NOW - 3600, "closed_at": NOW, "provider_said": said,
        "tenant_said": tenant_said,
    }  # fmt: skip
    return Fact(**(values | more))


def record_of(facts: list[Fact], complaints: list[tuple[str, int]] = [], as_of: int = NOW) -> Record:  # noqa: B006
    ledger = Ledger(RULES)
    for item in facts:
        ledger.end(item)
    for lease_id, reason in complaints:
        ledger.complain(PROVIDER, lease_id, reason)
    return ledger.record(PROVIDER, as_of)


FACTS = st.builds(
    fact,
    number=st.integers(1, 40),
    worth=st.integers(0, 30 * USD),
    said=st.one_of(st.none(), st.integers(0, 12)),
    tenant_said=st.one_of(st.none(), st.integers(0, 12)),
    tenant=st.sampled_from([f"0x{number:040x}" for number in range(4)]),
    price_per_hour=st.integers(1, 5 * USD),
    closed_at=st.integers(NOW - 60 * WEEK, NOW),
)
HISTORIES = st.lists(FACTS, max_size=20, unique_by=lambda item: item.lease_id)
COMPLAINTS = st.lists(st.tuples(st.integers(1, 40).map(lambda n: f"0x{n:064x}"), st.sampled_from([5, 6, 7, 8])))


def test_a_new_provider_starts_low_and_the_formula_is_the_documented_one() -> None:
    start = new_record(PROVIDER, RULES)
    assert (start.ppm, start.leases, start.mtbf_s // 60) == (800_000, 0, 1440)
    assert record_of([]) == start
    one = record_of([fact(worth=10 * USD)])
    assert one.ppm == PPM * (8 + 10) // (10 + 10)
    two = record_of([fact(1, 10 * USD), fact(2, 5 * USD, tenant_said=Why.UNREACHABLE)])
    assert two.ppm == PPM * (8 + 10) // (10 + 15)
    assert two.interruptions_ppm == PPM * (10 * USD // 24 + USD) // (25 * USD)
    assert (two.leases, two.well, two.left, two.disputed, two.paid, two.tenants) == (2, 1, 1, 1, 15 * USD, 2)


@pytest.mark.parametrize(
    ("provider_said", "tenant_said", "complaint", "good", "bad", "cut"),
    [
        (Why.DONE, None, None, 10, 0, 0),
        (Why.STOPPED, Why.DONE, None, 10, 0, 0),
        (Why.JOB_FAILED, None, None, 10, 0, 0),
        (Why.NOT_SAID, None, None, 10, 0, 0),
        (None, Why.STOPPED, None, 10, 0, 0),
        (None, None, None, 0, 0, 0),
        (Why.DONE, Why.UNREACHABLE, None, 0, 10, 7),
        (None, Why.BAD_RESULT, None, 0, 10, 7),
        (Why.UNDER_SPEC, None, None, 0, 10, 7),
        (Why.UNREACHABLE, None, None, 10, 0, 0),  # a provider that says its tenant was silent
        (Why.SHUTTING_DOWN, None, None, 10, 0, 7),
        (Why.DONE, Why.SHUTTING_DOWN, None, 10, 0, 7),
        (Why.SHUTTING_DOWN, None, Why.SHUTTING_DOWN, 0, 10, 7),
        (Why.DONE, None, Why.BAD_RESULT, 0, 10, 7),
        (None, None, Why.UNDER_SPEC, 0, 10, 7),
        (200, None, None, 10, 0, 0),
    ],
)
def test_who_said_what_decides_what_a_lease_counts_as(provider_said, tenant_said, complaint, good, bad, cut) -> None:
    found = tally_of(fact(worth=10, said=provider_said, tenant_said=tenant_said, price_per_hour=7), complaint)
    assert found == Tally(good, bad, cut)


def test_what_an_arbiter_gave_back_was_not_kept() -> None:
    assert tally_of(fact(worth=10, taken_back=4)) == Tally(6, 4, 0)
    assert tally_of(fact(worth=10, said=None, taken_back=40)) == Tally(0, 10, 0)


@given(HISTORIES, COMPLAINTS, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_of_events_does_not_matter(facts, complaints, random) -> None:
    first = record_of(facts, complaints)
    news = [("end", item) for item in facts] + [("complain", item) for item in complaints]
    random.shuffle(news)
    ledger = Ledger(RULES)
    for kind, item in news:
        if random.random() < 0.2:
            ledger.record(PROVIDER, NOW)  # a look between two events changes nothing
        if kind == "end":
            ledger.end(item)
        else:
            ledger.complain(PROVIDER, *item)
    assert ledger.record(PROVIDER, NOW) == first
    assert len(ledger.facts(PROVIDER)) == len(facts)


def test_every_permutation_of_a_small_history_is_one_record() -> None:
    facts = [
        fact(1, 7 * USD), fact(2, 6 * USD, tenant=fact(1).tenant), fact(3, 5 * USD, tenant_said=Why.BAD_RESULT),
        fact(4, 9 * USD, closed_at=NOW - 3 * WEEK, tenant=fact(1).tenant),
    ]  # fmt: skip
    complaints = [(facts[0].lease_id, 6)]
    assert len({record_of(list(order), complaints) for order in permutations(facts)}) == 1
    assert len({record_of(facts, complaints * times) for times in (1, 2)}) == 1


@given(HISTORIES, COMPLAINTS, st.integers(0, 200))
@settings(max_examples=150, deadline=None)
def test_a_record_is_within_its_bounds_and_its_counts_add_up(facts, complaints, weeks) -> None:
    found = record_of(facts, complaints, NOW + weeks * WEEK)
    assert 0 <= found.ppm < PPM
    assert found.interruptions_ppm >= 1
    assert found.leases == len(facts) >= found.well + found.left
    assert found.left >= max(found.disputed, found.unpaid)
    assert found.well >= found.reclaimed
    assert found.paid == sum(item.worth for item in facts)
    assert found.fee == sum(item.fee for item in facts)
    assert found.evidence <= found.paid


@given(HISTORIES, COMPLAINTS, FACTS)
@settings(max_examples=150, deadline=None)
def test_a_spoilt_lease_never_helps_and_a_kept_one_never_harms(facts, complaints, item) -> None:
    other = replace(item, lease_id="0x" + "ff" * 32, tenant="0x" + "ff" * 20, closed_at=NOW)
    before = record_of(facts, complaints)
    after = record_of([*facts, replace(other, tenant_said=int(Why.BAD_RESULT))], complaints)
    assert after.ppm <= before.ppm
    after = record_of([*facts, replace(other, tenant_said=None, provider_said=GOOD)], complaints)
    assert after.ppm >= before.ppm
    assert after.interruptions_ppm <= before.interruptions_ppm


@given(HISTORIES, FACTS, st.sampled_from([5, 6, 7, 8]))
@settings(max_examples=150, deadline=None)
def test_a_word_against_a_provider_weighs_at_most_what_its_lease_paid(facts, item, reason) -> None:
    mine = replace(item, lease_id="0x" + "ee" * 32, tenant="0x" + "ee" * 20, closed_at=NOW, tenant_said=None)
    before = record_of([*facts, mine])
    after = record_of([*facts, mine], [(mine.lease_id, reason)])
    weight = min(mine.worth, RULES.tenant_max)
    whole = RULES.prior + after.evidence
    assert (before.ppm - after.ppm) * whole <= PPM * weight + 2 * whole
    cut = after.interruptions_ppm - before.interruptions_ppm
    assert cut * whole <= PPM * CUT_MAX * mine.worth + 2 * whole
    if not mine.worth:
        assert (after.ppm, after.interruptions_ppm) == (before.ppm, before.interruptions_ppm)


def test_complaints_without_a_paid_lease_destroy_nobody() -> None:
    facts = [fact(number, 5 * USD) for number in range(1, 19)]
    before = record_of(facts)
    unpaid = [fact(100 + number, 0, None, int(Why.UNREACHABLE)) for number in range(500)]
    after = record_of([*facts, *unpaid], [(f"0x{number:064x}", 7) for number in range(1000, 2000)])
    assert (after.ppm, after.interruptions_ppm) == (before.ppm, before.interruptions_ppm)
    assert (after.left, after.unpaid, after.complaints) == (500, 500, 0)


def test_one_tenant_saturates_in_a_week() -> None:
    tenant = "0x" + "77" * 20
    rich = record_of([fact(1, 10_000 * USD, tenant=tenant)])
    many = record_of([fact(number, 10 * USD, tenant=tenant) for number in range(1, 1001)])
    assert rich.ppm == many.ppm == PPM * 18 // 20
    harm = record_of([fact(1, 90 * USD, tenant_said=int(Why.BAD_RESULT), tenant=tenant)])
    assert harm.ppm == PPM * 8 // 20
    later = record_of([fact(1, 10 * USD, tenant=tenant), fact(2, 10 * USD, tenant=tenant, closed_at=NOW - WEEK)])
    assert later.ppm > rich.ppm


def test_weights_halve_every_twelve_weeks_and_then_are_forgotten() -> None:
    facts = [fact(number, 10 * USD) for number in range(1, 11)]
    ages = [record_of(facts, as_of=NOW + weeks * WEEK) for weeks in range(FORGOTTEN_WEEKS + 1)]
    evidence = [item.evidence for item in ages]
    assert evidence[:1] == [100 * USD]
    assert evidence[HALF_LIFE_WEEKS] == 50 * USD
    assert evidence[2 * HALF_LIFE_WEEKS] == 25 * USD
    assert all(later < earlier for earlier, later in pairwise(evidence[:100]))
    assert ages[-1].ppm == new_record(PROVIDER, RULES).ppm
    assert ages[-1].leases == 10
    assert record_of(facts, as_of=NOW - 5 * WEEK).evidence == 100 * USD  # a reader whose view is behind


@pytest.mark.parametrize("ppm", [850_000, 900_000, 980_000, 990_000, 999_000])
def test_the_cost_of_a_fake_record_is_as_documented(ppm: int) -> None:
    worth = worth_to_reach(ppm, RULES)
    tenants = -(-worth // RULES.tenant_max)
    last = worth - (tenants - 1) * RULES.tenant_max
    facts = [fact(number + 1, RULES.tenant_max) for number in range(tenants - 1)] + [fact(9999, last)]
    assert record_of(facts).ppm >= ppm
    assert record_of([*facts[:-1], fact(9999, last - 10)]).ppm < ppm
    assert record_of(facts).fee >= worth // 100 - len(facts)


def test_documented_figures() -> None:
    assert [worth_to_reach(ppm, RULES) // USD for ppm in (800_000, 900_000, 980_000, 990_000, 999_000)] == [
        0, 10, 90, 190, 1990,
    ]  # fmt: skip
    # Whoever wants to bring 98 % down to 90 % pays its victim 8.88 $, from one address.
    facts = [fact(number, 10 * USD) for number in range(1, 10)]
    assert record_of(facts).ppm == 980_000
    assert record_of([*facts, fact(99, 8_880_000, tenant_said=5)]).ppm >= 900_000
    assert record_of([*facts, fact(99, 8_900_000, tenant_said=5)]).ppm < 900_000


def test_an_interruption_of_a_moment_counts_in_part() -> None:
    quantum = USD // 60
    cut = record_of([fact(1, quantum, tenant_said=5, price_per_hour=USD)]).interruptions_ppm
    assert cut == PPM * (RULES.prior_cut + CUT_MAX * quantum) // (RULES.prior + quantum)
    assert record_of([fact(1, USD, tenant_said=5, price_per_hour=USD)]).interruptions_ppm > cut
    often = record_of([fact(number, USD, said=8, price_per_hour=USD) for number in range(1, 200)])
    assert 0.95 < often.interruptions_ppm / PPM < 1  # taken back after each hour: about one an hour
    assert often.mtbf_s == pytest.approx(3600, rel=0.06)


def test_a_lease_ends_once_and_records_are_looked_up_not_computed_again() -> None:
    ledger = Ledger(RULES)
    ledger.end(fact(1))
    ledger.end(fact(1, 50 * USD))
    assert ledger.record(PROVIDER, NOW).paid == USD
    assert ledger.record(PROVIDER, NOW) is ledger.record(PROVIDER, NOW + WEEK - 1 - NOW % WEEK)
    ledger.end(fact(2, provider="0x" + "0b" * 20))
    assert ledger.record(PROVIDER, NOW) is ledger.record(PROVIDER, NOW)
    assert ledger.providers() == [PROVIDER, "0x" + "0b" * 20]
    assert ledger.record("0x" + "0c" * 20, NOW).leases == 0
    assert ledger.facts("0x" + "0c" * 20) == []


def test_the_leases_behind_a_record_come_last_first_with_their_complaints() -> None:
    ledger = Ledger(RULES)
    for item in (fact(1, closed_at=NOW - 9), fact(2), fact(3, closed_at=NOW - 5)):
        ledger.end(item)
    ledger.complain(PROVIDER, fact(3).lease_id, 7)
    ledger.complain(PROVIDER, fact(3).lease_id, 5)
    ledger.complain(PROVIDER, fact(3).lease_id, 6)
    found = [(item.lease_id, reason) for item, reason in ledger.facts(PROVIDER)]
    assert found == [(fact(2).lease_id, None), (fact(3).lease_id, 5), (fact(1).lease_id, None)]
    assert ledger.record(PROVIDER, NOW).complaints == 1


def test_other_tokens_have_the_same_record() -> None:
    rules = Rules.of(18)
    ledger = Ledger(rules)
    ledger.end(fact(worth=10 * 10**18, price_per_hour=10**18))
    assert ledger.record(PROVIDER, NOW).ppm == record_of([fact(worth=10 * USD)]).ppm
