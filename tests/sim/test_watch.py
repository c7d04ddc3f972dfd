"""The judge itself: each rule is broken once by hand, and says so; a kept one does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.provider import events as pe
from minga.sim.shape import Shape
from minga.sim.verdict import judge
from minga.sim.watch import Watch
from minga.sim.world import World


@pytest.fixture(scope="module")
def ended() -> World:
    """A plain world after its end."""
    world = World(Shape(6, agents=8, plain=True))
    assert not world.run().violation
    return world


@pytest.fixture
def world(ended: World) -> Any:
    """The same, with nothing found; what a test breaks is put back."""
    ended.watch.violation, ended.kernel.halted = "", False
    yield ended
    ended.watch.violation, ended.kernel.halted = "", False


def rule(world: World) -> str:
    return world.watch.violation.split(":")[0]


def paid(world: World) -> tuple[Any, Any]:
    """A job that paid, and its lease."""
    runner = next(item for item in world.watch.runners if item.state.past[-1].paid > 10)
    return runner, runner.state.past[-1]


def run_of(world: World) -> Any:
    return next(run for provider in world.watch.providers for run in provider.leases.values() if run.state.paid > 10)


def test_a_kept_world_is_judged_good_again(world: World) -> None:
    judge(world.watch)
    assert not world.watch.violation


def test_the_first_broken_rule_halts_the_world_and_is_kept(world: World) -> None:
    watch: Watch = world.watch
    watch.require(True, "fine")
    assert not world.kernel.halted
    watch.require(False, "first", 1, "two")
    watch.require(False, "second")
    assert watch.violation == "first: 1 two"
    assert world.kernel.halted


def test_money_that_came_from_nowhere_is_seen(world: World) -> None:
    balances = world.chain.market.ledger.balances
    name = next(iter(balances))
    balances[name] += 1
    world.watch.block(world.chain.blocks[-1])
    balances[name] -= 1
    assert rule(world) == "conservation"


def test_a_market_that_owes_more_than_it_holds_is_seen(world: World) -> None:
    world.chain.market.fees += 1
    world.watch.block(world.chain.blocks[-1])
    world.chain.market.fees -= 1
    assert rule(world) == "conservation"


def test_a_wallet_that_lost_more_than_the_budget_is_seen(world: World) -> None:
    runner, _ = paid(world)
    world.watch.funded[runner.main.address] += runner.plan.budget + 1
    world.watch.block(world.chain.blocks[-1])
    world.watch.funded[runner.main.address] -= runner.plan.budget + 1
    assert rule(world) == "budget"


def test_seconds_that_did_not_run_are_seen(world: World) -> None:
    run = run_of(world)
    before, run.state = run.state, replace(run.state, working_s=run.state.working_s + 50, paid=run.state.deposit)
    world.watch.provider_stepped(run, before, pe.Metered(1))
    run.state = before
    assert rule(world) == "meter"


def test_a_second_quantum_unpaid_is_seen(world: World) -> None:
    run = run_of(world)
    before, run.state = run.state, replace(run.state, paid=0)
    world.watch.provider_stepped(run, run.state, pe.Metered(1))
    run.state = before
    assert rule(world) in ("meter", "") or before.working_s <= before.facts.quantum


def test_a_voucher_that_falls_is_seen(world: World) -> None:
    run = run_of(world)
    world.watch.provider_stepped(run, replace(run.state, paid=run.state.paid + 1), pe.Metered(1))
    assert rule(world) == "vouchers"


def test_an_effect_before_its_record_is_seen(world: World) -> None:
    run = run_of(world)
    run.applied += 1
    world.watch.provider_acts(run, pe.Launch())
    run.applied -= 1
    assert rule(world) == "durability"


def test_a_close_with_less_than_the_best_voucher_is_seen(world: World) -> None:
    run = run_of(world)
    world.watch.provider_acts(run, pe.CloseLease(run.state.paid - 1, "", 0))
    assert rule(world) == "vouchers"
    world.watch.violation, world.kernel.halted = "", False
    world.watch.provider_acts(run, pe.CloseLease(run.state.paid, "", 0))
    assert rule(world) == ""


def test_a_receipt_for_what_is_not_on_the_disk_is_seen(world: World) -> None:
    runner, lease = paid(world)
    world.watch.voucher_acknowledged(runner, lease.attempt, lease.signed)
    assert rule(world) == ""
    world.watch.voucher_acknowledged(runner, lease.attempt, lease.signed + 1)
    assert rule(world) == "durability"


@pytest.mark.parametrize(
    ("share", "expected"), [(-1, "vouchers"), (1, "durability"), (1 << 60, "durability")],
)  # fmt: skip
def test_a_voucher_that_falls_or_is_not_journaled_is_seen(world: World, share: int, expected: str) -> None:
    runner, lease = paid(world)
    truth = world.watch.truth(runner, lease.attempt)
    signed = truth.signed
    world.watch.voucher_signed(runner, lease.attempt, lease.signed + share)
    truth.signed = signed
    assert rule(world) == expected


def test_a_voucher_above_the_clock_is_seen(world: World) -> None:
    runner, lease = paid(world)
    truth = world.watch.truth(runner, lease.attempt)
    was, truth.running_at = truth.running_at, world.kernel.seconds
    world.watch.voucher_signed(runner, lease.attempt, lease.signed)
    truth.running_at = was
    assert rule(world) == "clock"


def test_a_machine_that_failed_and_is_taken_again_is_seen(world: World) -> None:
    runner, lease = paid(world)
    state = runner.state
    runner.state = replace(state, lease=replace(lease, deposit=Amount(1)))
    found = ev.Found(lease.deal, {})
    world.watch.tenant_stepped(runner, state, found)
    assert rule(world) == ""
    world.watch.burnt[runner.plan.job, lease.deal.machine] = 1.0
    world.watch.tenant_stepped(runner, state, found)
    runner.state = state
    del world.watch.burnt[runner.plan.job, lease.deal.machine]
    assert rule(world) == "exclusion"


def test_a_deposit_that_is_no_slice_is_seen(world: World) -> None:
    runner, lease = paid(world)
    state = runner.state
    runner.state = replace(state, past=(), lease=replace(lease, deposit=runner.plan.budget, signed=Amount(0)))
    world.watch.tenant_stepped(runner, state, ev.Found(lease.deal, {}))
    runner.state = state
    assert rule(world) == "budget"


def test_an_older_checkpoint_is_seen(world: World) -> None:
    runner, _ = paid(world)
    newer = replace(runner.state, checkpoint=(9, 9, 9))
    older = runner.state
    runner.state = replace(older, checkpoint=(0, 1, 1))
    world.watch.tenant_stepped(runner, newer, ev.Ticked())
    runner.state = older
    assert rule(world) == "checkpoints"


def test_a_job_that_did_not_end_is_seen(world: World) -> None:
    runner, _ = paid(world)
    state, runner.state = runner.state, replace(runner.state, phase="running")
    judge(world.watch)
    runner.state = state
    assert rule(world) == "end"


def test_a_journal_that_gives_another_state_is_seen(world: World) -> None:
    runner, _ = paid(world)
    state, runner.state = runner.state, replace(runner.state, failures=7)
    judge(world.watch)
    runner.state = state
    assert rule(world) == "replay"


def test_a_tenant_that_paid_for_nothing_is_seen(world: World) -> None:
    runner, lease = paid(world)
    name = runner.lease_name(lease.attempt)
    held = world.watch.processes.pop(name)
    judge(world.watch)
    world.watch.processes[name] = held
    assert rule(world) == "loss"


def test_a_provider_that_was_not_paid_is_seen(world: World) -> None:
    run = run_of(world)
    name = run.state.facts.lease_id
    closing = world.chain.closings[name]
    world.chain.closings[name] = replace(closing, refunded=closing.deposit)
    honest = [runner.honest for runner in world.watch.runners]
    for runner in world.watch.runners:
        runner.honest = False
    second = run.state.facts.quantum
    judge(world.watch)
    for runner, was in zip(world.watch.runners, honest, strict=True):
        runner.honest = was
    world.chain.closings[name] = closing
    assert rule(world) == ("loss" if run.state.working_s > second + 1 else "")
