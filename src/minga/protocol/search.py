"""The query language of offers, and an index that answers it: `gpu=H100 vram>=80 price<2 reliability>0.98`.

A query is words `field op value`, all of which must hold; ops are `= != < <= > >=`.

| field                            | value                                                    |
|----------------------------------|----------------------------------------------------------|
| gpu                              | accelerator's name (`any`, `none` also)                  |
| gpus, units, quantum, ports      | whole number                                             |
| cpus                             | cores of one unit, `1.5` allowed                         |
| vram, memory, disk               | size: bare numbers are GB; `80`, `512MB`, `16GiB`        |
| price                            | dollars per unit-hour, exact                             |
| reliability                      | 0 … 1 (a provider without a record never matches)        |
| region, sandbox, environment, egress, provider, machine, arch | text; only `=` and `!=`     |

The index keeps offers in buckets of one accelerator, memory and count, each ordered by price, in columns of integers;
a search merges the buckets that can match by price and stops at the limit. Offers are equal machines at heart: a
machine's first accelerator stands for all.

Does not know: whether an offer is true, or still free. Rule: what is not indexed yet is not found; nothing is guessed.
"""

from __future__ import annotations

import heapq
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from minga.core.errors import InvalidInput
from minga.core.units import parse_size, parse_usd
from minga.protocol.accelerators import Accelerator, normalise_gpu
from minga.protocol.wire import OfferBundle

INF = 2**63 - 1
PPM = 1_000_000
QUERY_MAX = 1024

NUMBERS = ("price", "vram", "gpus", "cpus", "memory", "disk", "units", "quantum", "ports", "reliability", "until")
"""Integer columns: token units per unit-hour, bytes, counts, thousandths of a core, parts per million, Unix seconds."""

TEXTS = ("region", "sandbox", "environment", "egress", "provider", "machine", "arch")
"""Text columns. `environment` and `egress` hold several values."""

_SEVERAL = ("region", "environment", "egress")

