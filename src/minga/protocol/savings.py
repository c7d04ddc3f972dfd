"""What an offer saves against clouds: three dated references of its card, always all three, or withheld and why.

Ours is the expected price of an hour of finished work, rework included; theirs is the list price of an hour. A cloud's
spot machine is interrupted too and its rework is not in its price, so a saving against spot is understated. A negative
saving is shown as one.

Does not know: clocks and files. Rule: never "up to"; no card, no comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minga.core.errors import InvalidInput
from minga.protocol.price_index import Withheld
from minga.protocol.price_quotes import Quote
from minga.protocol.references import references, saving_ppm

LABELS = ("on-demand minimum", "on-demand median", "spot minimum")


@dataclass(frozen=True)
class Saving:
    """Against one reference. `saving_ppm` and `usd_micro` (a card's hour) are None where it is `withheld`; `dated` and
    `source` as the source writes them.
    """

    label: str
    saving_ppm: int | None = None
    usd_micro: int | None = None
    vendor: str = ""
    dated: str = ""
    source: str = ""
    withheld: str = ""


def savings(
    cards: Sequence[str], count: int, hourly_micro: int, quotes: Iterable[Quote], today: int
) -> tuple[Saving, ...]:
    """Three savings, in the order of `LABELS`.

    Args:
        cards: the names of an offer's accelerators, without repetition.
        count: how many of them are leased.
        hourly_micro: what an hour of finished work on all of them costs, micro-dollars.
        quotes: dated cloud prices.
        today: days since 1970-01-01.
    """
    if not cards or count < 1:
        return _withheld("the offer has no GPU, and only GPUs have a cloud twin")
    if len(cards) > 1:
        return _withheld("the machine mixes cards, and clouds sell one kind at a time")
    try:
        found = references(cards[0], quotes, today)
    except InvalidInput:
        return _withheld(f"{cards[0][:60]!r} is no card that clouds name")
    each = -(-hourly_micro // count)
    made = []
    for label, value in found.named():
        if isinstance(value, Withheld):
            made.append(Saving(label, withheld=value.fact))
        else:
            share = saving_ppm(each, value.usd_micro)
            made.append(Saving(label, share, value.usd_micro, value.vendor, value.dated, value.source))
    return tuple(made)


def _withheld(why: str) -> tuple[Saving, ...]:
    return tuple(Saving(label, withheld=why) for label in LABELS)
