"""One price from many quotes, or the reason why there is none.

The method: quotes that `screen` left → of each vendor only what it says now → one price per vendor (the middle of its
own) → vendors far from the middle of all are set aside → each has a weight, the fresher the more, none over 35 % →
the weighted median. Withheld when fewer than three vendors are left, when all are stale, or when they disagree too
much. Does not know files, clocks or chains.

Rules: integers only; the order of the quotes changes nothing; no single vendor, whatever it says, can put the value
outside the range of the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from minga.protocol.accelerators import Accelerator
from minga.protocol.price_quotes import MICRO, Kind, Quote, Refused, is_of, median, screen

VENDORS_MIN = 3
"""Vendors below which there is no index: with two, each decides alone; a cap of 35 % needs three to be kept."""

WEIGHT_CAP = Fraction(35, 100)
"""The most that one vendor (or tenant) weighs."""

SCREEN_POWER = 5
"""A vendor is set aside when its ratio to the middle exceeds the middle ratio to this power.

For prices spread log-normally that is 5 / 1.4826 = 3.4 standard deviations.
"""

SCREEN_RATIO = 3
"""The ratio that is used instead when the middle ratio is one (MAD = 0), and below which nobody is set aside."""

SPREAD_MAX = 4
"""The middle half of the vendors, each counted once, may span at most this factor.

