"""What can be done on the simulated chain, as transactions: each is one call of the specification of Market.

They keep, beside the specification, what the contract's events would tell: deposits and the totals of closed leases.
Rule: a total here is what the ledger moved, not what a formula says should have moved.
"""

from __future__ import annotations

from typing import Any

from minga.core.crypto import Address, Hash32
from minga.protocol import settlement
from minga.protocol.lease import Lease, Phase
from minga.protocol.market import Order
from minga.protocol.messages import Offer
from minga.protocol.stake import ALLOWANCE_UNLIMITED
from minga.sim.chain import FEES, MARKET, Call, SimChain
from minga.sim.chain_state import Closing


def transfer(source: Address, target: Address, amount: int | None) -> Call:
    """Move tokens; all of them where `amount` is None. The result is what was moved."""

    def call(chain: SimChain, now: int) -> int:
        ledger = chain.market.ledger
        moved = ledger.balance(source) if amount is None else amount
        if not ledger.move(source, target, moved):
            from minga.core.errors import ContractError

            raise ContractError("token: balance too small")
        ledger.allowances[target, MARKET] = ALLOWANCE_UNLIMITED
        return moved

    return call


def open_lease(tenant: Address, offer: Offer, signature: bytes, order: Order) -> Call:
    """Open a lease; the result is (lease, seconds)."""

    def call(chain: SimChain, now: int) -> tuple[Lease, int]:
        lease = chain.market.open(tenant, now, offer, signature, order)
        chain.deposits[lease.id] = order.deposit
        chain.by_provider[lease.provider] = (*chain.by_provider.get(lease.provider, ()), lease.id)
        chain.opened.append((lease, offer, chain.market.epochs.get(offer.provider, 0)))
        return lease, order.seconds

    return call


def top_up(sender: Address, lease_id: Hash32, amount: int) -> Call:
    """Add to a deposit; the result is the deposit."""

    def call(chain: SimChain, now: int) -> int:
        lease = _lease(chain, lease_id)
        chain.market.top_up(sender, lease, amount)
        chain.deposits[lease_id] += amount
        if sender != lease.tenant:
            chain.gifts[lease_id] = chain.gifts.get(lease_id, 0) + amount
        return chain.deposits[lease_id]

    return call


def redeem(lease_id: Hash32, cumulative: int, signature: bytes) -> Call:
    """Bring a voucher before the end."""

    def call(chain: SimChain, now: int) -> Any:
        return chain.market.redeem(_lease(chain, lease_id), cumulative, signature)

    return call


def close(sender: Address, lease_id: Hash32, cumulative: int, signature: bytes) -> Call:
    """The provider's close; the result is the lease's totals."""

    def call(chain: SimChain, now: int) -> Closing:
        lease = _lease(chain, lease_id)
        before = _before(chain, lease)
        chain.market.close(sender, now, lease, cumulative, signature)
        return _closed(chain, lease, before, now, "provider")

    return call


def start_close(sender: Address, lease_id: Hash32) -> Call:
    """The tenant's close begins; the result is when it may be finished."""

    def call(chain: SimChain, now: int) -> int:
        lease = _lease(chain, lease_id)
        chain.market.start_close(sender, now, lease)
        return chain.market.accounts[lease_id].ends_at + lease.close_window

    return call


def finish_close(lease_id: Hash32) -> Call:
    """Anyone's end of a close whose window is over; the result is the lease's totals."""

    def call(chain: SimChain, now: int) -> Closing:
        lease = _lease(chain, lease_id)
        before = _before(chain, lease)
        chain.market.finish_close(now, lease)
        return _closed(chain, lease, before, now, "window")

    return call


def cancel_offers(sender: Address) -> Call:
    """The sender's offers of this epoch die."""

    def call(chain: SimChain, now: int) -> None:
        chain.market.cancel_offers(sender)

    return call


def _lease(chain: SimChain, lease_id: Hash32) -> Lease:
    from minga.core.errors import ContractError

    lease = chain.market.leases.get(lease_id)
    if lease is None:
        raise ContractError("market: unknown lease")
    return lease


def _before(chain: SimChain, lease: Lease) -> tuple[int, int, int, int]:
    market = chain.market
    account = market.accounts[lease.id]
    gone = settlement.split(account.settled, market.fee_bps, lease.hold_bps)
    tenant = market.ledger.balance(lease.tenant) + market.owed.get(lease.tenant, 0)
    return account.deposit, tenant, market.fees - gone.fee, gone.held


def _closed(chain: SimChain, lease: Lease, before: tuple[int, int, int, int], now: int, by: str) -> Closing:
    market = chain.market
    deposit, tenant, fees, _ = before
    refunded = market.ledger.balance(lease.tenant) + market.owed.get(lease.tenant, 0) - tenant
    fee = market.fees - fees
    held = market.liability(lease) if market.accounts[lease.id].phase is Phase.HELD else 0
    closing = Closing(deposit, deposit - refunded - fee - held, fee, held, refunded, now, by)
    chain.closings[lease.id] = closing
    return closing


__all__ = [
    "FEES", "cancel_offers", "close", "finish_close", "open_lease", "redeem", "start_close", "top_up", "transfer",
]  # fmt: skip
