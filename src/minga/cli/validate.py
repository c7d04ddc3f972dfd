"""`minga validate`: audit what providers committed to, challenge what does not follow, judge as a referee, and earn.

The validator's key stands in this home's key store under the name `validator`. Work is done again in sandboxes, which
need root, as `minga provide` does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from minga.cli.board import ReadyFile
from minga.cli.config import Settings, is_embedded
from minga.cli.options import settings_of
from minga.cli.output import plain, print_facts, print_json, short, tell
from minga.core.units import format_usd, parse_usd

if TYPE_CHECKING:
    from minga.client.home import Network
    from minga.core.crypto import PrivateKey
    from minga.validator.main import ValidatorConfig

VALIDATOR = "validator"
"""Name of the validator's key."""

Stake = Annotated[str, typer.Option(help="Dollars to have at stake as a referee, in all; 0 leaves it as it is.")]
Audit = Annotated[str, typer.Option(help="Whose commitments to audit: drawn (by the beacon), all, or none.")]
Leaves = Annotated[int, typer.Option(min=1, max=1024, help="Leaves sampled for each audit.")]
Challenge = Annotated[bool, typer.Option(help="Challenge a wrong leaf, with a bond.")]
Referee = Annotated[bool, typer.Option(help="Judge when drawn; a seat that is silent is fined.")]
Places = Annotated[list[str] | None, typer.Option(help="NAME=FOLDER for work (default: python, the AI environment).")]
Insecure = Annotated[bool, typer.Option("--insecure-process", help="No sandbox: work that you trust only.")]
Once = Annotated[bool, typer.Option("--once", help="End as soon as nothing is to be done.")]
AsJson = Annotated[bool, typer.Option("--json", help="What happens as JSON lines on stdout.")]


def validate(
    ctx: typer.Context,
    stake: Stake = "0",
    audit: Audit = "drawn",
    leaves: Leaves = 4,
    challenge: Challenge = True,
    referee: Referee = True,
    environment: Places = None,
    insecure_process: Insecure = False,
    once: Once = False,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Audit work, challenge what is wrong, judge disputes, and show what it earned."""
    from minga.cli.provide import become_root, environments
    from minga.core.errors import InvalidInput
    from minga.validator.world import Options

    settings = settings_of(ctx)
    network = settings.network()
    if audit not in ("drawn", "all", "none"):
        raise InvalidInput(f"--audit {audit[:40]!r}", "use drawn, all or none")
    chosen: Literal["drawn", "all", "none"] = audit  # type: ignore[assignment]
    if not insecure_process:
        become_root()
    wanted = {
        "stake": parse_usd(stake, network.chain.deployment.decimals),
        "driver": "process" if insecure_process else "bubblewrap",
        "environments": environments(environment),
        "options": Options(chosen, leaves, referee, challenge),
    }
    _run(_config(settings, network, wanted), ready_file, once, as_json)


def _config(settings: Settings, network: Network, wanted: dict[str, Any]) -> ValidatorConfig:
    from minga.validator.main import ValidatorConfig

    folder = settings.folder / "validator" / network.name
    key = validator_key(settings, network)
    return ValidatorConfig(home=folder, spec=network.chain, key=key, boards=network.boards, **wanted)


def validator_key(settings: Settings, network: Network) -> PrivateKey:
    """The validator's key; on the embedded chain it is made when there is none.

    Raises:
        NotFound: there is none, on a real network.
        KeyLocked: no passphrase, or a wrong one.
    """
    if VALIDATOR not in {info.name for info in settings.open_keys().info()} and is_embedded(network):
        return settings.open_keys().create_embedded(VALIDATOR, os.urandom(32))
    return settings.key(network, VALIDATOR)


def _run(config: ValidatorConfig, ready_file: Path | None, once: bool, as_json: bool) -> None:
    from minga.cli.world import RealClock, RealDice, run_async, run_until_signal
    from minga.validator.main import run_validator

    announcer = Announcer(ready_file, as_json)
    earned: dict[str, Any] = {}

    async def main(stop: Any) -> None:
        earned.update(await run_validator(config, RealClock(), RealDice(), stop, announcer, once))

    run_async(lambda: run_until_signal(main))
    if as_json:
        print_json(earned)
    else:
        print_facts(earnings_facts(earned, config.spec.deployment.decimals))


def earnings_facts(earned: dict[str, Any], decimals: int) -> list[tuple[str, str]]:
    """What a validator has and did, for people."""

    def usd(name: str) -> str:
        return f"${format_usd(int(earned[name]), decimals)}"

    def counts(name: str) -> str:
        return ", ".join(f"{count} {phase}" for phase, count in sorted(earned[name].items())) or "none"

    seat = "none" if earned["seat"] is None else str(earned["seat"])
    return [
        ("validator", earned["validator"]),
        ("seat", f"{seat}, {usd('stake')} at stake"),
        ("earned", f"{usd('withdrawn')} taken, {usd('owed')} owed"),
        ("audits", counts("cases")),
        ("judged", counts("seats")),
    ]


class Announcer:
    """Receives each word and its facts: lines for people, or one JSON object a line for programs."""

    def __init__(self, ready_file: Path | None, as_json: bool) -> None:
        """`ready_file` is written when the validator is ready."""
        self.ready_file = ready_file
        self.as_json = as_json

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell it."""
        if self.as_json:
            sys.stdout.write(json.dumps({"event": kind, **facts}) + "\n")
            sys.stdout.flush()
        elif line := self.line(kind, facts):
            tell(plain(line))
        if kind == "ready":
            from minga.cli.processes import announce_ready

            announce_ready(self.ready_file, {"validator": facts["validator"]})

    def line(self, kind: str, facts: dict[str, Any]) -> str:
        """What a person is shown of it; nothing for what only programs care about."""
        if kind == "ready":
            return f"ready: {facts['validator']}; end it with Ctrl-C"
        if kind == "joined":
            return f"joined the referees as {facts['referee']}"
        if kind == "warning":
            return f"warning {facts['code']}: {facts['fact']} → {facts['remedy']}"
        if kind == "case":
            more = f", leaf {facts['differs']} came out otherwise" if facts.get("differs") else ""
            game = f", game {facts['game']}: {facts['stage']}" if "game" in facts else ""
            noted = f" ({facts['noted'][-1]})" if facts.get("noted") and facts["phase"] == "unserved" else ""
            return f"commitment {short(facts['channel'])} {facts['phase']}{more}{game}{noted}"
        if kind == "seat":
            verdict = {1: ": follows", 2: ": does not follow"}.get(facts["verdict"], "")
            return f"game {facts['game']} as referee: {facts['phase']}{verdict}{_why(facts)}"
        return f"sent {facts['effect']}" if kind == "sent" else ""


def _why(facts: dict[str, Any]) -> str:
    return f" ({facts['why']})" if facts.get("why") else ""
