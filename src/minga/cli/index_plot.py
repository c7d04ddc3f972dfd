"""Monthly price series: in the terminal, as JSON, and as a PNG or SVG file.

The terminal's chart needs nothing but block characters; files are drawn by matplotlib (the extra `plot`), imported
when a file is asked for and not before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minga.cli.output import say
from minga.core.errors import InvalidInput, MissingPrerequisite
from minga.protocol.price_claims import dollars
from minga.protocol.price_history import Series, month_name, turns

BLOCKS = " ▁▂▃▄▅▆▇█"
HEIGHT = 8
WIDTH_MAX = 68
SUFFIXES = (".png", ".svg")
WORDS = {
    "neocloud_index": "small clouds, normalised index",
    "neocloud_on_demand_raw_median": "small clouds, on demand, median",
    "neocloud_spot_raw_median": "small clouds, spot, median",
}

Many = Mapping[tuple[str, str], Series]


def history_dict(chosen: Many) -> dict[str, Any]:
    """Every series as (month, micro-dollars) pairs."""
    listed = [
        {"gpu": gpu, "series": name, "points": [[month_name(month), price] for month, price in months.items()]}
        for (gpu, name), months in chosen.items()
    ]
    return {"unit": "micro-dollars per GPU-hour", "series": listed}


def print_history(chosen: Many) -> None:
    """One chart per series, the newest months that fit."""
    for (gpu, name), months in chosen.items():
        found = turns(months)
        say(f"{gpu}, {WORDS.get(name, name)}: {len(months)} months")
        for line in chart(months):
            say(line)
        (high_at, high), (last_at, last) = found.high, found.last
        (low_at, low) = min(months.items(), key=lambda item: (item[1], item[0]))
        say(
            f"         low {dollars(low)} in {month_name(low_at)}, high {dollars(high)} in {month_name(high_at)}, "
            f"last {dollars(last)} in {month_name(last_at)}"
        )
        say("")


def chart(months: Series, height: int = HEIGHT, width: int = WIDTH_MAX) -> list[str]:
    """A column chart from zero: one column a month, gaps where a month is missing; at most 80 characters wide.

    Args:
        months: not empty.
        height: lines of columns.
        width: the most columns; older months are left out.
    """
    last = max(months)
    first = max(min(months), last - width + 1)
    top = max(price for month, price in months.items() if month >= first)
    steps = [-(-months.get(month, 0) * height * 8 // top) for month in range(first, last + 1)]
    lines = []
    for row in range(height, 0, -1):
        cells = "".join(BLOCKS[max(0, min(8, step - 8 * (row - 1)))] for step in steps)
        label = dollars(top * row // height) if row in (height, height // 2) else ""
        lines.append(f"{label:>8} ┤{cells}".rstrip())
    lines.append(f"{dollars(0):>8} ┼{'─' * len(steps)}")
    ends = f"{month_name(first):<{max(8, len(steps) - 7)}}"
    lines.append(f"{'':>9} {ends}{month_name(last) if len(steps) > 15 else ''}".rstrip())
    return lines


def check_plot(path: Path) -> None:
    """Whether a picture can be written to `path`, before any work.

    Raises:
        InvalidInput: another ending than .png or .svg, or no such folder.
        MissingPrerequisite: matplotlib is not installed.
    """
    import importlib.util

    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(f"{str(path)[-80:]!r} is neither a .png nor a .svg file", "name a file such as prices.svg")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {str(path.absolute().parent)[-80:]}", "make it first")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPrerequisite("pictures need matplotlib", "pip install 'minga[plot]', or --history without --plot")


def save_plot(chosen: Many, path: Path) -> None:
    """Draw every series into one picture; the file is the same for the same series.

    Raises:
        InvalidInput, MissingPrerequisite: see `check_plot`.
    """
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator, StrMethodFormatter

    with rc_context({"svg.hashsalt": "minga", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.add_subplot()
        for (gpu, name), months in chosen.items():
            span = range(min(months), max(months) + 1)
            dollars_each = [months[month] / 1e6 if month in months else math.nan for month in span]
            label = f"{gpu}, {WORDS.get(name, name)}"
            axes.plot([month / 12 for month in span], dollars_each, marker=".", label=label)
        axes.xaxis.set_major_locator(MultipleLocator(1))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("dollars per GPU-hour")
        axes.set_title("GPU rental: list prices by month, no transactions", fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(path, dpi=120, metadata=metadata)
