"""Completes catalog rows that price a GPU apart from the host that it needs.

SkyPilot's table of one cloud has rows without an instance type: the price is the GPU's alone. For families in which
the GPUs come with the host, the host's row of the same zone is added; all others are left out, since a GPU without
its host cannot be rented. Knows the names of those families and nothing else.

Rule: a row is either the whole price or not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

Row = Mapping[str, str]

HOSTS: Mapping[str, Mapping[int, str]] = {
    "A100": {**{n: f"a2-highgpu-{n}g" for n in (1, 2, 4, 8)}, 16: "a2-megagpu-16g"},
    "A100-80GB": {n: f"a2-ultragpu-{n}g" for n in (1, 2, 4, 8)},
    "B200": {8: "a4-highgpu-8g"},
    "H100": {n: f"a3-highgpu-{n}g" for n in (1, 2, 4, 8)},
    "H100-MEGA": {8: "a3-megagpu-8g"},
    "H200": {8: "a3-ultragpu-8g"},
    "L4": {1: "g2-standard-4", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"},
}
"""Card → how many of them → the smallest host that has just these (Google Cloud's accelerator-optimised families)."""

_NAMES = frozenset(name for sizes in HOSTS.values() for name in sizes.values())


def with_hosts(rows: Iterable[tuple[int, Row]], left_out: Counter[str]) -> Iterator[tuple[int, Row]]:
    """The rows of one SkyPilot table with hosts' prices added where they stand apart; what remains apart is counted."""
    hosts: dict[tuple[str, str], Row] = {}
    parts: list[tuple[int, Row]] = []
    for line, row in rows:
        if row["InstanceType"] in _NAMES and not row["AcceleratorName"]:
            hosts[row["InstanceType"], _zone(row)] = row
        elif row["InstanceType"] or not row["AcceleratorName"]:
            yield line, row
        else:
            parts.append((line, row))
    for line, row in parts:
        whole = _joined(row, hosts)
        if whole is None:
            left_out["the GPU alone, without its host"] += 1
        else:
            yield line, whole


def _zone(row: Row) -> str:
    return row.get("AvailabilityZone") or row["Region"]


def _joined(row: Row, hosts: Mapping[tuple[str, str], Row]) -> Row | None:
    try:
        count = int(float(row["AcceleratorCount"]))
    except ValueError:
        return None
    name = HOSTS.get(row["AcceleratorName"], {}).get(count, "")
    host = hosts.get((name, _zone(row)))
    if host is None:
        return None
    prices = {column: _sum(row.get(column, ""), host.get(column, "")) for column in ("Price", "SpotPrice")}
    return {**row, **prices, "InstanceType": name}


def _sum(one: str, other: str) -> str:
    """The sum of two prices; nothing when either is missing."""
    try:
        values = [Decimal(text) for text in (one.strip(), other.strip())]
    except InvalidOperation:
        return ""
    return str(sum(values)) if all(value.is_finite() and value > 0 for value in values) else ""
