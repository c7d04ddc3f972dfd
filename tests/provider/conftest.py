"""Makes `tenants` importable by the tests of the provider, and its fixtures available to them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tenants import folder, market

__all__ = ["folder", "market"]
