"""Money and time as integers.

Money is an integer of *token units* (a stablecoin of `decimals` digits, 6 in production: 1_000_000 is one dollar).
Time near money is whole seconds. There is no float on any path that reaches an amount: dollars typed by a person
are parsed from text as decimals. Rounding is always down, and what is left is the tenant's.
"""

from __future__ import annotations

import re
from decimal import ROUND_DOWN, Context, Decimal, InvalidOperation
from typing import NewType

from minga.core.errors import InvalidInput

Amount = NewType("Amount", int)
"""Token units, 0 … 2**128 − 1."""

Seconds = NewType("Seconds", int)
"""Whole seconds."""

AMOUNT_MAX = 2**128 - 1
HOUR = 3600
DAY = 86400
GIB = 1024**3
BPS = 10_000

_EXACT = Context(prec=200)
"""More digits than an amount that is let through has: Python's own 28 would round a large one."""

_PERCENT = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?%", re.ASCII)

_TIME_UNITS = {"s": 1, "m": 60, "h": HOUR, "d": DAY, "w": 7 * DAY}
_SIZE_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def parse_usd(text: str | int, decimals: int) -> Amount:
    """Token units from dollars as a person types them: `2`, `"0.35"`, `"$1.50"`.

    Args:
        text: dollars; a string or an int (floats are refused: they are not exact).
        decimals: digits of the token, 0 … 36.

    Raises:
        InvalidInput: not a number, negative, not finite, finer than the token's unit, or over `AMOUNT_MAX`.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InvalidInput(f"an amount must be text or a whole number, not {type(text).__name__}", "write it as '1.50'")
    try:
        value = Decimal(str(text).strip().removeprefix("$").replace("_", ""))
    except InvalidOperation:
        raise InvalidInput(f"{text!r} is not an amount of dollars", "write it as 1.50") from None
    if not value.is_finite() or value < 0 or value.adjusted() > 60:
        raise InvalidInput(f"{text!r} is not an amount of dollars", "it must be zero or more, and finite")
    if len(value.as_tuple().digits) > 100 or value.adjusted() < -100:
        raise InvalidInput(f"{str(text)[:40]!r}… is not an amount of dollars", "use fewer digits")
    units = value.scaleb(decimals, _EXACT)
    if units != units.to_integral_value(ROUND_DOWN):
        raise InvalidInput(f"{text!r} is finer than the token's smallest unit", f"use at most {decimals} decimals")
    if units > AMOUNT_MAX:
        raise InvalidInput(f"{text!r} is over the largest amount", "use a smaller one")
    return Amount(int(units))


def format_usd(amount: int, decimals: int, places: int | None = None) -> str:
    """Dollars as text, exact: `format_usd(1_500_000, 6)` is `"1.50"`; at least two decimals, more when needed.

    With `places` the text is rounded down to that many decimals (for screens only).
    """
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    whole, part = divmod(amount, 10**decimals)
    digits = f"{part:0{decimals}d}" if decimals else ""
    digits = digits[:places].ljust(places, "0") if places is not None else digits.rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def parse_duration(text: str | int) -> Seconds:
    """Whole seconds from `90`, `"90s"`, `"10m"`, `"1h30m"`, `"2d"`.

    Raises:
        InvalidInput: not a duration, negative, or over a hundred years.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InvalidInput(f"{text!r} is not a duration", "write it as 90s, 10m, 2h or 1d")
    source = str(text).strip().lower().replace(" ", "")
    if len(source) > 20:
        raise InvalidInput(f"{source[:20]!r}… is not a duration", "write it as 90s, 10m, 2h or 1d")
    total, number, seen = 0, "", False
    for char in source:
        if char.isascii() and char.isdigit():
            number += char
        elif number and char in _TIME_UNITS:
            total, number, seen = total + int(number) * _TIME_UNITS[char], "", True
        else:
            raise InvalidInput(f"{text!r} is not a duration", "write it as 90s, 10m, 2h or 1d")
    if (number and seen) or not (number or seen):
        raise InvalidInput(f"{text!r} is not a duration", "write it as 90s, 10m, 2h or 1d")
    total += int(number or 0)
    if total > 100 * 366 * DAY:
        raise InvalidInput(f"{text!r} is over a hundred years", "use a shorter duration")
    return Seconds(total)


def format_duration(seconds: int) -> str:
    """`3725` is `"1h 2m 5s"`; zero parts are left out."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    parts = []
    for name in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, _TIME_UNITS[name])
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts) or "0s"


def parse_percent(text: str | int) -> int:
    """Basis points of a per cent text such as `10%` or `2.5%`, 1 … 10,000.

    Raises:
        InvalidInput: not such a text, or out of range.
    """
    found = _PERCENT.fullmatch(str(text))
    points = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0
    if not 1 <= points <= 10_000:
        raise InvalidInput(f"{str(text)[:40]!r} is not a part between 0.01% and 100%", "write it as 10%")
    return points


def parse_cpus(text: str | int | float) -> int:
    """Thousandths of a core from `4`, `1.5`, `"0.25"`, `"4+"`.

    Raises:
        InvalidInput: not a number of cores over zero and below 10,000, or finer than a thousandth.
    """
    source = str(text).strip().removesuffix("+").strip()
    if isinstance(text, bool) or not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", source):
        raise InvalidInput(f"{str(text)[:40]!r} is not a number of cores", "write 4, or 4+ (both: at least 4)")
    whole, _, part = source.partition(".")
    milli = int(whole) * 1000 + int(part.ljust(3, "0"))
    if not milli:
        raise InvalidInput("no cores at all are ordered", "write 4, or 4+ (both: at least 4)")
    return milli


def parse_size(text: str | int, default_unit: str = "gi") -> int:
    """Bytes from `"512MB"`, `"1.5GiB"`, `"16"`, `"16+"`; a bare number counts in `default_unit` (SkyPilot: GiB).

    Raises:
        InvalidInput: not a size, negative, or over 2**60.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise InvalidInput(f"{text!r} is not a size", "write it as 512MB or 16GiB")
    source = str(text).strip().lower().rstrip("+").strip()
    head = source.rstrip("bigkmt")
    unit = source[len(head) :].rstrip("b")
    if unit == "" and not source.endswith("b"):
        unit = default_unit
    try:
        value = Decimal(head.strip())
    except InvalidOperation:
        raise InvalidInput(f"{text!r} is not a size", "write it as 512MB or 16GiB") from None
    if unit not in _SIZE_UNITS or not value.is_finite() or value < 0 or value.adjusted() > 20:
        raise InvalidInput(f"{text!r} is not a size", "write it as 512MB or 16GiB")
    total = int(value * _SIZE_UNITS[unit])
    if total > 2**60:
        raise InvalidInput(f"{text!r} is over 2**60 bytes", "use a smaller size")
    return total


def format_size(size: int) -> str:
    """`1_610_612_736` is `"1.5 GiB"`."""
    value, unit = float(size), "B"
    for name in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, name
    return f"{int(value)} B" if unit == "B" else f"{value:.1f} {unit}".replace(".0 ", " ")
