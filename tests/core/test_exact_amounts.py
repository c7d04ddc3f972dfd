"""Amounts are exact however long they are, and no text makes a parser fail otherwise than by its one error."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.core.units import (
    AMOUNT_MAX,
    format_duration,
    format_size,
    format_usd,
    parse_cpus,
    parse_duration,
    parse_size,
    parse_usd,
)

PARSERS: tuple[Callable[[str], int], ...] = (
    lambda text: parse_usd(text, 6),
    parse_duration,
    parse_cpus,
    parse_size,
)
"""Each takes what a person types and gives an integer."""

TYPED = st.text(alphabet="0123456789.+-eE_ $bgikmtshdwnaNIf٣²\x00", max_size=40)


@given(st.integers(0, AMOUNT_MAX), st.integers(0, 36))
@example(123_456_789_012_345_678_901_234_567_890_123_456, 6)
@example(AMOUNT_MAX, 36)
def test_a_long_amount_is_not_rounded(amount: int, decimals: int) -> None:
    digits = str(amount).rjust(decimals + 1, "0")
    text = f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
    assert parse_usd(text, decimals) == amount


@given(st.integers(0, 10**20), st.integers(7, 90))
def test_what_is_finer_than_the_unit_is_refused_at_any_depth(whole: int, places: int) -> None:
    with pytest.raises(InvalidInput):
        parse_usd(f"{whole}.{'0' * (places - 1)}1", 6)


@pytest.mark.parametrize("text", ["1e-7", "1e-101", "1e-2000000", "1e-999999999999", "0." + "0" * 120 + "1"])
def test_next_to_nothing_is_not_nothing(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_usd(text, 6)
    assert caught.value.remedy


def test_the_largest_amount_passes_and_one_more_does_not() -> None:
    assert parse_usd(str(AMOUNT_MAX), 0) == AMOUNT_MAX
    with pytest.raises(InvalidInput, match="largest"):
        parse_usd(str(AMOUNT_MAX + 1), 0)
    assert parse_usd("0." + "0" * 35 + "1", 36) == 1


@given(TYPED)
@example("9" * 5000 + "s")
@example("1" * 5000)
@example("snan")
@example("1e999999999")
@example("1e-999999999")
@example("-0")
def test_any_text_is_a_number_in_range_or_one_error(text: str) -> None:
    for parse in PARSERS:
        try:
            found = parse(text)
        except InvalidInput:
            continue
        assert isinstance(found, int)
        assert 0 <= found <= AMOUNT_MAX


def test_an_endless_duration_is_not_repeated_to_its_reader() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_duration("9" * 100_000 + "h")
    assert len(str(caught.value)) < 200


@given(st.integers(0, 10**24), st.integers(0, 18), st.integers(0, 18))
def test_a_screen_shows_no_more_than_there_is(amount: int, decimals: int, places: int) -> None:
    shown = Decimal(format_usd(amount, decimals, places))
    exact = Decimal(amount).scaleb(-decimals)
    assert shown <= exact
    assert exact - shown < Decimal(1).scaleb(-min(places, decimals))


@given(st.integers(1, 10**24), st.integers(1, 18))
def test_a_debt_is_shown_as_the_amount_with_a_sign(amount: int, decimals: int) -> None:
    assert format_usd(-amount, decimals) == "-" + format_usd(amount, decimals)


@pytest.mark.parametrize(
    ("amount", "decimals", "places", "shown"),
    [(5, 0, None, "5.00"), (199, 2, 0, "1"), (123, 6, 9, "0.000123000"), (0, 6, None, "0.00"), (5, 0, 0, "5")],
)
def test_amounts_on_screens(amount: int, decimals: int, places: int | None, shown: str) -> None:
    assert format_usd(amount, decimals, places) == shown


@given(st.integers(1, 10**9))
def test_time_in_the_past_is_the_same_with_a_sign(seconds: int) -> None:
    assert format_duration(-seconds) == "-" + format_duration(seconds)


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from("smhdw")), min_size=1, max_size=4))
def test_the_parts_of_a_duration_add_up_in_any_order_and_spacing(parts: list[tuple[int, str]]) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}
    text = " ".join(f"{count} {unit.upper()}" for count, unit in parts)
    assert parse_duration(text) == sum(count * seconds[unit] for count, unit in parts)


def test_a_duration_has_an_end() -> None:
    assert parse_duration("36600d") == 36600 * 86400
    with pytest.raises(InvalidInput, match="hundred years"):
        parse_duration("36601d")


@given(st.integers(0, 2**20), st.sampled_from(["", "k", "M", "G", "Ki", "mi", "GI"]), st.sampled_from(["", "b", "B+"]))
def test_a_size_is_its_number_times_its_unit(count: int, unit: str, end: str) -> None:
    scale = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}[unit.lower()]
    bare = not unit and not end
    assert parse_size(f" {count}{unit}{end} ", default_unit="k") == count * (1000 if bare else scale)


@given(st.integers(0, 2**60))
def test_a_size_on_a_screen_is_near_what_it_is(size: int) -> None:
    shown = parse_size(format_size(size).replace(" ", ""))
    assert abs(shown - size) * 20 <= max(size, 0)


def test_the_largest_size_passes_and_one_more_does_not() -> None:
    assert parse_size(f"{2**60}b") == 2**60
    with pytest.raises(InvalidInput, match=r"2\*\*60"):
        parse_size(f"{2**60 + 1}b")
