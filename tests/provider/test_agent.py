"""The agent alone: every rule of its table, and what holds whatever happens in whatever order."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leases import MANIFEST, OPENED, PRICE, SECOND, H, Lease, ready, started, voucher

from minga.core.errors import Conflict, InternalError, MingaError, StaleVoucher
from minga.protocol.lease import Why
from minga.protocol.pricing import cost_down
from minga.provider import events as ev
from minga.provider.agent import ALIVE, OVER, TABLE, State, begin, prepaid_due, replay, resume
from minga.provider.events import decode, encode
from minga.provider.lease_state import GRACE_FORCED_S
from minga.provider.metering import limit_of


def test_a_lease_goes_from_opened_to_closed():
    lease = Lease(MANIFEST)
    assert lease.state.phase == "opened"
    assert lease.state.missing == ("aa", "bb")
    lease.do(ev.BlobStored("bb"))
    lease.do(ev.BlobStored("aa"))
    assert lease.state.phase == "ready"
    assert lease.do(ev.StartAsked(["nvidia.com/gpu=0"])) == [ev.Launch()]
    lease.do(ev.Started())
    lease.do(ev.Metered(4))
    lease.do(voucher(4))
    assert lease.do(ev.Exited(0, "exited", "", 7)) == [ev.Collect()]
    lease.do(voucher(7))
    lease.do(ev.Collected([{"path": "a", "bytes": 3, "blake3": "cc", "executable": False}], []))
    assert (lease.state.phase, lease.state.reason, lease.state.exit_code) == ("exited", "done", 0)
    assert lease.do(ev.CloseAsked("asked by the tenant", 0)) == [
        ev.CloseLease(7 * SECOND, "0x" + "ab" * 65, Why.DONE),
    ]
    lease.do(ev.Closed(H, ""))
    assert lease.state.phase == "closed"
    kinds = [told.kind for told in lease.told]
    assert kinds == ["phase", "phase", "phase", "exit", "phase", "artifacts", "phase", "phase", "closed", "phase"]
    assert [told.number for told in lease.told] == list(range(1, 11))
    assert lease.told[3].data == {"exit_code": 0, "reason": "done", "working_s": 7}


def test_the_job_stands_still_at_exactly_one_unpaid_quantum_and_goes_on_when_paid():
    lease = started()
    assert lease.state.exhausted_at == 10
    assert lease.do(ev.Metered(9)) == []
    assert lease.do(ev.Metered(10)) == [ev.Freeze()]
    assert lease.state.phase == "paused"
    with pytest.raises(Conflict):
        lease.do(ev.Metered(11))
    assert lease.do(voucher(1)) == [ev.Thaw(metered=True)]
    assert (lease.state.phase, lease.state.exhausted_at) == ("running", 11)


def test_two_units_cost_twice_and_pause_at_the_same_second():
    lease = started(units=2)
    assert lease.do(ev.Metered(10)) == [ev.Freeze()]
    assert lease.state.owed == 20 * SECOND
    assert lease.do(voucher(1)) == [ev.Thaw(metered=True)]
    assert lease.state.exhausted_at == 11


def test_no_voucher_for_the_dead_man_time_ends_the_job_and_closes_with_the_best_one():
    lease = started()
    lease.do(voucher(3))
    lease.do(ev.Metered(13))
    assert lease.state.phase == "paused"
    effects = lease.do(ev.Overdue())
    assert effects == [ev.Thaw(metered=False), ev.Stop(20)]
    assert (lease.state.phase, lease.state.reason) == ("stopping", "no voucher")
    lease.do(ev.Exited(143, "stopped", "", 13))
    assert lease.state.reason == "no voucher"
    assert lease.do(ev.Collected([], [])) == [ev.CloseLease(3 * SECOND, "0x" + "ab" * 65, Why.UNPAID)]


def test_a_stop_by_the_tenant_is_metered_and_a_stop_by_the_provider_is_free():
    lease = started()
    assert lease.do(ev.StopAsked("tenant", "enough", 60)) == [ev.Thaw(metered=True), ev.Stop(60)]
    assert lease.do(ev.Metered(10)) == [ev.Stop(0)]
    lease = started()
    assert lease.do(ev.StopAsked("provider", "going down", 7)) == [ev.Thaw(metered=False), ev.Stop(7)]
    lease.do(ev.Exited(143, "stopped", "", 2))
    assert lease.do(ev.Collected([], []))[0] == ev.CloseLease(0, "", Why.SHUTTING_DOWN)


def test_a_stop_is_no_way_to_work_on_unpaid():
    """A job at its limit gets the short grace of one that nobody pays, and its seconds are free."""
    lease = started()
    lease.do(ev.Metered(10))
    assert lease.state.phase == "paused"
    assert lease.do(ev.StopAsked("tenant", "enough", 3600)) == [ev.Thaw(metered=False), ev.Stop(GRACE_FORCED_S)]
    lease = started()
    lease.do(ev.Metered(10))
    lease.do(ev.ChainClosing(9000))
    assert lease.effects == [ev.Thaw(metered=False), ev.Stop(20)]


def test_a_stop_before_the_start_ends_the_lease_without_running():
    lease = ready()
    lease.do(ev.StopAsked("tenant", "changed my mind", 0))
    assert (lease.state.phase, lease.state.reason, lease.state.collected) == ("exited", "changed my mind", True)


@pytest.mark.parametrize(
    ("event", "reason", "failed", "why"),
    [
        (ev.Exited(0, "exited", "", 1), "done", False, Why.DONE),
        (ev.Exited(3, "exited", "", 1), "the job ended with code 3", False, Why.JOB_FAILED),
        (ev.Exited(137, "oom", "", 1), "the job needed more memory than it ordered", False, Why.JOB_FAILED),
        (ev.Exited(137, "lost", "", 1), "the machine or the sandbox's supervisor died", True, Why.UNDER_SPEC),
        (ev.Exited(137, "abandoned", "", 1), "the provider was away for too long", True, Why.UNDER_SPEC),
        (ev.Exited(1, "failed", "no", 1), "the sandbox could not be set up: no", True, Why.UNDER_SPEC),
    ],
)
def test_an_exit_says_why_and_whose_fault_it_was(event: ev.Exited, reason: str, failed: bool, why: Why):
    lease = started()
    lease.do(event)
    assert lease.state.reason == reason
    lease.do(ev.Collected([], []))
    assert lease.state.phase == ("failed" if failed else "exited")
    assert lease.state.exit_code == (None if failed else event.code)
    assert lease.do(ev.CloseAsked("", 0)) == [ev.CloseLease(0, "", why)]


def test_a_failed_set_up_is_the_jobs_own_failure():
    lease = ready()
    lease.do(ev.StartAsked([]))
    lease.do(ev.Exited(1, "exited", "", 0))
    assert lease.state.reason == "the set-up ended with code 1"
    assert lease.state.exit_code == 1


def test_a_start_that_failed_says_whose_fault_it_was():
    for blame, why in (("tenant", Why.JOB_FAILED), ("provider", Why.UNDER_SPEC)):
        lease = ready()
        lease.do(ev.StartAsked([]))
        lease.do(ev.StartFailed("disk-full", "no room", "free some", blame))
        assert (lease.state.phase, lease.state.reason) == ("failed", "disk-full: no room")
        assert lease.do(ev.CloseAsked("", 0)) == [ev.CloseLease(0, "", why)]


def test_the_start_waits_for_voucher_one_where_the_terms_ask_for_it():
    lease = ready(prepaid_quanta=1)
    assert prepaid_due(lease.state) == 10 * SECOND
    with pytest.raises(Conflict, match="voucher 1"):
        lease.do(ev.StartAsked([]))
    lease.do(voucher(10))
    assert lease.do(ev.StartAsked([])) == [ev.Launch()]
    lease.do(ev.Started())
    assert lease.state.exhausted_at == 20


@pytest.mark.parametrize(("amount", "error"), [(5, None), (4, StaleVoucher), (3, StaleVoucher), (101, StaleVoucher)])
def test_a_voucher_must_be_above_the_last_and_within_the_deposit(amount: int, error: type[MingaError] | None):
    lease = Lease(voucher(4))
    before = lease.state
    if error is None:
        lease.do(voucher(amount))
        assert lease.state.paid == amount * SECOND
    else:
        with pytest.raises(error):
            lease.do(voucher(amount))
        assert lease.state == before


def test_a_top_up_makes_room_for_larger_vouchers():
    lease = Lease(ev.DepositSeen(str(500 * SECOND), 9000))
    lease.do(voucher(400))
    assert (lease.state.paid, lease.state.ends_at) == (400 * SECOND, 9000)


def test_a_login_nonce_counts_once_and_the_newest_tokens_are_kept():
    lease = Lease(*(ev.LoggedIn(f"token {n}", 9999, f"nonce {n}") for n in range(6)))
    assert [name for name, _ in lease.state.tokens] == [f"token {n}" for n in (2, 3, 4, 5)]
    with pytest.raises(Conflict):
        lease.do(ev.LoggedIn("token 9", 9999, "nonce 0"))


def test_the_tenants_close_on_chain_stops_the_job_and_sends_the_best_voucher():
    lease = started()
    lease.do(voucher(2))
    lease.do(ev.ChainClosing(9000))
    assert lease.told[-2].data == {"seconds": 7000, "reason": "the tenant is closing the lease"}
    assert lease.state.phase == "stopping"
    lease.do(ev.Exited(143, "stopped", "", 2))
    assert lease.do(ev.Collected([], [])) == [ev.CloseLease(2 * SECOND, "0x" + "ab" * 65, Why.STOPPED)]


def test_a_lease_that_is_closed_on_chain_while_it_runs_is_stopped_collected_and_over():
    lease = started()
    assert lease.do(ev.Closed(H, "the lease was closed on chain")) == [ev.Thaw(metered=False), ev.Stop(0)]
    with pytest.raises(Conflict):
        lease.do(voucher(1))
    lease.do(ev.Exited(137, "killed", "", 1))
    assert lease.do(ev.Collected([], [])) == []
    assert (lease.state.phase, lease.state.close_tx) == ("closed", H)


def test_checkpoints_are_numbered_and_the_last_two_kept():
    lease = started()
    for number in range(1, 4):
        lease.do(ev.CheckpointTaken(number * 50, "d" * 64, 99, 1, 1))
        assert (lease.told[-1].kind, lease.told[-1].data["number"], lease.told[-1].data["step"]) == (
            "checkpoint", number, number * 50,
        )  # fmt: skip
    assert [item["number"] for item in lease.state.checkpoints] == [2, 3]


def test_a_meter_reading_is_told_at_each_half_quantum():
    lease = started()
    for second in range(1, 10):
        lease.do(ev.Metered(second))
    assert [told.data["working_s"] for told in lease.told if told.kind == "meter"] == [5]


@pytest.mark.parametrize(
    ("phase", "effects"),
    [
        ("starting", [ev.Launch()]),
        ("running", [ev.Launch(), ev.Thaw(metered=True)]),
        ("paused", [ev.Launch(), ev.Freeze()]),
        ("stopping", [ev.Launch(), ev.Thaw(metered=False), ev.Stop(GRACE_FORCED_S)]),
        ("collecting", [ev.Collect()]),
        ("closing", [ev.CloseLease(0, "", Why.NOT_SAID)]),
        ("opened", []),
        ("ready", []),
        ("exited", []),
        ("failed", []),
        ("closed", []),
    ],
)
def test_after_a_restart_what_was_cut_off_is_done_again(phase: Any, effects: list[ev.Effect]):
    assert resume(replace(begin(OPENED), phase=phase)) == effects


def test_a_journal_must_begin_with_the_opening_and_be_of_this_version():
    with pytest.raises(InternalError):
        replay([(ev.Started(), 1)])
    with pytest.raises(InternalError):
        replay([])
    with pytest.raises(InternalError, match="another version"):
        decode("Started", {"extra": 1})
    with pytest.raises(InternalError, match="another version"):
        decode("Dreamt", {})


def test_every_event_has_a_rule_and_survives_the_journal():
    assert set(TABLE) == set(ev.EVENTS.values()) - {ev.Opened}
    for event in SAMPLES:
        kind, body = encode(event)
        assert decode(kind, json.loads(json.dumps(body))) == event


# ---------------------------------------------------------------------------------------------- whatever happens

SAMPLES: list[ev.Event] = [
    ev.LoggedIn("t", 5, "n"), MANIFEST, ev.BlobStored("aa"), ev.BlobStored("bb"), ev.StartAsked([]), ev.Started(),
    ev.StartFailed("c", "f", "r", "provider"), ev.Metered(3), ev.Progressed({"step": 1}),
    ev.CheckpointTaken(None, "d" * 64, 99, 1, 1),
    ev.Overdue(), ev.StopAsked("tenant", "r", 3), ev.StopAsked("end", "r", 3), ev.Exited(0, "exited", "", 3),
    ev.Collected([], ["w"]), ev.CloseAsked("r", 0), ev.ChainClosing(9), ev.DepositSeen("1000000", 9000),
    ev.Closed(None, "r"), ev.Warned("c", "f", "r"), ev.Forgotten(), voucher(1), OPENED, ev.Reclaimed("r", 60),
    ev.Metered(4, 1500, 97), ev.Metered(4, cpu_ms=7),
]  # fmt: skip

any_event = st.one_of(
    st.sampled_from([event for event in SAMPLES if not isinstance(event, ev.Opened)]),
    st.integers(0, 60).map(ev.Metered),
    st.integers(0, 120).map(voucher),
    st.integers(0, 99).map(lambda seconds: ev.Reclaimed("r", seconds)),
    st.integers(0, 60).map(lambda seconds: ev.Exited(0, "exited", "", seconds)),
    st.integers(0, 999).map(lambda number: ev.LoggedIn("t", 5, f"n{number}")),
)


def check(before: State, after: State) -> None:
    """What holds between any two states."""
    limit = limit_of(PRICE, after.facts.units, after.facts.quantum)
    assert after.paid >= before.paid, "a voucher was lost"
    assert after.paid <= after.deposit or after.deposit < before.deposit, "paid more than the deposit"
    assert after.working_s >= before.working_s, "working seconds fell"
    assert after.reclaimed >= before.reclaimed
    if before.phase == after.phase == "stopping":
        assert after.grace_s <= before.grace_s, "a stop was made longer"
    assert after.owed == cost_down(PRICE, after.facts.units, after.working_s)
    assert not (before.phase in OVER and after.phase in ALIVE), "a lease that was over runs again"
    assert not (before.phase == "closed" and after.phase != "closed")
    if after.phase == "running" and before.phase == "paused":
        assert after.owed - after.paid < limit, "went on unpaid"
    if after.phase == "paused":
        assert after.owed - after.paid >= limit or before.phase == "paused"
    if after.phase in ("stopping", "failed"):
        assert after.reason, "stopped without a reason"


@settings(max_examples=400, deadline=None)
@given(st.lists(any_event, max_size=40), st.integers(0, 1), st.integers(1, 30))
def test_whatever_happens_money_and_phases_keep_their_rules_and_replay_gives_the_same(
    events: list[ev.Event], prepaid: int, quantum: int
):
    lease = Lease(prepaid_quanta=prepaid, quantum=quantum)
    stop_sent = False
    for event in events:
        before = lease.state
        try:
            effects = lease.do(event)
        except (Conflict, StaleVoucher):
            assert lease.state is before
            continue
        check(before, lease.state)
        stop_sent = stop_sent or any(isinstance(effect, ev.Stop) for effect in effects)
        if lease.state.phase == "stopping":
            assert stop_sent, "stopping, and nobody told the job"
        if lease.state.phase == "closing" and before.phase != "closing":
            assert any(isinstance(effect, ev.CloseLease) for effect in effects), "closing, and nobody told the chain"
    state, told = replay(lease.journal)
    assert state == lease.state
    assert told == lease.told
    assert [item.number for item in told] == list(range(1, len(told) + 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(any_event, max_size=40))
def test_a_lease_can_always_be_closed(events: list[ev.Event]):
    lease = Lease()
    for event in events:
        try:
            lease.do(event)
        except (Conflict, StaleVoucher):
            pass
    for event in (ev.CloseAsked("r", 0), ev.Exited(0, "exited", "", 0), ev.Collected([], []), ev.Closed(H, "")):
        try:
            lease.do(event)
        except Conflict:
            pass
    assert lease.state.phase == "closed"


def test_what_a_job_used_is_told_with_the_meter_where_it_is_known():
    lease = started()
    lease.do(ev.Metered(5, cpu_ms=4200, gpu_busy=93))
    lease.do(ev.Metered(10, cpu_ms=9000))
    told = [item.data for item in lease.told if item.kind == "meter"]
    assert told == [{"working_s": 5, "cpu_ms": 4200, "gpu_busy": 93}, {"working_s": 10, "cpu_ms": 9000}]


def test_a_journal_of_before_a_field_was_added_is_read_and_writes_the_same():
    """What is not known is left out, so that old records and new ones look alike."""
    assert decode("Metered", {"working_s": 3}) == ev.Metered(3)
    assert encode(ev.Metered(3)) == ("Metered", {"working_s": 3})
    assert encode(ev.Metered(3, gpu_busy=0)) == ("Metered", {"working_s": 3, "gpu_busy": 0})
    assert encode(ev.Closed(None, "r")) == ("Closed", {"tx": None, "reason": "r"})
    with pytest.raises(InternalError, match="another version"):
        decode("Metered", {"cpu_ms": 3})
