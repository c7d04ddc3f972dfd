"""The agent alone, for work that is verified: an order, a commitment, and the close that waits for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leases import H, Lease, ready, started, voucher

from minga.core.errors import Conflict, StaleVoucher
from minga.protocol.lease import Why
from minga.provider import events as ev
from minga.provider.agent import replay, resume
from minga.provider.events import decode, encode
from minga.provider.rules_verify import LEAVES

ORDER = ev.OrderSet("0x" + "aa" * 32, {"determinism": "D0", "every": 1, "keep": 50}, "audit", "0x" + "bb" * 65)
ROOT = "0x" + "cc" * 32
COMMITTED = ev.Committed(ROOT, 5, H)
FAILED = ev.CommitFailed("disputes-bad-leaves", "no", "none")
FILES = [{"path": LEAVES, "bytes": 160, "blake3": "dd", "executable": False}]
ASKED = ev.CloseAsked("asked by the tenant", 0)


def ended(*files: dict[str, Any], order: ev.OrderSet | None = ORDER) -> Lease:
    """Collected, with these files."""
    lease = ready()
    if order is not None:
        lease.do(order)
    lease.do(ev.StartAsked([]))
    lease.do(ev.Started())
    lease.do(ev.Metered(4))
    lease.do(ev.Exited(0, "exited", "", 4))
    lease.do(ev.Collected(list(files), []))
    return lease


def told(lease: Lease, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in lease.told if event.kind == kind]


def test_an_order_comes_after_the_manifest_once_and_before_the_start() -> None:
    with pytest.raises(Conflict, match="no manifest"):
        Lease().do(ORDER)
    lease = ready()
    assert lease.do(ORDER) == []
    assert lease.state.order == {
        "work": ORDER.work, "trace": ORDER.trace, "mode": "audit", "signature": ORDER.signature,
    }  # fmt: skip
    with pytest.raises(Conflict, match="another order"):
        lease.do(ORDER)
    with pytest.raises(Conflict, match="an order cannot be now"):
        started().do(ORDER)


def test_the_close_waits_for_the_commitment() -> None:
    lease = ended(*FILES)
    assert lease.effects == [ev.Commit()]
    assert lease.do(voucher(4)) == [], "vouchers come meanwhile"
    assert lease.do(ASKED) == []
    assert (lease.state.phase, lease.state.close_asked) == ("exited", True)
    assert lease.do(COMMITTED) == [ev.CloseLease(4_000, "0x" + "ab" * 65, Why.DONE)]
    assert told(lease, "commitment") == [{"work": ORDER.work, "root": ROOT, "leaves": 5, "tx": H}]
    assert lease.state.commitment == told(lease, "commitment")[0]


def test_a_commitment_that_came_before_the_wish_to_close_holds_nothing_up() -> None:
    lease = ended(*FILES)
    assert lease.do(COMMITTED) == []
    assert lease.do(ASKED) == [ev.CloseLease(0, "", Why.DONE)]


def test_one_that_cannot_be_is_told_and_the_lease_closes() -> None:
    lease = ended(*FILES)
    lease.do(ASKED)
    assert lease.do(FAILED) == [ev.CloseLease(0, "", Why.DONE)]
    assert told(lease, "warning")[-1] == {"code": "disputes-bad-leaves", "fact": "no", "remedy": "none"}
    assert lease.state.commitment is None


def test_without_an_order_or_a_trace_there_is_nothing_to_commit_to() -> None:
    assert ended(*FILES, order=None).effects == []
    lease = ended({"path": "x", "bytes": 1, "blake3": "dd", "executable": False})
    assert lease.effects == []
    assert told(lease, "warning")[-1]["code"] == "no-trace"
    assert lease.do(ASKED) == [ev.CloseLease(0, "", Why.DONE)]


def test_a_lease_that_was_closed_on_chain_is_over_whatever_was_due() -> None:
    lease = ended(*FILES)
    lease.do(ev.Closed(None, "the tenant closed it"))
    assert (lease.state.phase, lease.state.committing) == ("closed", False)
    with pytest.raises(Conflict):
        lease.do(COMMITTED)
    assert resume(lease.state) == []
    early = ready()
    early.do(ORDER)
    early.do(ev.StartAsked([]))
    early.do(ev.Started())
    early.do(ev.Closed(None, "the tenant closed it"))
    early.do(ev.Exited(143, "stopped", "", 1))
    assert early.do(ev.Collected(FILES, [])) == []


def test_a_job_that_its_machine_lost_is_committed_to_as_far_as_it_came() -> None:
    lease = ready()
    lease.do(ORDER)
    lease.do(ev.StartAsked([]))
    lease.do(ev.Started())
    lease.do(ev.Exited(137, "lost", "", 1))
    assert lease.do(ev.Collected(FILES, [])) == [ev.Commit()]
    assert lease.state.phase == "failed"
    lease.do(COMMITTED)
    assert lease.state.commitment is not None


def test_after_a_restart_what_is_due_is_done_again() -> None:
    lease = ended(*FILES)
    state, told_again = replay([(decode(*encode(event)), at) for event, at in lease.journal])
    assert (state, told_again) == (lease.state, lease.told)
    assert resume(state) == [ev.Commit()]
    lease.do(COMMITTED)
    assert resume(lease.state) == []
    lease.do(ASKED)
    assert [type(effect) for effect in resume(lease.state)] == [ev.CloseLease]


MOVES = st.sampled_from(
    [ASKED, COMMITTED, FAILED, voucher(2), voucher(4), ev.Reclaimed("mine", 5), ev.ChainClosing(9000),
     ev.Closed(None, ""), ev.Warned("a", "b", "c")]
)  # fmt: skip


@given(st.lists(MOVES, max_size=8))
def test_whatever_happens_nothing_is_closed_by_us_while_a_commitment_is_due(moves: list[ev.Event]) -> None:
    lease = ended(*FILES)
    for move in moves:
        before = lease.state
        try:
            effects = lease.do(move)
        except Conflict:
            assert lease.state == before
            continue
        except StaleVoucher:
            continue
        if any(isinstance(effect, ev.CloseLease) for effect in effects):
            assert not lease.state.committing
        assert not (lease.state.committing and lease.state.phase not in ("exited", "failed"))
        assert sum(event.kind == "commitment" for event in lease.told) <= 1
    if lease.state.phase in ("exited", "failed") and lease.state.committing:
        assert resume(lease.state) == [ev.Commit()]
