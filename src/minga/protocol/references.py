"""What a cloud asks for the same card: three dated references, always all three, and the saving against them.

On-demand minimum, on-demand median, spot minimum: a saving quoted against one of them alone is advertising. A
minimum needs two vendors, since a single row may be a slip; the median is the price index. Does not know files or
clocks.

Rule: each is a value with vendor, date and source, or withheld with the reason; integers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minga.protocol.accelerators import Accelerator
from minga.protocol.price_index import VENDORS_MIN, Withheld, settle, vendor_voices, without_outliers
from minga.protocol.price_quotes import MICRO, Kind, Quote, card_class, screen

MINIMUM_VENDORS = 2
"""Vendors that a minimum needs."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A price to compare with.

    Args:
        usd_micro: micro-dollars per GPU-hour.
        vendor: whose price it is; of a median, the vendor in the middle.
        dated: the date as the source writes it; of a median, from the oldest to the newest.
        source: where it was read.
        age_days: of the oldest price used; a date known by its year alone counts from 1 January.
        vendors: how many vendors were compared.
    """

    usd_micro: int
    vendor: str
    dated: str
    source: str
    age_days: int
    vendors: int


@dataclass(frozen=True, slots=True)
class References:
    """The three references of one card."""

    gpu: Accelerator
    on_demand_min: Reference | Withheld
    on_demand_median: Reference | Withheld
    spot_min: Reference | Withheld

    def named(self) -> Iterator[tuple[str, Reference | Withheld]]:
        """Each with the words that people read."""
        yield "on-demand minimum", self.on_demand_min
        yield "on-demand median", self.on_demand_median
        yield "spot minimum", self.spot_min


def references(gpu: str | Accelerator, rows: Iterable[Quote], today: int) -> References:
    """The references of a card.

    Args:
        gpu: a driver's or a person's name for it, or what `card_class` made of one; an A100 of unsaid memory is any.
        rows: quotes, unscreened.
        today: days since 1970-01-01.

    Raises:
        InvalidInput: `gpu` is not a card's name.
    """
    card = card_class(gpu) if isinstance(gpu, str) else gpu
    return references_of(screen(quote for quote in rows if quote.gpu.model == card.model)[0], card, today)


def references_of(good: list[Quote], card: Accelerator, today: int) -> References:
    """As `references`, of the quotes of the model that `screen` left."""
    return References(
        card,
        _minimum(good, card, "on_demand", today),
        _middle(good, card, today),
        _minimum(good, card, "spot", today),
    )


def _minimum(good: list[Quote], card: Accelerator, kind: Kind, today: int) -> Reference | Withheld:
    voices = vendor_voices(good, card, kind, today)
    if isinstance(voices, Withheld):
        return voices
    if len(voices) < MINIMUM_VENDORS:
        return Withheld("thin", f"one vendor only ({voices[0].name}), at least {MINIMUM_VENDORS} are needed")
    kept = without_outliers(voices)[0] if len(voices) >= VENDORS_MIN else voices
    best = min((quote for voice in kept for quote in voice.quotes), key=lambda quote: (quote.usd_micro, quote.vendor))
    return Reference(best.usd_micro, best.vendor, best.dated, best.source, max(0, today - best.day), len(voices))


def _middle(good: list[Quote], card: Accelerator, today: int) -> Reference | Withheld:
    voices = vendor_voices(good, card, "on_demand", today)
    value = voices if isinstance(voices, Withheld) else settle(voices, VENDORS_MIN, "vendors")
    if isinstance(value, Withheld):
        return value
    nearest = min(value.voices, key=lambda voice: (abs(voice.usd_micro - value.usd_micro), voice.name))
    used = sorted(value.quotes, key=lambda quote: (quote.day, quote.dated))
    dates = (used[0].dated, used[-1].dated)
    dated = dates[0] if dates[0] == dates[1] else f"{dates[0]} … {dates[1]}"
    source = f"median of {len(value.voices)} vendors; in the middle: {nearest.quotes[0].source}"
    age = max(0, today - used[0].day)
    return Reference(value.usd_micro, nearest.name, dated, source, age, len(value.voices))


def saving_ppm(price_micro: int, reference_micro: int) -> int:
    """What `price_micro` saves of `reference_micro` (over zero), in ppm, rounded down; below 0 if dearer."""
    return MICRO + -price_micro * MICRO // reference_micro


def effective_price(usd_micro: int, overhead_ppm: int, availability_ppm: int, rework_ppm: int) -> int:
    """What an hour of finished work costs: P·(1 + overhead) / (availability·(1 − rework)), rounded up.

    Args:
        usd_micro: the price of an hour.
        overhead_ppm: hours paid besides, such as images pulled, per hour of work.
        availability_ppm: the share of paid hours in which the machine works; over zero.
        rework_ppm: the share of work that interruptions undo, λ·(t_checkpoint / 2 + t_restart); below one.
    """
    top = usd_micro * (MICRO + overhead_ppm) * MICRO
    return -(-top // (availability_ppm * (MICRO - rework_ppm)))


__all__ = ["Reference", "References", "Withheld", "effective_price", "references", "saving_ppm"]
