"""The board's cache: it keeps only what proves itself, keeps the newest, forgets, and stays bounded."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from board_offers import DOMAIN, NOW, bundle_of, key_of
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.eip712 import Domain
from minga.core.errors import Conflict, Expired, InvalidInput, InvalidSignature, MingaError, TooManyRequests
from minga.explorer.board import FloodGate, Limits, OfferBook
from minga.protocol.search import parse_query
from minga.protocol.wire import OfferBundle

ALL = parse_query("")


def held(book: OfferBook, now: int = NOW) -> list[OfferBundle]:
    return book.search(ALL, 10_000, now)


def test_a_good_offer_is_kept_and_the_same_again_changes_nothing() -> None:
    book, bundle = OfferBook(DOMAIN), bundle_of(key_of(1))
    assert book.add(bundle, NOW)
    assert not book.add(bundle, NOW + 1)
    assert held(book) == [bundle]


def test_another_chain_or_contract_is_refused() -> None:
    for domain in (Domain(1, DOMAIN.market), Domain(DOMAIN.chain_id, "0x" + "cd" * 20)):
        book = OfferBook(DOMAIN)
        with pytest.raises(InvalidSignature):
            book.add(bundle_of(key_of(1), domain=domain), NOW)
        assert len(book) == 0


def test_a_copy_signed_by_another_key_does_not_displace_the_offer() -> None:
    book, provider = OfferBook(DOMAIN), key_of(1)
    honest = bundle_of(provider)
    thief = bundle_of(key_of(2), provider=provider.address, url="http://127.0.0.1:6666", posted_at=NOW + 5)
    assert thief.offer_hash() == honest.offer_hash()
    book.add(honest, NOW)
    book.add(thief, NOW)
    assert honest in held(book)


def test_the_newest_posting_wins_and_an_older_one_is_refused() -> None:
    book, provider = OfferBook(DOMAIN), key_of(1)
    old, new = (
        bundle_of(provider, url="http://127.0.0.1:1"),
        bundle_of(provider, url="http://127.0.0.1:2", posted_at=NOW + 1),
    )
    book.add(old, NOW)
    book.add(new, NOW + 1)
    with pytest.raises(Conflict):
        book.add(old, NOW + 2)
    assert held(book) == [new]


def test_a_renewed_offer_replaces_the_old_one() -> None:
    book, provider = OfferBook(DOMAIN), key_of(1)
    book.add(bundle_of(provider, price_per_hour=5), NOW)
    renewed = bundle_of(provider, salt=1, posted_at=NOW + 1, valid_until=NOW + 900, price_per_hour=7)
    book.add(renewed, NOW + 1)
    assert held(book) == [renewed]
    other = bundle_of(provider, salt=2, posted_at=NOW + 1, quantum=5)
    book.add(other, NOW + 1)
    assert len(held(book)) == 2


def test_time_is_judged() -> None:
    book, provider = OfferBook(DOMAIN, Limits(keep_s=100)), key_of(1)
    with pytest.raises(Expired):
        book.add(bundle_of(provider, valid_until=NOW), NOW)
    with pytest.raises(Expired):
        book.add(bundle_of(provider, posted_at=NOW - 100), NOW)
    with pytest.raises(InvalidInput, match="posted at"):
        book.add(bundle_of(provider, posted_at=NOW + 901), NOW)
    assert len(book) == 0


def test_offers_are_forgotten_when_they_end_or_are_not_posted_again() -> None:
    book = OfferBook(DOMAIN, Limits(keep_s=1000))
    book.add(bundle_of(key_of(1), valid_until=NOW + 10), NOW)
    book.add(bundle_of(key_of(2), valid_until=NOW + 5000), NOW)
    assert len(held(book, NOW + 9)) == 2
    assert len(held(book, NOW + 10)) == 1
    assert len(held(book, NOW + 1000)) == 0
    assert len(book) == 0


def test_one_key_cannot_push_the_others_out_and_memory_is_bounded() -> None:
    book = OfferBook(DOMAIN, Limits(offers_max=6, per_agent=3))
    book.add(bundle_of(key_of(1)), NOW)
    for salt in range(5):
        book.add(bundle_of(key_of(2), quantum=60 + salt), NOW)
    agents = [bundle.agent for bundle in held(book)]
    assert agents.count(key_of(2).address) == 3
    assert key_of(1).address in agents
    for number in range(10, 30):
        book.add(bundle_of(key_of(number)), NOW)
    assert len(book) == 6
    assert {bundle.agent for bundle in held(book)} == {key_of(number).address for number in range(24, 30)}


def test_search_finds_what_the_query_says_cheapest_first() -> None:
    book = OfferBook(DOMAIN)
    book.add(bundle_of(key_of(1), gpu="NVIDIA GeForce RTX 4090", price_per_hour=900_000), NOW)
    book.add(bundle_of(key_of(2), gpu="NVIDIA GeForce RTX 4090", price_per_hour=400_000), NOW)
    book.add(bundle_of(key_of(3), price_per_hour=100_000), NOW)
    found = book.search(parse_query("gpu=RTX4090 price<1"), 10, NOW)
    assert [bundle.agent for bundle in found] == [key_of(2).address, key_of(1).address]
    assert len(book.search(ALL, 1, NOW)) == 1


def test_the_index_agrees_with_the_cache_after_it_was_rebuilt() -> None:
    book = OfferBook(DOMAIN, Limits(offers_max=4, per_agent=2))
    for number in range(1, 14):
        book.add(bundle_of(key_of(number % 5 + 1), quantum=number), NOW)
        assert len(held(book)) == len(book) <= 4


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every leaf of a JSON value."""
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in paths(item, (*prefix, key))]
    if isinstance(value, list):
        return [place for index, item in enumerate(value) for place in paths(item, (*prefix, index))]
    return [prefix]


