"""What a trace costs a training, and what one leaf costs a referee, against the same steps untraced, in turns.

Run: `python benches/bench_trace.py`. Three models: 1,600 parameters (the campaign's), a Llama of 0.08M, and the
0.92M-parameter Llama of examples/pretrain, each on one thread. Steps are done in blocks, by turns untraced and with a
leaf every 1, 2, 5, 10 and 50 steps, a state kept every 50 leaves as by default. The ratio is of CPU seconds, since the
machine may be shared; the wall clock's is recorded beside it. Aim: at most 1.05 at a leaf interval that suits the
model.

A referee is measured against a whole traced run of 200 steps, a leaf each: it builds the job's objects, puts the state
before the disputed leaf back, does that step and hashes the state. Aim: at most 1 % of the run. Starting Python and
importing PyTorch are in neither.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from types import ModuleType
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "verify"))

import numpy as np
import torch
from attacks import Tiny

from harness import save, spread
from minga.verify.capture import Subject
from minga.verify.leaves import read_trace, state_name
from minga.verify.replay import replay_command, replay_here
from minga.verify.state import pack
from minga.verify.trace import Settings, TracedRun

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "pretrain" / "train.py"
EVERY = (1, 2, 5, 10, 50)
STEPS = 200
KEEP = 50


class Pretraining:
    """The pretraining example on made tokens; `small`: a Llama of 0.08M parameters in its place."""

    def __init__(self, train: ModuleType, small: bool) -> None:
        self.train_module = train
        self.run = train.Run("made", STEPS, 12, 64, 3e-3, 1, 1)
        model = self._small() if small else train.build_model(1)
        model.train()
        self.state = train.State(model, train.build_optimiser(model), None, np.random.default_rng(1), [])
        self.tokens = np.random.default_rng(2).integers(0, model.config.vocab_size, 50_000)

    def _small(self) -> Any:
        train = self.train_module
        torch.manual_seed(1)
        return train.LlamaForCausalLM(
            train.LlamaConfig(
                vocab_size=512, hidden_size=48, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip

    def subject(self) -> Subject:
        """What decides the next step."""
        extra = {"batches": self.state.batches, "losses": self.state.losses}
        return Subject(self.state.model, self.state.optimiser, extra=extra)

    def step(self, step: int) -> None:
        """One of the example's own steps."""
        self.train_module.train_step(self.run, self.state, self.tokens)


def example() -> ModuleType:
    """examples/pretrain/train.py."""
    spec = importlib.util.spec_from_file_location("train", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    return module


def sides(job: Any, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each side's name, and what does one step of it."""

    def untraced() -> None:
        job.step(0)

    yield "untraced", untraced
    for every in EVERY:
        run = TracedRun(job.subject(), Settings(folder / str(every), every, KEEP))
        run.begin()
        done = [0]

        def traced(run: TracedRun = run, done: list[int] = done) -> None:
            job.step(0)
            done[0] += 1
            run.done(done[0])

        yield f"every {every}", traced


def overhead(job: Any, folder: Path, blocks: int, block: int) -> dict[str, Any]:
    """Ratios of all sides to the untraced one, and what a leaf is made of."""
    ways = dict(sides(job, folder))
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, blocks):  # the first turn warms up
        for name, way in ways.items():
            began, clock = process_time(), perf_counter()
            for _ in range(block):
                way()
            if turn >= 0:
                cpu[name].append((process_time() - began) / block)
                wall[name].append((perf_counter() - clock) / block)
    subject = job.subject()
    began = process_time()
    for step in range(20):
        packed = pack(subject.capture(step))
        packed.hash()
    leaf = (process_time() - began) / 20
    base, base_wall = sum(cpu["untraced"]), sum(wall["untraced"])
    names = [name for name in ways if name != "untraced"]
    return {
        "state_bytes": packed.bytes,
        "steps_a_side": blocks * block,
        "step_cpu_ms": {name: round(1e3 * value, 3) for name, value in spread(cpu["untraced"]).items() if name != "n"},
        "leaf_cpu_ms": round(1e3 * leaf, 3),
        "ratio_cpu": {name: round(sum(cpu[name]) / base, 4) for name in names},
        "ratio_wall": {name: round(sum(wall[name]) / base_wall, 4) for name in names},
    }


def referee(make: Callable[[], Any], folder: Path, leaves: int) -> dict[str, Any]:
    """CPU seconds of single leaves, as shares of a whole traced run of 200 steps."""

    def train(settings: Settings) -> None:
        job = make()
        with TracedRun(job.subject(), settings) as run:
            for step in run.steps(STEPS):
                job.step(step)

    began = process_time()
    train(Settings(folder / "whole", 1, KEEP // 5))
    whole = process_time() - began
    facts, committed = read_trace(folder / "whole")
    shares = []
    for at in np.random.default_rng(0).choice(np.arange(1, STEPS // facts.keep), leaves, replace=False):
        after = int(at) * facts.keep
        command = replay_command("", facts, after, after + 1, "")
        began = process_time()
        found = replay_here(train, command, folder / "referee", folder / "whole" / state_name(after))
        shares.append((process_time() - began) / whole)
        assert found.leaves == (committed[after + 1],)
    return {
        "whole_run_cpu_s": round(whole, 2),
        "steps_share": 1 / STEPS,
        "cpu_share": {name: round(value, 5) for name, value in spread(shares).items()},
    }


def main() -> None:
    """Measure and save."""
    torch.set_num_threads(1)
    train = example()
    made: dict[str, tuple[Callable[[], Any], int, int]] = {
        "mlp 1.6k": (lambda: Tiny(1), 20, 100),
        "llama 0.08M": (lambda: Pretraining(train, small=True), 10, 10),
        "llama 0.92M": (lambda: Pretraining(train, small=False), 8, 5),
    }
    found = {}
    for name, (make, blocks, block) in made.items():
        with tempfile.TemporaryDirectory() as text:
            job = make()
            size = sum(p.numel() for p in job.subject().models["0"].parameters())
            costs = overhead(job, Path(text), blocks, block)
            found[name] = {"parameters": size, **costs, "referee": referee(make, Path(text), 10)}
    save("trace", {"threads": 1, "models": found})


if __name__ == "__main__":
    main()
