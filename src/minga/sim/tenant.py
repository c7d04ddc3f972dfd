"""A simulated tenant: the loop and the performers of `minga.client.runner` and `.effects`, around the real job machine.

An event is journaled before anything is done about it; effects are started when the state wants them and cancelled when
it no longer does. A runner killed at any line is continued by replaying its journal. Rule: a performer returns only
after it told an event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from minga.core.errors import (
    Conflict,
    ContractError,
    DiskFull,
    MingaError,
    NetworkError,
    ProviderError,
)
from minga.protocol import job
from minga.protocol import job_events as ev
from minga.protocol.job_moves import RECLAIMED
from minga.protocol.job_state import AT_WORK, begin, effects
from minga.sim.attempt import Attempt
from minga.sim.chain import SimChain
from minga.sim.kernel import Crashed, Task
from minga.sim.keys import Key, Ring
from minga.sim.nodes import Node, Wires
from minga.sim.provider import Posted
from minga.sim.talk import Keeper
from minga.sim.tenant_money import Money
from minga.sim.tenant_offers import Board, Offers
from minga.sim.watch import Watch
from minga.sim.work import Work, done_in

AGAIN_S = 0.5
SETTLE_S = 20.0
PAUSE_MAX_S = 10.0


class Runner(Offers, Money):
    """Runs one job of one tenant on one node."""

    honest = True

    def __init__(
        self, node: Node, chain: SimChain, wires: Wires, ring: Ring, plan: ev.Plan, work: Work, watch: Watch,
        boards: list[tuple[Node, Board]],
    ) -> None:  # fmt: skip
        """Ordered, and not started."""
        self.node, self.chain, self.wires, self.ring, self.plan, self.work = node, chain, wires, ring, plan, work
        self.watch, self.boards = watch, boards
        self.main: Key = ring.key(f"{node.name}/main")
        self.wallet: Key = ring.key(f"{node.name}/wallet")
        self.keeper = Keeper()
        self.market: dict[str, Posted] = {}
        self.state = begin(plan)
        self.pending = self.state
        self.applied = 0
        self._last_at = node.now()
        self._doing: dict[ev.Effect, Task] = {}
        self._attempts: dict[int, Attempt] = {}
        self.table: dict[type[ev.Effect], Callable[[Any], Awaitable[None]]] = {
            ev.Fund: self.fund, ev.Find: self.find, ev.Open: self.open, ev.Send: self.send, ev.Probe: self.probe,
            ev.Start: self.start_job, ev.Watch: self.follow, ev.Duty: self.duty, ev.Pay: self.pay,
            ev.TopUp: self.top_up, ev.Stop: self.stop, ev.Gather: self.gather, ev.AskClose: self.ask_close,
            ev.StartClose: self.start_close, ev.FinishClose: self.finish_close, ev.Return: self.give_back,
            ev.Wake: self.wake, ev.Patience: self.patience,
        }  # fmt: skip

    def signer(self, attempt: int) -> Key:
        """The session signer of an attempt."""
        return self.ring.key(f"{self.node.name}/session/{attempt}")

    # ----------------------------------------------------------------------------------------------------------- loop

    def start(self) -> None:
        """Take the job up from the journal."""
        records = self.node.journal.read(self.plan.job)
        old, self.state = (self.state, self.pending), begin(self.plan)
        for record in records:
            self.state, _ = job.step(self.state, ev.decode(record.kind, record.body), record.at)
        self.applied = len(records)
        self.watch.tenant_restored(self, old)
        self._doing, self._attempts = {}, {}
        self.node.spawn(self._run(max(0, self.node.now() - self._last_at)))

    async def _run(self, gap_s: int) -> None:
        if self.state.phase in AT_WORK:
            lease = self.state.lease
            if lease is not None and lease.seen:
                self.watch.unseen(self, lease.attempt, min(gap_s, 2 * lease.deal.quantum))
            self.emit(ev.Resumed(gap_s))
        self.reconcile(effects(self.state))
        while not self.state.settled:
            await self.node.kernel.sleep(SETTLE_S)
            self.chain.settle(self.node)

    def emit(self, event: ev.Event) -> None:
        """Journal an event, then take it in. With a full disk the runner ends, and is run again later."""
        now = self.node.now()
        before = self.state
        after, wanted = job.step(before, event, now)
        if after == before:
            return
        self.pending = after
        try:
            self.journal(event, now)
        except DiskFull:
            raise Crashed from None
        self.state = after
        self.applied += 1
        self._last_at = now
        self.watch.tenant_stepped(self, before, event)
        self.reconcile(wanted)

    def journal(self, event: ev.Event, now: int) -> None:
        """Make an event durable. Raises DiskFull: nothing was written."""
        kind, body = ev.encode(event)
        self.node.journal.append(self.plan.job, kind, body, now)
        self.node.kernel.note(f"{self.node.name} {kind} {self.applied}")

    def reconcile(self, effects: tuple[ev.Effect, ...]) -> None:
        """Start what is wanted and not going on; cancel what goes on and is not wanted."""
        wanted = dict.fromkeys(effects)
        for effect, task in list(self._doing.items()):
            if effect not in wanted:
                del self._doing[effect]
                task.cancel()
        for effect in wanted:
            if effect not in self._doing:
                self.watch.tenant_acts(self, effect)
                self._doing[effect] = self.node.spawn(self._do(effect))

    async def _do(self, effect: ev.Effect) -> None:
        pause = 0.05
        while True:
            try:
                await self.table[type(effect)](effect)
                pause = AGAIN_S  # still wanted: what came of it changed nothing, so it is done again
            except ContractError:
                pause = max(pause, AGAIN_S)
            except MingaError:
                pause = min(2 * pause, PAUSE_MAX_S)
            await self.node.kernel.sleep(pause)

    def fetch(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Bring a checkpoint while the lease is watched."""
        self.node.spawn(coroutine)

    def accepts(self, content: bytes) -> bool:
        """The tenant's own check of a checkpoint, where the job has one: is it the work, and further than before?"""
        if not self.plan.accept:
            return True
        newest = self.keeper.newest()
        return content in self.watch.genuine and done_in(content, self.plan.job) >= done_in(newest, self.plan.job)

    def is_stale(self, content: bytes) -> bool:
        """Whether it is the checkpoint that is kept already: nothing new to judge, and nothing to pay for."""
        return content == self.keeper.newest()

    # ---------------------------------------------------------------------------------------------------- at provider

    async def _at(self, number: int, do: Callable[[Attempt], Awaitable[ev.Event | None]]) -> None:
        try:
            event = await do(self.attempt(number))
        except MingaError as error:
            event = ev.Lost(number, loss(error), error.fact[:500])
        if isinstance(event, ev.Lost) and self.state.phase == "closing":
            event = ev.CloseOverdue(number)
        if event is not None:
            self.emit(event)

    def attempt(self, number: int) -> Attempt:
        """How the provider of an attempt is reached."""
        if number not in self._attempts:
            self._attempts[number] = Attempt(self, self.state.lease_of(number))
        return self._attempts[number]

    async def send(self, effect: ev.Send) -> None:
        """Manifest and inputs."""
        await self._at(effect.attempt, lambda attempt: attempt.send())

    async def probe(self, effect: ev.Probe) -> None:
        """The machine, measured."""
        await self._at(effect.attempt, lambda attempt: attempt.probe())

    async def duty(self, effect: ev.Duty) -> None:
        """The machine, measured while it works."""
        await self._at(effect.attempt, lambda attempt: attempt.duty())

    async def start_job(self, effect: ev.Start) -> None:
        """The start."""
        await self._at(effect.attempt, lambda attempt: attempt.start())

    async def pay(self, effect: ev.Pay) -> None:
        """A voucher."""
        await self._at(effect.attempt, lambda attempt: attempt.pay(effect.cumulative))

    async def follow(self, effect: ev.Watch) -> None:
        """Events, until something else is wanted."""
        await self._at(effect.attempt, lambda attempt: attempt.watch(self.state.lease_of(effect.attempt).after))

    async def stop(self, effect: ev.Stop) -> None:
        """The wish to stop."""
        await self._at(effect.attempt, lambda attempt: attempt.stop(effect.reason, effect.grace_s))
        await self.node.kernel.sleep(3600.0)

    async def gather(self, effect: ev.Gather) -> None:
        """Results."""
        await self._at(effect.attempt, lambda attempt: attempt.gather(self.state.lease_of(effect.attempt).after))

    async def patience(self, effect: ev.Patience) -> None:
        """Seconds that a provider has for what it must do."""
        await self.node.kernel.sleep(effect.seconds)
        self.emit(ev.Overdue(effect.attempt, effect.turn))

    async def wake(self, effect: ev.Wake) -> None:
        """A moment by the calendar."""
        while (left := effect.at - self.node.now()) > 0:
            await self.node.kernel.sleep(min(left, 60.0))
        self.emit(ev.Ticked())


def loss(error: MingaError) -> str:
    """The code of a loss, as `minga.client.effects` says it."""
    if isinstance(error, NetworkError) and not isinstance(error, ProviderError):
        return "provider-unreachable"
    return RECLAIMED if RECLAIMED in error.fact and isinstance(error, Conflict) else error.code


__all__ = ["Runner"]
