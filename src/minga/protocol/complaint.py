"""A complaint: a tenant's signed word that it left a provider for its fault, as it travels and as it is checked.

| route (of a board)                       | request → response                                                    |
|------------------------------------------|-----------------------------------------------------------------------|
| POST /v1/complaints                      | SignedComplaint → 204, also when the same one is held                 |
| GET  /v1/complaints?provider=&limit=     | → `{"complaints": [SignedComplaint], "held": N}`, the newest first    |

What the chain says already (`ClosingStarted.why`) needs no complaint: this is for leases that the provider closed
first. A complaint is worth nothing without a lease behind it that names this signer and this provider, and never more
than what that lease paid (`minga.protocol.reliability`).

Does not know: chains and boards. Rule: `check` proves who signed; only the chain proves that there was a lease.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from minga.core.crypto import Address, Hash32, PrivateKey, parse_signature, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import BadAnswer, MingaError
from minga.core.spec import AddressText, Count, Hash32Text, Model
from minga.protocol.lease import Lease, Why
from minga.protocol.messages import Complaint, channel_id, sign, verify
from minga.protocol.wire import SignatureText

FAULTS: dict[int, str] = {
    int(Why.UNREACHABLE): "silent",
    int(Why.UNDER_SPEC): "under-spec",
    int(Why.BAD_RESULT): "bad-result",
    int(Why.SHUTTING_DOWN): "no-notice",
}
"""Reasons of a complaint: the `Why` code → its name. SHUTTING_DOWN complains of a reclaim without the stated notice."""


class SignedComplaint(Model):
    """A complaint with what its channel is made of, so that a reader finds the lease. Believe it after `check`."""

    lease_id: Hash32Text
    offer: Hash32Text
    signer: AddressText
    provider: AddressText
    reason: Literal[5, 6, 7, 8]
    made_at: Count
    signature: SignatureText

    @property
    def channel(self) -> Hash32:
        """The channel id: H(lease id, offer, signer)."""
        return channel_id(Hash32(self.lease_id), Hash32(self.offer), Address(self.signer))

    def check(self, domain: Domain) -> Complaint:
        """The typed message, once its signature was checked.

        Raises:
            InvalidSignature: the signer did not sign this, in this domain.
        """
        message = Complaint(self.channel, Address(self.provider), self.reason, self.made_at)
        verify(message, domain, parse_signature(self.signature), Address(self.signer))
        return message

    def is_of(self, lease: Lease) -> bool:
        """Whether `lease`, read from the chain, is the one complained of: same channel (so same signer), provider."""
        return lease.channel == self.channel and lease.provider == self.provider


def complain(
    lease_id: str, offer: str, provider: str, reason: int, made_at: int, domain: Domain, signer: PrivateKey
) -> SignedComplaint:
    """Sign a complaint.

    Args:
        lease_id, offer, provider: the lease, its offer's hash and who sold it.
        reason: one of `FAULTS`.
        made_at: Unix seconds.
        domain: chain and Market.
        signer: the lease's session signer.

    Raises:
        InvalidInput: `reason` is no fault of a provider, or a field is malformed.
    """
    channel = channel_id(Hash32(lease_id), Hash32(offer), signer.address)
    signature = sign(Complaint(channel, Address(provider), reason, made_at), domain, signer)
    fields = {"lease_id": lease_id, "offer": offer, "signer": signer.address, "provider": provider}
    return SignedComplaint.parse({**fields, "reason": reason, "made_at": made_at, "signature": to_hex(signature)})


def parse_complaints(answer: Any) -> list[SignedComplaint]:
    """The well-formed ones of a board's answer `{"complaints": [...]}`; malformed ones are left out.

    Raises:
        BadAnswer: it is not such an object.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("complaints"), list):
        raise BadAnswer('an answer is not {"complaints": [...]}', "is this a Minga board?")
    found = []
    for item in answer["complaints"]:
        with suppress(MingaError):
            found.append(SignedComplaint.parse(item))
    return found
