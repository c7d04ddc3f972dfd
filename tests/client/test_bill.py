"""A bill over several leases: each as the chain has it, exact to the token unit, with every second accounted for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minga.chain.chain import ContractEvent, Position, Seen
from minga.chain.contract_events import Closed, ClosingStarted, HoldEnded, Opened, Redeemed, ToppedUp
from minga.chain.view import View
from minga.client.bill import Bill, Verification, make_bill
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32
from minga.core.units import Amount
from minga.protocol.job_events import Deal, Plan
from minga.protocol.job_state import Lease as JobLease
from minga.protocol.job_state import State
from minga.protocol.lease import How, Lease, Why

NOW = 1_800_000_000
PROVIDERS = [Address(f"0x{number:040x}") for number in range(10, 20)]
PRICE = Amount(3_600_000)
PLAN = Plan("0x" + "11" * 32, Amount(1_000_000))


def on_chain(number: int) -> Lease:
    """Lease `number` of a job."""
    return Lease(
        Address("0x" + "01" * 20), Hash32(f"0x{number + 1:064x}"), 0, Address("0x" + "02" * 20), PROVIDERS[number],
        Hash32("0x" + "0c" * 32), Hash32("0x" + "0d" * 32), PRICE, 1, 3600, ZERO_ADDRESS, 0, 0, NOW,
    )  # fmt: skip


def opened(number: int, deposit: int) -> Opened:
    lease = on_chain(number)
    return Opened(lease.id, lease.tenant, lease.provider, lease, NOW + 900, Amount(deposit))


def closed(number: int, deposit: int, worth: int, held: int = 0, why: int = Why.DONE) -> Closed:
    lease, fee = on_chain(number), worth // 100
    return Closed(
        lease.id, lease.tenant, lease.provider, lease.provider, How.CLOSE, why, Amount(worth),
        Amount(worth - fee - held), Amount(fee), Amount(held), Amount(deposit - worth),
    )  # fmt: skip


def view_of(*events: ContractEvent) -> View:
    zero, view = Hash32("0x" + "00" * 32), View()
    view.apply(Seen(event, Position(number, zero, zero, 0, NOW)) for number, event in enumerate(events))
    return view


def kept(number: int, deposit: int, signed: int = 0, **more: Any) -> JobLease:
    """What the job knows of it."""
    deal = Deal(
        PROVIDERS[number], "0x" + "0d" * 32, "0x" + "0c" * 32, PRICE, 1, 5, Amount(1), 60, 86400, 3600
    )  # fmt: skip
    lease = JobLease(number, deal, {}, Amount(deposit), lease=on_chain(number).id)
    return replace(lease, signed=Amount(signed), acked=Amount(signed), **more)


def state_of(*leases: JobLease, **more: Any) -> State:
    return State(PLAN, past=leases, funded=True, **more)


def bill_of(state: State, *events: ContractEvent, seconds: dict[int, dict[str, int]] | None = None) -> Bill:
    return make_bill(state, view_of(*events), 6, seconds or {}, {})


def test_a_job_that_moved_has_a_line_a_lease_and_sums_of_all() -> None:
    state = state_of(
        kept(0, 250_000, 40_000, status="closed", working_s=40, elapsed_s=40, left="reclaimed: a guest", vouchers=3),
        kept(1, 200_000, 70_000, status="closed", working_s=70, elapsed_s=70, vouchers=5),
        returned=Amount(890_000),
    )
    events = [opened(0, 250_000), closed(0, 250_000, 40_000), opened(1, 200_000), closed(1, 200_000, 70_000)]
    seconds = {0: {"sending": 2, "working": 45}, 1: {"starting": 3, "working": 70}}
    bill = bill_of(state, *events, seconds=seconds)
    first, second = bill.leases
    assert (first.provider, first.paid, first.fee, first.refunded) == (PROVIDERS[0], 39_600, 400, 210_000)
    assert (first.working_s, first.unpaid_s, first.left, first.vouchers) == (40, 7, "reclaimed: a guest", 3)
    assert (second.provider, second.paid, second.working_s, second.left) == (PROVIDERS[1], 69_300, 70, "")
    assert second.unpaid == {"starting": 3}
    assert (bill.deposited, bill.paid, bill.fee, bill.refunded, bill.locked) == (450_000, 108_900, 1_100, 340_000, 0)
    assert (bill.funded, bill.returned, bill.conserved) == (1_000_000, 890_000, True)
    assert bill.funded - bill.returned == bill.paid + bill.fee


def test_a_lease_that_its_own_close_still_locks_is_told_with_the_time() -> None:
    lost = kept(0, 250_000, 40_000, status="closing", finish_at=NOW + 3600)
    start = ClosingStarted(on_chain(0).id, Address("0x" + "01" * 20), NOW + 3600, Why.UNREACHABLE)
    (found,) = bill_of(state_of(lost), opened(0, 250_000), start).leases
    assert (found.state, found.locked, found.locked_until) == ("closing", 250_000, NOW + 3600)
    assert (found.paid, found.refunded, found.best, found.acknowledged) == (0, 0, 40_000, 40_000)
    assert found.conserved


def test_what_was_redeemed_meanwhile_is_paid_and_no_longer_locked() -> None:
    lease = on_chain(0)
    redeemed = Redeemed(lease.id, lease.provider, Amount(30_000), Amount(29_700), Amount(300))
    topped = ToppedUp(lease.id, lease.tenant, Amount(50_000), Amount(300_000))
    (found,) = bill_of(state_of(kept(0, 250_000, 40_000)), opened(0, 250_000), topped, redeemed).leases
    assert (found.deposited, found.paid, found.fee, found.locked) == (300_000, 29_700, 300, 270_000)
    assert found.conserved
    assert found.state == "open"


def test_a_lease_that_the_chain_does_not_show_yet_locks_all_of_it() -> None:
    (found,) = bill_of(state_of(kept(0, 250_000, 40_000))).leases
    assert (found.state, found.deposited, found.locked, found.paid) == ("opening", 250_000, 250_000, 0)
    assert found.conserved


def test_what_an_arbiter_holds_and_gives_is_counted_once() -> None:
    held = closed(0, 250_000, 40_000, held=10_000)
    state = state_of(kept(0, 250_000, 40_000, status="closed"))
    (before,) = bill_of(state, opened(0, 250_000), held).leases
    assert (before.held, before.locked, before.state, before.conserved) == (10_000, 0, "held", True)
    assert before.held_until == NOW + on_chain(0).hold_seconds
    spoken = HoldEnded(on_chain(0).id, PROVIDERS[0], Amount(4_000), Amount(6_000))
    bill = bill_of(state, opened(0, 250_000), held, spoken)
    (after,) = bill.leases
    assert after.conserved
    assert (after.locked, after.held, after.held_until) == (0, 0, 0)
    assert (after.returned, after.released) == (4_000, 6_000)
    assert after.paid + after.refunded == before.paid + before.refunded + 10_000
    assert {after.paid - before.paid, after.refunded - before.refunded} == {4_000, 6_000}


def test_seconds_that_a_check_did_not_accept_are_free_and_named() -> None:
    lease = kept(0, 250_000, 25_000, checked=True, accepted_s=25, working_s=60, elapsed_s=60)
    (found,) = bill_of(state_of(lease), opened(0, 250_000), seconds={0: {"working": 60}}).leases
    assert (found.working_s, found.accepted_s) == (25, 25)
    assert found.unpaid == {"not accepted": 35}
    (plain,) = bill_of(state_of(replace(lease, checked=False)), opened(0, 250_000)).leases
    assert plain.accepted_s is None


def test_what_it_cost_to_have_the_work_verified_is_on_the_bill() -> None:
    state = state_of(kept(0, 250_000, 40_000, status="closed", awarded=Amount(77)))
    events = [opened(0, 250_000), closed(0, 250_000, 40_000, held=10_000)]
    bill = make_bill(state, view_of(*events), 6, {}, {}, ("audit", "D1", 4_096, 320))
    assert bill.verification == Verification("audit", "D1", 10_000, 4_096, 320)
    value = json.loads(json.dumps(bill.as_dict()))
    assert value["verification"]["trace_bytes"] == 320
    assert (value["held"], value["leases"][0]["awarded"]) == (10_000, 77)
    assert bill_of(state, *events).as_dict()["verification"] is None


def test_gas_is_of_all_transactions_and_leaves_as_text() -> None:
    costs = {f"open/{n}": {"gas": 5, "fee_wei": str(10**18 + n)} for n in range(3)}
    bill = make_bill(state_of(), View(), 6, {}, costs)
    assert (bill.gas_wei, bill.transactions) == (3 * 10**18 + 3, 3)
    value = json.loads(json.dumps(bill.as_dict()))
    assert value["gas_wei"] == "3000000000000000003"
    assert make_bill(State(PLAN), View(), 6, {}, {}).funded == 0, "what was not funded is not on the bill"


@st.composite
def endings(draw: st.DrawFn) -> tuple[int, int, str]:
    deposit = draw(st.integers(1, 2**80))
    return deposit, draw(st.integers(0, deposit)), draw(st.sampled_from(["open", "closing", "closed", "unseen"]))


@given(st.lists(endings(), max_size=6))
def test_whatever_became_of_the_leases_the_parts_are_the_deposits(found: list[tuple[int, int, str]]) -> None:
    events: list[ContractEvent] = []
    for number, (deposit, worth, end) in enumerate(found):
        if end != "unseen":
            events.append(opened(number, deposit))
        if end == "closing":
            events.append(ClosingStarted(on_chain(number).id, PROVIDERS[number], NOW + 9, Why.UNREACHABLE))
        if end == "closed":
            events.append(closed(number, deposit, worth))
    bill = bill_of(state_of(*[kept(n, deposit, worth) for n, (deposit, worth, _) in enumerate(found)]), *events)
    assert bill.conserved
    assert (
        bill.deposited
        == bill.paid + bill.fee + bill.held + bill.refunded + bill.locked
        == sum(item[0] for item in found)
    )
    assert bill.paid + bill.fee == sum(worth for _, worth, end in found if end == "closed")
    assert bill.totals() == {name: bill.as_dict()[name] for name in bill.totals()}


def test_one_unit_that_is_missing_is_seen() -> None:
    (good,) = bill_of(state_of(kept(0, 250_000)), opened(0, 250_000), closed(0, 250_000, 40_000)).leases
    for name in ("paid", "fee", "refunded", "locked"):
        bad = replace(good, **{name: getattr(good, name) + 1})
        assert not Bill(6, (good, bad), 0, 0, 0, 0).conserved, name
    worse = replace(good, held=good.held + 1)
    assert not Bill(6, (worse,), 0, 0, 0, 0).conserved
    assert Bill(6, (good, good), 0, 0, 0, 0).conserved
