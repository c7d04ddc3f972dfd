"""A job's bill on a terminal: every lease, every second, every token unit.

Does not know: how a bill is made (`minga.client.bill`). Texts of a provider are shown as text alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from minga.cli.live import clean
from minga.cli.output import print_facts, print_table, short
from minga.core.units import format_duration, format_size, format_usd


def print_bill(found: Any) -> None:
    """A bill: money by lease, seconds by lease and state, why seconds were not paid, and the sum."""

    def usd(amount: int) -> str:
        return f"${format_usd(amount, found.decimals)}"

    rows = [
        (
            str(lease.attempt + 1), f"{lease.working_s} s", usd(lease.deposited), usd(lease.paid), usd(lease.fee),
            usd(lease.held), usd(lease.refunded), usd(lease.locked),
        )
        for lease in found.leases
    ]  # fmt: skip
    head = (">#", ">paid time", ">deposit", ">paid", ">fee", ">held", ">refunded", ">locked")
    print_table(head, rows, "no lease was opened")
    spent = [
        (
            str(lease.attempt + 1), short(lease.provider), f"{lease.vouchers} to {usd(lease.best)}",
            _seconds(lease.seconds), _seconds(lease.unpaid), clean(lease.left) or "–",
        )
        for lease in found.leases
    ]  # fmt: skip
    if spent:
        times = (">#", "provider", "~vouchers", "~seconds by state", "~not paid, because", "~ended")
        print_table(times, spent, "")
    print_facts(
        [
            ("deposited", usd(found.deposited)),
            ("= paid", usd(found.paid)),
            ("+ fee", usd(found.fee)),
            ("+ held", usd(found.held)),
            ("+ refunded", usd(found.refunded)),
            ("+ locked", usd(found.locked) + ("" if found.conserved else "   THE SUM IS NOT EXACT")),
            ("budget", f"{usd(found.funded)}, {usd(found.returned)} of it returned"),
            *_verification(found, usd),
        ]
    )


def _verification(found: Any, usd: Callable[[int], str]) -> list[tuple[str, str]]:
    """What became of pay that was held back, and what verification cost beside."""
    rows = []
    for lease in found.leases:
        name = f"held of lease {lease.attempt + 1}"
        if lease.held:
            rows.append((name, f"{usd(lease.held)}, free {shown_time(lease.held_until)} unless a verdict comes"))
        elif lease.returned or lease.released:
            stake = f", {usd(lease.awarded)} besides from its stake" if lease.awarded else ""
            rows.append((name, f"{usd(lease.returned)} returned by a verdict{stake}, {usd(lease.released)} released"))
    cost = found.verification
    if cost is not None:
        beside = f"{format_size(cost.sent_bytes)} sent to each provider, {format_size(cost.trace_bytes)} of trace"
        rows.append(("verified", f"{cost.mode}, {cost.determinism}: {usd(cost.held)} not yet free, {beside}"))
    return rows


def _seconds(by_name: dict[str, int]) -> str:
    return ", ".join(f"{name} {format_duration(count)}" for name, count in by_name.items()) or "–"


def shown_time(at: int) -> str:
    """Unix seconds as a person reads them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
