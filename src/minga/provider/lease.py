"""One lease at work: journals what the agent decides, then does it, and turns what happens into events.

Knows: the lease's journal, its files, its sandbox, its close on chain. Does not know: HTTP, offers, other leases.
Rule: `apply` is the only door. It steps the agent, makes the event durable, and only then changes the state, tells
the tenant and starts the effects; a refusal or a full disk leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from minga.chain.chain import Chain
from minga.chain.contracts import Market
from minga.chain.errors import LeaseClosed, UnknownLease
from minga.core.crypto import Address, Hash32, PrivateKey, from_hex
from minga.core.effects import Clock, Dice
from minga.core.errors import (
    BadArtifact,
    Conflict,
    ContractError,
    DiskFull,
    InternalError,
    MingaError,
    NotFound,
    TenantError,
)
from minga.core.spec import Manifest, Terms
from minga.core.units import Amount
from minga.protocol.lease import Lease
from minga.provider import agent
from minga.provider import events as ev
from minga.provider.agent import State
from minga.provider.commitments import commit
from minga.provider.events import Effect, Emit, Event, decode, encode
from minga.provider.inventory import Inventory
from minga.provider.logs import LogFile
from minga.provider.points import reach
from minga.provider.prepare import Workplace
from minga.provider.sandbox import Sandbox
from minga.runtimes.runtime import Runtime
from minga.store.journal import Journal

Announce = Callable[[str, dict[str, Any]], None]
RETRY_SECONDS_MAX = 30.0
SILENCE_SECONDS = 5.0
"""After so much silence a tenant who follows the events is told that the provider lives."""


@dataclass
class World:
    """What all leases of one provider share. `secret` is the transport key's secret half; `key` closes on chain."""

    chain: Chain
    key: PrivateKey
    provider: Address
    journal: Journal
    runtime: Runtime
    clock: Clock
    dice: Dice
    home: Path
    environments: dict[str, Path]
    secret: bytes
    announce: Announce
    tasks: anyio.abc.TaskGroup
    leases: dict[str, LeaseRun] = field(default_factory=dict)


