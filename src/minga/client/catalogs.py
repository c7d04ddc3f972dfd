"""Reads price catalogs into quotes: the shipped one, and those that a user has on disk.

| catalog | told by its columns | one row is |
|---|---|---|
| ours | `gpu`, `vendor`, `kind`, `usd_per_gpu_hour`, `date` | one price of one GPU for an hour |
| SkyPilot's | `InstanceType`, `AcceleratorName`, `Price` | an instance, on demand and spot, in one zone |
| gpuhunt's | `instance_name`, `gpu_name`, `price`, `spot` | an instance in one place, on demand or spot |

A folder is read whole; files in it with other columns are passed over. Prices are the instance's divided by its GPUs,
rounded to a micro-dollar. A price of zero means that there is none. Prices of instances are as old as their file.

Rule: nothing is guessed; a row that cannot be read is an error with its line, one that must not count is counted.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

from minga.client.catalog_cells import (
    BROKERS,
    bad_cell,
    card_of,
    count_of,
    day_of,
    file_day,
    kinds_of,
    memory_of,
    micro_of,
    offers_of,
    vendor_of,
    with_form,
)  # fmt: skip
from minga.client.catalog_hosts import with_hosts
from minga.core.errors import InvalidInput, NotFound
from minga.protocol.price_history import Point
from minga.protocol.price_quotes import KINDS, Kind, Quote, card_class

DATA = Path(__file__).resolve().parent.parent / "data"
NO_PRICE = "no price (0.00 means missing)"
NO_GPU = "no GPU, or a part of one"
RESOLD = "resold: the vendor behind it speaks for itself"

_KINDS: Mapping[str, Kind] = {
    **{kind: kind for kind in KINDS},
    "on-demand": "on_demand",
    "spot_median": "spot",
    "market_interruptible": "interruptible",
}
OURS = ("gpu", "vendor", "kind", "usd_per_gpu_hour", "date")
SKYPILOT = ("InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "Region")
GPUHUNT = ("instance_name", "gpu_name", "gpu_count", "price", "spot")


@dataclass
class Catalog:
    """What was read: quotes, how many rows were left out and why, and which files."""

    quotes: list[Quote] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    files: list[Path] = field(default_factory=list)


Row = Mapping[str, str]
Reader = Callable[[Iterable[tuple[int, Row]], Path, Counter[str]], Iterator[Quote]]


@cache
def shipped_quotes() -> tuple[Quote, ...]:
    """The quotes of the package's own data."""
    return tuple(read_catalog(DATA / "gpu_prices.csv").quotes)


@cache
def shipped_history() -> tuple[Point, ...]:
    """The monthly series of the package's own data, in the file's order; rows without an exact month are left out."""
    file, found = DATA / "gpu_price_history.csv", []
    for line, row in _rows(file):
        year, _, month = row["period"].partition("-")
        if len(row["period"]) == 7 and year.isdigit() and month.isdigit():
            price = micro_of(row["usd_per_gpu_hour"], file, line)
            found.append(
                Point(card_class(row["gpu"]), row["series"], int(year) * 12 + int(month) - 1, price, row["source"])
            )
    return tuple(found)


def read_catalog(path: Path) -> Catalog:
    """Every quote of a file or of the files in a folder.

    Raises:
        NotFound: there is no such file.
        InvalidInput: no file has columns that are known, or a row of one that has cannot be read.
    """
    if not path.exists():
        raise NotFound(f"there is no catalog at {path}", "name a CSV file, or a folder of them")
    catalog = Catalog()
    for file in sorted(path.rglob("*.csv")) if path.is_dir() else [path]:
        reader = _reader_of(file)
        if reader is not None:
            catalog.files.append(file)
            catalog.quotes += reader(_rows(file), file, catalog.left_out)
    if not catalog.files:
        known = " or ".join(", ".join(columns) for columns in (OURS, SKYPILOT, GPUHUNT))
        raise InvalidInput(f"{path} has no price catalog that is known", f"a CSV file's first line must have {known}")
    return catalog


