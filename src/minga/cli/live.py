"""One job on one screen: a fold over its events and log, drawn by rich on a terminal and as plain lines elsewhere.

`JobView` knows nothing of clients or terminals: `apply` takes an event, `log` bytes, `render` gives what to draw.
Lines of the log that say `loss 1.23` draw a curve. Attempts count from 1 here and from 0 in the journal. Everything
that a provider or a job wrote is shown as text alone: control characters and markup are taken out.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minga.cli.output import plain, short
from minga.core.units import format_duration, format_size, format_usd

if TYPE_CHECKING:
    from rich.console import RenderableType

LOG_LINES = 8
LINE_CHARS = 400
LOSSES_MAX = 2000
_LOSS = re.compile(r"\bloss[ =:]*([0-9]{1,15}\.[0-9]{1,15})")
_BARS = "▁▂▃▄▅▆▇█"

GOOD, BAD, BUSY = "green", "red", "cyan"
_COLOUR = {"done": GOOD, "failed": BAD, "exhausted": BAD, "stopped": "yellow", "recovering": "yellow"}


def clean(text: str) -> str:
    """Text with escapes, control and direction characters taken out, one line, at most `LINE_CHARS` long."""
    return plain(text)[:LINE_CHARS]


@dataclass
class JobView:
    """What is known of one job. Amounts are token units of `decimals` digits; `budget` is what it was funded with."""

    job: str
    name: str
    budget: int
    decimals: int
    phase: str = "submitted"
    attempt: int = 0
    reason: str = ""
    offer: dict[str, Any] = field(default_factory=dict)
    working_s: int = 0
    spent: int = 0
    deposit: int = 0
    checkpoints: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=2))
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES_MAX))
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    _partial: str = ""

    def apply(self, kind: str, data: dict[str, Any]) -> None:
        """Take one event; unknown kinds change nothing."""
        self.attempt = max(self.attempt, int(data.get("attempt", self.attempt)))
        if kind in ("phase", "end"):
            self.phase, self.reason = str(data["phase"]), clean(str(data.get("reason") or ""))
        elif kind == "offer":
            self.offer = data
        elif kind in ("lease", "topup"):
            self.deposit = int(data["deposit"])
        elif kind == "meter":
            self.working_s = int(data["working_s"])
            self.spent = int(data["spent"])
        elif kind == "progress":
            self.progress = data
        elif kind == "checkpoint":
            self.checkpoints += 1
        elif kind == "warning":
            self.warnings.append(clean(f"{data.get('code')}: {data.get('fact')}"))

    def log(self, data: bytes) -> None:
        """Take bytes of the job's output."""
        text = self._partial + data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        self._partial = rest[-LINE_CHARS:]
        self.tail.extend(clean(line) for line in lines[-LOG_LINES:])
        self.losses.extend(float(found[1]) for line in lines if (found := _LOSS.search(line[:LINE_CHARS])))

    def render(self) -> RenderableType:
        """What to draw now, 80 columns or more."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.rule import Rule
        from rich.text import Text

        facts = self._facts()
        log = Text("\n".join([*self.tail, *[""] * (LOG_LINES - len(self.tail))]), style="dim", no_wrap=True)
        log.overflow = "ellipsis"
        title = Text.assemble((" minga ", "bold"), (f" {clean(self.name)} ", "bold cyan"), f" {short(self.job)} ")
        return Panel(Group(facts, Rule("log", style="dim"), log), title=title, title_align="left", border_style="dim")

    def _facts(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True, width=9)
        grid.add_column(overflow="fold")
        state = Text(self.phase, style=_COLOUR.get(self.phase, BUSY))
        if self.offer:
            state.append(f"   attempt {self.attempt + 1}", style="dim")
        if self.reason not in ("", self.phase):
            state.append(f"   {self.reason}", style="dim")
        grid.add_row("state", state)
        grid.add_row("progress", self._bar())
        if self.losses:
            grid.add_row("loss", Text(f"{sparkline(list(self.losses), 44)}  {self.losses[-1]:.3f}", style="magenta"))
        grid.add_row("machine", Text(describe_offer(self.offer, self.decimals)))
        grid.add_row("time", Text(f"{format_duration(self.working_s)} of paid work"))
        grid.add_row("money", self._money())
        for warning in self.warnings:
            grid.add_row("warning", Text(warning, style="yellow"))
        return grid

    def _bar(self) -> RenderableType:
        from rich.text import Text

        total, step = int(self.progress.get("total") or 0), int(self.progress.get("step") or 0)
        if total <= 0:
            return Text("–", style="dim")
        done = max(0, min(step, total))
        full = 36 * done // total
        text = Text("━" * full, style=GOOD).append("━" * (36 - full), style="dim")
        return text.append(f"  {step}/{total}  {100 * done // total} %", style="default")

    def _money(self) -> RenderableType:
        from rich.text import Text

        spent, left = (f"${format_usd(value, self.decimals)}" for value in (self.spent, self.budget - self.spent))
        text = Text(f"spent {spent}", style="bold")
        text.append(f"   left {left} of ${format_usd(self.budget, self.decimals)}", style="default not bold")
        if self.deposit:
            text.append(f"   deposit ${format_usd(self.deposit, self.decimals)}", style="dim not bold")
        return text


def sparkline(values: list[float], width: int) -> str:
    """The course of `values` in at most `width` characters, the highest as a full block."""
    if len(values) > width:
        values = [values[len(values) * i // width] for i in range(width - 1)] + [values[-1]]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1))] for value in values)


def describe_offer(offer: dict[str, Any], decimals: int) -> str:
    """A machine in one line: provider, accelerators, cores, memory, price, quantum; "–" before there is one."""
    if not offer:
        return "–"
    gpus = ", ".join(clean(str(gpu)) for gpu in offer.get("gpus") or [])
    parts = [
        short(str(offer["provider"])),
        gpus,
        f"{int(offer['cpus_milli']) / 1000:g} cores" if offer.get("cpus_milli") else "",
        format_size(int(offer["memory_bytes"])) if offer.get("memory_bytes") else "",
        f"${format_usd(int(offer['price_per_hour']), decimals)}/h",
        f"quantum {format_duration(int(offer['quantum']))}",
    ]
    return " · ".join(part for part in parts if part)


def line_of(kind: str, data: dict[str, Any], decimals: int) -> str | None:
    """One plain line for an event, for logs and pipes; None for events that are too many (meter, progress)."""

    def money(name: str) -> str:
        return f"${format_usd(int(data[name]), decimals)}"

    if kind == "phase":
        reason = clean(str(data.get("reason") or ""))
        return f"{data['phase']}" + (f": {reason}" if reason not in ("", data["phase"]) else "")
    if kind == "offer":
        return f"attempt {data['attempt'] + 1}: {describe_offer(data, decimals)}"
    if kind == "lease":
        return f"lease {short(str(data['lease']))} open, deposit {money('deposit')}"
    if kind == "topup":
        return f"deposit raised to {money('deposit')}"
    if kind == "checkpoint":
        return f"checkpoint {data['number']} kept ({format_size(int(data['bytes']))})"
    if kind == "probe" and (data["kind"] == "start" or not data["ok"]):
        return clean(f"machine measured: {data['fact'] or 'as sold'}")
    if kind == "check":
        return clean(f"checkpoint {'accepted' if data['accepted'] else 'not accepted'}: {data.get('output') or '–'}")
    if kind == "artifacts":
        return f"{data['count']} artifacts, {format_size(int(data['bytes']))}, hashes verified"
    if kind == "warning":
        return clean(f"warning {data.get('code')}: {data.get('fact')}")
    if kind == "closed":
        held = f", held {money('locked')}" if int(data.get("locked") or 0) else ""
        return f"lease closed: paid {money('paid')}, fee {money('fee')}{held}, refunded {money('refunded')}"
    if kind == "commitment":
        return f"committed on chain to {data['leaves']} states of the work, as in the trace that came back"
    if kind == "hold":
        return f"held pay: {money('to_tenant')} returned by a verdict, {money('to_provider')} released"
    if kind == "end":
        reason = clean(str(data.get("reason") or ""))
        return f"ended: {data['phase']}" + (f" ({reason})" if reason not in ("", data["phase"]) else "")
    return None
