"""`minga bench`: what this machine does, by the challenges that tenants pose; the score; the work that a dollar buys.

Knows: how the figures look. Does not know: how they are made (`provider.measuring`). Nothing is offered or kept.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json
from minga.cli.output import print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from minga.core.spec import Speed, UnitSize

ROWS = (
    ("gemm_mops", "compute", "million exact multiply-adds/s"),
    ("memory_mbps", "memory", "MB/s filled"),
    ("disk_mbps", "disk", "MB/s written, synced and read"),
)


def bench(
    units: Annotated[int, typer.Option(min=1, max=64, help="Measure so many equal units at the same moment.")] = 1,
    price: Annotated[str | None, typer.Option(help="Dollars per unit-hour, for the work that one buys.")] = None,
    sandbox: Annotated[
        bool | None,
        typer.Option("--sandbox/--process", help="In the sandbox (default, if it can be) or not."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine as tenants will: exact compute, memory, disk; every answer is checked."""
    import anyio

    from minga.cli.world import RealClock, RealDice
    from minga.core.errors import MissingPrerequisite
    from minga.core.units import parse_usd
    from minga.provider.bidding import split
    from minga.provider.machine import describe_machine
    from minga.provider.measuring import measured
    from minga.runtimes import probe
    from minga.runtimes.bubblewrap import BubblewrapRuntime, prerequisites
    from minga.runtimes.process import ProcessRuntime
    from minga.verify import hardware

    micros = None if price is None else parse_usd(price, 6)
    missing = [fact for fact in prerequisites() if not fact.ok]
    if sandbox and missing:
        raise MissingPrerequisite(f"{missing[0].name}: {missing[0].found}", missing[0].remedy)
    sandboxed = not missing if sandbox is None else sandbox
    environment = _environment(sandboxed)
    # Plain processes of root run as other users, who may not enter its private temporary folders.
    with tempfile.TemporaryDirectory(prefix="minga-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        facts = probe.machine(folder)
        unit = split(describe_machine(facts, folder, RealDice()), units)
        runtime = BubblewrapRuntime(folder / "t") if sandboxed else ProcessRuntime(folder / "t")
        gpus = tuple(gpu.device for gpu in facts.gpus)
        if not as_json:
            tell(f"measuring {units} unit{'s' * (units > 1)} in {environment}")

        async def work() -> Speed:
            return await measured(runtime, unit, environment, units, folder / "src", RealClock(), RealDice(), gpus)

        speed = anyio.run(work)
    shown = report(speed, unit, units, micros) | {"environment": str(environment), "sandbox": sandboxed}
    if as_json:
        print_json(shown)
        return
    promised = hardware.promise(speed)
    rows = [(label, f"{getattr(speed, key):,}", f"{getattr(promised, key):,}", what) for key, label, what in ROWS]
    print_table(("of one unit", ">measured", ">promised", "~in"), rows, "nothing was measured")
    lines = [("score", f"{shown['score']:,}  (one server core of 2024 = 1000)")]
    if shown["work_per_dollar"] is not None:
        lines.append(("a dollar buys", f"{shown['work_per_dollar']:,} × 10¹² multiply-adds"))
    print_facts(lines)


def report(speed: Speed, unit: UnitSize, units: int, micros: int | None) -> dict[str, Any]:
    """All figures as JSON values; `micros` is the price in millionths of a dollar per unit-hour."""
    from minga.verify import hardware

    return {
        "unit": unit.plain(),
        "units": units,
        "measured": speed.plain(),
        "promised": hardware.promise(speed).plain(),
        "score": hardware.score(speed),
        "price_micros_per_hour": micros,
        "work_per_dollar": None if micros is None else hardware.work_per_dollar(speed, micros),
    }


def _environment(sandboxed: bool) -> Path:
    """Where the worker runs: the environment of AI jobs if it is built and can be entered, else the system's Python."""
    from minga.runtimes.environments import ai_environment, is_complete

    built = ai_environment().resolve()
    # Plain processes of root run as other users, who may not enter root's home.
    closed = not sandboxed and os.geteuid() == 0 and not all(path.stat().st_mode & 1 for path in built.parents)
    return built if is_complete(built) and not closed else Path("/")
