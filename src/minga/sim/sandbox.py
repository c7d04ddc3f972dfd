"""The hands of a simulated provider's agent: start or find a job's process, meter it, empty it, as
`minga.provider.sandbox` does.

Knows: the process and the lease's edge. Does not know: what may happen when; it tells the agent what it saw and does
what the agent says. Rule: everything here can be cut off at any line and begun again after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minga.provider import events as ev
from minga.provider.events import Event
from minga.provider.metering import Stopwatch, next_due
from minga.sim.work import Process, Work, done_in, name_of

if TYPE_CHECKING:
    from minga.sim.lease import LeaseRun

COLLECT_S = 0.5
TICK_S = 5.0


def taken(step: int, content: bytes) -> ev.CheckpointTaken:
    """The event of a checkpoint that holds `content`: one blob, which is its own manifest."""
    size = len(content)
    return ev.CheckpointTaken(step=step, manifest=name_of(content), manifest_bytes=size, bytes=size, files=1)


class Sandbox:
    """The agent's hands: starts or finds the job's process, meters it, empties it."""

    def __init__(self, lease: LeaseRun) -> None:
        """For `lease`; nothing is started."""
        self._lease = lease
        self._watch = Stopwatch(lease.state.working_s)
        self._paused_at = lease.node.monotonic()
        self._running = False
        self._taken = len(lease.state.checkpoints) and lease.state.checkpoint_count

    @property
    def process(self) -> Process | None:
        """The job's process, if there is one on this machine."""
        return self._lease.provider.processes.get(self._lease.channel)

    def noticed(self, event: Event) -> None:
        """Take note of an event that was just made durable."""
        if isinstance(event, ev.Started):
            self._watch.go(self._now())

    def command(self, effect: ev.Freeze | ev.Thaw | ev.Stop) -> None:
        """Freeze, thaw or stop, now."""
        process, state = self.process, self._lease.state
        if isinstance(effect, ev.Freeze):
            self._paused_at = self._now()
            self._watch.hold(self._paused_at, state.exhausted_at)
        elif isinstance(effect, ev.Thaw) and not effect.metered:
            self._watch.hold(self._now())
        if process is None:
            return
        match effect:
            case ev.Freeze() if state.phase == "paused":
                process.freeze()
            case ev.Thaw():
                process.thaw()
                if effect.metered and state.phase in ("running", "stopping"):
                    self._watch.go(self._now())
            case ev.Stop():
                process.stop(effect.grace_s)

    async def run(self) -> None:
        """Start the job, or find it again, and stay with it until it ends. At most once."""
        if self._running:
            return
        self._running = True
        lease, process = self._lease, self.process
        if process is None:
            if lease.state.phase != "starting":
                await self._lost()
                return
            await lease.node.kernel.sleep(lease.provider.prepare_s())
            process = self._launch()
        if process is None:
            return
        if lease.state.phase == "starting":
            await lease.happen(ev.Started())
        watchers = [lease.node.spawn(self._meter(process)), lease.node.spawn(self._follow_checkpoints(process))]
        while process.end is None:
            await process.changed.wait()
        self._watch.hold(self._now())
        for watcher in watchers:
            watcher.cancel()
        await self._take_checkpoints(process)
        limit, counted = lease.state.exhausted_at, self._watch.seconds(self._now())
        if limit is not None:
            counted = min(counted, max(limit, lease.state.working_s))
        await lease.happen(ev.Exited(process.end[0], process.end[1], "", counted))

    async def _lost(self) -> None:
        lease = self._lease
        if lease.state.phase in ("running", "paused"):
            await lease.happen(ev.Exited(137, "lost", "the sandbox is gone", lease.state.working_s))
        else:
            await lease.happen(ev.StartFailed("sandbox-failed", "the sandbox is gone", "", "provider"))

    def _launch(self) -> Process | None:
        lease = self._lease
        if lease.state.phase not in ("starting", "stopping"):
            return None
        manifest = lease.state.manifest or {}
        work: Work = lease.provider.works[manifest["job"]]
        restored = next((item["blake3"] for item in manifest["inputs"] if item["kind"] == "checkpoint"), None)
        base = done_in(lease.blobs.get(restored, b"{}"), work.job) if restored else 0
        process = lease.provider.make_process(lease, work, base)
        lease.provider.processes[lease.channel] = process
        if lease.state.phase == "stopping":
            process.stop(lease.state.grace_s)
        return process

    async def _meter(self, process: Process) -> None:
        lease = self._lease
        while process.end is None:
            state, pause = lease.state, TICK_S
            if state.phase == "paused":
                left = self._paused_at + state.dead_man_s - self._now()
                if left <= 0:
                    await lease.happen(ev.Overdue())
                pause = min(pause, max(left, 0.001))
            elif state.phase in ("running", "stopping") and self._watch.running:
                due = next_due(state.working_s, state.facts.quantum, state.exhausted_at)
                exact = self._watch.exact(self._now())
                if exact >= due:
                    limit = state.exhausted_at
                    counted = int(exact) if limit is None or limit <= state.working_s else min(int(exact), limit)
                    await lease.happen(ev.Metered(counted))
                    continue
                pause = max(due - exact, 0.001)
            await lease.changed.wait(pause)

    async def _follow_checkpoints(self, process: Process) -> None:
        while process.end is None:
            await self._take_checkpoints(process)
            await process.changed.wait()

    async def _take_checkpoints(self, process: Process) -> None:
        lease = self._lease
        while self._taken < len(process.checkpoints):
            content = process.checkpoints[-1]
            self._taken = len(process.checkpoints)
            lease.blobs[name_of(content)] = content
            await lease.happen(taken(done_in(content, process.work.job), content))

    async def collect(self) -> None:
        """Copy what the job left, tell the agent, free the sandbox."""
        lease, process = self._lease, self.process
        await lease.node.kernel.sleep(COLLECT_S)
        if process is None:
            await lease.happen(ev.Collected([], ["the sandbox is gone, and what it held"]))
            return
        content = process.content()
        lease.blobs[name_of(content)] = content
        entry = {"path": "result", "bytes": len(content), "blake3": name_of(content)}
        await lease.happen(ev.Collected([entry], []))

    def _now(self) -> float:
        return self._lease.node.monotonic()


__all__ = ["Sandbox", "taken"]
