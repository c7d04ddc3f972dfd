"""The trace of a job as its files look: shell text that leaves one, for jobs that need no PyTorch.

Import the functions (`from traces import tracing`); what a trace means is tested beside `minga.verify`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def facts(leaves: int, **changes: Any) -> dict[str, Any]:
    """The numbers of a trace of so many leaves, traced as a job file does it by default; `changes` override."""
    found = {"version": 1, "determinism": "D0", "every": 1, "keep": 50, "first_step": 0, "steps": leaves - 1}
    return {**found, "leaves": leaves, **changes}


def facts_text(leaves: int, **changes: Any) -> str:
    """`trace.json`."""
    return json.dumps(facts(leaves, **changes), sort_keys=True, separators=(",", ":"))


def tracing(leaves: Sequence[bytes], where: str = "$MINGA_TRACE_DIR", **changes: Any) -> str:
    """Shell text that leaves a trace with these leaves, its kept states not those of any model."""
    told = facts(len(leaves), **changes)
    octal = "".join(f"\\{byte:03o}" for leaf in leaves for byte in leaf)
    kept = " ".join(f"{where}/states/{leaf:08d}.state" for leaf in range(0, len(leaves), told["keep"]))
    return f"""
mkdir -p {where}/states
for state in {kept}; do echo state > $state; done
printf '{octal}' > {where}/leaves.bin
printf '%s' '{facts_text(len(leaves), **changes)}' > {where}/trace.json
"""
