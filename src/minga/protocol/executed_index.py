"""The network's own price: what leases really paid for a GPU-hour, by class of card.

Other indices take what is asked; this one takes what was paid and settled on the chain, where anyone can check it.
Whoever trades with himself pays the fee, and is capped twice: no tenant's wallet and no provider weighs over 35 %.
Does not know chains or boards.

Rules: integers only; withheld while there are few leases, tenants or providers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from minga.protocol.accelerators import Accelerator
from minga.protocol.price_index import Value, Voice, Withheld, capped, counted, settle
from minga.protocol.price_quotes import MICRO, median

LEASES_MIN = 10
PARTIES_MIN = 3
"""Tenants, and providers, that are needed: below three the cap of 35 % cannot be kept."""

EXECUTED_DAYS = 30
"""Leases that closed before that say nothing of today."""


@dataclass(frozen=True, slots=True)
class Executed:
    """A lease that was paid.

    `usd_micro` is its price per GPU-hour, `paid` what the tenant paid in all (token units, fee included), `day` that
    of its end, counted from 1970-01-01.
    """

    lease: str
    tenant: str
    provider: str
    gpu: Accelerator
    usd_micro: int
    paid: int
    day: int


@dataclass(frozen=True, slots=True)
class ExecutedIndex:
    """The network's price of one class, or why there is none, and over what it was taken."""

    gpu: Accelerator
    value: Value | Withheld
    leases: int
    tenants: int
    providers: int
    first_day: int
    last_day: int


def executed_index(leases: Iterable[Executed], gpu: Accelerator, today: int) -> ExecutedIndex:
    """The index of the leases of `gpu` that ended in the last `EXECUTED_DAYS`."""
    taken = sorted(
        (item for item in leases if item.gpu == gpu and item.paid > 0 and 0 <= today - item.day <= EXECUTED_DAYS),
        key=lambda item: item.lease,
    )
    tenants, providers = {item.tenant for item in taken}, {item.provider for item in taken}
    days = [item.day for item in taken] or [0]
    value = _value(taken, len(tenants), len(providers))
    return ExecutedIndex(gpu, value, len(taken), len(tenants), len(providers), min(days), max(days))


def _value(taken: list[Executed], tenants: int, providers: int) -> Value | Withheld:
    if not taken:
        return Withheld("none", f"no lease was paid in the last {EXECUTED_DAYS} days")
    for count, what, least in ((len(taken), "leases", LEASES_MIN), (tenants, "tenants", PARTIES_MIN)):
        if count < least:
            return Withheld("thin", f"{counted(count, what)}, at least {least} are needed")
    paid: dict[str, int] = defaultdict(int)
    for item in taken:
        paid[item.tenant] += item.paid
    names = sorted(paid)
    allowed = dict(zip(names, capped([paid[name] for name in names]), strict=True))
    by_provider: dict[str, list[Executed]] = defaultdict(list)
    weights: dict[str, Fraction] = defaultdict(Fraction)
    for item in taken:
        by_provider[item.provider].append(item)
        weights[item.provider] += allowed[item.tenant] * Fraction(item.paid, paid[item.tenant])
    voices = [
        Voice(name, median([item.usd_micro for item in items]), max(1, int(weights[name] * MICRO)))
        for name, items in sorted(by_provider.items())
    ]
    return settle(voices, PARTIES_MIN, "providers")
