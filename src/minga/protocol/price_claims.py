"""What is said of prices, measured: each claim with a figure, the dates of the data, and a verdict.

The figures come from the quotes and series that are given; none is written here, so that newer data may turn a
verdict. What these data cannot show is said to be not measurable. Does not know files or screens.

Rule: a saving is a market's middle price against the middle list price of at least two large clouds, two vendors or
more on each side; integers, parts per million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from minga.protocol.accelerators import Accelerator
from minga.protocol.price_history import Series, change_ppm, month_name, monthly_trend, turns
from minga.protocol.price_index import Voice, Withheld, counted, vendor_voices
from minga.protocol.price_quotes import MICRO, Kind, Quote, median, screen
from minga.protocol.references import Reference, references, saving_ppm

HYPERSCALERS = frozenset({"aws", "azure", "gcp", "oracle"})
SIDES_MIN = 2
"""Vendors on each side of a comparison."""

CLAIMED_PPM = 900_000
HALVING_CLAIMED = 30
"""What is claimed: 90 % cheaper; prices that halve in 30 months."""

Verdict = Literal["holds", "partly", "fails", "not measurable"]


@dataclass(frozen=True, slots=True)
class Saving:
    """A card on markets against clouds: prices in micro-dollars per GPU-hour, savings in parts per million.

    `spot_ppm` and `cheapest_ppm` are None where the reference is withheld. `dates`: of all prices used, oldest and
    newest, as their sources write them.
    """

    gpu: Accelerator
    market: int
    clouds: int
    saving_ppm: int
    cheapest_ppm: int | None
    spot_ppm: int | None
    vendors: tuple[str, ...]
    dates: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said, what was measured, the verdict, and the dates of the data."""

    text: str
    measured: str
    verdict: Verdict
    dates: str


@dataclass(frozen=True, slots=True)
class Take:
    """What a network kept of what its tenants spent: token units, and over how many leases."""

    paid: int
    fee: int
    leases: int


def savings(quotes: Sequence[Quote], cards: Sequence[Accelerator], today: int) -> list[Saving]:
    """Every card that at least two markets and two large clouds price, the largest saving first."""
    good, _ = screen(quotes)
    found = []
    for card in cards:
        market = _voices(good, card, "market", today)
        clouds = [voice for voice in _voices(good, card, "on_demand", today) if voice.name in HYPERSCALERS]
        if len(market) >= SIDES_MIN and len(clouds) >= SIDES_MIN:
            found.append(_saving(card, market, clouds, quotes, today))
    return sorted(found, key=lambda item: (-item.saving_ppm, str(item.gpu)))


def _voices(good: list[Quote], card: Accelerator, kind: Kind, today: int) -> list[Voice]:
    voices = vendor_voices(good, card, kind, today)
    return [] if isinstance(voices, Withheld) else voices


def _saving(card: Accelerator, market: list[Voice], clouds: list[Voice], quotes: Sequence[Quote], today: int) -> Saving:
    asked, listed = (median([voice.usd_micro for voice in side]) for side in (market, clouds))
    known = references(card, quotes, today)
    against = [
        saving_ppm(asked, item.usd_micro) if isinstance(item, Reference) else None
        for item in (known.on_demand_min, known.spot_min)
    ]
    used = sorted((quote for voice in (*market, *clouds) for quote in voice.quotes), key=lambda quote: quote.day)
    names = tuple(voice.name for voice in (*market, *clouds))
    dates = (used[0].dated, used[-1].dated)
    return Saving(card, asked, listed, saving_ppm(asked, listed), against[0], against[1], names, dates)


def percent(ppm: int) -> str:
    """`-3.2 %` of −32_000, rounded down to a tenth."""
    tenths = ppm // 1000
    sign, tenths = ("-", -tenths) if tenths < 0 else ("", tenths)
    return f"{sign}{tenths // 10}.{tenths % 10} %"


def claims(
    found: Sequence[Saving], series: Mapping[tuple[str, str], Series], cards: Sequence[str], take: Take | None
) -> list[Claim]:
    """Every claim, measured.

    Args:
        found: of `savings`.
        series: of `price_history.series_of`.
        cards: cards whose series are looked at, as `card_class` writes them; of the first also its peak.
        take: of the network's own leases, if a network is known.
    """
    return [
        _cheaper(found),
        _against_spot(found),
        *(_rose_in_2023(series, card) for card in cards),
        *(_fell(series, card) for card in cards[:1]),
        *(_halves(series, card) for card in cards),
        _overhead(take),
        Claim("networks bring supply that nobody had", "prices do not show what else an owner would have done",
              "not measurable", "–"),
    ]  # fmt: skip


