"""What an owner may ask: a price that follows how busy the machine is, between its energy and the cheapest cloud.

One step is p ← clip(p·exp(η·clip((u − u*) / u*, −1, 1)), floor, ceiling): u is the share of the machine that was
leased, u* the share at which the price stays. Idle machines get cheaper by at most 6 % in ten minutes, full ones
dearer by 2 %. Does not know meters, clocks or chains.

Rule: prices are integer micro-dollars per GPU-hour, and the exponential is a decimal one, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from minga.core.errors import InvalidInput
from minga.protocol.accelerators import Accelerator
from minga.protocol.price_index import Withheld, price_index
from minga.protocol.price_quotes import MICRO, Kind, Quote, card_class
from minga.protocol.references import Reference, references

TARGET_PPM = 750_000
"""u*: the share of time leased at which the price stays."""

STEP_PPM = 60_000
"""η: how far a price moves in `STEP_S` when the machine stands idle."""

STEP_S = 600

_DECIMAL = Context(prec=40, rounding=ROUND_HALF_EVEN)
_START: tuple[Kind, ...] = ("market", "interruptible", "spot")


@dataclass(frozen=True, slots=True)
class PriceBounds:
    """Between what a price moves, micro-dollars per GPU-hour; no ceiling is known: None. The floor is stronger."""

    floor: int
    ceiling: int | None = None

    def clip(self, usd_micro: int) -> int:
        """The nearest price inside, at least one micro-dollar."""
        if self.ceiling is not None:
            usd_micro = min(usd_micro, self.ceiling)
        return max(usd_micro, self.floor, 1)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A price to begin with, its bounds, and where it comes from."""

    usd_micro: int
    bounds: PriceBounds
    why: str


def suggested_price(usd_micro: int, busy_ppm: int, elapsed_s: int, bounds: PriceBounds) -> int:
    """The price after `elapsed_s` seconds in which `busy_ppm` of the machine was leased.

    Steps may be cut at will: two of five minutes move as far as one of ten, but for rounding.

    Raises:
        InvalidInput: `busy_ppm` is not 0 … 1,000,000, or a price or time is negative.
    """
    if not 0 <= busy_ppm <= MICRO or usd_micro < 0 or elapsed_s < 0:
        raise InvalidInput(f"busy {busy_ppm}, price {usd_micro}, seconds {elapsed_s}", "none is negative, busy ≤ 10**6")
    push = max(-TARGET_PPM, min(TARGET_PPM, busy_ppm - TARGET_PPM))
    power = _DECIMAL.divide(Decimal(STEP_PPM * push * elapsed_s), Decimal(MICRO * TARGET_PPM * STEP_S))
    moved = _DECIMAL.multiply(Decimal(usd_micro), _DECIMAL.exp(power))
    return bounds.clip(int(moved.to_integral_value(ROUND_HALF_EVEN)))


def start_price(gpu: str | Accelerator, rows: Iterable[Quote], today: int, floor: int = 0) -> Suggestion | Withheld:
    """A price to begin with: what markets ask now, else spot's index, else half of the cheapest cloud.

    Args:
        gpu: the card's name.
        rows: quotes, unscreened.
        today: days since 1970-01-01.
        floor: the least that pays, such as `energy_cost`.

    Raises:
        InvalidInput: `gpu` is not a card's name.
    """
    card, listed = card_class(gpu) if isinstance(gpu, str) else gpu, tuple(rows)
    cheapest = references(card, listed, today).on_demand_min
    bounds = PriceBounds(floor, cheapest.usd_micro if isinstance(cheapest, Reference) else None)
    for kind in _START:
        found = price_index(listed, card, kind, today).value
        if not isinstance(found, Withheld):
            why = f"{kind} index of {len(found.voices)} vendors"
            return Suggestion(bounds.clip(found.usd_micro), bounds, why)
    if isinstance(cheapest, Withheld):
        return cheapest
    return Suggestion(bounds.clip(cheapest.usd_micro // 2), bounds, f"half of {cheapest.vendor}'s on-demand price")


def energy_cost(watts: int, usd_micro_per_kwh: int) -> int:
    """Micro-dollars of energy in an hour at `watts`, rounded up."""
    return -(-watts * usd_micro_per_kwh // 1000)
