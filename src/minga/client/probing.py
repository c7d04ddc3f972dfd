"""Measures a provider before it is paid, and now and then while it is.

Knows: the terms' promise, the provider's API, the judge of `minga.verify`. Does not know: what follows from a verdict.
Rule: the tenant's own clock and dice; a verdict only from answers that were checked; a provider that does not answer
is unreachable, which is not a verdict.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import anyio

from minga.client.provider_api import ProviderApi
from minga.core.effects import Clock, Dice
from minga.core.errors import ProviderUnreachable, SandboxFailed
from minga.core.spec import Speed, Terms
from minga.transport.http import is_loopback
from minga.verify import hardware as hw
from minga.verify.hardware import Verdict
from minga.verify.hardware_joint import Joint
from minga.verify.hardware_survey import Kind, Survey

PROBE_SECONDS = 10.0
NEAR_FACTOR = 3
"""A crowded machine that is the tenant's own may take longer: it is no fault of a provider's on it."""
WINDOW = 5
WINDOW_LEAST = 3
DUTY_CPU_SECONDS = 60
DUTY_GPU_SECONDS = 600


def duty_seconds(terms: Terms) -> int:
    """How often a duty probe is due: starting torch on an accelerator costs seconds, starting numpy a tenth of one."""
    return DUTY_GPU_SECONDS if terms.unit.gpus else DUTY_CPU_SECONDS


def machine_idle() -> float:
    """CPU seconds that this machine's CPUs stood idle since it started."""
    import psutil

    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0.0))


@dataclass
class Window:
    """The rounds of the last duty probes of one attempt."""

    probes: deque[list[hw.Round]] = field(default_factory=lambda: deque(maxlen=WINDOW))


@dataclass(frozen=True)
class Target:
    """One lease of several that are probed at once."""

    api: ProviderApi
    terms: Terms
    units: int


class Prober:
    """Probes with this clock and these dice. `idle` is this machine's, for providers that are on it too."""

    def __init__(self, clock: Clock, dice: Dice, idle: Callable[[], float] = machine_idle) -> None:
        """See the class."""
        self._clock = clock
        self._dice = dice
        self._idle = idle

    async def start_probe(self, api: ProviderApi, terms: Terms, units: int) -> Verdict:
        """Measure everything that was promised of `units` units, in at most 10 s (30 on one's own machine).

        No promise, no request.

        Raises:
            ProviderUnreachable, BadAnswer and what the provider's refusal is: as any call; none is a verdict.
        """
        promises = hw.promised(terms, units)
        if promises == Speed():
            return Verdict(True)
        survey = self._survey(api, terms, units, "start")

        async def work() -> None:
            nonlocal promises
            await survey.open()
            if promises.gemm_mops:
                judged = await survey.gemm(promises.gemm_mops, hw.ROUND_SECONDS)
                promises = promises.model_copy(update={"gemm_mops": judged})
            if mbps := promises.memory_mbps:
                await survey.memory(hw.fill_chunks(terms.unit, units, mbps, hw.FILL_SECONDS), mbps)
            if mbps := promises.disk_mbps:
                await survey.disk(hw.disk_chunks(terms.unit, units, mbps, hw.DISK_SECONDS), mbps)
            if promises.link_mbps:
                await survey.link(promises.link_mbps)
            await survey.check(promises)
            await survey.close()

        await _bounded(work, survey.setting)
        return hw.judge(promises, survey.rounds, survey.setting, survey.wrong)

    async def duty_probe(self, api: ProviderApi, terms: Terms, units: int, window: Window) -> Verdict:
        """Measure compute for some tens of milliseconds beside the running job; judge by the last five probes.

        A wrong answer condemns at once; slowness only when three probes or more are in the window and the best round of
        all was too slow. Where an accelerator's memory is full of the job, nothing is measured and nothing judged.

        Raises:
            see `start_probe`.
        """
        promises = _compute_of(hw.promised(terms, units))
        if not promises.gemm_mops:
            return Verdict(True)
        survey = self._survey(api, terms, units, "duty")

        async def work() -> None:
            nonlocal promises
            await survey.open()
            judged = await survey.gemm(promises.gemm_mops, hw.DUTY_SECONDS, tries=2)
            promises = Speed(gemm_mops=judged)
            await survey.check(promises)
            await survey.close()

        try:
            await _bounded(work, survey.setting)
        except SandboxFailed as error:
            if not terms.unit.gpus:
                raise
            return Verdict(True, fact=f"not measured, the accelerators may be full: {error.fact}"[:300])
        if survey.rounds:
            window.probes.append(survey.rounds)
        rounds = [found for probe in window.probes for found in probe]
        verdict = hw.judge(promises, rounds, survey.setting, survey.wrong)
        if not verdict.ok and not survey.wrong and len(window.probes) < WINDOW_LEAST:
            return replace(verdict, ok=True, code="", fact="")
        return verdict

    async def joint_probe(self, targets: Sequence[Target]) -> Verdict:
        """Measure compute and memory of several leases at the same moment, and judge them as one.

        For whoever holds leases of all units that a provider says it has, such as a validator: a machine posing as
        several is found, whichever of them it serves first. Each lease is probed as at its start.

        Raises:
            see `start_probe`; of any of them.
        """
        promises = [hw.promised(target.terms, target.units) for target in targets]
        asked = [(target, speed) for target, speed in zip(targets, promises, strict=True) if speed != Speed()]
        if not asked:
            return Verdict(True)
        surveys = [self._survey(target.api, target.terms, target.units, "start") for target, _ in asked]
        joint, found = Joint(surveys, [speed for _, speed in asked]), list[Verdict]()

        async def work() -> None:
            found.append(await joint.run())

        await _bounded(work, joint.setting)
        return found[0]

    def _survey(self, api: ProviderApi, terms: Terms, units: int, kind: Kind) -> Survey:
        near = is_loopback(urlsplit(str(api.http.base_url)).hostname or "")
        setting = hw.Setting(near, beside_job=kind == "duty")
        cpus = (os.cpu_count() or 0) if near else 0
        return Survey(api.probe, self._clock, self._dice, kind, terms.unit, units, setting, self._idle, cpus)


def _compute_of(promises: Speed) -> Speed:
    """The promise of compute alone."""
    return Speed(gemm_mops=promises.gemm_mops)


async def _bounded(work: Callable[[], Awaitable[None]], setting: hw.Setting) -> None:
    seconds = PROBE_SECONDS * (NEAR_FACTOR if setting.near else 1)
    try:
        with anyio.fail_after(seconds):
            await work()
    except TimeoutError:
        fact = f"a probe did not end in {seconds:.0f} s"
        raise ProviderUnreachable(fact, "another provider is tried") from None
