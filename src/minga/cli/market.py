"""`minga offers`: what is for sale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import print_json, print_table, short
from minga.core.units import format_duration, format_size, format_usd

if TYPE_CHECKING:
    from minga.protocol.matching import Ranked


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
        print_json([ranked_dict(item, decimals) for item in found])
        return
    print_offers(found, decimals, "no offer matches; `minga offers` alone lists all")


def ranked_dict(item: Ranked, decimals: int) -> dict[str, Any]:
    """An offer as a JSON value; amounts are decimal strings of token units.

    `speed` is promised of one unit and `score` is its public score, 0 without a promise; `work_per_dollar` is what a
    dollar buys at the price of the offer, in 10¹² exact multiply-adds, None without a promise or a price.
    """
    from minga.core.spec import Speed
    from minga.verify import hardware

    bundle = item.bundle
    speed = bundle.terms.speed or Speed()
    micros = int(bundle.offer.price_per_hour) * 10**6 // 10**decimals
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
        "speed": speed.plain(),
        "score": hardware.score(speed),
        "work_per_dollar": hardware.work_per_dollar(speed, micros) or None,
        "gpus": [gpu.plain() for gpu in bundle.machine.gpus],
        "sandbox": bundle.terms.sandbox,
        "region": bundle.terms.region,
        "egress": list(bundle.terms.egress),
        "prepaid_quanta": bundle.terms.prepaid_quanta,
        "arbiter": bundle.offer.arbiter,
        "hold_bps": bundle.offer.hold_bps,
        "hold_seconds": bundle.offer.hold_seconds,
    }


def print_offers(found: list[Ranked], decimals: int, empty: str) -> None:
    """Offers as a table that fits 80 columns; with the part of the pay that is held back, where some is."""
    any_held = any(item.bundle.offer.hold_bps for item in found)
    rows = [
        (
            short(item.bundle.offer.provider),
            _gpus(item),
            f"{item.units * item.bundle.terms.unit.cpu_milli / 1000:g}",
            format_size(item.units * item.bundle.terms.unit.memory_bytes),
            f"${format_usd(item.price_per_hour, decimals)}",
            format_duration(item.quantum),
            "–" if item.reliability_ppm is None else f"{item.reliability_ppm / 10_000:.1f} %",
            *([f"{item.bundle.offer.hold_bps / 100:g} %"] if any_held else []),
            item.bundle.terms.region or "–",
        )
        for item in found
    ]
    held = (">held",) if any_held else ()
    head = ("provider", "~gpus", ">cores", ">memory", ">price/h", ">quantum", ">reliable", *held, "~region")
    print_table(head, rows, empty)


def _gpus(item: Ranked) -> str:
    count = item.units * item.bundle.terms.unit.gpus
    names = sorted({gpu.model for gpu in item.bundle.machine.gpus})
    return f"{count}× {', '.join(names)}" if count and names else "–"
