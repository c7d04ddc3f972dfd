"""Batch matching: rules kept, near the optimum; the double auction: what it promises to whom."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minga.protocol.assignment import Bid, Clearing, Lot, Matching, clear, match

KINDS = 3
LOTS = st.lists(st.builds(Lot, st.integers(0, 20), st.integers(0, 4), st.integers(0, KINDS - 1)), max_size=5)
WANTS = st.lists(
    st.lists(st.tuples(st.integers(0, KINDS - 1), st.integers(1, 3)), max_size=3, unique_by=lambda pair: pair[0]),
    min_size=1, max_size=3,
)  # fmt: skip
PRICES = st.lists(st.integers(0, 12), max_size=7)


@st.composite
def markets(draw) -> tuple[list[Bid], list[Lot], list[list[tuple[int, int]]]]:
    """A small market."""
    options = draw(WANTS)
    bids = draw(st.lists(st.builds(Bid, st.integers(0, 40), st.integers(0, len(options) - 1)), max_size=5))
    return bids, draw(LOTS), options


def surplus_of(bids, lots, options, lot_of) -> int | None:
    """Σ value − cost, or None where a rule is broken."""
    left, surplus = [lot.units for lot in lots], 0
    for bid, lot in zip(bids, lot_of, strict=True):
        if lot >= 0:
            units = dict(options[bid.want]).get(lots[lot].kind)
            if units is None:
                return None
            left[lot] -= units
            surplus += bid.value - lots[lot].cost * units
    return None if left and min(left) < 0 else surplus


def optimum(bids, lots, options) -> int:
    """By trying everything."""
    tried = (surplus_of(bids, lots, options, choice) for choice in product(range(-1, len(lots)), repeat=len(bids)))
    return max((found for found in tried if found is not None), default=0)


@given(markets())
@settings(max_examples=150, deadline=None)
def test_a_match_keeps_every_rule_and_is_never_above_the_optimum(market) -> None:
    bids, lots, options = market
    found = match(bids, lots, options)
    assert found.surplus == surplus_of(bids, lots, options, found.lot_of)
    assert 0 <= found.surplus <= optimum(bids, lots, options)
    assert found == match(bids, lots, options)
    for bid, lot in zip(bids, found.lot_of, strict=True):
        if lot >= 0:
            assert bid.value > lots[lot].cost * dict(options[bid.want])[lots[lot].kind]


@given(markets())
@settings(max_examples=150, deadline=None)
def test_nobody_is_left_out_who_could_still_gain(market) -> None:
    bids, lots, options = market
    found = match(bids, lots, options)
    left = [lot.units for lot in lots]
    for bid, lot in zip(bids, found.lot_of, strict=True):
        if lot >= 0:
            left[lot] -= dict(options[bid.want])[lots[lot].kind]
    for bid, lot in zip(bids, found.lot_of, strict=True):
        for number, other in enumerate(lots):
            units = dict(options[bid.want]).get(other.kind)
            if lot < 0 and units is not None and left[number] >= units:
                assert bid.value <= other.cost * units


@given(st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=150, deadline=None)
def test_in_one_class_of_single_units_greedy_is_the_optimum(values, costs) -> None:
    bids, lots = [Bid(value, 0) for value in values], [Lot(cost, 1, 0) for cost in costs]
    pairs = zip(sorted(values, reverse=True), sorted(costs), strict=False)
    assert match(bids, lots, [[(0, 1)]]).surplus == sum(max(0, value - cost) for value, cost in pairs)


def test_a_lot_serves_several_jobs_and_a_large_job_needs_one_lot() -> None:
    options = [[(0, 1)], [(0, 4)]]
    found = match([Bid(10, 0), Bid(9, 0), Bid(32, 1), Bid(1, 0)], [Lot(2, 2, 0), Lot(3, 4, 0)], options)
    assert found == Matching([0, 0, 1, -1], 8 + 7 + 20)
    assert match([Bid(32, 1)], [Lot(2, 2, 0), Lot(2, 2, 0)], options) == Matching([-1], 0)
    assert match([], [], []) == Matching([], 0)
    assert match([Bid(5, 0)], [], [[]]) == Matching([-1], 0)


def test_ties_go_to_the_first() -> None:
    assert match([Bid(5, 0)] * 3, [Lot(1, 1, 0)] * 2, [[(0, 1)]]).lot_of == [0, 1, -1]
    assert clear([5, 5, 5], [1, 1]) == Clearing(5, (0, 1), (0, 1))


# ----------------------------------------------------------------------------------------------------- double auction


@given(PRICES, PRICES)
@settings(max_examples=300, deadline=None)
def test_nobody_loses_money_is_conserved_and_every_sensible_trade_is_made(bids, asks) -> None:
    found = clear(bids, asks)
    assert len(found.buyers) == len(found.sellers)
    assert all(bids[buyer] >= found.price for buyer in found.buyers)
    assert all(asks[seller] <= found.price for seller in found.sellers)
    paid = [found.price for _ in found.buyers]
    got = [found.price for _ in found.sellers]
    assert sum(paid) == sum(got)
    gains = sum(bids[buyer] for buyer in found.buyers) - sum(asks[seller] for seller in found.sellers)
    best = max(
        (
            sum(some) - sum(others)
            for count in range(min(len(bids), len(asks)) + 1)
            for some, others in [(sorted(bids)[len(bids) - count :], sorted(asks)[:count])]
        ),
        default=0,
    )
    assert gains == best


@given(PRICES, PRICES, st.integers(0, 6), st.integers(0, 14))
@settings(max_examples=300, deadline=None)
def test_a_seller_of_one_unit_does_best_with_its_true_cost(bids, asks, seller, lie) -> None:
    assume(seller < len(asks))
    cost = asks[seller]

    def profit(ask: int) -> int:
        found = clear(bids, [*asks[:seller], ask, *asks[seller + 1 :]])
        return found.price - cost if seller in found.sellers else 0

    assert profit(cost) >= profit(lie)


def test_no_lie_of_a_seller_pays_in_any_small_market() -> None:
    tried = 0
    for bids in combinations(range(0, 10, 2), 3):
        for asks in combinations(range(1, 10, 2), 3):
            for seller in range(3):
                honest = clear(bids, asks)
                best = honest.price - asks[seller] if seller in honest.sellers else 0
                for lie in range(12):
                    lied = clear(bids, [*asks[:seller], lie, *asks[seller + 1 :]])
                    assert best >= (lied.price - asks[seller] if seller in lied.sellers else 0)
                    tried += 1
    assert tried == 10 * 10 * 3 * 12


def test_a_buyer_may_gain_by_bidding_less_as_the_docstring_says() -> None:
    assert clear([10], [1]) == Clearing(10, (0,), (0,))
    assert clear([2], [1]) == Clearing(2, (0,), (0,))


def test_the_price_is_the_lower_of_last_bid_and_next_ask() -> None:
    assert clear([9, 7, 5, 3], [1, 4, 6, 8]) == Clearing(6, (0, 1), (0, 1))
    assert clear([9, 7, 5, 3], [1, 4, 8, 8]) == Clearing(7, (0, 1), (0, 1))
    assert clear([1], [2]) == clear([], [2]) == clear([1], []) == Clearing(0, (), ())
    assert clear([2], [2]) == Clearing(2, (0,), (0,))
