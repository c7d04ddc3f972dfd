"""`minga quote`: what a job would cost and when it would end, before any money moves; or why nobody would run it.

Every figure says what it rests on: this home's own past, what the tenant stated, public records of providers, or a
prior. Nothing is bought; the same offers and the same past give the same quote.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.market import ranked_dict
from minga.cli.options import Json, settings_of
from minga.cli.output import console, plain, print_facts, print_json, say, short, tell
from minga.core.units import DAY, HOUR, format_duration

if TYPE_CHECKING:
    from minga.client.session import Quote
    from minga.protocol.quote import Estimate
    from minga.protocol.savings import Saving

WIDTH = 80


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
    duration: Annotated[
        str | None, typer.Option(help="How long it works on a machine of median speed, such as 90m or 8h.")
    ] = None,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="The job writes checkpoints and resumes.")] = False,
    verify: Annotated[str | None, typer.Option(help="audit: only offers that stake on their work.")] = None,
    workdir: Annotated[Path | None, typer.Option(help="The folder that would be sent along.")] = None,
    no_workdir: Annotated[bool, typer.Option("--no-workdir", help="No folder would be sent.")] = False,
    as_json: Json = False,
) -> None:
    """Who would run a job, what it would cost and when it would end; or which requirement excluded how many offers."""
    from minga.cli.spec import Wishes, build_spec
    from minga.cli.world import RealClock
    from minga.client.quotes import savings_of
    from minga.core.units import parse_duration

    wishes = Wishes(
        gpu=gpu, cpus=cpus, memory=memory, disk=disk, max_price=max_price, region=region, budget=budget,
        workdir=None if workdir is None else str(workdir), send_folder=not no_workdir, checkpoint=checkpoint,
        verify=verify,
    )  # fmt: skip
    seconds = None if duration is None else int(parse_duration(duration))
    spec = build_spec(target or ["true"], wishes, Path.cwd())
    spec = spec if seconds is None else replace(spec, duration_s=max(1, seconds))
    with settings_of(ctx).connect() as client:
        found = client.quote(spec)
    saved = savings_of(found, RealClock().now() // DAY)
    if as_json:
        print_json(quote_dict(found, saved))
    elif found.best is None:
        print_exclusion(found)
    else:
        print_quote(found, saved)
    if found.best is None:
        raise typer.Exit(3)


# -------------------------------------------------------------------------------------------------------- for programs


def quote_dict(found: Quote, saved: tuple[Saving, ...]) -> dict[str, Any]:
    """A quote as a JSON value; amounts are decimal strings of token units, times seconds."""
    from dataclasses import asdict

    work = found.work
    seconds = work.seconds
    return {
        "decimals": found.decimals,
        "matching": found.exclusion.matching,
        "offers": found.exclusion.total,
        "excluded": dict(found.exclusion.excluded),
        "only": dict(found.exclusion.only),
        "remedies": dict(found.remedies),
        "work": {
            "source": work.source,
            "jobs": work.seen,
            "seconds_p50": None if seconds is None else round(seconds.median),
            "seconds_p90": None if seconds is None else round(seconds.at(1.2816)),
            "checkpoint_s": work.checkpoint_s,
            "reference": work.reference.plain(),
        },
        "budget": None if found.budget is None else str(found.budget),
        "seconds_at_budget": found.seconds_at_budget,
        "best": estimate_dict(found.estimates[0]) if found.estimates else None,
        "estimates": [estimate_dict(item) for item in found.estimates],
        "matches": [ranked_dict(item.item, found.decimals) for item in found.estimates],
        "savings": [asdict(item) for item in saved],
    }


AMOUNTS = ("per_work_hour", "cost_mean", "cost_p50", "cost_p90")


def estimate_dict(found: Estimate) -> dict[str, Any]:
    """One offer's estimate as a JSON value."""
    from dataclasses import fields

    value = {item.name: getattr(found, item.name) for item in fields(found) if item.name != "item"}
    value |= {name: None if value[name] is None else str(value[name]) for name in AMOUNTS}
    return {"offer": found.item.offer_hash, "price_per_hour": str(found.item.price_per_hour), **value}


# ---------------------------------------------------------------------------------------------------------- for people


def print_quote(found: Quote, saved: tuple[Saving, ...]) -> None:
    """A quote on a screen of 80 columns."""
    _print_table(found)
    if found.exclusion.matching > len(found.estimates):
        say(f"… and {found.exclusion.matching - len(found.estimates)} more")
    say("")
    print_facts([(name, value) for name, value in _facts(found) if value])
    _print_savings(found, saved)
    say("Only working seconds are paid. 1 % of what is paid is the fee; gas comes on top.")


def _print_table(found: Quote) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    known = found.work.seconds is not None
    heads = [("provider", "left", 11), ("gpus", "left", None), ("price\n/h", "right", 5)]
    if known:
        heads += [("mean\ncost", "right", 5), ("cost\np50–p90", "right", 9), ("ends in\np50–p90", "right", 10)]
    else:
        heads += [("work/h\ncost", "right", 6), ("runs in\np50–p90", "right", 9)]
    for head, justify, width in [*heads, ("kept", "right", 5), ("notice", "right", 6)]:
        kept: Any = {"no_wrap": True, "min_width": width} if width else {"overflow": "fold"}
        table.add_column(head, justify=justify, **kept)  # type: ignore[arg-type]
    for place, item in enumerate(found.estimates):
        row = (Text(cell) for cell in _cells(item, found.decimals, known))
        table.add_row(*row, style="" if place else "bold")
    console().print(table)


