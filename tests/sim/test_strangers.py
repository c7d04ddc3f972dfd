"""Each hostile tenant does to one honest provider what its story says, and the provider loses a quantum at most."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stages import PRICE, USUAL, Stage

from minga.protocol.lease import Phase
from minga.sim import rogue_boards, rogue_tenants
from minga.sim.actors import ACTORS
from minga.sim.kernel import SECOND
from minga.sim.rogue_tenants import TENANTS
from minga.sim.stranger import Rogue
from minga.sim.verdict import judge

SECOND_COST = PRICE // 3600


def met(kind: type[Rogue], prepaid: int = 0, seconds: float = 1500.0, seed: int = 1) -> tuple[Stage, Rogue]:
    """This stranger in a world of one provider, until nothing of it is left."""
    stage = Stage(seed, ask=replace(USUAL, prepaid_quanta=prepaid))
    rogue = kind(stage.world.crowd, "x0")
    stage.run(seconds)
    stage.world.healed = True
    stage.run(2000)
    stage.runner.honest = False  # no job was ordered here
    with stage.world.ring.installed():
        judge(stage.watch)
    assert not stage.watch.violation, stage.watch.violation
    return stage, rogue


def unpaid(stage: Stage) -> list[int]:
    """What each lease left unpaid."""
    found = []
    for run in stage.provider.leases.values():
        closing = stage.chain.closings[run.state.facts.lease_id]
        found.append(run.state.owed - (closing.deposit - closing.refunded))
    return found


@pytest.mark.parametrize("prepaid", [0, 1])
@pytest.mark.parametrize("actor", TENANTS, ids=lambda actor: actor.name)
def test_no_lease_leaves_more_than_a_quantum_unpaid(actor: object, prepaid: int) -> None:
    kind = next(item for item in vars(rogue_tenants).values() if getattr(item, "__doc__", "") and _is(item, actor))
    stage, _ = met(kind, prepaid)
    assert max(unpaid(stage), default=0) <= SECOND_COST * (USUAL.quantum + 1)


def _is(item: object, actor: object) -> bool:
    story = (item.__doc__ or "").split("\n")[0]
    return isinstance(item, type) and issubclass(item, Rogue) and story == actor.story  # type: ignore[attr-defined]


def test_who_never_pays_gets_one_quantum_of_work_a_lease() -> None:
    stage, _ = met(rogue_tenants.NeverPays)
    ran = [stage.watch.ran_s(run.state.facts.lease_id) for run in stage.provider.leases.values()]
    assert ran
    assert max(ran) <= USUAL.quantum + 31  # and at most the grace of a forced stop, in which nothing counts


def test_who_stops_paying_paid_what_was_worked_before() -> None:
    stage, _ = met(rogue_tenants.StopsPaying)
    worst = max(run.state.owed - run.state.paid for run in stage.provider.leases.values())
    assert worst <= SECOND_COST * (USUAL.quantum + 1)
    assert any(run.state.paid for run in stage.provider.leases.values())


def test_replays_change_nothing() -> None:
    stage, _ = met(rogue_tenants.Replayer)
    for run in stage.provider.leases.values():
        assert len(set(run.state.nonces)) == len(run.state.nonces)
        assert run.state.paid == stage.watch.best_voucher(run)


def test_an_early_leaver_pays_its_best_voucher() -> None:
    stage, rogue = met(rogue_tenants.EarlyLeaver)
    assert any(name.startswith("sc/") for name in rogue.node.transactions)
    for closing in stage.chain.closings.values():
        assert closing.by == "provider"


def test_a_flood_is_refused_and_the_provider_goes_on() -> None:
    stage, _ = met(rogue_tenants.Flooder)
    assert stage.provider.node.up
    assert stage.world.wires.messages > 500


def test_free_riders_come_with_new_addresses_and_start_nothing_where_voucher_1_is_asked() -> None:
    free, _ = met(rogue_tenants.FreeRider)
    tenants = {run.state.facts.tenant for run in free.provider.leases.values()}
    assert len(tenants) == len(free.provider.leases) >= 2
    asked, _ = met(rogue_tenants.FreeRider, prepaid=1)
    assert all(not asked.watch.processes.get(run.state.facts.lease_id) for run in asked.provider.leases.values())


def test_locked_units_come_back() -> None:
    stage, _ = met(rogue_tenants.UnitLocker)
    assert sum(stage.chain.market.leased.values()) == 0
    assert len(stage.provider.leases) >= USUAL.units
    assert {closing.paid for closing in stage.chain.closings.values()} == {0}


def test_who_never_starts_is_closed_for_idleness() -> None:
    stage, _ = met(rogue_tenants.NeverStarts)
    assert all(account.phase is Phase.CLOSED for account in stage.chain.market.accounts.values())
    assert not stage.watch.processes


def test_a_total_above_the_deposit_is_no_payment() -> None:
    stage, _ = met(rogue_tenants.OverDeposit)
    assert all(run.state.paid <= run.state.deposit for run in stage.provider.leases.values())


@pytest.mark.parametrize("kind", [rogue_tenants.VoucherForger, rogue_tenants.CrossVouchers])
def test_bad_signatures_are_no_payment(kind: type[Rogue]) -> None:
    stage, _ = met(kind)
    assert {run.state.paid for run in stage.provider.leases.values()} == {0}


def test_a_race_of_closes_ends_with_the_better_voucher() -> None:
    stage, _ = met(rogue_tenants.CloseRacer)
    raced = [run for run in stage.provider.leases.values() if run.state.paid]
    assert raced
    for run in raced:
        closing = stage.chain.closings[run.state.facts.lease_id]
        assert closing.paid + closing.fee == run.state.paid


def test_gifts_change_no_price() -> None:
    stage = Stage(work={"seconds": 100})
    rogue_tenants.Griefer(stage.world.crowd, "x0")
    stage.order()
    stage.finish()
    stage.run(200)
    lease = stage.runner.state.past[0]
    assert stage.chain.gifts
    ran = stage.watch.ran_s(stage.runner.lease_name(0))
    assert lease.paid + lease.fee == SECOND_COST * int(ran)


def test_bad_manifests_are_refused_and_the_good_one_runs() -> None:
    stage, _ = met(rogue_tenants.BadManifests)
    assert any(run.state.manifest for run in stage.provider.leases.values())


def test_a_long_grace_of_an_unpaid_job_is_not_worked_through() -> None:
    stage, _ = met(rogue_tenants.LongGrace)
    ran = [stage.watch.ran_s(run.state.facts.lease_id) for run in stage.provider.leases.values()]
    assert max(ran) <= USUAL.quantum + 31


def test_a_double_spender_under_reorgs_costs_a_quantum() -> None:
    for seed in range(4):
        stage = Stage(seed)
        stage.chain.confirmations = 8
        rogue_tenants.DoubleSpender(stage.world.crowd, "x0")
        for moment in range(20, 400, 12):
            stage.kernel.at(moment * SECOND, lambda stage=stage: stage.chain.reorg(8))  # type: ignore[misc]
        stage.run(1200)
        stage.world.healed = True
        stage.run(1000)
        stage.runner.honest = False
        with stage.world.ring.installed():
            judge(stage.watch)
        assert not stage.watch.violation, stage.watch.violation


def test_withdrawn_offers_are_tried_and_refused() -> None:
    stage = Stage(ask=replace(USUAL, units=1))
    rogue = rogue_tenants.Chaser(stage.world.crowd, "x0")
    stage.run(61)
    stage.provider.node.spawn(stage.provider.revoke())
    stage.run(400)
    errors = [t.error.fact for t in rogue.node.transactions.values() if t.error is not None]
    assert "market: offer cancelled" in errors


def test_nonsense_gets_an_error_and_nothing_else() -> None:
    stage, _ = met(rogue_tenants.Babbler)
    assert stage.provider.node.up
    assert all(run.state.paid <= run.state.deposit for run in stage.provider.leases.values())


# --------------------------------------------------------------------------------------------------------------- boards


@pytest.mark.parametrize("enter", [rogue_boards.hide, rogue_boards.keep, rogue_boards.forge, rogue_boards.hang])
def test_a_job_finds_its_offer_beside_a_hostile_board(enter: object) -> None:
    stage = Stage(wait_s=60)
    enter(stage.world.crowd, "x0")  # type: ignore[operator]
    stage.runner.boards = [(board.node, board.offers) for board in stage.world.boards]
    assert len(stage.runner.boards) == 2
    stage.order()
    stage.finish()
    assert stage.runner.state.phase == "done"
    assert stage.runner.state.past[0].deal.price_per_hour == PRICE


def test_a_board_alone_that_hides_everything_is_no_match_and_costs_nothing() -> None:
    stage = Stage(wait_s=20)
    rogue_boards.hide(stage.world.crowd, "x0")
    board = stage.world.boards[-1]
    stage.runner.boards = [(board.node, board.offers)]
    stage.order()
    stage.finish()
    assert stage.runner.state.phase == "failed"
    assert stage.chain.market.ledger.balance(stage.runner.main.address) == stage.runner.plan.budget


@pytest.mark.parametrize("enter", [rogue_boards.lie, rogue_boards.lag])
def test_a_bad_rpc_delays_and_costs_nothing(enter: object) -> None:
    stage = Stage(wait_s=300)
    enter(stage.world.crowd, "x0")  # type: ignore[operator]
    stage.run(2)
    stage.runner.node.lies, stage.runner.node.lag = max(n.lies for n in stage.world.nodes), max(
        n.lag for n in stage.world.nodes
    )  # fmt: skip
    assert stage.runner.node.lies or stage.runner.node.lag
    stage.order(300)
    for node in stage.world.nodes:
        node.lies, node.lag = 0.0, 0
    stage.finish()
    assert stage.runner.state.spent <= SECOND_COST * 60


def test_every_actor_of_a_side_is_in_the_list() -> None:
    assert {actor.name for actor in TENANTS} <= set(ACTORS)
    assert {actor.name for actor in rogue_boards.BOARDS} <= set(ACTORS)