def _reader_of(file: Path) -> Reader | None:
    with file.open(encoding="utf-8-sig", newline="", errors="replace") as text:
        head = set(next(csv.reader(text), []))
    for columns, reader in ((OURS, _ours), (SKYPILOT, _skypilot), (GPUHUNT, _gpuhunt)):
        if head.issuperset(columns):
            return reader
    return None


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with file.open(encoding="utf-8-sig", newline="", errors="replace") as text:
        rows = csv.DictReader(text, restval="")
        try:
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise InvalidInput(f"{file} line {rows.line_num}: {error}", "it must be a CSV file") from None


def _ours(rows: Iterable[tuple[int, Row]], file: Path, left_out: Counter[str]) -> Iterator[Quote]:
    for line, row in rows:
        kind = _KINDS.get(row["kind"])
        if kind is None:
            raise bad_cell(file, line, f"kind {row['kind'][:40]!r}", f"use {', '.join(_KINDS)}")
        price = micro_of(row["usd_per_gpu_hour"], file, line)
        if price is None:
            left_out[NO_PRICE] += 1
            continue
        note, source = row.get("note", ""), row.get("source") or ("" if file.parent == DATA else file.name)
        yield Quote(
            card_of(row["gpu"], None, file, line), vendor_of(row["vendor"]), kind, price,
            day_of(row["date"], file, line), row["date"] or "undated", source, row.get("region", ""), note,
            offers_of(note), _summary(row["kind"], note, source),
        )  # fmt: skip


def _summary(kind: str, note: str, source: str) -> Literal["price", "lowest", "median", "mean"]:
    """Which of several prices a row is, by what it says of itself."""
    if kind == "spot_median" or note.startswith("median"):
        return "median"
    if note.startswith(("cheapest", "'starting at'")):
        return "lowest"
    return "mean" if "provider averages" in source else "price"


def _skypilot(rows: Iterable[tuple[int, Row]], file: Path, left_out: Counter[str]) -> Iterator[Quote]:
    vendor = vendor_of(file.parent.name if file.stem == "vms" else file.stem)
    if vendor in BROKERS:
        left_out[RESOLD] += sum(1 for _ in rows)
        return
    found = []
    day, dated = file_day(file)
    for line, row in with_hosts(rows, left_out):
        name, count = row["AcceleratorName"], count_of(row["AcceleratorCount"], file, line)
        if not name or name.startswith("tpu") or count < 1:
            left_out[NO_GPU] += 1
            continue
        gpu = card_of(with_form(name, row["InstanceType"]), memory_of(row, count), file, line)
        for column, kind in zip(("Price", "SpotPrice"), kinds_of(vendor), strict=True):
            price = micro_of(row.get(column, ""), file, line, count)
            if price is None:
                left_out[NO_PRICE] += 1
                continue
            where = (row["Region"], row["InstanceType"])
            found.append(Quote(gpu, vendor, kind, price, day, dated, f"{vendor}/{file.name}", *where))
    yield from _with_depth(found)


def _gpuhunt(rows: Iterable[tuple[int, Row]], file: Path, left_out: Counter[str]) -> Iterator[Quote]:
    found = []
    day, dated = file_day(file)
    for line, row in rows:
        name, count = row["gpu_name"], count_of(row["gpu_count"], file, line)
        if not name or count < 1 or row.get("gpu_vendor", "") == "google":
            left_out[NO_GPU] += 1
            continue
        price = micro_of(row["price"], file, line, count)
        if price is None:
            left_out[NO_PRICE] += 1
            continue
        vendor = vendor_of(row.get("provider") or file.stem)
        kind = kinds_of(vendor)[row["spot"].strip().lower() == "true"]
        memory = round(count_of(row.get("gpu_memory", ""), file, line))
        gpu = card_of(name, memory or None, file, line)
        where = (row.get("location", ""), row["instance_name"])
        found.append(Quote(gpu, vendor, kind, price, day, dated, f"gpuhunt {file.name}", *where))
    yield from _with_depth(found)


def _with_depth(quotes: list[Quote]) -> Iterator[Quote]:
    """Markets' quotes with the depth of their book: how many offers of that card the catalog lists."""
    depth = Counter((quote.vendor, quote.gpu, quote.kind) for quote in quotes)
    for quote in quotes:
        in_market = quote.kind in ("market", "interruptible")
        yield replace(quote, offers=depth[quote.vendor, quote.gpu, quote.kind]) if in_market else quote
