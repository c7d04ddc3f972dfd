"""Moves that several events of a job share: seek, leave, lose, stop, end, settle. Used by `minga.protocol.job` alone.

Each takes a state and gives the next. Rule: a lease that is left keeps why, a machine that is left is excluded, and
money that is on its way counts as spent until the chain says otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_lease import Lease
from minga.protocol.job_money import sign
from minga.protocol.job_state import AT_WORK, SEEKING, Ending, Phase, State, slice_for
from minga.protocol.lease import Why

FOREVER = 2**53 - 1
AGAIN_S = 60
BACKOFF_S = (1, 2, 4, 8, 16, 30)
MOVING = "the deposit is used up, another lease follows"
NO_VOUCHER = "no voucher"
OURS = (NO_VOUCHER, MOVING)
RECLAIMED = "reclaimed"

NO_TRACE = "no-trace"

GONE = {
    "provider-unreachable": Why.UNREACHABLE,
    "bad-artifact": Why.BAD_RESULT,
    "bad-result": Why.BAD_RESULT,
    "under-spec": Why.UNDER_SPEC,
    NO_TRACE: Why.BAD_RESULT,
}
"""Losses after which the provider is not asked for anything any more; else it can still close the lease itself."""


def seek(state: State, now: int, phase: Phase = "recovering") -> State:
    """Look for an offer, unless the job is over."""
    if state.ending is not None:
        return settle(state)
    if state.attempt >= state.plan.attempts_max:
        return settle(end(state, "failed", f"{state.attempt} attempts failed; the last: {state.reason}"))
    turn = state.seek_turn + 1
    return replace(
        state, phase=phase, lease=None, stopping=False, seek_since=now, seek_turn=turn, seek_tries=0, seek_at=0
    )


def not_found(state: State, code: str, fact: str, final: bool, now: int) -> State:
    """Look again later; or give up, unless the money that is missing is on its way back."""
    coming = code == "budget-too-small" and waits_for_money(state)
    if not coming and (final or now - state.seek_since >= state.plan.wait_s):
        spent = code == "budget-too-small" and bool(state.past)
        return settle(end(state, "exhausted" if spent else "failed", f"{code}: {fact}"))
    tries = state.seek_tries + 1
    pause = BACKOFF_S[min(tries, len(BACKOFF_S)) - 1]
    if coming:
        code, fact = "waiting", "what is left of the budget is locked in a lease that was left; it comes back"
    return replace(state, seek_tries=tries, seek_at=now + pause, reason=f"{code}: {fact}")


def waits_for_money(state: State) -> bool:
    """Whether a job with a checkpoint could go on once the leases that it left give back what is not signed."""
    deals = [item.deal for item in state.past if item.status != "closed"]
    coming = state.available + state.returning
    return state.checkpoint is not None and any(slice_for(state.plan.budget, coming, deal) for deal in deals)


def signed(state: State, lease: Lease, now: int) -> State:
    """The state with `lease`, and the voucher in it for what may be paid now."""
    after, ledger = sign(state.plan, state.ledger, lease, lease.cost(lease.payable_s), now)
    if after.vouchers != lease.vouchers:
        after = replace(after, away=False)
    return replace(state, lease=after, ledger=ledger)


def exclude(state: State, machine: str, until: int) -> State:
    """Take no offer of a machine before `until`."""
    others = tuple(item for item in state.excluded if item[0] != machine)
    return replace(state, excluded=(*others, (machine, until)))


def lose(state: State, code: str, reason: str, now: int) -> State:
    """The provider failed: it is left at once when it is gone or lied, else it is asked to close first."""
    assert state.lease is not None
    left = f"{code}: {reason}"[:500]
    lease = replace(state.lease, left=left, why=GONE.get(code, Why.REFUSED))
    until = now + AGAIN_S if code == RECLAIMED else FOREVER
    state = replace(exclude(state, lease.deal.machine, until), reason=left, lease=lease)
    if code == NO_TRACE and any(item.left.startswith(NO_TRACE) for item in state.past):
        # Two providers, and no trace: then it is the job that writes none.
        state = replace(state, ending=Ending("failed", left, lease.exit_code))
    elif state.ending is not None and state.ending.phase in ("done", "failed") and state.phase == "collecting":
        # What it made is gone with its provider: the work counts only once it is here.
        state = replace(state, ending=None)
    if code not in GONE:
        return replace(state, phase="closing", stopping=False)
    return leave(state, now)


def leave(state: State, now: int) -> State:
    """Give the present lease up: it will be closed from our side while the job goes on."""
    assert state.lease is not None
    # A top-up that was on its way counts as made until the chain says otherwise.
    deposit = Amount(state.top_up[1]) if state.top_up else state.lease.deposit
    past = (*state.past, replace(state.lease, deposit=deposit))
    return seek(replace(state, past=past, lease=None, top_up=None), now)


def stop(state: State, phase: Phase, reason: str) -> State:
    """End the job as `phase`: what runs is stopped and collected first."""
    if state.ending is not None:
        return state
    state = end(state, phase, reason)
    if state.phase in AT_WORK:
        return replace(state, stopping=True)
    if state.phase == "sending":
        return replace(state, phase="closing")
    # While it is submitted, funding may be on its way: that is finished first, and then returned.
    return settle(state) if state.phase in SEEKING else state


def end(state: State, phase: Phase, reason: str, exit_code: int | None = None) -> State:
    """Decide how the job ends; the first decision stands."""
    return replace(state, ending=state.ending or Ending(phase, reason[:500], exit_code))


def settle(state: State) -> State:
    """No lease any more: what is left of the money goes back."""
    return finish(replace(state, phase="settling", lease=None, top_up=None, stopping=False))


def finish(state: State) -> State:
    """Terminal, once every lease is closed or closing and what came back was returned."""
    settled = (
        state.phase == "settling" and not any(item.status == "open" for item in state.past) and not state.unreturned
    )
    if not settled or state.ending is None:
        return state
    return replace(state, phase=state.ending.phase, reason=state.ending.reason or state.reason)


def closed(lease: Lease, event: ev.LeaseClosed) -> Lease:
    """The lease with the chain's totals, which are right also when a top-up of ours was not acknowledged."""
    deposit = Amount(event.paid + event.fee + event.held + event.refunded)
    return replace(
        lease, status="closed", deposit=deposit, paid=event.paid, fee=event.fee, held=event.held,
        refunded=event.refunded,
    )  # fmt: skip
