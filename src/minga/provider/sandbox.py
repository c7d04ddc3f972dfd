"""The sandbox of one lease: starts or finds it, watches it, meters it, empties it.

Knows: the runtime's handle and the lease's files. Does not know: what may happen when; it tells the agent what it
saw and does what the agent says. Rule: everything here can be cut off at any line and begun again after a restart.

| watcher      | sees                                   | tells                            |
|--------------|----------------------------------------|----------------------------------|
| meter        | running seconds, unpaid pauses         | Metered, Overdue; beats          |
| started      | the launcher's marker after `setup`    | Started, or that it took too long |
| progress     | $MINGA_PROGRESS                        | Progressed                       |
| checkpoints  | $MINGA_CHECKPOINT_DIR                  | CheckpointTaken                  |
| gauge        | CPU time, GPU use                      | Metered, with the seconds        |
| log          | stdout and stderr                      | the log file                     |
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from minga.core.errors import Conflict, DiskFull, InternalError, MingaError, SandboxFailed, TenantError
from minga.provider import events as ev
from minga.provider.agent import ALIVE, PROVIDERS_FAULT
from minga.provider.checkpoints import CheckpointWatch
from minga.provider.collect import ProgressTail, collect_artifacts
from minga.provider.commitments import make_whole
from minga.provider.events import Event
from minga.provider.gauge import Gauge, Reading
from minga.provider.metering import Stopwatch, crosses, next_due
from minga.provider.points import reach
from minga.provider.prepare import SETUP_SECONDS, prepare, task_id
from minga.runtimes.egress import EgressProxy
from minga.runtimes.launcher import STARTED
from minga.runtimes.runtime import Exit, Handle

if TYPE_CHECKING:
    from minga.provider.lease import LeaseRun

TICK_SECONDS = 1.0
STARTED_POLL_SECONDS = 0.05
PROGRESS_SECONDS = 0.5
CHECKPOINT_SECONDS = 1.0
LOG_DRAIN_SECONDS = 10.0
Command = ev.Freeze | ev.Thaw | ev.Stop


class Sandbox:
    """Started at most once per process and lease; see the module."""

    def __init__(self, lease: LeaseRun) -> None:
        """For `lease`; nothing is started."""
        self._lease = lease
        self._world = lease.world
        self._watch = Stopwatch(lease.state.working_s)
        self._paused_at = lease.world.clock.monotonic()
        self._send, self._receive = anyio.create_memory_object_stream[Command](64)
        self._running = False
        self._log_whole = anyio.Event()
        self._last_progress: dict[str, object] | None = None
        self._checkpoints: CheckpointWatch | None = None
        self._gauge = Gauge(lease.world.clock, ())
        self.handle: Handle | None = None

    # ----------------------------------------------------------------------------------------- what the agent says

    def noticed(self, event: Event) -> None:
        """Take note of an event that was just made durable."""
        if isinstance(event, ev.Started):
            self._watch.go(self._now())

    def command(self, effect: Command) -> None:
        """Queue a freeze, thaw or stop; done in order once there is a sandbox. The meter stops at once."""
        if isinstance(effect, ev.Freeze):
            self._paused_at = self._now()
            self._watch.hold(self._paused_at, self._lease.state.exhausted_at)
        elif isinstance(effect, ev.Thaw) and not effect.metered:
            self._watch.hold(self._now())
        try:
            self._send.send_nowait(effect)
        except (anyio.WouldBlock, anyio.BrokenResourceError):
            pass  # 64 commands wait for a sandbox that is not there yet, or it is gone: the last stop stands anyway

    async def run(self) -> None:
        """Start the job, or find it again, and stay with it until it ends. At most once."""
        if self._running:
            return
        self._running = True
        try:
            async with AsyncExitStack() as stack:
                end = await self._attend(await self._enter(stack))
        except Exception as error:  # one lease's trouble, a defect of ours included, must not end the others
            await self._fail(error)
            return
        limit = self._lease.state.exhausted_at
        counted = self._watch.seconds(self._now())
        if limit is not None:
            counted = min(counted, max(limit, self._lease.state.working_s))
        await self._lease.happen(ev.Exited(end.code, end.reason, end.detail[:500], counted))

    async def _fail(self, error: Exception) -> None:
        known = error if isinstance(error, MingaError) else SandboxFailed(f"{type(error).__name__}: {error}"[:300])
        if self._lease.state.phase in ("running", "paused"):
            if self.handle is not None:
                await self.handle.kill()
            await self._lease.happen(ev.Exited(137, "lost", known.fact, self._lease.state.working_s))
            return
        blame = "tenant" if isinstance(error, TenantError) else "provider"
        await self._discard()
        await self._lease.happen(ev.StartFailed(known.code, known.fact, known.remedy, blame))

    async def collect(self) -> None:
        """Copy artifacts and the last checkpoint, tell the agent, free the sandbox."""
        try:
            await self._collect()
            await self._discard()
        except Exception as error:  # as in `run`
            fact = error.fact if isinstance(error, MingaError) else f"{type(error).__name__}: {error}"
            self._world.announce("warning", {"code": "not-collected", "fact": fact[:300], "remedy": ""})
            await self._lease.happen(ev.Collected([], [f"the results cannot be read: {fact}"[:300]]))

    async def _collect(self) -> None:
        lease = self._lease
        handle = self.handle or await self._world.runtime.adopt(task_id(lease.channel))
        if handle is None:
            await lease.happen(ev.Collected([], ["the sandbox is gone, and what it held"]))
            return
        self.handle = handle
        await self._copy_log(handle)
        manifest = lease.manifest
        if manifest.checkpoint:
            await self._take_checkpoint(handle)
        found = await collect_artifacts(handle, lease.place.blobs, manifest.outputs, manifest.size.disk_bytes)
        files = found.files
        if lease.state.order is not None:
            files = await anyio.to_thread.run_sync(make_whole, lease.place, files)
        reach("provider.collect.copied")
        await lease.happen(ev.Collected(files, found.warnings))

    # ------------------------------------------------------------------------------------------------------ starting

    async def _enter(self, stack: AsyncExitStack) -> Handle:
        lease, manifest = self._lease, self._lease.manifest
        egress = None
        if manifest.egress:
            # A folder of the agent's own; its path must be short enough for a socket.
            folder = self._world.home / "e"
            folder.mkdir(mode=0o700, exist_ok=True)
            egress = folder / task_id(lease.channel)[:16]
            await stack.enter_async_context(EgressProxy(egress, tuple(manifest.egress)))
        handle = await self._find()
        if handle is None:
            task = await anyio.to_thread.run_sync(
                prepare,
                lease.place,
                manifest,
                lease.channel,
                self._world.secret,
                self._world.environments[manifest.environment],
                lease.state.gpus,
                egress,
                self._world.runtime.enforces,
            )
            reach("provider.launch.prepared")
            handle = await self._world.runtime.start(task)
            reach("provider.launch.started")
        self.handle = handle
        return handle

    async def _find(self) -> Handle | None:
        """The sandbox of before a restart; one that never got as far as the job is removed, to be made anew."""
        handle = await self._world.runtime.adopt(task_id(self._lease.channel))
        if handle is None:
            if self._lease.state.phase != "starting":
                raise InternalError("the sandbox is gone", "the job must go on elsewhere")
            return None
        reach("provider.launch.adopted")
        if self._lease.state.phase == "starting":
            with anyio.move_on_after(0.5):
                end = await handle.wait()
                if end.reason in PROVIDERS_FAULT and not await self._has_started(handle):
                    await handle.remove()
                    return None
        return handle

    async def _attend(self, handle: Handle) -> Exit:
        lease = self._lease
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(self._obey, handle)
            self._gauge = Gauge(self._world.clock, lease.state.gpus)
            watchers.start_soon(self._gauge.follow, handle)
            watchers.start_soon(self._meter, handle)
            watchers.start_soon(self._copy_log, handle)
            watchers.start_soon(self._follow_progress, handle)
            if lease.state.phase == "starting":
                watchers.start_soon(self._await_start, handle)
            if lease.manifest.checkpoint:
                watchers.start_soon(self._follow_checkpoints, handle)
            end = await handle.wait()
            self._watch.hold(self._now())
            reach("provider.exit.seen")
            with anyio.move_on_after(LOG_DRAIN_SECONDS):
                await self._log_whole.wait()
            watchers.cancel_scope.cancel()
        if lease.state.phase == "starting" and await self._has_started(handle):
            await lease.happen(ev.Started())
            self._watch.hold(self._now())
        await self._tell_progress(ProgressTail(handle))
        return end

    async def _has_started(self, handle: Handle) -> bool:
        try:
            (await handle.open_output(STARTED)).close()
        except TenantError:
            return False
        return True

    async def _await_start(self, handle: Handle) -> None:
        if not self._lease.manifest.setup:
            await self._lease.happen(ev.Started())
            return
        patience = self._now() + SETUP_SECONDS
        while not await self._has_started(handle):
            if self._now() > patience:
                stop = ev.StopAsked("provider", f"the set-up took longer than {SETUP_SECONDS} s", 10)
                await self._lease.happen(stop)
                return
            await self._world.clock.sleep(STARTED_POLL_SECONDS)
        await self._lease.happen(ev.Started())

    # ------------------------------------------------------------------------------------------------------ watching

    async def _obey(self, handle: Handle) -> None:
        async for effect in self._receive:
            match effect:
                case ev.Freeze():
                    await self._freeze(handle)
                case ev.Thaw():
                    await handle.resume()
                    reach("provider.thaw.thawed")
                    if effect.metered and self._lease.state.phase in ("running", "stopping"):
                        self._watch.go(self._now())
                case ev.Stop(grace_s=0):
                    await handle.kill()
                case ev.Stop():
                    await handle.stop(effect.grace_s)
                    reach("provider.stop.sent")

    async def _freeze(self, handle: Handle) -> None:
        if self._lease.state.phase != "paused":
            return  # paid meanwhile
        try:
            await handle.pause()
        except MingaError as error:
            # It cannot be held, so it ends: nothing here works on unpaid.
            await self._lease.happen(ev.Warned(error.code, error.fact, error.remedy))
            await self._lease.happen(ev.Overdue())
        reach("provider.freeze.frozen")

    async def _meter(self, handle: Handle) -> None:
        while True:
            state = self._lease.state
            if state.phase in ALIVE:
                handle.beat()
            pause = TICK_SECONDS
            if state.phase == "paused" and self._now() - self._paused_at >= state.dead_man_s:
                await self._lease.happen(ev.Overdue())
            elif state.phase in ("running", "stopping") and self._watch.running:
                due = next_due(state.working_s, state.facts.quantum, state.exhausted_at)
                exact = self._watch.exact(self._now())
                if exact >= due:
                    limit = state.exhausted_at
                    counted = int(exact) if limit is None or limit <= state.working_s else min(int(exact), limit)
                    is_told = counted == limit or crosses(state.working_s, counted, state.facts.quantum)
                    used = self._gauge.read() if is_told else Reading()
                    await self._lease.happen(ev.Metered(counted, *used))
                    continue
                pause = min(pause, due - exact)
            await self._world.clock.sleep(max(pause, 0.001))

    async def _follow_progress(self, handle: Handle) -> None:
        tail = ProgressTail(handle)
        while True:
            await self._tell_progress(tail)
            await self._world.clock.sleep(PROGRESS_SECONDS)

    async def _tell_progress(self, tail: ProgressTail) -> None:
        found = await tail.latest()
        if found is not None and found != self._last_progress:
            self._last_progress = found
            await self._lease.happen(ev.Progressed(found))

    async def _follow_checkpoints(self, handle: Handle) -> None:
        while True:
            began = self._now()
            # While the tenant fetches one it is not replaced: a job that writes faster than its link would lose all.
            if not self._lease.inventory.is_fetched(began):
                await self._take_checkpoint(handle)
            # A large folder takes long to walk: never more than a twentieth of the time goes into looking.
            await self._world.clock.sleep(max(CHECKPOINT_SECONDS, 20 * (self._now() - began)))

    async def _take_checkpoint(self, handle: Handle) -> None:
        lease = self._lease
        if self._checkpoints is None:
            names = [item.blake3 for item in lease.manifest.inputs if item.kind == "checkpoint"]
            names += [kept["manifest"] for kept in lease.state.checkpoints]
            parent, bytes_max = names[-1] if names else None, lease.manifest.size.disk_bytes
            self._checkpoints = CheckpointWatch(handle, lease.place.blobs, bytes_max, parent)
        step = (self._last_progress or {}).get("step")
        try:
            taken = await self._checkpoints.take(step if isinstance(step, int) and step >= 0 else None)
        except MingaError as error:
            await lease.happen(ev.Warned(error.code, error.fact, error.remedy))
            return
        if taken is None:
            return
        reach("provider.checkpoint.copied")
        await lease.happen(ev.CheckpointTaken(**taken))
        await anyio.to_thread.run_sync(lease.inventory.sweep, lease.state)
        reach("provider.checkpoint.swept")

    async def _copy_log(self, handle: Handle) -> None:
        log = self._lease.log
        try:
            async for chunk in handle.follow_log(await anyio.to_thread.run_sync(log.stream_offset)):
                await anyio.to_thread.run_sync(log.append, chunk)
                self._lease.changed.notify()
        except (OSError, DiskFull) as error:
            await self._lease.happen(ev.Warned("disk-full", f"the log was cut off: {error}"[:200], ""))
        self._log_whole.set()

    # --------------------------------------------------------------------------------------------------------- after

    async def _discard(self) -> None:
        handle = self.handle or await self._world.runtime.adopt(task_id(self._lease.channel))
        if handle is not None:
            await handle.remove()
        reach("provider.collect.removed")
        self.handle = None
        await anyio.to_thread.run_sync(self._lease.place.clear_stage)

    def port(self, number: int) -> str:
        """The unix socket of a port of the running job.

        Raises:
            Conflict: the job does not run now.
            NotFound: it has no such port.
        """
        if self.handle is None or self._lease.state.phase not in ("starting", "running"):
            raise Conflict("the job does not run now", "wait until it is running")
        return str(self.handle.port_socket(number))

    def _now(self) -> float:
        return self._world.clock.monotonic()
