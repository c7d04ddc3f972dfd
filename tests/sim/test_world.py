"""Worlds: one seed is one history, every rule holds, every honest job ends, and a replay shows what happened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from minga.sim.nodes import Faults
from minga.sim.shape import Shape, shape_of
from minga.sim.weather import draw
from minga.sim.world import REAL_KEYS_EVERY, World, run_world

SAMPLE = 16


def test_a_plain_world_ends_with_every_job_done():
    for seed in range(3):
        outcome = run_world(Shape(seed, agents=20, plain=True))
        assert not outcome.violation, outcome.violation
        assert outcome.phases == Counter(done=outcome.jobs)
        assert outcome.jobs >= 10
        assert outcome.crashes == 0


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_every_rule_holds_in_a_small_world(seed):
    outcome = run_world(shape_of(seed))
    assert not outcome.violation, f"minga sim world --seed {seed}: {outcome.violation}"
    assert outcome.checks > 0
    assert set(outcome.phases) <= {"done", "failed", "stopped", "exhausted"}
    assert sum(outcome.phases.values()) == outcome.jobs


def test_the_sample_meets_every_kind_of_fault_and_of_actor():
    met: Counter[str] = Counter()
    for seed in range(200):
        world = World(shape_of(seed))
        normal = Faults()
        met.update(name for name, value in vars(world.faults).items() if value != getattr(normal, name))
        met.update(actor.side for actor in world.actors)
    kinds = {"delay_s", "loss", "duplicate", "slow", "crash", "cuts", "full", "skews", "reorgs", "rpc_lies", "rpc_lag",
             "restarts", "reclaims", "provider", "tenant", "board", "rpc"}  # fmt: skip
    assert kinds <= set(met)
    assert all(met[kind] >= 2 for kind in kinds), met


def test_reorgs_are_never_deeper_than_what_everybody_waits_for():
    for seed in range(200):
        world = World(shape_of(seed))
        assert not world.faults.reorgs or world.chain.confirmations >= 8


def test_one_seed_is_one_history_and_another_is_another():
    traces = [run_world(shape_of(seed)).trace for seed in (11, 11, 12)]
    assert traces[0] == traces[1] != traces[2]


def test_the_history_is_the_same_in_any_process_and_under_any_hash_seed():
    seeds = (3, REAL_KEYS_EVERY)
    code = "from minga.sim.world import run_world; from minga.sim.shape import shape_of\n"
    code += f"for seed in {seeds}: print(run_world(shape_of(seed)).trace)"
    found = set()
    for hash_seed in ("1", "4242"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        found.add(run.stdout)
    assert found == {"".join(f"{run_world(shape_of(seed)).trace}\n" for seed in seeds)}


def test_every_event_of_the_trace_can_be_had():
    lines: list[str] = []
    outcome = run_world(shape_of(5), lines.append)
    assert outcome.last == lines[-len(outcome.last) :]
    assert len(lines) > outcome.steps
    moments = [int(line.split(" ", 1)[0]) for line in lines]
    assert moments == sorted(moments)


@pytest.mark.parametrize("real", [False, True])
def test_real_keys_and_stand_ins_tell_the_same_story(real, monkeypatch):
    """Addresses differ, and nothing that is counted does: a plain world ends the same with both."""
    import minga.sim.world as module

    ring = module.Ring
    monkeypatch.setattr(module, "Ring", lambda seed, _: ring(seed, real))
    world = World(Shape(9, agents=8, plain=True))
    assert world.ring.real is real
    outcome = world.run()
    assert not outcome.violation
    assert outcome.phases == Counter(done=outcome.jobs)


def test_some_worlds_of_a_campaign_have_real_keys():
    assert World(shape_of(REAL_KEYS_EVERY)).ring.real
    assert not World(shape_of(REAL_KEYS_EVERY + 1)).ring.real


def test_shapes_stay_small():
    shapes = [shape_of(seed) for seed in range(1000)]
    assert {shape.agents for shape in shapes} == set(range(5, 21))
    assert {shape.minutes for shape in shapes} == set(range(3, 11))


def test_hundreds_of_agents_fit_in_one_world():
    outcome = run_world(Shape(1, agents=200, minutes=2, plain=True))
    assert not outcome.violation
    assert outcome.phases == Counter(done=outcome.jobs)
    assert outcome.jobs > 100


def test_faults_are_of_the_dice():
    from random import Random

    assert draw(Random(4)) == draw(Random(4))
    assert len({draw(Random(seed)) for seed in range(20)}) > 15


def test_a_world_heals_before_it_is_judged():
    world = World(replace(shape_of(8), minutes=3))
    world.run()
    assert world.healed
    assert all(node.crash_rate == node.skew == node.lag == 0 for node in world.nodes)
    assert world.kernel.seconds >= 180
