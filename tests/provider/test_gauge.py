"""What a job uses: CPU time of a real one, and how busy its GPUs are by a stand-in for NVIDIA's library."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tenants import FastClock, Market0, Tenant, needs_sandbox, running

from minga.provider.gauge import Gauge, Reading
from minga.runtimes.gpu_busy import busy_percent
from minga.runtimes.runtime import Usage

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
GPU = "nvidia.com/gpu="


class Nvml:
    """Answers as the library does, from a table of device → per cent."""

    class NVMLError(Exception):
        """No such device."""

    def __init__(self, busy: dict[int | str, int]) -> None:
        self.busy = busy

    def nvmlInit(self) -> None:
        """Nothing to do."""

    def _handle(self, device: int | str) -> int | str:
        if device not in self.busy:
            raise self.NVMLError
        return device

    nvmlDeviceGetHandleByIndex = nvmlDeviceGetHandleByUUID = _handle

    def nvmlDeviceGetUtilizationRates(self, handle: int | str) -> SimpleNamespace:
        """The table's."""
        return SimpleNamespace(gpu=self.busy[handle], memory=99)


@pytest.mark.parametrize(
    ("devices", "busy"),
    [
        ((), None),
        ((f"{GPU}0",), 40),
        ((f"{GPU}0", f"{GPU}GPU-77"), 60),
        ((f"{GPU}5",), None),
        ((f"{GPU}0", f"{GPU}5"), None),
        (("amd.com/gpu=0",), None),
        ((f"{GPU}0", "amd.com/gpu=0"), None),
    ],
)
def test_gpus_are_asked_by_number_or_uuid_and_what_does_not_answer_is_not_known(
    devices: tuple[str, ...], busy: int | None, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml({0: 40, "GPU-77": 80}))
    assert busy_percent(devices) == busy


class Job:
    """A handle that has used so much."""

    def __init__(self) -> None:
        self.cpu_usec = 0

    async def usage(self) -> Usage:
        """What was set."""
        return Usage(cpu_usec=self.cpu_usec)


async def test_a_reading_has_the_mean_since_the_last_one(monkeypatch):
    table: dict[int | str, int] = {0: 10}
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(table))
    gauge, job = Gauge(FastClock(), (f"{GPU}0",)), Job()
    handle: Any = job
    assert gauge.read() == Reading(None, None)
    for cpu_usec, busy in ((1_500_000, 10), (2_000_000, 90), (1_999_000, 50)):
        job.cpu_usec, table[0] = cpu_usec, busy
        await gauge.look(handle)
    assert gauge.read() == Reading(2000, 50)
    assert gauge.read() == Reading(2000, None)
    table.clear()
    await gauge.look(handle)
    assert gauge.read() == Reading(2000, None)


async def test_a_job_without_gpus_asks_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gauge, handle = Gauge(FastClock(), ()), Job()
    handle.cpu_usec = 999
    await gauge.look(handle)  # type: ignore[arg-type]
    assert gauge.read() == Reading(None, None)


async def test_the_meter_of_a_real_job_tells_its_cpu_time(market: Market0, folder: Path):
    needs_sandbox()
    config = market.config(folder / "home", driver="bubblewrap", quantum=2)
    async with running(config) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("while :; do :; done")
        seen = await tenant.until("meter", working_s=6)
        told = [event["data"] for event in seen if event["kind"] == "meter" and "cpu_ms" in event["data"]]
        used = [data["cpu_ms"] for data in told]
        assert used, "a busy job used nothing"
        assert used == sorted(used)
        assert all(0 < data["cpu_ms"] <= 1000 * (data["working_s"] + 2) for data in told)
        assert all("gpu_busy" not in event["data"] for event in seen)
        await tenant.ask("POST", "/stop", json={"grace_s": 0})
