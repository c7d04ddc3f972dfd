"""One lease at a simulated provider: the edge around the real agent, as `minga.provider.lease` is.

Rule, as there: `apply` is the only door. It steps the agent, makes the event durable, and only then changes the state,
tells the tenant and starts the effects. The watcher of the world is told of every step and of every effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minga.core.errors import Conflict, ContractError, DiskFull, RpcUnavailable
from minga.provider import agent
from minga.provider import events as ev
from minga.provider.agent import State
from minga.provider.events import Effect, Emit, Event, decode, encode
from minga.sim.kernel import Signal
from minga.sim.sandbox import Sandbox

if TYPE_CHECKING:
    from minga.sim.provider import Provider

RETRY_S_MAX = 30.0


class LeaseRun:
    """A lease that this provider works on."""

    def __init__(self, provider: Provider, state: State, told: list[Emit], applied: int) -> None:
        """Go on from `state`, which `applied` events of the journal gave."""
        self.provider = provider
        self.node = provider.node
        self.state = state
        self.pending = state
        self.told = told
        self.applied = applied
        self.changed = Signal(self.node.kernel)
        self.active_at = self.node.monotonic()
        self.blobs: dict[str, bytes] = provider.blobs.setdefault(state.facts.channel, {})
        self.sandbox = Sandbox(self)
        self._closing = False

    @property
    def channel(self) -> str:
        """The channel id."""
        return self.state.facts.channel

    def apply(self, event: Event) -> State:
        """Let `event` happen: durable, then told, then acted upon. Raises Conflict, StaleVoucher, DiskFull."""
        now = self.node.now()
        state, effects = agent.step(self.state, event, now)
        self.pending = state
        self.journal(event, now)
        before, self.state = self.state, state
        self.applied += 1
        self.active_at = self.node.monotonic()
        self.provider.watch.provider_stepped(self, before, event)
        for effect in effects:
            self.perform(effect)
        self.sandbox.noticed(event)
        self.changed.notify()
        return state

    def journal(self, event: Event, now: int) -> None:
        """Make an event durable. Raises DiskFull: nothing was written."""
        kind, body = encode(event)
        self.node.journal.append(self.channel, kind, body, now)
        self.node.kernel.note(f"{self.node.name} {self.channel[2:8]} {kind} {self.applied}")

    async def happen(self, event: Event) -> bool:
        """As `apply`, for what nobody asked for: too late is no error, a full disk is waited for."""
        while True:
            try:
                self.apply(event)
            except Conflict:
                return False
            except DiskFull:
                await self.node.kernel.sleep(1.0)
            else:
                return True

    def attempt(self, event: Event) -> bool:
        """As `happen`, for what will be seen again."""
        try:
            self.apply(event)
        except (Conflict, DiskFull):
            return False
        return True

    def restart(self) -> None:
        """Do again what a restart may have cut off."""
        for name in self.state.missing:
            if name in self.blobs:
                self.attempt(ev.BlobStored(name))
        for effect in agent.resume(self.state):
            self.perform(effect)

    def perform(self, effect: Effect) -> None:
        """Do one effect of an event that is on the disk."""
        self.provider.watch.provider_acts(self, effect)
        match effect:
            case Emit():
                self.told.append(effect)
            case ev.Launch():
                self.node.spawn(self.sandbox.run())
            case ev.Collect():
                self.node.spawn(self.sandbox.collect())
            case ev.CloseLease():
                self.node.spawn(self.close(effect))
            case ev.Freeze() | ev.Thaw() | ev.Stop():
                self.sandbox.command(effect)

    async def close(self, effect: ev.CloseLease) -> None:
        """Close on chain; tries until it is closed, by us or by anybody."""
        if self._closing:
            return
        self._closing = True
        provider, pause, kernel = self.provider, 0.5, self.node.kernel
        signature = bytes.fromhex(effect.signature[2:]) if effect.signature else b""
        while self.state.phase == "closing":
            lease_id, opened_at = provider.placed(self)
            call = provider.close_call(lease_id, effect.cumulative, signature)
            try:
                sent = await provider.chain.send(self.node, f"close/{self.channel}/{opened_at}", call)
                await self.happen(ev.Closed(sent.effect, ""))
                return
            except ContractError as error:
                if error.fact == "market: lease closed":
                    await self.happen(ev.Closed(None, error.fact))
                    return
                self.node.transactions.pop(f"close/{self.channel}/{opened_at}", None)
                pause = RETRY_S_MAX
            except RpcUnavailable:
                pass
            await kernel.sleep(pause)
            pause = min(pause * 2, RETRY_S_MAX)


def load(provider: Provider, channel: str) -> LeaseRun | None:
    """The lease of a journal stream; None when not even its opening is whole."""
    records = provider.node.journal.read(channel)
    if not records:
        return None
    state, told = agent.replay([(decode(record.kind, record.body), record.at) for record in records])
    return None if state.forgotten else LeaseRun(provider, state, told, len(records))


__all__ = ["LeaseRun", "load"]
