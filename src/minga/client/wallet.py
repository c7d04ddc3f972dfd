"""The job wallet: whose keys act for a job, and what they do on the chain.

| key             | derived from (HKDF-SHA256)                       | signs                                 |
|-----------------|--------------------------------------------------|---------------------------------------|
| main key        | the tenant's key store                           | the funding of a job wallet, once     |
| job wallet      | main key, "minga job wallet", chain, market, job | open, top up, close; returns the rest |
| session signer  | job wallet, "minga session", attempt             | vouchers and logins of one lease      |

All are deterministic, so that a runner killed between any two lines has the same keys again, and a lost job folder
can be made again from the main key and the job's id. Every transaction has an effect id: sent once, whatever happens.

Does not know: providers, offers' quality. Rule: the job wallet never holds more than its budget and a little gas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from minga.chain.chain import Call, Chain, Receipt
from minga.chain.contract_events import Closed, ClosingStarted, Opened
from minga.chain.contracts import Market, Permit, Token, transfer_wei
from minga.client import points
from minga.core.crypto import Address, Hash32, PrivateKey, from_hex, keccak, new_key, to_hex
from minga.core.effects import Clock
from minga.core.errors import Conflict, ContractError, InsufficientFunds, NotFound
from minga.core.seal import derive
from minga.core.units import Amount, format_usd
from minga.protocol.job_events import ClosingStarted as ClosingEvent
from minga.protocol.job_events import LeaseClosed
from minga.protocol.job_state import Lease as JobLease
from minga.protocol.lease import Lease, Phase
from minga.protocol.messages import Offer, lease_id
from minga.protocol.wire import OfferFields

UINT256_MAX = 2**256 - 1
GAS_BUDGET = 8_000_000
"""Gas that a job wallet is funded for: eight leases, and a hundred top-ups of an hour each; what is left goes back."""

RETURN_GAS = 27_000
"""What the sender wants to see covered for a transfer: 21,000 gas and its margin."""

_PERMIT_TYPE = b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"

Note = Callable[[Receipt, str], None]
"""Called with each receipt and what it was for: open, top_up, close, fund, return."""


def job_wallet(main: PrivateKey, chain_id: int, market: Address, job: Hash32) -> PrivateKey:
    """The wallet of one job."""
    info = b"minga job wallet" + chain_id.to_bytes(32, "big") + from_hex(market) + from_hex(job)
    return new_key(derive(main.secret(), info))


def session_signer(wallet: PrivateKey, attempt: int) -> PrivateKey:
    """The signer of one lease's vouchers."""
    return new_key(derive(wallet.secret(), b"minga session" + attempt.to_bytes(4, "big")))


@dataclass(frozen=True)
class Opening:
    """A lease as it was opened."""

    lease: Lease
    deposit: Amount
    ends_at: int
    transaction: Hash32


class Purse:
    """What the main key does: fund job wallets."""

    def __init__(self, chain: Chain) -> None:
        """Send through `chain`, whose folder is the main key's."""
        self.chain = chain
        self.token = Token(chain.spec.deployment.token)

    async def check(self, main: Address, amount: int) -> None:
        """See that `main` can pay before anything is journaled.

        Raises:
            InsufficientFunds: it holds less than `amount` tokens, or no gas money.
        """
        held = await self.chain.read(self.token.balance_of(main))
        decimals = self.chain.spec.deployment.decimals
        if held < amount:
            raise InsufficientFunds(
                f"the wallet {main} holds ${format_usd(held, decimals)}, the budget is ${format_usd(amount, decimals)}",
                "fund it (`minga wallet faucet` on an embedded chain), or lower --budget",
            )
        wei, gas = await self.chain.balance(main), await self.chain.gas_cost(GAS_BUDGET)
        if wei <= gas:
            raise InsufficientFunds(
                f"the wallet {main} holds {wei} wei, the job's gas may cost {gas}",
                "send it native coin for gas (`minga wallet faucet` on an embedded chain)",
            )

    async def fund(self, main: PrivateKey, job: str, wallet: Address, amount: int, note: Note) -> Hash32:
        """Move exactly `amount` tokens and gas money to a job wallet, once; returns the tokens' transaction.

        Raises:
            InsufficientFunds: the main key cannot pay; what was moved before is moved no second time.
        """
        points.reach("client.fund.sending")
        # Gas first: should the tokens then be refused, the budget is still where it was.
        gas = await self.chain.gas_cost(GAS_BUDGET)
        note(await self.chain.send(f"fund/{job}/gas", transfer_wei(wallet, gas), main), "fund")
        points.reach("client.fund.gas")
        receipt = await self.chain.send(f"fund/{job}/tokens", self.token.transfer(wallet, amount), main)
        note(receipt, "fund")
        points.reach("client.fund.tokens")
        return receipt.transaction


