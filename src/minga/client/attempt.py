"""One lease at its provider: log in, send, start, watch, pay, stop, gather, close. Effects of the job's machine.

Each method does one effect and returns the events that came of it; each may be cut off anywhere and done again. A
provider that is silent for the heartbeat window, answers nonsense or refuses becomes a `Lost` event with the reason.

Does not know: what the events lead to. Rule: a voucher is sent only as the effect says it, because the effect's
amount is in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.abc

from minga.client import points
from minga.client.bundle import pack
from minga.client.folder import JobFolder, NoRoomHere, beneath, distinct
from minga.client.order import CHECKPOINT, Order, manifest_of
from minga.client.provider_api import Connect, ProviderApi
from minga.client.wallet import id_of, session_signer
from minga.core.crypto import Address, Hash32, PrivateKey, from_hex, to_hex
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
from minga.core.spec import Bundle, Checkpoint, FileEntry
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_state import Lease
from minga.protocol.messages import Login, Voucher, sign
from minga.protocol.wire import Event, LoginRequest, OfferBundle, amount_of
from minga.store.blobs import BlobStore

HEARTBEAT_S = 15.0
RETRY_S = 0.1
COLLECT_S = 1800
AWAKE_GAP_S = 20

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
        self._base_s = lease.base_s
        self._running_since: float | None = means.clock.monotonic() if lease.elapsed_s else None
        self._login = anyio.Lock()
        self._fetching = anyio.Lock()
        self._log_full = False

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self.api.aclose()

    def elapsed_s(self) -> int:
        """Seconds that our own clock saw go by since the job was first seen running."""
        if self._running_since is None:
            return self._base_s
        return self._base_s + int(self.means.clock.monotonic() - self._running_since)

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
                return await what()
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
            job = Hash32(means.order.plan.job)
            now, nonce = means.clock.now(), Hash32(to_hex(means.dice.bytes(32)))
            message = Login(Hash32(self.channel), Address(self.deal.provider), now, nonce)
            await self.api.login(
                LoginRequest(
                    lease_id=id_of(means.wallet, job, self.number), offer_hash=self.deal.offer,
                    tenant=means.wallet.address, job=job, attempt=self.number, signer=self.signer.address,
                    issued_at=now, nonce=nonce, signature=to_hex(sign(message, means.domain, self.signer)),
                )
            )  # fmt: skip

    # ------------------------------------------------------------------------------------------ send and start

    async def send(self, checkpoint: tuple[int, int, int | None] | None) -> ev.Event:
        """Hand over the manifest and every input that the provider does not have."""
        await self.ask(self.api.status)
        points.reach("client.send.logged-in")
        restored = await anyio.to_thread.run_sync(self._pack_checkpoint, checkpoint)
        manifest = manifest_of(
            self.means.order, self.number, self.deal.units, self.bundle.terms, self._sealed(), restored
        )
        status = await self.ask(lambda: self.api.send_manifest(manifest))
        points.reach("client.send.manifest")
        known = {item.blake3 for item in manifest.inputs}
        for name in status.missing:
            if name not in known:
                raise BadAnswer("the provider asks for a blob that the job does not have", "choose another provider")
            await self.ask(partial(self.api.upload, name, self.means.blobs.path(name), _piece_sent))
        points.reach("client.send.inputs")
        return ev.Sent(self.number)

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

    def _pack_checkpoint(self, checkpoint: tuple[int, int, int | None] | None) -> Bundle | None:
        if checkpoint is None:
            return None
        source = self.means.folder.checkpoint_path(checkpoint[0], checkpoint[1])
        try:
            packed = pack(source, self.means.blobs, ignore=False)
        except DiskFull as error:
            raise NoRoomHere(error.fact, error.remedy) from error
        return Bundle(kind="checkpoint", target=CHECKPOINT, blake3=packed.blake3, bytes=packed.bytes)

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
            self._base_s = self.elapsed_s() + min(int(moved - passed), 2 * self.deal.quantum)
            self._running_since = clock.monotonic() if self._running_since is not None else None
            await self.means.emit(ev.Resumed(int(moved - passed)))
            return clock.monotonic(), clock.now()
        return (clock.monotonic(), clock.now()) if alive else (heard, calendar)

    async def _take(self, event: Event, tasks: anyio.abc.TaskGroup) -> None:
        points.reach("client.watch.event")
        data, number = event.data, event.number
        try:
            match event.kind:
                case "phase":
                    await self._phase(number, str(data["phase"]), str(data.get("reason") or "")[:500])
                case "meter":
                    claimed = _count(data["working_s"])
                    if claimed > self.elapsed_s() + 1:
                        self._warn(
                            "overclaim", f"it says {claimed} s of work, our clock allows {self.elapsed_s() + 1} s"
                        )
                    await self.means.emit(ev.Metered(self.number, number, claimed, self.elapsed_s()))
                case "progress":
                    self.means.tell("progress", {"attempt": self.number, **_progress(data)})
                case "checkpoint":
                    checkpoint = Checkpoint.parse(data)
                    await self.means.emit(ev.CheckpointSeen(self.number, number))
                    tasks.start_soon(self._fetch_checkpoint, number, checkpoint)
                case "exit":
                    code = data.get("exit_code")
                    code = None if code is None else _count(code) & 0xFFFF
                    reason, worked = str(data.get("reason") or "")[:500], _count(data["working_s"])
                    await self.means.emit(ev.Exited(self.number, number, code, reason, worked, self.elapsed_s()))
                case "warning":
                    self._warn(str(data.get("code"))[:100], str(data.get("fact"))[:500], str(data.get("remedy"))[:500])
                case "notice":
                    self._warn("notice", str(data.get("reason"))[:500])
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswer(f"a {event.kind} event of the provider is malformed: {error}"[:200]) from None

    async def _phase(self, number: int, phase: str, reason: str) -> None:
        if phase == "running" and self._running_since is None:
            self._running_since = self.means.clock.monotonic()
        await self.means.emit(ev.PhaseSeen(self.number, number, phase, reason))

    def _warn(self, code: str, fact: str, remedy: str = "") -> None:
        self.means.tell("warning", {"code": code, "fact": fact, "remedy": remedy, "attempt": self.number})

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
            points.reach("client.log.written")

    async def _fetch_checkpoint(self, number: int, checkpoint: Checkpoint) -> None:
        """Bring a checkpoint here; a newer one will do when this one cannot be had any more."""
        try:
            await self._checkpoint(number, checkpoint)
        except MingaError as error:
            self._warn(error.code, f"checkpoint {checkpoint.number} was not kept: {error.fact}", error.remedy)

    async def _checkpoint(self, number: int, checkpoint: Checkpoint) -> None:
        folder = self.means.folder
        if not folder.checkpoint_path(self.number, checkpoint.number).exists():
            scratch = folder.scratch(f"checkpoint-{self.number}-{checkpoint.number}")
            await self._fetch(checkpoint.files, scratch)
            points.reach("client.checkpoint.fetched")
            await anyio.to_thread.run_sync(folder.keep_checkpoint, scratch, self.number, checkpoint)
        points.reach("client.checkpoint.kept")
        size = sum(entry.bytes for entry in checkpoint.files)
        facts = {"number": checkpoint.number, "step": checkpoint.step, "bytes": size}
        self.means.tell("checkpoint", {"attempt": self.number, **facts})
        await self.means.emit(ev.CheckpointKept(self.number, number, checkpoint.number, checkpoint.step))

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

    async def gather(self, after: int) -> ev.Event:
        """Fetch what the job left: artifacts, the newest checkpoint, the rest of the log."""
        newest: tuple[int, Checkpoint] | None = None
        complete, until = False, self.means.clock.monotonic() + COLLECT_S
        while not complete:
            newest, complete = await self._until_artifacts(after, newest, until)
            if not complete and self.means.clock.monotonic() > until:
                raise ProviderUnreachable(f"it has not handed over the results in {COLLECT_S} s", "they are made again")
        files: list[FileEntry] = await self.ask(self.api.artifacts)
        scratch = self.means.folder.scratch(f"artifacts-{self.number}")
        await self._fetch(files, scratch)
        try:
            await anyio.to_thread.run_sync(self.means.folder.keep_artifacts, scratch, files)
        except DiskFull as error:
            raise NoRoomHere(error.fact, error.remedy) from error
        if newest is not None:
            await self._fetch_checkpoint(*newest)
        await self._rest_of_log()
        self.means.tell("artifacts", {"count": len(files), "bytes": sum(entry.bytes for entry in files)})
        points.reach("client.gather.done")
        return ev.Gathered(self.number)

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


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise ValueError(f"{value!r} is not a count")
    return value


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    """Step, total and text of a job's own progress line, bounded and typed."""
    found: dict[str, Any] = {}
    for name in ("step", "total"):
        value = data.get(name)
        found[name] = value if isinstance(value, int) and not isinstance(value, bool) else None
    found["text"] = str(data.get("text") or "")[:500]
    return found
