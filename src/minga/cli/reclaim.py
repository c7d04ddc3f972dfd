"""`minga reclaim`: have the machine back; its jobs get their notice. `minga reclaim --end` sells it again.

The wish goes into the provider's journal, from where the provider takes it; so it holds even if the provider dies now.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.config import LOCAL, Settings
from minga.cli.options import Json, settings_of
from minga.cli.output import plain, print_json, say, short
from minga.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minga.provider.agent import State
    from minga.store.journal import Journal

POLL_S = 0.2


def reclaim(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(help="What the tenants are told.")] = "the owner wants the machine back",
    provider: Annotated[str | None, typer.Option(help="A provider of the local network, such as p1.")] = None,
    end: Annotated[bool, typer.Option("--end", help="Offer the machine again.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Kill signed offers on chain, too; costs gas.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until no job runs here any more.")] = True,
    as_json: Json = False,
) -> None:
    """Withdraw the offers, give each job its notice, collect, settle; the provider stays up for who fetches."""
    from minga.cli.world import RealClock
    from minga.provider import owner
    from minga.store.journal import Journal

    home = _home(settings_of(ctx), provider)
    journal = Journal(home / "journal.sqlite")
    try:
        if end:
            changed = owner.offer_again(journal, RealClock().now())
            _report(
                {"reclaimed": False, "changed": changed}, as_json, "offering again" if changed else "nothing to end"
            )
            return
        if not owner.is_working(journal):
            raise Conflict(
                "no provider works in this home: nothing is offered",
                "jobs that a dead one left end within a minute; start it to collect and settle them",
            )
        owner.take_back(journal, reason, revoke, RealClock().now())
        seen = _watch(journal, as_json) if wait else {}
    finally:
        journal.close()
    leases = [{"lease": name, "phase": state.phase, "paid": str(state.paid)} for name, state in seen.items()]
    done = "the machine is yours; minga reclaim --end offers it again" if wait else "the provider was told"
    _report({"reclaimed": True, "leases": leases}, as_json, done)


def _report(value: dict[str, Any], as_json: bool, line: str) -> None:
    if as_json:
        print_json(value)
    else:
        say(line)


def _home(settings: Settings, provider: str | None) -> Path:
    """The folder that the provider works in; as root, if it is root's.

    Raises:
        NotFound: there is no such provider, or none was ever started.
        MissingPrerequisite: it is root's, and we cannot become root.
    """
    from minga.cli.provide import become_root

    if provider is not None:
        known = [path.name for path in settings.local.glob("p*") if path.name[1:].isdigit()]
        if provider not in known:
            names = ", ".join(sorted(known)) or "none"
            raise NotFound(f"the local network has no provider {provider[:40]!r}", f"it has: {names}")
        home = settings.local / provider / "provider" / LOCAL
    else:
        home = settings.folder / "provider" / settings.network().name
    try:
        there = (home / "journal.sqlite").open("rb+")
    except PermissionError:
        become_root()
        raise
    except FileNotFoundError:
        remedy = "name one of the local network: --provider p1" if provider is None else "start it: minga up"
        raise NotFound(f"no provider ever worked in {home}", remedy) from None
    there.close()
    return home


def _watch(journal: Journal, quiet: bool) -> dict[str, State]:
    """Tell each lease's way until nothing runs; the leases that were not closed when it began.

    Raises:
        Conflict: the provider died meanwhile.
    """
    from minga.provider import owner
    from minga.provider.agent import ALIVE

    leases: dict[str, State] = {}
    shown: dict[str, str] = {}
    for found in _follow(journal):
        leases |= {name: state for name, state in found.items() if name in leases or state.phase != "closed"}
        for name, state in leases.items():
            if shown.get(name) != state.phase and not quiet:
                say(f"lease {short(name)} {state.phase}" + (f" ({plain(state.reason)})" if state.reason else ""))
            shown[name] = state.phase
        told = all(state.reclaimed or state.close_asked for state in leases.values())
        if told and not any(state.phase in ALIVE or state.phase == "collecting" for state in leases.values()):
            return leases
        if not owner.is_working(journal):
            raise Conflict("the provider died meanwhile", "start it again: it goes on with the reclaim")
        time.sleep(POLL_S)
    return leases


def _follow(journal: Journal) -> Iterator[dict[str, State]]:
    """Every lease of a journal, again and again; only what is new is read."""
    from minga.provider.agent import begin, step
    from minga.provider.events import Opened, decode

    leases: dict[str, State] = {}
    read: dict[str, int] = {}
    while True:
        for stream in journal.streams():
            if not stream.startswith("0x"):
                continue
            for record in journal.read(stream, read.get(stream, 0)):
                event = decode(record.kind, record.body)
                opened = isinstance(event, Opened)
                leases[stream] = begin(event) if opened else step(leases[stream], event, record.at)[0]  # type: ignore[arg-type]
                read[stream] = record.number
        yield leases
