"""What seconds cost. Integers, rounded down; the residue is the tenant's.

`cost_down` is the one formula that both sides use: the amount owed for `seconds` of `units` at a price per unit-hour.
It is computed from the total, never summed from parts, so that cutting time into quanta changes nothing.
"""

from __future__ import annotations

from minga.core.units import HOUR, Amount, Seconds


def cost_down(price_per_hour: int, units: int, seconds: int) -> Amount:
    """Token units owed for `seconds` (≥ 0) of `units` at `price_per_hour`, rounded down."""
    return Amount(price_per_hour * units * seconds // HOUR)


def cost_up(price_per_hour: int, units: int, seconds: int) -> Amount:
    """The least deposit that covers `seconds`: `cost_down` rounded up instead."""
    return Amount(-(-price_per_hour * units * seconds // HOUR))


def seconds_covered(price_per_hour: int, units: int, amount: int) -> Seconds:
    """The most seconds whose cost is at most `amount`; 2**32 − 1 when the price is zero."""
    rate = price_per_hour * units
    if rate == 0:
        return Seconds(2**32 - 1)
    return Seconds(min(((amount + 1) * HOUR - 1) // rate, 2**32 - 1))
