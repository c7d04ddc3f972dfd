"""`minga reliability`: the record of a provider, and each lease behind it, as anyone computes it from the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import print_facts, print_json, print_table, say, short, tell
from minga.core.units import DAY, HOUR, format_duration, format_usd

if TYPE_CHECKING:
    from minga.client.records import Standing
    from minga.protocol.reliability import Fact


def reliability(
    ctx: typer.Context,
    provider: Annotated[str, typer.Argument(help="A provider's address, or the beginning of it.")],
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="How many leases to show.")] = 20,
    as_json: Json = False,
) -> None:
    """A provider's record, computed here from the chain's events and tenants' signed complaints."""
    with settings_of(ctx).connect() as client:
        found = client.reliability(provider)
        decimals = client.network.chain.deployment.decimals
    if as_json:
        print_json(standing_dict(found, limit))
    else:
        _print(found, decimals, limit)


def standing_dict(found: Standing, limit: int) -> dict[str, Any]:
    """A record and at most `limit` of its leases as a JSON value; amounts are decimal strings of token units."""
    from dataclasses import asdict

    record = asdict(found.record)
    for name in ("evidence", "paid", "fee"):
        record[name] = str(record[name])
    leases = [
        {
            "lease": fact.lease_id,
            "tenant": fact.tenant,
            "opened_at": fact.opened_at,
            "closed_at": fact.closed_at,
            "paid": str(fact.worth),
            "price_per_hour": str(fact.price_per_hour),
            "provider_said": fact.provider_said,
            "tenant_said": fact.tenant_said,
            "complaint": complaint,
            "counts_as": judged(fact, complaint),
        }
        for fact, complaint in found.evidence[:limit]
    ]
    return {
        **record,
        "mtbf_s": found.record.mtbf_s,
        "as_of": found.as_of,
        "doubts": list(found.doubts),
        "events": leases,
    }


def judged(fact: Fact, complaint: int | None) -> str:
    """What a lease counts as: `kept`, `spoilt`, `disputed` (spoilt, and the provider denies it), `reclaimed`, `–`."""
    if fact.disputed(complaint):
        return "disputed"
    if fact.spoilt(complaint):
        return "spoilt"
    if fact.interrupted(complaint):
        return "reclaimed"
    return "–" if fact.provider_said is None and fact.tenant_said is None else "kept"


def _print(found: Standing, decimals: int, limit: int) -> None:
    from minga.protocol.reliability import Rules, new_record

    record = found.record
    start = new_record(record.provider, Rules.of(decimals))
    facts = [
        ("provider", record.provider),
        ("reliability", f"{record.ppm / 10_000:.2f} % (a new provider has {start.ppm / 10_000:.2f} %)"),
        ("interruption", f"one in {_rough(record.mtbf_s)} of paid work is to be expected"),
    ]
    if record.leases:
        kept = f"{record.well} kept ({record.reclaimed} reclaimed)"
        spoilt = f"{record.left} spoilt ({record.disputed} disputed, {record.unpaid} unpaid)"
        facts += [
            ("leases", f"{record.leases} ended: {kept}, {spoilt}"),
            ("complaints", str(record.complaints)),
            ("paid", f"${format_usd(record.paid, decimals)} by {record.tenants} tenant{'s' * (record.tenants != 1)}"),
            ("to fake it", f"at least ${format_usd(record.fee, decimals)} in fees, and gas"),
        ]
    print_facts(facts)
    for doubt in found.doubts:
        tell(doubt)
    if record.leases and limit:
        say("")
        head = ("lease", ">ago", ">held", ">paid", "~provider", "~tenant", "~complaint", "as")
        print_table(head, [_row(fact, told, decimals, found.as_of) for fact, told in found.evidence[:limit]], "")


def _row(fact: Fact, complaint: int | None, decimals: int, as_of: int) -> tuple[str, ...]:
    return (
        short(fact.lease_id),
        _rough(max(0, as_of - fact.closed_at)),
        _rough(max(0, fact.closed_at - fact.opened_at)),
        f"${format_usd(fact.worth, decimals)}",
        _word(fact.provider_said),
        _word(fact.tenant_said),
        _word(complaint),
        judged(fact, complaint),
    )


def _rough(seconds: int) -> str:
    """A duration to the hour if it is days, to the minute if it is hours."""
    step = HOUR if seconds >= DAY else 60 if seconds >= HOUR else 1
    return format_duration(seconds - seconds % step)


def _word(code: int | None) -> str:
    from minga.protocol.lease import Why

    if code is None:
        return "–"
    return Why(code).name.lower().replace("_", " ") if code in Why.__members__.values() else str(code)
