"""A remedy is true: whoever does what it says is no longer excluded by that requirement from the nearest offer."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from offers_made import GB, bundle_of

from minga.core.spec import Gpu
from minga.core.units import parse_cpus, parse_duration, parse_size, parse_usd
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.matching import Requirements, explain, unmet
from minga.protocol.remedies import SAY, remedies

CARDS = [Gpu(vendor="nvidia", model="NVIDIA GeForce RTX 4090", memory_bytes=24 * GB)]
WISHES: dict[str, Requirements] = {
    "gpu": Requirements(gpus=parse_accelerators("H100")),
    "gpu_count": Requirements(gpus=parse_accelerators("RTX4090:8")),
    "vram": Requirements(gpus=parse_accelerators("RTX4090"), vram_bytes=80 * GB),
    "cpus": Requirements(cpu_milli=64_000),
    "memory": Requirements(memory_bytes=900 * GB),
    "disk": Requirements(disk_bytes=9000 * GB),
    "price": Requirements(price_per_hour_max=100_000),
    "region": Requirements(region="moon"),
    "egress": Requirements(egress=("index.test",)),
    "ports": Requirements(ports=9),
    "environment": Requirements(environment="cobol"),
    "sandbox": Requirements(sandboxes=("podman",)),
    "close_window": Requirements(close_window_max=60),
    "quantum": Requirements(quantum_min=3600),
    "prepaid": Requirements(prepaid_max=0),
    "arbiter": Requirements(),
    "hold": Requirements(hold_bps_min=1_000),
    "hold_time": Requirements(hold_seconds_min=259_200),
    "reliability": Requirements(reliability_ppm_min=990_000),
}
OFFERED = {
    "region": "eu-de", "egress": ["hub.test"], "ports": 2, "prepaid_quanta": 1, "units": 2, "close_window": 7200,
}  # fmt: skip


def one(name: str, **more: object) -> str:
    """The remedy for the one thing that excludes."""
    offered = {**OFFERED, "close_window": 3600, **more}
    if name == "arbiter":
        offered["arbiter"] = "0x" + "11" * 20
    bundles = [bundle_of(1, gpus=CARDS, **offered)]
    assert unmet(WISHES[name], bundles[0], 900_000) == (name,)
    found = remedies(WISHES[name], bundles, lambda provider: 900_000)
    assert list(found) == [name]
    return found[name]


@pytest.mark.parametrize("name", WISHES)
def test_every_requirement_has_a_remedy_that_fits_a_line(name: str) -> None:
    assert 8 < len(one(name)) <= 80


def test_every_name_that_can_exclude_is_known() -> None:
    assert set(WISHES) | {"excluded"} == set(SAY)
    machine = str(bundle_of(1).offer.machine)
    found = remedies(Requirements(excluded=frozenset({machine})), [bundle_of(1)])
    assert list(found) == ["excluded"]


def heals(name: str, **changes: object) -> bool:
    bundle = bundle_of(1, gpus=CARDS, **{**OFFERED, "close_window": 3600})
    return name not in unmet(replace(WISHES[name], **changes), bundle, 900_000)


def value(pattern: str, text: str) -> str:
    """The value that a remedy names."""
    found = re.search(pattern, text)
    assert found, text
    return found[1]


def test_the_values_named_let_the_offer_in() -> None:
    assert heals("cpus", cpu_milli=parse_cpus(value(r"--cpus (\S+)", one("cpus"))))
    assert heals("memory", memory_bytes=int(parse_size(value(r"--memory (.+?) at", one("memory"))) * 0.99))
    assert heals("disk", disk_bytes=int(parse_size(value(r"--disk (.+?) at", one("disk"))) * 0.99))
    assert heals("price", price_per_hour_max=int(parse_usd(value(r"--max-price (\S+)", one("price")), 6)))
    assert heals("region", region=value(r"--region ([^,]+)", one("region")))
    assert heals("ports", ports=int(value(r"(\d+) ports", one("ports"))))
    assert heals("environment", environment=value(r"environment: (\S+)", one("environment")))
    assert heals("close_window", close_window_max=parse_duration(value(r"close_window: (\w+)", one("close_window"))))
    most = value(r"for (\d+) at", one("gpu_count"))
    assert heals("gpu_count", gpus=parse_accelerators(f"RTX4090:{most}"))
    assert heals("quantum", quantum_min=parse_duration(value(r"every (.+?) \(", one("quantum")).replace(" ", "")))
    assert "RTX 4090" in one("gpu")
    assert "hub.test" in one("egress")


def test_the_nearest_offer_is_the_one_that_fails_least_then_the_cheapest() -> None:
    near = bundle_of(1, 500_000, region="eu-de")
    cheap_but_far = bundle_of(2, 100_000, region="us-east", ports=0, environments=["rust"])
    cheaper = bundle_of(3, 450_000, region="eu-fr")
    needs = Requirements(region="moon", environment="python")
    assert "eu-fr" in remedies(needs, [near, cheap_but_far, cheaper])["region"]
    assert "eu-de" in remedies(needs, [cheap_but_far, near])["region"]


def test_several_units_are_priced_together() -> None:
    needs = Requirements(cpu_milli=16_000, price_per_hour_max=500_000)
    bundle = bundle_of(1, 400_000, units=4)
    assert "--max-price 0.80" in remedies(needs, [bundle])["price"]


def test_there_is_a_remedy_for_exactly_what_the_table_shows() -> None:
    bundles = [bundle_of(number, 300_000 + number, region="eu-de", gpus=[]) for number in range(5)]
    needs = Requirements(gpus=parse_accelerators("H100"), region="moon", price_per_hour_max=300_002)
    assert set(remedies(needs, bundles)) == set(explain(needs, bundles).excluded)
    assert remedies(Requirements(), bundles) == remedies(needs, []) == {}
