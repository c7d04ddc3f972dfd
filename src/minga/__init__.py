"""Minga: anyone's GPU does anyone's AI work, and nobody has to be trusted.

The names a user imports (`minga.Client`, `minga.function`, `minga.JobSpec`) are loaded on first use, so that
`import minga` stays cheap.
"""

from __future__ import annotations

import random
from typing import Any

__version__ = "0.1.0"

PYTHON_DICE = random.getstate()
"""Python's global generator when this package was imported: one that still is so was neither seeded nor used."""

_PUBLIC = {
    "Client": "minga.sdk",
    "JobHandle": "minga.client.session",
    "function": "minga.sdk",
    "JobSpec": "minga.client.jobfile",
    "MingaError": "minga.core.errors",
    "trace": "minga.verify.trace",
}

__all__ = ["Client", "JobHandle", "JobSpec", "MingaError", "__version__", "function", "trace"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use.

    Raises:
        AttributeError: the name is not public.
    """
    if name not in _PUBLIC:
        raise AttributeError(f"module 'minga' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
