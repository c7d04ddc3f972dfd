"""How many lives of jobs a core simulates in a second: benches/results/sim.json.

    python benches/bench_sim.py [--worlds 40]

Two figures of the same run: plain worlds of 20 agents, in which nothing goes wrong (the floor of what a job costs: 17
events at its tenant, 13 at its provider, all of them journaled, judged and replayed), and the campaign's own worlds.
Each is a process's CPU seconds, so that a busy machine changes it little; wall-clock seconds stand beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from time import perf_counter, process_time
from typing import Any

import harness
from minga.sim.shape import Outcome, Shape, shape_of
from minga.sim.world import run_world

TARGET = 200


def measured(shapes: Iterable[Shape], run: Callable[[Shape], Outcome] = run_world) -> dict[str, Any]:
    """Run worlds; lives of jobs, agent steps and kernel events per second."""
    wall, cpu = perf_counter(), process_time()
    outcomes = [run(shape) for shape in shapes]
    wall, cpu = perf_counter() - wall, process_time() - cpu
    broken = [outcome.seed for outcome in outcomes if outcome.violation]
    jobs = sum(outcome.jobs for outcome in outcomes)
    return {
        "worlds": len(outcomes),
        "jobs": jobs,
        "violated_seeds": broken,
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "jobs_per_cpu_second": round(jobs / cpu, 1),
        "agent_steps_per_cpu_second": round(sum(outcome.steps for outcome in outcomes) / cpu),
        "checks_per_cpu_second": round(sum(outcome.checks for outcome in outcomes) / cpu),
        "worlds_per_cpu_second": round(len(outcomes) / cpu, 1),
    }


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Lives of jobs per second and core.")
    parser.add_argument("--worlds", type=int, default=40, help="worlds of each kind (default 40)")
    given = parser.parse_args(arguments)
    measured([Shape(seed, agents=20, minutes=5, plain=True) for seed in range(3)])  # imports and caches are warm then
    plain = measured([Shape(seed, agents=20, minutes=5, plain=True) for seed in range(given.worlds)])
    campaign = measured([shape_of(seed) for seed in range(given.worlds)])
    harness.save("sim", {"plain": plain, "campaign": campaign, "target_jobs_per_second": TARGET})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
