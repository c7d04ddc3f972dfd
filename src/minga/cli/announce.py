"""What a provider tells its owner as it works: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga.cli.output import plain, short, tell
from minga.core.units import format_duration, format_usd

if TYPE_CHECKING:
    from minga.provider.config import ProviderConfig


class Announcer:
    """Receives each word and its facts (`minga.provider.lease.Announce`)."""

    def __init__(self, config: ProviderConfig, ready_file: Path | None, as_json: bool) -> None:
        """For a provider of `config`; `ready_file` is written when it is ready."""
        self.config = config
        self.ready_file = ready_file
        self.as_json = as_json
        self.decimals = config.spec.deployment.decimals

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell it."""
        if self.as_json:
            sys.stdout.write(json.dumps({"event": kind, **facts}) + "\n")
            sys.stdout.flush()
        else:
            for line in self.lines(kind, facts):
                tell(plain(line))
        if kind == "ready":
            from minga.cli.processes import announce_ready

            announce_ready(self.ready_file, facts)

    def lines(self, kind: str, facts: dict[str, Any]) -> list[str]:
        """What a person is shown of it; nothing for what only programs care about."""
        config = self.config
        if kind == "ready":
            price = f"${format_usd(int(facts['price_per_hour']), self.decimals)}/h"
            ends = "at once" if config.notice_s == 0 else f"with {format_duration(config.notice_s)} of notice"
            quantum = format_duration(config.quantum)
            return [
                f"ready: {facts['provider']} at {facts['url']}, {config.units} × {price}, quantum {quantum}",
                f"to have the machine back: Ctrl-C, or minga reclaim; jobs end {ends}",
            ]
        if kind == "lease":
            paid = f"${format_usd(int(facts.get('paid') or 0), self.decimals)}"
            reason = f" ({facts['reason']})" if facts.get("reason") else ""
            return [f"lease {short(str(facts['lease']))} {facts['phase']}{reason}, paid {paid}"]
        if kind == "warning":
            return [f"warning {facts['code']}: {facts['fact']} → {facts['remedy']}"]
        plain: dict[str, Callable[[], str]] = {
            "machine": lambda: f"machine {short(str(facts['machine']))}",
            "registered": lambda: f"registered: {facts['tx']}",
            "staked": lambda: f"at stake on verified work: ${format_usd(int(facts['amount']), self.decimals)}",
            "released": lambda: f"held pay of lease {short(str(facts['lease']))} is yours",
            "measuring": lambda: "measuring what a unit does (up to 10 s)",
            "speed": lambda: speed_line(facts),
            "price": lambda: price_line(facts),
            "reclaimed": lambda: (
                f"reclaimed since {_time(facts['since'])} ({facts['reason']}): nothing is offered; "
                "minga reclaim --end offers again"
            ),
            "offering": lambda: "offering again",
            "revoked": lambda: f"every signed offer is dead: {facts['tx']}",
        }
        return [plain[kind]()] if kind in plain else []


def speed_line(facts: dict[str, Any]) -> str:
    """What tenants are promised of one unit, and may check; the score is the one that `minga offers --json` gives."""
    units = {"gemm_mops": "million multiply-adds/s", "memory_mbps": "MB/s of memory", "disk_mbps": "MB/s of disk"}
    units["link_mbps"] = "MB/s of link"
    found = [f"{facts[name]:,} {unit}" for name, unit in units.items() if facts.get(name)]
    if not found:
        return "tenants are promised no speed: it cannot be measured here"
    from minga.core.spec import Speed
    from minga.verify import hardware

    score = hardware.score(Speed(**{name: facts.get(name, 0) for name in units}))
    told = f", score {score:,}" if score else ""
    return f"tenants are promised of each unit: {', '.join(found)}{told} (measured {_time(facts['at'])})"


def price_line(facts: dict[str, Any]) -> str:
    """The automatic price, between what, and why."""
    ceiling = f", ceiling ${facts['ceiling']}" if facts["ceiling"] is not None else ""
    return f"price ${facts['dollars']}/h: {facts['why']} (floor ${facts['floor']}{ceiling})"


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
