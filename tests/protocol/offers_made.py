"""Posted offers for tests that read them and never check a signature."""

from __future__ import annotations

from typing import Any

from minga.core.crypto import ZERO_ADDRESS
from minga.core.spec import Gpu, Machine, Terms, UnitSize
from minga.protocol.matching import Ranked, ranked
from minga.protocol.wire import OfferBundle, OfferFields

GB = 10**9
CARD = Gpu(vendor="nvidia", model="NVIDIA GeForce RTX 4090", memory_bytes=24 * GB)
UNIT = {"cpu_milli": 8000, "memory_bytes": 32 * GB, "disk_bytes": 200 * GB, "gpus": 1}
OFFER = {
    "units": 1, "deposit_min": "1", "quantum": 60, "seconds_min": 60, "seconds_max": 7 * 86400, "close_window": 3600,
    "arbiter": ZERO_ADDRESS, "hold_bps": 0, "hold_seconds": 0, "valid_until": 2**33, "epoch": 0,
    "salt": "0x" + "00" * 32,
}  # fmt: skip


def bundle_of(number: int = 1, price: int = 400_000, gpus: list[Gpu] | None = None, **more: Any) -> OfferBundle:
    """The offer of machine `number`; `more` are fields of the offer, its unit or its terms."""
    unit = {name: more.pop(name, value) for name, value in UNIT.items()}
    offer = {name: more.pop(name, value) for name, value in OFFER.items()}
    machine = Machine(
        node=f"0x{number:064x}", arch="x86_64", cpu="cpu", cpus=16, memory_bytes=64 * GB, disk_bytes=500 * GB,
        gpus=[CARD] if gpus is None else gpus, os="linux",
    )  # fmt: skip
    terms = Terms(**{"transport_key": "aa" * 32, "unit": UnitSize(**unit), "sandbox": "bubblewrap", **more})
    provider, signature = f"0x{number:040x}", "0x" + "00" * 65
    fields = OfferFields(
        provider=provider, machine=machine.hash32(), terms=terms.hash32(), price_per_hour=str(price), **offer
    )
    return OfferBundle(
        offer=fields, signature=signature, agent=provider, machine=machine, terms=terms, url="http://127.0.0.1:1",
        posted_at=1000, url_signature=signature,
    )  # fmt: skip


def matches_of(price: int = 400_000, number: int = 1, units: int = 1, **more: Any) -> list[Ranked]:
    """One matching offer."""
    return [ranked(bundle_of(number, price, **more), units, None)]
