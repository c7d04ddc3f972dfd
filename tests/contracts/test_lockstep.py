"""The contracts in lockstep with their specification, under Hypothesis, with the ten invariants after every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import invariants
import pytest
from drawn import DrawnDice
from evm import PyEvm, Reverted, Revm
from forgeries import Dice, RandomDice
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from lockstep import World
from schedule import ACTIONS, DECK
from stage import DEPOSIT, Stage

from minga.protocol.stake import Stake


class Lockstep(RuleBasedStateMachine):
    """One rule per action, one named check per invariant."""

    world: World

    @initialize(freezing=st.booleans(), fee_bps=st.sampled_from([0, 1, 100, 300]))
    def begin(self, freezing: bool, fee_bps: int) -> None:
        """Deploy."""
        self.world = World(PyEvm(), freezing=freezing, fee_bps=fee_bps)

    @invariant()
    def agreement(self) -> None:
        """Both sides hold the same state."""
        invariants.agreement(self.world)


def _rule(action: Callable[[World, Dice], None]) -> Any:
    def step(self: Lockstep, data: st.DataObject) -> None:
        action(self.world, DrawnDice(data))

    step.__name__ = action.__name__
    return rule(data=st.data())(step)


def _invariant(check: Callable[[World], None]) -> Any:
    def hold(self: Lockstep) -> None:
        check(self.world)

    hold.__name__ = check.__name__
    return invariant()(hold)


for _action in ACTIONS:
    setattr(Lockstep, _action.__name__, _rule(_action))
for _check in invariants.INVARIANTS:
    setattr(Lockstep, _check.__name__, _invariant(_check))


def test_hypothesis_finds_no_difference_and_no_broken_invariant() -> None:
    """Random schedules on py-evm; every step is followed by all checks."""
    run_state_machine_as_test(
        Lockstep,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(12))
def test_seeded_schedules_on_revm(seed: int) -> None:
    """The same actions from seeds, on another machine, checked every tenth call and at the end."""
    world, dice = World(Revm(), freezing=bool(seed % 2), fee_bps=(0, 1, 100, 300)[seed % 4]), RandomDice(seed)
    for step in range(250):
        dice.choice(DECK)(world, dice)
        if step % 10 == 9:
            check_all(world)
    assert sum(count for reason, count in world.outcomes.items() if reason.startswith("ok")) > 20


def check_all(world: World) -> None:
    """The agreement and the ten invariants."""
    invariants.agreement(world)
    for check in invariants.INVARIANTS:
        check(world)


def test_there_are_ten_named_invariants() -> None:
    """One check for each of the ten, in order."""
    numbers = [check.__name__.split("_")[1] for check in invariants.INVARIANTS]
    assert numbers == [str(number) for number in range(1, 11)]


TAMPERED: dict[str, Callable[[World], object]] = {
    "invariant_1_solvent": lambda world: world.records.extend(world.records * 9),
    "invariant_2_conserved": lambda world: setattr(world.records[0], "refund", world.records[0].refund + 1),
    "invariant_3_settled_is_signed": lambda world: setattr(world.records[0], "best", 0),
    "invariant_4_units_sold_once": lambda world: setattr(world.records[0], "ended", False),
    "invariant_5_each_leaves_alone": lambda world: setattr(world.records[1], "deposit", world.records[1].deposit + 1),
    "invariant_6_redeems_add_up": lambda world: setattr(world.records[0], "paid", world.records[0].paid + 1),
    "invariant_7_only_parties_receive": lambda world: world.may_receive.add(world.market.address),
    "invariant_8_signatures_bind": lambda world: setattr(world, "forgeries_accepted", 1),
    "invariant_9_stake_covers": lambda world: setattr(world, "stake_in", world.stake_in - 1),
    "invariant_10_nothing_stuck": lambda world: world.spec.owed.update({world.stranger.address: 1}),
}
"""Per invariant, one untruth in the books that it must notice."""


@pytest.mark.parametrize("check", invariants.INVARIANTS, ids=lambda check: check.__name__)
def test_each_invariant_can_fail(check: Callable[[World], None]) -> None:
    """It holds over an ended lease and a running one, and no longer once its books are tampered with."""
    stage = Stage(freezing=True)
    world = stage.world
    for attempt in (1, 2):
        offer = stage.offer()
        world.opened(stage.open(offer, attempt=attempt), offer, stage.provider, stage.session, DEPOSIT)
    first = world.records[0]
    first.best = 500
    stage.close(first.lease, 500)
    world._read_events("close")
    world.stake_in = stage.balance(world.registry.address)
    world.spec.registry.stakes[stage.provider.address, stage.arbiter.address] = Stake(world.stake_in)
    check(world)
    TAMPERED[check.__name__](world)
    with pytest.raises((AssertionError, Reverted)):
        check(world)
