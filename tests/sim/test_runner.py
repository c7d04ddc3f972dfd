"""The simulated tenant's edge: a job from its order to its bill, through every kind of trouble and every kill."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stages import PRICE, USUAL, Stage

from minga.core.units import Amount
from minga.sim.kernel import Crashed
from minga.sim.nodes import SimJournal
from minga.sim.provider import Provider
from minga.sim.verdict import judge
from minga.sim.work import content_of, done_in

SECOND_COST = PRICE // 3600


def settled(stage: Stage) -> None:
    """Nothing is left, and every rule holds."""
    stage.run(20)
    with stage.world.ring.installed():
        judge(stage.watch)
    assert not stage.watch.violation, stage.watch.violation


def test_a_job_is_paid_to_the_second_and_the_rest_comes_back() -> None:
    stage = Stage()
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "done"
    lease = runner.state.past[0]
    ran = stage.watch.ran_s(runner.lease_name(0))
    assert lease.paid + lease.fee == SECOND_COST * int(ran)
    ledger = stage.chain.market.ledger
    assert ledger.balance(runner.main.address) == runner.plan.budget - SECOND_COST * int(ran)
    assert ledger.balance(runner.wallet.address) == 0
    assert done_in(runner.keeper.results[0], runner.plan.job) == 50
    settled(stage)


def test_only_the_newest_two_checkpoints_are_kept() -> None:
    stage = Stage(work={"seconds": 100})
    stage.order()
    runner = stage.finish()
    assert len(runner.keeper.checkpoints) == 2
    assert done_in(runner.keeper.newest(), runner.plan.job) >= 75
    for number in (1, 9, 5):
        runner.keeper.keep(7, number, content_of(runner.plan.job, number))
    assert sorted(runner.keeper.checkpoints) == [(7, 5), (7, 9)]


def test_a_budget_that_pays_no_quantum_ends_at_once() -> None:
    stage = Stage(budget=10)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "failed"
    assert "budget-too-small" in runner.state.reason
    assert not stage.chain.market.leases
    settled(stage)


def test_a_budget_that_pays_a_part_ends_exhausted_and_is_never_exceeded() -> None:
    stage = Stage(work={"seconds": 400}, budget=SECOND_COST * 90)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "exhausted"
    assert runner.state.spent <= runner.plan.budget
    settled(stage)


def test_a_job_whose_program_fails_ends_with_its_code() -> None:
    stage = Stage(work={"fails_at": 7})
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "failed"
    assert runner.state.ending is not None
    assert runner.state.ending.exit_code == 3
    settled(stage)


def test_a_job_that_makes_no_progress_is_stopped() -> None:
    stage = Stage(work={"seconds": 300, "idles_at": 20}, max_idle_s=40)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "stopped"
    assert runner.state.reason.startswith("idle")
    lease = runner.state.past[0]
    assert lease.paid + lease.fee <= SECOND_COST * (20 + 40 + USUAL.quantum)
    settled(stage)


def test_a_deadline_ends_the_job() -> None:
    from minga.sim.kernel import EPOCH

    stage = Stage(work={"seconds": 900}, deadline=EPOCH + 60)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "stopped"
    assert runner.state.reason.startswith("deadline-passed")
    settled(stage)


def test_a_dear_provider_is_not_taken() -> None:
    stage = Stage(ask=replace(USUAL, price_per_hour=PRICE * 10), per_hour=Amount(PRICE), wait_s=30)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "failed"
    assert "no-match" in runner.state.reason
    settled(stage)


def test_checked_checkpoints_are_what_is_paid_for() -> None:
    stage = Stage(work={"seconds": 60, "every_s": 10}, accept=True)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "done"
    lease = runner.state.past[0]
    assert lease.checked
    assert lease.paid + lease.fee <= SECOND_COST * 60
    settled(stage)


def test_a_quantum_shorter_than_the_checkpoints_is_not_taken_where_they_are_checked() -> None:
    stage = Stage(work={"seconds": 60, "every_s": 30}, accept=True, wait_s=20)
    stage.order()
    assert stage.finish().state.phase == "failed"
    assert not stage.chain.market.leases


def test_an_under_spec_machine_costs_nothing() -> None:
    class Slow(Provider):
        """It promises more than it has."""

        async def probe(self, channel: str, token: str) -> int:
            return await super().probe(channel, token) // 2

    stage = Stage(ask=replace(USUAL, speed=1000, prepaid_quanta=1), kind=Slow, wait_s=20)
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "failed"
    assert [lease.paid for lease in runner.state.past] == [0]
    assert runner.state.excluded[0][0] == stage.provider.machine


def test_a_machine_that_shows_what_it_promised_is_prepaid_and_used() -> None:
    stage = Stage(ask=replace(USUAL, speed=1000, prepaid_quanta=1))
    stage.order()
    runner = stage.finish()
    assert runner.state.phase == "done"
    assert runner.state.past[0].probed
    settled(stage)


def test_a_silent_provider_is_left_and_its_lease_closed_from_our_side() -> None:
    stage = Stage(work={"seconds": 200}, wait_s=60)
    runner = stage.order(30)
    assert runner.state.phase == "running"
    stage.provider.node.crash(5000.0)
    stage.run(30)
    assert runner.state.phase in ("recovering", "settling")
    stage.finish()
    assert runner.state.past[0].status == "closed"
    assert runner.state.past[0].paid == 0
    assert stage.chain.closings[runner.lease_name(0)].by == "window"


def test_a_reclaimed_job_goes_on_from_its_checkpoint() -> None:
    stage = Stage(work={"seconds": 120, "every_s": 10}, wait_s=300)
    runner = stage.order(50)
    assert runner.state.phase == "running"
    stage.provider.node.do(lambda: stage.provider.reclaim("mine"))
    stage.run(60)
    stage.provider.reclaiming = ""
    stage.finish()
    assert runner.state.phase == "done"
    assert len(runner.state.past) == 2
    assert stage.watch.ran_s(runner.lease_name(0)) + stage.watch.ran_s(runner.lease_name(1)) < 135
    settled(stage)


@pytest.mark.parametrize("skew", [3600, -3600])
def test_a_clock_that_jumps_ends_no_job_without_its_money(skew: int) -> None:
    stage = Stage(work={"seconds": 90}, wait_s=30)
    runner = stage.order(40)
    runner.node.skew = skew
    stage.run(60)
    runner.node.skew = 0
    stage.finish()
    settled(stage)


def test_the_same_journal_gives_the_same_state() -> None:
    stage = Stage()
    runner = stage.order(35)
    before = runner.state
    runner.node.crash(1.0)
    stage.run(1)
    assert runner.state.past == before.past
    stage.finish()
    settled(stage)


def test_an_offer_whose_terms_are_not_the_signed_ones_is_not_believed() -> None:
    stage = Stage()
    posted = stage.provider.offers()[0]
    other = replace(posted, terms=posted.terms.model_copy(update={"notice_s": 9999}))
    forged = replace(posted, offer=replace(posted.offer, price_per_hour=Amount(1)))
    with stage.world.ring.installed():
        assert stage.runner._checked(posted)
        assert stage.runner._checked(forged) is None
    stage.chain.checked.clear()
    with stage.world.ring.installed():
        assert stage.runner._checked(other) is None


# --------------------------------------------------------------------------------------------------------- every kill

KILLS = 16
FATES = ("nothing", "torn", "whole")


def kill_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int, fate: str) -> list[str]:
    """Kill node `name` in its append `number`; what was being written is on the disk, torn, or not there."""
    append, done, seen = SimJournal.append, [], [0]

    def dying(self: SimJournal, stream: str, kind: str, body: dict[str, object], at: int) -> None:
        if self._node.name != name or done:
            return append(self, stream, kind, body, at)
        seen[0] += 1
        if seen[0] < number:
            return append(self, stream, kind, body, at)
        done.append(kind)
        if fate != "nothing":
            append(self, stream, kind, body, at)
        if fate == "torn":
            lines = self.lines(stream)
            lines[-1] = lines[-1][: len(lines[-1]) // 2]
        raise Crashed

    monkeypatch.setattr(SimJournal, "append", dying)
    return done


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("number", range(1, KILLS + 1))
@pytest.mark.parametrize("name", ["t0", "p0"])
def test_a_kill_at_any_record_loses_nothing(name: str, number: int, fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    died = kill_at(monkeypatch, name, number, fate)
    stage = Stage(seed=number, work={"seconds": 45}, wait_s=300)
    for node in (stage.runner.node, stage.provider.node):
        node.down_s = (2.0, 6.0)
    stage.order()
    runner = stage.finish()
    assert died, "there are not so many records"
    assert runner.state.phase == "done", (died, runner.state.reason)
    settled(stage)


def test_a_refund_that_comes_while_the_rest_is_returned_is_returned_too() -> None:
    """Found by seed 258: the return had been mined before the refund, and its id would never be sent again."""
    from minga.protocol import job
    from minga.protocol import job_events as ev
    from minga.protocol.job_state import begin, effects

    deal = ev.Deal("p", "m", "o", Amount(3600), 1, 10, Amount(10), 60, 9999, 3600)
    state = begin(ev.Plan("job", Amount(1000), wait_s=0))
    told: list[ev.Event] = [
        ev.Funded(), ev.Found(deal, {}), ev.Opened(0, "l", "c", 100, 1), ev.Sent(0),
        ev.Lost(0, "provider-unreachable", "gone"), ev.NotFound("no-match", "none", True), ev.ClosingStarted(0, 50),
    ]  # fmt: skip
    for event in told:
        state, _ = job.step(state, event, 1)
    assert ev.Return(0) in effects(state)
    closed = ev.LeaseClosed(0, Amount(0), Amount(0), Amount(0), Amount(250))
    for event in (closed, closed, ev.Returned(Amount(750))):
        state, _ = job.step(state, event, 2)
    assert [effect for effect in effects(state) if isinstance(effect, ev.Return)] == [ev.Return(1)]
    assert not state.settled
    state, _ = job.step(state, ev.Returned(Amount(250)), 3)
    assert state.settled
    assert not effects(state)