class JobWallet:
    """What a job's own key does on the chain; `note` is told of every receipt."""

    def __init__(self, chain: Chain, key: PrivateKey, job: Hash32, clock: Clock, note: Note) -> None:
        """Act for `job` through `chain`, whose folder is this job's."""
        self.chain = chain
        self.key = key
        self.job = job
        self._clock = clock
        self._note = note
        self.market = Market(chain.spec.deployment.market)
        self.token = Token(chain.spec.deployment.token)
        # An embedded chain confirms at once, so that waiting longer than a frame would be felt.
        self.pause_s = 0.03 if chain.spec.confirmations == 0 else 1.0

    async def open(
        self, offer: Offer, signature: bytes, attempt: int, units: int, seconds: int, deposit: int
    ) -> Opening:
        """Open a lease, once; the token's allowance is given by a permit in the same transaction when it is missing.

        Raises:
            ContractError: refused; nothing is on the chain.
            InsufficientFunds: the wallet cannot pay the gas.
        """
        signer = session_signer(self.key, attempt).address
        allowed = await self.chain.read(self.token.allowance(self.key.address, self.market.address)) >= deposit
        permit = None if allowed else await self._permit()
        fixed = (offer, signature, self.job, attempt, units, seconds, deposit, signer)
        points.reach("client.open.sending")
        try:
            receipt = await self.chain.send(f"open/{attempt}", self.market.open(*fixed, permit), self.key)
        except Conflict:
            # It was sent with a permit before a restart, and that is why the allowance stands now.
            call = self.market.open(*fixed, await self._permit())
            receipt = await self.chain.send(f"open/{attempt}", call, self.key)
        self._note(receipt, "open")
        points.reach("client.open.mined")
        for seen in receipt.events:
            if isinstance(seen.event, Opened):
                return Opening(seen.event.lease, seen.event.deposit, seen.event.ends_at, receipt.transaction)
        raise NotFound("the opening transaction has no Opened event", "is the network's market address right?")

    async def _permit(self) -> Permit:
        market = self.market.address
        separator = await self.chain.read(_bytes32_view(self.token.address, b"DOMAIN_SEPARATOR()"))
        nonce = await self.chain.read(self.token.nonces(self.key.address))
        words = [from_hex(self.key.address), from_hex(market), UINT256_MAX, nonce, UINT256_MAX]
        body = keccak(_PERMIT_TYPE) + b"".join(_word(item) for item in words)
        signature = self.key.sign(keccak(b"\x19\x01" + separator + keccak(body)))
        r, s = (Hash32(to_hex(part)) for part in (signature[:32], signature[32:64]))
        return Permit(Amount(UINT256_MAX), UINT256_MAX, signature[64], r, s)

    async def top_up(self, lease: Lease, amount: int, total: int) -> Amount:
        """Add to a deposit, once for each `total`; returns the deposit.

        Raises:
            ContractError: refused (closing, closed).
        """
        call = self.market.top_up(lease, amount)
        self._note(await self.chain.send(f"topup/{lease.attempt}/{total}/{lease.opened_at}", call, self.key), "top_up")
        points.reach("client.topup.mined")
        return Amount((await self.chain.read(self.market.account_of(lease.id))).deposit)

    async def start_close(self, lease: Lease, why: int) -> ClosingEvent | LeaseClosed:
        """Begin to close from our side, or see that the lease ended before."""
        try:
            name = f"start-close/{lease.attempt}/{lease.opened_at}"
            receipt = await self.chain.send(name, self.market.start_close(lease, why), self.key)
        except ContractError:
            account = await self.chain.read(self.market.account_of(lease.id))
            if account.phase is Phase.CLOSING:
                return ClosingEvent(lease.attempt, account.ends_at + lease.close_window)
            if account.phase is Phase.OPEN:
                raise
            return await self.closed(lease)
        self._note(receipt, "start_close")
        points.reach("client.reclaim.started")
        for seen in receipt.events:
            if isinstance(seen.event, ClosingStarted):
                return ClosingEvent(lease.attempt, seen.event.finish_at)
        raise NotFound("the closing transaction has no event", "is the network's market address right?")

    async def finish_close(self, lease: Lease, finish_at: int) -> LeaseClosed:
        """Wait until `finish_at` in chain time, then finish; or see that the provider closed before."""
        while (left := finish_at - await self.chain.time()) > 0:
            closed = await self.look(lease.id)
            if closed is not None:
                return _closed_event(lease.attempt, closed)
            await self._clock.sleep(min(max(left, 1), 30))
        try:
            call = self.market.finish_close(lease)
            name = f"finish-close/{lease.attempt}/{lease.opened_at}"
            self._note(await self.chain.send(name, call, self.key), "finish_close")
        except ContractError:
            account = await self.chain.read(self.market.account_of(lease.id))
            if account.phase in (Phase.OPEN, Phase.CLOSING):
                raise
        points.reach("client.reclaim.finished")
        return await self.closed(lease)

    async def placed(self, lease: Lease) -> Lease:
        """The lease with the time that the chain gives it now: a reorg may have opened it again in another block."""
        await self.look(lease.id)
        record = self.chain.view.leases.get(lease.id)
        return lease if record is None else replace(lease, opened_at=record.lease.opened_at)

    async def closed(self, lease: Lease) -> LeaseClosed:
        """Wait until the lease's end is on the chain, at depth."""
        while (found := await self.look(lease.id)) is None:
            await self._clock.sleep(self.pause_s)
        return _closed_event(lease.attempt, found)

    async def look(self, lease: Hash32) -> tuple[Closed, str] | None:
        """The lease's end and its transaction, if it is on the chain at depth."""
        changes = await self.chain.poll()
        found = next(
            ((seen.event, seen.at.transaction) for seen in changes.confirmed
             if isinstance(seen.event, Closed) and seen.event.lease_id == lease), None,
        )  # fmt: skip
        self.chain.acknowledge(changes)
        if found is not None:
            return found
        record = self.chain.view.leases.get(lease)
        return (record.closed, "") if record is not None and record.closed is not None else None

    async def give_back(self, receiver: Address, turn: int, keep_gas: bool) -> tuple[Amount, str]:
        """Send all tokens and, unless `keep_gas`, the gas money left to `receiver`; returns the tokens' amount and
        transaction. Gas is kept while a lease is still to be finished.
        """
        tokens = await self.chain.read(self.token.balance_of(self.key.address))
        transaction = ""
        if tokens:
            call = self.token.transfer(receiver, tokens)
            receipt = await self.chain.send(f"return/{turn}/tokens", call, self.key)
            self._note(receipt, "return")
            transaction = str(receipt.transaction)
        points.reach("client.return.tokens")
        if not keep_gas:
            await self.return_gas(receiver, turn)
        points.reach("client.return.gas")
        return Amount(tokens), transaction

    async def return_gas(self, receiver: Address, turn: int) -> None:
        """Send what gas money is left to `receiver`, if it is more than that costs."""
        left = await self.chain.balance(self.key.address) - await self.chain.gas_cost(RETURN_GAS)
        if left <= 0:
            return
        try:
            self._note(await self.chain.send(f"return/{turn}/gas", transfer_wei(receiver, left), self.key), "return")
        except InsufficientFunds:
            # Fees rose in between; what is left is less than a transfer costs.
            return


