"""What is promised of a unit: measured once a week, kept for this machine cut in this way, told to its owner."""

from __future__ import annotations

from pathlib import Path

import pytest
from tenants import Market0, Tenant, needs_sandbox, running

from minga.core.errors import SandboxFailed
from minga.core.spec import Machine, Speed, UnitSize
from minga.provider.speed import KEPT_SECONDS, kept_speed, key_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
H = "0x" + "ab" * 32


class Stand:
    """Measures by counting."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> Speed:
        self.times += 1
        return Speed(gemm_mops=self.times)


async def test_a_measurement_counts_for_a_week_on_the_same_machine(tmp_path: Path):
    stand, path = Stand(), tmp_path / "speed.json"
    for key, now, again, times, at in (
        ("k", 1000, False, 1, 1000),
        ("k", 1000 + KEPT_SECONDS - 1, False, 1, 1000),
        ("k", 2000, True, 2, 2000),
        ("another", 2001, False, 3, 2001),
        ("another", 2001 + KEPT_SECONDS, False, 4, 2001 + KEPT_SECONDS),
        ("another", 5, False, 5, 5),  # the calendar went back: nothing is of the future
    ):
        assert await kept_speed(path, key, now, again, stand) == (Speed(gemm_mops=times), at)


@pytest.mark.parametrize(
    "text", ["", "{", '{"key":"k"}', '{"key":"k","at":"x","speed":{}}', '{"key":"k","at":1,"speed":3}']
)
async def test_a_damaged_file_is_measured_anew(tmp_path: Path, text: str):
    path = tmp_path / "speed.json"
    path.write_text(text)
    assert await kept_speed(path, "k", 2, False, Stand()) == (Speed(gemm_mops=1), 2)


async def test_a_measurement_that_fails_keeps_nothing(tmp_path: Path):
    async def fails() -> Speed:
        raise SandboxFailed("no worker", "")

    path = tmp_path / "speed.json"
    with pytest.raises(SandboxFailed):
        await kept_speed(path, "k", 2, False, fails)
    assert await kept_speed(path, "k", 3, False, Stand()) == (Speed(gemm_mops=1), 3)


def test_another_cut_of_the_machine_is_another_measurement():
    sizes = {"memory_bytes": 1 << 30, "disk_bytes": 1 << 30}
    machine = Machine(node=H, arch="a", cpu="c", cpus=2, os="linux", **sizes)
    unit = UnitSize(cpu_milli=500, **sizes)
    keys = {
        key_of(machine, unit, 1, "venv"),
        key_of(machine, unit, 2, "venv"),
        key_of(machine, unit, 1, "other"),
        key_of(machine, unit.model_copy(update={"cpu_milli": 501}), 1, "venv"),
        key_of(machine.model_copy(update={"cpus": 3}), unit, 1, "venv"),
    }
    assert len(keys) == 5


async def test_a_provider_promises_what_it_measured_and_a_restart_promises_the_same(market: Market0, folder: Path):
    needs_sandbox()
    config = market.config(folder / "home", driver="bubblewrap", measure="kept", units=1)
    told = []
    for _ in range(2):
        async with running(config) as provider, Tenant(market, provider.url) as tenant:
            offer = (await tenant.http.get("/v1/offers")).json()["offers"][0]
            told.append((offer["terms"].get("speed"), [kind for kind, _ in provider.told].count("measuring")))
            (facts,) = [facts for kind, facts in provider.told if kind == "speed"]
            assert offer["terms"]["speed"] == {name: facts[name] for name in offer["terms"]["speed"]}
    (first, measured), (second, again) = told
    assert (measured, again) == (1, 0)
    assert first == second
    assert first["gemm_mops"] > 0


async def test_a_machine_that_cannot_be_measured_promises_nothing_and_sells_all_the_same(
    market: Market0, folder: Path, monkeypatch
):
    async def fails(*args, **more):
        raise SandboxFailed("no worker here", "")

    monkeypatch.setattr("minga.provider.main.measure_units", fails)
    async with running(market.config(folder / "home", measure="again")) as provider:
        assert "no worker here" in [facts.get("fact") for kind, facts in provider.told if kind == "warning"]
        async with Tenant(market, provider.url) as tenant:
            offer = (await tenant.http.get("/v1/offers")).json()["offers"][0]
            assert "speed" not in offer["terms"]
