"""The owner takes the machine back, by the agent's rules alone: notice, free seconds, honest money, one close."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leases import MANIFEST, SECOND, H, Lease, ready, started, voucher

from minga.core.errors import Conflict, StaleVoucher
from minga.protocol.lease import Why
from minga.provider import events as ev
from minga.provider.agent import resume, step
from minga.provider.lease_state import ALIVE

WISH = ev.Reclaimed("a guest comes", 60)
REASON = "reclaimed: a guest comes"
SIGNED = "0x" + "ab" * 65


def test_a_running_job_gets_notice_and_sigterm_and_nothing_more_is_counted():
    lease = started()
    lease.do(voucher(3))
    lease.do(ev.Metered(4))
    assert lease.do(WISH) == [ev.Thaw(metered=False), ev.Stop(60)]
    assert (lease.state.phase, lease.state.reason, lease.state.why) == ("stopping", REASON, Why.SHUTTING_DOWN)
    assert [(told.kind, told.data) for told in lease.told[-2:]] == [
        ("notice", {"seconds": 60, "reason": REASON}),
        ("phase", {"phase": "stopping", "reason": REASON}),
    ]


def test_what_it_saves_meanwhile_is_taken_and_the_tenant_pays_and_fetches_before_the_close():
    lease = started()
    lease.do(ev.Metered(4))
    lease.do(WISH)
    lease.do(ev.Progressed({"step": 9}))
    assert lease.do(ev.Exited(0, "exited", "", 4)) == [ev.Collect()]
    assert lease.do(ev.Collected([], [])) == []
    assert (lease.state.phase, lease.state.reason, lease.state.exit_code) == ("exited", REASON, 0)
    lease.do(voucher(4))
    close = [ev.CloseLease(4 * SECOND, SIGNED, Why.SHUTTING_DOWN)]
    assert lease.do(ev.CloseAsked("asked by the tenant", Why.NOT_SAID)) == close


@pytest.mark.parametrize("phase", ["starting", "paused"])
def test_a_job_that_does_not_run_just_now_gets_the_same(phase: str):
    lease = ready()
    lease.do(ev.StartAsked([]))
    if phase == "paused":
        lease.do(ev.Started())
        lease.do(ev.Metered(10))
    assert lease.state.phase == phase
    assert lease.do(WISH) == [ev.Thaw(metered=False), ev.Stop(60)]
    assert lease.state.phase == "stopping"
    lease.do(ev.Exited(143, "stopped", "", 10))
    assert lease.state.working_s == 10
    assert lease.state.reason == REASON


@pytest.mark.parametrize("events", [[], [MANIFEST], [MANIFEST, ev.BlobStored("aa"), ev.BlobStored("bb")]])
def test_a_lease_that_has_not_begun_is_closed_at_once_and_costs_nothing(events: list[ev.Event]):
    """A prepaid quantum, too: nothing ran for it."""
    lease = Lease(*events, voucher(10), prepaid_quanta=1)
    assert lease.do(WISH) == [ev.CloseLease(0, "", Why.SHUTTING_DOWN)]
    assert (lease.state.phase, lease.state.reason) == ("closing", REASON)
    assert ("notice", {"seconds": 0, "reason": REASON}) in [(told.kind, told.data) for told in lease.told]
    with pytest.raises(Conflict, match=r"closing \(reclaimed: a guest comes\): a manifest cannot be now"):
        lease.do(MANIFEST)


def test_interruptible_means_no_notice():
    lease = started()
    assert lease.do(ev.Reclaimed("now", 0)) == [ev.Thaw(metered=False), ev.Stop(0)]
    assert lease.told[-2].data["seconds"] == 0


def test_a_second_reclaim_only_brings_the_end_forward_and_says_nothing_twice():
    lease = started()
    lease.do(WISH)
    told = len(lease.told)
    assert lease.do(ev.Reclaimed("at once", 0))[-1] == ev.Stop(0)
    assert lease.do(ev.Reclaimed("changed my mind", 600))[-1] == ev.Stop(0)
    assert (lease.state.reason, lease.state.grace_s, len(lease.told)) == (REASON, 0, told)


def test_a_job_that_its_tenant_stops_keeps_its_reason_and_loses_only_time():
    lease = started()
    lease.do(ev.StopAsked("tenant", "enough", 3600))
    assert lease.do(WISH) == [ev.Thaw(metered=False), ev.Stop(60)]
    assert (lease.state.reason, lease.state.why) == ("enough", Why.STOPPED)
    assert lease.told[-1].data == {"seconds": 60, "reason": REASON}
    lease = started()
    lease.do(ev.StopAsked("tenant", "enough", 5))
    assert lease.do(WISH)[-1] == ev.Stop(5)


@pytest.mark.parametrize("seconds", [0, 1, 60, 86400])
def test_a_restart_in_the_middle_tells_the_job_again_and_the_runtime_keeps_the_earlier_end(seconds: int):
    lease = started()
    lease.do(ev.Reclaimed("r", seconds))
    assert resume(lease.state) == [ev.Launch(), ev.Thaw(metered=False), ev.Stop(seconds)]


def test_an_ended_job_is_only_closed_sooner():
    lease = started()
    lease.do(ev.Exited(0, "exited", "", 2))
    assert lease.do(WISH) == []
    lease.do(ev.Collected([], []))
    assert lease.do(WISH) == []
    assert (lease.state.phase, lease.state.reason, lease.state.reclaimed) == ("exited", "done", True)
    assert lease.do(ev.CloseAsked("it had its time", Why.SHUTTING_DOWN)) == [ev.CloseLease(0, "", Why.DONE)]


def test_a_closed_lease_cannot_be_reclaimed():
    lease = started()
    lease.do(ev.Exited(0, "exited", "", 2))
    lease.do(ev.Collected([], []))
    lease.do(ev.CloseAsked("r", 0))
    for event in (WISH, ev.Closed(H, ""), WISH):
        try:
            lease.do(event)
        except Conflict:
            assert event is WISH
    assert not lease.state.reclaimed


EVENTS = st.one_of(
    st.sampled_from(
        [
            MANIFEST, ev.BlobStored("aa"), ev.BlobStored("bb"), ev.StartAsked([]), ev.Started(), ev.Overdue(),
            ev.StopAsked("tenant", "r", 3600), ev.Exited(0, "exited", "", 0), ev.Collected([], []),
            ev.StartFailed("c", "f", "r", "provider"), ev.CloseAsked("r", 0), ev.Closed(None, "r"),
        ]
    ),
    st.integers(0, 60).map(ev.Metered),
    st.integers(1, 100).map(voucher),
)  # fmt: skip


def drive(lease: Lease, events: list[ev.Event]) -> None:
    """Let happen what can."""
    for event in events:
        try:
            lease.do(event)
        except (Conflict, StaleVoucher):
            pass


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=25), st.integers(0, 120), st.lists(EVENTS, max_size=10))
def test_whenever_it_comes_the_job_is_told_once_and_no_second_after_it_is_the_owners_to_claim(
    before: list[ev.Event], seconds: int, after: list[ev.Event]
):
    lease = Lease()
    drive(lease, [MANIFEST, ev.BlobStored("aa"), ev.BlobStored("bb"), *before])
    was = lease.state
    try:
        effects = lease.do(ev.Reclaimed("r", seconds))
    except Conflict:
        assert was.phase in ("closing", "closed")
        return
    now = lease.state
    if was.phase in ALIVE:
        assert now.phase == "stopping"
        stops = [effect for effect in effects if isinstance(effect, ev.Stop)]
        assert [stop.grace_s for stop in stops] == [now.grace_s]
        assert now.grace_s <= seconds
        assert ev.Thaw(metered=False) in effects, "frozen, or still counted"
    assert now.reclaimed
    assert sum(told.kind == "notice" for told in lease.told) == (was.phase not in ("collecting", "exited", "failed"))
    drive(lease, after)
    again, _ = step(now, ev.Reclaimed("again", seconds), 3000) if now.phase not in ("closing", "closed") else (now, [])
    assert again.emitted == now.emitted, "told twice"


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_a_reclaimed_lease_always_comes_to_its_end_and_pays_no_more_than_was_signed(events: list[ev.Event]):
    lease = Lease()
    drive(lease, events)
    drive(lease, [WISH, ev.Exited(143, "stopped", "", lease.state.working_s), ev.Collected([], [])])
    drive(lease, [ev.CloseAsked("it had its time", Why.SHUTTING_DOWN)])
    if lease.state.phase == "closing":
        (close,) = resume(lease.state)
        assert isinstance(close, ev.CloseLease)
        assert close.cumulative in (0, lease.state.paid)
        assert lease.state.working_s == 0 or close.cumulative == lease.state.paid
    drive(lease, [ev.Closed(H, "")])
    assert lease.state.phase == "closed"
