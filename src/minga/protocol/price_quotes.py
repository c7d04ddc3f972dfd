"""One quoted price of one GPU for one hour, and the quotes that must not be believed.

A quote is what a catalog says: which card, who sells it, how (on demand, spot, a market's asks), for how much, when
and where it was read. Catalogs have traps, and each one flatters somebody: `screen` takes such quotes out and says
why. Does not know files, networks or today's date.

Rules: money is integer micro-dollars per GPU-hour (1_000_000 is one dollar), dates are days since 1970-01-01 (a date
that is known by its year alone counts as the first day of it), and what `screen` returns does not depend on the order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from minga.protocol.accelerators import Accelerator, normalise_gpu

MICRO = 10**6
"""Micro-dollars in a dollar; parts per million in one."""

Kind = Literal["on_demand", "spot", "market", "interruptible"]
KINDS: tuple[Kind, ...] = ("on_demand", "spot", "market", "interruptible")
"""A cloud's list price; its price for what it may take back; a market's asks; its asks for what may be taken back."""

BOOK_MIN = 5
"""Offers that a market's median must rest on: of five, nobody with two machines sets the median (of three: 6.15)."""

FLEX_PPM = 600_000
"""An on-demand price below this share of the vendor's median over its other regions is another product (flex start)."""

BY_FORM = frozenset({"H100"})
BY_MEMORY = frozenset({"A100"})
"""Cards whose variants are other goods at other prices; of all others form factor and memory are left out."""

