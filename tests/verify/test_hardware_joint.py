"""All units of a provider at the same moment: who really has them passes, one machine posing as several does not."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest
from provers import FAR, UNIT, Machine, ManualClock, Prover, Seeded

from minga.core.errors import SandboxFailed
from minga.core.spec import Speed
from minga.protocol.wire import ProbeAnswer, ProbeRequest
from minga.verify import hardware as hw
from minga.verify import hardware_engines as he
from minga.verify.hardware_joint import Joint
from minga.verify.hardware_survey import Survey
from minga.verify.hardware_worker import Worker

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
PROMISED = Speed(gemm_mops=28, memory_mbps=630)
SETTLE = 30
"""Turns of the event loop after which every task that can go on has done so: none waits for anything but the clock."""


class Host:
    """One machine that answers several sessions at once, on a clock that moves when all of them wait.

    `in_turn`: it serves one challenge after the other instead of sharing itself out evenly.
    """

    def __init__(self, clock: ManualClock, in_turn: bool = False) -> None:
        self.clock = clock
        self.in_turn = in_turn
        self.working: dict[anyio.Event, float] = {}
        self._throw = random.Random(5)

    async def work(self, seconds: float) -> None:
        """Take as long as `seconds` of the whole machine do, whatever else it does."""
        done = anyio.Event()
        self.working[done] = seconds
        while not done.is_set():
            for _ in range(SETTLE):
                await anyio.lowlevel.checkpoint()
            if not done.is_set() and next(iter(self.working)) is done:
                self._move()

    def _move(self) -> None:
        if self.in_turn:
            event = self._throw.choice(list(self.working))
            self.clock.seconds += self.working.pop(event)
            event.set()
            return
        least = min(self.working.values())
        self.clock.seconds += least * len(self.working)
        for event in list(self.working):
            self.working[event] -= least
            if self.working[event] <= 1e-12:
                del self.working[event]
                event.set()


class Unit(Prover):
    """One unit of a host."""

    def __init__(self, host: Host, folder: Path, machine: Machine | None = None) -> None:
        super().__init__(machine or Machine(), host.clock, folder)
        self.host = host
        self.worker = Worker(he.Numpy(1), folder)

    async def ask(self, request: ProbeRequest) -> ProbeAnswer:
        """Answer when the host has done the work."""
        self.asked.append(request)
        await self.host.work(self.machine.seconds(request))
        return self.answered(request)


def joint_of(units: list[Unit], promised: Speed = PROMISED, setting: hw.Setting = FAR) -> Joint:
    """A joint probe of these units."""
    surveys = [
        Survey(unit.ask, unit.clock, Seeded(f"unit {place}"), "start", UNIT, 1, setting)
        for place, unit in enumerate(units)
    ]
    return Joint(surveys, [promised] * len(units))


class Apart(Host):
    """As many machines as there are units: each does its own work, at the same time."""

    def _move(self) -> None:
        least = min(self.working.values())
        self.clock.seconds += least
        for event in list(self.working):
            self.working[event] -= least
            if self.working[event] <= 1e-12:
                del self.working[event]
                event.set()


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_units_that_are_there_pass_together(tmp_path: Path, count: int) -> None:
    host = Apart(ManualClock())
    verdict = await joint_of([Unit(host, tmp_path) for _ in range(count)]).run()
    assert verdict.ok, verdict.fact
    assert verdict.measured.gemm_mops == pytest.approx(40 * count, rel=0.15)
    assert set(verdict.shares) == {"gemm_mops", "memory_mbps"}


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("count", [2, 3])
async def test_one_machine_posing_as_several_is_refused(tmp_path: Path, in_turn: bool, count: int) -> None:
    """Sharing itself out, or serving one at full speed and then the other, first this one and next time that one."""
    host = Host(ManualClock(), in_turn)
    units = [Unit(host, tmp_path) for _ in range(count)]
    verdict = await joint_of(units, Speed(gemm_mops=28)).run()
    assert not verdict.ok
    assert verdict.fact.startswith("gemm_mops")
    assert verdict.shares["gemm_mops"] == pytest.approx(1000 / 0.7 / count, rel=0.1)


async def test_each_of_them_alone_would_have_passed(tmp_path: Path) -> None:
    """What the joint probe is for: probed one after the other, the same machine is each of its units."""
    host = Host(ManualClock(), in_turn=True)
    for _ in range(2):
        assert (await joint_of([Unit(host, tmp_path)], Speed(gemm_mops=28)).run()).ok


async def test_alternating_wins_single_rounds_and_loses_the_joint_one(tmp_path: Path) -> None:
    """In turn, each unit had some round at full speed, so that judging each by its own best would pass both."""
    host = Host(ManualClock(), in_turn=True)
    joint = joint_of([Unit(host, tmp_path) for _ in range(2)], Speed(gemm_mops=28))
    seen: list[list[hw.Round]] = [[], []]
    for rounds, survey in zip(seen, joint.surveys, strict=True):
        keep = survey.speak_for
        survey.speak_for = lambda found, rounds=rounds, survey=survey, keep=keep: (  # type: ignore[method-assign]
            rounds.extend(survey.rounds), keep(found),
        )[1]  # fmt: skip
    assert not (await joint.run()).ok
    assert all(hw.is_enough(rounds, "gemm_mops", 28, FAR) for rounds in seen)


async def test_noise_of_many_honest_units_raises_no_alarm(tmp_path: Path) -> None:
    for seed in range(10):
        throw = random.Random(seed)
        host = Apart(ManualClock())
        machine = Machine(noise=lambda throw=throw: 1 + throw.expovariate(4))
        verdict = await joint_of([Unit(host, tmp_path, machine) for _ in range(3)], Speed(gemm_mops=28)).run()
        assert verdict.ok, (seed, verdict.fact)


async def test_memory_that_is_filled_twice_over_is_not_there_when_all_walk(tmp_path: Path) -> None:
    """Two units on memory for one: the filling of the second drops the first, whose walk must compute its words."""

    class Sharing(Unit):
        last: list[Unit] = []

        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what == "fill":
                self.last[:] = [self]
            return super().answered(request)

        async def ask(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what == "walk" and self.last != [self]:
                self.clock.seconds += hw.WALK_STEPS * 1e-4
            return await super().ask(request)

    host = Apart(ManualClock())
    memory = Speed(memory_mbps=630)
    verdict = await joint_of([Sharing(host, tmp_path) for _ in range(2)], memory).run()
    assert not verdict.ok
    assert "not all there" in verdict.fact
    assert (await joint_of([Sharing(Apart(ManualClock()), tmp_path)], memory).run()).ok


async def test_every_fill_comes_before_any_walk(tmp_path: Path) -> None:
    host = Apart(ManualClock())
    order: list[str] = []

    class Told(Unit):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            order.append(request.what)
            return super().answered(request)

    assert (await joint_of([Told(host, tmp_path) for _ in range(3)], Speed(memory_mbps=630)).run()).ok
    assert max(i for i, what in enumerate(order) if what == "fill") < order.index("walk")


@pytest.mark.parametrize("liar", [0, 1])
async def test_one_wrong_answer_condemns_all_of_them(tmp_path: Path, liar: int) -> None:
    class Liar(Unit):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            lie = {"seed": "0x" + "66" * 32} if request.what == "gemm" else {}
            return super().answered(request.model_copy(update=lie))

    host = Apart(ManualClock())
    units = [(Liar if place == liar else Unit)(host, tmp_path) for place in range(2)]
    verdict = await joint_of(units).run()
    assert (verdict.ok, verdict.code) == (False, "under-spec")
    assert "compute challenge is wrong" in verdict.fact


async def test_a_unit_that_cannot_answer_fails_the_probe_and_judges_nobody(tmp_path: Path) -> None:
    class Broken(Unit):
        async def ask(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what == "gemm":
                raise SandboxFailed("the probe's worker did not answer", "begin another")
            return await super().ask(request)

    host = Apart(ManualClock())
    with pytest.raises(SandboxFailed):
        await joint_of([Unit(host, tmp_path), Broken(host, tmp_path)]).run()


def test_a_joint_round_is_all_the_work_until_the_last_answer() -> None:
    parts = [hw.Round("gemm_mops", 10.0, 1.0, 0.1, 0.5, 2, 1.0), hw.Round("gemm_mops", 30.0, 2.0, 0.3, 0.7, 1, 0.5)]
    assert hw.joined(parts, 2.5) == hw.Round("gemm_mops", 40.0, 2.5, 0.3, 1.2, 3, 0.5)
    silent = hw.joined([parts[0], hw.Round("gemm_mops", 1.0, 1.0)], 1.0)
    assert silent.cpu_s == 0.0, "CPU time counts only when all of them tell it"