_WORD = re.compile(r"^([a-z_]+)(==|!=|<=|>=|=|<|>|:)(.+)$")


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of one offer: `numbers` in the order of `NUMBERS`, `texts` in that of `TEXTS`."""

    gpu: Accelerator | None
    numbers: tuple[int, ...]
    texts: tuple[tuple[str, ...], ...]


def row_of(bundle: OfferBundle, reliability_ppm: int | None = None) -> Row:
    """The facts of an offer; a provider without a record has reliability −1."""
    offer, terms, machine = bundle.offer, bundle.terms, bundle.machine
    first = machine.gpus[0] if machine.gpus and terms.unit.gpus else None
    numbers = (
        int(offer.price_per_hour), first.memory_bytes if first else 0, terms.unit.gpus, terms.unit.cpu_milli,
        terms.unit.memory_bytes, terms.unit.disk_bytes, offer.units, offer.quantum, terms.ports,
        -1 if reliability_ppm is None else reliability_ppm, offer.valid_until,
    )  # fmt: skip
    texts = (
        (terms.region,), (terms.sandbox,), tuple(terms.environments), tuple(terms.egress), (offer.provider,),
        (offer.machine,), (machine.arch,),
    )  # fmt: skip
    return Row(_gpu_name(first.model) if first else None, numbers, texts)


def _gpu_name(model: str) -> Accelerator:
    try:
        return normalise_gpu(model)
    except InvalidInput:  # a provider may call its card anything; it is then found only by other fields
        return Accelerator("?")


@dataclass(frozen=True)
class Query:
    """A parsed query: integer ranges (inclusive) by column number, text conditions, and wanted accelerators."""

    ranges: tuple[tuple[int, int, int], ...] = ()
    texts: tuple[tuple[int, bool, str], ...] = ()
    gpus: tuple[tuple[bool, Accelerator | None], ...] = ()

    def matches(self, bundle: OfferBundle, reliability_ppm: int | None = None) -> bool:
        """Whether one offer meets every word."""
        return self.matches_row(row_of(bundle, reliability_ppm))

    def matches_row(self, row: Row) -> bool:
        """As `matches`, on the facts."""
        numbers = row.numbers
        if not all(low <= numbers[column] <= high for column, low, high in self.ranges):
            return False
        return self.accepts_gpu(row.gpu, numbers[1]) and all(
            _text_matches(column, equal, value, row.texts[column]) for column, equal, value in self.texts
        )

    def accepts_gpu(self, gpu: Accelerator | None, memory_bytes: int) -> bool:
        """Whether an accelerator of this name and memory is one that the query allows."""
        return all(_gpu_matches(gpu, wanted, memory_bytes) == equal for equal, wanted in self.gpus)


def _gpu_matches(gpu: Accelerator | None, wanted: Accelerator | None, memory_bytes: int) -> bool:
    if wanted is None or gpu is None:
        return wanted is gpu
    return gpu.meets(wanted, memory_bytes)


def _text_matches(column: int, equal: bool, value: str, held: Sequence[str]) -> bool:
    name = TEXTS[column]
    if name == "region":
        found = any(item == value or item.startswith(value + "-") for item in held)
    elif name == "egress":
        found = any(item in ("*", value) or (item.startswith("*.") and value.endswith(item[1:])) for item in held)
    else:
        found = value in held
    return found == equal


def parse_query(text: str, decimals: int = 6) -> Query:
    """Parse a query; an empty text matches everything.

    Args:
        text: at most 1,024 characters.
        decimals: of the token in which prices are kept.

    Raises:
        InvalidInput: the fact names the word that is wrong, and how.
    """
    if len(text) > QUERY_MAX:
        raise InvalidInput(f"the query has {len(text)} characters", f"use at most {QUERY_MAX}")
    ranges: list[tuple[int, int, int]] = []
    texts: list[tuple[int, bool, str]] = []
    gpus: list[tuple[bool, Accelerator | None]] = []
    source = re.sub(r"\s*(==|!=|<=|>=|=|<|>)\s*", r"\1", text.strip())
    for word in source.split():
        found = _WORD.match(word)
        if not found:
            raise InvalidInput(f"{word[:40]!r} is not field, op, value", "write it as gpu=H100 vram>=80 price<2")
        name, op, value = found.groups()
        op = "=" if op in (":", "==") else op
        name = {"ram": "memory", "mem": "memory", "cpu": "cpus", "gpu_name": "gpu"}.get(name, name)
        if name == "gpu":
            gpus.append((_equality(word, op), _wanted(value)))
        elif name in TEXTS:
            texts.append((TEXTS.index(name), _equality(word, op), value.lower() if value.startswith("0x") else value))
        elif name in NUMBERS[:-1]:
            ranges.append(_range(word, name, op, value, decimals))
        else:
            known = ", ".join(("gpu", *NUMBERS[:-1], *TEXTS))
            raise InvalidInput(f"{name!r} is not a field of offers", f"fields are {known}")
    return Query(tuple(ranges), tuple(texts), tuple(gpus))


def _wanted(value: str) -> Accelerator | None:
    if value.lower() == "none":
        return None
    return Accelerator("") if value.lower() == "any" else normalise_gpu(value)


def _equality(word: str, op: str) -> bool:
    if op not in ("=", "!="):
        raise InvalidInput(f"{word[:40]!r}: text has no order", "use = or !=")
    return op == "="


def _range(word: str, name: str, op: str, value: str, decimals: int) -> tuple[int, int, int]:
    column = NUMBERS.index(name)
    number = _number(word, name, value, decimals)
    floor = 0 if name == "reliability" else -INF
    if op == "!=":
        raise InvalidInput(f"{word[:40]!r}: != is for text", "use < or >")
    if op == "=":
        # Cards and disks hold a little more than their name says; a size is met by up to 7.5 % more.
        slack = number * 75 // 1000 if name in ("vram", "memory", "disk") else 0
        return column, max(number, floor), number + slack
    low, high = {
        "<": (-INF, number - 1),
        "<=": (-INF, number),
        ">": (number + 1, INF),
        ">=": (number, INF),
    }[op]
    return column, max(low, floor), high


def _number(word: str, name: str, value: str, decimals: int) -> int:
    try:
        if name == "price":
            return int(parse_usd(value, decimals))
        if name in ("vram", "memory", "disk"):
            return parse_size(value, default_unit="g")
        scale = {"reliability": PPM, "cpus": 1000}.get(name, 1)
        number = Decimal(value) * scale
    except (InvalidInput, ArithmeticError):  # no number, or one past the largest exponent
        raise InvalidInput(
            f"{word[:40]!r}: {value[:20]!r} is not a value of {name}", "see minga offers --help"
        ) from None
    if not number.is_finite() or number < 0 or number > 2**53 or number != int(number):
        raise InvalidInput(f"{word[:40]!r}: {value[:20]!r} is out of range", "see minga offers --help")
    return int(number)


@dataclass(slots=True)
class _Bucket:
    gpu: Accelerator | None
    vram: int
    columns: list[array[int]] = field(default_factory=lambda: [array("q") for _ in (*NUMBERS, *TEXTS)])
    refs: list[str] = field(default_factory=list)
    low: list[int] = field(default_factory=lambda: [INF] * len(NUMBERS))
    high: list[int] = field(default_factory=lambda: [-INF] * len(NUMBERS))


class OfferIndex:
    """Offers by reference (an offer hash or any text), searchable by `Query`. Not thread-safe."""

    def __init__(self) -> None:
        """An empty index."""
        self._buckets: dict[tuple[str, int, int], _Bucket] = {}
        self._where: dict[str, tuple[tuple[str, int, int], int]] = {}
        self._text_ids: list[dict[tuple[str, ...], int]] = [{} for _ in TEXTS]

    def __len__(self) -> int:
        return len(self._where)

    def add(self, ref: str, row: Row) -> None:
        """Add an offer, or replace the one of the same reference."""
        self.remove(ref)
        bucket, values = self._place(ref, row)
        position = bisect_right(bucket.columns[0], values[0])
        for column, value in zip(bucket.columns, values, strict=True):
            column.insert(position, value)
        bucket.refs.insert(position, ref)

    def add_many(self, items: Iterable[tuple[str, Row]]) -> None:
        """As `add` for many offers, each reference once and new; sorts once."""
        touched: dict[int, _Bucket] = {}
        for ref, row in items:
            bucket, values = self._place(ref, row)
            for column, value in zip(bucket.columns, values, strict=True):
                column.append(value)
            bucket.refs.append(ref)
            touched[id(bucket)] = bucket
        for bucket in touched.values():
            prices = bucket.columns[0]
            order = sorted(range(len(prices)), key=prices.__getitem__)
            bucket.columns = [array("q", map(column.__getitem__, order)) for column in bucket.columns]
            bucket.refs = [bucket.refs[i] for i in order]

    def remove(self, ref: str) -> None:
        """Forget an offer; idempotent."""
        place = self._where.pop(ref, None)
        if place is None:
            return
        key, price = place
        bucket = self._buckets[key]
        position = bucket.refs.index(ref, bisect_left(bucket.columns[0], price))
        for column in bucket.columns:
            del column[position]
        del bucket.refs[position]
        if not bucket.refs:
            del self._buckets[key]

    def _place(self, ref: str, row: Row) -> tuple[_Bucket, tuple[int, ...]]:
        numbers = row.numbers
        key = (str(row.gpu) if row.gpu else "", numbers[1], numbers[2])
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(row.gpu, numbers[1])
        for column, value in enumerate(numbers):
            if value < bucket.low[column]:
                bucket.low[column] = value
            if value > bucket.high[column]:
                bucket.high[column] = value
        self._where[ref] = (key, numbers[0])
        pairs = zip(self._text_ids, row.texts, strict=True)
        return bucket, numbers + tuple(ids.setdefault(text, len(ids)) for ids, text in pairs)

    def search(self, query: Query, limit: int = 20, now: int = 0) -> list[str]:
        """References of at most `limit` matching offers that are valid after `now`, cheapest per unit-hour first."""
        ranges = [*query.ranges, (NUMBERS.index("until"), now + 1, INF)]
        texts = self._allowed_texts(query)
        heap: list[tuple[int, int, int, int, _Bucket, list[tuple[array[int], int, int]]]] = []
        for number, bucket in enumerate(self._buckets.values()):
            if not query.accepts_gpu(bucket.gpu, bucket.vram) or _disjoint(bucket, ranges):
                continue
            prices = bucket.columns[0]
            low = max((low for column, low, _ in ranges if column == 0), default=-INF)
            high = min((high for column, _, high in ranges if column == 0), default=INF)
            start, end = bisect_left(prices, low), bisect_right(prices, high)
            checks = [
                (bucket.columns[column], low, high)
                for column, low, high in ranges
                if column and not low <= bucket.low[column] <= bucket.high[column] <= high
            ]
            if start < end:
                heap.append((prices[start], number, start, end, bucket, checks))
        return _merge(heap, texts, limit)

    def _allowed_texts(self, query: Query) -> list[tuple[int, bool, frozenset[int]]]:
        return [
            (len(NUMBERS) + column, equal, self._text_values(column, value)) for column, equal, value in query.texts
        ]

    def _text_values(self, column: int, value: str) -> frozenset[int]:
        ids = self._text_ids[column]
        if TEXTS[column] in _SEVERAL:
            return frozenset(number for held, number in ids.items() if _text_matches(column, True, value, held))
        return frozenset([ids[(value,)]] if (value,) in ids else [])


def _disjoint(bucket: _Bucket, ranges: list[tuple[int, int, int]]) -> bool:
    return any(bucket.high[column] < low or bucket.low[column] > high for column, low, high in ranges)


def _merge(
    heap: list[tuple[int, int, int, int, _Bucket, list[tuple[array[int], int, int]]]],
    texts: list[tuple[int, bool, frozenset[int]]],
    limit: int,
) -> list[str]:
    heapq.heapify(heap)
    found: list[str] = []
    while heap and len(found) < limit:
        _, number, position, end, bucket, checks = heap[0]
        prices = bucket.columns[0]
        # Stay in this bucket while it is the cheapest: one heap operation for a run of rows.
        bound = min((entry[0] for entry in heap[1:3]), default=INF)
        while position < end and prices[position] <= bound and len(found) < limit:
            for column, low, high in checks:
                if not low <= column[position] <= high:
                    break
            else:
                if all((bucket.columns[column][position] in held) == equal for column, equal, held in texts):
                    found.append(bucket.refs[position])
            position += 1
        if position < end:
            heapq.heapreplace(heap, (prices[position], number, position, end, bucket, checks))
        else:
            heapq.heappop(heap)
    return found
