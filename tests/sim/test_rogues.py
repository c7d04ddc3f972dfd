"""Each hostile provider does to one honest job what its story says, and the job answers as it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stages import PRICE, USUAL, Stage

from minga.core.errors import MingaError, Unauthorized
from minga.protocol.lease import Why
from minga.protocol.messages import verify
from minga.provider import events as ev
from minga.sim import rogue_sellers as sellers
from minga.sim import rogue_workers as workers
from minga.sim.rogue import Rogue, altered
from minga.sim.rogue_providers import PROVIDERS
from minga.sim.verdict import judge

SECOND_COST = PRICE // 3600
CLOSE = ev.CloseAsked("enough", Why.NOT_SAID)


def played(kind: type[Rogue], bound: str = "quantum", seconds: float = 8 * 3600, **more: Any) -> Stage:
    """A job on this provider alone, to its end; every rule is judged."""
    given = {"work": {"seconds": 70, "every_s": 10}, "wait_s": 20, **more}
    stage = Stage(kind=kind, **given)
    stage.provider.loss_bound = bound
    stage.order()
    stage.finish(seconds)
    stage.run(20)
    with stage.world.ring.installed():
        judge(stage.watch)
    assert not stage.watch.violation, stage.watch.violation
    return stage


def paid(stage: Stage) -> int:
    """Token units that left the tenant."""
    return sum(lease.paid + lease.fee for lease in stage.runner.state.past)


def left_for(stage: Stage) -> str:
    """Why the first lease was left."""
    return str(stage.runner.state.past[0].left)


def test_the_runaway_gets_one_quantum() -> None:
    stage = played(sellers.Runaway, ask=replace(USUAL, prepaid_quanta=1))
    assert not stage.provider.node.up
    assert paid(stage) == 0  # it does not even come back for the quantum that it was paid ahead
    assert stage.runner.state.past[0].signed == SECOND_COST * 20
    assert "unreachable" in left_for(stage)


def test_the_sleeper_takes_what_it_holds_when_it_comes_back() -> None:
    stage = played(sellers.Sleeper)
    assert 0 < paid(stage) <= SECOND_COST * 90
    assert stage.chain.closings[stage.runner.lease_name(0)].by == "provider"


@pytest.mark.parametrize("kind", [workers.OverClaimer, workers.FutureClaimer, workers.Rewinder])
def test_who_claims_too_much_is_paid_what_the_clock_saw(kind: type[Rogue]) -> None:
    stage = played(kind)
    assert stage.runner.state.phase == "done"
    ran = stage.watch.ran_s(stage.runner.lease_name(0))
    assert paid(stage) <= SECOND_COST * (ran + 3)


@pytest.mark.parametrize("kind", [workers.Forger, workers.StaleCheckpoints])
def test_who_invents_checkpoints_is_paid_nothing_where_they_are_checked(kind: type[Rogue]) -> None:
    stage = played(kind, accept=True)
    assert stage.watch.ran_s(stage.runner.lease_name(0)) == 0
    assert paid(stage) == 0
    if kind is workers.Forger:
        assert left_for(stage).startswith("bad-result")
        assert stage.runner.state.past[0].why == Why.BAD_RESULT


def test_who_invents_everything_is_paid_by_the_clock_where_nothing_is_checked() -> None:
    stage = played(workers.BlindForger, "clock")
    assert stage.watch.ran_s(stage.runner.lease_name(0)) == 0
    assert 0 < paid(stage) <= SECOND_COST * 90


def test_half_a_checkpoint_is_no_checkpoint() -> None:
    stage = played(workers.HalfUploads)
    assert not stage.runner.keeper.checkpoints
    assert stage.runner.state.checkpoint is None


@pytest.mark.parametrize("kind", [workers.Withholder, workers.Swapper])
def test_work_without_its_results_is_no_work_done(kind: type[Rogue]) -> None:
    stage = played(kind)
    assert stage.runner.state.phase != "done"
    assert not stage.runner.keeper.results


def test_one_machine_is_not_sold_twice_to_who_measures_it() -> None:
    stage = Stage(ask=replace(USUAL, speed=1000, units=4), kind=sellers.DoubleSeller, work={"seconds": 70})
    deals = [stage.do(stage.client.open(posted)) for posted in stage.provider.offers()[:2]]
    stage.do(stage.client.enter(deals[0]))
    assert stage.ask(deals[0], "probe") == 500
    stage.provider.node.do(lambda: stage.provider.leases[deals[1].lease.channel].attempt(CLOSE))
    stage.run(10)
    assert stage.ask(deals[0], "probe") == 1000
    assert len({posted.offer.machine for posted in stage.provider.offers()}) == 3


def test_a_slow_machine_is_refused_unpaid() -> None:
    stage = played(sellers.UnderSpec, "nothing", ask=replace(USUAL, speed=1000, prepaid_quanta=1))
    assert paid(stage) == 0
    assert left_for(stage).startswith("under-spec")


def test_who_starts_for_ever_is_left() -> None:
    stage = played(workers.EternalStarter, setup_wait_s=60)
    assert paid(stage) == 0
    assert "60 s" in left_for(stage)


def test_who_pauses_a_paid_job_is_left() -> None:
    stage = played(workers.Pauser)
    assert "paid" in left_for(stage) or "claimed no work" in left_for(stage)
    assert paid(stage) <= SECOND_COST * 50


def test_who_closes_early_has_the_vouchers_it_had() -> None:
    stage = played(sellers.EarlyCloser, ask=replace(USUAL, prepaid_quanta=1))
    assert paid(stage) <= SECOND_COST * 21 * len(stage.runner.state.past)


def test_who_closes_with_nothing_gets_nothing() -> None:
    stage = played(sellers.OldVoucher, "nothing")
    assert paid(stage) == 0


def test_forged_vouchers_close_nothing() -> None:
    stage = played(sellers.VoucherForger)
    forged = [t for name, t in stage.provider.node.transactions.items() if name.startswith("forged")]
    assert forged
    assert {t.error.fact for t in forged if t.error} <= {"market: bad voucher", "market: lease closed"}
    assert all(t.error for t in forged)


def test_withdrawn_offers_open_nothing() -> None:
    stage = Stage(kind=sellers.OfferReplayer, wait_s=30)
    shown = stage.provider.offers()
    stage.run(100)
    assert stage.provider.offers() == shown
    assert stage.chain.market.epochs[stage.provider.key.address] == 1
    stage.order()
    stage.finish()
    assert not stage.chain.market.leases


@pytest.mark.parametrize("kind", [workers.Garbage, workers.EventReplayer, workers.Renumberer])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nonsense_costs_a_quantum_at_most(kind: type[Rogue], seed: int) -> None:
    stage = played(kind, seed=seed)
    ran = sum(stage.watch.ran_s(stage.runner.lease_name(lease.attempt)) for lease in stage.runner.state.past)
    assert paid(stage) <= SECOND_COST * (ran + 23)


def test_who_never_closes_is_closed_from_our_side() -> None:
    stage = played(sellers.NeverCloses)
    assert stage.runner.state.phase == "done"
    closing = stage.chain.closings[stage.runner.lease_name(0)]
    assert closing.by == "window" or closing.paid > 0


def test_reclaims_in_a_loop_cost_no_unworked_second() -> None:
    stage = played(sellers.Reclaimer, ask=replace(USUAL, prepaid_quanta=1), wait_s=300, work={"seconds": 40})
    assert len(stage.runner.state.past) >= 2
    ran = sum(stage.watch.ran_s(stage.runner.lease_name(lease.attempt)) for lease in stage.runner.state.past)
    assert paid(stage) <= SECOND_COST * (ran + 21 * len(stage.runner.state.past))


def test_a_closed_door_costs_nothing() -> None:
    stage = played(sellers.Doorkeeper, "nothing")
    assert paid(stage) == 0
    assert left_for(stage).startswith("unauthorized")
    with pytest.raises(Unauthorized):
        stage.do(stage.client.log_in(stage.do(stage.client.open(stage.provider.offers()[0]))))


def test_slow_answers_are_borne() -> None:
    stage = played(sellers.SlowAnswers)
    assert stage.runner.state.phase in ("done", "failed")


def test_false_receipts_harm_who_gives_them() -> None:
    stage = played(sellers.FalseReceipts)
    assert paid(stage) <= stage.runner.state.past[0].signed


def test_short_receipts_are_no_receipts() -> None:
    stage = played(sellers.ShortReceipts)
    assert left_for(stage).startswith(("bad-answer", "provider-unreachable"))


def test_a_false_exit_is_paid_by_the_clock() -> None:
    stage = played(workers.FalseExit)
    assert paid(stage) <= SECOND_COST * 4


def test_who_asks_for_what_the_job_does_not_have_is_left() -> None:
    stage = played(sellers.BlobAsker, "nothing")
    assert paid(stage) == 0
    assert "does not have" in left_for(stage) or "unreachable" in left_for(stage)


def test_a_stopper_is_paid_what_ran() -> None:
    stage = played(workers.Stopper, attempts_max=4)
    ran = sum(stage.watch.ran_s(stage.runner.lease_name(lease.attempt)) for lease in stage.runner.state.past)
    assert paid(stage) <= SECOND_COST * (ran + 3 * len(stage.runner.state.past))


def test_an_altered_event_keeps_what_was_not_altered() -> None:
    stage = Stage()
    deal = stage.started()
    event = stage.ask(deal, "events", 0)[0][0]
    other = altered(event, phase="paused")
    assert (other.number, other.kind, other.at) == (event.number, event.kind, event.at)
    assert other.data == {**event.data, "phase": "paused"}


def test_every_rogue_is_in_the_list() -> None:
    kinds = {
        kind
        for module in (sellers, workers)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Rogue) and kind is not Rogue
    }
    assert len(PROVIDERS) == len(kinds)
    assert {(kind.__doc__ or "").split("\n")[0] for kind in kinds} == {actor.story for actor in PROVIDERS}


def test_rogues_sign_good_offers_with_their_own_keys() -> None:
    for actor in PROVIDERS[:6]:
        stage = Stage()
        actor.enter(stage.world.crowd, f"x-{actor.name}")
        rogue = stage.watch.providers[-1]
        assert rogue.loss_bound == actor.bound
        assert not rogue.honest
        posted = rogue.offers()[0]
        with stage.world.ring.installed():
            verify(posted.offer, stage.chain.domain, posted.signature, rogue.key.address)
            with pytest.raises(MingaError):
                verify(posted.offer, stage.chain.domain, posted.signature, stage.provider.key.address)
