"""The owner's own measurement: what may be promised of one unit, by the same worker and challenges that tenants use.

Knows: sessions and surveys. Does not know: terms, tenants. Rule: all units work at the same moment, because that is how
they are sold; and the promise leaves room for noise (`hardware.PROMISE_PERMILLE`).
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio

from minga.core.effects import Clock, Dice
from minga.core.errors import LimitNotEnforceable, MingaError, SandboxFailed
from minga.core.spec import Speed, UnitSize
from minga.provider.probe_session import Session
from minga.runtimes.runtime import Runtime
from minga.verify import hardware as hw
from minga.verify.hardware_survey import Survey

MEASURE_SECONDS = 10.0


async def measure(
    runtime: Runtime,
    unit: UnitSize,
    environment: Path,
    *,
    units: int,
    folder: Path,
    clock: Clock,
    dice: Dice,
    gpus: tuple[str, ...] = (),
) -> Speed:
    """What an owner may promise of one unit: 70 % of what `measured` gives, for the same arguments and errors."""
    found = await measured(runtime, unit, environment, units, folder, clock, dice, gpus)
    return hw.promise(found)


async def measured(
    runtime: Runtime,
    unit: UnitSize,
    environment: Path,
    units: int,
    folder: Path,
    clock: Clock,
    dice: Dice,
    gpus: tuple[str, ...] = (),
) -> Speed:
    """The least that any unit did while all were at work.

    Takes at most 10 s, usually two; what does not fit counts as 0. `link_mbps` is 0: an owner cannot measure the way to
    an unknown tenant, but may state one. A simulated runtime, whose tasks have no ports, gives 0 for everything.

    Args:
        runtime: the driver in which leases will run.
        unit: what is sold.
        environment: where the worker runs; see `probing.best_environment`.
        units: how many are sold; all are measured at the same moment.
        folder: for the worker's source; kept.
        clock: times everything.
        dice: seeds.
        gpus: CDI names of all devices that are sold; shared out to the units in order.

    Raises:
        SandboxFailed, LimitNotEnforceable, OutOfCapacity: a worker could not be started; a wrong answer of this
            machine's own is SandboxFailed too, and so is a unit with accelerators of which the worker sees none: what
            its CPUs do is not what is sold.
    """
    sessions = [
        Session(
            runtime, unit, 1, environment, folder, clock, dice, gpus=gpus[number * unit.gpus : (number + 1) * unit.gpus]
        )
        for number in range(units)
    ]
    try:
        with anyio.move_on_after(MEASURE_SECONDS):
            return await _measure_all(sessions, unit, clock, dice)
    except LimitNotEnforceable:
        if runtime.name == "fake":
            return Speed()
        raise
    finally:
        for session in sessions:
            await session.close()
    return Speed()


async def _measure_all(sessions: list[Session], unit: UnitSize, clock: Clock, dice: Dice) -> Speed:
    surveys = [Survey(session.ask, clock, dice, "start", unit, 1) for session in sessions]
    await _each([session.open for session in sessions])
    await _each([survey.open for survey in surveys])
    if unit.gpus and any(survey.facts.get("engine") != "torch" for survey in surveys):
        raise SandboxFailed("the probe sees no accelerator", "see that torch for CUDA or ROCm runs in the environment")
    found: dict[str, list[float]] = {}
    for name, explore in (("gemm_mops", explore_gemm), ("memory_mbps", explore_memory), ("disk_mbps", explore_disk)):
        await _each([partial(explore, survey) for survey in surveys])
        for survey in surveys:
            rates = [hw.rate(item, 0, survey.setting) for item in survey.rounds if item.quantity == name][-3:]
            # Alone the best round is the machine; beside others, the one in which they were at work too.
            found.setdefault(name, []).append(max(rates) if len(surveys) == 1 else statistics.median(rates))
    for survey in surveys:
        await survey.check(Speed())
        if survey.wrong:
            raise SandboxFailed(f"this machine computes wrongly: {survey.wrong}", "see that its memory is sound")
    return Speed(**{name: int(min(rates)) for name, rates in found.items()})


async def explore_gemm(survey: Survey) -> None:
    """Find the size that takes long enough, then three rounds of it."""
    mops = 100.0
    for _ in range(7):
        tried = await survey.gemm_round(*hw.gemm_shape(int(mops) + 1, hw.ROUND_SECONDS / 2, True))
        mops = max(mops, hw.rate(tried, 0, survey.setting))
        if tried.wall_s > hw.ROUND_SECONDS / 4:
            break
    for _ in range(3):
        await survey.gemm_round(*hw.gemm_shape(int(mops) + 1, hw.ROUND_SECONDS, True))


async def explore_memory(survey: Survey) -> None:
    """Fill a little, then three times what takes long enough."""
    await survey.memory(1, 0, tries=1)
    for _ in range(3):
        mbps = int(hw.rate(survey.rounds[-1], 0, survey.setting))
        await survey.memory(hw.fill_chunks(survey.size, 1, mbps, hw.FILL_SECONDS), 0, tries=1)


async def explore_disk(survey: Survey) -> None:
    """Write a little, then three times what takes long enough."""
    await survey.disk(1, 0, tries=1)
    for _ in range(3):
        mbps = int(hw.rate(survey.rounds[-1], 0, survey.setting))
        await survey.disk(hw.disk_chunks(survey.size, 1, mbps, hw.DISK_SECONDS), 0, tries=1)


async def _each(works: list[Callable[[], Awaitable[object]]]) -> None:
    failed: list[MingaError] = []

    async def guarded(work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except MingaError as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        for work in works:
            group.start_soon(guarded, work)
    if failed:
        raise failed[0]
