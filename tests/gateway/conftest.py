"""Makes the modules beside these tests importable by name, and their fixtures known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workloads"))

from tiny_models import tiny_model

__all__ = ["tiny_model"]


@pytest.fixture
def anyio_backend() -> str:
    """Which event loop `anyio` tests use."""
    return "asyncio"
