"""Leases and complaints for tests of boards and of their readers: by number, each with a signer of its own."""

from __future__ import annotations

from typing import Any

from board_offers import DOMAIN, NOW, key_of

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32
from minga.core.eip712 import Domain
from minga.core.units import Amount
from minga.protocol.complaint import SignedComplaint, complain
from minga.protocol.lease import Lease

PROVIDER = Address("0x" + "0a" * 20)


def lease_of(number: int, provider: Address = PROVIDER) -> Lease:
    """The number-th lease, by a tenant of its own."""
    return Lease(
        Address(f"0x{number:040x}"), Hash32(f"0x{number:064x}"), 0, key_of(1000 + number).address, provider,
        Hash32("0x" + "0c" * 32), Hash32("0x" + "0d" * 32), Amount(3_600_000), 1, 3600, ZERO_ADDRESS, 0, 0, NOW - 900,
    )  # fmt: skip


def complaint_of(lease: Lease, number: int, reason: int = 5, made_at: int = NOW, **changes: Any) -> SignedComplaint:
    """What the number-th lease's signer says of it; `changes` are made before it signs."""
    domain: Domain = changes.pop("domain", DOMAIN)
    fields = {"lease_id": lease.id, "offer": lease.offer, "provider": lease.provider} | changes
    return complain(reason=reason, made_at=made_at, domain=domain, signer=key_of(1000 + number), **fields)
