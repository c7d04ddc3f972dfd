"""A bill on a terminal: each lease, each second, and why it was not paid."""

from __future__ import annotations

import pytest

from minga.cli.bill import print_bill
from minga.client.bill import Bill, LeaseBill

ADDRESS = "0x" + "ab" * 20


def lease(**changes) -> LeaseBill:
    values = {
        "attempt": 0, "lease": "0x01", "provider": ADDRESS, "deposited": 1_250_000, "paid": 495_000, "fee": 5_000,
        "refunded": 750_000, "locked": 0, "working_s": 500, "unpaid_s": 22, "vouchers": 9, "state": "closed",
        "best": 500_000, "held": 500_000, "seconds": {"starting": 7, "working": 515}, "left": "reclaimed: a guest",
        "unpaid": {"starting": 7, "reclaimed": 15},
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