def lease_of(job: Hash32, wallet: PrivateKey, held: JobLease) -> Lease:
    """The contract's fixed part of a lease, from what the journal holds of it."""
    deal, offer = held.deal, OfferFields.parse(held.bundle["offer"])
    return Lease(
        wallet.address, job, held.attempt, session_signer(wallet, held.attempt).address, Address(deal.provider),
        Hash32(deal.machine), Hash32(deal.offer), deal.price_per_hour, deal.units, deal.close_window,
        Address(offer.arbiter), offer.hold_bps, offer.hold_seconds, held.opened_at,
    )  # fmt: skip


def id_of(wallet: PrivateKey, job: Hash32, attempt: int) -> Hash32:
    """The lease id of an attempt."""
    return lease_id(wallet.address, job, attempt)


def _closed_event(attempt: int, found: tuple[Closed, str]) -> LeaseClosed:
    closed, transaction = found
    points.reach("client.close.seen")
    return LeaseClosed(attempt, closed.paid, closed.fee, closed.held, closed.refund, str(transaction))


def _bytes32_view(contract: Address, signature: bytes) -> Call[bytes]:
    return Call(contract, keccak(signature)[:4], signature.decode(), bytes)


def _word(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value.rjust(32, b"\0")
    return int(value).to_bytes(32, "big")
