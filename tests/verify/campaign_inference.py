"""The campaign of inference audits: honest providers of many kinds, and cheats. `make campaign-inference`, or

    python tests/verify/campaign_inference.py --fit                    # fit the limits, write them into the package
    python tests/verify/campaign_inference.py [--only tiny] [--out FILE]  # report on other prompts and seeds

Prompts for fitting come from the first third of the text, prompts for reporting from its last half; their jobs,
beacons and so seeds differ as well. Each unit is one batch of one provider; providers run in a process of their own,
with its own instruction set and threads, the auditor in this one.

Rule: the result file is written after every unit, and a campaign that was stopped goes on from it as long as the
sources are the same. Exit status 1 when an honest provider was flagged, or a promised attack is caught in under 99 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import inference_attacks as attacks
import inference_models as models
import inference_report as report
import numpy as np
import torch
from inference_plan import KINDS, Unit, fitting, reporting

from minga.verify.inference_audit import Verdict, audit
from minga.verify.inference_fitted import LIMITS
from minga.verify.inference_limits import Limits, Line, fit
from minga.verify.inference_prover import generate, prefill
from minga.verify.inference_record import Reply, Request, Sampling, root

ROOT = models.ROOT
OUT = ROOT / "benches" / "results" / "inference.json"
FITTED = ROOT / "src" / "minga" / "verify" / "inference_fitted.py"
SETS = {"fit": (0.0, 1 / 3), "report": (0.5, 1.0)}
"""Which part of the text prompts are cut from."""
PROMPT = 32
ISAS = {
    "avx512": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "sse": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
"""What makes a process compute with these instructions; the first is what the auditor's processor has."""
TINY_STEPS = 300


# ---------------------------------------------------------------------------------------------------- one batch


def stage(model: str, numerics: str, steps: int = TINY_STEPS) -> attacks.Stage:
    """A model and the copies of it that cheats serve."""
    key = f"{model}/{numerics}/{steps}"
    if key not in _STAGES:
        if model == "tiny":
            real = models.load(models.trained(steps, 1), numerics)
            _STAGES[key] = attacks.Stage(model, numerics, real, lambda: models.load(models.trained(steps, 2), numerics))
        else:
            made = attacks.Stage(model, numerics, models.load(models.smollm2(), numerics), lambda: made.cheap("half"))
            _STAGES[key] = made
    return _STAGES[key]


_STAGES: dict[str, attacks.Stage] = {}


def digest(*parts: object) -> str:
    """A 32-byte name."""
    return "0x" + sha256(":".join(map(str, parts)).encode()).hexdigest()


def requests(unit: Unit, steps: int = TINY_STEPS) -> list[Request]:
    """The requests of a unit: prompts of 32 tokens from its part of the text, no two jobs alike."""
    folder = models.trained(steps, 1) if unit.model == "tiny" else models.smollm2()
    tokenizer, text = models.tokenizer(folder), models.text()
    first, last = (int(share * len(text)) for share in SETS[unit.part])
    found = []
    for row in range(unit.count):
        job = digest(unit.part, unit.model, unit.numerics, unit.act, unit.seed, row)
        at = first + int(job[2:18], 16) % (last - first - 400)
        found.append(
            Request(
                model=digest("weights", unit.model),
                prompt=tokenizer.encode(text[at : at + 400])[:PROMPT],
                sampling=Sampling(temperature_milli=unit.temperature, top_p_milli=unit.top_p),
                tokens_max=unit.tokens,
                stop=[0] if unit.act in ("honest", "early-stop") else [],
                numerics=unit.numerics,  # type: ignore[arg-type]
                evidence=unit.evidence,  # type: ignore[arg-type]
                job=job,
                beacon=digest("beacon", unit.part, unit.seed),
            )
        )
    return found


def serve(unit: Unit, steps: int = TINY_STEPS) -> tuple[list[dict[str, Any]], float]:
    """The provider's side: the replies as JSON, and the CPU time of making them in seconds."""
    torch.set_num_threads(unit.threads)
    asked, on = requests(unit, steps), stage(unit.model, unit.numerics, steps)
    act: attacks.Attack = {"honest": attacks.honest, **attacks.PROMISED, **attacks.CURVES}[unit.act]
    started = process_time()
    replies = act(on, asked)
    return [reply.plain() for reply in replies], process_time() - started