def _cheaper(found: Sequence[Saving]) -> Claim:
    text = f"networks are as much as {percent(CLAIMED_PPM)[:-4]} % cheaper than clouds"
    if not found:
        return Claim(text, "no card has two markets and two large clouds", "not measurable", "–")
    best, middle = found[0], median([item.saving_ppm for item in found])
    most = sum(item.saving_ppm >= CLAIMED_PPM for item in found)
    verdict: Verdict = "holds" if middle >= CLAIMED_PPM else "partly" if most else "fails"
    measured = (
        f"{most} of {len(found)} cards; middle {percent(middle)}, "
        f"from {percent(found[-1].saving_ppm)} ({found[-1].gpu}) to {percent(best.saving_ppm)} ({best.gpu}), "
        "against large clouds' list prices"
    )
    return Claim(text, measured, verdict, _dates(found))


def _against_spot(found: Sequence[Saving]) -> Claim:
    text = "… and cheaper than the clouds' own spot prices"
    known = [item.spot_ppm for item in found if item.spot_ppm is not None]
    if not known:
        return Claim(text, "no card has a spot reference", "not measurable", "–")
    cheaper = sum(value > 0 for value in known)
    verdict: Verdict = "holds" if cheaper == len(known) else "partly" if cheaper else "fails"
    measured = f"{cheaper} of {len(known)} cards; middle saving {percent(median(known))} against the lowest spot price"
    return Claim(text, measured, verdict, _dates([item for item in found if item.spot_ppm is not None]))


def _dates(found: Sequence[Saving]) -> str:
    return f"{min(map(_day, (item.dates[0] for item in found)))} … {max(map(_day, (item.dates[1] for item in found)))}"


def _day(dated: str) -> str:
    """The date without what a source remarks on it."""
    return dated.split(" ")[0]


def _rose_in_2023(series: Mapping[tuple[str, str], Series], card: str) -> Claim:
    import math

    text = f"{card} prices rose through 2023"
    parts, rose = [], []
    for name, words in (("neocloud_on_demand_raw_median", "on demand"), ("neocloud_spot_raw_median", "spot")):
        year = {month: price for month, price in series.get((card, name), {}).items() if month // 12 == 2023}
        trend = monthly_trend(year)
        if trend is not None:
            months = sorted(year)
            rose.append(trend > 0)
            moved = 100 * math.expm1((months[-1] - months[0]) * trend)
            parts.append(f"{words} {moved:+.0f} % by the trend of {month_name(months[0])} … {month_name(months[-1])}")
    if not parts:
        return Claim(text, "no series of that year", "not measurable", "–")
    verdict: Verdict = "holds" if all(rose) else "partly" if any(rose) else "fails"
    return Claim(text, ", ".join(parts), verdict, "2023")


def _fell(series: Mapping[tuple[str, str], Series], card: str) -> Claim:
    text = f"{card} rental has become cheap since its peak"
    months = series.get((card, "neocloud_index"), {})
    if len(months) < 2:
        return Claim(text, "no series", "not measurable", "–")
    found = turns(months)
    (high_at, high), (low_at, low), (last_at, last) = found.high, found.low, found.last
    fell, back = change_ppm(high, low), change_ppm(low, last)
    verdict: Verdict = "fails" if fell == 0 else "partly" if back > 0 else "holds"
    measured = (
        f"{dollars(high)} in {month_name(high_at)}, {dollars(low)} in {month_name(low_at)} ({percent(fell)}), "
        f"{dollars(last)} in {month_name(last_at)} ({percent(back)} above the low)"
    )
    return Claim(text, measured, verdict, _span(months))


def _halves(series: Mapping[tuple[str, str], Series], card: str) -> Claim:
    import math

    text = f"the price of an {card}-hour halves in {HALVING_CLAIMED} months"
    months = series.get((card, "neocloud_index"), {})
    trend = monthly_trend(months)
    if trend is None:
        return Claim(text, "no series", "not measurable", "–")
    span = max(months) - min(months)
    if trend >= 0:
        return Claim(text, f"it does not fall: {100 * math.expm1(12 * trend):+.1f} % a year", "fails", _span(months))
    halving = math.log(2) / -trend
    verdict: Verdict = "holds" if halving <= HALVING_CLAIMED else "fails"
    return Claim(text, f"in {halving:.0f} months, by the trend of {span}", verdict, _span(months))


def _span(months: Series) -> str:
    return f"{month_name(min(months))} … {month_name(max(months))}"


def _overhead(take: Take | None) -> Claim:
    text = "a blockchain removes overhead"
    if take is None or take.paid + take.fee == 0:
        return Claim(text, "no paid lease is known to this home", "not measurable", "–")
    share = take.fee * MICRO // (take.paid + take.fee)
    spent = f"what tenants spent in {counted(take.leases, 'leases')}"
    measured = f"{percent(share)} of {spent} was fee; gas and search are not in it"
    return Claim(text, measured, "partly", "this network, all leases")


def dollars(micro: int) -> str:
    """`$1.87` of 1_870_000 micro-dollars: to the nearest cent, to tenths of a cent below ten cents."""
    if 0 < micro < 100_000:
        return f"${(micro + 500) // 1000 / 1000:.3f}"
    cents = (micro + 5000) // 10_000
    return f"${cents // 100}.{cents % 100:02}"
