"""The price that an owner leaves to the market: begun where the index stands, then moved by how busy the machine is.

| machine      | begins at                                         | never above                               |
|--------------|---------------------------------------------------|-------------------------------------------|
| with GPUs    | the index of its card, times the GPUs of a unit   | the cheapest cloud's price for the card   |
| without      | 0.01 dollars a core-hour: no index counts cores   | 0.04 dollars a core-hour                  |

Every ten minutes the price takes one step of `minga.protocol.suggested_price`: dearer above three quarters leased,
cheaper below, never under the owner's floor. Knows: one unit's price in micro-dollars, the share that was leased. Does
not know: tokens, offers. Rule: each price is in the journal before anybody is asked to pay it, and a provider that
comes back goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.core.errors import InvalidInput
from minga.core.spec import Machine, UnitSize
from minga.core.units import DAY
from minga.protocol.price_index import Withheld
from minga.protocol.price_quotes import Quote
from minga.protocol.suggested_price import PriceBounds, Suggestion, start_price, suggested_price
from minga.store.journal import Journal

STREAM = "price"
CORE_USD_MICRO, CORE_CEILING_USD_MICRO = 10_000, 40_000
"""A core-hour's first price and its highest, where there is no GPU: ours by fiat, near what small clouds ask."""

PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class AutoPrice:
    """What an automatic price begins from: dated quotes, and the owner's floor in micro-dollars per unit-hour."""

    quotes: tuple[Quote, ...]
    floor_usd_micro: int = 0


def first_price(machine: Machine, unit: UnitSize, auto: AutoPrice, today: int) -> Suggestion:
    """The price of one unit to begin with, its bounds, and why; micro-dollars per unit-hour.

    Args:
        machine: what is sold.
        unit: one unit of it.
        auto: quotes and floor.
        today: days since 1970-01-01.

    Raises:
        InvalidInput: the index cannot tell for this card; the remedy is to give a price.
    """
    if not unit.gpus or not machine.gpus:
        bounds = PriceBounds(auto.floor_usd_micro, unit.cpu_milli * CORE_CEILING_USD_MICRO // 1000)
        why = f"no index counts cores: {CORE_USD_MICRO / PPM:.2f} dollars each"
        return Suggestion(bounds.clip(unit.cpu_milli * CORE_USD_MICRO // 1000), bounds, why)
    card = machine.gpus[0].model
    found = start_price(card, auto.quotes, today, -(-auto.floor_usd_micro // unit.gpus))
    if isinstance(found, Withheld):
        raise InvalidInput(f"no price can be suggested for {card}: {found.fact}", "give one: --price DOLLARS")
    ceiling = None if found.bounds.ceiling is None else found.bounds.ceiling * unit.gpus
    bounds = PriceBounds(auto.floor_usd_micro, ceiling)
    return Suggestion(bounds.clip(found.usd_micro * unit.gpus), bounds, found.why)


class Meter:
    """The share of time-units that was leased, over readings of a monotonic clock."""

    def __init__(self, units: int, reading: float) -> None:
        """Nothing is leased at `reading`; `units` are for sale."""
        self._units = units
        self._leased = 0
        self._at = self._began = reading
        self._sum = 0.0

    def note(self, leased: int, reading: float) -> None:
        """So many units are leased from `reading` on."""
        self._sum += self._leased * max(0.0, reading - self._at)
        self._leased, self._at = min(leased, self._units), max(reading, self._at)

    @property
    def seconds(self) -> int:
        """Whole seconds since it began."""
        return int(self._at - self._began)

    def take(self) -> tuple[int, int]:
        """The share leased (ppm) and the whole seconds since the last take."""
        seconds, total = self._at - self._began, self._sum
        self._began, self._sum = self._at, 0.0
        return (min(PPM, int(total * PPM / (seconds * self._units))) if seconds > 0 else 0), int(seconds)


class PriceBook:
    """The price of one unit, as the journal tells it. Methods block for a file."""

    def __init__(self, journal: Journal, of: str, begin: Suggestion, now: int) -> None:
        """Go on from the last price of the same thing, `of`, if it is less than a day old; else `begin`."""
        self._journal = journal
        self._of = of
        self.bounds = begin.bounds
        self.usd_micro = begin.usd_micro
        self.why = begin.why
        last = next(iter(journal.read(STREAM)[-1:]), None)
        if last is not None and last.body["of"] == of and now - last.at < DAY:
            self.usd_micro = begin.bounds.clip(int(last.body["usd_micro"]))
            self.why = "the last price"
        self._write(now, 0, 0)

    def step(self, busy_ppm: int, elapsed_s: int, now: int) -> int:
        """Take one step after `elapsed_s` seconds at that use, and write it down; the price now."""
        self.usd_micro = suggested_price(self.usd_micro, busy_ppm, elapsed_s, self.bounds)
        self.why = f"{busy_ppm // 10_000} % leased"
        self._write(now, busy_ppm, elapsed_s)
        return self.usd_micro

    def _write(self, now: int, busy_ppm: int, elapsed_s: int) -> None:
        body = {"of": self._of, "usd_micro": self.usd_micro, "busy_ppm": busy_ppm, "elapsed_s": elapsed_s}
        self._journal.append(STREAM, "Price", body | {"why": self.why}, now)
