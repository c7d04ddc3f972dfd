"""Hostile providers that cheat about the work: meters, checkpoints, results, phases. First lines are their stories.

What a tenant can see of it costs it a quantum at most; what it cannot see, a deadline or its own check must end.
"""

from __future__ import annotations

from typing import Any

from minga.core.errors import NotFound
from minga.provider import events as ev
from minga.provider.events import Emit
from minga.sim.lease import LeaseRun
from minga.sim.rogue import FOREVER_S, Rogue, altered
from minga.sim.work import Process, Work, content_of, name_of


class OverClaimer(Rogue):
    """Says that thrice the seconds were worked."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        return [altered(e, working_s=3 * e.data["working_s"]) if "working_s" in e.data else e for e in events]


class FutureClaimer(Rogue):
    """Claims seconds that are still to come."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        return [altered(e, working_s=e.data["working_s"] + 10**9) if "working_s" in e.data else e for e in events]


class Rewinder(Rogue):
    """Claims fewer seconds than before, then more, and so on."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        def swung(event: Emit) -> Emit:
            return altered(event, working_s=event.data["working_s"] // (1 + event.number % 3))

        return [swung(event) if event.kind == "meter" else event for event in events]


class Forger(Rogue):
    """Runs nothing, says that it works, and invents its checkpoints."""

    def make_process(self, run: LeaseRun, work: Work, base_s: int) -> Process:
        process = super().make_process(run, work, base_s)
        process.freeze()
        process.thaw = lambda: None  # type: ignore[method-assign]
        self.node.spawn(self._pretend(run, process))
        return process

    async def _pretend(self, run: LeaseRun, process: Process) -> None:
        done = process.base_s
        while process.end is None:
            await self.node.kernel.sleep(8.0)
            done += 8
            process.checkpoints.append(content_of(process.work.job, done, self.node.name))
            process.changed.notify()
            if done >= process.work.seconds:
                process._finish(0, "exited")


class BlindForger(Forger):
    """Does the same to tenants of whom some check their checkpoints and some do not."""


class StaleCheckpoints(Forger):
    """Runs nothing, and sends the checkpoint that it was given again and again."""

    async def _pretend(self, run: LeaseRun, process: Process) -> None:
        while process.end is None:
            await self.node.kernel.sleep(8.0)
            process.checkpoints.append(content_of(process.work.job, process.base_s))
            process.changed.notify()


class HalfUploads(Rogue):
    """Announces checkpoints and hands over the first half of their bytes."""

    async def blob(self, channel: str, token: str, name: str) -> bytes:
        content = await super().blob(channel, token, name)
        return content[: len(content) // 2]


class Withholder(Rogue):
    """Does the work, and never hands over the results."""

    async def artifacts(self, channel: str, token: str) -> list[dict[str, Any]]:
        self.authorised(channel, token)
        raise NotFound("the results are not here", "ask again")


class Swapper(Rogue):
    """Hands over other results than it announced."""

    async def artifacts(self, channel: str, token: str) -> list[dict[str, Any]]:
        return [{**entry, "blake3": name_of(b"other")} for entry in await super().artifacts(channel, token)]

    async def blob(self, channel: str, token: str, name: str) -> bytes:
        self.authorised(channel, token)
        return b"another thing"


class EternalStarter(Rogue):
    """Says `starting` for ever."""

    def prepare_s(self) -> float:
        return FOREVER_S


class Pauser(Rogue):
    """Pauses the job though it is paid, and says so for ever."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        process = self.processes.get(run.channel)
        if not run.state.paid or process is None:
            return events
        process.freeze()
        process.thaw = lambda: None  # type: ignore[method-assign]
        kept = [event for event in events if event.kind not in ("exit", "meter", "artifacts")]
        return [altered(event, phase="paused") if event.kind == "phase" else event for event in kept]


class Garbage(Rogue):
    """Tells events full of nonsense and huge numbers."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        dice = self.node.kernel.dice
        waste: tuple[Any, ...] = (None, -1, 2**70, "0", [], {}, True, "x" * 600, 2**53)
        return [
            event if dice.random() < 0.6 else altered(event, **{key: dice.choice(waste) for key in event.data})
            for event in events
        ]


class EventReplayer(Rogue):
    """Tells every event again, in another order, old numbers and all."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        again = [*run.told[: len(run.told) // 2], *events, *events]
        self.node.kernel.dice.shuffle(again)
        return again


class Renumberer(Rogue):
    """Tells old meter events under ever new numbers."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        meters = [event for event in run.told if event.kind == "meter"]
        last = events[-1].number if events else 0
        return [*events, *(Emit(last + 1 + i, m.at, "meter", m.data) for i, m in enumerate(meters[-3:]))]


class FalseExit(Rogue):
    """Says that the job is done as soon as it has begun, and invents the results."""

    def make_process(self, run: LeaseRun, work: Work, base_s: int) -> Process:
        process = super().make_process(run, work, base_s)
        self.node.kernel.after(2.0, lambda: process._finish(0, "exited") if process.end is None else None)
        return process


class Stopper(Rogue):
    """Stops the job again and again, and says that no voucher came."""

    def told(self, run: LeaseRun, events: list[Emit]) -> list[Emit]:
        if run.state.phase == "running" and run.state.paid and self.processes.get(run.channel):
            run.attempt(ev.StopAsked("provider", "no voucher", 0))
        return events


__all__ = [
    "BlindForger",
    "EternalStarter",
    "EventReplayer",
    "FalseExit",
    "Forger",
    "FutureClaimer",
    "Garbage",
    "HalfUploads",
    "OverClaimer",
    "Pauser",
    "Renumberer",
    "Rewinder",
    "StaleCheckpoints",
    "Stopper",
    "Swapper",
    "Withholder",
]
