"""A simulated provider: what `minga.provider.loop` does, around the real agent.

Follows the chain at depth, signs offers, brings leases back after a death, ends what is over. The rules that matter to
money stand in the agent, which is the real one. Hostile providers are subclasses that break one habit.
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.core.crypto import ZERO_ADDRESS, Hash32, keccak, to_hex
from minga.core.errors import DiskFull, MingaError, RpcUnavailable
from minga.core.spec import Terms
from minga.core.units import Amount
from minga.protocol.lease import Phase, Why
from minga.protocol.messages import Offer, offer_hash, sign
from minga.provider import events as ev
from minga.provider.agent import ALIVE, WAITING, begin
from minga.provider.events import encode
from minga.sim import deeds
from minga.sim.chain import Call, SimChain
from minga.sim.chain_state import State
from minga.sim.desk import Desk
from minga.sim.keys import Key
from minga.sim.lease import LeaseRun, load
from minga.sim.nodes import Node
from minga.sim.watch import Watch
from minga.sim.work import ABANDONED_S, Process, Work

POLL_S = 5.0
PREPARE_S = (0.2, 3.0)
IDLE_S = 300.0
GONE_S = 60.0
CLOSE_S = 60.0
RECLAIM_SILENCE_S = 20.0
END_MARGIN_S = 30
OFFER_S = 900


@dataclass(frozen=True)
class Ask:
    """What a provider asks for; prices per unit-hour in token units, times in seconds."""

    price_per_hour: int
    quantum: int
    units: int = 1
    prepaid_quanta: int = 0
    notice_s: int = 10
    close_window: int = 3600
    speed: int = 0


@dataclass(frozen=True, slots=True)
class Posted:
    """An offer as boards hold it: signed, with its terms and where its provider is."""

    offer: Offer
    signature: bytes
    provider: Provider
    terms: Terms


class Provider(Desk):
    """An honest one. `works` tells what a job's program would do; only the sandbox asks it."""

    honest = True
    loss_bound = "quantum"

    def __init__(
        self, node: Node, chain: SimChain, key: Key, ask: Ask, terms: Terms, works: dict[str, Work], watch: Watch
    ) -> None:
        """Registered, and not started."""
        self.node, self.chain, self.key, self.ask, self.terms = node, chain, key, ask, terms
        self.works, self.watch = works, watch
        self.machine = Hash32(to_hex(keccak(b"machine" + node.name.encode())))
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.processes: dict[str, Process] = {}
        self.book: dict[str, Posted] = {}
        self.leases: dict[str, LeaseRun] = {}
        self.reclaiming = ""
        self._missing: dict[str, float] = {}
        node.start, node.stopped = self.start, self.stopped
        chain.register(key.address, key.address)

    # ------------------------------------------------------------------------------------------------- life and death

    def start(self) -> None:
        """Bring the agent up: every lease of the journal, then the chain."""
        found = [run for stream in self.node.journal.streams() if (run := load(self, stream)) is not None]
        for run in found:
            self.watch.provider_restored(run)
        self.leases = {run.channel: run for run in found}
        for run in list(self.leases.values()):
            run.restart()
        self.node.spawn(self.follow())

    def stopped(self) -> None:
        """The agent is dead: what it left running ends when nobody comes back for it."""
        life = self.node.lives

        def abandoned() -> None:
            if not self.node.up and self.node.lives == life:
                for process in self.processes.values():
                    process.kill("abandoned")

        self.node.kernel.after(ABANDONED_S, abandoned)

    def prepare_s(self) -> float:
        """Seconds of pull and set-up."""
        return self.node.kernel.dice.uniform(*PREPARE_S)

    def make_process(self, run: LeaseRun, work: Work, base_s: int) -> Process:
        """The job at work."""
        process = Process(self.node.kernel, work, base_s)
        self.watch.job_runs(run.state.facts.lease_id, process)
        return process

    # --------------------------------------------------------------------------------------------------------- offers

    def offers(self) -> list[Posted]:
        """The offers that can be taken now; signed anew when half their life is over."""
        if self.reclaiming:
            return []
        now, epoch = self.chain.time, self.chain.market.epochs.get(self.key.address, 0)
        current = next((item for item in reversed(self.book.values())), None)
        if current is None or current.offer.valid_until - now < OFFER_S // 2 or current.offer.epoch != epoch:
            current = self.sign_offer(now, epoch)
        return [current]

    def sign_offer(self, now: int, epoch: int) -> Posted:
        """A new offer, kept before it is shown."""
        ask = self.ask
        salt = Hash32(to_hex(keccak(f"{self.node.name}/{len(self.book)}".encode())))
        least = max(1, -(-ask.price_per_hour * ask.quantum // 3600))
        offer = Offer(
            self.key.address, self.machine, self.terms.hash32(), Amount(ask.price_per_hour), ask.units, Amount(least),
            60, 86400, ask.quantum, ask.close_window, ZERO_ADDRESS, 0, 0, now + OFFER_S, epoch, salt,
        )  # fmt: skip
        posted = Posted(offer, sign(offer, self.chain.domain, self.key), self, self.terms)  # type: ignore[arg-type]
        self.book[offer_hash(offer)] = posted
        return posted

    # ---------------------------------------------------------------------------------------------------------- chain

    async def follow(self) -> None:
        """Poll, compare and tidy up, for ever; an RPC that does not answer is waited for."""
        while True:
            try:
                self.poll()
                self.chain.settle(self.node)
            except RpcUnavailable:
                pass
            self.tidy()
            busy = any(run.state.phase != "closed" for run in self.leases.values())
            await self.chain.changed.wait(POLL_S if busy else 60.0)

    def poll(self) -> None:
        """Take in what the chain shows at depth. Raises RpcUnavailable."""
        view = self.chain.view(self.node)
        for name in view.by_provider.get(self.key.address, ()):
            lease = view.leases[name]
            run = self.leases.get(lease.channel)
            account = view.accounts[name]
            over = account.phase in (Phase.CLOSED, Phase.HELD)
            if run is None:
                if not over:
                    self._begin(view, name)
            elif run.state.phase != "closed":
                self._compare(run, view, name, over)
        self._look_for_gone(view)

    def _compare(self, run: LeaseRun, view: State, name: Hash32, over: bool) -> None:
        account, state = view.accounts[name], run.state
        if not over:
            # Of a lease that is closing, `ends_at` is when its window began.
            ends_at = state.ends_at if account.phase is Phase.CLOSING else account.ends_at
            if (account.deposit, ends_at) != (state.deposit, state.ends_at):
                run.attempt(ev.DepositSeen(str(account.deposit), ends_at))
            if account.phase is Phase.CLOSING and not state.close_asked:
                run.attempt(ev.ChainClosing(account.ends_at + state.facts.close_window))
        elif not state.closed_at and state.phase != "closing":
            run.attempt(ev.Closed(None, "" if state.close_asked else "the lease was closed on chain"))

    def _begin(self, view: State, name: Hash32) -> None:
        lease, account = view.leases[name], view.accounts[name]
        posted = self.book.get(lease.offer)
        quantum = posted.offer.quantum if posted else 60
        prepaid = posted.terms.prepaid_quanta if posted else 0
        opened = ev.Opened(
            lease.id, lease.channel, lease.offer, lease.tenant, lease.job, lease.attempt, lease.signer, lease.machine,
            lease.units, str(lease.price_per_hour), quantum, prepaid, lease.close_window, lease.arbiter,
            lease.hold_bps, lease.hold_seconds, lease.opened_at, account.ends_at, str(account.deposit), 86400,
        )  # fmt: skip
        kind, body = encode(opened)
        try:
            if not self.node.journal.read(lease.channel):
                self.node.journal.append(lease.channel, kind, body, self.node.now())
        except DiskFull:
            return
        run = load(self, lease.channel)
        if run is not None:
            self.leases[lease.channel] = run
            assert begin(opened).phase == "opened"
            if self.reclaiming:
                run.attempt(ev.Reclaimed(self.reclaiming, 0))

    def _look_for_gone(self, view: State) -> None:
        now = self.node.monotonic()
        for run in list(self.leases.values()):
            facts = run.state.facts
            lease = view.leases.get(Hash32(facts.lease_id))
            if run.state.closed_at or (lease is not None and lease.channel == run.channel):
                self._missing.pop(run.channel, None)
            elif now - self._missing.setdefault(run.channel, now) > GONE_S:
                run.attempt(ev.Closed(None, "the lease is not on the chain any more"))

    def placed(self, run: LeaseRun) -> tuple[Hash32, int]:
        """The lease's id, and when the chain says that it was opened."""
        facts = run.state.facts
        lease = self.chain.state_at(self.chain.head - self.chain.confirmations).leases.get(Hash32(facts.lease_id))
        return Hash32(facts.lease_id), lease.opened_at if lease else facts.opened_at

    def close_call(self, lease_id: Hash32, cumulative: int, signature: bytes) -> Call:
        """The transaction that closes with the best voucher."""
        return deeds.close(self.key.address, lease_id, cumulative, signature)

    def tidy(self) -> None:
        """End what is idle, unpaid or past its end."""
        now, chain_now = self.node.monotonic(), self.chain.time
        for run in list(self.leases.values()):
            state, silent = run.state, now - run.active_at
            margin = min(END_MARGIN_S, (state.ends_at - state.facts.opened_at) // 4)
            if state.phase in ALIVE | WAITING and chain_now >= state.ends_at - margin and not state.close_asked:
                run.attempt(ev.StopAsked("end", "the lease ends", margin))
            elif state.phase in WAITING and silent > IDLE_S:
                run.attempt(ev.CloseAsked(f"nothing was started for {int(IDLE_S)} s", Why.NOT_SAID))
            elif state.phase in ("exited", "failed"):
                patience = RECLAIM_SILENCE_S if state.reclaimed else max(CLOSE_S, state.dead_man_s)
                if silent > patience:
                    run.attempt(ev.CloseAsked("the tenant did not ask for the close", Why.NOT_SAID))

    def reclaim(self, reason: str) -> None:
        """The owner wants the machine back, with the notice of the terms."""
        self.reclaiming = reason
        for run in list(self.leases.values()):
            run.attempt(ev.Reclaimed(reason, self.ask.notice_s))

    async def revoke(self) -> None:
        """Withdraw every offer on the chain, and offer again after a while."""
        try:
            name = f"revoke/{self.chain.market.epochs.get(self.key.address, 0)}"
            await self.chain.send(self.node, name, deeds.cancel_offers(self.key.address))
        except MingaError:
            pass
        await self.node.kernel.sleep(30.0)
        self.reclaiming = ""


__all__ = ["Ask", "Posted", "Provider"]