class Signal:
    """Wakes everybody who waits, each time."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake those who wait now."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self) -> None:
        """Until the next `notify`."""
        await self._event.wait()


class LeaseRun:
    """A lease that this process works on."""

    def __init__(self, world: World, state: State, told: list[Emit], terms: Terms | None) -> None:
        """Go on from `state`; `terms` are None when the offer was not signed by this home."""
        self.world = world
        self.state = state
        self.told = told
        self.terms = terms
        self.changed = Signal()
        self.place = Workplace(world.home / "leases" / state.facts.channel[2:])
        self.inventory = Inventory(self.place)
        self.log = LogFile(self.place.log)
        self.active_at = self.heard_at = world.clock.monotonic()
        self.sandbox = Sandbox(self)
        self.uploading = anyio.Lock()
        self.streams = 0
        self._lock = anyio.Lock()
        self._closing = self._committing = False

    @property
    def channel(self) -> str:
        """The channel id."""
        return self.state.facts.channel

    @property
    def manifest(self) -> Manifest:
        """What to run.

        Raises:
            Conflict: none was sent yet.
        """
        if self.state.manifest is None:
            raise Conflict("the lease has no manifest yet", "send the manifest first")
        return Manifest.parse(self.state.manifest)

    @property
    def has_whole_log(self) -> bool:
        """Whether nothing will be added to the log."""
        return self.state.collected or self.state.is_over

    async def apply(self, event: Event) -> State:
        """Let `event` happen: durable, then told, then acted upon.

        Raises:
            Conflict, StaleVoucher: the agent refuses it; nothing changed.
            DiskFull: it could not be journaled; nothing changed.
        """
        async with self._lock:
            now = self.world.clock.now()
            state, effects = agent.step(self.state, event, now)
            kind, body = encode(event)
            await anyio.to_thread.run_sync(self.world.journal.append, self.channel, kind, body, now)
            reach(f"provider.journal.{kind}")
            moved = state.phase != self.state.phase
            self.state = state
            self.active_at = self.world.clock.monotonic()
            for effect in effects:
                self._perform(effect)
            self.sandbox.noticed(event)
            self.changed.notify()
        if moved:
            facts = {"lease": self.channel, "phase": state.phase, "reason": state.reason, "paid": str(state.paid)}
            self.world.announce("lease", facts)
        return state

    async def happen(self, event: Event) -> bool:
        """As `apply`, for what nobody asked for: too late is no error, and a full disk is waited for.

        Returns whether it happened.
        """
        warned = False
        while True:
            try:
                await self.apply(event)
            except Conflict:
                return False
            except DiskFull as error:
                if not warned:
                    self.world.announce("warning", error.as_dict()["error"])
                warned = True
                await self.world.clock.sleep(1.0)
            else:
                return True

    async def attempt(self, event: Event) -> bool:
        """As `happen`, for what will be seen again: a full disk is not waited for. Returns whether it happened."""
        try:
            await self.apply(event)
        except (Conflict, DiskFull):
            return False
        return True

    async def restart(self) -> None:
        """Do again what a restart may have cut off: inputs that had arrived, and the effects of the phase."""
        for name in self.state.missing:
            if await anyio.to_thread.run_sync(self._is_whole, name):
                with suppress(TenantError, DiskFull):
                    await self.blob_arrived(name)
        for effect in agent.resume(self.state):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        start = self.world.tasks.start_soon
        match effect:
            case Emit():
                self.told.append(effect)
            case ev.Launch():
                start(self.sandbox.run)
            case ev.Collect():
                start(self.sandbox.collect)
            case ev.Commit():
                start(self._commit)
            case ev.CloseLease():
                start(self._close, effect)
            case ev.Freeze() | ev.Thaw() | ev.Stop():
                self.sandbox.command(effect)

    async def events(self, after: int) -> AsyncIterator[Emit | None]:
        """Events with a number over `after`, as they come, until the lease is closed; None each 5 s of silence."""
        said = anyio.current_time()
        while True:
            for told in self.told[max(0, after) :]:
                after = told.number
                yield told
                said = anyio.current_time()
            if self.state.phase == "closed":
                return
            # What wakes us may be no event (a line of the log): silence is counted from what was said.
            with anyio.move_on_after(said + SILENCE_SECONDS - anyio.current_time()):
                await self.changed.wait()
                continue
            yield None
            said = anyio.current_time()

    async def _close(self, effect: ev.CloseLease) -> None:
        """Close on chain; tries until it is closed, by us or by anybody."""
        if self._closing:
            return
        self._closing = True
        market = Market(self.world.chain.spec.deployment.market)
        signature = from_hex(effect.signature) if effect.signature else b""
        pause, warned = 0.5, False
        while self.state.phase == "closing":
            lease = self.lease()
            call = market.close(lease, effect.cumulative, signature, int(effect.why))
            try:
                name = f"close/{self.channel}/{lease.opened_at}"
                receipt = await self.world.chain.send(name, call, self.world.key)
                reach("provider.close.sent")
                await self.happen(ev.Closed(receipt.transaction, ""))
                return
            except LeaseClosed as error:
                await self.happen(ev.Closed(None, error.fact))
                return
            except MingaError as error:
                if not warned:
                    await self.happen(ev.Warned(error.code, error.fact, error.remedy))
                    self.world.announce("warning", error.as_dict()["error"])
                warned = True
                # A lease that a reorg took back may return; `Provider` gives it up when it does not.
                if isinstance(error, ContractError) and not isinstance(error, UnknownLease):
                    pause = RETRY_SECONDS_MAX
            await self.world.clock.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)

    async def _commit(self) -> None:
        """Put the root over the trace on the chain; tries until it stands there, or cannot."""
        if self._committing:
            return
        self._committing = True
        pause, warned = 0.5, False
        while self.state.committing:
            try:
                await self.happen(await commit(self))
                return
            except MingaError as error:
                if not warned:
                    self.world.announce("warning", error.as_dict()["error"])
                warned = True
            await self.world.clock.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)

    def _is_whole(self, name: str) -> bool:
        blobs = self.place.blobs
        if not blobs.has(name) and blobs.offset(name) == self.bundle_bytes(name):
            try:
                blobs.finish(name)
                reach("provider.blob.finished")
            except (BadArtifact, NotFound):
                return False  # to be sent again
        return blobs.has(name)

    def lease(self) -> Lease:
        """The lease as Market's functions take it.

        A reorg may have opened it again in another block, so its time is the chain's, not the journal's.
        """
        facts = self.state.facts
        record = self.world.chain.view.leases.get(Hash32(facts.lease_id))
        return Lease(
            tenant=Address(facts.tenant),
            job=Hash32(facts.job),
            attempt=facts.attempt,
            signer=Address(facts.signer),
            provider=self.world.provider,
            machine=Hash32(facts.machine),
            offer=Hash32(facts.offer),
            price_per_hour=Amount(int(facts.price_per_hour)),
            units=facts.units,
            close_window=facts.close_window,
            arbiter=Address(facts.arbiter),
            hold_bps=facts.hold_bps,
            hold_seconds=facts.hold_seconds,
            opened_at=record.lease.opened_at if record else facts.opened_at,
        )

    def knows_blob(self, name: str) -> bool:
        """Whether `name` is a file of this lease's artifacts, or of a kept checkpoint."""
        return self.inventory.gives(self.state, name)

    def bundle_bytes(self, name: str) -> int:
        """Size of a blob that the tenant may send.

        Raises:
            NotFound: no input of this lease has that name.
        """
        return self.inventory.expected_bytes(self.manifest, name)

    def missing(self) -> list[str]:
        """Blobs that the tenant should send now; more may follow, once a checkpoint's manifest is here."""
        return self.inventory.missing(self.manifest, self.state.missing) if self.state.missing else []

    async def blob_arrived(self, name: str) -> None:
        """Take note of an input that is whole, or of the chunk that completes one.

        Raises:
            InvalidInput, TooLarge: a checkpoint's manifest that is none, or of more than was ordered.
        """
        inputs = self.state.missing
        for whole in await anyio.to_thread.run_sync(self.inventory.completed, self.manifest, inputs, name):
            await self.apply(ev.BlobStored(whole))

    async def borrow_blobs(self, manifest: Manifest) -> None:
        """Share what earlier leases of the same job left on this machine, so that it is not sent again."""
        facts = self.state.facts
        others = [
            other.place.blobs
            for other in self.world.leases.values()
            if other is not self and (other.state.facts.tenant, other.state.facts.job) == (facts.tenant, facts.job)
        ]
        if others:
            await anyio.to_thread.run_sync(self.inventory.borrow, manifest, others)


def load(world: World, channel: str, terms_of: Callable[[str], Terms | None]) -> LeaseRun | None:
    """The lease of a journal stream; None when its files were deleted long ago.

    Raises:
        InternalError: the journal is not one of this version.
    """
    records = world.journal.read(channel)
    state, told = agent.replay([(decode(record.kind, record.body), record.at) for record in records])
    if state.facts.channel != channel:
        raise InternalError(f"the journal of {channel[:18]} is another lease's")
    return None if state.forgotten else LeaseRun(world, state, told, terms_of(state.facts.offer))
