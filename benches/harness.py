"""What every benchmark records: machine, commit, date of the commit, and figures; results are JSON in `results/`.

A benchmark measures both sides of a ratio in one run, in turns, so that a busy machine moves both. `rounds` gives the
medians and the extremes; nothing here judges.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """CPU model, cores, kernel and Python of this machine."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def commit() -> str:
    """The commit that was measured, with `+` when files were changed since."""
    here = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=False)
    return (head.stdout.strip() or "unknown") + ("+" if dirty.stdout.strip() else "")


def rounds(sides: Mapping[str, Callable[[], Any]], count: int) -> dict[str, dict[str, float]]:
    """Run each side `count` times in turns; per side the minimum, median and maximum in seconds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(count):
        for name, run in sides.items():
            started = perf_counter()
            run()
            times[name].append(perf_counter() - started)
    return {name: spread(values) for name, values in times.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median, maximum and n of some figures."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)}


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write `results/NAME.json` and print it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"bench": name, "commit": commit(), "machine": machine()} | figures, indent=2)
    path.write_text(text + "\n")
    print(text)
    return path
