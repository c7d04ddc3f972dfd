"""Many jobs against many offers at once: a greedy match that keeps most of the surplus, and a batch double auction.

**What runs today are posted asks**: each client takes the best offer for itself (`minga.protocol.matching.rank`). The
functions here are for whoever matches in batches: a scheduler of many jobs of its own, an auction for a class of equal
machines that is thick enough to have one price, and the simulator.

`match`: jobs in the order of what they would pay for a unit; each takes the cheapest lot that can hold it, as long as
that leaves a surplus. Lots are grouped by kind and jobs by what they want, so a job looks at one lot a kind. That loses
little against the optimum (benches/bench_match.py), because machines of a kind differ in price alone.

`clear`: K trades, where b is the K-th highest bid and a the K-th lowest ask, K = max{k: b(k) ≥ a(k)}, all at the price
p = min(b(K), a(K+1)).

Does not know: offers, money in hand, time. Rule: ties go to the lower index, so the result is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

Options = Sequence[tuple[int, int]]
"""Kinds of lot that would do, and how many units of one lot of that kind it takes (at least one)."""


@dataclass(frozen=True, slots=True)
class Bid:
    """A job: `value`, token units per hour that it would pay at most, for all it leases; `want` indexes options."""

    value: int
    want: int


@dataclass(frozen=True, slots=True)
class Lot:
    """An offer: `cost`, expected token units per unit-hour (price / quality); `units` to sell; its `kind`."""

    cost: int
    units: int
    kind: int


@dataclass(frozen=True, slots=True)
class Matching:
    """`lot_of[job]` is a lot's index, −1 for none; `surplus` is Σ value − cost · units, token units per hour."""

    lot_of: list[int]
    surplus: int


def match(bids: Sequence[Bid], lots: Sequence[Lot], options: Sequence[Options]) -> Matching:
    """Give each job at most one lot, no lot more than its units, greedily.

    Args:
        bids: the jobs.
        lots: the offers.
        options: by want, the kinds that would do.

    O(J log J + L log L + J · kinds of a want), and each lot is passed over once per kind and number of units.
    """
    shelves = _shelves(lots, options)
    left = [lot.units for lot in lots]
    lot_of, surplus = [-1] * len(bids), 0
    looks = [[shelves[kind, units] for kind, units in wanted if (kind, units) in shelves] for wanted in options]
    dearest = [min((units for _, units in wanted), default=1) for wanted in options]
    ranked = sorted([(-(bid.value // dearest[bid.want]), job) for job, bid in enumerate(bids)])
    for _, job in ranked:
        bid = bids[job]
        best, chosen = bid.value, None
        for shelf in looks[bid.want]:
            if shelf.head < best:
                best, chosen = shelf.head, shelf
        if chosen is None:
            continue
        lot = chosen.queue[chosen.position]
        left[lot] -= chosen.units
        lot_of[job] = lot
        surplus += bid.value - best
        for shelf in chosen.siblings:
            shelf.pass_over(left)
    return Matching(lot_of, surplus)


class _Shelf:
    """Lots of one kind for jobs that take `units` of one, cheapest first; `head` is what the next one costs in all."""

    __slots__ = ("costs", "head", "position", "queue", "siblings", "units")

    def __init__(self, queue: list[int], costs: list[int], units: int) -> None:
        self.queue, self.costs, self.units = queue, costs, units
        self.position, self.head = 0, 0
        self.siblings: list[_Shelf] = []

    def pass_over(self, left: list[int]) -> None:
        """Move on to a lot that still has as many units; what a lot lost it never gets back."""
        position, queue, units = self.position, self.queue, self.units
        while position < len(queue) and left[queue[position]] < units:
            position += 1
        self.position = position
        self.head = self.costs[position] * units if position < len(queue) else _NEVER


_NEVER = 1 << 200


def _shelves(lots: Sequence[Lot], options: Sequence[Options]) -> dict[tuple[int, int], _Shelf]:
    by_kind: dict[int, list[tuple[int, int]]] = {}
    for index, lot in enumerate(lots):
        by_kind.setdefault(lot.kind, []).append((lot.cost, index))
    made: dict[tuple[int, int], _Shelf] = {}
    families: dict[int, list[_Shelf]] = {kind: [] for kind in by_kind}
    queues = {}
    for kind, held in by_kind.items():
        held.sort()
        queues[kind] = list(map(itemgetter(1), held)), list(map(itemgetter(0), held))
    left = [lot.units for lot in lots]
    for kind, units in {option for wanted in options for option in wanted}:
        if kind in by_kind:
            shelf = made[kind, units] = _Shelf(*queues[kind], units)
            shelf.pass_over(left)
            shelf.siblings = families[kind]
            families[kind].append(shelf)
    return made


@dataclass(frozen=True, slots=True)
class Clearing:
    """`price` that each buyer pays and each seller gets (0 without a trade); indices of who trades, best first."""

    price: int
    buyers: tuple[int, ...]
    sellers: tuple[int, ...]


def clear(bids: Sequence[int], asks: Sequence[int]) -> Clearing:
    """A batch uniform-price double auction of equal units, one a bid and one an ask, in token units per hour.

    What it has: nobody pays more than its bid or gets less than its ask; buyers pay what sellers get; all trades that
    make sense at these bids and asks are made; and a seller of a single unit does best with its true cost, whatever the
    others do, since its own ask never sets the price that it gets. What it has not: the same for buyers, whose K-th bid
    may set the price. Posted asks are what runs today; this is for classes that are thick enough.
    """
    buyers = sorted(range(len(bids)), key=lambda index: (-bids[index], index))
    sellers = sorted(range(len(asks)), key=lambda index: (asks[index], index))
    trades = 0
    for buyer, seller in zip(buyers, sellers, strict=False):
        if bids[buyer] < asks[seller]:
            break
        trades += 1
    if not trades:
        return Clearing(0, (), ())
    price = bids[buyers[trades - 1]]
    if trades < len(sellers):
        price = min(price, asks[sellers[trades]])
    return Clearing(price, tuple(buyers[:trades]), tuple(sellers[:trades]))
