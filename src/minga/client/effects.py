"""How the effects of a job are done: each becomes calls to the chain or to a provider, and then events.

A table from effect to performer, so that the loop (`minga.client.runner`) knows none of them. What may be tried again
is tried again: a network that is down delays a job and never ends it; a provider that fails is reported as lost; a
contract that refuses is reported with its reason. Rule: a performer returns only after it told an event, or forever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from minga.chain.chain import Chain, Receipt
from minga.client import complaints, points
from minga.client.attempt import Attempt, Emit, Means, Tell
from minga.client.commitments import Commitments
from minga.client.folder import NoRoomHere
from minga.client.groups import first_of
from minga.client.home import Network
from minga.client.offers import OfferSource, deal_of, without
from minga.client.order import Order
from minga.client.quotes import reorder
from minga.client.verdicts import Verdicts
from minga.client.wallet import JobWallet, Purse, lease_of
from minga.core.crypto import Address, Hash32, PrivateKey, from_hex
from minga.core.effects import Clock
from minga.core.errors import (
    BoardUnavailable,
    Conflict,
    ContractError,
    InsufficientFunds,
    MingaError,
    NetworkError,
    ProviderError,
    StorageUnavailable,
)
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_moves import RECLAIMED
from minga.protocol.job_state import Lease, State, slice_for
from minga.protocol.matching import Ranked
from minga.protocol.messages import channel_id
from minga.protocol.wire import OfferBundle

CHECKED_MAX = 16
BACKOFF_MAX_S = 10.0
TURN_AWAY_S = 60

Current = Callable[[], State]


@dataclass
class Performers:
    """Does the effects of one job; `state` gives the job's state now."""

    order: Order
    network: Network
    chain: Chain
    offers: OfferSource
    means: Means
    state: Current
    purse: Purse | None
    main: Callable[[], PrivateKey] | None

    def __post_init__(self) -> None:
        """Make the wallet and the table."""
        self.job = Hash32(self.order.plan.job)
        self.clock: Clock = self.means.clock
        self.emit: Emit = self.means.emit
        self.tell: Tell = self.means.tell
        self.wallet = JobWallet(self.chain, self.means.wallet, self.job, self.clock, self.note)
        self.commitments = Commitments(self.order, self.chain, self.clock, self.tell)
        self.verdicts = Verdicts(self.chain, self.means.wallet, self.clock, self.note)
        self._attempts: dict[int, Attempt] = {}
        self.table: dict[type[ev.Effect], Callable[[Any], Awaitable[None]]] = {
            ev.Fund: self.fund, ev.Find: self.find, ev.Open: self.open, ev.Send: self.send, ev.Start: self.start,
            ev.Watch: self.watch, ev.Pay: self.pay, ev.TopUp: self.top_up, ev.Stop: self.stop, ev.Gather: self.gather,
            ev.AskClose: self.ask_close, ev.StartClose: self.start_close, ev.FinishClose: self.finish_close,
            ev.Return: self.give_back, ev.Wake: self.wake, ev.Probe: self.probe, ev.Duty: self.duty,
            ev.Patience: self.patience, ev.AwaitHold: self.await_hold,
        }  # fmt: skip

    async def aclose(self) -> None:
        """Close every connection to providers."""
        for attempt in self._attempts.values():
            await attempt.aclose()

    async def perform(self, effect: ev.Effect) -> None:
        """Do one effect to its end, through failures of the network."""
        pause = 0.05
        while True:
            try:
                await self.table[type(effect)](effect)
                return
            except (NetworkError, ExceptionGroup) as caught:
                error = first_of(caught) if isinstance(caught, ExceptionGroup) else caught
                if isinstance(error, ContractError) or not isinstance(error, NetworkError):
                    raise error from None
                self.tell("warning", {"code": error.code, "fact": error.fact, "remedy": error.remedy})
            await self.clock.sleep(pause)
            pause = min(2 * pause, BACKOFF_MAX_S)

    def note(self, receipt: Receipt, what: str) -> None:
        """Keep what a transaction cost, for the bill."""
        facts = {"what": what, "transaction": str(receipt.transaction), "gas": receipt.gas_used}
        self.tell("transaction", facts | {"fee_wei": str(receipt.fee_wei), "effect": receipt.effect})

    # ------------------------------------------------------------------------------------------------ order to open

    async def fund(self, effect: ev.Fund) -> None:
        """Only the process that can unlock the main key funds; any other waits for it."""
        wallet = self.means.wallet.address
        if self.purse is None or self.main is None:
            while await self.chain.read(self.wallet.token.balance_of(wallet)) < effect.amount:
                await self.clock.sleep(1.0)
            await self.emit(ev.Funded())
            return
        try:
            transaction = await self.purse.fund(self.main(), self.job, wallet, effect.amount, self.note)
        except (ContractError, InsufficientFunds) as error:
            await self.wallet.return_gas(Address(self.order.main), 0)
            await self.emit(ev.FundingFailed(error.code, error.fact))
            return
        await self.emit(ev.Funded(str(transaction)))

    async def find(self, effect: ev.Find) -> None:
        """Choose the best offer that matches, can be paid, and that the chain would take."""
        while (left := effect.not_before - self.clock.now()) > 0:
            await self.clock.sleep(min(left, 1.0) if left > 1 else 0.25)
        now = self.clock.now()
        avoided = [machine for machine, until in self.state().excluded if until > now]
        try:
            ranked = await self.offers.choose(without(self.order.needs, avoided), fresh=effect.tries > 0)
        except BoardUnavailable as error:
            await self.emit(ev.NotFound(error.code, error.fact))
            return
        ranked = reorder(ranked, self.order.estimate, self.offers.records())
        points.reach("client.find.gathered")
        affordable = [item for item in ranked if slice_for(self.order.plan.budget, effect.available, deal_of(item))]
        if ranked and not affordable:
            await self.emit(ev.NotFound("budget-too-small", "what is left pays no quantum of any matching offer", True))
            return
        for item in affordable[:CHECKED_MAX]:
            if await self.offers.is_free(item):
                points.reach("client.find.chosen")
                self._tell_offer(item)
                await self.emit(ev.Found(deal_of(item), item.bundle.plain()))
                return
        fact = f"{len(affordable)} offers match, none is free" if affordable else "no offer matches"
        await self.emit(ev.NotFound("no-match", fact))

    def _tell_offer(self, item: Ranked) -> None:
        bundle, unit = item.bundle, item.bundle.terms.unit
        count = unit.gpus * item.units
        facts = {
            "attempt": self.state().attempt, "provider": bundle.offer.provider, "machine": bundle.offer.machine,
            "url": bundle.url, "price_per_hour": item.price_per_hour, "units": item.units, "quantum": item.quantum,
            "gpus": [gpu.model for gpu in bundle.machine.gpus[:count]], "cpus_milli": unit.cpu_milli * item.units,
            "memory_bytes": unit.memory_bytes * item.units, "region": bundle.terms.region,
        }  # fmt: skip
        self.tell("offer", facts)

    async def open(self, effect: ev.Open) -> None:
        """Open the lease; a refusal means another offer."""
        lease = self.state().lease_of(effect.attempt)
        attempt_of = OfferBundle.parse(lease.bundle)
        offer, signature = attempt_of.offer.offer(), from_hex(attempt_of.signature)
        try:
            opened = await self.wallet.open(
                offer, signature, effect.attempt, lease.deal.units, effect.seconds, effect.deposit
            )
        except (ContractError, InsufficientFunds) as error:
            await self._funds_returned(effect.deposit)
            await self.emit(ev.OpenFailed(effect.attempt, error.code, error.fact, TURN_AWAY_S))
            return
        held = opened.lease
        channel = channel_id(held.id, held.offer, held.signer)
        seconds = opened.ends_at - held.opened_at
        facts = {"attempt": effect.attempt, "lease": held.id, "channel": channel, "deposit": opened.deposit}
        self.tell("lease", {**facts, "transaction": str(opened.transaction)})
        await self.emit(ev.Opened(effect.attempt, held.id, channel, seconds, held.opened_at, str(opened.transaction)))

    async def _funds_returned(self, amount: int) -> None:
        """Raise NetworkError, to try again, if a reorg took the job wallet's funding back; it is sent again."""
        if await self.chain.read(self.wallet.token.balance_of(self.means.wallet.address)) >= amount:
            return
        raise NetworkError("the job wallet's money is not on the chain any more", "its transfer is sent again")

    # -------------------------------------------------------------------------------------------------- at provider

    async def send(self, effect: ev.Send) -> None:
        """Manifest and inputs."""
        await self._at(effect.attempt, lambda attempt: attempt.send())

    async def probe(self, effect: ev.Probe) -> None:
        """The measurement before anything is paid."""
        await self._at(effect.attempt, lambda attempt: attempt.probe())

    async def duty(self, effect: ev.Duty) -> None:
        """The measurements beside the job."""
        await self._at(effect.attempt, lambda attempt: attempt.duty())

    async def patience(self, effect: ev.Patience) -> None:
        """So many seconds of a clock that stands still while this machine sleeps."""
        await self.clock.sleep(effect.seconds)
        await self.emit(ev.Overdue(effect.attempt, effect.turn))

    async def start(self, effect: ev.Start) -> None:
        """The start."""
        await self._at(effect.attempt, lambda attempt: attempt.start())

    async def pay(self, effect: ev.Pay) -> None:
        """A voucher; a provider that cannot take it while it should close is left to our own close."""
        await self._at(effect.attempt, lambda attempt: attempt.pay(effect.cumulative))

    async def watch(self, effect: ev.Watch) -> None:
        """Events and log, until something else is wanted."""

        async def follow(attempt: Attempt) -> None:
            await attempt.watch(self.state().lease_of(effect.attempt).after)

        await self._at(effect.attempt, follow)

    async def stop(self, effect: ev.Stop) -> None:
        """The wish to stop."""
        await self._at(effect.attempt, lambda attempt: attempt.stop(effect.reason, effect.grace_s))
        await self._for_ever()

    async def gather(self, effect: ev.Gather) -> None:
        """Results."""
        lease = self.state().lease_of(effect.attempt)

        async def bring(attempt: Attempt) -> ev.Event:
            return await attempt.gather(lease.after, partial(self.commitments.judge, lease))

        await self._at(effect.attempt, bring)

    async def _at(self, number: int, do: Callable[[Attempt], Awaitable[ev.Event | None]]) -> None:
        attempt = self._attempt(number)
        try:
            event = await do(attempt)
        except* MingaError as group:
            error = first_of(group)
            if isinstance(error, NoRoomHere | StorageUnavailable):
                raise error from None  # not the provider's doing: another one would meet the same
            event = ev.Lost(number, _loss(error), error.fact[:500], attempt.silent_s)
        if isinstance(event, ev.Lost) and self.state().phase == "closing":
            event = ev.CloseOverdue(number)
        if event is not None:
            await self.emit(event)

    def _attempt(self, number: int) -> Attempt:
        if number not in self._attempts:
            self._attempts[number] = Attempt(self.means, self.state().lease_of(number))
        return self._attempts[number]

    # -------------------------------------------------------------------------------------------------------- money

    async def top_up(self, effect: ev.TopUp) -> None:
        """A larger deposit."""
        lease = await self.wallet.placed(lease_of(self.job, self.means.wallet, self.state().lease_of(effect.attempt)))
        try:
            deposit = await self.wallet.top_up(lease, effect.amount, effect.total)
        except (ContractError, InsufficientFunds) as error:
            await self.emit(ev.TopUpFailed(effect.attempt, error.code, error.fact))
            return
        self.tell("topup", {"attempt": effect.attempt, "deposit": deposit})
        await self.emit(ev.ToppedUp(effect.attempt, Amount(effect.total)))

    async def ask_close(self, effect: ev.AskClose) -> None:
        """Ask, and see the end on the chain; overdue when it does not come."""
        import anyio

        left = self.state().lease_of(effect.attempt)
        lease = lease_of(self.job, self.means.wallet, left)
        await self._complain(left, left.why)
        with anyio.move_on_after(self.order.plan.close_wait_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._ask, effect.attempt)
                closed = await self.wallet.closed(lease)
                tasks.cancel_scope.cancel()
            await self._closed(closed)
            return
        await self.emit(ev.CloseOverdue(effect.attempt))

    async def _ask(self, number: int) -> None:
        try:
            await self._attempt(number).ask_close()
        except MingaError as error:
            self.tell("warning", {"code": error.code, "fact": error.fact, "remedy": error.remedy, "attempt": number})

    async def start_close(self, effect: ev.StartClose) -> None:
        """Our own close."""
        left = self.state().lease_of(effect.attempt)
        lease = await self.wallet.placed(lease_of(self.job, self.means.wallet, left))
        await self._complain(left, effect.why)
        event = await self.wallet.start_close(lease, effect.why)
        if isinstance(event, ev.LeaseClosed):
            await self._closed(event)
        else:
            await self.emit(event)

    async def _complain(self, lease: Lease, why: int) -> None:
        """Tell boards of a provider's fault: the chain will say so only if we close."""

        def failed(text: str) -> None:
            self.tell("warning", {"code": "complaint", "fact": text, "remedy": "", "attempt": lease.attempt})

        means = self.means
        await complaints.file(
            self.network, means.connect, self.job, means.wallet, lease, why, self.clock.now(), failed
        )  # fmt: skip

    async def finish_close(self, effect: ev.FinishClose) -> None:
        """The end of our own close, or the provider's that came first."""
        lease = await self.wallet.placed(lease_of(self.job, self.means.wallet, self.state().lease_of(effect.attempt)))
        await self._closed(await self.wallet.finish_close(lease, effect.finish_at))

    async def _closed(self, event: ev.LeaseClosed) -> None:
        facts = {"attempt": event.attempt, "paid": event.paid, "fee": event.fee, "refunded": event.refunded}
        self.tell("closed", {**facts, "locked": event.held, "transaction": event.transaction})
        await self.emit(event)

    async def await_hold(self, effect: ev.AwaitHold) -> None:
        """What became of the part that was held back."""
        lease = await self.wallet.placed(lease_of(self.job, self.means.wallet, self.state().lease_of(effect.attempt)))
        event = await self.verdicts.wait(lease)
        facts = {"attempt": event.attempt, "to_tenant": event.to_tenant, "to_provider": event.to_provider}
        facts["awarded"] = event.awarded
        self.tell("hold", facts)
        await self.emit(event)

    async def give_back(self, effect: ev.Return) -> None:
        """The rest, to the address that paid."""
        unfinished = any(lease.status != "closed" or lease.on_hold for lease in self.state().leases)
        tokens, transaction = await self.wallet.give_back(Address(self.order.main), effect.turn, unfinished)
        await self.emit(ev.Returned(tokens, transaction))

    async def wake(self, effect: ev.Wake) -> None:
        """A moment by the calendar."""
        while (left := effect.at - self.clock.now()) > 0:
            await self.clock.sleep(min(left, 5.0))
        await self.emit(ev.Ticked())

    async def _for_ever(self) -> None:
        while True:
            await self.clock.sleep(3600)


def _loss(error: MingaError) -> str:
    """The code of a loss: what a provider refuses because it reclaims its machine is the reclaim."""
    if isinstance(error, NetworkError) and not isinstance(error, ProviderError):
        return "provider-unreachable"
    return RECLAIMED if RECLAIMED in error.fact and isinstance(error, Conflict) else error.code
