"""How a tenant proves to a provider that a lease is its own: a login, signed by the lease's session signer.

Knows: which facts the provider checks on chain. Does not know: tokens and what they open.
"""

from __future__ import annotations

from minga.client.wallet import id_of, session_signer
from minga.core.crypto import Address, Hash32, PrivateKey, to_hex
from minga.core.effects import Clock, Dice
from minga.core.eip712 import Domain
from minga.protocol.job_plan import Deal
from minga.protocol.messages import Login, sign
from minga.protocol.wire import LoginRequest


def login_request(
    domain: Domain, wallet: PrivateKey, job: str, attempt: int, channel: str, deal: Deal, clock: Clock, dice: Dice
) -> LoginRequest:
    """A fresh login to the provider of one attempt.

    Args:
        domain: of Market.
        wallet: the job's.
        job: its id.
        attempt: which of the job's leases.
        channel: that lease's channel id.
        deal: what was agreed with the provider.
        clock: its time stands in the message.
        dice: for the nonce.
    """
    signer = session_signer(wallet, attempt)
    now, nonce = clock.now(), Hash32(to_hex(dice.bytes(32)))
    message = Login(Hash32(channel), Address(deal.provider), now, nonce)
    return LoginRequest(
        lease_id=id_of(wallet, Hash32(job), attempt),
        offer_hash=deal.offer,
        tenant=wallet.address,
        job=Hash32(job),
        attempt=attempt,
        signer=signer.address,
        issued_at=now,
        nonce=nonce,
        signature=to_hex(sign(message, domain, signer)),
    )
