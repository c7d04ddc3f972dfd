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
from itertools import chain
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
    left = [lot.units for lot in lots]
    shelves = _Shelves(lots, left, options)
    heads, places, units, families = shelves.heads, shelves.places, shelves.units, shelves.families
    queues, number = shelves.queues, shelves.numbers.get
    looks = [[shelf for shelf in map(number, wanted) if shelf is not None] for wanted in options]
    lot_of, surplus = [-1] * len(bids), 0
    for job in _ranked(bids, options):
        best, chosen = bids[job].value, -1
        for shelf in looks[bids[job].want]:
            head = heads[shelf]
            if head < best:
                best, chosen = head, shelf
        if chosen < 0:
            continue
        place = places[chosen]
        lot = queues[chosen][place]
        left[lot] -= units[chosen]
        lot_of[job] = lot
        surplus += bids[job].value - best
        for shelf in families[chosen]:
            if places[shelf] == place and left[lot] < units[shelf]:
                shelves.pass_over(shelf, left)
    return Matching(lot_of, surplus)


def _ranked(bids: Sequence[Bid], options: Sequence[Options]) -> list[int]:
    """The jobs in the order of what they would pay for a unit, the lower index first where they pay the same."""
    least = [min(map(itemgetter(1), wanted), default=1) for wanted in options]
    ranks = [bid.value // least[bid.want] for bid in bids]
    return sorted(range(len(bids)), key=ranks.__getitem__, reverse=True)


class _Shelves:
    """Lots of one kind for jobs that take so many units of one, cheapest first: a shelf for each option, in columns.

    `heads` is what the next lot of a shelf costs in all, `places` where it stands in the shelf's queue; the shelves of
    a kind are a family, and have one queue.
    """

    def __init__(self, lots: Sequence[Lot], left: Sequence[int], options: Sequence[Options]) -> None:
        held: dict[int, list[tuple[int, int]]] = {}
        for index, lot in enumerate(lots):
            held.setdefault(lot.kind, []).append((lot.cost, index))
        sorted_ = {kind: sorted(some) for kind, some in held.items()}
        queues = {kind: list(map(itemgetter(1), some)) for kind, some in sorted_.items()}
        costs = {kind: list(map(itemgetter(0), some)) for kind, some in sorted_.items()}
        made = [option for option in set(chain.from_iterable(options)) if option[0] in queues]
        families: dict[int, list[int]] = {}
        for shelf, (kind, _) in enumerate(made):
            families.setdefault(kind, []).append(shelf)
        self.numbers = {option: shelf for shelf, option in enumerate(made)}
        self.units = [units for _, units in made]
        self.queues = [queues[kind] for kind, _ in made]
        self._costs = [costs[kind] for kind, _ in made]
        self.families = [families[kind] for kind, _ in made]
        self.places, self.heads = [-1] * len(made), [0] * len(made)
        for shelf in range(len(made)):
            self.pass_over(shelf, left)

    def pass_over(self, shelf: int, left: Sequence[int]) -> None:
        """Move on to a lot that still has as many units; what a lot lost it never gets back."""
        place, queue, units = self.places[shelf] + 1, self.queues[shelf], self.units[shelf]
        while place < len(queue) and left[queue[place]] < units:
            place += 1
        self.places[shelf] = place
        self.heads[shelf] = self._costs[shelf][place] * units if place < len(queue) else _NEVER


_NEVER = 1 << 200


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
