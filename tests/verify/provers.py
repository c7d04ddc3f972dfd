"""Provers for tests: the real worker's answers on a clock that a model of a machine moves, honest or not.

A `Machine` says how long each challenge takes; a `Prover` answers it with real, exact answers (plain Python, tiny
sizes) and moves the clock. Hostile provers override one thing each.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minga.core.spec import Speed, UnitSize
from minga.protocol.wire import ProbeAnswer, ProbeRequest
from minga.verify import hardware as hw
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm
from minga.verify.hardware_survey import Survey
from minga.verify.hardware_worker import Worker

FAR = hw.Setting()
UNIT = UnitSize(cpu_milli=2000, memory_bytes=64 << 20, disk_bytes=64 << 20)


class ManualClock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        """Unix seconds."""
        return int(self.seconds)

    def monotonic(self) -> float:
        """Seconds."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


@dataclass
class Machine:
    """How fast a simulated machine is: rates per second, a walk's seconds, the way there and back.

    `noise()` is a factor ≥ 1 by which a challenge takes longer; `units` share all of it when they work at once.
    """

    mops: float = 40.0
    fill_mbps: float = 900.0
    disk_mbps: float = 300.0
    link_mbps: float = 50.0
    walk_s: float = 0.03
    trip_s: float = 0.002
    noise: Callable[[], float] = lambda: 1.0

    def seconds(self, request: ProbeRequest) -> float:
        """How long an honest answer takes."""
        amount = {
            "gemm": request.size * request.size * request.columns * request.links / 1e6 / self.mops,
            "fill": request.size * hm.CHUNK_BYTES / 1e6 / self.fill_mbps,
            "disk": 2 * request.size * hm.CHUNK_BYTES / 1e6 / self.disk_mbps,
            "link": request.size / 1e6 / self.link_mbps,
            "walk": self.walk_s,
        }.get(request.what, 0.0)
        return self.trip_s + amount * self.noise()


class Prover:
    """Honest. `ask` is what a `Survey` calls."""

    def __init__(self, machine: Machine, clock: ManualClock, folder: Path) -> None:
        self.machine = machine
        self.clock = clock
        self.worker = Worker(he.Plain(), folder)
        self.asked: list[ProbeRequest] = []
        self.cpu_s = 0.0

    async def ask(self, request: ProbeRequest) -> ProbeAnswer:
        """Answer, and let the time pass that it takes."""
        self.asked.append(request)
        self.clock.seconds += self.machine.seconds(request)
        return self.answered(request)

    def answered(self, request: ProbeRequest) -> ProbeAnswer:
        """The real answer."""
        if request.what == "end":
            return ProbeAnswer()
        seed = bytes.fromhex(request.seed[2:])
        if request.what == "link":
            return ProbeAnswer(data=base64.b64encode(hm.stream(seed, "link", request.size)).decode())
        found = self.worker.answer(request.what, seed, request.size, request.columns, request.links)
        found.pop("name", None)
        if "facts" in found:
            found["facts"] = {"cpu_us": int(self.cpu_s * 1e6)} if self.cpu_s else {}
        return ProbeAnswer(**found)


class Seeded:
    """Dice whose throws follow from a seed."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._thrown = 0

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._thrown += 1
        return hm.stream(f"{self._seed}/{self._thrown}".encode(), "dice", count)


def survey_of(prover: Prover, setting: hw.Setting = FAR, units: int = 1, seed: str = "tests") -> Survey:
    """A survey of this prover, on its clock."""
    return Survey(prover.ask, prover.clock, Seeded(seed), "start", UNIT, units, setting)


async def verdict_on(
    prover: Prover,
    promises: Speed,
    setting: hw.Setting = FAR,
    units: int = 1,
) -> hw.Verdict:
    """A whole start probe, judged."""
    survey = survey_of(prover, setting, units)
    await survey.open()
    if promises.gemm_mops:
        await survey.gemm(promises.gemm_mops, hw.ROUND_SECONDS)
    if promises.memory_mbps:
        await survey.memory(4, promises.memory_mbps)
    if promises.disk_mbps:
        await survey.disk(2, promises.disk_mbps)
    if promises.link_mbps:
        await survey.link(promises.link_mbps)
    await survey.check(promises)
    await survey.close()
    return hw.judge(promises, survey.rounds, setting, survey.wrong)
