"""How a lease's gross amount divides: the arithmetic that the contracts do.

What it is: pure functions over integers of token units, the same as `contracts/modules/accounting.vy`, bit by bit.
What it does not know: who is paid, when, and whether a signature is good.

Rule: each share is a function of the *total so far*, rounded down; a payment is the difference of two totals. Therefore
N redeems pay what one redeem of the last voucher pays, and a lease's deposit equals paid + fee + held + refund, to the
unit. What rounding leaves of the fee is the provider's.
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.core.units import BPS, Amount

AMOUNT_MAX = 2**96 - 1
"""The largest deposit that Market takes, in token units."""

FEE_BPS_MAX = 300
FEE_BPS_DEFAULT = 100


@dataclass(frozen=True, slots=True)
class Split:
    """A gross amount divided, in token units: to the provider now, to the fee recipient, held for the arbiter."""

    paid: Amount
    fee: Amount
    held: Amount

    def __sub__(self, earlier: Split) -> Split:
        """What is due now when `earlier` was due before."""
        return Split(Amount(self.paid - earlier.paid), Amount(self.fee - earlier.fee), Amount(self.held - earlier.held))


def fee_down(gross: int, fee_bps: int) -> Amount:
    """The fee on a gross amount; `fee_bps` is 0 … 300."""
    return Amount(gross * fee_bps // BPS)


def held_down(gross: int, fee_bps: int, hold_bps: int) -> Amount:
    """The part of a gross amount, after its fee, that waits for the arbiter; `hold_bps` is 0 … 10,000."""
    return Amount((gross - fee_down(gross, fee_bps)) * hold_bps // BPS)


def split(gross: int, fee_bps: int, hold_bps: int = 0) -> Split:
    """Divide a gross amount; the three parts add up to it."""
    fee = fee_down(gross, fee_bps)
    held = held_down(gross, fee_bps, hold_bps)
    return Split(Amount(gross - fee - held), fee, held)


def settled_after(settled: int, deposit: int, cumulative: int) -> Amount:
    """The gross settled amount after a voucher for `cumulative`: never less than before, nor over the deposit."""
    return Amount(max(settled, min(cumulative, deposit)))
