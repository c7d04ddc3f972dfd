"""Makes the modules beside these tests importable by name, and their fixtures known."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from command_line import home, jobs_python, minga
from networks import net

__all__ = ["home", "jobs_python", "minga", "net"]
