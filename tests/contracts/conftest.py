"""Makes the modules beside these tests importable by name, for the tests and for the scripts alike."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
