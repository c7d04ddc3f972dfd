"""One lease as its simulated tenant reaches it: what `minga.client.attempt` does, over the simulated wires.

Each method does one effect and returns the event that came of it; each may be cut off anywhere and done again. A
provider that is silent for the heartbeat window, answers nonsense or refuses becomes a `Lost` event. Rule: a voucher
is sent only as the effect says it, because the effect's amount is in the journal.
"""

from __future__ import annotations

from typing import cast

from minga.client.hearing import hear
from minga.core.checkpoint import Checkpoint
from minga.core.crypto import Hash32
from minga.core.errors import (
    BadAnswer,
    BadArtifact,
    Conflict,
    MingaError,
    ProviderUnreachable,
    StaleVoucher,
)
from minga.core.spec import Bundle, Manifest, UnitSize
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.messages import Voucher, sign
from minga.protocol.wire import Event
from minga.provider.events import Emit
from minga.sim.talk import HEARTBEAT_S, RETRY_S, Talk, count
from minga.sim.work import done_in, name_of

AWAKE_GAP_S = 20


class Attempt(Talk):
    """One attempt; see the module."""

    # ------------------------------------------------------------------------------------------------- send and start

    async def send(self) -> ev.Event:
        """Hand over the manifest, and the last checkpoint if the provider does not have it."""
        await self.ask("status")
        kept = self.runner.keeper.newest()
        inputs = []
        if kept is not None:
            self.runner.watch.checkpoint_sent(self.runner, kept)
            bundle = Bundle(kind="checkpoint", target="/job/checkpoint", blake3=name_of(kept), bytes=len(kept))
            inputs.append(bundle)
        size = UnitSize(cpu_milli=self.unit.cpu_milli, memory_bytes=1 << 28, disk_bytes=1 << 28)
        plan = self.runner.plan
        manifest = Manifest(
            job=plan.job, attempt=self.number, name="job", run="work", size=size, inputs=inputs, checkpoint=True
        )
        for name in await self.ask("set_manifest", manifest):
            if kept is None or name != name_of(kept):
                raise BadAnswer("the provider asks for a blob that the job does not have", "choose another provider")
            await self.ask("put_blob", name, kept)
        return ev.Sent(self.number)

    async def probe(self) -> ev.Event:
        """See that the machine is what was sold."""
        promised = self.speed.gemm_mops if self.speed else 0
        seen = count(await self.ask("probe"))
        if seen < promised * 7 // 10:
            return ev.Lost(self.number, "under-spec", f"{seen} of {promised} million multiply-adds a second")
        return ev.Probed(self.number)

    async def duty(self) -> ev.Event | None:
        """The same beside the running job, now and then."""
        while True:
            await self.node.kernel.sleep(60.0)
            event = await self.probe()
            if isinstance(event, ev.Lost):
                return event

    async def start(self) -> ev.Event:
        """Ask for the start; that it was asked before is no error."""
        try:
            await self.ask("start_job")
        except Conflict:
            phase, _ = await self.ask("status")
            if phase in ("opened", "ready"):
                raise
        return ev.Started(self.number)

    # ---------------------------------------------------------------------------------------------------------- money

    async def pay(self, cumulative: int) -> ev.Event:
        """Sign and send a voucher; returns once the provider has it on disk."""
        message = Voucher(Hash32(self.channel), Amount(cumulative))
        signature = sign(message, self.runner.chain.domain, self.signer)  # type: ignore[arg-type]
        self.runner.watch.voucher_signed(self.runner, self.number, cumulative)
        self.node.reach("client.pay.signed")
        try:
            held = await self.ask("take_voucher", cumulative, signature)
        except (StaleVoucher, Conflict):
            held = count((await self.ask("status"))[1])
            if held < cumulative:
                raise
        if count(held) < cumulative:
            raise BadAnswer(f"it was sent a voucher for {cumulative} and holds {held}", "choose another provider")
        self.runner.watch.voucher_acknowledged(self.runner, self.number, cumulative)
        self.node.reach("client.pay.acknowledged")
        return ev.Paid(self.number, Amount(cumulative))

    # ---------------------------------------------------------------------------------------------------------- watch

    async def watch(self, after: int) -> None:
        """Follow events until cancelled; a silence of the heartbeat window raises `ProviderUnreachable`."""
        heard, calendar = self.node.monotonic(), self.node.now()
        while True:
            try:
                told, over = await self.ask(
                    "events", after, patience_s=max(0.5, HEARTBEAT_S - (self.node.monotonic() - heard))
                )
                self.heard_at = self.node.monotonic()
                heard, calendar = self._check_calendar(heard, calendar)
                for event in told:
                    if event.number > after:
                        after = event.number
                        self._take(event)
                if not told:
                    await self.node.kernel.sleep(1.0 if over else 0.05)
            except ProviderUnreachable:
                before = heard
                heard, calendar = self._check_calendar(heard, calendar, alive=False)
                if heard == before and self.node.monotonic() - heard > HEARTBEAT_S:
                    raise
                await self.node.kernel.sleep(0.05)

    def _check_calendar(self, heard: float, calendar: int, alive: bool = True) -> tuple[float, int]:
        """Notice that this machine slept: the calendar went on and the monotonic clock did not."""
        now, clock = self.node.now(), self.node.monotonic()
        moved, passed = now - calendar, clock - heard
        if moved - passed > AWAKE_GAP_S:
            unseen = min(int(moved - passed), 2 * self.deal.quantum)
            self.clock.slept(int(moved - passed), 2 * self.deal.quantum)
            self.runner.watch.unseen(self.runner, self.number, unseen)
            self.runner.emit(ev.Resumed(int(moved - passed)))
            return clock, now
        return (clock, now) if alive else (heard, calendar)

    def _take(self, event: Emit) -> None:
        checkpoint = Checkpoint.parse(event.data) if event.kind == "checkpoint" else None
        heard, _ = hear(self.number, cast("Event", event), self.clock)
        if heard is not None:
            self.runner.emit(heard)
        if checkpoint is not None:
            self.runner.fetch(self._fetch(event.number, checkpoint.number, checkpoint.manifest))

    async def _fetch(self, number: int, index: int, name: str) -> None:
        """Bring a checkpoint here, verified, accepted and durable; a newer one will do if it cannot be had."""
        try:
            content = await self.ask("blob", name)
            if name_of(content) != name:
                raise BadArtifact("the checkpoint is not what was announced", "a newer one will do")
        except MingaError:
            return
        done = done_in(content, self.runner.plan.job)
        if self.runner.is_stale(content):
            return
        if not self.runner.accepts(content):
            self.runner.emit(ev.Lost(self.number, "bad-result", "the tenant's check rejected a checkpoint"))
            return
        self.runner.keeper.keep(self.number, index, content)
        self.node.reach("client.checkpoint.kept")
        self.runner.emit(ev.CheckpointKept(self.number, number, index, done))

    # ------------------------------------------------------------------------------------------------ stop and gather

    async def stop(self, reason: str, grace_s: int) -> None:
        """Ask for a stop; what comes of it is seen by `watch`."""
        await self.ask("stop", reason, grace_s)

    async def gather(self, after: int) -> ev.Event:
        """Fetch what the job left: the newest checkpoint, then the results, each verified."""
        until, newest = self.node.monotonic() + 1800, None
        while True:
            told, over = await self.ask("events", after)
            for event in told:
                after = max(after, event.number)
                if event.kind == "checkpoint":
                    newest = event
            if over or any(event.kind in ("artifacts", "closed") for event in told):
                break
            if self.node.monotonic() > until:
                raise ProviderUnreachable("it has not handed over the results in time", "they are made again")
            await self.node.kernel.sleep(RETRY_S)
        for entry in await self.ask("artifacts"):
            content = await self.ask("blob", entry["blake3"])
            if name_of(content) != entry["blake3"]:
                raise BadArtifact("a result is not what was announced", "the provider is at fault")
            self.runner.keeper.results[self.number] = content
        if newest is not None:
            checkpoint = Checkpoint.parse(newest.data)
            await self._fetch(newest.number, checkpoint.number, checkpoint.manifest)
        return ev.Gathered(self.number)

    async def ask_close(self) -> None:
        """Ask the provider to close on the chain with the best voucher that it holds."""
        await self.ask("close", patience_s=5.0)


__all__ = ["Attempt"]
