"""Disputes in lockstep with its specification: under Hypothesis, in seasons, on two machines, by three generators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dispute_invariants as invariants
import hypothesis.strategies as st
import pytest
from dispute_players import Season, season
from dispute_scene import Scene
from dispute_world import DisputeWorld
from drawn import DrawnDice
from evm import PyEvm
from forgeries import RandomDice
from hypothesis import HealthCheck, given, settings
from test_differential import GENERATORS, Tracing
from test_disputes_mutants import Roomy

from minga.core.crypto import Address
from minga.protocol.dispute import Outcome, Phase


@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_hypothesis_finds_no_difference_and_no_broken_invariant(data: st.DataObject) -> None:
    """Steps of any season, every one followed by all checks."""
    played = Season(DrawnDice(data), games=3)
    for _ in range(25):
        played.step()
        invariants.check_all(played.world)


@pytest.mark.parametrize("seed", range(8))
def test_whole_seasons(seed: int) -> None:
    """Other seeds than the campaign's; whoever is honest ends unharmed, and not a unit is left behind."""
    played = season(9_000_000 + seed, games=20)
    assert len(played.world.rules.tables) == 20
    assert sum(count for reason, count in played.world.outcomes.items() if reason.startswith("ok")) > 100


def test_a_season_on_an_independent_machine() -> None:
    """py-evm answers like revm."""
    played = Season(RandomDice(3), games=4, machine=PyEvm())
    played.play()
    assert all(table.phase is Phase.DONE for table in played.world.rules.tables.values())


class RoomyTracing(Roomy, Tracing):
    """Both."""


def trace(generator: str) -> tuple[str, int]:
    """The hash of everything that can be seen of a season with the contracts compiled one way, and its calls."""
    optimize, experimental = GENERATORS[generator]
    machine = RoomyTracing()
    played = Season(RandomDice(11), 12, {"optimize": optimize, "experimental": experimental}, machine)
    played.play()
    return machine.trace.hexdigest(), played.world.calls


@pytest.mark.slow
def test_every_code_generator_gives_the_same_trace() -> None:
    """-O gas, -O none and -O codesize agree. (Venom 0.4.3 cannot compile `_settle`: too many variables.)"""
    found = {generator: trace(generator) for generator in ("gas", "none", "codesize")}
    assert len(set(found.values())) == 1, found
    assert found["gas"][1] > 200


TAMPERED: dict[str, Callable[[DisputeWorld], object]] = {
    "agreement": lambda world: world.rules.tables.update({1: replace(world.rules.tables[1], since=1)}),
    "solvent": lambda world: world.rules.owed.update({Address("0x" + "77" * 20): 1}),
    "conserved": lambda world: world.ledger.balances.update({Address("0x" + "77" * 20): 1}),
    "each_game_is_short": lambda world: (
        world.rules.tables.update({1: replace(world.rules.tables[1], phase=Phase.POOL_VOTE, since=world.now)}),
        world.began.update({1: 1}),
    ),
    "condemned_once": lambda world: world.rules.condemned.clear(),
    "half_at_most": lambda world: world.finished[1].update({"for_tenant": world.finished[1]["for_tenant"] + 1}),
}
"""Per check, one untruth in the books that it must notice."""


@pytest.mark.parametrize("check", [invariants.agreement, *invariants.INVARIANTS], ids=lambda check: check.__name__)
def test_each_check_can_fail(check: Callable[[DisputeWorld], None]) -> None:
    """It holds over a finished game, and no longer once its books are tampered with."""
    scene = Scene()
    scene.finished()
    assert scene.world.rules.tables[1].outcome is Outcome.CONVICTED
    check(scene.world)
    TAMPERED[check.__name__](scene.world)
    with pytest.raises(AssertionError):
        check(scene.world)


def test_a_harmed_player_is_noticed() -> None:
    """The season's own judgement can fail: an honest provider condemned, an honest challenger that lost."""
    played = season(9_000_103, games=20)
    tables: dict[int, Any] = played.world.rules.tables
    innocent = next(game for game in tables if played.is_honest(played.world.job_of(game).provider))
    mine = next(game for game in tables if tables[game].challenger == played.validator.address)
    for game, wrong in ((innocent, Outcome.CONVICTED), (mine, Outcome.ACQUITTED)):
        kept = tables[game]
        tables[game] = replace(kept, outcome=wrong)
        with pytest.raises(AssertionError):
            played.judge()
        tables[game] = kept
    played.judge()
