"""Signed offers for tests of boards: one way to make one, every field can be changed before it is signed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, PrivateKey, keccak, new_key, to_hex
from minga.core.eip712 import Domain
from minga.core.spec import Gpu, Machine, Terms, UnitSize
from minga.core.units import GIB, Amount
from minga.protocol.messages import Offer, Posting, offer_hash, sign
from minga.protocol.wire import OfferBundle, OfferFields

NOW = 1_800_000_000
DOMAIN = Domain(31337, "0x" + "ab" * 20)


def key_of(number: int) -> PrivateKey:
    """A key for tests, by number."""
    return new_key(number.to_bytes(32, "big"))


def bundle_of(
    agent: PrivateKey,
    *,
    salt: int = 0,
    posted_at: int = NOW,
    url: str = "http://127.0.0.1:7000",
    domain: Domain = DOMAIN,
    gpu: str | None = None,
    **changes: Any,
) -> OfferBundle:
    """A valid bundle, signed by `agent`; `changes` are fields of the offer."""
    gpus = [Gpu(vendor="nvidia", model=gpu, memory_bytes=24 * GIB)] if gpu else []
    machine = Machine(
        node=_hash("node", 1), arch="x86_64", cpu="test", cpus=8, memory_bytes=32 * GIB, disk_bytes=100 * GIB,
        gpus=gpus, os="linux",
    )  # fmt: skip
    unit = UnitSize(cpu_milli=4000, memory_bytes=16 * GIB, disk_bytes=50 * GIB, gpus=len(gpus))
    terms = Terms(transport_key="11" * 32, unit=unit, sandbox="bubblewrap")
    offer = Offer(
        provider=agent.address, machine=machine.hash32(), terms=terms.hash32(), price_per_hour=Amount(360_000),
        units=1, deposit_min=Amount(100), seconds_min=60, seconds_max=86400, quantum=60, close_window=3600,
        arbiter=Address(ZERO_ADDRESS), hold_bps=0, hold_seconds=0, valid_until=NOW + 600, epoch=0,
        salt=_hash("salt", salt),
    )  # fmt: skip
    offer = replace(offer, **changes)
    posting = Posting(offer_hash(offer), url, posted_at)
    return OfferBundle(
        offer=OfferFields.of(offer), signature=to_hex(sign(offer, domain, agent)), agent=agent.address,
        machine=machine, terms=terms, url=url, posted_at=posted_at, url_signature=to_hex(sign(posting, domain, agent)),
    )  # fmt: skip


def _hash(what: str, number: int) -> Hash32:
    return Hash32(to_hex(keccak(f"{what} {number}".encode())))
