"""What the scenarios of users' pains share: a network of this machine, driven by commands as its users drive it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
from networks import Net

COUNTING = """
name: counting
run: |
  trap 'echo "told to end after step $step"; exit 143' TERM
  step=$(cat "$MINGA_CHECKPOINT_DIR/step" 2>/dev/null || echo 0)
  echo "begins after step $step"
  while [ "$step" -lt STEPS ]; do
    sleep 0.5; step=$((step + 1)); echo "step $step"
    echo "{\\"step\\": $step, \\"total\\": STEPS}" >> "$MINGA_PROGRESS"
    echo "$step" > "$MINGA_CHECKPOINT_DIR/.step" && mv "$MINGA_CHECKPOINT_DIR/.step" "$MINGA_CHECKPOINT_DIR/step"
  done
  echo "$step" > "$MINGA_OUTPUT_DIR/result"
checkpoint: true
grace: 5s
budget: {total: 0.50}
"""
"""Half a second a step, a checkpoint after each; told to end, it ends at once."""


def counting(folder: Path, steps: int, **changes: str) -> str:
    """Write the job file of so many steps; `changes` are lines that replace those of the same field."""
    lines = COUNTING.replace("STEPS", str(steps)).strip().splitlines()
    for name, value in changes.items():
        lines = [line for line in lines if not line.startswith(f"{name}:")] + [f"{name}: {value}"]
    path = folder / "counting.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def job_named(net: Net, name: str) -> dict[str, Any]:
    """The newest job of that name; empty when there is none."""
    found = [job for job in net.json("jobs") if job["name"] == name]
    return dict(found[-1]) if found else {}


def lease_of(net: Net, job: str) -> str:
    """The provider's process (`p1`, `p2`) at which a job is now."""
    address = job_named(net, job)["provider"]
    ready = json.loads((net.home / "local" / "processes.json").read_text())
    return next(record["name"] for record in ready if record["ready"].get("provider") == address)


def process_of(net: Net, name: str) -> psutil.Process:
    """The process of that name."""
    return psutil.Process(net.processes()[name]["pid"])


def settled(bill: dict[str, Any]) -> None:
    """Every token unit of a bill is accounted for, and none is locked."""
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["refunded"] + bill["locked"]
    assert (bill["conserved"], bill["locked"]) == (True, 0)


def balance(net: Net) -> int:
    """Token units of the tenant's wallet."""
    return int(net.json("wallet", "balance")["tokens"])
