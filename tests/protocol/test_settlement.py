"""The arithmetic of a lease's money: exact, monotone, blind to how often it is asked."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minga.protocol.settlement import AMOUNT_MAX, FEE_BPS_MAX, fee_down, held_down, settled_after, split

amounts = st.integers(0, AMOUNT_MAX)
fees = st.integers(0, FEE_BPS_MAX)
holds = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("gross", "fee_bps", "hold_bps", "paid", "fee", "held"),
    [
        (0, 100, 5_000, 0, 0, 0),
        (99, 100, 0, 99, 0, 0),
        (100, 100, 0, 99, 1, 0),
        (101, 100, 0, 100, 1, 0),
        (1_000_000, 100, 2_000, 792_000, 10_000, 198_000),
        (1_000_000, 300, 10_000, 0, 30_000, 970_000),
        (AMOUNT_MAX, 0, 0, AMOUNT_MAX, 0, 0),
    ],
)
def test_examples(gross: int, fee_bps: int, hold_bps: int, paid: int, fee: int, held: int) -> None:
    """Worked by hand."""
    found = split(gross, fee_bps, hold_bps)
    assert (found.paid, found.fee, found.held) == (paid, fee, held)


@given(amounts, fees, holds)
def test_parts_add_up_and_none_is_negative(gross: int, fee_bps: int, hold_bps: int) -> None:
    """To the unit; fee and held part are rounded down."""
    found = split(gross, fee_bps, hold_bps)
    assert found.paid + found.fee + found.held == gross
    assert min(found.paid, found.fee, found.held) >= 0
    assert found.fee * 10_000 <= gross * fee_bps < (found.fee + 1) * 10_000
    assert (found.fee, found.held) == (fee_down(gross, fee_bps), held_down(gross, fee_bps, hold_bps))


@given(amounts, amounts, fees, holds)
def test_no_part_ever_falls(one: int, other: int, fee_bps: int, hold_bps: int) -> None:
    """More settled never takes anything back: every difference of two totals can be paid."""
    low, high = sorted((one, other))
    due = split(high, fee_bps, hold_bps) - split(low, fee_bps, hold_bps)
    assert min(due.paid, due.fee, due.held) >= 0
    assert due.paid + due.fee + due.held == high - low


@given(st.lists(amounts, min_size=1, max_size=20), fees, holds)
def test_many_redeems_are_one(vouchers: list[int], fee_bps: int, hold_bps: int) -> None:
    """In whatever order vouchers come, what they move adds up to what the largest alone would have moved."""
    deposit, settled, paid, fee, held = AMOUNT_MAX // 2, 0, 0, 0, 0
    for cumulative in vouchers:
        after = settled_after(settled, deposit, cumulative)
        due = split(after, fee_bps, hold_bps) - split(settled, fee_bps, hold_bps)
        settled, paid, fee, held = after, paid + due.paid, fee + due.fee, held + due.held
    once = split(min(max(vouchers), deposit), fee_bps, hold_bps)
    assert (paid, fee, held) == (once.paid, once.fee, once.held)


@given(amounts, amounts, amounts)
def test_settled_stays_between_what_it_was_and_the_deposit(settled: int, deposit: int, cumulative: int) -> None:
    """Never less than before, never over the deposit, never more than was signed."""
    settled = min(settled, deposit)
    after = settled_after(settled, deposit, cumulative)
    assert settled <= after <= deposit
    assert after in (settled, deposit, cumulative)
