"""The executable specification of Market.

What it is: every call of the contract as a method that changes state, or raises `ContractError` with the contract's own
revert string and changes nothing. Tests drive it in lockstep with the compiled contract. What it does not know: gas,
events, storage layout, blocks; the caller gives the sender and the chain time. Rule, in every method, as in the
contract: check, accrue, effects, interaction. A payout never raises: what the token refuses is booked as owed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, recover
from minga.core.eip712 import Domain, Struct
from minga.core.errors import InvalidSignature
from minga.core.units import BPS, Amount
from minga.protocol import lease as channel
from minga.protocol import settlement
from minga.protocol.lease import Account, How, Lease, Move, Phase
from minga.protocol.messages import Extend, Offer, Release, Voucher, lease_id
from minga.protocol.settlement import Split
from minga.protocol.stake import Ledger, Registry, require


@dataclass(frozen=True, slots=True)
class Order:
    """What a tenant asks of an offer. `seconds` is the lease's length, `deposit` is token units."""

    job: Hash32
    attempt: int
    units: int
    seconds: int
    deposit: int
    signer: Address


def refuse_1271(provider: Address, digest: bytes, signature: bytes) -> bool:
    """An address without code signs nothing."""
    return False


@dataclass
class Market:
    """All leases. `fee_bps` is 0 … 300; `wallet_signed` answers as the provider's address would by EIP-1271."""

    domain: Domain
    registry: Registry
    fee_bps: int
    fee_recipient: Address
    wallet_signed: Callable[[Address, bytes, bytes], bool] = refuse_1271
    leases: dict[Hash32, Lease] = field(default_factory=dict)
    accounts: dict[Hash32, Account] = field(default_factory=dict)
    leased: dict[tuple[Address, Hash32], int] = field(default_factory=dict)
    epochs: dict[Address, int] = field(default_factory=dict)
    owed: dict[Address, int] = field(default_factory=dict)
    fees: int = 0

    @property
    def address(self) -> Address:
        """The contract's own address."""
        return Address(self.domain.market)

    @property
    def ledger(self) -> Ledger:
        """The token."""
        return self.registry.ledger

    # ------------------------------------------------------------------------------------------- from offer to lease

    def open(
        self,
        sender: Address,
        now: int,
        offer: Offer,
        signature: bytes,
        order: Order,
        *,
        permit: int | None = None,
        authorized: bool | None = None,
    ) -> Lease:
        """Take an offer; the new lease.

        Args:
            permit: the allowance that a good permit sets; None without one, or when it is bad.
            authorized: whether the token accepts the tenant's signed transfer; None when the allowance is to be used.
        """
        self._check_offer(offer, order.seconds, now)
        machine = offer.provider, offer.machine
        leased = self.leased.get(machine, 0) + order.units
        require(order.units > 0, "market: no units")
        require(order.signer != ZERO_ADDRESS, "market: no signer")
        require(order.deposit > 0 and order.deposit >= offer.deposit_min, "market: deposit too small")
        require(order.deposit <= settlement.AMOUNT_MAX, "market: deposit too large")
        require(leased <= offer.units, "market: machine fully leased")
        require(lease_id(sender, order.job, order.attempt) not in self.leases, "market: lease exists")
        self._check_provider(offer.provider, offer, signature)
        if offer.arbiter != ZERO_ADDRESS:
            self.registry.check_lock(self.address, offer.provider, offer.arbiter, order.deposit)
        self._check_funds(sender, order.deposit, permit, authorized)
        lease = channel.lease_of(offer, sender, order.job, order.attempt, order.units, order.signer, now)
        self.leases[lease.id] = lease
        self.accounts[lease.id] = Account(Amount(order.deposit), Amount(0), now + order.seconds, Phase.OPEN)
        self.leased[machine] = leased
        self._lock(lease, order.deposit)
        if permit is not None:
            self.ledger.allowances[sender, self.address] = permit
        if authorized:
            self.ledger.move(sender, self.address, order.deposit)
        else:
            self.ledger.pull(sender, self.address, order.deposit)
        return lease

    def top_up(self, sender: Address, lease: Lease, amount: int) -> None:
        """Anyone adds to an OPEN lease's deposit."""
        account = channel.top_up(self._account(lease), amount)
        if lease.has_arbiter:
            self.registry.check_lock(self.address, lease.provider, lease.arbiter, amount)
        self._check_funds(sender, amount, None, None)
        self.accounts[lease.id] = account
        self._lock(lease, amount)
        self.ledger.pull(sender, self.address, amount)

    def extend(self, sender: Address, lease: Lease, ends_at: int, signature: bytes) -> None:
        """The tenant and the provider agree on a later end."""
        account = self._account(lease)
        require(sender == lease.tenant, "market: not the tenant")
        account = channel.extend(account, ends_at)
        self._check_provider(lease.provider, Extend(lease.channel, ends_at), signature)
        self.accounts[lease.id] = account

    # ------------------------------------------------------------------------------------------------------ the ends

    def redeem(self, lease: Lease, cumulative: int, signature: bytes) -> Split:
        """Anyone brings a voucher; what it moved."""
        account = self._account(lease)
        after = channel.redeem(account, cumulative)
        self._check_voucher(lease, cumulative, signature)
        due = self._split(lease, after.settled) - self._split(lease, account.settled)
        self.accounts[lease.id] = after
        self.fees += due.fee
        self._pay(lease.provider, due.paid)
        return due

    def close(self, sender: Address, now: int, lease: Lease, cumulative: int, signature: bytes) -> None:
        """The provider, or its agent key, ends the lease with its last voucher, or with none."""
        account = self._account(lease)
        agent = self.registry.agents.get(lease.provider)
        require(sender in (lease.provider, agent), "market: not the provider")
        channel.check(account, Move.END)
        if cumulative or signature:
            self._check_voucher(lease, cumulative, signature)
        self._end(lease, account, settlement.settled_after(account.settled, account.deposit, cumulative), now)

    def release(self, sender: Address, now: int, lease: Lease, settled: int, signature: bytes) -> None:
        """The tenant ends the lease at an amount that the provider signed."""
        account = self._account(lease)
        require(sender == lease.tenant, "market: not the tenant")
        channel.check(account, Move.END)
        self._check_provider(lease.provider, Release(lease.channel, Amount(settled)), signature)
        self._end(lease, account, settlement.settled_after(account.settled, account.deposit, settled), now)

    def start_close(self, sender: Address, now: int, lease: Lease) -> None:
        """The tenant wants out."""
        account = self._account(lease)
        require(sender == lease.tenant, "market: not the tenant")
        self.accounts[lease.id] = channel.start_close(account, now)

    def finish_close(self, now: int, lease: Lease) -> How:
        """Anyone ends a lease whose window is over; which way it ended."""
        account = self._account(lease)
        channel.check(account, Move.END)
        require(now >= channel.finish_at(lease, account), "market: too early")
        self._end(lease, account, account.settled, now)
        return How.WINDOW if account.phase is Phase.CLOSING else How.END

    def resolve(self, sender: Address, now: int, lease: Lease, to_tenant: int) -> None:
        """The arbiter divides the held part."""
        account = self._account(lease)
        require(sender == lease.arbiter, "market: not the arbiter")
        channel.check(account, Move.END_HOLD)
        require(now < account.ends_at, "market: hold is over")
        held = self._split(lease, account.settled).held
        require(to_tenant <= held, "market: above the held part")
        self._end_hold(lease, account, to_tenant, held)

    def finish_hold(self, now: int, lease: Lease) -> None:
        """Anyone sends the held part to the provider once the hold is over."""
        account = self._account(lease)
        channel.check(account, Move.END_HOLD)
        require(now >= account.ends_at, "market: too early")
        self._end_hold(lease, account, 0, self._split(lease, account.settled).held)

    # ---------------------------------------------------------------------------------------------- everything beside

    def cancel_offers(self, sender: Address) -> None:
        """Every offer of the sender's present epoch dies."""
        self.epochs[sender] = self.epochs.get(sender, 0) + 1

    def collect_fees(self) -> None:
        """Anyone sends the fees to their recipient."""
        require(self.fees > 0, "market: no fees")
        amount, self.fees = self.fees, 0
        self._pay(self.fee_recipient, amount)

    def withdraw(self, sender: Address, receiver: Address) -> None:
        """Take what is owed to an address that the token serves."""
        require(receiver not in (ZERO_ADDRESS, self.address), "market: bad receiver")
        amount = self.owed.get(sender, 0)
        require(amount > 0, "market: nothing owed")
        require(self.ledger.move(self.address, receiver, amount), "market: transfer failed")
        self.owed[sender] = 0

    def liability(self, lease: Lease) -> int:
        """What the contract holds for one lease, token units: (deposit − settled) + the held part."""
        account = self._account(lease)
        return account.deposit - account.settled + self._split(lease, account.settled).held

    def liabilities(self) -> int:
        """What the contract must hold, token units: Σ (deposit − settled) + held + fees + owed."""
        return sum(map(self.liability, self.leases.values())) + self.fees + sum(self.owed.values())

    # ------------------------------------------------------------------------------------------------------ internals

    def _check_offer(self, offer: Offer, seconds: int, now: int) -> None:
        window = channel.CLOSE_WINDOW_MIN <= offer.close_window <= channel.CLOSE_WINDOW_MAX
        # A hold needs somebody to decide and time to do it; without either it would be a delay and no more.
        hold = (
            (offer.arbiter != ZERO_ADDRESS or offer.hold_seconds == 0)
            and (offer.hold_seconds > 0 or offer.hold_bps == 0)
            and offer.hold_seconds <= channel.HOLD_SECONDS_MAX
            and offer.hold_bps <= BPS
        )
        require(now <= offer.valid_until, "market: offer expired")
        require(offer.epoch == self.epochs.get(offer.provider, 0), "market: offer cancelled")
        require(window, "market: bad close window")
        require(hold, "market: bad hold")
        require(offer.seconds_min <= seconds <= offer.seconds_max, "market: bad duration")

    def _check_provider(self, provider: Address, message: Struct, signature: bytes) -> None:
        agent = self.registry.agents.get(provider)
        require(agent is not None, "market: unregistered provider")
        digest = message.digest(self.domain)
        good = _signer(digest, signature) == agent or self.wallet_signed(provider, digest, signature)
        require(good, "market: bad signature")

    def _check_voucher(self, lease: Lease, cumulative: int, signature: bytes) -> None:
        digest = Voucher(lease.channel, Amount(cumulative)).digest(self.domain)
        require(_signer(digest, signature) == lease.signer, "market: bad voucher")

    def _check_funds(self, payer: Address, amount: int, permit: int | None, authorized: bool | None) -> None:
        good = self.ledger.can_move(payer, self.address, amount)
        if authorized is None:
            allowed = self.ledger.allowances.get((payer, self.address), 0) if permit is None else permit
            good = good and allowed >= amount
        require(good and authorized is not False, "market: transfer failed")

    def _account(self, lease: Lease) -> Account:
        require(self.leases.get(lease.id) == lease, "market: unknown lease")
        return self.accounts[lease.id]

    def _split(self, lease: Lease, gross: int) -> Split:
        return settlement.split(gross, self.fee_bps, lease.hold_bps)

    def _lock(self, lease: Lease, exposure: int) -> None:
        if lease.has_arbiter:
            self.registry.lock(self.address, lease.provider, lease.arbiter, exposure)

    def _unlock(self, lease: Lease, exposure: int) -> None:
        if lease.has_arbiter:
            self.registry.unlock(self.address, lease.provider, lease.arbiter, exposure)

    def _end(self, lease: Lease, account: Account, settled: int, now: int) -> None:
        due = self._split(lease, settled) - self._split(lease, account.settled)
        # The stake answers for what was paid until the hold is over, even where the held part is nothing.
        still_locked = settled if lease.holds(settled) else 0
        self.accounts[lease.id] = channel.end(lease, account, settled, now)
        self.leased[lease.provider, lease.machine] -= lease.units
        self.fees += due.fee
        self._unlock(lease, account.deposit - still_locked)
        self._pay(lease.provider, due.paid)
        self._pay(lease.tenant, account.deposit - settled)

    def _end_hold(self, lease: Lease, account: Account, to_tenant: int, held: int) -> None:
        self.accounts[lease.id] = channel.NO_ACCOUNT
        self._unlock(lease, account.settled)
        self._pay(lease.tenant, to_tenant)
        self._pay(lease.provider, held - to_tenant)

    def _pay(self, receiver: Address, amount: int) -> None:
        if not self.ledger.move(self.address, receiver, amount):
            self.owed[receiver] = self.owed.get(receiver, 0) + amount


def _signer(digest: bytes, signature: bytes) -> Address | None:
    try:
        return recover(digest, signature)
    except InvalidSignature:
        return None
