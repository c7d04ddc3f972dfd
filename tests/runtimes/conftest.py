"""Makes `sandboxes` importable by the tests of the drivers, and its fixtures available to them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sandboxes import run, sandbox

__all__ = ["run", "sandbox"]
