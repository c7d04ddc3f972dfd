"""A provider at work: follows the chain, brings leases back after a restart, ends what is over, gives the machine back.

Knows: all leases of this provider. Does not know: HTTP routes; `serving` calls what is public here. Rule: the chain,
and what the owner wants, are compared with what is known, again and again; nothing depends on seeing an event at the
moment it happens.
"""

from __future__ import annotations

import anyio

from minga.chain.chain import Changes
from minga.chain.contract_events import Closed as ChainClosed
from minga.chain.contracts import Market
from minga.chain.view import LeaseRecord
from minga.core.crypto import Hash32
from minga.core.errors import ContractError, MingaError, NotFound
from minga.core.spec import Machine, Terms
from minga.protocol.lease import Phase, Why
from minga.protocol.messages import channel_id
from minga.protocol.wire import OfferBundle
from minga.provider import events as ev
from minga.provider.agent import ALIVE, WAITING, begin
from minga.provider.bidding import OfferBook
from minga.provider.events import encode
from minga.provider.lease import LeaseRun, World, load
from minga.provider.points import reach
from minga.provider.prepare import task_id

POLL_SECONDS = 1.0
IDLE_SECONDS = 300.0
GONE_SECONDS = 60.0
CLOSE_SECONDS = 60.0
"""How long after the end, and the last file fetched, the tenant may take to pay the rest and ask for the close."""

FETCH_SECONDS = 20.0
"""The same after a reclaim, for a tenant who still listens; one who does not gets `GONE_QUIET_SECONDS`."""

GONE_QUIET_SECONDS = 2.0
AT_ONCE_SECONDS = 3.0
DRAIN_POLL_SECONDS = 0.1
END_MARGIN_S = 30
FOREVER_S = 2**53


