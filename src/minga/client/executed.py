"""The leases of one network that were paid, with the class of card that they paid for.

The chain's events say who paid whom how much and at what price; which card a machine has, only its signed description
says, which boards hold while its offer lives. A lease of a machine that nobody describes any more is counted and left
out.

Rule: reads only, into a folder of its own; what cannot be asked within a time limit is an error of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minga.chain.view import LeaseRecord, View
from minga.core.units import DAY
from minga.protocol.accelerators import Accelerator
from minga.protocol.executed_index import Executed
from minga.protocol.price_claims import Take
from minga.protocol.price_quotes import MICRO, card_class
from minga.protocol.wire import OfferBundle

if TYPE_CHECKING:
    from minga.client.home import Network
    from minga.client.provider_api import Connect
    from minga.core.effects import Clock

NO_GPU = Accelerator("CPU")
"""The class of units without a GPU; its prices are per unit-hour."""

ANSWER_S = 3.0


@dataclass(frozen=True, slots=True)
class Class:
    """What one unit of a machine is: a class of card, and how many of it (1 for units without)."""

    gpu: Accelerator
    count: int


@dataclass(frozen=True, slots=True)
class Paid:
    """A network's paid leases, how many were left out since nobody describes their machine, and what it took."""

    leases: tuple[Executed, ...]
    unknown: int
    take: Take


def classes_of(bundles: Iterable[OfferBundle]) -> dict[str, Class]:
    """Machine hash → what a unit of it is; machines with several models of card are left out."""
    found: dict[str, Class] = {}
    for bundle in bundles:
        names = {gpu.model for gpu in bundle.machine.gpus}
        count = bundle.terms.unit.gpus
        if not count:
            found[bundle.offer.machine] = Class(NO_GPU, 1)
        elif len(names) == 1:
            found[bundle.offer.machine] = Class(card_class(names.pop()), count)
    return found


def executed_of(view: View, classes: Mapping[str, Class], decimals: int) -> Paid:
    """The leases of `view` that were paid.

    Args:
        view: the chain's leases.
        classes: of `classes_of`.
        decimals: of the token.
    """
    paid = [record for record in view.leases.values() if record.paid + record.fee > 0]
    known = [_executed(record, classes[record.lease.machine], decimals) for record in paid if _known(record, classes)]
    take = Take(sum(record.paid for record in paid), sum(record.fee for record in paid), len(paid))
    return Paid(tuple(known), len(paid) - len(known), take)


def _known(record: LeaseRecord, classes: Mapping[str, Class]) -> bool:
    return record.lease.machine in classes


def _executed(record: LeaseRecord, unit: Class, decimals: int) -> Executed:
    lease = record.lease
    micro = lease.price_per_hour * MICRO // 10**decimals // unit.count
    ended = record.closed_at or record.opened.time
    return Executed(
        str(lease.id), str(lease.tenant), str(lease.provider), unit.gpu, micro, record.paid + record.fee, ended // DAY
    )


async def read_executed(network: Network, folder: Path, clock: Clock, connect: Connect) -> Paid:
    """Ask a network's chain and boards.

    Args:
        network: which.
        folder: where events are kept between calls; it exists, and is for this reader alone.
        clock: for connections and offers.
        connect: how a board is reached.

    Raises:
        NetworkError: the chain or every board did not answer.
        TimeoutError: not within `ANSWER_S`; what was read is kept, so that asking again goes on.
    """
    import anyio

    from minga.chain.node import open_chain
    from minga.client.offers import OfferSource

    with anyio.fail_after(ANSWER_S):
        async with open_chain(network.chain, folder, clock) as chain:
            source = OfferSource(network, chain, connect, clock)
            try:
                bundles = (await source.gather()).bundles
                while True:
                    changes = await chain.poll()
                    chain.acknowledge(changes)
                    if not changes.confirmed and not changes.undone:
                        break
            finally:
                await source.aclose()
            return executed_of(chain.view, classes_of(bundles), network.chain.deployment.decimals)
