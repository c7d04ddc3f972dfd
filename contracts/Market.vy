# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Market
@license Apache-2.0
@notice Prose: interfaces/IMarket.vyi. Order of every function: check, accrue, effects, event, interaction.
"""

from interfaces import IMarket
from interfaces import IRegistry
from modules import accounting
from modules import eip712
from modules import payments

implements: IMarket

NAME: constant(bytes32) = keccak256("Minga")
OFFER_TYPE: constant(bytes32) = keccak256(
    "Offer(address provider,bytes32 machine,bytes32 terms,uint128 price_per_hour,uint32 units,uint128 deposit_min,uint32 seconds_min,uint32 seconds_max,uint32 quantum,uint32 close_window,address arbiter,uint16 hold_bps,uint32 hold_seconds,uint64 valid_until,uint64 epoch,bytes32 salt)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256("Voucher(bytes32 lease,uint128 cumulative)")
RELEASE_TYPE: constant(bytes32) = keccak256("Release(bytes32 lease,uint128 settled)")
EXTEND_TYPE: constant(bytes32) = keccak256("Extend(bytes32 lease,uint64 ends_at)")

FEE_BPS_MAX: constant(uint256) = 300
CLOSE_WINDOW_MIN: constant(uint32) = 3600
CLOSE_WINDOW_MAX: constant(uint32) = 86400
HOLD_SECONDS_MAX: constant(uint32) = 7 * 86400
EIP1271_MAGIC: constant(bytes32) = 0x1626ba7e00000000000000000000000000000000000000000000000000000000
EIP1271_GAS: constant(uint256) = 150_000
# Many times what a transfer costs: a token, or a receiver that it calls, cannot burn another party's exit.
PAYOUT_GAS: constant(uint256) = 500_000

HOW_CLOSE: constant(uint8) = 1
HOW_RELEASE: constant(uint8) = 2
HOW_WINDOW: constant(uint8) = 3
HOW_END: constant(uint8) = 4

TOKEN: immutable(address)
REGISTRY: immutable(address)
FEE_BPS: immutable(uint256)
FEE_RECIPIENT: immutable(address)

lease_hash: public(HashMap[bytes32, bytes32])
_accounts: HashMap[bytes32, uint256]
# One more than the units leased, once a machine was ever leased: a slot that never returns to zero costs a fifth.
_leased_plus_one: HashMap[address, HashMap[bytes32, uint256]]
epoch_of: public(HashMap[address, uint64])
owed: public(HashMap[address, uint256])
# Both only grow, for the same reason.
_fees_earned: uint256
_fees_collected: uint256


@deploy
def __init__(token: address, registry: address, fee_bps: uint256, fee_recipient: address):
    assert token.is_contract and registry.is_contract, "market: not a contract"
    assert staticcall IRegistry(registry).token() == token, "market: other token"
    assert fee_bps <= FEE_BPS_MAX, "market: fee too high"
    assert fee_recipient != empty(address) and fee_recipient != self, "market: no fee recipient"
    TOKEN = token
    REGISTRY = registry
    FEE_BPS = fee_bps
    FEE_RECIPIENT = fee_recipient


# ------------------------------------------------------------------------------------------------------------- views


@external
@view
def token() -> address:
    return TOKEN


@external
@view
def registry() -> address:
    return REGISTRY


@external
@view
def fee_bps() -> uint256:
    return FEE_BPS


@external
@view
def fee_recipient() -> address:
    return FEE_RECIPIENT


@external
@view
def domain_separator() -> bytes32:
    return eip712._separator(NAME)


@external
@view
def account_of(lease_id: bytes32) -> (uint256, uint256, uint256, uint256):
    account: accounting.Account = accounting._unpack(self._accounts[lease_id])
    return account.deposit, account.settled, account.ends_at, account.phase


@external
@view
def leased(provider: address, machine: bytes32) -> uint256:
    return max(self._leased_plus_one[provider][machine], 1) - 1


@external
@view
def fees() -> uint256:
    return self._fees_earned - self._fees_collected


# ----------------------------------------------------------------------------------------------- from offer to lease


@external
def open(
    offer: IMarket.Offer, signature: Bytes[256], job: bytes32, attempt: uint32,
    units: uint32, seconds: uint32, deposit: uint128, signer: address,
) -> bytes32:
    lease_id: bytes32 = self._open(offer, signature, job, attempt, units, seconds, deposit, signer)
    self._pull(convert(deposit, uint256))
    return lease_id


@external
def open_with_permit(
    offer: IMarket.Offer, signature: Bytes[256], job: bytes32, attempt: uint32,
    units: uint32, seconds: uint32, deposit: uint128, signer: address,
    permit: IMarket.Permit,
) -> bytes32:
    lease_id: bytes32 = self._open(offer, signature, job, attempt, units, seconds, deposit, signer)
    permitted: bool = raw_call(
        TOKEN,
        abi_encode(
            msg.sender,
            self,
            permit,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    self._pull(convert(deposit, uint256))
    return lease_id


@external
def open_with_authorization(
    offer: IMarket.Offer, signature: Bytes[256], job: bytes32, attempt: uint32,
    units: uint32, seconds: uint32, deposit: uint128, signer: address,
    authorization: IMarket.Authorization,
) -> bytes32:
    lease_id: bytes32 = self._open(offer, signature, job, attempt, units, seconds, deposit, signer)
    before: uint256 = payments._balance(TOKEN)
    received: bool = raw_call(
        TOKEN,
        abi_encode(
            msg.sender,
            self,
            convert(deposit, uint256),
            authorization,
            method_id=method_id(
                "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
            ),
        ),
        revert_on_failure=False,
    )
    assert received, "market: transfer failed"
    self._check_received(before, convert(deposit, uint256))
    return lease_id


@external
def top_up(lease: IMarket.Lease, amount: uint128):
    lease_id: bytes32 = self._known(lease)
    account: accounting.Account = self._open_account(lease_id)
    assert amount > 0, "market: no amount"
    account.deposit += convert(amount, uint256)
    assert account.deposit <= accounting.AMOUNT_MAX, "market: deposit too large"
    self._accounts[lease_id] = accounting._pack(account)
    log IMarket.ToppedUp(
        lease_id=lease_id, payer=msg.sender, amount=convert(amount, uint256), deposit=account.deposit
    )
    if lease.arbiter != empty(address):
        extcall IRegistry(REGISTRY).lock(lease.provider, lease.arbiter, convert(amount, uint256))
    self._pull(convert(amount, uint256))


@external
def extend(lease: IMarket.Lease, ends_at: uint64, signature: Bytes[256]):
    lease_id: bytes32 = self._known(lease)
    assert msg.sender == lease.tenant, "market: not the tenant"
    account: accounting.Account = self._open_account(lease_id)
    assert convert(ends_at, uint256) > account.ends_at, "market: end not later"
    assert convert(ends_at, uint256) <= accounting.TIME_MAX, "market: end too late"
    channel: bytes32 = self._channel(lease_id, lease)
    self._check_provider(lease.provider, keccak256(abi_encode(EXTEND_TYPE, channel, ends_at)), signature)
    account.ends_at = convert(ends_at, uint256)
    self._accounts[lease_id] = accounting._pack(account)
    log IMarket.Extended(lease_id=lease_id, ends_at=account.ends_at)


# ------------------------------------------------------------------------------------------------- vouchers and ends


@external
def redeem(lease: IMarket.Lease, cumulative: uint128, signature: Bytes[256]):
    lease_id: bytes32 = self._known(lease)
    account: accounting.Account = self._running_account(lease_id)
    self._check_voucher(lease_id, lease, cumulative, signature)
    settled: uint256 = self._settled(account, cumulative)
    if settled == account.settled:
        return
    fee: uint256 = accounting._fee_down(settled, FEE_BPS) - accounting._fee_down(account.settled, FEE_BPS)
    held: uint256 = self._held(lease, settled) - self._held(lease, account.settled)
    paid: uint256 = settled - account.settled - fee - held
    account.settled = settled
    self._accounts[lease_id] = accounting._pack(account)
    self._fees_earned += fee
    log IMarket.Redeemed(lease_id=lease_id, provider=lease.provider, settled=settled, paid=paid, fee=fee)
    self._pay(lease.provider, paid)


@external
def close(lease: IMarket.Lease, cumulative: uint128, signature: Bytes[256], why: uint8):
    lease_id: bytes32 = self._known(lease)
    if msg.sender != lease.provider:
        agent: address = staticcall IRegistry(REGISTRY).agent_of(lease.provider)
        assert msg.sender == agent, "market: not the provider"
    account: accounting.Account = self._running_account(lease_id)
    if cumulative != 0 or len(signature) != 0:
        self._check_voucher(lease_id, lease, cumulative, signature)
    self._end(lease_id, lease, account, self._settled(account, cumulative), HOW_CLOSE, why)


@external
def release(lease: IMarket.Lease, settled: uint128, signature: Bytes[256], why: uint8):
    lease_id: bytes32 = self._known(lease)
    assert msg.sender == lease.tenant, "market: not the tenant"
    account: accounting.Account = self._running_account(lease_id)
    channel: bytes32 = self._channel(lease_id, lease)
    self._check_provider(lease.provider, keccak256(abi_encode(RELEASE_TYPE, channel, settled)), signature)
    self._end(lease_id, lease, account, self._settled(account, settled), HOW_RELEASE, why)


@external
def start_close(lease: IMarket.Lease, why: uint8):
    lease_id: bytes32 = self._known(lease)
    assert msg.sender == lease.tenant, "market: not the tenant"
    account: accounting.Account = self._open_account(lease_id)
    # Never later than the end that was agreed: starting a close must not delay the exit that exists anyway.
    account.ends_at = min(account.ends_at, block.timestamp)
    account.phase = accounting.CLOSING
    self._accounts[lease_id] = accounting._pack(account)
    log IMarket.ClosingStarted(
        lease_id=lease_id,
        provider=lease.provider,
        finish_at=account.ends_at + convert(lease.close_window, uint256),
        why=why,
    )


@external
def finish_close(lease: IMarket.Lease):
    lease_id: bytes32 = self._known(lease)
    account: accounting.Account = self._running_account(lease_id)
    assert block.timestamp >= account.ends_at + convert(lease.close_window, uint256), "market: too early"
    how: uint8 = HOW_WINDOW if account.phase == accounting.CLOSING else HOW_END
    self._end(lease_id, lease, account, account.settled, how, 0)


@external
def resolve(lease: IMarket.Lease, to_tenant: uint128):
    lease_id: bytes32 = self._known(lease)
    assert msg.sender == lease.arbiter, "market: not the arbiter"
    account: accounting.Account = self._held_account(lease_id)
    assert block.timestamp < account.ends_at, "market: hold is over"
    held: uint256 = self._held(lease, account.settled)
    assert convert(to_tenant, uint256) <= held, "market: above the held part"
    self._end_hold(lease_id, lease, account, convert(to_tenant, uint256), held)


@external
def finish_hold(lease: IMarket.Lease):
    lease_id: bytes32 = self._known(lease)
    account: accounting.Account = self._held_account(lease_id)
    assert block.timestamp >= account.ends_at, "market: too early"
    self._end_hold(lease_id, lease, account, 0, self._held(lease, account.settled))


# ------------------------------------------------------------------------------------------------ everything beside


@external
def cancel_offers():
    epoch: uint64 = self.epoch_of[msg.sender] + 1
    self.epoch_of[msg.sender] = epoch
    log IMarket.OffersCancelled(provider=msg.sender, epoch=epoch)


@external
def collect_fees():
    earned: uint256 = self._fees_earned
    amount: uint256 = earned - self._fees_collected
    assert amount > 0, "market: no fees"
    self._fees_collected = earned
    log IMarket.FeesCollected(amount=amount)
    self._pay(FEE_RECIPIENT, amount)


@external
def withdraw(receiver: address):
    assert receiver != empty(address) and receiver != self, "market: bad receiver"
    amount: uint256 = self.owed[msg.sender]
    assert amount > 0, "market: nothing owed"
    self.owed[msg.sender] = 0
    log IMarket.Withdrawn(owner=msg.sender, receiver=receiver, amount=amount)
    # Here without a cap: should a transfer ever need more, the way out is open.
    assert payments._send(TOKEN, receiver, amount, msg.gas), "market: transfer failed"


# --------------------------------------------------------------------------------------------------- lease internals


@internal
def _open(
    offer: IMarket.Offer, signature: Bytes[256], job: bytes32, attempt: uint32,
    units: uint32, seconds: uint32, deposit: uint128, signer: address,
) -> bytes32:
    self._check_offer(offer, seconds)
    assert units > 0, "market: no units"
    assert signer != empty(address), "market: no signer"
    assert deposit > 0 and deposit >= offer.deposit_min, "market: deposit too small"
    assert convert(deposit, uint256) <= accounting.AMOUNT_MAX, "market: deposit too large"
    leased_plus_one: uint256 = (
        max(self._leased_plus_one[offer.provider][offer.machine], 1) + convert(units, uint256)
    )
    assert leased_plus_one <= convert(offer.units, uint256) + 1, "market: machine fully leased"
    lease_id: bytes32 = keccak256(abi_encode(msg.sender, job, attempt))
    assert self.lease_hash[lease_id] == empty(bytes32), "market: lease exists"
    offer_hash: bytes32 = keccak256(abi_encode(OFFER_TYPE, offer))
    self._check_provider(offer.provider, offer_hash, signature)
    lease: IMarket.Lease = IMarket.Lease(
        tenant=msg.sender,
        job=job,
        attempt=attempt,
        signer=signer,
        provider=offer.provider,
        machine=offer.machine,
        offer=offer_hash,
        price_per_hour=offer.price_per_hour,
        units=units,
        close_window=offer.close_window,
        arbiter=offer.arbiter,
        hold_bps=offer.hold_bps,
        hold_seconds=offer.hold_seconds,
        opened_at=convert(block.timestamp, uint64),
    )
    ends_at: uint256 = block.timestamp + convert(seconds, uint256)
    self.lease_hash[lease_id] = keccak256(abi_encode(lease))
    self._accounts[lease_id] = accounting._pack(
        accounting.Account(
            deposit=convert(deposit, uint256), settled=0, ends_at=ends_at, phase=accounting.OPEN
        )
    )
    self._leased_plus_one[offer.provider][offer.machine] = leased_plus_one
    log IMarket.Opened(
        lease_id=lease_id,
        tenant=msg.sender,
        provider=offer.provider,
        lease=lease,
        ends_at=ends_at,
        deposit=convert(deposit, uint256),
    )
    if offer.arbiter != empty(address):
        extcall IRegistry(REGISTRY).lock(offer.provider, offer.arbiter, convert(deposit, uint256))
    return lease_id


@internal
@view
def _check_offer(offer: IMarket.Offer, seconds: uint32):
    assert block.timestamp <= convert(offer.valid_until, uint256), "market: offer expired"
    assert offer.epoch == self.epoch_of[offer.provider], "market: offer cancelled"
    assert (
        offer.close_window >= CLOSE_WINDOW_MIN and offer.close_window <= CLOSE_WINDOW_MAX
    ), "market: bad close window"
    # A hold needs somebody to decide and time to do it; without either it would be a delay and no more.
    assert (
        (offer.arbiter != empty(address) or offer.hold_seconds == 0)
        and (offer.hold_seconds > 0 or offer.hold_bps == 0)
        and offer.hold_seconds <= HOLD_SECONDS_MAX
        and offer.hold_bps <= 10_000
    ), "market: bad hold"
    assert seconds >= offer.seconds_min and seconds <= offer.seconds_max, "market: bad duration"


@internal
def _end(
    lease_id: bytes32,
    lease: IMarket.Lease,
    account: accounting.Account,
    settled: uint256,
    how: uint8,
    why: uint8,
):
    fee: uint256 = accounting._fee_down(settled, FEE_BPS)
    held: uint256 = self._held(lease, settled)
    paid: uint256 = settled - fee - held
    fee_before: uint256 = accounting._fee_down(account.settled, FEE_BPS)
    paid_before: uint256 = account.settled - fee_before - self._held(lease, account.settled)
    refund: uint256 = account.deposit - settled
    # The stake answers for what was paid until the hold is over, even where the held part is nothing.
    still_locked: uint256 = settled if lease.hold_seconds > 0 else 0
    word: uint256 = 0
    if still_locked > 0:
        word = accounting._pack(
            accounting.Account(
                deposit=settled,
                settled=settled,
                ends_at=block.timestamp + convert(lease.hold_seconds, uint256),
                phase=accounting.HELD,
            )
        )
    self._accounts[lease_id] = word
    self._leased_plus_one[lease.provider][lease.machine] -= convert(lease.units, uint256)
    if fee > fee_before:
        self._fees_earned += fee - fee_before
    log IMarket.Closed(
        lease_id=lease_id,
        tenant=lease.tenant,
        provider=lease.provider,
        by=msg.sender,
        how=how,
        why=why,
        settled=settled,
        paid=paid,
        fee=fee,
        held=held,
        refund=refund,
    )
    if lease.arbiter != empty(address):
        extcall IRegistry(REGISTRY).unlock(lease.provider, lease.arbiter, account.deposit - still_locked)
    self._pay(lease.provider, paid - paid_before)
    self._pay(lease.tenant, refund)


@internal
def _end_hold(
    lease_id: bytes32, lease: IMarket.Lease, account: accounting.Account, to_tenant: uint256, held: uint256
):
    self._accounts[lease_id] = 0
    log IMarket.HoldEnded(
        lease_id=lease_id, by=msg.sender, to_tenant=to_tenant, to_provider=held - to_tenant
    )
    extcall IRegistry(REGISTRY).unlock(lease.provider, lease.arbiter, account.settled)
    self._pay(lease.tenant, to_tenant)
    self._pay(lease.provider, held - to_tenant)


@internal
@view
def _known(lease: IMarket.Lease) -> bytes32:
    lease_id: bytes32 = keccak256(abi_encode(lease.tenant, lease.job, lease.attempt))
    assert self.lease_hash[lease_id] == keccak256(abi_encode(lease)), "market: unknown lease"
    return lease_id


@internal
@view
def _running_account(lease_id: bytes32) -> accounting.Account:
    account: accounting.Account = accounting._unpack(self._accounts[lease_id])
    assert account.phase == accounting.OPEN or account.phase == accounting.CLOSING, "market: lease closed"
    return account


@internal
@view
def _open_account(lease_id: bytes32) -> accounting.Account:
    account: accounting.Account = self._running_account(lease_id)
    assert account.phase == accounting.OPEN, "market: lease closing"
    return account


@internal
@view
def _held_account(lease_id: bytes32) -> accounting.Account:
    account: accounting.Account = accounting._unpack(self._accounts[lease_id])
    assert account.phase == accounting.HELD, "market: not held"
    return account


@internal
@pure
def _settled(account: accounting.Account, gross: uint128) -> uint256:
    return max(account.settled, min(convert(gross, uint256), account.deposit))


@internal
@view
def _held(lease: IMarket.Lease, gross: uint256) -> uint256:
    if lease.hold_bps == 0:
        return 0
    return accounting._held_down(gross, FEE_BPS, convert(lease.hold_bps, uint256))


# -------------------------------------------------------------------------------------------------------- signatures


@internal
@pure
def _channel(lease_id: bytes32, lease: IMarket.Lease) -> bytes32:
    return keccak256(abi_encode(lease_id, lease.offer, lease.signer))


@internal
@view
def _check_voucher(lease_id: bytes32, lease: IMarket.Lease, cumulative: uint128, signature: Bytes[256]):
    struct_hash: bytes32 = keccak256(abi_encode(VOUCHER_TYPE, self._channel(lease_id, lease), cumulative))
    # The lease's signer is never zero, so that a signature which recovers to nobody is nobody's.
    assert eip712._recover(eip712._digest(NAME, struct_hash), signature) == lease.signer, "market: bad voucher"


@internal
@view
def _check_provider(provider: address, struct_hash: bytes32, signature: Bytes[256]):
    agent: address = staticcall IRegistry(REGISTRY).agent_of(provider)
    assert agent != empty(address), "market: unregistered provider"
    digest: bytes32 = eip712._digest(NAME, struct_hash)
    if eip712._recover(digest, signature) == agent:
        return
    ok: bool = False
    response: Bytes[32] = b""
    ok, response = raw_call(
        provider,
        abi_encode(digest, signature, method_id=method_id("isValidSignature(bytes32,bytes)")),
        max_outsize=32,
        gas=EIP1271_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    assert (
        ok and len(response) == 32 and convert(response, bytes32) == EIP1271_MAGIC
    ), "market: bad signature"


# ------------------------------------------------------------------------------------------------------------- token


@internal
def _pull(amount: uint256):
    before: uint256 = payments._balance(TOKEN)
    assert payments._take(TOKEN, amount), "market: transfer failed"
    self._check_received(before, amount)


@internal
@view
def _check_received(before: uint256, amount: uint256):
    assert payments._balance(TOKEN) == before + amount, "market: token took a fee"


@internal
def _pay(receiver: address, amount: uint256):
    if amount == 0:
        return
    # Gas cannot be starved to force this branch: it writes a word, so it needs more than the 1/64 left after a
    # transfer that ran dry.
    if not payments._send(TOKEN, receiver, amount, PAYOUT_GAS):
        self.owed[receiver] += amount
        log IMarket.Owed(owner=receiver, amount=amount)
