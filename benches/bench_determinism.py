"""Determinism: what D1 costs and whether it holds, what D2 sees and what it does not, what an operator trace costs.

    python benches/bench_determinism.py [--seeds 10] [--updates 36] [--parts D1_costs,D1_holds,…]

Machines are processes with other instruction sets, threads and math libraries on this processor. Parts that are in the
result file are not run again as long as the sources are the same. Costs are CPU seconds of one thread, both sides in
turns. `THRESHOLD` was fitted on the seeds of `fit`; those of `report` say what it does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

import determinism_steps as steps
import harness
from determinism_steps import ALL, HIDDEN, Liar, Work
from minga.protocol.merkle import rounds_for
from minga.verify.grid import Grid
from minga.verify.operators import Kept, Recorder
from minga.verify.operators_check import check_exactly, check_within, first_difference, first_fault
from minga.verify.operators_update import THRESHOLD, step_error, update_error

SOURCE = Path(__file__).resolve().parent.parent / "src" / "minga" / "verify"
OUT = harness.RESULTS / "determinism.json"
QUIET = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
MACHINES = {
    "AVX2, 1 thread": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
    "AVX-512, 2 threads": {"ATEN_CPU_CAPABILITY": "avx512", "OMP_NUM_THREADS": "2"},
    "no AVX, 1 thread, other math library": {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1",
        "MKL_CBWR": "COMPATIBLE", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2",
    },
}  # fmt: skip
FIRST = next(iter(MACHINES))


def on(machine: str, mode: str, wanted: dict[str, list[int]], folder: Path) -> Path:
    """The file that `determinism_steps.py` leaves on a machine, for these seeds of each kind of model."""
    out = folder / f"{mode}-{list(MACHINES).index(machine)}"
    worker = str(Path(__file__).with_name("determinism_steps.py"))
    seeds = [f"{kind}:{','.join(map(str, numbers))}" for kind, numbers in wanted.items()]
    command = [sys.executable, worker, mode, str(out), *seeds]
    subprocess.run(command, env={**os.environ, **QUIET, **MACHINES[machine]}, check=True, stdout=subprocess.DEVNULL)
    return out


def interval(found: int, n: int) -> list[float]:
    """Clopper and Pearson's 95 % interval of a share, by halving."""

    def at_most(k: int, p: float) -> float:
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    def solved(wanted: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if wanted(middle) else (low, middle)
        return low

    lower = 0.0 if found == 0 else solved(lambda p: 1 - at_most(found - 1, p) < 0.025)
    upper = 1.0 if found == n else solved(lambda p: at_most(found, p) > 0.025)
    return [round(lower, 5), round(upper, 5)]


# ------------------------------------------------------------------------------------------------------------------ D1


def holds(count: int, folder: Path) -> dict[str, Any]:
    """Runs of 200 steps on each machine against the first: in how many the bits differ, and from which step on."""
    wanted = {kind: list(range(count if kind == "llama" else max(count // 2, 1))) for kind in ("llama", "cnn", "mlp")}
    runs = {machine: json.loads(on(machine, "bits", wanted, folder).read_text()) for machine in MACHINES}
    found: dict[str, Any] = {"steps": steps.STEPS, "machines": list(MACHINES)}
    for kind, seeds in wanted.items():
        keys = [f"{kind}:{seed}" for seed in seeds]
        part: dict[str, Any] = {}
        for way in runs[FIRST][keys[0]]:
            firsts = []
            for machine, key in ((machine, key) for machine in list(MACHINES)[1:] for key in keys):
                here, there = (runs[m][key][way]["hashes"] for m in (FIRST, machine))
                pairs = enumerate(zip(here, there, strict=True))
                firsts.append(next((at for at, (mine, yours) in pairs if mine != yours), -1))
            differ = [first for first in firsts if first >= 0]
            part[way] = {
                "runs": len(firsts), "runs_that_differ": len(differ), "interval_95": interval(len(differ), len(firsts)),
                "first_different_step": sorted(differ),
            }  # fmt: skip
        ends = [[runs[FIRST][key][way]["losses"][0] for way in ("grid", "ordinary")] for key in keys]
        part["last_losses_grid_and_ordinary"] = ends
        part["mean_of_last_losses"] = [sum(side) / len(ends) for side in zip(*ends, strict=True)]
        found[kind] = part
    return found


def _llama(hidden: int) -> tuple[nn.Module, Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_key_value_heads=2, max_position_embeddings=64, **shape))
    return model, torch.randint(0, 256, (8, 64))


def costs(rounds: int) -> dict[str, Any]:
    """CPU seconds of a step with AdamW, ordinary and on the grid, one thread."""
    found = {}
    for hidden in (32, 128, 256, 512):
        torch.manual_seed(0)
        model, tokens = _llama(hidden)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def step(model: nn.Module = model, tokens: Tensor = tokens, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()

        found[f"llama, hidden {hidden}, 512 tokens"] = _compared(step, rounds)
    for kind in ("cnn", "mlp"):
        torch.manual_seed(0)
        model, loss = getattr(steps.grid_worker, kind)()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def small(loss: Any = loss, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            loss(0).backward()
            optimizer.step()

        found[f"small {kind}"] = _compared(small, rounds)
    return found


def _compared(step: Callable[[], None], rounds: int) -> dict[str, Any]:
    def exact() -> None:
        with Grid():
            step()

    step(), exact()
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, run in (("ordinary", step), ("grid", exact)):
            began = process_time()
            run()
            times[name].append(process_time() - began)
    ordinary, grid = (harness.spread(times[name]) for name in ("ordinary", "grid"))
    return {"ordinary_cpu_s": ordinary, "grid_cpu_s": grid, "ratio": grid["median"] / ordinary["median"]}


# ------------------------------------------------------------------------------------------------------------------ D2


def _gradients(change: Callable[[Work], None]) -> Callable[[Work], None]:
    """A step whose gradients are changed before the optimiser sees them."""

    def run(work: Work) -> None:
        before = work.optimizer.step
        work.optimizer.step = lambda: (change(work), before())  # type: ignore[method-assign,assignment]
        work.step()
        work.optimizer.step = before  # type: ignore[method-assign]

    return run


def _noise(size: float) -> Callable[[Work], None]:
    def change(work: Work) -> None:
        for parameter in work.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1 + size * torch.randn_like(parameter))

    return _gradients(change)


def _rate(factor: float) -> Callable[[Work], None]:
    def run(work: Work) -> None:
        for group in work.optimizer.param_groups:
            group["lr"] *= factor
        work.step()

    return run


def _half(work: Work) -> None:
    work.batch, work.labels = work.batch[:2], work.labels[:2]
    work.step()


def _poisoned(work: Work) -> None:
    work.batch, work.labels = work.batch.clone(), work.labels.clone()
    work.batch[0], work.labels[0] = work.batch[0].flip(-1), (work.labels[0] + 1) % 4
    work.step()


def _frozen(work: Work) -> None:
    next(work.model.parameters()).requires_grad_(False)
    for parameter in list(work.model.parameters())[2:4]:
        parameter.requires_grad_(False)
    work.step()


def _bf16(work: Work) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        work.step()


def _bf16_products(work: Work) -> None:
    with Liar(HIDDEN["bf16 compute"][0]):
        work.step()


def _without_decay(work: Work) -> None:
    for group in work.optimizer.param_groups:
        group["weight_decay"] = 0.0
    work.step()


CHEATS: dict[str, Callable[[Work], None]] = {
    "bf16 autocast": _bf16, "bf16 products": _bf16_products, "noise 1e-3 on gradients": _noise(1e-3),
    "noise 1e-2 on gradients": _noise(1e-2), "learning rate 1.5": _rate(1.5), "learning rate 1.01": _rate(1.01),
    "half the batch": _half, "one poisoned sample": _poisoned, "frozen layers": _frozen,
    "no weight decay": _without_decay, "no step at all": lambda work: None,
}  # fmt: skip


def whole_steps(count: int, folder: Path) -> dict[str, Any]:
    """Relative error of one step's update: honest on other machines, and cheats here; two sets of seeds."""
    sets = {"fit": list(range(count // 2)), "report": list(range(1000, 1000 + count))}
    wanted = dict.fromkeys(("llama", "cnn"), sets["fit"] + sets["report"])
    runs = {machine: torch.load(on(machine, "updates", wanted, folder)) for machine in MACHINES}
    found: dict[str, Any] = {"threshold": THRESHOLD}
    for name, seeds in sets.items():
        errors: dict[str, list[float]] = defaultdict(list)
        alone: dict[str, list[float]] = defaultdict(list)

        def note(who: str, before: Any, claimed: Any, replayed: Any, errors: Any = errors, alone: Any = alone) -> None:
            errors[who].append(step_error(before, claimed, replayed)[0])
            alone[who].append(update_error(before["parameters"], claimed["parameters"], replayed["parameters"]))

        for kind, seed in ((kind, seed) for kind in wanted for seed in seeds):
            here = runs[FIRST][f"{kind}:{seed}"]
            before, replayed = here["before"], here["step"]
            for machine in list(MACHINES)[1:]:
                note("honest", before, runs[machine][f"{kind}:{seed}"]["step"], replayed)
            for cheat, claimed in steps.updates(kind, seed, CHEATS).items():
                if cheat != "before":
                    note(cheat, before, claimed, replayed)
        honest = errors.pop("honest")
        alarms = sum(not error <= THRESHOLD for error in honest)
        found[name] = {
            "honest": {
                "n": len(honest), "largest": max(honest), "median": sorted(honest)[len(honest) // 2],
                "equal_to_the_bit": sum(error == 0 for error in honest), "flagged": alarms,
                "interval_95": interval(alarms, len(honest)),
            },
            "cheats": {cheat: _power(found) for cheat, found in errors.items()},
            "parameters_alone": {who: {"least": min(all_), "most": max(all_)} for who, all_ in alone.items()},
        }  # fmt: skip
    return found


def _power(errors: list[float]) -> dict[str, Any]:
    caught = sum(not error <= THRESHOLD for error in errors)
    return {
        "n": len(errors), "smallest": min(errors), "median": sorted(errors)[len(errors) // 2], "caught": caught,
        "interval_95": interval(caught, len(errors)),
    }  # fmt: skip


def served(file: Path) -> Iterator[Kept]:
    """The operators of a file of `determinism_steps.py`."""
    with file.open("rb") as opened:
        while head := opened.read(8):
            yield Kept.unpack(opened.read(int.from_bytes(head, "little")))


def operators(count: int, folder: Path) -> dict[str, Any]:
    """Every operator of honest steps of other machines within its bound; hidden cheats found, where, how soon."""
    ratios: dict[str, float] = defaultdict(float)
    judged, faults, sizes = 0, [], []
    wanted = {kind: list(range(count)) for kind in ("llama", "cnn")}
    for machine in list(MACHINES)[1:]:
        for kept in served(on(machine, "operators", wanted, folder)):
            verdict = check_within(kept)
            judged += 1
            sizes.append(sum(block.numel() for block in (*kept.before, *kept.after)))
            ratios[kept.entry.name] = max(ratios[kept.entry.name], verdict.ratio)
            if not verdict.ok:
                faults.append([machine, verdict.fact])
    worst = sorted(ratios.items(), key=lambda item: -item[1])
    return {
        "honest": {
            "operators": judged, "steps": 4 * count, "flagged": len(faults), "faults": faults,
            "interval_95": interval(len(faults), judged), "largest_ratio_to_bound": dict(worst[:12]),
        },
        "bytes_served_for_one_operator": harness.spread([float(size) for size in sizes]),
        "cheats": {lie: _hidden(lie, count) for lie in HIDDEN},
    }  # fmt: skip


def _hidden(lie: str, count: int) -> dict[str, Any]:
    places: dict[str, int] = defaultdict(int)
    there = by_hash = 0
    least = math.inf
    for seed in range(count):
        work = Work("llama", seed, warm=steps.WARM[seed % len(steps.WARM)])
        plan, (trace, kept) = work.record()[0], work.record(ALL, lie=lie)
        at, rounds = first_difference(trace.leaves, plan.leaves)
        found = first_fault(trace, kept, plan)
        by_hash += not check_exactly(kept[at]).ok
        there += found is not None and found[0] == at
        if found is not None:
            places[f"{trace.entries[found[0] - 1].name} {found[1].fault}"] += 1
            least = min(least, found[1].ratio)
    return {
        "n": count, "D0_convicted": by_hash, "D2_convicted_at_the_same_operator": there, "rounds": rounds,
        "smallest_ratio_to_bound": least, "places": dict(places),
    }  # fmt: skip


def recording(rounds: int) -> dict[str, Any]:
    """CPU seconds of a step: ordinary, recorded, recorded with contents; and of judging all of its operators."""
    work = Work("llama")
    work.step()
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, keep in (("ordinary", None), ("recorded", ()), ("recorded, contents kept", ALL)):
            began = process_time()
            if keep is None:
                work.step()
            else:
                with Recorder(keep, work.given()) as recorder:
                    work.step()
            times[name].append(process_time() - began)
    kept = recorder.kept
    began = process_time()
    assert all(check_within(operator).ok for operator in kept.values())
    judging = process_time() - began
    plain = harness.spread(times["ordinary"])["median"]
    leaves = len(recorder.trace().leaves)
    return {
        "leaves": leaves, "rounds": rounds_for(leaves),
        "cpu_s": {name: harness.spread(spent) for name, spent in times.items()},
        "ratio_recorded": harness.spread(times["recorded"])["median"] / plain,
        "judging_every_operator_over_a_step": judging / plain, "judging_one_over_a_step": judging / plain / len(kept),
    }  # fmt: skip


def sources() -> str:
    """SHA-256 of what the figures are a result of."""
    digest = sha256()
    here = Path(__file__)
    for path in (
        *sorted(SOURCE.glob("grid*.py")),
        *sorted(SOURCE.glob("operators*.py")),
        here,
        here.with_name("determinism_steps.py"),
    ):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Run what is missing and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", default="")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, run in {
            "D1_costs": lambda: costs(asked.rounds),
            "recording": lambda: recording(asked.rounds),
            "D2_whole_steps": lambda: whole_steps(asked.updates, folder),
            "operators": lambda: operators(asked.seeds, folder),
            "D1_holds": lambda: holds(asked.seeds, folder),
        }.items():  # fmt: skip
            if part in (asked.parts.split(",") if asked.parts else [part]) and part not in _kept():
                figures = run()
                about = {"sources_sha256": sources(), "torch": torch.__version__}
                harness.save("determinism", about | {"figures": _kept() | {part: figures}})


def _kept() -> dict[str, Any]:
    """Parts of the result file that are results of these sources."""
    old = json.loads(OUT.read_text()) if OUT.exists() else {}
    return old["figures"] if old.get("sources_sha256") == sources() else {}


if __name__ == "__main__":
    main()
