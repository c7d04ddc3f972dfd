"""Where no offer matches: what to change, requirement by requirement, so that one does.

A remedy names the value that would let the nearest offer in: the one that fails least besides. Texts are for people,
in the words of the command line and the job file.

Does not know: where offers come from. Rule: a remedy is true; with it, that requirement no longer excludes that offer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from minga.core.units import format_duration, format_size, format_usd
from minga.protocol.matching import PPM, Reliability, Requirements, fit, unknown, unmet
from minga.protocol.wire import OfferBundle

Say = Callable[[Requirements, OfferBundle, int], str]
"""(needs, the nearest offer, decimals) → what to change."""


def remedies(
    needs: Requirements, bundles: Sequence[OfferBundle], reliability: Reliability = unknown, decimals: int = 6
) -> dict[str, str]:
    """Requirement → what to change; one entry for each that excludes an offer, in no order."""
    nearest: dict[str, tuple[int, int, str, OfferBundle]] = {}
    for bundle in bundles:
        failed = unmet(needs, bundle, reliability(bundle.offer.provider))
        key = len(failed), int(bundle.offer.price_per_hour), str(bundle.offer_hash())
        for name in failed:
            if name not in nearest or key < nearest[name][:3]:
                nearest[name] = (*key, bundle)
    return {name: SAY.get(name, _other)(needs, found[3], decimals) for name, found in nearest.items()}


def _gpu(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    names = sorted({gpu.model for gpu in bundle.machine.gpus})
    return f"the nearest offer has {', '.join(names)[:60]}" if names else "the nearest offer has none; leave --gpu out"


def _gpu_count(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    most = min(len(bundle.machine.gpus), bundle.terms.unit.gpus * bundle.offer.units)
    return f"ask for {most} at most" if most else "leave --gpu out"


def _vram(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    most = max((gpu.memory_bytes for gpu in bundle.machine.gpus), default=0)
    return f"vram {format_size(most)} at most" if most else "leave vram out: the nearest offer has no GPU"


def _cpus(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"--cpus {bundle.terms.unit.cpu_milli * bundle.offer.units / 1000:g} at most"


def _memory(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"--memory {format_size(bundle.terms.unit.memory_bytes * bundle.offer.units)} at most"


def _disk(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"--disk {format_size(bundle.terms.unit.disk_bytes * bundle.offer.units)} at most"


def _price(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:

    units = max(1, fit(replace(needs, price_per_hour_max=None), bundle).units)
    return f"--max-price {format_usd(int(bundle.offer.price_per_hour) * units, decimals)} or more"


def _region(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    region = bundle.terms.region
    return f"--region {region}, or leave it out" if region else "leave --region out: the nearest offer names none"


def _egress(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    allowed = ", ".join(bundle.terms.egress)[:60]
    return f"the nearest offer allows {allowed}" if allowed else "send what the job needs along: no host is allowed"


def _ports(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"{bundle.terms.ports} ports at most"


def _environment(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"environment: {', '.join(bundle.terms.environments)[:60]}"


def _sandbox(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"its jobs run in {bundle.terms.sandbox!r}, which is not accepted"


def _close_window(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return (
        f"close_window: {format_duration(bundle.offer.close_window).replace(' ', '')}, if money may be locked so long"
    )


def _prepaid(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"it asks for {bundle.terms.prepaid_quanta} quanta in advance"


def _reliability(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    wanted = (needs.reliability_ppm_min or 0) / PPM
    return f"ask for less than {wanted:g}: its record is shorter or worse"


def _quantum(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"check at most every {format_duration(bundle.offer.quantum)} (accept), as its quantum is"


def _excluded(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return "the job left this machine; wait for others"


def _arbiter(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    if not needs.arbiter:
        return "its pay may be held back by an arbiter; other offers name none"
    return "it stakes nothing on its work; wait for one that does, or leave verify out"


def _hold(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return f"hold: {bundle.offer.hold_bps / 100:g}% at most (verify)"


def _hold_time(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    wanted, found = (format_duration(seconds) for seconds in (needs.hold_seconds_min, bundle.offer.hold_seconds))
    return f"its pay is held for {found}, not for the {wanted} of a challenge; leave verify out"


def _other(needs: Requirements, bundle: OfferBundle, decimals: int) -> str:
    return "ask for less"


SAY: dict[str, Say] = {
    "gpu": _gpu, "gpu_count": _gpu_count, "vram": _vram, "cpus": _cpus, "memory": _memory, "disk": _disk,
    "price": _price, "region": _region, "egress": _egress, "ports": _ports, "environment": _environment,
    "sandbox": _sandbox, "close_window": _close_window, "prepaid": _prepaid, "reliability": _reliability,
    "quantum": _quantum, "excluded": _excluded, "arbiter": _arbiter, "hold": _hold, "hold_time": _hold_time,
}  # fmt: skip
"""Requirement → its remedy."""
