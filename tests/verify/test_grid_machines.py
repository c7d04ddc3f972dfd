"""D1 over machines that differ: instruction sets, threads, math libraries, each a process of its own.

The control is the same training without the grid: it differs from the first step on, so the machines do.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

STEPS, ORDINARY = 200, 20
MODELS = ("llama", "cnn", "mlp")
QUIET = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
MACHINES = {
    "AVX2, 1 thread": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
    "AVX-512, 2 threads": {"ATEN_CPU_CAPABILITY": "avx512", "OMP_NUM_THREADS": "2"},
    "no AVX, 2 threads, math library without FMA": {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "2",
        "MKL_CBWR": "COMPATIBLE", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2",
    },
}  # fmt: skip
FIRST, *OTHERS = MACHINES
LIBRARY = """
import math, struct, sys
found = [1 - beta**step for beta in (0.9, 0.95, 0.99, 0.999) for step in range(1, 20001)]
found += [math.cos(math.pi * step / 50000) for step in range(50000)]
sys.stdout.buffer.write(struct.pack(f"<{len(found)}d", *found))
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def environ(machine: str) -> dict[str, str]:
    return {**os.environ, **QUIET, **MACHINES[machine]}


@cache
def run(machine: str) -> dict[str, Any]:
    worker = Path(__file__).with_name("grid_worker.py")
    command = [sys.executable, str(worker), str(STEPS), "--ordinary", str(ORDINARY)]
    done = subprocess.run(command, env=environ(machine), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("model", MODELS)
def test_200_steps_have_the_same_bits_on_every_machine(model, other):
    here, there = run(FIRST)[model]["grid"], run(other)[model]["grid"]
    assert len(set(here["hashes"])) == STEPS + 1
    assert here["hashes"] == there["hashes"]
    assert here["losses"] == there["losses"]


def test_ordinary_training_differs_between_these_machines():
    for model in MODELS:
        runs = [run(machine)[model]["ordinary"]["hashes"] for machine in MACHINES]
        assert len({hashes[0] for hashes in runs}) == 1, "the initial weights are not the same"
        assert len({hashes[1] for hashes in runs}) > 1, f"{model}: nothing tells these machines apart"


@pytest.mark.parametrize("model", MODELS)
def test_it_learns_what_ordinary_training_learns(model):
    grid, ordinary = (run(FIRST)[model][kind]["losses"] for kind in ("grid", "ordinary"))
    assert grid[-1] < 0.7 * grid[0]
    assert grid[:ORDINARY] == pytest.approx(ordinary, rel=1e-3)


def test_the_machines_are_what_they_are_called():
    found = {machine: (run(machine)["capability"], run(machine)["threads"]) for machine in MACHINES}
    assert {threads for _, threads in found.values()} == {1, 2}
    if len({capability for capability, _ in found.values()}) < 3:
        pytest.skip(f"this processor has not all instruction sets: {found}")


def test_scalars_of_two_math_libraries_agree_once_rounded():
    import numpy as np

    first, second = (
        np.frombuffer(
            subprocess.run(
                [sys.executable, "-c", LIBRARY], env=environ(machine), capture_output=True, check=True
            ).stdout
        )
        for machine in (FIRST, OTHERS[-1])
    )
    assert len(first) == len(second) == 130_000
    assert np.array_equal(first.astype(np.float32), second.astype(np.float32))
    units = np.abs(first.view(np.int64) - second.view(np.int64))
    odds = float(units.sum()) * 2.0**-29
    assert odds < 1e-5, f"these {len(first)} scalars would flip with probability {odds}"
    if not units.any() or not math.isfinite(odds):
        pytest.skip("both processes have the same math library")
