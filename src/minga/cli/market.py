"""`minga offers` and `minga quote`: what is for sale, and what a job would cost, before any money moves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import print_facts, print_json, print_table, say, short, tell
from minga.core.units import format_duration, format_size, format_usd

if TYPE_CHECKING:
    from minga.client.session import Quote
    from minga.protocol.matching import Exclusion, Ranked

LISTED = 10
"""Offers that a quote shows."""


def offers(
    ctx: typer.Context,
    query: Annotated[list[str] | None, typer.Argument(help='Such as: gpu=H100 "vram>=80" "price<2"')] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show.")] = 20,
    as_json: Json = False,
) -> None:
    """List offers, cheapest expected cost first; each was checked: signatures, hashes, time."""
    with settings_of(ctx).connect() as client:
        found = client.offers(" ".join(query or []), limit)
        decimals = client.network.chain.deployment.decimals
    if as_json:
        print_json([ranked_dict(item) for item in found])
        return
    print_offers(found, decimals, "no offer matches; `minga offers` alone lists all")


def ranked_dict(item: Ranked) -> dict[str, Any]:
    """An offer as a JSON value; amounts are decimal strings of token units."""
    bundle = item.bundle
    return {
        "offer": item.offer_hash,
        "provider": bundle.offer.provider,
        "machine": bundle.offer.machine,
        "url": bundle.url,
        "units": item.units,
        "price_per_hour": str(item.price_per_hour),
        "expected_per_hour": str(item.expected_per_hour),
        "reliability_ppm": item.reliability_ppm,
        "deposit_min": str(item.deposit_min),
        "quantum": item.quantum,
        "close_window": bundle.offer.close_window,
        "valid_until": bundle.offer.valid_until,
        "unit": bundle.terms.unit.plain(),
        "gpus": [gpu.plain() for gpu in bundle.machine.gpus],
        "sandbox": bundle.terms.sandbox,
        "region": bundle.terms.region,
        "egress": list(bundle.terms.egress),
        "prepaid_quanta": bundle.terms.prepaid_quanta,
    }


def print_offers(found: list[Ranked], decimals: int, empty: str) -> None:
    """Offers as a table that fits 80 columns."""
    rows = [
        (
            short(item.bundle.offer.provider),
            _gpus(item),
            f"{item.units * item.bundle.terms.unit.cpu_milli / 1000:g}",
            format_size(item.units * item.bundle.terms.unit.memory_bytes),
            f"${format_usd(item.price_per_hour, decimals)}",
            format_duration(item.quantum),
            "–" if item.reliability_ppm is None else f"{item.reliability_ppm / 10_000:.1f} %",
            item.bundle.terms.region or "–",
        )
        for item in found
    ]
    head = ("provider", "~gpus", ">cores", ">memory", ">price/h", ">quantum", ">reliable", "~region")
    print_table(head, rows, empty)


def _gpus(item: Ranked) -> str:
    count = item.units * item.bundle.terms.unit.gpus
    names = sorted({gpu.model for gpu in item.bundle.machine.gpus})
    return f"{count}× {', '.join(names)}" if count and names else "–"


def quote(
    ctx: typer.Context,
    target: Annotated[
        list[str] | None, typer.Argument(metavar="[JOB.yaml | -- COMMAND…]", help="A job file, or a command.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Accelerators, such as RTX4090 or H100:8.")] = None,
    cpus: Annotated[str | None, typer.Option(help="Cores, such as 4.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory, such as 16GiB.")] = None,
    disk: Annotated[str | None, typer.Option(help="Disk, such as 50GiB.")] = None,
    max_price: Annotated[str | None, typer.Option(help="Most dollars an hour.")] = None,
    region: Annotated[str | None, typer.Option(help="Region wanted.")] = None,
    budget: Annotated[str | None, typer.Option(help="Dollars for the whole job.")] = None,
    duration: Annotated[str, typer.Option(help="How long the job works, such as 90m or 8h.")] = "1h",
    as_json: Json = False,
) -> None:
    """Who would run a job and at what cost; when nobody would, which requirement excluded how many offers."""
    from minga.cli.spec import Wishes, build_spec
    from minga.core.units import parse_duration

    seconds = parse_duration(duration)
    wishes = Wishes(
        gpu=gpu, cpus=cpus, memory=memory, disk=disk, max_price=max_price, region=region, budget=budget, workdir=None
    )
    spec = build_spec(target or ["true"], wishes, Path.cwd())
    with settings_of(ctx).connect() as client:
        found = client.quote(spec)
    value = quote_dict(found, seconds)
    if as_json:
        print_json(value)
    else:
        _print_quote(found, value)
    if found.best is None:
        raise typer.Exit(3)


def quote_dict(found: Quote, seconds: int) -> dict[str, Any]:
    """A quote as a JSON value.

    Args:
        found: what the client computed.
        seconds: how long the job is said to work.
    """
    from minga.protocol.pricing import cost_down

    prices = sorted(item.price_per_hour for item in found.matches)
    middle = prices[(len(prices) - 1) // 2] if prices else None
    best = found.best
    value: dict[str, Any] = {
        "decimals": found.decimals,
        "seconds": seconds,
        "matching": found.exclusion.matching,
        "offers": found.exclusion.total,
        "excluded": dict(found.exclusion.excluded),
        "excluded_alone": dict(found.exclusion.only),
        "price_per_hour_p50": None if middle is None else str(middle),
        "matches": [ranked_dict(item) for item in found.matches[:LISTED]],
        "best": None,
    }
    if best is not None:
        value["best"] = {
            "offer": best.offer_hash,
            "cost": str(cost_down(best.price_per_hour, 1, seconds)),
            "cost_p50": str(cost_down(middle or 0, 1, seconds)),
            "seconds_at_budget": found.seconds_at_budget,
        }
    return value


def _print_quote(found: Quote, value: dict[str, Any]) -> None:
    if found.best is None:
        print_exclusion(found.exclusion)
        return
    print_offers(found.matches[:LISTED], found.decimals, "")
    best, worked = value["best"], format_duration(value["seconds"])
    facts = [
        ("matching", f"{value['matching']} of {value['offers']} offers"),
        ("median price", f"${format_usd(int(value['price_per_hour_p50']), found.decimals)}/h"),
        (f"{worked} of work", f"${format_usd(int(best['cost']), found.decimals)} at the best offer's price"),
    ]
    if found.budget:
        covered = format_duration(best["seconds_at_budget"])
        facts.append((f"${format_usd(found.budget, found.decimals)} buys", f"{covered} there"))
    print_facts(facts)
    say("Only working seconds are paid; how long your job works is yours to know. 1 % of what is paid is the fee.")


def print_exclusion(exclusion: Exclusion) -> None:
    """Which requirement excluded how many offers."""
    if not exclusion.total:
        tell("no offers at all: is a provider running? `minga status`")
        return
    rows = [
        (name, str(count), str(exclusion.only.get(name, 0)))
        for name, count in sorted(exclusion.excluded.items(), key=lambda item: -item[1])
    ]
    say(f"none of {exclusion.total} offers matches:")
    print_table(("requirement", ">excludes", ">alone"), rows, "")
