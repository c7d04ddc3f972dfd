"""The simulated provider's edge refuses and accepts what the real one does: logins, manifests, vouchers, closes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stages import PRICE, USUAL, Stage

from minga.core.crypto import Hash32
from minga.core.errors import (
    Conflict,
    Expired,
    InvalidInput,
    InvalidSignature,
    OutOfCapacity,
    StaleVoucher,
    Unauthorized,
)
from minga.core.spec import Bundle, UnitSize
from minga.protocol.lease import Phase
from minga.protocol.messages import Login, sign
from minga.sim import deeds
from minga.sim.desk import LOGINS_PER_MINUTE
from minga.sim.provider import IDLE_S, OFFER_S
from minga.sim.work import content_of, done_in, name_of

NONCE = "0x" + "11" * 32


@pytest.fixture
def stage() -> Stage:
    return Stage()


def cost(seconds: int) -> int:
    return PRICE * seconds // 3600


# --------------------------------------------------------------------------------------------------------------- logins


def test_a_login_gives_a_token_that_opens_the_lease(stage: Stage) -> None:
    deal = stage.opened()
    assert stage.ask(deal, "status") == ("opened", 0)
    assert stage.lease(deal).state.tokens


@pytest.mark.parametrize("token", ["", "00", "ff" * 16])
def test_no_other_token_does(stage: Stage, token: str) -> None:
    deal = stage.opened()
    deal.token = token
    with pytest.raises(Unauthorized):
        stage.ask(deal, "status")


def test_a_token_is_of_one_lease(stage: Stage) -> None:
    one, other = stage.opened(), stage.opened()
    other.token = one.token
    with pytest.raises(Unauthorized):
        stage.ask(other, "status")


def test_a_token_ends(stage: Stage) -> None:
    deal = stage.started()
    stage.provider.node.skew = 4000
    with pytest.raises(Unauthorized):
        stage.ask(deal, "status")


def test_a_nonce_counts_once(stage: Stage) -> None:
    deal = stage.opened()
    stage.do(stage.client.log_in(deal, NONCE))
    with pytest.raises(Conflict, match="used before"):
        stage.do(stage.client.log_in(deal, NONCE))


@pytest.mark.parametrize("skew", [-1000, 1000, 3600, -3600])
def test_a_login_of_another_hour_is_refused(stage: Stage, skew: int) -> None:
    deal = stage.opened()
    stage.client.node.skew = skew
    with pytest.raises(Expired):
        stage.do(stage.client.log_in(deal))


@pytest.mark.parametrize("skew", [-800, 800])
def test_a_clock_that_is_a_little_wrong_is_good_enough(stage: Stage, skew: int) -> None:
    deal = stage.opened()
    stage.client.node.skew = skew
    assert stage.do(stage.client.log_in(deal))


def test_a_login_signed_by_somebody_else_is_refused(stage: Stage) -> None:
    deal = stage.opened()
    deal.signer = stage.world.ring.key("somebody")
    with pytest.raises((InvalidSignature, InvalidInput)):
        stage.do(stage.client.log_in(deal))


def test_a_login_for_another_provider_is_refused(stage: Stage) -> None:
    deal = stage.opened()
    message = Login(deal.lease.channel, stage.client.key.address, stage.client.node.now(), Hash32(NONCE))
    signature = sign(message, stage.chain.domain, deal.signer)

    async def ask() -> Any:
        return await stage.client.wires.call(
            stage.client.node, stage.provider.node, stage.provider.login, deal.lease.channel, message, signature,
            deal.lease.tenant, deal.signer.address,
        )  # fmt: skip

    with pytest.raises(InvalidInput):
        stage.do(ask())


def test_a_lease_that_is_not_on_chain_cannot_log_in_yet(stage: Stage) -> None:
    deal = stage.opened()
    del stage.provider.leases[deal.lease.channel]
    stage.provider.poll = lambda: None  # type: ignore[method-assign]
    with pytest.raises(Conflict) as caught:
        stage.do(stage.client.log_in(deal))
    assert caught.value.details["retry"]


def test_logins_have_a_limit_for_each_minute(stage: Stage) -> None:
    deal = stage.opened()
    stage.provider._logins = (int(stage.kernel.seconds // 60), LOGINS_PER_MINUTE)
    with pytest.raises(OutOfCapacity):
        stage.do(stage.client.log_in(deal))
    stage.run(61)
    assert stage.do(stage.client.log_in(deal))


# --------------------------------------------------------------------------------------------------- manifest and start


def test_a_manifest_makes_the_lease_ready_and_counts_once(stage: Stage) -> None:
    deal = stage.opened()
    manifest = stage.client.manifest(deal)
    assert stage.ask(deal, "set_manifest", manifest) == ()
    assert stage.ask(deal, "set_manifest", manifest) == ()
    assert stage.lease(deal).state.phase == "ready"
    with pytest.raises(Conflict):
        stage.ask(deal, "set_manifest", stage.client.manifest(deal, name="other"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"job": "0x" + "12" * 32}, Conflict),
        ({"attempt": 3}, Conflict),
        ({"environment": "rust"}, InvalidInput),
        ({"size": UnitSize(cpu_milli=10**6, memory_bytes=1 << 28, disk_bytes=1 << 28)}, InvalidInput),
        ({"size": UnitSize(cpu_milli=1, memory_bytes=1 << 20, disk_bytes=1 << 28)}, InvalidInput),
        ({"ports": [80]}, Exception),
        ({"egress": ["example.org"]}, Exception),
    ],
)
def test_a_manifest_for_what_was_not_sold_is_refused(stage: Stage, changes: Any, error: type[Exception]) -> None:
    deal = stage.opened()
    with pytest.raises(error):
        stage.ask(deal, "set_manifest", stage.client.manifest(deal, **changes))
    assert stage.lease(deal).state.phase == "opened"


def test_inputs_are_named_by_their_content(stage: Stage) -> None:
    deal = stage.opened()
    content = content_of(deal.lease.job, 9)
    bundle = Bundle(kind="checkpoint", target="/job/checkpoint", blake3=name_of(content), bytes=len(content))
    missing = stage.ask(deal, "set_manifest", stage.client.manifest(deal, inputs=[bundle]))
    assert missing == (name_of(content),)
    with pytest.raises(Conflict):
        stage.ask(deal, "start_job")
    with pytest.raises(InvalidInput):
        stage.ask(deal, "put_blob", name_of(content), content[:-1])
    stage.ask(deal, "put_blob", name_of(content), content)
    stage.ask(deal, "put_blob", name_of(content), content)
    assert stage.lease(deal).state.phase == "ready"
    stage.ask(deal, "start_job")
    stage.run(5)
    assert stage.provider.processes[deal.lease.channel].base_s == 9


def test_a_start_needs_a_manifest_and_again_changes_nothing(stage: Stage) -> None:
    deal = stage.opened()
    with pytest.raises(Conflict):
        stage.ask(deal, "start_job")
    stage.ask(deal, "set_manifest", stage.client.manifest(deal))
    stage.ask(deal, "start_job")
    stage.ask(deal, "start_job")
    stage.run(5)
    assert len(stage.watch.processes[deal.lease.id]) == 1


def test_voucher_1_comes_before_the_start_where_the_terms_say_so() -> None:
    stage = Stage(ask=replace(USUAL, prepaid_quanta=1))
    deal = stage.ready()
    with pytest.raises(Conflict, match="voucher 1"):
        stage.ask(deal, "start_job")
    stage.do(stage.client.pay(deal, cost(20) - 1))
    with pytest.raises(Conflict, match="voucher 1"):
        stage.ask(deal, "start_job")
    stage.do(stage.client.pay(deal, cost(20)))
    stage.ask(deal, "start_job")


# ------------------------------------------------------------------------------------------------------------- vouchers


def test_a_voucher_is_kept_and_the_best_one_again_is_no_error(stage: Stage) -> None:
    deal = stage.started()
    assert stage.do(stage.client.pay(deal, 500)) == 500
    assert stage.do(stage.client.pay(deal, 500)) == 500
    assert stage.watch.best_voucher(stage.lease(deal)) == 500


@pytest.mark.parametrize(("amount", "error"), [(499, StaleVoucher), (0, StaleVoucher), (10**9, StaleVoucher)])
def test_a_lower_or_uncovered_voucher_is_refused(stage: Stage, amount: int, error: type[Exception]) -> None:
    deal = stage.started()
    stage.do(stage.client.pay(deal, 500))
    with pytest.raises(error):
        stage.do(stage.client.pay(deal, amount))
    assert stage.lease(deal).state.paid == 500


def test_a_voucher_of_another_key_or_lease_is_refused(stage: Stage) -> None:
    deal, other = stage.started(), stage.opened()
    for signer, channel in ((stage.client.key, ""), (deal.signer, other.lease.channel), (other.signer, "")):
        with pytest.raises(InvalidSignature):
            stage.do(stage.client.pay(deal, 500, signer, channel))
    assert stage.lease(deal).state.paid == 0


def test_a_voucher_above_the_old_deposit_counts_after_a_top_up(stage: Stage) -> None:
    deal = stage.started()
    deposit = stage.lease(deal).state.deposit
    call = deeds.top_up(stage.client.key.address, deal.lease.id, 5000)
    stage.do(stage.chain.send(stage.client.node, "more", call))
    assert stage.do(stage.client.pay(deal, deposit + 5000)) == deposit + 5000


def test_a_full_disk_acknowledges_nothing(stage: Stage) -> None:
    from minga.core.errors import DiskFull

    deal = stage.started()
    stage.provider.node.full_until = stage.kernel.now + 2_000_000
    with pytest.raises(DiskFull):
        stage.do(stage.client.pay(deal, 500))
    assert stage.lease(deal).state.paid == 0
    stage.run(3)
    assert stage.do(stage.client.pay(deal, 500)) == 500


# ------------------------------------------------------------------------------------------------------- work and money


def test_an_unpaid_job_stands_still_after_a_quantum_and_ends_after_the_dead_mans_time(stage: Stage) -> None:
    deal = stage.started()
    stage.run(20)
    assert stage.lease(deal).state.phase == "paused"
    process = stage.provider.processes[deal.lease.channel]
    assert process.ran_s == pytest.approx(20, abs=0.1)
    stage.run(14)
    assert stage.lease(deal).state.phase == "paused"
    assert process.ran_s == pytest.approx(20, abs=0.1)
    stage.run(40)
    assert stage.lease(deal).state.phase in ("closing", "closed")
    assert stage.lease(deal).state.reason == "no voucher"


def test_a_voucher_lets_it_go_on(stage: Stage) -> None:
    deal = stage.started()
    stage.run(22)
    assert stage.lease(deal).state.phase == "paused"
    stage.do(stage.client.pay(deal, cost(20)))
    assert stage.lease(deal).state.phase == "running"
    stage.run(10)
    assert stage.provider.processes[deal.lease.channel].ran_s == pytest.approx(30, abs=2)


def test_a_paid_job_works_to_its_end_and_is_closed_with_its_best_voucher(stage: Stage) -> None:
    deal = stage.started()
    stage.world.works[deal.lease.job]  # the job of 400 seconds that the stranger brought
    for second in range(15, 90, 15):
        stage.run(15)
        stage.do(stage.client.pay(deal, cost(second)))
    stage.ask(deal, "stop", "enough", 10)
    stage.run(3)
    assert stage.lease(deal).state.phase == "exited"
    files = stage.ask(deal, "artifacts")
    content = stage.ask(deal, "blob", files[0]["blake3"])
    assert done_in(content, deal.lease.job) >= 75
    stage.do(stage.client.pay(deal, cost(stage.lease(deal).state.working_s)))
    stage.ask(deal, "close")
    stage.run(10)
    closing = stage.chain.closings[deal.lease.id]
    assert closing.paid + closing.fee == cost(stage.lease(deal).state.working_s)
    assert stage.lease(deal).state.phase == "closed"


def test_events_come_in_order_and_as_they_happen(stage: Stage) -> None:
    deal = stage.started()
    told, over = stage.ask(deal, "events", 0)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    assert [event.data["phase"] for event in told if event.kind == "phase"] == ["ready", "starting", "running"]
    assert not over
    later, _ = stage.ask(deal, "events", len(told))
    assert all(event.number > len(told) for event in later)


def test_results_are_refused_before_they_are_collected(stage: Stage) -> None:
    deal = stage.started()
    with pytest.raises(Conflict):
        stage.ask(deal, "artifacts")
    with pytest.raises(InvalidInput):
        stage.ask(deal, "blob", "ff" * 32)


# ------------------------------------------------------------------------------------------------------------- the ends


def test_a_lease_that_is_not_used_is_closed(stage: Stage) -> None:
    deal = stage.ready()
    stage.run(IDLE_S + 30)
    assert stage.chain.market.accounts[deal.lease.id].phase is Phase.CLOSED
    assert stage.chain.closings[deal.lease.id].refunded == stage.chain.closings[deal.lease.id].deposit


def test_a_tenants_close_on_chain_ends_the_job_and_takes_the_best_voucher(stage: Stage) -> None:
    deal = stage.started()
    stage.do(stage.client.pay(deal, 700))
    call = deeds.start_close(deal.lease.tenant, deal.lease.id)
    stage.do(stage.chain.send(stage.client.node, "out", call))
    stage.run(20)
    closing = stage.chain.closings[deal.lease.id]
    assert (closing.paid + closing.fee, closing.by) == (700, "provider")


def test_a_reclaim_stops_the_work_with_its_notice_and_bills_nothing_after(stage: Stage) -> None:
    deal = stage.started()
    stage.run(6)
    stage.provider.node.do(lambda: stage.provider.reclaim("mine again"))
    stage.run(15)
    state = stage.lease(deal).state
    assert state.reason == "reclaimed: mine again"
    assert state.working_s <= 11
    assert stage.provider.offers() == []
    stage.run(40)
    assert stage.lease(deal).state.phase == "closed"


def test_withdrawn_offers_die_and_new_ones_come(stage: Stage) -> None:
    before = stage.provider.offers()[0]
    stage.provider.node.spawn(stage.provider.revoke())
    stage.run(10)
    after = stage.provider.offers()[0]
    assert (before.offer.epoch, after.offer.epoch) == (0, 1)
    from minga.core.errors import ContractError

    with pytest.raises(ContractError, match="cancelled"):
        stage.do(stage.client.open(before))
    assert stage.do(stage.client.open(after))


def test_offers_are_renewed_before_they_end(stage: Stage) -> None:
    first = stage.provider.offers()[0]
    assert stage.provider.offers() == [first]
    stage.run(OFFER_S // 2 + 5)
    second = stage.provider.offers()[0]
    assert second.offer.valid_until > first.offer.valid_until


# ----------------------------------------------------------------------------------------------------------- its deaths


@pytest.mark.parametrize("down_s", [1.0, 30.0])
def test_a_short_death_loses_no_lease_and_no_voucher(stage: Stage, down_s: float) -> None:
    deal = stage.started()
    stage.do(stage.client.pay(deal, 300))
    process = stage.provider.processes[deal.lease.channel]
    stage.provider.node.crash(down_s)
    stage.run(down_s + 1)
    state = stage.lease(deal).state
    assert state.paid == 300
    assert process.end is None
    assert state.phase in ("running", "paused")
    assert stage.ask(deal, "status")[1] == 300


def test_a_long_death_ends_the_job_and_blames_the_machine(stage: Stage) -> None:
    deal = stage.started()
    stage.provider.node.crash(90.0)
    stage.run(95)
    state = stage.lease(deal).state
    assert stage.provider.processes[deal.lease.channel].end == (137, "abandoned")
    assert state.exit_code is None
    assert state.failed


def test_what_was_told_before_a_death_is_told_again_the_same(stage: Stage) -> None:
    deal = stage.started()
    stage.run(8)
    before = list(stage.lease(deal).told)
    stage.provider.node.crash(2.0)
    stage.run(4)
    assert stage.lease(deal).told[: len(before)] == before
