# pragma version 0.4.3
"""
@title How a lease's gross amount divides, and how its account is packed into one word
@license Apache-2.0
@notice What it is: integer arithmetic, the same as `minga.protocol.settlement`.
        What it does not know: tokens, time, people.
        Rule: each share is a function of the total so far, rounded down; a payment is the difference of two
        totals. So N payments are worth exactly one payment of their sum, and nothing is lost to rounding.
"""

struct Account:
    deposit: uint256  # token units, gross, at most AMOUNT_MAX
    settled: uint256  # token units, gross, at most deposit
    ends_at: uint256  # chain time; of a closing lease: when its window began; of a held one: when the hold ends
    phase: uint256

BPS: constant(uint256) = 10_000
AMOUNT_MAX: constant(uint256) = 2**96 - 1
TIME_MAX: constant(uint256) = 2**56 - 1

CLOSED: constant(uint256) = 0
OPEN: constant(uint256) = 1
CLOSING: constant(uint256) = 2
HELD: constant(uint256) = 3


@internal
@pure
def _pack(a: Account) -> uint256:
    return a.deposit | (a.settled << 96) | (a.ends_at << 192) | (a.phase << 248)


@internal
@pure
def _unpack(word: uint256) -> Account:
    return Account(
        deposit=word & AMOUNT_MAX,
        settled=(word >> 96) & AMOUNT_MAX,
        ends_at=(word >> 192) & TIME_MAX,
        phase=word >> 248,
    )


@internal
@pure
def _fee_down(gross: uint256, fee_bps: uint256) -> uint256:
    return gross * fee_bps // BPS


@internal
@pure
def _held_down(gross: uint256, fee_bps: uint256, hold_bps: uint256) -> uint256:
    # Of what is left after the fee, so that fee and hold together never exceed the gross amount.
    return (gross - gross * fee_bps // BPS) * hold_bps // BPS
