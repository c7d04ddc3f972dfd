"""The loop that runs one job: journal what happened, step the machine, do what it wants.

An event is journaled before anything is done about it; effects are started when the state wants them and cancelled
when it no longer does. So a process killed at any line is continued by replaying the journal, by any process of this
home: the stream is held `exclusive`, one process at a time.

Does not know: what effects do (`minga.client.effects`), nor what events mean (`minga.protocol.job`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.abc

from minga.chain.chain import Chain, ChainSpec
from minga.client import points
from minga.client.acceptance import acceptance
from minga.client.attempt import Means
from minga.client.checkpoints import make_keeper
from minga.client.effects import Performers
from minga.client.folder import JobFolder
from minga.client.groups import first_of
from minga.client.home import Home, Network
from minga.client.offers import OfferSource
from minga.client.order import DISK_BYTES, Order
from minga.client.provider_api import Connect
from minga.client.wallet import Purse
from minga.core.crypto import PrivateKey
from minga.core.effects import Clock, Dice
from minga.core.errors import DiskFull, InternalError, KeyLocked, MingaError, NetworkError, NotFound
from minga.protocol import job_events as ev
from minga.protocol.job import step
from minga.protocol.job_state import AT_WORK, State, begin, effects
from minga.store.blobs import BlobStore
from minga.store.journal import Journal, Record

ORDER = "order"
STOP_POLL_S = 0.1
SETTLE_S = 5.0
AGAIN_S = 0.25

OpenChain = Callable[[ChainSpec, Any], Any]
"""(spec, folder) → an async context manager that gives a `Chain`."""


@dataclass(frozen=True)
class World:
    """What runners of one process share. `main` unlocks the main key; None where nobody may fund."""

    home: Home
    network: Network
    clock: Clock
    dice: Dice
    journal: Journal
    blobs: BlobStore
    connect: Connect
    open_chain: OpenChain
    offers: OfferSource
    purse: Purse | None = None
    main: Callable[[], PrivateKey] | None = None


def read_order(journal: Journal, job: str) -> tuple[Order, list[Record]]:
    """A job's order and the records of its events.

    Raises:
        NotFound: there is no such job.
    """
    records = journal.read(job)
    if not records or records[0].kind != ORDER:
        raise NotFound(f"there is no job {job[:80]}", "see `minga jobs`")
    return Order.from_json(records[0].body), records[1:]


def fold(order: Order, records: list[Record]) -> State:
    """The state that a journal gives."""
    state = begin(order.plan)
    for record in records:
        state, _ = step(state, ev.decode(record.kind, record.body), record.at)
    return state


class Runner:
    """Runs one job."""

    def __init__(self, world: World, job: str, ordered_at: float | None = None) -> None:
        """`ordered_at` is the monotonic time of the order, when this process took it."""
        self.world = world
        self.job = job
        self.folder = JobFolder(world.home.job(job))
        self.order, records = read_order(world.journal, job)
        self.state = fold(self.order, records)
        self._last_at = records[-1].at if records else self.order.submitted_at
        self._ordered_at = ordered_at
        self._lock = anyio.Lock()
        self._doing: dict[ev.Effect, anyio.CancelScope] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._performers: Performers | None = None
        self._heard_log = False
        self.changed = anyio.Event()

    async def run(self, until_settled: bool = False) -> State:
        """Run until the job is over; with `until_settled` until locked and held money found its owner, too.

        Raises:
            Conflict: another process runs it.
            DiskFull, InternalError: the journal cannot be written; the job goes on when it is run again.
        """

        def done(state: State) -> bool:
            return state.over if until_settled else state.terminal

        with self.world.journal.exclusive(self.job):
            _, records = read_order(self.world.journal, self.job)
            self.state = fold(self.order, records)
            if done(self.state):
                return self.state
            try:
                await self._run(done)
            except BaseExceptionGroup as group:
                raise first_of(group) from None
        return self.state

    async def _run(self, done: Callable[[State], bool]) -> None:
        async with AsyncExitStack() as stack:
            spec = self._spec()
            chain: Chain = await stack.enter_async_context(self.world.open_chain(spec, self.folder.path / "chain"))
            self._performers = self._make_performers(chain)
            stack.push_async_callback(self._performers.aclose)
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._watch_stop)
                tasks.start_soon(self._settle_chain, chain)
                tasks.start_soon(self._time_first_log)
                if self.state.phase in AT_WORK:
                    await self.emit(ev.Resumed(max(0, self.world.clock.now() - self._last_at)))
                self._reconcile()
                while not done(self.state):
                    await self.changed.wait()
                tasks.cancel_scope.cancel()
        if self.state.settled:
            self.folder.forget_secrets()

    def _spec(self) -> ChainSpec:
        spec = self.world.network.chain
        start = max(spec.deployment.start_block, self.order.start_block)
        return replace(spec, deployment=replace(spec.deployment, start_block=start))

    def _make_performers(self, chain: Chain) -> Performers:
        world = self.world
        disk_bytes = self.order.needs.disk_bytes or DISK_BYTES
        spec = chain.spec
        keeper = make_keeper(
            self.folder,
            self.job,
            disk_bytes,
            to=self.order.store.get("to", ""),
            endpoint=self.order.store.get("endpoint", ""),
        )
        means = Means(
            self.order, self.folder, world.blobs, self.folder.wallet(), chain.spec.domain, world.connect, world.clock,
            world.dice, self.emit, self.tell, keeper, acceptance(self.order.accept, self.tell),
            spec.disputes_domain if spec.deployment.has_disputes else None,
        )  # fmt: skip
        return Performers(
            self.order, world.network, chain, world.offers, means, lambda: self.state, world.purse, world.main
        )

    # ------------------------------------------------------------------------------------------------------- events

    async def emit(self, event: ev.Event) -> None:
        """Journal an event, then take it in. Never half: a cancelled caller still finishes this."""
        points.reach("client.event.received")
        with anyio.CancelScope(shield=True):
            async with self._lock:
                now = self.world.clock.now()
                before = self.state
                after, _ = step(before, event, now)
                if after == before:
                    return
                kind, body = ev.encode(event)
                await anyio.to_thread.run_sync(self.world.journal.append, self.job, kind, body, now)
                points.reach("client.event.journaled")
                self.state = after
                if after.settled:
                    self.folder.forget_secrets()  # here, where nobody who leaves early can cut it off
                self._say(before, event)
                self._reconcile()
                self.changed.set()
                self.changed = anyio.Event()

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """An event for screens; losing it loses no money."""
        self.folder.tell(self.world.clock.now(), kind, data)

    def _say(self, before: State, event: ev.Event) -> None:
        state = self.state
        attempt = state.lease.attempt if state.lease else max(0, state.attempt - 1)
        if state.phase != before.phase and not state.terminal:
            self.tell("phase", {"phase": state.phase, "attempt": attempt, "reason": state.reason})
        if isinstance(event, ev.Metered | ev.Gathered | ev.Exited) and state.lease is not None:
            worked = sum(item.payable_s for item in state.leases)
            money = {"signed": state.lease.signed, "spent": state.spent, "available": state.available}
            self.tell("meter", {"attempt": attempt, "working_s": worked, **money})
        if state.terminal and not before.terminal:
            code = state.ending.exit_code if state.ending else None
            self.tell("end", {"phase": state.phase, "exit_code": code, "reason": state.reason})

    # ------------------------------------------------------------------------------------------------------ effects

    def _reconcile(self) -> None:
        """Start what is wanted and not going on; cancel what goes on and is not wanted."""
        assert self._tasks is not None
        wanted = set(effects(self.state))
        for effect, scope in list(self._doing.items()):
            if effect not in wanted:
                del self._doing[effect]
                scope.cancel()
        for effect in wanted - self._doing.keys():
            scope = anyio.CancelScope()
            self._doing[effect] = scope
            self._tasks.start_soon(self._do, effect, scope)

    async def _do(self, effect: ev.Effect, scope: anyio.CancelScope) -> None:
        assert self._performers is not None
        with scope:
            while True:
                try:
                    await self._performers.perform(effect)
                except (DiskFull, InternalError, KeyLocked):
                    raise
                except MingaError as error:
                    self.tell("warning", {"code": error.code, "fact": error.fact, "remedy": error.remedy})
                # Still wanted: what came of it changed nothing, so it is done again.
                await self.world.clock.sleep(AGAIN_S)

    async def _watch_stop(self) -> None:
        while True:
            reason = self.folder.stop_asked()
            if reason is not None:
                await self.emit(ev.StopAsked(reason))
                return
            await self.world.clock.sleep(STOP_POLL_S)

    async def _settle_chain(self, chain: Chain) -> None:
        """Broadcast again what a reorg or a killed node dropped: the funding first, the rest builds on it."""
        purse = self.world.purse
        chains = [chain] if purse is None else [purse.chain, chain]
        while True:
            try:
                for each in chains:
                    await each.settle()
            except NetworkError as error:
                self.tell("warning", {"code": error.code, "fact": error.fact, "remedy": error.remedy})
            await self.world.clock.sleep(SETTLE_S)

    async def _time_first_log(self) -> None:
        """Say how long it took from the order to the first byte of output."""
        if self._ordered_at is None:
            return
        while not any(self.folder.log_offset(lease.attempt) for lease in self.state.leases):
            await self.world.clock.sleep(0.005)
        taken = self.world.clock.monotonic() - self._ordered_at
        self.tell("first_log", {"after_ms": int(taken * 1000)})
