"""One lease at its provider: log in, send, start, watch, pay, stop, gather, close. Effects of the job's machine.

Each method does one effect and returns the events that came of it; each may be cut off anywhere and done again. A
provider that is silent for the heartbeat window, answers nonsense or refuses becomes a `Lost` event with the reason.

Does not know: what the events lead to. Rule: a voucher is sent only as the effect says it, because the effect's
amount is in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from minga.client import points
from minga.client.checkpoints import Accept, CheckpointRejected, Keeper, Source
from minga.client.folder import JobFolder, NoRoomHere, beneath, distinct
from minga.client.groups import first_of
from minga.client.hearing import hear, warning
from minga.client.login import login_request
from minga.client.order import Order, manifest_of
from minga.client.probing import Prober, Window, duty_seconds
from minga.client.provider_api import Connect, ProviderApi
from minga.client.wallet import session_signer
from minga.client.work_clock import WorkClock
from minga.core.checkpoint import Checkpoint
from minga.core.crypto import Hash32, PrivateKey, from_hex, to_hex
from minga.core.effects import Clock, Dice
from minga.core.eip712 import Domain
from minga.core.errors import (
    BadAnswer,
    Conflict,
    DiskFull,
    MingaError,
    NotFound,
    OutOfCapacity,
    ProviderUnreachable,
    RpcUnavailable,
    StaleVoucher,
    Unauthorized,
)
from minga.core.seal import seal
from minga.core.spec import FileEntry, Manifest
from minga.core.units import Amount
from minga.core.work import Trace, Work
from minga.protocol import job_events as ev
from minga.protocol.job_state import Lease
from minga.protocol.messages import Ordered, Voucher, sign
from minga.protocol.wire import Event, OfferBundle, WorkOrder, amount_of
from minga.store.blobs import BlobStore
from minga.verify.hardware import Verdict

HEARTBEAT_S = 15.0
RETRY_S = 0.1
COLLECT_S = 1800
AWAKE_GAP_S = 20
REFUSALS_MAX = 3
FAR = 2**31 - 1
"""An event number that no lease reaches."""

Judge = Callable[[list[FileEntry], Path], Awaitable[None]]
"""(files, the folder that holds them) → an error if these results are not to be paid."""

Emit = Callable[[ev.Event], Awaitable[None]]
Tell = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Means:
    """What every attempt of a job uses."""

    order: Order
    folder: JobFolder
    blobs: BlobStore
    wallet: PrivateKey
    domain: Domain
    connect: Connect
    clock: Clock
    dice: Dice
    emit: Emit
    tell: Tell
    keeper: Keeper
    accept: Accept | None = None
    court: Domain | None = None


class Attempt:
    """One lease, as its tenant reaches it."""

    def __init__(self, means: Means, lease: Lease) -> None:
        """Nothing is sent yet. `lease` is as the journal had it when this process took it up."""
        self.means = means
        self.number = lease.attempt
        self.deal = lease.deal
        self.channel = lease.channel
        self.bundle = OfferBundle.parse(lease.bundle)
        self.signer = session_signer(means.wallet, lease.attempt)
        self._http = means.connect(self.bundle.url, self.bundle.terms.tls_sha256)
        self.api = ProviderApi(self._http, lease.channel)
        self.work = WorkClock(means.clock, lease.elapsed_s, lease.base_s, lease.idle_s)
        self.heard_at = means.clock.monotonic()
        self._login = anyio.Lock()
        self._fetching = anyio.Lock()
        self._log_full = False
        self._prober = Prober(means.clock, means.dice)
        self._window = Window()
        self._duty_at: float | None = None

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self.api.aclose()

    def elapsed_s(self) -> int:
        """Seconds that our own clock saw go by since the job was first seen running."""
        return self.work.elapsed_s

    @property
    def silent_s(self) -> int:
        """Seconds since the provider last answered."""
        return int(self.means.clock.monotonic() - self.heard_at)

    # ------------------------------------------------------------------------------------------- talking at all

    async def ask(self, what: Callable[[], Awaitable[Any]], patience_s: float | None = None) -> Any:
        """The result of a request: logged in first, tried again while the provider is silent, up to `patience_s`
        (by default the heartbeat window).
        """
        clock = self.means.clock
        until = clock.monotonic() + (HEARTBEAT_S if patience_s is None else patience_s)
        while True:
            token = None
            try:
                if self.api.token is None:
                    await self._log_in()
                token = self.api.token
                answer = await what()
                self.heard_at = clock.monotonic()
                return answer
            except Unauthorized:
                if token is None or clock.monotonic() > until:
                    raise
                if self.api.token == token:  # else another request was refused, too, and has logged in since
                    self.api.token = None
            except (ProviderUnreachable, RpcUnavailable, OutOfCapacity, BadAnswer):
                if clock.monotonic() > until:
                    raise
            except Conflict as error:
                if not error.details.get("retry") or clock.monotonic() > until:
                    raise
            await clock.sleep(RETRY_S)

    async def _log_in(self) -> None:
        means = self.means
        async with self._login:
            if self.api.token is not None:
                return
            job = means.order.plan.job
            request = login_request(
                means.domain, means.wallet, job, self.number, self.channel, self.deal, means.clock, means.dice
            )
            await self.api.login(request)

    # ------------------------------------------------------------------------------------------ send and start

    async def send(self) -> ev.Event:
        """Hand over the manifest, every input that the provider does not have, and the newest checkpoint."""
        await self.ask(self.api.status)
        points.reach("client.send.logged-in")
        restore = await self.means.keeper.newest()
        manifest = manifest_of(
            self.means.order, self.number, self.deal.units, self.bundle.terms, self._sealed(),
            restore.bundle if restore else None,
        )  # fmt: skip
        status = await self.ask(lambda: self.api.send_manifest(manifest))
        points.reach("client.send.manifest")
        await self._send_order(manifest)
        inputs = {item["blake3"] for item in self.means.order.inputs}
        restored = {restore.bundle.blake3, *restore.manifest.sizes()} if restore else set()
        for name in status.missing:
            if name in inputs:
                await self.ask(partial(self.api.upload, name, self.means.blobs.path(name), _piece_sent))
            elif name not in restored:
                raise BadAnswer("the provider asks for a blob that the job does not have", "choose another provider")
        if restore is not None:
            await self.means.keeper.send(restore, self._source(), status.missing)
        points.reach("client.send.inputs")
        return ev.Sent(self.number)

    async def _send_order(self, manifest: Manifest) -> None:
        """Sign which work this lease pays for, if it is to be verified."""
        verify, court = self.means.order.verify, self.means.court
        if verify is None or court is None:
            return
        trace = Trace.parse(verify["trace"])
        work = Work.of(manifest, trace).hash32()
        signature = to_hex(sign(Ordered(Hash32(self.channel), work), court, self.signer))
        order = WorkOrder(work=work, trace=trace, mode=verify["mode"], signature=signature)
        await self.ask(lambda: self.api.send_order(order))
        points.reach("client.send.order")

    def _source(self) -> Source:
        return Source(self.api, self.ask)

    def _sealed(self) -> str:
        """The secrets, sealed to the provider's key for this lease alone. Sealed once: a manifest must not change."""
        path = f"sealed.{self.number}.json"
        try:
            return str(self.means.folder.load_private(path)["sealed"])
        except NotFound:
            pass
        try:
            secrets = self.means.folder.load_private("secrets.json")
        except NotFound:
            return ""
        info = b"minga secrets" + from_hex(self.channel)
        plain = json.dumps(secrets, sort_keys=True, separators=(",", ":")).encode()
        sealed = seal(plain, self.bundle.terms.transport_key, info).hex()
        self.means.folder.save_private(path, {"sealed": sealed})
        return sealed

    async def probe(self) -> ev.Event:
        """Have the machine show what was sold, at no cost."""
        terms, units = self.bundle.terms, self.deal.units
        verdict = await self.ask(lambda: self._prober.start_probe(self.api, terms, units))
        self._tell_verdict("start", verdict)
        points.reach("client.probe.judged")
        return ev.Probed(self.number, verdict.fact) if verdict.ok else ev.Lost(self.number, verdict.code, verdict.fact)

    async def duty(self) -> ev.Event:
        """Probe now and then beside the job; returns once the machine is not what was sold any more."""
        clock, terms, refused = self.means.clock, self.bundle.terms, 0
        while True:
            if self._duty_at is None:
                self._duty_at = clock.monotonic() + duty_seconds(terms)
            await clock.sleep(max(0.0, self._duty_at - clock.monotonic()))
            self._duty_at = None
            try:
                verdict = await self._prober.duty_probe(self.api, terms, self.deal.units, self._window)
            except MingaError as error:  # silence and a lost token are `watch`'s; refusing to be measured is not
                refused += not isinstance(error, ProviderUnreachable | Unauthorized)
                if refused >= REFUSALS_MAX:
                    return ev.Lost(self.number, "under-spec", f"it refuses to be measured: {error.fact}"[:500])
                continue
            refused = 0
            self._tell_verdict("duty", verdict)
            if not verdict.ok:
                return ev.Lost(self.number, verdict.code, verdict.fact)

    def _tell_verdict(self, kind: str, verdict: Verdict) -> None:
        facts = {"kind": kind, "ok": verdict.ok, "fact": verdict.fact, "shares": dict(verdict.shares)}
        self.means.tell("probe", {"attempt": self.number, **facts})

    async def start(self) -> ev.Event:
        """Ask for the start; that it was asked before is no error."""
        try:
            await self.ask(self.api.start)
        except Conflict:
            status = await self.ask(self.api.status)
            if status.phase in ("opened", "ready"):
                raise
        points.reach("client.start.asked")
        return ev.Started(self.number)

    # --------------------------------------------------------------------------------------------------- money

    async def pay(self, cumulative: int) -> ev.Event:
        """Sign and send a voucher; returns once the provider has it on disk."""
        message = Voucher(Hash32(self.channel), Amount(cumulative))
        signature = to_hex(sign(message, self.means.domain, self.signer))
        points.reach("client.pay.signed")
        try:
            held = await self.ask(lambda: self.api.pay(cumulative, signature))
        except (StaleVoucher, Conflict):
            # An earlier run was acknowledged and then cut off, or the lease is closing with what it holds.
            held = amount_of((await self.ask(self.api.status)).paid)
            if held < cumulative:
                raise
        if held < cumulative:
            raise BadAnswer(f"it was sent a voucher for {cumulative} and holds {held}", "choose another provider")
        points.reach("client.pay.acknowledged")
        return ev.Paid(self.number, Amount(cumulative))

    # --------------------------------------------------------------------------------------------------- watch

    async def watch(self, after: int) -> None:
        """Follow events and log until cancelled; a silence of the heartbeat window raises `ProviderUnreachable`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_log)
            await self._follow_events(after, tasks)
            tasks.cancel_scope.cancel()

    async def _follow_events(self, after: int, tasks: anyio.abc.TaskGroup) -> None:
        clock = self.means.clock
        heard, calendar = clock.monotonic(), clock.now()
        while True:
            try:
                silent_s = clock.monotonic() - heard
                await self.ask(self.api.status, max(0.5, HEARTBEAT_S - silent_s))
                async for event in self.api.events(after):
                    self.heard_at = clock.monotonic()
                    heard, calendar = await self._check_calendar(heard, calendar)
                    if event is not None:
                        after = max(after, event.number)
                        await self._take(event, tasks)
                if clock.monotonic() - heard > HEARTBEAT_S:
                    raise ProviderUnreachable("it answers and tells no events", "the job goes on elsewhere")
            except ProviderUnreachable:
                before = heard
                heard, calendar = await self._check_calendar(heard, calendar, alive=False)
                if heard == before and clock.monotonic() - heard > HEARTBEAT_S:
                    raise
            await clock.sleep(RETRY_S)

    async def _check_calendar(self, heard: float, calendar: int, alive: bool = True) -> tuple[float, int]:
        """Notice that this machine slept: the calendar went on and the monotonic clock did not."""
        clock = self.means.clock
        moved, passed = clock.now() - calendar, clock.monotonic() - heard
        if moved - passed > AWAKE_GAP_S:
            self.work.slept(int(moved - passed), 2 * self.deal.quantum)
            await self.means.emit(ev.Resumed(int(moved - passed)))
            return clock.monotonic(), clock.now()
        return (clock.monotonic(), clock.now()) if alive else (heard, calendar)

    async def _take(self, event: Event, tasks: anyio.abc.TaskGroup) -> None:
        points.reach("client.watch.event")
        checkpoint = Checkpoint.parse(event.data) if event.kind == "checkpoint" else None
        heard, told = hear(self.number, event, self.work)
        for kind, data in told:
            self.means.tell(kind, data)
        if heard is not None:
            await self.means.emit(heard)
        if checkpoint is not None:
            tasks.start_soon(self._fetch_checkpoint, event.number, checkpoint)

    def _warn(self, code: str, fact: str, remedy: str = "") -> None:
        self.means.tell(*warning(self.number, code, fact, remedy))

    async def _follow_log(self) -> None:
        while not self._log_full:
            try:
                await self.ask(lambda: self._copy_log(follow=True))
                return
            except (MingaError, OSError):
                await self.means.clock.sleep(RETRY_S)

    async def _copy_log(self, follow: bool) -> None:
        folder = self.means.folder
        async for data in self.api.logs(folder.log_offset(self.number), follow):
            if not folder.log_append(self.number, data):
                self._log_full = True
                self._warn("log-cut", "the log is over its limit here; the rest is not kept")
                return
            self.work.moved()
            points.reach("client.log.written")

    async def _fetch_checkpoint(self, number: int, checkpoint: Checkpoint) -> None:
        """Make a checkpoint count; a newer one will do when this one cannot be had any more."""
        try:
            await self._checkpoint(number, checkpoint)
        except CheckpointRejected as error:
            await self.means.emit(ev.Lost(self.number, "bad-result", error.fact))
        except MingaError as error:
            self._warn(error.code, f"checkpoint {checkpoint.number} was not kept: {error.fact}", error.remedy)

    async def _checkpoint(self, number: int, checkpoint: Checkpoint) -> None:
        kept = await self.means.keeper.keep(self._source(), self.number, checkpoint, self.means.accept)
        if kept is None:
            return
        facts = {"number": kept.number, "step": kept.step, "bytes": kept.bytes, "fetched": kept.fetched_bytes}
        self.means.tell("checkpoint", {"attempt": self.number, **facts})
        await self.means.emit(ev.CheckpointKept(self.number, number, kept.number, kept.step, kept.bytes))

    async def _fetch(self, files: list[FileEntry], target: Any) -> None:
        """Every file, verified, at its checked place beneath `target`."""
        parts = self.means.folder.scratch("parts")
        for entry in distinct(files):
            path = beneath(target, entry.path)
            async with self._fetching:  # two checkpoints may hold the same file, whose part has one name
                if not path.exists():
                    await self.ask(partial(self.api.download, entry, path, parts))
            points.reach("client.gather.file")

    # ------------------------------------------------------------------------------------------- stop and gather

    async def stop(self, reason: str, grace_s: int) -> None:
        """Ask for a stop; what comes of it is seen by `watch`."""
        await self.ask(lambda: self.api.stop(reason, grace_s))
        points.reach("client.stop.asked")

    async def gather(self, after: int, judge: Judge | None = None) -> ev.Event:
        """Fetch what the job left: artifacts, the newest checkpoint, the rest of the log.

        `judge` may refuse the results, by an error, before they count as the job's.
        """
        newest: tuple[int, Checkpoint] | None = None
        complete, until = False, self.means.clock.monotonic() + COLLECT_S
        while not complete:
            newest, complete = await self._until_artifacts(after, newest, until)
            if not complete and self.means.clock.monotonic() > until:
                raise ProviderUnreachable(f"it has not handed over the results in {COLLECT_S} s", "they are made again")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._stay)
                await self._bring(newest, judge)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        points.reach("client.gather.done")
        return ev.Gathered(self.number)

    async def _stay(self) -> None:
        """Hold the line: a provider that was reclaimed closes soon after nobody listens."""
        with suppress(MingaError):
            async for _ in self.api.events(FAR):
                continue

    async def _bring(self, newest: tuple[int, Checkpoint] | None, judge: Judge | None) -> None:
        files: list[FileEntry] = await self.ask(self.api.artifacts)
        scratch = self.means.folder.scratch(f"artifacts-{self.number}")
        await self._fetch(files, scratch)
        if judge is not None:
            await judge(files, scratch)
        try:
            await anyio.to_thread.run_sync(self.means.folder.keep_artifacts, scratch, files)
        except DiskFull as error:
            raise NoRoomHere(error.fact, error.remedy) from error
        if newest is not None:
            await self._fetch_checkpoint(*newest)
        await self._rest_of_log()
        self.means.tell("artifacts", {"count": len(files), "bytes": sum(entry.bytes for entry in files)})

    async def _until_artifacts(
        self, after: int, newest: tuple[int, Checkpoint] | None, until: float
    ) -> tuple[tuple[int, Checkpoint] | None, bool]:
        """Read events up to the one that says that the results are ready, or to a sign of life after `until`."""
        await self.ask(self.api.status)
        try:
            async for event in self.api.events(after):
                if event is None:
                    if self.means.clock.monotonic() > until:
                        break
                elif event.kind == "checkpoint":
                    newest = (event.number, Checkpoint.parse(event.data))
                elif event.kind == "warning":
                    self._warn(str(event.data.get("code"))[:100], str(event.data.get("fact"))[:500])
                elif event.kind in ("artifacts", "closed"):
                    return newest, True
        except ProviderUnreachable:
            pass
        await self.means.clock.sleep(RETRY_S)
        status = await self.ask(self.api.status)
        return newest, status.phase in ("exited", "failed", "closing", "closed")

    async def _rest_of_log(self) -> None:
        if self._log_full:
            return
        try:
            await self.ask(lambda: self._copy_log(follow=False))
        except MingaError as error:
            self._warn(error.code, f"the end of the log was not kept: {error.fact}")

    async def ask_close(self) -> None:
        """Ask the provider to close on the chain with the best voucher that it holds."""
        await self.ask(self.api.close, patience_s=5.0)
        points.reach("client.close.asked")


def _piece_sent() -> None:
    points.reach("client.send.piece")
