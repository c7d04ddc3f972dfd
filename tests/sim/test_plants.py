"""Planted bugs: the simulator finds each within 500 seeds, by a rule that is meant to find it."""

from __future__ import annotations

import pytest
from plants import PLANTS, Plant

from minga.protocol import job_money
from minga.sim.shape import shape_of
from minga.sim.world import run_world

SEEDS_MAX = 500


def test_there_are_at_least_twelve():
    assert len(PLANTS) >= 12
    assert len({plant.name for plant in PLANTS}) == len(PLANTS)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name.replace(" ", "-"))
def test_it_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    plant.apply(monkeypatch)
    for seed in range(SEEDS_MAX):
        outcome = run_world(shape_of(seed))
        if outcome.violation.split(":")[0] in plant.rules:
            record_property("seeds", seed + 1)
            print(f"{plant.name}: {seed + 1} seeds, {outcome.violation}")
            return
    pytest.fail(f"not found in {SEEDS_MAX} seeds: {plant.story}")


def test_a_plant_is_gone_when_its_test_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = job_money.slice_for
    with pytest.MonkeyPatch.context() as patch:
        next(plant for plant in PLANTS if plant.name == "slice beyond a quarter").apply(patch)
        assert job_money.slice_for is not before
    assert job_money.slice_for is before
