"""The part of this package that a traced job takes along, so that its version is part of the hashed work.

Knows: which files those are. Does not know: bundles. Rule: what is listed imports only what is listed, the standard
library, and, when used, PyTorch, numpy, blake3, transformers: a job's environment has no Minga and none of its needs.
"""

from __future__ import annotations

from importlib.resources import files

LIBRARY = (
    "__init__.py",
    "core/__init__.py",
    "core/codec.py",
    "core/errors.py",
    "verify/__init__.py",
    "verify/callbacks.py",
    "verify/capture.py",
    "verify/grid.py",
    "verify/grid_activations.py",
    "verify/grid_exact.py",
    "verify/grid_functions.py",
    "verify/grid_layers.py",
    "verify/grid_norms.py",
    "verify/grid_random.py",
    "verify/grid_rules.py",
    "verify/grid_sums.py",
    "verify/leaves.py",
    "verify/state.py",
    "verify/trace.py",
)
"""Paths below the package, sorted."""


def trace_library() -> dict[str, bytes]:
    """The files, as `minga/…` path and content: put the folder that holds them on the job's PYTHONPATH."""
    package = files("minga")
    return {f"minga/{name}": package.joinpath(name).read_bytes() for name in LIBRARY}
