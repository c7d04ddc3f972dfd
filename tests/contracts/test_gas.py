"""Golden gas: benches/gas.json, from receipts, holds within 24 gas, and the targets are met."""

from __future__ import annotations

import json

import pytest
from dispute_gas import BLOCK_GAS, COMMIT_GAS_TARGET, MOVE_GAS_TARGET
from evm import ROOT, PyEvm
from gas_scenes import OPEN_AND_CLOSE_GAS_TARGET, OPEN_GAS_TARGET, measure

GOLDEN = {
    name: gas for name, gas in json.loads((ROOT / "benches" / "gas.json").read_text()).items() if name != "measured_on"
}
TOLERANCE = 24
LOTS = {"dispute_draw": 40_000}
"""How far the figure depends on the block hash that a jury is drawn by: it says how many seats a draw passes over."""


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """The same scenes as py-evm transactions: cold slots, intrinsic gas, refunds."""
    return measure(lambda: PyEvm(receipts=True))


def test_the_same_scenes_are_measured(measured: dict[str, int]) -> None:
    """No scene is lost or new without gas.json saying so."""
    assert sorted(measured) == sorted(GOLDEN)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_gas(name: str, measured: dict[str, int]) -> None:
    """Another machine, the same figure."""
    assert abs(measured[name] - GOLDEN[name]) <= LOTS.get(name, TOLERANCE), (
        "run python benches/bench_gas.py and look at the diff"
    )


def test_targets() -> None:
    """A lease without arbiter in the steady state."""
    assert GOLDEN["open"] <= OPEN_GAS_TARGET
    assert GOLDEN["open"] + GOLDEN["close"] <= OPEN_AND_CLOSE_GAS_TARGET


def test_targets_of_disputes() -> None:
    """A commitment, a move, the end of the largest game; the scene checks that 2**20 leaves take 20 moves at most."""
    assert max(GOLDEN["dispute_commit"], GOLDEN["dispute_commit_agent"]) <= COMMIT_GAS_TARGET
    moves = ("expand", "pick", "before", "deepen", "operators", "operator_expand", "operator_pick")
    assert max(GOLDEN[f"dispute_{move}"] for move in moves) <= MOVE_GAS_TARGET
    ends = ("convicted", "of_63", "of_63_fined")
    assert max(GOLDEN[f"dispute_finish_{end}"] for end in ends) <= BLOCK_GAS
