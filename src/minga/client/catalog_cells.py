"""What one cell of a price catalog means: a price, a date, a vendor, a card, and what is an error.

Here stand the tables of what a catalog cannot know: vendors that renamed themselves, markets, and those who resell.
Does not know which columns a catalog has.

Rule: a cell that cannot be read is an error with its file and line; an empty or zero price is no price.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path

from minga.core.errors import InvalidInput, MingaError
from minga.protocol.accelerators import Accelerator
from minga.protocol.price_quotes import MICRO, Kind, card_class

PRICE_MAX = 500
"""Dollars per GPU-hour from which a price is a placeholder (one catalog writes 700 for what it does not sell)."""

VENDORS = {
    "vast-ai": "vast", "vastai": "vast", "vast.ai": "vast", "datacrunch": "verda", "lambdalabs": "lambda",
    "lambda-labs": "lambda", "oci": "oracle", "jarvislabs": "jarvis-labs", "cudocompute": "cudo",
}  # fmt: skip
"""One vendor, one name: renamed (DataCrunch is Verda), or written in several ways."""

MARKETS = frozenset({"akash", "lium", "salad", "spheron", "vast"})
"""Vendors whose prices are many owners' asks."""

BROKERS = frozenset({"primeintellect", "shadeform"})
"""Vendors that resell others' machines: their rows would count those twice."""

EPOCH = date(1970, 1, 1)


def vendor_of(name: str) -> str:
    """The one name of a vendor."""
    name = name.strip().lower()
    return VENDORS.get(name, name)


def kinds_of(vendor: str) -> tuple[Kind, Kind]:
    """How a vendor's full and its cheaper prices are sold."""
    return ("market", "interruptible") if vendor in MARKETS else ("on_demand", "spot")


@lru_cache(maxsize=4096)
def _class(name: str, memory_gb: int | None) -> Accelerator:
    return card_class(name, memory_gb)


def card_of(name: str, memory_gb: int | None, file: Path, line: int) -> Accelerator:
    """The class of a card.

    Raises:
        InvalidInput: not a card's name.
    """
    try:
        return _class(name, memory_gb)
    except MingaError as error:
        raise bad_cell(file, line, error.fact, error.remedy) from None


def count_of(text: str, file: Path, line: int) -> float:
    """How many GPUs an instance has, or a part of one; 0 where there is none.

    Raises:
        InvalidInput: not a number.
    """
    try:
        return float(text or 0)
    except ValueError:
        raise bad_cell(file, line, f"count {text[:40]!r}", "write a number of GPUs") from None


def micro_of(text: str, file: Path, line: int, count: float = 1) -> int | None:
    """Micro-dollars per GPU-hour of dollars for `count` GPUs; None where there is no price.

    Raises:
        InvalidInput: not a number, or below zero.
    """
    text = text.strip().removeprefix("$")
    if text.lower() in ("", "nan", "none"):
        return None
    try:
        micro = int((Decimal(text) / Decimal(count) * MICRO).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError, OverflowError):
        raise bad_cell(file, line, f"price {text[:40]!r}", "write dollars, such as 1.50") from None
    if micro < 0:
        raise bad_cell(file, line, f"price {text[:40]!r}", "it must not be below zero")
    return micro if 0 < micro < PRICE_MAX * MICRO else None


def day_of(text: str, file: Path, line: int) -> int:
    """Days since 1970-01-01 of `2026-05-24`, `2026-05` or `2026 …`: the first that it can mean; 0 where there is none.

    Raises:
        InvalidInput: not a date.
    """
    head = text.split(" ")[0]
    if not head:
        return 0
    try:
        year, month, day = (*head.split("-"), "1", "1")[:3]
        return (date(int(year), int(month), int(day)) - EPOCH).days
    except ValueError:
        raise bad_cell(file, line, f"date {text[:40]!r}", "write it as 2026-05-24") from None


def file_day(file: Path) -> tuple[int, str]:
    """When a file was written, as a day and in words."""
    written = datetime.fromtimestamp(file.stat().st_mtime, UTC).date()
    return (written - EPOCH).days, f"{written} (file)"


def offers_of(note: str) -> int | None:
    """How many offers a remark says that a price rests on (`median of 3 verified 1x offers`)."""
    words = note.split()
    counted = len(words) > 3 and words[:2] == ["median", "of"] and words[2].isdigit() and "offers" in note
    return int(words[2]) if counted else None


def memory_of(row: Mapping[str, str], count: float) -> int | None:
    """Gigabytes of one A100 from SkyPilot's description, whose total is of one card in some files, of all in others."""
    _, _, total = row.get("GpuInfo", "").partition("'TotalGpuMemoryInMiB': ")
    digits = total.rstrip("}").strip()
    if not digits.isdigit():
        return 40 if row["AcceleratorName"] == "A100" else None
    sizes = (int(digits) / count / 1024, int(digits) / 1024)
    return next((known for size in sizes for known in (40, 80) if abs(size - known) < 1), None)


def with_form(name: str, instance: str) -> str:
    """SkyPilot's name of a card, and the form factor that the instance's name says (`1x-H100_NVL-32-65536`)."""
    for form in ("SXM", "NVL", "PCIE"):
        if form in instance.upper() and form not in name.upper():
            return f"{name}-{form}"
    return name


def bad_cell(file: Path, line: int, what: str, remedy: str) -> InvalidInput:
    """The error of a cell that cannot be read."""
    return InvalidInput(f"{file} line {line}: {what} cannot be read", remedy)
