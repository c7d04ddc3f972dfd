"""Money, time and sizes as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
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


@pytest.mark.parametrize(
    ("text", "units"),
    [("2", 2_000_000), ("0.35", 350_000), ("$1.50", 1_500_000), (3, 3_000_000), ("0.000001", 1), ("0", 0)],
)
def test_dollars_become_exact_units(text, units):
    assert parse_usd(text, 6) == units


@pytest.mark.parametrize(
    "text", ["", "-1", "nan", "inf", "1e99", "0.0000001", "two", "1,5", True, 1.5, None, "1" * 60, "9e60"]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_usd(text, 6)


@given(st.integers(0, AMOUNT_MAX), st.integers(0, 18))
def test_formatting_an_amount_loses_nothing(amount, decimals):
    assert parse_usd(format_usd(amount, decimals), decimals) == amount


def test_screens_round_down():
    assert format_usd(1_999_999, 6, places=2) == "1.99"
    assert format_usd(-5, 6, places=2) == "-0.00"
    assert format_usd(5_000_001, 6) == "5.000001"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (90, 90), ("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1x", "-5", "1h30", "1.5h", None, True, "9" * 30, "²s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_durations_round_trip(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MB", 512 * 10**6), ("1.5GiB", 3 * 2**29), ("16", 16 * 2**30), ("16+", 16 * 2**30), (2, 2**31), ("10b", 10)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1GB", "1QB", "GB", "nan", None, True, "9999999TiB", "1 2GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_size(text)


def test_sizes_are_written_short():
    assert [format_size(n) for n in (0, 1023, 1024, 3 * 2**29, 2**40)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.5 GiB",
        "1 TiB",
    ]


@given(st.integers(1, 9_999_999))
def test_cores_are_exact_thousandths(milli: int) -> None:
    text = f"{milli // 1000}.{milli % 1000:03}"
    assert parse_cpus(text) == parse_cpus(f" {text}+ ") == milli
    assert parse_cpus(4) == parse_cpus("4") == parse_cpus(4.0) == 4000


@pytest.mark.parametrize(
    "text", ["", "many", "0", "0.000", "-1", "nan", "inf", "1e3", "4++", "1.0005", "10000", True, "٤", "1.", ".5", None]
)
def test_what_is_no_number_of_cores_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput):
        parse_cpus(text)  # type: ignore[arg-type]
