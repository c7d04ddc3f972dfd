"""What a verified job adds to its order: the trace library as an input, the variables that switch it on, the work.

| variable                          | value                                                                  |
|-----------------------------------|------------------------------------------------------------------------|
| MINGA_TRACE_DIR                   | where the trace is written; a folder of the job's output, so it comes back |
| MINGA_TRACE_EVERY, _KEEP          | steps a leaf; leaves between two kept states                           |
| MINGA_TRACE_DETERMINISM           | D0, D1 or D2                                                           |
| PYTHONPATH                        | begins with the folder of the trace library                            |
| `PINS`                            | D0 on CPUs: one thread, one instruction set; the job file may say otherwise |

All of it stands in the manifest, so all of it is in the work that the tenant signs. Does not know: what the library
does (`minga.verify`), nor who checks. Rule: whatever decides the result is named, or the job is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import minga
from minga.client.jobspec import JobSpec, Verify
from minga.core.errors import InvalidInput
from minga.core.work import Trace
from minga.verify.ordered import FOLDER

if TYPE_CHECKING:
    from minga.client.folder import Artifact
    from minga.client.order import Order

LIBRARY = "/job/home/.minga/library"
"""Where the trace library is inside the job."""

PINS: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTHONHASHSEED": "0",
}
"""What makes two machines of one class agree bit by bit: sums in the same order, by the same instructions."""


def is_verified(spec: JobSpec) -> bool:
    """Whether the job's work is to be verified."""
    return spec.verify.mode != "none"


def check_verified(spec: JobSpec) -> None:
    """Return if nothing else in the job speaks against verifying it.

    Raises:
        InvalidInput: it has secrets, reaches hosts, or asks for what is not built yet.
    """
    if not is_verified(spec):
        return
    if spec.verify.mode == "replicate":
        raise InvalidInput("mode replicate is not built yet", "use mode: audit")
    if spec.secrets:
        raise InvalidInput("a verified job has secrets", "take them out: whoever checks the work must run it too")
    if spec.egress:
        raise InvalidInput(
            f"a verified job reaches hosts ({spec.egress[0]})", "send the files along: others could be served others"
        )


def verified_of(order: Order, artifacts: Iterable[Artifact]) -> tuple[str, str, int, int] | None:
    """How an order's work is verified, and bytes: those of the library, sent to each provider, and of its trace here.

    None when it is not verified.
    """
    if order.verify is None:
        return None
    sent = sum(int(item["bytes"]) for item in order.inputs if item["target"] == LIBRARY)
    traced = sum(item.bytes for item in artifacts if item.path.startswith(f"{FOLDER}/"))
    return str(order.verify["mode"]), str(order.verify["trace"]["determinism"]), sent, traced


def trace_of(verify: Verify) -> Trace:
    """How the job is traced."""
    return Trace(determinism=verify.determinism, every=verify.every, keep=verify.keep)


def variables(spec: JobSpec) -> dict[str, str]:
    """All variables of a verified job: the pins of D0, the job's own, the trace's."""
    verify, own = spec.verify, dict(spec.envs)
    path = LIBRARY + (f":{own['PYTHONPATH']}" if own.get("PYTHONPATH") else "")
    return {
        **(PINS if verify.determinism == "D0" else {}),
        **own,
        "PYTHONPATH": path,
        "MINGA_TRACE_DIR": f"/job/out/{FOLDER}",
        "MINGA_TRACE_EVERY": str(verify.every),
        "MINGA_TRACE_KEEP": str(verify.keep),
        "MINGA_TRACE_DETERMINISM": verify.determinism,
    }


def library() -> dict[str, Path]:
    """The trace library's files by their name inside `LIBRARY`."""
    from minga.verify.library import LIBRARY as FILES

    root = Path(minga.__file__).parent
    return {f"minga/{name}": root / name for name in FILES}
