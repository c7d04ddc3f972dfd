"""What is for sale: the machine, the terms, the signed offer, and the boards that are told.

Knows: how facts about this machine become hashes and signatures, and when to sign anew. Does not know: leases. Rule:
an offer is on disk before anybody sees it, because a lease may be opened on it for as long as it is valid, and its
terms bind for as long as that lease lives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from minga.core.codec import parse_json
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, PrivateKey, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import BoardUnavailable, InvalidInput, NotFound
from minga.core.spec import Machine, Terms, UnitSize
from minga.core.units import DAY, Amount
from minga.protocol.messages import Offer, Posting, offer_hash, sign
from minga.protocol.wire import OfferBundle, OfferFields
from minga.provider.points import reach
from minga.store.blobs import write_atomic
from minga.transport.errors import network_error, raise_for
from minga.transport.http import connect

MEMORY_SHARE, DISK_SHARE = 90, 80
"""Per cent of the machine's memory and free disk that are sold; the rest is the owner's and the agent's."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the owner asks for. Prices are token units per unit-hour, times seconds.

    `deposit_floor` is the least deposit whatever the price; `deposit_min` what the next offer says. `arbiter` may
    decide about `hold_bps` basis points of the pay for `hold_seconds`; the zero address: nobody.
    """

    price_per_hour: int
    units: int
    quantum: int
    deposit_min: int
    seconds_min: int
    seconds_max: int
    close_window: int
    offer_seconds: int
    deposit_floor: int = 1
    arbiter: Address = ZERO_ADDRESS
    hold_bps: int = 0
    hold_seconds: int = 0


def split(machine: Machine, units: int) -> UnitSize:
    """An even share of the machine for each unit.

    Raises:
        InvalidInput: the shares would be too small to run anything.
    """
    memory = machine.memory_bytes * MEMORY_SHARE // 100 // units
    disk = machine.disk_bytes * DISK_SHARE // 100 // units
    cpu_milli = machine.cpus * 1000 // units
    if units < 1 or cpu_milli < 50 or memory < 64 << 20 or disk < 64 << 20:
        raise InvalidInput(f"{units} units are too many for this machine", "sell fewer units")
    return UnitSize(cpu_milli=cpu_milli, memory_bytes=memory, disk_bytes=disk, gpus=len(machine.gpus) // units)


def check_fits(machine: Machine, unit: UnitSize, units: int) -> None:
    """Return if the machine has `units` of `unit`.

    Raises:
        InvalidInput: it has not; nothing is sold twice.
    """
    has = {
        "cpu_milli": machine.cpus * 1000,
        "memory_bytes": machine.memory_bytes,
        "disk_bytes": machine.disk_bytes,
        "gpus": len(machine.gpus),
    }
    for name, total in has.items():
        if getattr(unit, name) * units > total:
            raise InvalidInput(
                f"{units} units of {name} {getattr(unit, name)} are more than this machine's {total}",
                "sell fewer or smaller units",
            )


def make_offer(ask: Ask, provider: Address, machine: Hash32, terms: Hash32, epoch: int, now: int, salt: bytes) -> Offer:
    """The offer for the next `offer_seconds`; `now` is chain time, `salt` 32 random bytes."""
    return Offer(
        provider=provider,
        machine=machine,
        terms=terms,
        price_per_hour=Amount(ask.price_per_hour),
        units=ask.units,
        deposit_min=Amount(ask.deposit_min),
        seconds_min=ask.seconds_min,
        seconds_max=ask.seconds_max,
        quantum=ask.quantum,
        close_window=ask.close_window,
        arbiter=ask.arbiter,
        hold_bps=ask.hold_bps,
        hold_seconds=ask.hold_seconds,
        valid_until=now + ask.offer_seconds,
        epoch=epoch,
        salt=Hash32(to_hex(salt)),
    )


def bundle_of(
    offer: Offer, machine: Machine, terms: Terms, url: str, now: int, domain: Domain, agent: PrivateKey
) -> OfferBundle:
    """The offer signed, with what its hashes name and where its provider is reached."""
    posting = Posting(offer_hash(offer), url, now)
    return OfferBundle(
        offer=OfferFields.of(offer),
        signature=to_hex(sign(offer, domain, agent)),
        agent=agent.address,
        machine=machine,
        terms=terms,
        url=url,
        posted_at=now,
        url_signature=to_hex(sign(posting, domain, agent)),
    )


class OfferBook:
    """Every offer that a lease may still live on, one file each. Methods block for a file."""

    def __init__(self, folder: Path) -> None:
        """Use `folder` (made)."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, bundle: OfferBundle) -> None:
        """Store a bundle durably.

        Raises:
            DiskFull: no room; the offer must not be shown.
        """
        write_atomic(self._folder / f"{bundle.offer_hash()[2:]}.json", bundle.canonical())
        reach("provider.offer.kept")

    def get(self, name: str) -> OfferBundle:
        """The bundle of an offer hash.

        Raises:
            NotFound: never signed here, or long gone.
        """
        try:
            return OfferBundle.parse(parse_json((self._folder / f"{name[2:]}.json").read_bytes()))
        except (FileNotFoundError, InvalidInput):
            raise NotFound(f"offer {name[:18]} was not signed here", "ask for the current offers") from None

    def prune(self, now: int) -> None:
        """Delete offers on which no lease can live any more; `now` is chain time."""
        for path in self._folder.glob("*.json"):
            try:
                offer = OfferBundle.parse(path.read_bytes()).offer
            except (InvalidInput, OSError):
                continue
            if offer.valid_until + offer.seconds_max + offer.close_window + DAY < now:
                path.unlink(missing_ok=True)


async def post(board: str, bundle: OfferBundle, timeout_s: float = 5.0) -> None:
    """Tell one board about an offer.

    Raises:
        BoardUnavailable: it does not answer.
        MingaError: it refuses, and says why.
    """
    try:
        async with connect(board, timeout_s=timeout_s) as client:
            body = json.dumps(bundle.plain()).encode()
            answer = await client.post("/v1/offers", content=body, headers={"content-type": "application/json"})
            await raise_for(answer)
    except (httpx.HTTPError, OSError) as error:
        raise BoardUnavailable(network_error(error, board).fact, "check the board's address") from None


def next_renewal(offer: Offer, now: int, ask: Ask) -> int:
    """Seconds from `now` (chain time) until the offer should be signed anew: at half its life; 0 when overdue."""
    return max(0, offer.valid_until - ask.offer_seconds // 2 - now)


__all__ = [
    "Ask", "OfferBook", "bundle_of", "check_fits", "make_offer", "next_renewal", "post", "split",
]  # fmt: skip