_UNSAID = frozenset({"ANY", "UNSPECIFIED"})
_JOINED = re.compile(r"(H100)(SXM|NVL|PCIE|MEGA|NVLINK)")
_FLEX = re.compile(r"flex.?start(?!.*ignored)|\bdws\b", re.IGNORECASE)
_HEARSAY = re.compile(r"unsourced|from memory|\bverify\b|approx|~ ?\d", re.IGNORECASE)
_PARTIAL = re.compile(r"gpu rows only", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quote:
    """One price.

    Args:
        gpu: the card, as `card_class` writes it.
        vendor: who sells, lower case.
        kind: how it is sold.
        usd_micro: micro-dollars per GPU-hour, over zero.
        day: the earliest day that its date can mean, counted from 1970-01-01.
        dated: the date as the source writes it.
        source: where it was read.
        region: the vendor's name of the place, or empty.
        note: what the source says besides (instance type, remarks).
        offers: how many offers a market's summary rests on, if it says so.
        summary: whether `usd_micro` is the price itself, the lowest, the middle or the mean of several.
    """

    gpu: Accelerator
    vendor: str
    kind: Kind
    usd_micro: int
    day: int
    dated: str
    source: str
    region: str = ""
    note: str = ""
    offers: int | None = None
    summary: Literal["price", "lowest", "median", "mean"] = "price"


@dataclass(frozen=True, slots=True)
class Refused:
    """A quote that does not count, the trap that it is (`flex-start`, `half-price` …), and the reason in words."""

    quote: Quote
    trap: str
    fact: str


def card_class(name: str, memory_gb: int | None = None) -> Accelerator:
    """The class in which a card is priced: `NVIDIA A100-SXM4-80GB` is `A100-80GB`, `H100 PCIe` is `H100-PCIE`.

    Args:
        name: as a driver, a catalog or a person writes it.
        memory_gb: the card's memory, where the catalog tells it apart from the name.

    Raises:
        InvalidInput: not a name.
    """
    kept = [part for part in re.split(r"([ \-_])", name) if part.upper() not in _UNSAID]
    found = normalise_gpu("".join(kept))
    model, form = found.model, found.form
    joined = _JOINED.fullmatch(model)
    if joined:
        model, form = joined[1], "SXM" if joined[2] in ("MEGA", "NVLINK") else joined[2]
    size = found.memory_gb or memory_gb
    return Accelerator(model, size if model in BY_MEMORY else None, form if model in BY_FORM else "")


def is_of(quote: Quote, wanted: Accelerator) -> bool:
    """Whether a quote is for `wanted`: a variant counts only when it is asked for."""
    gpu = quote.gpu
    if gpu.model != wanted.model or (wanted.form and gpu.form != wanted.form):
        return False
    return wanted.memory_gb is None or gpu.memory_gb == wanted.memory_gb


def median(values: Sequence[int]) -> int:
    """The middle of at least one number; of an even count the mean of both middles, rounded down."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def screen(quotes: Iterable[Quote]) -> tuple[list[Quote], list[Refused]]:
    """The quotes that count, each once and in one order, and those that do not, with the reason."""
    good: list[Quote] = []
    refused: list[Refused] = []
    for quote in sorted(set(quotes), key=_order):
        fault = _alone(quote)
        if fault is None:
            good.append(quote)
        else:
            refused.append(Refused(quote, *fault))
    for trap in (_flex_start, _half_price, _spot_above):
        bad = trap(good)
        refused += bad
        out = {item.quote for item in bad}
        good = [quote for quote in good if quote not in out]
    return good, refused


def _order(quote: Quote) -> tuple[str | int, ...]:
    gpu, offers = quote.gpu, -1 if quote.offers is None else quote.offers
    return (
        gpu.model, gpu.form, gpu.memory_gb or 0, quote.kind, quote.vendor, quote.usd_micro, quote.day, quote.dated,
        quote.source, quote.region, quote.note, quote.summary, offers,
    )  # fmt: skip


def _alone(quote: Quote) -> tuple[str, str] | None:
    """What one quote says against itself."""
    told = f"{quote.note} {quote.source}"
    if quote.kind == "on_demand" and _FLEX.search(quote.note):
        return "flex-start", "a flex-start price: it has to be waited for, which on demand has not"
    if _PARTIAL.search(quote.note):
        return "partial", "the price of the GPU alone; the host that it needs is not in it"
    if not quote.source.strip() or _HEARSAY.search(told):
        return "hearsay", "no source that can be looked up, or an approximate figure"
    if quote.offers is not None and quote.offers < BOOK_MIN:
        return "thin-book", f"rests on {quote.offers} offers; fewer than {BOOK_MIN} are a mood, not a price"
    return None


def _flex_start(quotes: Sequence[Quote]) -> list[Refused]:
    """On-demand prices of one vendor that one region has at a fraction of what the others have."""
    groups: dict[tuple[object, ...], list[Quote]] = defaultdict(list)
    for quote in quotes:
        if quote.kind == "on_demand":
            groups[quote.vendor, quote.gpu, quote.source, quote.note].append(quote)
    found = []
    for group in groups.values():
        if len({quote.region for quote in group}) < 3:
            continue
        middle = median([quote.usd_micro for quote in group])
        found += [
            Refused(quote, "flex-start", "far below the vendor's other regions: a flex-start row taken for on-demand")
            for quote in group
            if quote.usd_micro * MICRO < middle * FLEX_PPM
        ]
    return found


_Thing = tuple[str, Accelerator, str, str]


def _pairs(quotes: Sequence[Quote], spot: Kind, full: Kind) -> dict[_Thing, tuple[list[Quote], list[Quote]]]:
    """Spot and full prices of the same thing: vendor, card, source and region."""
    found: dict[_Thing, tuple[list[Quote], list[Quote]]] = defaultdict(lambda: ([], []))
    for quote in quotes:
        if quote.kind in (spot, full):
            key = (quote.vendor, quote.gpu, quote.source, quote.region)
            found[key][quote.kind == full].append(quote)
    return {key: pair for key, pair in found.items() if pair[0] and pair[1]}


def _half_price(quotes: Sequence[Quote]) -> list[Refused]:
    """Spot prices of a vendor all of whose spot prices are half its on-demand ones: a rule of its list, no price."""
    by_vendor: dict[str, list[tuple[list[Quote], list[Quote]]]] = defaultdict(list)
    for key, pair in _pairs(quotes, "spot", "on_demand").items():
        by_vendor[key[0]].append(pair)
    found = []
    for vendor, pairs in by_vendor.items():
        if all(any(_is_half(cheap, full) for full in pair[1]) for pair in pairs for cheap in pair[0]):
            fact = "exactly half of the vendor's on-demand price, like all its spot prices: a rule, not a market"
            found += [
                Refused(quote, "half-price", fact)
                for quote in quotes
                if quote.kind == "spot" and quote.vendor == vendor
            ]
    return found


def _is_half(cheap: Quote, full: Quote) -> bool:
    """Half to the cent for prices in cents, to the micro-dollar for finer ones."""
    step = 10_000 if cheap.usd_micro % 10_000 == 0 and full.usd_micro % 10_000 == 0 else 1
    return abs(2 * cheap.usd_micro - full.usd_micro) <= step


def _spot_above(quotes: Sequence[Quote]) -> list[Refused]:
    """Spot prices above every full price that the same source has of the same thing: a column mixed up."""
    found = []
    for pairs in (_pairs(quotes, "spot", "on_demand"), _pairs(quotes, "interruptible", "market")):
        for cheap, full in pairs.values():
            most = max(quote.usd_micro for quote in full)
            found += [
                Refused(quote, "spot-above", "above the same vendor's full price: not what it says it is")
                for quote in cheap
                if quote.usd_micro > most
            ]
    return found