def _cells(item: Estimate, decimals: int, known: bool) -> list[str]:
    from minga.client.quotes import money

    cells = [short(item.item.bundle.offer.provider), _cards(item), money(item.item.price_per_hour, decimals)]
    if known and item.cost_mean is not None and item.cost_p50 is not None and item.cost_p90 is not None:
        costs = f"{money(item.cost_p50, decimals)}–{money(item.cost_p90, decimals)}"
        cells += [money(item.cost_mean, decimals), costs, span(item.finish_p50_s or 0, item.finish_p90_s or 0)]
    else:
        cells += [money(item.per_work_hour, decimals), span(item.start_p50_s, item.start_p90_s)]
    share = item.item.reliability_ppm
    kept = "–" if share is None else f"{share // 10_000} %"
    return [*cells, kept, format_duration(item.notice_s).replace(" ", "") if item.notice_s else "none"]


def _cards(item: Estimate) -> str:
    from minga.core.errors import InvalidInput
    from minga.protocol.accelerators import normalise_gpu

    count = item.item.units * item.item.bundle.terms.unit.gpus
    names = []
    for model in sorted({gpu.model for gpu in item.item.bundle.machine.gpus}) if count else []:
        try:
            names.append(str(normalise_gpu(model)))
        except InvalidInput:
            names.append(plain(model))
    return f"{count}× {', '.join(names)}" if names else "–"


def span(low: int, high: int) -> str:
    """Two times in the unit of the later one: `42–65 s`, `2.1–3.4 h`."""
    for name, unit in (("d", DAY), ("h", HOUR), ("m", 60), ("s", 1)):
        if high >= 2 * unit or unit == 1:
            places = 1 if unit > 1 and high < 20 * unit else 0
            return f"{low / unit:.{places}f}–{high / unit:.{places}f} {name}"
    raise AssertionError


def hours(seconds: int) -> str:
    """A long time, roughly: `18 h`, `3 days`."""
    return f"{seconds / HOUR:.0f} h" if seconds < 3 * DAY else f"{seconds / DAY:.0f} days"


def _facts(found: Quote) -> list[tuple[str, str]]:
    from minga.client.quotes import money, rough

    best = found.estimates[0]
    facts = [("matching", f"{found.exclusion.matching} of {found.exclusion.total} offers"), ("work", _work(found))]
    breaks = best.breaks_per_day_ppm
    often = f"breaks about once in {hours(DAY * 10**6 // max(1, breaks))}"
    facts.append(("rework", f"{best.rework_ppm / 10_000:.1f} % of the time: the best offer {often}"))
    saves = found.work.checkpoint_s
    facts.append(("checkpoints", f"every {format_duration(saves)}" if saves else "none: what breaks begins again"))
    if found.budget is not None:
        bought = "" if found.seconds_at_budget is None else f"buys {rough(found.seconds_at_budget)} of work there"
        share = best.within_budget_ppm
        enough = "" if share is None else f"; enough in {share / 10_000:.0f} of 100 such jobs"
        facts.append((f"${money(found.budget, found.decimals)}", bought + enough))
    if best.within_deadline_ppm is not None and found.deadline_s is not None:
        kept = f"met in {best.within_deadline_ppm / 10_000:.0f} of 100 such jobs"
        facts.append(("deadline", f"{rough(found.deadline_s)}: {kept}"))
    return facts


def _work(found: Quote) -> str:
    from minga.client.quotes import rough

    work = found.work
    if work.seconds is None:
        return "how long is not known: write `duration: 2h` or --duration 2h"
    low, high = rough(round(work.seconds.median)), rough(round(work.seconds.at(1.2816)))
    jobs = f"{work.seen} job{'s' if work.seen != 1 else ''}"
    based = f"{jobs} like it" if work.source == "history" else f"as stated; {jobs} of yours compared"
    return f"{low}, p90 {high} ({based})"


def _print_savings(found: Quote, saved: tuple[Saving, ...]) -> None:
    """Three lines, each with its source; or one line where all are withheld for one reason."""
    from minga.client.quotes import money

    if len({item.withheld for item in saved}) == 1 and saved and saved[0].withheld:
        _wrap("saving      ", f"withheld, because {saved[0].withheld}")
        return
    say("saving      of an hour of finished work, against list prices of the same card:")
    for item in saved:
        if item.saving_ppm is None or item.usd_micro is None:
            _wrap(f"  {item.label:<17}  ", f"withheld, because {item.withheld}")
            continue
        share = f"{item.saving_ppm / 10_000:.0f} %"
        _wrap(f"  {item.label:<17}  {share:>5} ", f"of ${money(item.usd_micro, 6)}, {item.vendor}, {item.dated}")
        _wrap("    ", item.source)


def _wrap(head: str, text: str) -> None:
    from textwrap import wrap

    for line in wrap(text, WIDTH - len(head), break_long_words=True) or [""]:
        say(head + line)
        head = " " * len(head)


def print_exclusion(found: Quote) -> None:
    """Which requirement excluded how many offers, and what to change."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    exclusion = found.exclusion
    if not exclusion.total:
        tell("no offers at all: is a provider running? `minga status`")
        return
    say(f"none of {exclusion.total} offers matches:")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for head, justify in (("requirement", "left"), ("excludes", "right"), ("alone", "right"), ("what to do", "left")):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name, count in sorted(exclusion.excluded.items(), key=lambda item: (-item[1], item[0])):
        alone = str(exclusion.only.get(name, 0))
        table.add_row(name, str(count), alone, Text(plain(found.remedies.get(name, ""))))
    console().print(table)