Large clouds list up to four times what small ones do (`minga index --claims`): beyond that there is no one price.
"""

STALE_DAYS: Mapping[Kind, int] = {"on_demand": 365, "spot": 213, "market": 213, "interruptible": 213}
"""Days after which a quote says nothing of today: docs/prices.md derives them from the shipped history."""

CURRENT_DAYS = 30
"""What a vendor said more than this before its newest word has been replaced by it."""

HALF_WEIGHT_DAYS = 30
"""A quote of this age weighs half of one of today."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """No value, because `why`; `fact` says it in one sentence."""

    why: Literal["none", "stale", "thin", "spread"]
    fact: str


@dataclass(frozen=True, slots=True)
class Voice:
    """One vendor (or provider) and what it says: a price, a weight over zero, and the quotes behind them."""

    name: str
    usd_micro: int
    weight: int
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """An index value in micro-dollars per GPU-hour, and what it rests on.

    `low` and `high` are the quartiles of the vendors; `shares` their weights in parts per million; `aside` the
    vendors that the outlier screen set aside.
    """

    usd_micro: int
    low: int
    high: int
    voices: tuple[Voice, ...]
    shares: tuple[int, ...]
    aside: tuple[str, ...] = ()

    @property
    def quotes(self) -> tuple[Quote, ...]:
        """Every quote that the value rests on."""
        return tuple(quote for voice in self.voices for quote in voice.quotes)


@dataclass(frozen=True, slots=True)
class Index:
    """The index of one card, kind and region: a value or why there is none, and what was refused on the way."""

    gpu: Accelerator
    kind: Kind
    region: str
    value: Value | Withheld
    refused: tuple[Refused, ...] = ()


def price_index(quotes: Iterable[Quote], gpu: Accelerator, kind: Kind, today: int, region: str = "") -> Index:
    """The index of `gpu` sold as `kind` on day `today`.

    Args:
        quotes: any quotes; those of other cards and kinds are left out.
        gpu: as `card_class` writes it.
        kind: how it is sold.
        today: days since 1970-01-01.
        region: only quotes whose region contains this text; empty: all.
    """
    return index_of(*screen(quote for quote in quotes if quote.gpu.model == gpu.model), gpu, kind, today, region)


def index_of(
    good: Sequence[Quote], refused: Iterable[Refused], gpu: Accelerator, kind: Kind, today: int, region: str = ""
) -> Index:
    """As `price_index`, of what `screen` made of all quotes of the model."""
    dropped = tuple(item for item in refused if _is_asked(item.quote, gpu, kind, region))
    voices = vendor_voices(good, gpu, kind, today, region)
    value = voices if isinstance(voices, Withheld) else settle(voices, VENDORS_MIN, "vendors")
    if isinstance(value, Withheld) and dropped:
        value = Withheld(value.why, f"{value.fact}; {len(dropped)} more do not count: {dropped[0].fact}")
    return Index(gpu, kind, region, value, dropped)


def _is_asked(quote: Quote, gpu: Accelerator, kind: Kind, region: str) -> bool:
    return quote.kind == kind and is_of(quote, gpu) and region.lower() in quote.region.lower()


def vendor_voices(
    good: Sequence[Quote], gpu: Accelerator, kind: Kind, today: int, region: str = ""
) -> list[Voice] | Withheld:
    """One voice per vendor from quotes that passed `screen`; withheld when there are none, or only stale ones."""
    found = [quote for quote in good if _is_asked(quote, gpu, kind, region)]
    if not found:
        where = f" in {region!r}" if region else ""
        return Withheld("none", f"no price of {gpu}{where} is known")
    limit = STALE_DAYS[kind]
    fresh = [quote for quote in found if today - quote.day <= limit]
    if not fresh:
        newest = max(found, key=lambda quote: quote.day)
        age = today - newest.day
        return Withheld("stale", f"the newest price is {age} days old ({newest.dated}), the limit is {limit}")
    by_vendor: dict[str, list[Quote]] = defaultdict(list)
    for quote in fresh:
        by_vendor[quote.vendor].append(quote)
    return [_voice(vendor, said, today) for vendor, said in sorted(by_vendor.items())]


def _voice(vendor: str, said: list[Quote], today: int) -> Voice:
    """What a vendor says now; where it has summaries, its medians speak rather than its cheapest corner."""
    newest = max(quote.day for quote in said)
    now = [quote for quote in said if newest - quote.day <= CURRENT_DAYS]
    middles = [quote for quote in now if quote.summary == "median"]
    age = max(0, today - newest)
    weight = MICRO * HALF_WEIGHT_DAYS // (HALF_WEIGHT_DAYS + age)
    return Voice(vendor, median([quote.usd_micro for quote in middles or now]), weight, tuple(now))


def settle(voices: Sequence[Voice], least: int, who: str) -> Value | Withheld:
    """The weighted median of voices after the outlier screen and the cap.

    Args:
        voices: at most one per name.
        least: fewer than this many are too few, before and after the screen; at least 3.
        who: what the voices are, for the reason.
    """
    if len(voices) < least:
        return Withheld("thin", f"{counted(len(voices), who)}, at least {least} are needed")
    kept, aside = without_outliers(voices)
    if len(kept) < least:
        return Withheld("thin", f"{counted(len(kept), who)} near the middle, at least {least} are needed")
    kept = sorted(kept, key=lambda voice: (voice.usd_micro, voice.name))
    shares = capped([voice.weight for voice in kept])
    equal = [Fraction(1, len(kept))] * len(kept)  # by weight, one vendor of 35 % could withhold the value at will
    low, high = (weighted_quantile(kept, equal, Fraction(part, 4)) for part in (1, 3))
    if high > low * SPREAD_MAX:
        return Withheld("spread", f"the middle half of {len(kept)} {who} spans more than a factor of {SPREAD_MAX}")
    middle = weighted_quantile(kept, shares, Fraction(1, 2))
    return Value(middle, low, high, tuple(kept), tuple(int(share * MICRO) for share in shares), aside)


def counted(count: int, many: str) -> str:
    """`1 vendor`, `2 vendors`."""
    return f"{count} {many[:-1] if count == 1 else many}"


def without_outliers(voices: Sequence[Voice]) -> tuple[list[Voice], tuple[str, ...]]:
    """Those near the middle, and the names of the others.

    Distances are ratios, so that half and twice the middle are equally far; their middle is the MAD of the
    logarithms, without logarithms.
    """
    middle = median([voice.usd_micro for voice in voices])
    ratios = {voice.name: _ratio(voice.usd_micro, middle) for voice in voices}
    ordered = sorted(ratios.values())
    typical = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    limit = max(typical**SCREEN_POWER, Fraction(SCREEN_RATIO))
    aside = tuple(sorted(name for name, ratio in ratios.items() if ratio > limit))
    return [voice for voice in voices if voice.name not in aside], aside


def _ratio(price: int, middle: int) -> Fraction:
    return Fraction(max(price, middle), max(1, min(price, middle)))


def capped(weights: Sequence[int]) -> list[Fraction]:
    """Shares that sum to one, in proportion to `weights` (over zero), none over `WEIGHT_CAP`.

    What a capped one loses is spread over the others in proportion; with fewer than three the cap cannot be kept, and
    all get the same.
    """
    count = len(weights)
    if count * WEIGHT_CAP < 1:
        return [Fraction(1, count)] * count
    full: set[int] = set()
    while True:
        rest = sum(weight for i, weight in enumerate(weights) if i not in full)
        left = 1 - WEIGHT_CAP * len(full)
        shares = [WEIGHT_CAP if i in full else left * weight / rest for i, weight in enumerate(weights)]
        over = {i for i, share in enumerate(shares) if share > WEIGHT_CAP}
        if not over:
            return shares
        full |= over


def weighted_quantile(ordered: Sequence[Voice], shares: Sequence[Fraction], part: Fraction) -> int:
    """The lowest price such that `part` of the weight is at or below it; the mean of two where it falls between."""
    total = Fraction(0)
    for index, (voice, share) in enumerate(zip(ordered, shares, strict=True)):
        total += share
        if total == part and index + 1 < len(ordered):
            return (voice.usd_micro + ordered[index + 1].usd_micro) // 2
        if total >= part:
            return voice.usd_micro
    return ordered[-1].usd_micro
