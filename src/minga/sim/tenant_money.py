"""What a simulated tenant does on the chain: fund, open, top up, close, give back, as `minga.client.wallet` does.

Rule: every transaction has an effect id, so that a runner killed anywhere sends it once.
"""

from __future__ import annotations

from minga.core.crypto import Hash32
from minga.core.errors import ContractError, MingaError, RpcUnavailable
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_state import State
from minga.protocol.lease import Phase
from minga.protocol.market import Order
from minga.protocol.messages import lease_id
from minga.sim import deeds
from minga.sim.attempt import Attempt
from minga.sim.chain import SimChain
from minga.sim.keys import Key
from minga.sim.nodes import Node
from minga.sim.provider import Posted

TURN_AWAY_S = 60


class Money:
    """The chain's side of a runner."""

    node: Node
    chain: SimChain
    plan: ev.Plan
    state: State
    main: Key
    wallet: Key
    market: dict[str, Posted]

    def emit(self, event: ev.Event) -> None:
        """Take an event in."""
        raise NotImplementedError

    def signer(self, attempt: int) -> Key:
        """The session signer of an attempt."""
        raise NotImplementedError

    def attempt(self, number: int) -> Attempt:
        """How the provider of an attempt is reached."""
        raise NotImplementedError

    async def fund(self, effect: ev.Fund) -> None:
        """Move exactly the budget to the job wallet, once."""
        call = deeds.transfer(self.main.address, self.wallet.address, effect.amount)
        try:
            sent = await self.chain.send(self.node, "fund", call)
        except ContractError as error:
            self.node.transactions.pop("fund", None)
            if self.chain.latest(self.node).balances.get(self.main.address, 0) >= effect.amount:
                raise RpcUnavailable("refused, though the money is there", "it is tried again") from None
            self.emit(ev.FundingFailed("contract-refused", error.fact))
            return
        self.emit(ev.Funded(sent.effect))

    async def open(self, effect: ev.Open) -> None:
        """Open the lease; a refusal means another offer."""
        lease = self.state.lease_of(effect.attempt)
        posted = self.market[lease.deal.offer]
        order = Order(
            Hash32(self.plan.job), effect.attempt, lease.deal.units, effect.seconds, effect.deposit,
            self.signer(effect.attempt).address,
        )  # fmt: skip
        call = deeds.open_lease(self.wallet.address, posted.offer, posted.signature, order)
        try:
            sent = await self.chain.send(self.node, f"open/{effect.attempt}", call)
        except ContractError as error:
            if self.chain.latest(self.node).balances.get(self.wallet.address, 0) < effect.deposit:
                self.node.transactions.pop(f"open/{effect.attempt}", None)
                raise RpcUnavailable("the job wallet's money is not on the chain any more", "sent again") from None
            self.emit(ev.OpenFailed(effect.attempt, error.code, error.fact, TURN_AWAY_S))
            return
        held, seconds = sent.result
        self.emit(ev.Opened(effect.attempt, held.id, held.channel, seconds, held.opened_at, sent.effect))

    def lease_name(self, attempt: int) -> Hash32:
        """The lease id of an attempt."""
        return lease_id(self.wallet.address, Hash32(self.plan.job), attempt)

    def _placed(self, attempt: int) -> int:
        lease = self.chain.view(self.node).leases.get(self.lease_name(attempt))
        return lease.opened_at if lease else self.state.lease_of(attempt).opened_at

    async def top_up(self, effect: ev.TopUp) -> None:
        """A larger deposit."""
        name = f"topup/{effect.attempt}/{effect.total}/{self._placed(effect.attempt)}"
        call = deeds.top_up(self.wallet.address, self.lease_name(effect.attempt), effect.amount)
        try:
            await self.chain.send(self.node, name, call)
        except ContractError as error:
            self.emit(ev.TopUpFailed(effect.attempt, error.code, error.fact))
            return
        self.emit(ev.ToppedUp(effect.attempt, Amount(effect.total)))

    async def ask_close(self, effect: ev.AskClose) -> None:
        """Ask, and see the end on the chain; overdue when it does not come."""
        until = self.node.monotonic() + self.plan.close_wait_s
        asking = self.node.spawn(self._ask_close(effect.attempt))
        try:
            while self.node.monotonic() < until:
                closed = self._look(effect.attempt)
                if closed is not None:
                    self.emit(closed)
                    return
                await self.chain.changed.wait(max(0.1, min(2.0, until - self.node.monotonic())))
        finally:
            asking.cancel()
        self.emit(ev.CloseOverdue(effect.attempt))

    async def _ask_close(self, number: int) -> None:
        try:
            await self.attempt(number).ask_close()
        except MingaError:
            pass

    def _look(self, attempt: int) -> ev.LeaseClosed | None:
        """The lease's end, if it is on the chain at depth. Raises RpcUnavailable."""
        found = self.chain.view(self.node).closings.get(self.lease_name(attempt))
        if found is None:
            return None
        paid, fee, held, refunded = (Amount(item) for item in (found.paid, found.fee, found.held, found.refunded))
        return ev.LeaseClosed(attempt, paid, fee, held, refunded, found.by)

    async def start_close(self, effect: ev.StartClose) -> None:
        """Our own close, or the end that came first."""
        name = f"start-close/{effect.attempt}/{self._placed(effect.attempt)}"
        call = deeds.start_close(self.wallet.address, self.lease_name(effect.attempt))
        try:
            sent = await self.chain.send(self.node, name, call)
        except ContractError:
            account = self.chain.view(self.node).accounts.get(self.lease_name(effect.attempt))
            if account is not None and account.phase is Phase.CLOSING:
                window = self.state.lease_of(effect.attempt).deal.close_window
                self.emit(ev.ClosingStarted(effect.attempt, account.ends_at + window))
                return
            closed = self._look(effect.attempt)
            if closed is None:
                self.node.transactions.pop(name, None)
                raise
            self.emit(closed)
            return
        self.emit(ev.ClosingStarted(effect.attempt, sent.result))

    async def finish_close(self, effect: ev.FinishClose) -> None:
        """The end of our own close, or the provider's that came first."""
        while (left := effect.finish_at - self.chain.time) > 0:
            closed = self._look(effect.attempt)
            if closed is not None:
                self.emit(closed)
                return
            await self.node.kernel.sleep(min(max(left, 1), 120))
        name = f"finish-close/{effect.attempt}/{self._placed(effect.attempt)}"
        try:
            await self.chain.send(self.node, name, deeds.finish_close(self.lease_name(effect.attempt)))
        except ContractError:
            if self._look(effect.attempt) is None:
                self.node.transactions.pop(name, None)
                raise
        closed = self._look(effect.attempt)
        if closed is not None:
            self.emit(closed)

    async def give_back(self, effect: ev.Return) -> None:
        """The rest, to the address that paid."""
        call = deeds.transfer(self.wallet.address, self.main.address, None)
        sent = await self.chain.send(self.node, f"return/{effect.turn}", call)
        self.emit(ev.Returned(Amount(sent.result), sent.effect))


__all__ = ["Money"]