def judge(unit: Unit, replies: Sequence[dict[str, Any]], limits: Limits, steps: int = TINY_STEPS) -> list[Verdict]:
    """The auditor's side. A cheat commits to what it shows."""
    on = stage(unit.model, unit.numerics, steps).real
    return [
        audit(on, request, raw, root(request, Reply.read(raw)), limits)
        for request, raw in zip(requests(unit, steps), replies, strict=True)
    ]


class Providers:
    """One process at a time, for one instruction set."""

    def __init__(self) -> None:
        self._isa, self._pool = "", None  # type: tuple[str, ProcessPoolExecutor | None]

    def serve(self, unit: Unit) -> tuple[list[dict[str, Any]], float]:
        """`serve` in a process whose instruction set is the unit's."""
        made: tuple[list[dict[str, Any]], float] = self.call(unit.isa, serve, unit)
        return made

    def call(self, isa: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """`do` in a process that computes with `isa`."""
        if self._isa != isa:
            self.close()
            for name in ISAS["sse"]:
                os.environ.pop(name, None)
            os.environ.update(ISAS[isa])
            os.environ.update(OMP_WAIT_POLICY="PASSIVE")  # two threads on a shared core would wait for each other
            self._pool, self._isa = ProcessPoolExecutor(1, mp_context=get_context("spawn")), isa
        assert self._pool is not None
        return self._pool.submit(do, *arguments).result()

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._isa = None, ""


# ------------------------------------------------------------------------------------------------- the result file


def sources_hash() -> str:
    """What a result is a result of: the audit, this campaign and its attacks, the program that trained.

    Not the plan, because a unit's name says all of it; not the fitted limits, because they stand in the result.
    """
    here = Path(__file__).parent
    paths = [p for p in sorted(FITTED.parent.glob("inference*.py")) if p != FITTED]
    paths += [here / f"{name}.py" for name in ("inference_attacks", "inference_models", "campaign_inference")]
    paths.append(models.PRETRAIN / "train.py")
    hasher = sha256()
    for path in paths:
        hasher.update(path.name.encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


def commit() -> str:
    """The commit of the checkout."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def machine() -> dict[str, Any]:
    """Where it ran."""
    return {
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def resume(out: Path) -> dict[str, Any]:
    """What `out` has of this campaign, or a new start."""
    fresh = {"bench": "inference", "sources_sha256": sources_hash(), "fit": {}, "units": {}, "cost": {}, "apart": {}}
    if out.exists():
        old: dict[str, Any] = json.loads(out.read_text())
        if old["sources_sha256"] == fresh["sources_sha256"]:
            return old
    return fresh


def keep(out: Path, body: dict[str, Any]) -> None:
    """Write the result file, with what follows from its units."""
    body.update({"commit": commit(), "machine": machine(), **report.summary(body["units"])})
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(body, indent=1) + "\n")
    part.replace(out)


def told(verdicts: Sequence[Verdict], seconds: float, audit_seconds: float) -> dict[str, Any]:
    """What the result file keeps of a unit. `caught` holds after how many tokens each flagged reply was flagged."""
    scores = [verdict.scores for verdict in verdicts if verdict.scores is not None]
    flagged = [verdict for verdict in verdicts if not verdict.follows]
    return {
        "n": len(verdicts),
        "tokens": sum(len(found.margins) for found in scores),
        "caught": sorted(verdict.tokens for verdict in flagged),
        "reasons": report.counted(verdict.reason for verdict in flagged),
        "peak": max((max(found.margins) for found in scores), default=0.0),
        **{
            f"mean_{name}": max((sum(v) / len(v) for found in scores if (v := found.sums()[name])), default=0.0)
            for name in ("margin", "far", "near", "logprob")
        },
        "differing": sum(any(found.near) or any(found.margins) or any(found.far) for found in scores),
        "cpu_s": round(seconds, 2),
        "audit_cpu_s": round(audit_seconds, 2),
    }


# ---------------------------------------------------------------------------------------------------------- runs


def run_fit(out: Path, plan: Iterable[Unit], write_to: Path = FITTED) -> dict[str, Limits]:
    """Fit the limits of both numerics and write them into the package."""
    body, providers = resume(out), Providers()
    anything = Limits(99.0, *[Line(1e9, 0.0)] * 4)
    for unit in plan:
        if unit.name in body["fit"]:
            continue
        verdicts = judge(unit, providers.serve(unit)[0], anything)
        scores = [verdict.scores for verdict in verdicts]
        assert all(scores), [verdict.reason for verdict in verdicts]
        body["fit"][unit.name] = [report.extremes(found) for found in scores if found is not None]
        keep(out, body)
        print(f"fit {unit.name}", flush=True)
    providers.close()
    limits = {}
    for numerics in ("fp32", "bf16"):
        found = [
            scores
            for name, kept in body["fit"].items()
            if name.split("/")[1] == numerics
            for scores in map(report.stand_in, kept)
        ]
        limits[numerics] = fit(found)
    body["limits"] = {name: asdict(value) for name, value in limits.items()}
    keep(out, body)
    write_to.write_text(report.module_of(limits))
    return limits


def run(out: Path, plan: Iterable[Unit], limits: Callable[[str], Limits] = lambda name: LIMITS[name]) -> dict[str, Any]:  # type: ignore[index]
    """Report on every unit that is not in `out` yet; the body of the file."""
    body, providers = resume(out), Providers()
    for unit in plan:
        if unit.name in body["units"]:
            continue
        replies, seconds = providers.serve(unit)
        torch.set_num_threads(1)
        started = process_time()
        verdicts = judge(unit, replies, limits(unit.numerics))
        body["units"][unit.name] = told(verdicts, seconds, process_time() - started)
        keep(out, body)
        print(f"{unit.name}: {len(body['units'][unit.name]['caught'])} of {unit.count} flagged", flush=True)
    providers.close()
    return body


def cost(out: Path, names: Sequence[str], tokens: int = 512) -> dict[str, Any]:
    """One honest reply at a time, on one core: CPU seconds of generating and of auditing it, three times over."""
    body = resume(out)
    torch.set_num_threads(1)
    for name in names:
        rows = []
        for seed in range(3):
            unit = Unit(name, "fp32", "report", "cost", 70_000 + seed, 1, tokens)
            on, asked = stage(name, "fp32").real, requests(unit)
            started = process_time()
            replies = generate(on, asked)
            middle = process_time()
            assert judge(unit, [replies[0].plain()], LIMITS["fp32"])[0].follows
            rows.append({"generate_cpu_s": middle - started, "audit_cpu_s": process_time() - middle})
        body["cost"][name] = {"tokens": tokens, "runs": rows}
        keep(out, body)
        print(name, rows, flush=True)
    return body


def shown(model: str, numerics: str, threads: int) -> Any:
    """The last hidden states of one prefill of 64 tokens, as this process computes them."""
    torch.set_num_threads(threads)
    unit = Unit(model, numerics, "report", "apart", 0, 2, 64)
    first, second = (request.prompt for request in requests(unit))
    return prefill(stage(model, numerics).real, first, second)[0].float().numpy()


def apart(out: Path, names: Sequence[str]) -> dict[str, Any]:
    """How far the variants of honest hardware are from the auditor: largest difference over the largest activation."""
    body, providers = resume(out), Providers()
    for isa, threads in KINDS:
        for name in names:
            for numerics in ("fp32", "bf16"):
                own = shown(name, numerics, 1)
                theirs = providers.call(isa, shown, name, numerics, threads)
                share = float(np.abs(theirs - own).max() / np.abs(own).max())
                body.setdefault("apart", {})[f"{name}/{numerics}/{isa}/{threads}"] = share
                keep(out, body)
                print(name, numerics, isa, threads, share, flush=True)
    providers.close()
    return body


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Audits of honest and of cheating providers of inference.")
    parser.add_argument("--fit", action="store_true", help="fit the limits and write them into the package")
    parser.add_argument("--cost", action="store_true", help="measure costs and how far honest ones differ")
    parser.add_argument("--only", choices=("tiny", "smollm2"), help="one model only")
    parser.add_argument("--out", type=Path, default=OUT, help="result file, from which a stopped campaign goes on")
    given = parser.parse_args(arguments)
    if given.fit:
        print(run_fit(given.out, [u for u in fitting() if given.only in (None, u.model)]))
        return 0
    if given.cost:
        names = [given.only] if given.only else ["tiny", "smollm2"]
        apart(given.out, names)
        cost(given.out, names)
        return 0
    body = run(given.out, [unit for unit in reporting() if given.only in (None, unit.model)])
    print(json.dumps({name: body[name] for name in ("honest", "attacks")}, indent=1))
    return 1 if report.broken(body) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
