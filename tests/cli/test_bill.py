"""A bill on a terminal: each lease, each second, and why it was not paid."""

from __future__ import annotations

import pytest

from minga.cli.bill import print_bill
from minga.client.bill import Bill, LeaseBill, Verification

ADDRESS = "0x" + "ab" * 20


def lease(**changes) -> LeaseBill:
    values = {
        "attempt": 0, "lease": "0x01", "provider": ADDRESS, "deposited": 1_250_000, "paid": 495_000, "fee": 5_000,
        "refunded": 750_000, "locked": 0, "working_s": 500, "unpaid_s": 22, "vouchers": 9, "state": "closed",
        "best": 500_000, "acknowledged": 500_000, "seconds": {"starting": 7, "working": 515},
        "unpaid": {"starting": 7, "reclaimed": 15}, "left": "reclaimed: a guest",
    }  # fmt: skip
    return LeaseBill(**(values | changes))


def test_each_lease_says_what_it_did_and_what_was_not_paid(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    bill = Bill(6, (lease(), lease(attempt=1, left="", seconds={}, unpaid={})), 5_000_000, 4_000_000, 0, 6)
    print_bill(bill)
    shown = capsys.readouterr().out
    assert "9 to $0.50" in shown
    assert "starting 7s, working 8m 35s" in shown
    assert "starting 7s, reclaimed 15s" in shown
    assert "reclaimed: a guest" in shown
    assert "NOT EXACT" not in shown
    assert "$5.00, $4.00 of it returned" in shown


def test_held_pay_is_shown_with_its_time_then_with_what_became_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cost = Verification("audit", "D0", 49_500, 81_920, 2_000_000)
    held = lease(paid=445_500, held=49_500, held_until=1_800_000_000)
    print_bill(Bill(6, (held,), 5_000_000, 4_000_000, 0, 6, cost))
    shown = capsys.readouterr().out
    assert "+ held" in shown
    assert "$0.0495, free 2027-01-15 08:00 UTC unless a verdict comes" in shown
    assert "audit, D0: $0.0495 not yet free" in shown
    assert "sent to each provider" in shown
    assert "NOT EXACT" not in shown
    freed = lease(attempt=1, released=49_500)
    won = lease(paid=445_500, refunded=799_500, returned=49_500, awarded=400_000)
    print_bill(Bill(6, (won, freed), 5_000_000, 4_000_000, 0, 6))
    shown = capsys.readouterr().out
    assert "$0.0495 returned by a verdict, $0.40 besides from its stake, $0.00 released" in shown
    assert "$0.00 returned by a verdict, $0.0495 released" in shown
    assert "verified" not in shown


def test_it_fits_a_terminal_of_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_bill(Bill(6, (lease(paid=713, fee=8, held=79, refunded=1_249_200, vouchers=12),), 5_000_000, 0, 0, 6))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for amount in ("$0.000713", "$0.000008", "$0.000079", "$1.2492", "$0.00", "12 to"):
        assert amount in shown


def test_a_sum_that_is_not_exact_is_cried_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_bill(Bill(6, (lease(paid=1),), 0, 0, 0, 0))
    assert "NOT EXACT" in capsys.readouterr().out


def test_what_a_provider_said_is_text_alone(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_bill(Bill(6, (lease(left="reclaimed: \x1b[31mred\x1b[0m\n[bold]x"),), 0, 0, 0, 0))
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert "reclaimed: red" in shown


def test_no_lease_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_bill(Bill(6, (), 0, 0, 0, 0))
    assert "no lease was opened" in capsys.readouterr().err
