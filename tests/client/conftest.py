"""Makes `markets` importable by the tests of the client, and its fixtures available to them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from markets import folder, stage

__all__ = ["folder", "stage"]
