"""The prober: what it asks, when it asks nothing, what a window of duty probes says, and what is no verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "verify"))

from provers import UNIT, Machine, ManualClock, Prover, Seeded

from minga.client import probing
from minga.client.probing import Prober, Target, Window, duty_seconds, machine_idle
from minga.client.provider_api import ProviderApi
from minga.core.errors import Conflict, ProviderUnreachable, SandboxFailed
from minga.core.spec import Speed, Terms
from minga.protocol.wire import ProbeAnswer, ProbeRequest

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
FAR_URL, NEAR_URL = "https://provider.example", "http://127.0.0.1:7000"
PROMISED = Speed(gemm_mops=28, memory_mbps=630, disk_mbps=210, link_mbps=35)


class Api(ProviderApi):
    """A provider's API whose probes a simulated machine answers."""

    def __init__(self, prover: Prover, url: str = FAR_URL) -> None:
        super().__init__(httpx.AsyncClient(base_url=url), "0x" + "11" * 32)
        self.prover = prover

    async def probe(self, request: ProbeRequest) -> ProbeAnswer:
        """Answer by the prover."""
        return await self.prover.ask(request)


def terms(speed: Speed | None = PROMISED, gpus: int = 0) -> Terms:
    """Terms that promise this speed."""
    unit = UNIT.model_copy(update={"gpus": gpus})
    return Terms(transport_key="00" * 32, unit=unit, sandbox="process", speed=speed)


def scene(folder: Path, machine: Machine | None = None, url: str = FAR_URL, idle: Any = None) -> tuple[Prober, Api]:
    """A prober, and a provider on its clock."""
    clock = ManualClock()
    prover = Prover(machine or Machine(), clock, folder)
    return Prober(clock, Seeded("prober"), idle or (lambda: 0.0)), Api(prover, url)


@pytest.mark.parametrize("speed", [None, Speed()])
async def test_no_promise_means_no_request(tmp_path: Path, speed: Speed | None) -> None:
    prober, api = scene(tmp_path)
    assert (await prober.start_probe(api, terms(speed), 1)).ok
    assert (await prober.duty_probe(api, terms(speed), 1, Window())).ok
    assert api.prover.asked == []


async def test_an_honest_provider_passes_and_its_figures_come_back(tmp_path: Path) -> None:
    prober, api = scene(tmp_path)
    verdict = await prober.start_probe(api, terms(), 1)
    assert verdict.ok, verdict.fact
    assert verdict.measured.gemm_mops == pytest.approx(40, rel=0.1)
    assert {request.kind for request in api.prover.asked} == {"start"}


@pytest.mark.parametrize("quantity", list(Speed.model_fields))
async def test_only_what_is_promised_is_asked_for(tmp_path: Path, quantity: str) -> None:
    prober, api = scene(tmp_path)
    verdict = await prober.start_probe(api, terms(Speed(**{quantity: getattr(PROMISED, quantity)})), 1)
    assert verdict.ok, verdict.fact
    assert set(verdict.shares) == {quantity}


async def test_an_under_spec_provider_is_refused_with_the_code_of_the_job(tmp_path: Path) -> None:
    prober, api = scene(tmp_path, Machine(mops=12))
    verdict = await prober.start_probe(api, terms(), 1)
    assert (verdict.ok, verdict.code) == (False, "under-spec")


async def test_two_units_must_do_twice_as_much(tmp_path: Path) -> None:
    prober, api = scene(tmp_path)
    assert not (await prober.start_probe(api, terms(), 2)).ok
    prober, api = scene(tmp_path, Machine(mops=80, fill_mbps=1800, disk_mbps=600, link_mbps=100))
    assert (await prober.start_probe(api, terms(), 2)).ok


async def test_several_leases_are_probed_at_once_and_judged_as_one(tmp_path: Path) -> None:
    """Both on one simulated machine whose clock they share: it answers one after the other."""
    clock = ManualClock()
    prober = Prober(clock, Seeded("joint"), lambda: 0.0)
    one = terms(Speed(gemm_mops=28))

    def targets(mops: float) -> list[Target]:
        return [Target(Api(Prover(Machine(mops=mops), clock, tmp_path)), one, 1) for _ in range(2)]

    verdict = await prober.joint_probe(targets(40))
    assert (verdict.ok, verdict.code) == (False, "under-spec")
    assert (await prober.joint_probe(targets(80))).ok, "fast enough for both, one after the other"


async def test_leases_without_a_promise_are_not_asked(tmp_path: Path) -> None:
    clock = ManualClock()
    prober, apis = Prober(clock, Seeded("joint"), lambda: 0.0), [Api(Prover(Machine(), clock, tmp_path)) for _ in "ab"]
    assert (await prober.joint_probe([Target(apis[0], terms(None), 1)])).ok
    assert (await prober.joint_probe([])).ok
    both = [Target(apis[0], terms(None), 1), Target(apis[1], terms(Speed(gemm_mops=28)), 1)]
    assert (await prober.joint_probe(both)).ok
    assert apis[0].prover.asked == []
    assert apis[1].prover.asked


# ---------------------------------------------------------------------------------------------------------------- duty


async def test_slowness_is_a_verdict_only_over_three_probes(tmp_path: Path) -> None:
    prober, api = scene(tmp_path, Machine(mops=40 * 0.3 * 0.5))
    window = Window()
    found = [(await prober.duty_probe(api, terms(), 1, window)).ok for _ in range(4)]
    assert found == [True, True, False, False]