def mutate(value: Any, place: tuple[Any, ...], dice: random.Random) -> Any:
    """The value with one leaf changed into a near one of the same type."""
    changed = copy.deepcopy(value)
    target = changed
    for step in place[:-1]:
        target = target[step]
    leaf = target[place[-1]]
    if isinstance(leaf, bool):
        new: Any = not leaf
    elif isinstance(leaf, int):
        new = leaf + dice.choice([-1, 1, 1000])
    elif isinstance(leaf, str) and leaf:
        at = dice.randrange(len(leaf))
        new = leaf[:at] + dice.choice([c for c in "0123456789abcdef" if c != leaf[at].lower()]) + leaf[at + 1 :]
    else:
        new = "x"
    target[place[-1]] = new
    return changed


def test_no_mutated_bundle_is_kept() -> None:
    seed, dice = 20_261, random.Random(20_261)
    original = bundle_of(key_of(1), gpu="H100").plain()
    places = paths(original)
    for round_ in range(2_000):
        wrong = mutate(original, places[round_ % len(places)], dice)
        book = OfferBook(DOMAIN)
        with pytest.raises(MingaError):
            book.add(OfferBundle.parse(json.dumps(wrong)), NOW)
        assert len(book) == 0, f"seed {seed}, round {round_}: {wrong}"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(-50, 50), st.integers(1, 200), st.integers(0, 30)),
        max_size=25,
    )
)
def test_whatever_is_posted_the_cache_holds_only_the_valid_newest_and_bounded(
    posts: list[tuple[int, int, int, int, int]],
) -> None:
    limits = Limits(offers_max=5, per_agent=2, keep_s=60)
    book, now = OfferBook(DOMAIN, limits), NOW
    newest: dict[tuple[str, int], int] = {}
    for agent, kind, age, life, passed in posts:
        now += passed
        bundle = bundle_of(key_of(agent), quantum=60 + kind, posted_at=now - age, valid_until=NOW + life)
        key = (bundle.agent, kind)
        try:
            book.add(bundle, now)
            newest[key] = bundle.posted_at
        except MingaError:
            pass
        found = held(book, now)
        assert len(found) == len(book) <= limits.offers_max
        for kept in found:
            assert kept.offer.valid_until > now
            assert kept.posted_at + limits.keep_s > now
            assert newest[kept.agent, kept.offer.quantum - 60] == kept.posted_at
        agents = [kept.agent for kept in found]
        assert all(agents.count(one) <= limits.per_agent for one in agents)


def test_what_was_written_is_read_again_and_checked_again() -> None:
    book = OfferBook(DOMAIN)
    book.add(bundle_of(key_of(1)), NOW)
    book.add(bundle_of(key_of(2), valid_until=NOW + 5), NOW)
    assert book.changes == 2
    lines = book.lines().splitlines(keepends=True)
    again = OfferBook(DOMAIN)
    assert again.load([b"torn\n", lines[0].replace(b"7000", b"6666"), *lines], NOW + 5) == 1
    assert again.search(ALL, 9, NOW + 5) == [bundle_of(key_of(1))]


def test_the_flood_gate_refuses_refills_and_is_bounded() -> None:
    gate = FloodGate(Limits(posts_per_minute=60, callers_max=2))
    for _ in range(60):
        gate.pass_one("a", 0.0)
    with pytest.raises(TooManyRequests) as refused:
        gate.pass_one("a", 0.0)
    assert refused.value.details["wait_s"] >= 1
    gate.pass_one("a", 1.0)
    with pytest.raises(TooManyRequests):
        gate.pass_one("a", 1.0)
    gate.pass_one("b", 1.0)
    gate.pass_one("c", 1.0)
    assert len(gate._buckets) == 2
