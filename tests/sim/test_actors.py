"""Each hostile actor plays: its victims' loss keeps the bound that it names, and it did what its story says."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from minga.sim.actors import ACTORS
from minga.sim.shape import Outcome, Shape
from minga.sim.world import World, run_world

SEEDS = range(2)
QUIET = ("board-hides", "board-keeps", "board-forges", "board-hangs")


@cache
def played(name: str, seed: int) -> tuple[Outcome, World]:
    """A world with this actor alone."""
    world = World(Shape(seed, agents=10, minutes=5, actor=name))
    return world.run(), world


def test_there_are_at_least_25_of_them_on_every_side():
    sides = Counter(actor.side for actor in ACTORS.values())
    assert len(ACTORS) >= 25
    assert sides["provider"] >= 15
    assert sides["tenant"] >= 10
    assert sides["board"] >= 2
    assert sides["rpc"] >= 2


def test_each_has_a_story_and_a_bound():
    for name, actor in ACTORS.items():
        assert name == actor.name
        assert actor.story.endswith("."), name
        assert len(actor.story) > 20
        assert actor.bound in ("nothing", "quantum", "clock")
    assert len({actor.story for actor in ACTORS.values()}) == len(ACTORS)


@pytest.mark.parametrize("name", ACTORS)
def test_nobody_honest_loses_more_than_the_bound(name):
    for seed in SEEDS:
        outcome, _ = played(name, seed)
        assert not outcome.violation, f"minga sim world --seed {seed} --actor {name}: {outcome.violation}"
        assert outcome.actors == (name,)


@pytest.mark.parametrize("name", [name for name, actor in ACTORS.items() if actor.side == "provider"])
def test_a_hostile_provider_gets_customers(name):
    leases = 0
    for seed in range(6):
        _, world = played(name, seed) if seed in SEEDS else _fresh(name, seed)
        rogues = {provider.key.address for provider in world.watch.providers if not provider.honest}
        leases += sum(lease.provider in rogues for lease in world.chain.market.leases.values())
        if leases:
            break
    assert leases > 0


def _fresh(name: str, seed: int) -> tuple[Outcome, World]:
    world = World(Shape(seed, agents=10, minutes=5, actor=name))
    return world.run(), world


@pytest.mark.parametrize("name", [name for name, actor in ACTORS.items() if actor.side == "tenant"])
def test_a_hostile_tenant_acts(name):
    done = 0
    for seed in SEEDS:
        _, world = played(name, seed)
        rogue = next(node for node in world.nodes if node.name.startswith("x0"))
        done += sum(transaction.block is not None for transaction in rogue.transactions.values())
    assert done > 0


def test_under_spec_machines_are_refused_at_no_cost():
    for seed in range(6):
        _, world = _fresh("under-spec", seed)
        slow = {provider.key.address for provider in world.watch.providers if not provider.honest}
        for name, closing in world.chain.closings.items():
            if world.chain.market.leases[name].provider in slow:
                assert closing.paid + closing.fee == 0


def test_a_forger_is_paid_a_quantum_at_most_where_checkpoints_are_checked():
    checked = 0
    for seed in range(6):
        _, world = _fresh("forger", seed)
        for runner in world.watch.runners:
            assert runner.plan.accept
            for lease in runner.state.leases:
                provider = next(item for item in world.watch.providers if item.key.address == lease.deal.provider)
                if not provider.honest and runner.lease_name(lease.attempt) in world.chain.closings:
                    checked += 1
                    assert lease.taken <= lease.cost(lease.deal.quantum)
    assert checked > 2


def test_vouchers_of_strangers_are_worth_nothing():
    for name in ("tenant-voucher-forger", "cross-vouchers"):
        for seed in SEEDS:
            _, world = played(name, seed)
            rogues = {t for t in world.chain.market.ledger.balances if t.startswith("0x")}
            assert rogues
            for provider in world.watch.providers:
                for run in provider.leases.values():
                    assert run.state.paid <= run.state.deposit


@pytest.mark.parametrize("name", QUIET)
def test_a_hostile_board_stops_no_job(name):
    ended: Counter[str] = Counter()
    for seed in SEEDS:
        ended.update(played(name, seed)[0].phases)
    assert ended["done"] > 0


def test_an_actor_alone_makes_the_same_history_each_time():
    assert run_world(Shape(2, actor="garbage")).trace == run_world(Shape(2, actor="garbage")).trace
    assert run_world(Shape(2, actor="garbage")).trace != run_world(Shape(2, actor="flooder")).trace
