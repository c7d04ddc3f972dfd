"""Makes the modules beside these tests importable by name, and their fixtures known."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny_model

__all__ = ["tiny_model"]
