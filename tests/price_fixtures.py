"""Quotes for tests of prices: one builder, one day, and the shipped data's own.

Prices are in dollars as text, dates are days before `TODAY`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from minga.protocol.price_quotes import Kind, Quote, card_class

TODAY = (date(2026, 11, 23) - date(1970, 1, 1)).days
"""The day for which golden values of the shipped data are kept."""

CARD = card_class("L40S")


def micro(dollars: str) -> int:
    """Micro-dollars."""
    return int(Decimal(dollars) * 10**6)


def quote(vendor: str, dollars: str, kind: Kind = "on_demand", age: int = 10, gpu: str = "L40S", **more: Any) -> Quote:
    """A quote of `vendor`, `age` days before `TODAY`."""
    day = TODAY - age
    dated = date.fromordinal(date(1970, 1, 1).toordinal() + day).isoformat()
    fields = {"source": "https://prices.example.org", **more}
    return Quote(card_class(gpu), vendor, kind, micro(dollars), day, dated, **fields)


def book(*dollars: str, kind: Kind = "on_demand", **more: Any) -> list[Quote]:
    """One quote for each price, each of its own vendor: `a`, `b`, …"""
    return [quote(chr(ord("a") + number), price, kind, **more) for number, price in enumerate(dollars)]
