"""Lets tenants measure what they were sold: one sandbox of its own per probe, with the lease's limits.

Knows: the runtime, the worker of `minga.verify`, how long a probe may last. Does not know: what an answer is worth;
the tenant judges. Rule: a probe is free, so it is bounded: sessions a minute, seconds a session, bytes a request; and
it gets what the lease gets, no more.

| phase of the lease      | kind of probe | what it may ask                                   |
|-------------------------|---------------|---------------------------------------------------|
| opened, ready, starting | start         | everything                                        |
| running, paused         | duty          | compute alone, with at most 1 GiB of memory, and   |
|                         |               | 4 GiB more where the unit has accelerators         |
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from minga.core.errors import Conflict, InvalidInput, OutOfCapacity
from minga.core.spec import UnitSize
from minga.protocol.wire import ProbeAnswer, ProbeRequest
from minga.provider.measuring import measure
from minga.provider.probe_session import Session, sweep
from minga.verify import hardware_math as hm

if TYPE_CHECKING:
    from minga.provider.lease import LeaseRun, World

SESSIONS_PER_MINUTE = 6
REQUESTS_PER_SESSION = 400
SESSION_SECONDS = 40.0
DUTY_MEMORY_BYTES = 1 << 30
DUTY_ACCELERATOR_BYTES = 4 << 30
"""What torch and the contexts of its devices take of the host's memory besides."""
SIDE_MAX = 16384
_START = ("opened", "ready", "starting")
_DUTY = ("running", "paused")
_PREFERRED = ("ai", "python")

__all__ = ["Station", "best_environment", "measure", "sweep"]


def best_environment(environments: Mapping[str, Path]) -> Path:
    """The environment in which probes run: the one for AI jobs if there is one, since it has numpy and torch."""
    name = next((name for name in _PREFERRED if name in environments), None) or min(environments)
    return environments[name]


class Station:
    """The probes of all leases of one provider. Leases do not wait for each other; a lease has one session at most."""

    def __init__(self, world: World, environment: Path, gpus: tuple[str, ...] = ()) -> None:
        """Run workers in `environment`; `gpus` are the CDI names of all devices that are sold."""
        self._world = world
        self._environment = environment
        self._gpus = gpus
        self._sessions: dict[str, Session] = {}
        self._opened: dict[str, list[float]] = {}

    async def answer(self, run: LeaseRun, request: ProbeRequest) -> ProbeAnswer:
        """Answer one challenge.

        Raises:
            Conflict: not in this phase, or there is no session.
            OutOfCapacity: too many sessions or requests; `details["retry"]` is true.
            InvalidInput: a size that was not sold.
            SandboxFailed: the worker could not be started, or answered nonsense.
        """
        phases = _START if request.kind == "start" else _DUTY
        if run.state.phase not in phases:
            raise Conflict(f"no {request.kind} probe while the lease is {run.state.phase}", "ask in another phase")
        if request.what == "link":
            return self._link(request)
        session = self._sessions.get(run.channel)
        if request.what == "end":
            await self._end(run.channel)
            return ProbeAnswer()
        if session is None or session.is_over:
            if request.what != "ready":
                raise Conflict("there is no probe going on", "begin with ready")
            session = await self._open(run, request)
        if session.requests >= REQUESTS_PER_SESSION:
            raise OutOfCapacity("the probe asks too much", "begin another", retry=True)
        self._check(request, _size_of(run), run.state.facts.units)
        return await session.ask(request)

    async def close(self) -> None:
        """End every session."""
        for channel in list(self._sessions):
            await self._end(channel)

    def _link(self, request: ProbeRequest) -> ProbeAnswer:
        if request.size > 3 << 20:
            raise InvalidInput(f"{request.size} bytes at once", "ask for at most 3 MiB")
        data = hm.stream(bytes.fromhex(request.seed[2:]), "link", request.size)
        return ProbeAnswer(data=base64.b64encode(data).decode(), bytes=len(data))

    def _check(self, request: ProbeRequest, unit: UnitSize, units: int) -> None:
        if request.kind == "duty" and request.what not in ("ready", "gemm", "open"):
            raise InvalidInput(f"no {request.what} beside a running job", "measure compute alone")
        most = {
            "gemm": SIDE_MAX,
            "fill": unit.memory_bytes * units // 2 // hm.CHUNK_BYTES,
            "disk": unit.disk_bytes * units // 4 // hm.CHUNK_BYTES,
            "walk": 1 << 20,
        }
        if request.size > max(1, most.get(request.what, 2**31)) or request.columns > SIDE_MAX:
            raise InvalidInput(f"{request.what} of {request.size} is more than was sold", "ask for less")

    async def _open(self, run: LeaseRun, request: ProbeRequest) -> Session:
        now = self._world.clock.monotonic()
        recent = [at for at in self._opened.get(run.channel, []) if now - at < 60]
        if len(recent) >= SESSIONS_PER_MINUTE:
            raise OutOfCapacity("too many probes in a minute", "try again in a minute", retry=True)
        self._opened = {run.channel: [*recent, now]} | {
            channel: times for channel, times in self._opened.items() if channel != run.channel and now - times[-1] < 60
        }
        await self._end(run.channel)
        unit, units = _size_of(run), run.state.facts.units
        memory = unit.memory_bytes * units
        session = Session(
            self._world.runtime,
            unit,
            units,
            self._environment,
            self._world.home / "probe",
            self._world.clock,
            self._world.dice,
            gpus=self._free_gpus(run, unit.gpus * units),
            memory=memory if request.kind == "start" else min(memory, _duty_memory(unit)),
        )
        self._sessions[run.channel] = session  # before the start: a second request must find it
        await session.open()
        self._world.tasks.start_soon(self._end_late, run.channel, session)
        return session

    async def _end_late(self, channel: str, session: Session) -> None:
        await self._world.clock.sleep(SESSION_SECONDS)
        if self._sessions.get(channel) is session:
            await self._end(channel)

    async def _end(self, channel: str) -> None:
        session = self._sessions.pop(channel, None)
        if session is not None:
            await session.close()

    def _free_gpus(self, run: LeaseRun, count: int) -> tuple[str, ...]:
        if run.state.gpus or not count:
            return tuple(run.state.gpus)
        used = {name for other in self._world.leases.values() if not other.state.collected for name in other.state.gpus}
        free = [name for name in self._gpus if name not in used]
        if len(free) < count:
            raise OutOfCapacity(f"{count} GPUs were sold, {len(free)} are free", "try another provider")
        return tuple(free[:count])


def _duty_memory(unit: UnitSize) -> int:
    return DUTY_MEMORY_BYTES + (DUTY_ACCELERATOR_BYTES if unit.gpus else 0)


def _size_of(run: LeaseRun) -> UnitSize:
    if run.terms is None:
        raise Conflict("the lease's offer was not signed by this provider's present home", "open another lease")
    return run.terms.unit
