"""Makes the modules beside these tests importable, and the client's stage, on which the scenarios play."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "client"))
sys.path.insert(2, str(Path(__file__).parent.parent / "cli"))

from command_line import home, jobs_python, minga
from markets import folder, stage
from networks import net

__all__ = ["folder", "home", "jobs_python", "minga", "net", "stage"]
