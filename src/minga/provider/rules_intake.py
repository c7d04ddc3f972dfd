"""Rules of the agent for what a tenant sends: logins, manifest, inputs, vouchers; and for its deposit.

Rule: a voucher only ever grows and never exceeds the deposit; a paused job goes on as soon as less than a quantum is
unpaid.
"""

from __future__ import annotations

from minga.core.errors import Conflict, StaleVoucher
from minga.provider import events as ev
from minga.provider.metering import limit_of
from minga.provider.turn import REMEDY, Turn

TOKENS_KEPT = 4
NONCES_KEPT = 256


def logged_in(turn: Turn, event: ev.LoggedIn) -> None:
    """Keep the newest tokens; a nonce counts once."""
    old = turn.state
    if event.nonce in old.nonces:
        raise Conflict("this login was used before", "sign a login with a fresh nonce")
    tokens = (*old.tokens, (event.token_hash, event.expires_at))[-TOKENS_KEPT:]
    turn.set(tokens=tokens, nonces=(*old.nonces, event.nonce)[-NONCES_KEPT:])


def manifest_set(turn: Turn, event: ev.ManifestSet) -> None:
    """One manifest a lease; without inputs to come it is ready."""
    if turn.state.manifest is not None:
        raise Conflict("the lease has another manifest already", "open another lease for another job")
    turn.set(manifest=event.manifest, manifest_hash=event.hash, missing=tuple(event.missing))
    if not event.missing:
        turn.enter("ready")


def blob_stored(turn: Turn, event: ev.BlobStored) -> None:
    """The last input makes it ready."""
    turn.set(missing=tuple(name for name in turn.state.missing if name != event.name))
    if not turn.state.missing and turn.state.manifest is not None:
        turn.enter("ready")


def voucher_stored(turn: Turn, event: ev.VoucherStored) -> None:
    """Above the last, within the deposit, before the close."""
    state, amount = turn.state, int(event.cumulative)
    if amount <= state.paid:
        raise StaleVoucher(f"the voucher says {amount}, {state.paid} is held already", "sign a larger total")
    if state.closed_at:
        raise Conflict("the lease is closed on chain: vouchers are worth nothing now", REMEDY)
    if amount > state.deposit:
        raise StaleVoucher(f"the voucher says {amount}, the deposit is {state.deposit}", "top up the lease first")
    turn.set(paid=amount, signature=event.signature)
    unpaid = turn.state.owed - amount
    if state.phase == "paused" and unpaid < limit_of(state.price, state.facts.units, state.facts.quantum):
        turn.do(ev.Thaw(metered=True))
        turn.set(reason="")
        turn.enter("running")


def deposit_seen(turn: Turn, event: ev.DepositSeen) -> None:
    """A top-up, or a later end."""
    turn.set(deposit=int(event.deposit), ends_at=event.ends_at)


def warned(turn: Turn, event: ev.Warned) -> None:
    """Tell it."""
    turn.tell("warning", code=event.code, fact=event.fact, remedy=event.remedy)
