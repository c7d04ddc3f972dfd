"""A job's bill on a terminal: every lease, every second, every token unit.

Does not know: how a bill is made (`minga.client.bill`). Texts of a provider are shown as text alone.
"""

from __future__ import annotations

from typing import Any

from minga.cli.live import clean
from minga.cli.output import print_facts, print_table, short
from minga.core.units import format_duration, format_usd


def print_bill(found: Any) -> None:
    """A bill: money by lease, seconds by lease and state, why seconds were not paid, and the sum."""

    def usd(amount: int) -> str:
        return f"${format_usd(amount, found.decimals)}"

    rows = [
        (
            str(lease.attempt + 1), short(lease.provider), f"{lease.working_s} s",
            f"{lease.vouchers} to {usd(lease.best)}", usd(lease.deposited), usd(lease.paid), usd(lease.fee),
            usd(lease.refunded), usd(lease.locked),
        )
        for lease in found.leases
    ]  # fmt: skip
    head = (">#", "provider", ">paid time", ">vouchers", ">deposit", ">paid", ">fee", ">refunded", ">locked")
    print_table(head, rows, "no lease was opened")
    spent = [
        (str(lease.attempt + 1), _seconds(lease.seconds), _seconds(lease.unpaid), clean(lease.left) or "–")
        for lease in found.leases
    ]
    if spent:
        print_table((">#", "~seconds by state", "~not paid, because", "~ended"), spent, "")
    print_facts(
        [
            ("deposited", usd(found.deposited)),
            ("= paid", usd(found.paid)),
            ("+ fee", usd(found.fee)),
            ("+ refunded", usd(found.refunded)),
            ("+ locked", usd(found.locked) + ("" if found.conserved else "   THE SUM IS NOT EXACT")),
            ("budget", f"{usd(found.funded)}, {usd(found.returned)} of it returned"),
        ]
    )


def _seconds(by_name: dict[str, int]) -> str:
    return ", ".join(f"{name} {format_duration(count)}" for name, count in by_name.items()) or "–"