async def test_one_good_probe_of_five_keeps_a_provider(tmp_path: Path) -> None:
    prober, api = scene(tmp_path)
    window = Window()
    await prober.duty_probe(api, terms(), 1, window)
    api.prover.machine = Machine(mops=4)
    found = [(await prober.duty_probe(api, terms(), 1, window)).ok for _ in range(5)]
    assert found == [True, True, True, True, False], "the good one left the window with the fifth bad one"


async def test_beside_a_busy_job_half_of_the_machine_is_no_fault(tmp_path: Path) -> None:
    prober, api = scene(tmp_path, Machine(mops=20))
    window = Window()
    assert all([(await prober.duty_probe(api, terms(), 1, window)).ok for _ in range(6)])


async def test_a_wrong_answer_condemns_at_once(tmp_path: Path) -> None:
    class Liar(Prover):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            return super().answered(
                request.model_copy(update={"seed": "0x" + "66" * 32}) if request.what == "gemm" else request
            )

    prober, api = scene(tmp_path)
    api.prover = Liar(Machine(), api.prover.clock, tmp_path)
    verdict = await prober.duty_probe(api, terms(), 1, Window())
    assert (verdict.ok, verdict.code) == (False, "under-spec")


async def test_duty_asks_for_little_and_for_compute_alone(tmp_path: Path) -> None:
    prober, api = scene(tmp_path)
    await prober.duty_probe(api, terms(), 1, Window())
    asked = api.prover.asked
    assert {request.what for request in asked} == {"ready", "gemm", "open", "end"}
    work = sum(request.size**2 * request.columns * request.links for request in asked if request.what == "gemm") / 1e6
    assert work / 40 < 0.005 * duty_seconds(terms()), "under half a percent of a minute, for one round"


async def test_three_honest_providers_on_one_machine_are_kept(tmp_path: Path) -> None:
    """Each gets a quarter of both CPUs beside three busy jobs: nothing is idle, and their CPU seconds do full work."""

    class Crowded(Prover):
        async def ask(self, request: ProbeRequest) -> ProbeAnswer:
            work = self.machine.seconds(request) - self.machine.trip_s
            self.cpu_s = 2 * work
            self.clock.seconds += 3 * work
            return await super().ask(request)

    for seed in range(3):
        clock = ManualClock()
        prober = Prober(clock, Seeded(f"crowd {seed}"), lambda: 0.0)
        api = Api(Crowded(Machine(), clock, tmp_path), NEAR_URL)
        assert (await prober.start_probe(api, terms(Speed(gemm_mops=28)), 1)).ok
        window = Window()
        assert all([(await prober.duty_probe(api, terms(), 1, window)).ok for _ in range(5)])
        far = Api(Crowded(Machine(), clock, tmp_path), FAR_URL)
        assert not (await prober.start_probe(far, terms(Speed(gemm_mops=28)), 1)).ok, "elsewhere that is overselling"


async def test_a_quota_on_the_tenants_own_machine_is_found_because_cpus_stood_idle(tmp_path: Path) -> None:
    prober, api = scene(tmp_path, Machine(mops=12), NEAR_URL)
    prober._idle = lambda: api.prover.clock.seconds * 1.4
    api.prover.cpu_s = 0.05
    assert not (await prober.start_probe(api, terms(Speed(gemm_mops=28)), 1)).ok


# ------------------------------------------------------------------------------------------------------------ the rest


async def test_a_refusal_of_the_provider_is_not_a_verdict(tmp_path: Path) -> None:
    class Refuses(Prover):
        async def ask(self, request: ProbeRequest) -> ProbeAnswer:
            raise Conflict("no duty probe while the lease is exited", "ask in another phase")

    prober, api = scene(tmp_path)
    api.prover = Refuses(Machine(), api.prover.clock, tmp_path)
    with pytest.raises(Conflict):
        await prober.start_probe(api, terms(), 1)


@pytest.mark.parametrize("gpus", [0, 1])
async def test_an_accelerator_that_is_full_of_the_job_is_not_judged(tmp_path: Path, gpus: int) -> None:
    class Full(Prover):
        async def ask(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what == "gemm":
                raise SandboxFailed("the probe's worker could not: out of memory", "ask for less")
            return await super().ask(request)

    prober, api = scene(tmp_path)
    api.prover = Full(Machine(), api.prover.clock, tmp_path)
    if gpus:
        verdict = await prober.duty_probe(api, terms(gpus=1), 1, Window())
        assert verdict.ok
        assert "out of memory" in verdict.fact
    else:
        with pytest.raises(SandboxFailed):
            await prober.duty_probe(api, terms(), 1, Window())


async def test_a_probe_that_does_not_end_is_an_unreachable_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anyio

    class Silent(Prover):
        async def ask(self, request: ProbeRequest) -> ProbeAnswer:
            await anyio.sleep_forever()
            raise AssertionError

    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.05)
    prober, api = scene(tmp_path)
    api.prover = Silent(Machine(), api.prover.clock, tmp_path)
    with pytest.raises(ProviderUnreachable, match="did not end"):
        await prober.start_probe(api, terms(), 1)


def test_accelerators_are_probed_less_often() -> None:
    assert duty_seconds(terms()) == 60
    assert duty_seconds(terms(gpus=1)) == 600


def test_this_machines_idle_time_never_goes_back() -> None:
    first = machine_idle()
    assert 0 < first <= machine_idle()
