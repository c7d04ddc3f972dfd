"""Makes the modules beside these tests importable, and a chain of one's own to every test that stops or bends it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import SeededDice, SystemClock
from minga.chain.local import LocalChain, start_local


@pytest.fixture
async def own_chain(tmp_path: Path, dice: SeededDice) -> AsyncIterator[LocalChain]:
    """An embedded chain for one test. It dumps its state only when it is stopped."""
    chain = await start_local(tmp_path / "own", SystemClock(), dice, state_interval=3600)
    yield chain
    await chain.stop()
