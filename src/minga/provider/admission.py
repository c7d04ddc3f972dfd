"""May this lease run this manifest on these terms? Pure checks, each with one clear refusal.

Knows: the lease's facts, the terms that its offer signed, the manifest, the machine and what runs on it. Does not
know: disk that is free right now; the desk asks that last. Rule: nothing is accepted in part, and nothing is sold
twice: jobs of all leases together never have more than the machine, whatever older offers were for.
"""

from __future__ import annotations

from collections.abc import Iterable

from minga.core.checkpoint import MANIFEST_BYTES_MAX
from minga.core.errors import Conflict, InvalidInput, LimitNotEnforceable, OutOfCapacity, TooLarge
from minga.core.spec import Machine, Manifest, Terms, UnitSize
from minga.runtimes.launcher import place_of

_MIB = 1 << 20


def check_manifest(manifest: Manifest, job: str, attempt: int, units: int, terms: Terms) -> None:
    """Return if the manifest is for this lease and within what was sold.

    Args:
        manifest: what the tenant wants to run.
        job: the job id of the lease.
        attempt: the attempt of the lease.
        units: units leased.
        terms: those of the offer that was taken.

    Raises:
        Conflict: it is for another job or attempt.
        InvalidInput: it asks for more than the lease's units, an environment or hosts that the terms do not have, or
            puts an input where none may be; two checkpoints.
        LimitNotEnforceable: it wants ports or hosts that these terms cannot give.
        TooLarge: the inputs do not fit in the disk that it asks for.
    """
    if (manifest.job, manifest.attempt) != (job, attempt):
        raise Conflict("the manifest is for another job or attempt", "send the manifest of this lease")
    _check_size(manifest.size, terms.unit, units)
    if manifest.environment not in terms.environments:
        known = ", ".join(terms.environments)
        raise InvalidInput(f"there is no environment {manifest.environment!r}", f"use one of: {known}")
    if "*" not in terms.egress:
        barred = sorted(set(manifest.egress) - set(terms.egress))
        if barred:
            raise LimitNotEnforceable(
                f"these terms do not let a job reach {barred[0]}", "choose an offer whose terms allow that host"
            )
    if len(manifest.ports) > terms.ports or len(set(manifest.ports)) != len(manifest.ports):
        raise LimitNotEnforceable(
            f"the terms allow {terms.ports} different ports, the job names {len(manifest.ports)}", "name fewer ports"
        )
    places = [place_of(bundle) for bundle in manifest.inputs]
    if len(set(places)) != len(places):
        raise InvalidInput("two inputs have the same target", "give each input its own target")
    checkpoints = [bundle.bytes for bundle in manifest.inputs if bundle.kind == "checkpoint"]
    if len(checkpoints) > 1 or any(size > MANIFEST_BYTES_MAX for size in checkpoints):
        raise InvalidInput("more than one checkpoint, or its manifest is too large", "restore the newest one")
    total = sum(bundle.bytes for bundle in manifest.inputs)
    if total > manifest.size.disk_bytes:
        raise TooLarge(
            f"the inputs have {total} bytes, the job ordered {manifest.size.disk_bytes} of disk", "order more disk"
        )


def check_room(size: UnitSize, others: Iterable[UnitSize], machine: Machine) -> None:
    """Return if the machine has `size` besides what the `others`, the jobs that it is to run or runs, may use.

    Raises:
        OutOfCapacity: their CPUs, memory or GPUs together would be more than the machine's.
    """
    jobs = [size, *others]
    has = {"cpu_milli": machine.cpus * 1000, "memory_bytes": machine.memory_bytes, "gpus": len(machine.gpus)}
    for name, total in has.items():
        wanted = sum(getattr(job, name) for job in jobs)
        if wanted > total:
            raise OutOfCapacity(
                f"{len(jobs)} jobs would use {name} {wanted}, this machine has {total}", "try another provider"
            )


def _check_size(size: UnitSize, unit: UnitSize, units: int) -> None:
    for name in ("cpu_milli", "memory_bytes", "disk_bytes", "gpus", "pids"):
        asked, sold = getattr(size, name), getattr(unit, name) * units
        if asked > sold:
            raise InvalidInput(f"the manifest asks for {name} {asked}, {units} units have {sold}", "lease more units")
    if size.memory_bytes < 16 * _MIB or size.disk_bytes < _MIB:
        raise InvalidInput("a job needs at least 16 MiB of memory and 1 MiB of disk", "ask for more")
