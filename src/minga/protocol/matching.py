"""What a job needs against what an offer sells: who matches, who does not and why, and in what order to take them.

| requirement   | an offer meets it when                                                                  |
|---------------|-----------------------------------------------------------------------------------------|
| gpu           | its machine has an accelerator of a wanted name                                         |
| gpu_count     | enough of its units together hold the wanted number                                     |
| vram          | each such accelerator has the memory                                                    |
| cpus, memory, disk | enough of its units together hold it                                               |
| price         | all units needed cost at most the limit, per hour                                       |
| region        | its terms' region is the wanted one, or begins with it and a dash                       |
| egress        | its terms allow every host wanted                                                       |
| ports         | its terms allow as many                                                                 |
| environment   | its terms list it                                                                       |
| sandbox       | its terms name an accepted sandbox                                                      |
| close_window  | money comes back within the limit after its provider vanished                           |
| quantum       | it lets at least so many seconds go unpaid (a check of checkpoints needs them)          |
| prepaid       | it asks for no more prepaid quanta than allowed                                         |
| arbiter       | it names the wanted arbiter; without one, none (no part of the payment is held back)    |
| hold          | its arbiter holds back at least the wanted part of the pay                              |
| hold_time     | its arbiter holds it at least so long as the work can be challenged                     |
| reliability   | its provider's record is known and at least the limit                                   |
| excluded      | its machine is not one that this job has left                                           |

A lease takes as many units of an offer as the job needs. Ranking is by expected cost per hour, P / reliability (a
provider of which nothing can be known counts as a new one), then quantum, then offer hash: the same everywhere.

Does not know: where offers come from, and whether they are true (`OfferBundle.check`, and the chain, say that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from minga.core.crypto import ZERO_ADDRESS, Hash32
from minga.core.spec import UnitSize
from minga.protocol.accelerators import Accelerator, GpuWish, normalise_gpu, parse_accelerators
from minga.protocol.wire import OfferBundle

PPM = 1_000_000
RELIABILITY_UNKNOWN_PPM = 800_000
"""The share of a new provider (`minga.protocol.reliability`)."""

CLOSE_WINDOW_MAX = 3600
SANDBOXED = ("bubblewrap", "podman")

Reliability = Callable[[str], int | None]
"""Provider address → parts per million of its record (`minga.protocol.reliability`), or None where none can be had."""


@dataclass(frozen=True)
class Requirements:
    """What a job needs. Zero, empty and None ask for nothing; sizes are bytes, CPU thousandths of a core.

    `gpus` are alternatives, any of which will do; `vram_bytes` is per accelerator; `price_per_hour_max` is token
    units for everything leased; `close_window_max` and `quantum_min` seconds; `reliability_ppm_min` parts per million.
    `arbiter` is the contract that must be able to decide about `hold_bps_min` basis points of the pay for at least
    `hold_seconds_min`; empty: nobody.
    """

    gpus: tuple[GpuWish, ...] = ()
    vram_bytes: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    price_per_hour_max: int | None = None
    region: str = ""
    egress: tuple[str, ...] = ()
    ports: int = 0
    environment: str = "python"
    sandboxes: tuple[str, ...] = SANDBOXED
    close_window_max: int = CLOSE_WINDOW_MAX
    quantum_min: int = 0
    prepaid_max: int = 1
    reliability_ppm_min: int | None = None
    excluded: frozenset[str] = frozenset()
    arbiter: str = ""
    hold_bps_min: int = 0
    hold_seconds_min: int = 0


def unknown(provider: str) -> int | None:
    """The reliability of everybody where records cannot be had: None."""
    return None


def units_needed(needs: Requirements, unit: UnitSize, gpu_count: int = 0) -> int:
    """The fewest units that together hold CPU, memory, disk and `gpu_count` accelerators; 0 if none can."""
    most = 1
    pairs = (
        (needs.cpu_milli, unit.cpu_milli),
        (needs.memory_bytes, unit.memory_bytes),
        (needs.disk_bytes, unit.disk_bytes),
        (gpu_count, unit.gpus),
    )
    for wanted, each in pairs:
        if wanted and not each:
            return 0
        most = max(most, -(-wanted // each) if wanted else 1)
    return most


@dataclass(frozen=True, slots=True)
class Fit:
    """How an offer meets requirements: the units to lease (0 if no number can do) and the names that fail."""

    units: int
    unmet: tuple[str, ...]


def fit(needs: Requirements, bundle: OfferBundle, reliability_ppm: int | None = None) -> Fit:
    """Try every wanted accelerator and keep the alternative that fails least."""
    if not needs.gpus:
        return _fit_one(needs, bundle, reliability_ppm, None)
    tried = (_fit_one(needs, bundle, reliability_ppm, wish) for wish in needs.gpus)
    return min(tried, key=lambda found: (len(found.unmet), found.units))


def unmet(needs: Requirements, bundle: OfferBundle, reliability_ppm: int | None = None) -> tuple[str, ...]:
    """The names of the requirements that an offer fails; empty when it matches."""
    return fit(needs, bundle, reliability_ppm).unmet


def _fit_one(needs: Requirements, bundle: OfferBundle, reliability_ppm: int | None, wish: GpuWish | None) -> Fit:
    terms, offer, unit = bundle.terms, bundle.offer, bundle.terms.unit
    failed = _gpu_failures(needs, bundle, wish) if wish or needs.vram_bytes else []
    gpu_count = wish.count if wish else (1 if needs.vram_bytes else 0)
    units = units_needed(needs, unit, gpu_count)
    sizes = (
        ("cpus", needs.cpu_milli, unit.cpu_milli),
        ("memory", needs.memory_bytes, unit.memory_bytes),
        ("disk", needs.disk_bytes, unit.disk_bytes),
    )
    failed += [name for name, wanted, each in sizes if wanted > each * offer.units]
    units = units if 0 < units <= offer.units else 0
    price = int(offer.price_per_hour) * max(units, 1)
    machine_bad = str(offer.machine) in needs.excluded
    region = terms.region
    checks = (
        ("price", needs.price_per_hour_max is not None and price > needs.price_per_hour_max),
        ("region", bool(needs.region) and region != needs.region and not region.startswith(needs.region + "-")),
        ("egress", not _egress_allowed(needs.egress, terms.egress)),
        ("ports", needs.ports > terms.ports),
        ("environment", bool(needs.environment) and needs.environment not in terms.environments),
        ("sandbox", terms.sandbox not in needs.sandboxes),
        ("close_window", offer.close_window > needs.close_window_max),
        ("quantum", offer.quantum < needs.quantum_min),
        ("prepaid", terms.prepaid_quanta > needs.prepaid_max),
        ("arbiter", offer.arbiter != (needs.arbiter or ZERO_ADDRESS)),
        ("hold", offer.hold_bps < needs.hold_bps_min),
        ("hold_time", offer.hold_seconds < needs.hold_seconds_min),
        (
            "reliability",
            needs.reliability_ppm_min is not None
            and (reliability_ppm is None or reliability_ppm < needs.reliability_ppm_min),
        ),
        ("excluded", machine_bad),
    )
    return Fit(units, (*failed, *(name for name, bad in checks if bad)))


def _gpu_failures(needs: Requirements, bundle: OfferBundle, wish: GpuWish | None) -> list[str]:
    wanted = wish.name if wish else Accelerator("")
    count = wish.count if wish else 1
    named = [gpu for gpu in bundle.machine.gpus if _named(gpu.model).meets(wanted, gpu.memory_bytes)]
    failed = [] if named else ["gpu"]
    if min(len(named), bundle.terms.unit.gpus * bundle.offer.units) < count and named:
        failed.append("gpu_count")
    if any(gpu.memory_bytes < needs.vram_bytes for gpu in named) or (needs.vram_bytes and not bundle.machine.gpus):
        failed.append("vram")
    return failed


def _named(model: str) -> Accelerator:
    from minga.core.errors import InvalidInput

    try:
        return normalise_gpu(model)
    except InvalidInput:  # a provider may call its card anything; then only "any" finds it
        return Accelerator("?")


def _egress_allowed(wanted: tuple[str, ...], allowed: list[str]) -> bool:
    if "*" in allowed:
        return True
    suffixes = tuple(host[1:] for host in allowed if host.startswith("*."))
    return all(host in allowed or (bool(suffixes) and host.endswith(suffixes)) for host in wanted)


@dataclass(frozen=True)
class Ranked:
    """A matching offer: how many units to lease, and what they cost in token units per hour."""

    bundle: OfferBundle = field(repr=False)
    offer_hash: Hash32
    units: int
    price_per_hour: int
    expected_per_hour: int
    reliability_ppm: int | None

    @property
    def quantum(self) -> int:
        """Seconds of unpaid work."""
        return self.bundle.offer.quantum

    @property
    def deposit_min(self) -> int:
        """The least deposit, token units."""
        return int(self.bundle.offer.deposit_min)


def ranked(bundle: OfferBundle, units: int, reliability_ppm: int | None) -> Ranked:
    """An offer with its cost for `units`."""
    price = int(bundle.offer.price_per_hour) * units
    quality = RELIABILITY_UNKNOWN_PPM if reliability_ppm is None else max(reliability_ppm, 1)
    return Ranked(bundle, bundle.offer_hash(), units, price, price * PPM // quality, reliability_ppm)


def rank(needs: Requirements, bundles: Iterable[OfferBundle], reliability: Reliability = unknown) -> list[Ranked]:
    """The offers that match, cheapest expected cost per hour first; each offer once."""
    found: dict[str, Ranked] = {}
    for bundle in bundles:
        record = reliability(bundle.offer.provider)
        how = fit(needs, bundle, record)
        if not how.unmet and how.units:
            item = ranked(bundle, how.units, record)
            found[item.offer_hash] = item
    return sorted(found.values(), key=lambda item: (item.expected_per_hour, item.quantum, item.offer_hash))


@dataclass(frozen=True)
class Exclusion:
    """Why offers do not match: of `total`, `matching` do; `excluded[name]` fail `name`, `only[name]` nothing else."""

    total: int
    matching: int
    excluded: dict[str, int]
    only: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return {
            "total": self.total,
            "matching": self.matching,
            "excluded": dict(self.excluded),
            "only": dict(self.only),
        }


def explain(needs: Requirements, bundles: Iterable[OfferBundle], reliability: Reliability = unknown) -> Exclusion:
    """Which requirement excluded how many offers; the one that excludes most comes first."""
    total, matching = 0, 0
    excluded: dict[str, int] = {}
    only: dict[str, int] = {}
    for bundle in bundles:
        total += 1
        failed = unmet(needs, bundle, reliability(bundle.offer.provider))
        matching += not failed
        for name in failed:
            excluded[name] = excluded.get(name, 0) + 1
        if len(failed) == 1:
            only[failed[0]] = only.get(failed[0], 0) + 1
    order = sorted(excluded, key=lambda name: (-excluded[name], name))
    return Exclusion(total, matching, {name: excluded[name] for name in order}, only)


__all__ = [
    "CLOSE_WINDOW_MAX", "PPM", "RELIABILITY_UNKNOWN_PPM", "SANDBOXED", "Accelerator", "Exclusion", "Fit", "GpuWish",
    "Ranked", "Reliability", "Requirements", "explain", "fit", "normalise_gpu", "parse_accelerators", "rank", "ranked",
    "units_needed", "unknown", "unmet",
]  # fmt: skip
