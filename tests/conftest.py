"""Makes `fixtures` importable by every test, and its fixtures available to all."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import anyio_backend, clock, dice, local_network

__all__ = ["anyio_backend", "clock", "dice", "local_network"]