class Provider:
    """All leases of one provider; see the module."""

    def __init__(self, world: World, book: OfferBook, machine: Machine, gpus: tuple[str, ...]) -> None:
        """Nothing runs until `restore` and `follow_chain`. `gpus` are the machine's as CDI names."""
        self.world = world
        self.book = book
        self.machine = machine
        self.gpus = gpus
        self.offers: list[OfferBundle] = []
        self.reclaim: str | None = None
        self._at_once = False
        self._polling = anyio.Lock()
        self._missing: dict[str, float] = {}
        self._close_tx: dict[str, str] = {}
        self._finishing: set[str] = set()
        self._chain_time = (0, 0.0)

    # ------------------------------------------------------------------------------------------------------- restart

    async def restore(self) -> None:
        """Bring every lease of the journal back, and remove sandboxes that no lease needs."""
        for stream in await anyio.to_thread.run_sync(self.world.journal.streams):
            if stream.startswith("0x"):
                run = await anyio.to_thread.run_sync(load, self.world, stream, self.terms_of)
                if run is not None:
                    self.world.leases[stream] = run
        needed = {
            task_id(run.channel)
            for run in self.world.leases.values()
            if run.state.phase in ALIVE or run.state.phase == "collecting"
        }
        for name in await self.world.runtime.known():
            if name not in needed and (handle := await self.world.runtime.adopt(name)) is not None:
                await handle.remove()
                reach("provider.collect.removed")
        for run in self.world.leases.values():
            await run.restart()

    def terms_of(self, offer: str) -> Terms | None:
        """The terms of an offer that this home signed; None for any other."""
        try:
            return self.book.get(offer).terms
        except NotFound:
            return None

    # --------------------------------------------------------------------------------------------------------- chain

    async def follow_chain(self) -> None:
        """Poll, compare and tidy up, for ever; a chain that does not answer is waited for."""
        warned = False
        while True:
            try:
                await self.poll()
                await self.world.chain.settle()
                await self._refresh_time()
                warned = False
            except MingaError as error:
                if not warned:
                    self.world.announce("warning", error.as_dict()["error"])
                warned = True
            await self.tidy()
            await self.world.clock.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Take in what the chain shows now.

        Raises:
            NetworkError: no node answers.
        """
        async with self._polling:
            changes = await self.world.chain.poll()
            self._note_closes(changes)
            for record in self._records():
                await self._compare(record)
            await self._look_for_gone()
            self.world.chain.acknowledge(changes)
        await self._reclaim_leases()
        self._finish_holds()

    def _records(self) -> list[LeaseRecord]:
        mine = self.world.provider
        return [record for record in self.world.chain.view.leases.values() if record.lease.provider == mine]

    def _note_closes(self, changes: Changes) -> None:
        for seen in changes.confirmed:
            if isinstance(seen.event, ChainClosed):
                self._close_tx[seen.event.lease_id] = seen.at.transaction

    async def _compare(self, record: LeaseRecord) -> None:
        lease = record.lease
        channel = channel_id(lease.id, lease.offer, lease.signer)
        over = record.phase in (Phase.CLOSED, Phase.HELD)
        run = self.world.leases.get(channel)
        if run is None:
            if not over and channel not in self.world.leases:
                await self._begin(channel, record)
            return
        state = run.state
        if (record.deposit, record.ends_at) != (state.deposit, state.ends_at) and not over:
            await run.attempt(ev.DepositSeen(str(record.deposit), record.ends_at))
        if record.phase == Phase.CLOSING and not state.close_asked:
            await run.attempt(ev.ChainClosing(record.finish_at or record.ends_at))
        if over and not state.closed_at and state.phase != "closing":
            why = "" if state.close_asked else "the lease was closed on chain"
            await run.attempt(ev.Closed(self._close_tx.get(lease.id), why))

    async def _begin(self, channel: Hash32, record: LeaseRecord) -> None:
        lease = record.lease
        try:
            bundle = self.book.get(lease.offer)
            quantum, terms = bundle.offer.quantum, bundle.terms
            prepaid, retention = terms.prepaid_quanta, terms.retention_s
        except NotFound:
            # Signed with this agent key, but not from this home: nothing can be run on terms that are unknown.
            quantum, prepaid, retention, terms = 60, 0, 0, None
        opened = ev.Opened(
            lease_id=lease.id,
            channel=channel,
            offer=lease.offer,
            tenant=lease.tenant,
            job=lease.job,
            attempt=lease.attempt,
            signer=lease.signer,
            machine=lease.machine,
            units=lease.units,
            price_per_hour=str(lease.price_per_hour),
            quantum=quantum,
            prepaid_quanta=prepaid,
            close_window=lease.close_window,
            arbiter=lease.arbiter,
            hold_bps=lease.hold_bps,
            hold_seconds=lease.hold_seconds,
            opened_at=lease.opened_at,
            ends_at=record.ends_at,
            deposit=str(record.deposit),
            retention_s=retention,
        )
        kind, body = encode(opened)
        await anyio.to_thread.run_sync(self.world.journal.append, channel, kind, body, self.world.clock.now(), "opened")
        reach("provider.journal.Opened")
        # The journal may know it from before, its files deleted: then it stays as it was.
        run = await anyio.to_thread.run_sync(load, self.world, channel, lambda _: terms)
        if run is not None:
            self.world.leases[channel] = run
            self.world.announce("lease", {"lease": channel, "phase": begin(opened).phase, "reason": "", "paid": "0"})

    async def _look_for_gone(self) -> None:
        """A lease that a reorg took back and that does not return is over: nothing can be paid on it."""
        now = self.world.clock.monotonic()
        for run in list(self.world.leases.values()):
            facts = run.state.facts
            record = self.world.chain.view.leases.get(Hash32(facts.lease_id))
            there = record is not None and (record.lease.offer, record.lease.signer) == (facts.offer, facts.signer)
            if there or run.state.closed_at:
                self._missing.pop(run.channel, None)
            elif now - self._missing.setdefault(run.channel, now) > GONE_SECONDS:
                await run.attempt(ev.Closed(None, "the lease is not on the chain any more"))

    async def _refresh_time(self) -> None:
        self._chain_time = (await self.world.chain.time(), self.world.clock.monotonic())

    def chain_time(self) -> int:
        """Chain time now, from the last reading and the monotonic clock."""
        read, at = self._chain_time
        return read + int(self.world.clock.monotonic() - at)

    # -------------------------------------------------------------------------------------------------------- tidying

    async def tidy(self) -> None:
        """End what is idle, unpaid or past its end, and forget what was kept long enough."""
        now, chain_now = self.world.clock.monotonic(), self.chain_time()
        for run in list(self.world.leases.values()):
            state = run.state
            margin = min(END_MARGIN_S, (state.ends_at - state.facts.opened_at) // 4)
            if state.phase in ALIVE | WAITING and chain_now >= state.ends_at - margin and not state.close_asked:
                await run.attempt(ev.StopAsked("end", "the lease ends", margin))
            elif state.phase in WAITING and now - run.active_at > IDLE_SECONDS:
                await run.attempt(ev.CloseAsked(f"nothing was started for {int(IDLE_SECONDS)} s", Why.NOT_SAID))
            elif state.reclaimed and state.phase in ("exited", "failed") and self._was_fetched(run, now):
                await run.attempt(ev.CloseAsked("the tenant had its time to fetch", Why.SHUTTING_DOWN))
            elif state.phase in ("exited", "failed") and now - run.active_at > max(CLOSE_SECONDS, state.dead_man_s):
                await run.attempt(ev.CloseAsked("the tenant did not ask for the close", Why.NOT_SAID))
            elif state.phase == "closed" and self.world.clock.now() - state.closed_at > self._kept_s(run):
                await self._forget(run)

    def _kept_s(self, run: LeaseRun) -> int:
        """Seconds after the close for which a lease's files stay: what was committed to must be there to be shown."""
        facts, view = run.state.facts, self.world.chain.view
        record = view.leases.get(Hash32(facts.lease_id))
        if (record is not None and is_held(record)) or run.channel in view.games.values():
            return FOREVER_S
        return max(facts.retention_s, facts.hold_seconds if run.state.commitment else 0)

    # ---------------------------------------------------------------------------------------------------------- holds

    def _finish_holds(self) -> None:
        """Collect what was held back, once nobody can decide about it any more."""
        for record in self._records():
            if record.closed_at is None or record.lease.id in self._finishing or not is_held(record):
                continue
            if self.chain_time() > record.closed_at + record.lease.hold_seconds:
                self._finishing.add(record.lease.id)
                self.world.tasks.start_soon(self._finish_hold, record)

    async def _finish_hold(self, record: LeaseRecord) -> None:
        lease = record.lease
        call = Market(self.world.chain.spec.deployment.market).finish_hold(lease)
        try:
            await self.world.chain.send(f"finish-hold/{lease.channel}/{lease.opened_at}", call, self.world.key)
            reach("provider.hold.sent")
        except MingaError as error:
            self._finishing.discard(lease.id)
            if not isinstance(error, ContractError):  # else somebody was quicker, or the block's clock is behind ours
                self.world.announce("warning", error.as_dict()["error"])
            return
        self.world.announce(
            "released", {"lease": lease.channel, "held": str(record.closed.held if record.closed else 0)}
        )

    async def _forget(self, run: LeaseRun) -> None:
        await anyio.to_thread.run_sync(run.place.remove)
        reach("provider.forget.removed")
        if await run.attempt(ev.Forgotten()):
            self.world.leases.pop(run.channel, None)

    # ------------------------------------------------------------------------------------------------------- reclaim

    async def take_back(self, reason: str, at_once: bool = False) -> None:
        """Withdraw the offers, and give every job its notice (none with `at_once`); new leases meet the same."""
        self.offers = []
        self.reclaim, self._at_once = reason, at_once
        await self._reclaim_leases()

    @property
    def is_busy(self) -> bool:
        """Whether a lease is not closed."""
        return any(run.state.phase != "closed" for run in self.world.leases.values())

    def offer_again(self) -> None:
        """End a reclaim; what was told to go goes on going."""
        self.reclaim, self._at_once = None, False

    async def _reclaim_leases(self) -> None:
        if self.reclaim is None:
            return
        for run in list(self.world.leases.values()):
            state = run.state
            hurry = self._at_once and state.phase in ALIVE and state.grace_s > 0
            if state.phase not in ("closing", "closed") and (hurry or not state.reclaimed):
                await run.attempt(ev.Reclaimed(self.reclaim, self.notice_s(run)))

    def notice_s(self, run: LeaseRun) -> int:
        """Seconds that the lease's own terms promise between SIGTERM and SIGKILL."""
        return 0 if self._at_once or run.terms is None else run.terms.notice_s

    def _was_fetched(self, run: LeaseRun, now: float) -> bool:
        """Whether the tenant of a job that was reclaimed had its chance to pay the rest and fetch what it left."""
        quiet = now - max(run.active_at, run.heard_at)
        return self._at_once or quiet > FETCH_SECONDS or (run.streams == 0 and quiet > GONE_QUIET_SECONDS)

    async def drain(self, reason: str, seconds: float, at_once: anyio.Event) -> None:
        """Take the machine back and wait until every lease is closed; give up `seconds` after the longest notice.

        When `at_once` is set, jobs are killed and the wait is `AT_ONCE_SECONDS` more.
        """
        await self.take_back(reason)
        clock = self.world.clock
        notices = [self.notice_s(run) for run in self.world.leases.values() if run.state.phase in ALIVE]
        until = clock.monotonic() + seconds + max(notices, default=0)
        while self.is_busy and clock.monotonic() < until:
            if at_once.is_set() and not self._at_once:
                await self.take_back(reason, at_once=True)
                until = min(until, clock.monotonic() + AT_ONCE_SECONDS)
            await self.tidy()
            await clock.sleep(DRAIN_POLL_SECONDS)


def is_held(record: LeaseRecord) -> bool:
    """Whether an arbiter may still decide about the lease; its stake is locked so long, even where nothing is held."""
    return record.closed is not None and record.hold_ended is None and record.lease.holds(record.settled)
