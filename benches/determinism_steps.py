"""What `bench_determinism.py` runs on each simulated machine: a process with its own instruction set and threads.

    python determinism_steps.py bits|updates|operators OUT KIND:SEED,SEED…

States before a step come from the grid, so that every machine starts from the same bits; the step is an ordinary one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "verify"))

import grid_worker
import torch
from steps import ALL, HIDDEN, Liar, Work
from torch import Tensor, nn

from minga.verify.grid import Grid

__all__ = ["ALL", "HIDDEN", "STEPS", "WARM", "Liar", "Work", "grid_worker", "updates"]

STEPS = 200
WARM = (2, 5, 14)
"""Steps of training before the one that is compared, by seed."""


def snapped(value: Tensor) -> Tensor:
    """Rounded to 24 bits of the tensor's largest magnitude: the grid of those who round after the sum."""
    largest = value.abs().max()
    if largest == 0:
        return value
    power = torch.exp2(torch.floor(torch.log2(largest)))
    shift = power * (1.5 * 2.0**29)
    return (value + shift) - shift


def rounded_after(build: Callable[[], Any], seed: int) -> list[str]:
    """Training in float64 whose gradients, parameters and moments are rounded to a grid after each step; hashes."""
    with Grid():
        torch.manual_seed(seed)
        model, loss = build()
    model.double()
    torch.set_default_dtype(torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    hashes = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(step).backward()
        for parameter in model.parameters():
            parameter.grad.copy_(snapped(parameter.grad))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(snapped(parameter))
                for value in optimizer.state[parameter].values():
                    value.copy_(snapped(value) if value.numel() > 1 else value)
        hashes.append(grid_worker.digest(model, optimizer)[:12])
    torch.set_default_dtype(torch.float32)
    return hashes


def bits(kind: str, seed: int) -> dict[str, Any]:
    """Hashes of 200 steps: on the grid, ordinary, and rounded after the sums; last losses."""
    build = getattr(grid_worker, kind)
    found: dict[str, Any] = {}
    for name, exact in (("grid", True), ("ordinary", False)):
        made = grid_worker.train(build, STEPS, seed, exact)
        found[name] = {"hashes": [text[:12] for text in made["hashes"]], "losses": made["losses"][-1:]}
    if kind == "llama":
        found["rounded after"] = {"hashes": rounded_after(build, seed)}
    return found


def updates(kind: str, seed: int, changes: dict[str, Callable[[Work], None]]) -> dict[str, Any]:
    """For each change of a step, the groups of the state after it; under the name `before` those before it."""
    work = Work(kind, seed, warm=WARM[seed % len(WARM)])
    batch, labels = work.batch, work.labels
    found = {"before": work.state()}
    for name, change in changes.items():
        work.rewind()
        work.batch, work.labels = batch, labels
        for parameter in work.model.parameters():
            parameter.requires_grad_(True)
        change(work)
        found[name] = work.state()
    return found


def main() -> None:
    """The command line."""
    mode, out, *wanted = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    each = [
        (kind, int(seed)) for kind, _, seeds in (text.partition(":") for text in wanted) for seed in seeds.split(",")
    ]
    if mode == "bits":
        Path(out).write_text(json.dumps({f"{kind}:{seed}": bits(kind, seed) for kind, seed in each}))
    elif mode == "updates":
        torch.save({f"{kind}:{seed}": updates(kind, seed, {"step": Work.step}) for kind, seed in each}, out)
    else:
        with Path(out).open("wb") as file:
            for kind, seed in each:
                _, kept = Work(kind, seed, warm=WARM[seed % len(WARM)]).record(ALL)
                for operator in kept.values():
                    data = operator.pack()
                    file.write(len(data).to_bytes(8, "little") + data)
    print(torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main()
