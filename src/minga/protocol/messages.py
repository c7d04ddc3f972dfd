"""Every message that somebody signs, and who must have signed it.

| message   | signer                 | where it counts                                   |
|-----------|------------------------|---------------------------------------------------|
| Offer     | provider's agent key   | Market.open                                       |
| Voucher   | lease's session signer | Market.redeem, close (off chain until the end)    |
| Release   | provider's agent key   | Market.release                                    |
| Extend    | provider's agent key   | Market.extend                                     |
| Login     | lease's session signer | the provider's HTTP API only                      |
| Posting   | provider's agent key   | boards only: where an offer's provider is reached |
| Complaint | lease's session signer | reliability records only (`protocol.complaint`)   |
| Ordered   | lease's session signer | Disputes.commit: this work, and no other          |
| Auditor   | validator              | the provider's HTTP API only                      |

A voucher names a *channel*, H(lease id, offer hash, signer), not a lease id: an id that is opened again after a reorg
with other terms or another signer is another channel, and old vouchers die with the old one. Vouchers are checked
with ecrecover alone: a contract signer could turn invalid after the work was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from minga.core.crypto import Address, Hash32, PrivateKey, from_hex, keccak, recover, to_hex
from minga.core.eip712 import Domain, Struct
from minga.core.errors import InvalidSignature
from minga.core.units import Amount


@dataclass(frozen=True, slots=True)
class Offer(Struct):
    """A signed ask for `units` of one machine.

    `price_per_hour` and `deposit_min` are token units (price is per unit-hour); `seconds_min`, `seconds_max`,
    `quantum`, `close_window`, `hold_seconds` are seconds; `valid_until` is chain time (Unix seconds); `hold_bps` is
    0 … 10,000; `machine` and `terms` are hashes of canonical JSON.
    """

    provider: Address
    machine: Hash32
    terms: Hash32
    price_per_hour: Amount
    units: int
    deposit_min: Amount
    seconds_min: int
    seconds_max: int
    quantum: int
    close_window: int
    arbiter: Address
    hold_bps: int
    hold_seconds: int
    valid_until: int
    epoch: int
    salt: Hash32

    TYPE: ClassVar[str] = (
        "Offer(address provider,bytes32 machine,bytes32 terms,uint128 price_per_hour,uint32 units,"
        "uint128 deposit_min,uint32 seconds_min,uint32 seconds_max,uint32 quantum,uint32 close_window,"
        "address arbiter,uint16 hold_bps,uint32 hold_seconds,uint64 valid_until,uint64 epoch,bytes32 salt)"
    )


@dataclass(frozen=True, slots=True)
class Voucher(Struct):
    """A promise of `cumulative` token units, in total since the lease opened; `lease` is the channel id."""

    lease: Hash32
    cumulative: Amount

    TYPE: ClassVar[str] = "Voucher(bytes32 lease,uint128 cumulative)"


@dataclass(frozen=True, slots=True)
class Release(Struct):
    """The provider agrees to end the channel at max(settled, `settled`) token units."""

    lease: Hash32
    settled: Amount

    TYPE: ClassVar[str] = "Release(bytes32 lease,uint128 settled)"


@dataclass(frozen=True, slots=True)
class Extend(Struct):
    """The provider agrees to a later end, `ends_at` in chain time."""

    lease: Hash32
    ends_at: int

    TYPE: ClassVar[str] = "Extend(bytes32 lease,uint64 ends_at)"


@dataclass(frozen=True, slots=True)
class Login(Struct):
    """The session signer asks the provider's API for a token: channel, provider, time (Unix seconds), nonce."""

    lease: Hash32
    provider: Address
    issued_at: int
    nonce: Hash32

    TYPE: ClassVar[str] = "Login(bytes32 lease,address provider,uint64 issued_at,bytes32 nonce)"


@dataclass(frozen=True, slots=True)
class Posting(Struct):
    """A provider says where one of its offers is served; boards keep the newest by `posted_at` (Unix seconds)."""

    offer: Hash32
    url: str
    posted_at: int

    TYPE: ClassVar[str] = "Posting(bytes32 offer,string url,uint64 posted_at)"


@dataclass(frozen=True, slots=True)
class Complaint(Struct):
    """A tenant's word that it left a provider for its fault; `lease` is the channel id.

    `reason` is a `lease.Why` of a provider's fault; `made_at` Unix seconds.
    """

    lease: Hash32
    provider: Address
    reason: int
    made_at: int

    TYPE: ClassVar[str] = "Complaint(bytes32 lease,address provider,uint8 reason,uint64 made_at)"


@dataclass(frozen=True, slots=True)
class Ordered(Struct):
    """The tenant says which work (`core.work`) the channel `lease` pays for. Its domain's contract is Disputes."""

    lease: Hash32
    work: Hash32

    TYPE: ClassVar[str] = "Ordered(bytes32 lease,bytes32 work)"


@dataclass(frozen=True, slots=True)
class Auditor(Struct):
    """A validator asks the provider's API for what it needs to check the channel `lease`: time (Unix seconds), nonce.

    Its domain's contract is Disputes.
    """

    lease: Hash32
    validator: Address
    issued_at: int
    nonce: Hash32

    TYPE: ClassVar[str] = "Auditor(bytes32 lease,address validator,uint64 issued_at,bytes32 nonce)"


def lease_id(tenant: Address, job: Hash32, attempt: int) -> Hash32:
    """keccak(abi.encode(tenant, job, attempt)): lives once, for ever."""
    return Hash32(to_hex(keccak(bytes(12) + from_hex(tenant) + from_hex(job) + attempt.to_bytes(32, "big"))))


def channel_id(lease: Hash32, offer_hash: Hash32, signer: Address) -> Hash32:
    """keccak(abi.encode(lease id, offer hash, signer)): what a voucher, a release and a login name."""
    return Hash32(to_hex(keccak(from_hex(lease) + from_hex(offer_hash) + bytes(12) + from_hex(signer))))


def offer_hash(offer: Offer) -> Hash32:
    """EIP-712 hashStruct of the offer, without the domain."""
    return Hash32(to_hex(offer.struct_hash()))


def sign(message: Struct, domain: Domain, key: PrivateKey) -> bytes:
    """The 65-byte signature of `key` over `message` in `domain`."""
    return key.sign(message.digest(domain))


def verify(message: Struct, domain: Domain, signature: bytes, signer: Address) -> None:
    """Check that `signer` signed `message` in `domain`.

    Raises:
        InvalidSignature: malformed, not canonical, or made by another key.
    """
    found = recover(message.digest(domain), signature)
    if found != signer:
        raise InvalidSignature(
            f"{type(message).__name__} is signed by {found}, not by {signer}",
            "sign with the right key and domain",
        )
