"""`minga provide`: find the hardware, price it, and earn.

The provider's key stands in this home's key store under the name `operator`. Jobs run in sandboxes, which need root:
the command starts itself again through `sudo -n` when it is not root and that is possible, and says what to run when
it is not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.board import ReadyFile
from minga.cli.config import Settings, is_embedded
from minga.cli.options import port_option, settings_of
from minga.cli.output import short, tell
from minga.core.errors import InvalidInput, MissingPrerequisite
from minga.core.units import format_duration, format_usd, parse_duration, parse_size, parse_usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minga.client.home import Network
    from minga.core.crypto import PrivateKey
    from minga.core.spec import UnitSize
    from minga.provider.main import ProviderConfig

OPERATOR = "operator"
"""Name of the provider's key."""


def provide(
    ctx: typer.Context,
    price: Annotated[str, typer.Option(help="Dollars per unit-hour.")],
    host: Annotated[str, typer.Option(help="Address to listen on; off loopback TLS is used.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 0,
    url: Annotated[str | None, typer.Option(help="Public base url, when it differs from host and port.")] = None,
    units: Annotated[int, typer.Option(min=1, max=10_000, help="Units the machine is sold in.")] = 1,
    cpus: Annotated[str | None, typer.Option(help="Cores of a unit (default: an even share).")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of a unit, such as 16GiB.")] = None,
    disk: Annotated[str | None, typer.Option(help="Disk of a unit, such as 50GiB.")] = None,
    gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs of a unit, when its size is given.")] = 0,
    quantum: Annotated[str, typer.Option(help="Unpaid work at most, such as 60s.")] = "60s",
    close_window: Annotated[str, typer.Option(help="Wait of a one-sided close, 1h to 24h.")] = "1h",
    board: Annotated[list[str] | None, typer.Option(help="Board to post to, besides the network's.")] = None,
    egress: Annotated[list[str] | None, typer.Option(help="Host that jobs may reach; '*' for any public one.")] = None,
    environment: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER for jobs (default: python, the AI environment).")
    ] = None,
    region: Annotated[str, typer.Option(help="Where it stands, such as eu-west.")] = "",
    prepaid: Annotated[bool, typer.Option("--prepaid", help="Ask for one quantum before a job starts.")] = False,
    insecure_process: Annotated[
        bool, typer.Option("--insecure-process", help="No sandbox: your own jobs only, on loopback only.")
    ] = False,
    ready_file: ReadyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="What happens as JSON lines on stdout.")] = False,
) -> None:
    """Sell this machine's idle time: measure it, register, sign offers, run jobs, collect."""
    from minga.core.spec import UnitSize

    settings = settings_of(ctx)
    port_option(port)
    unit = _unit(UnitSize, cpus, memory, disk, gpus)
    places = _environments(environment)
    network = settings.network()
    driver = "process" if insecure_process else "bubblewrap"
    if driver == "bubblewrap":
        become_root()
    wanted: dict[str, Any] = {
        "price_per_hour": parse_usd(price, network.chain.deployment.decimals),
        "host": host,
        "port": port,
        "url": url,
        "units": units,
        "unit": unit,
        "quantum": parse_duration(quantum),
        "close_window": parse_duration(close_window),
        "boards": (*network.boards, *(board or ())),
        "driver": driver,
        "environments": places,
        "egress": tuple(egress or ()),
        "region": region,
        "prepaid_quanta": int(prepaid),
    }
    _run(_config(settings, network, wanted), ready_file, as_json)


def _config(settings: Settings, network: Network, wanted: Mapping[str, Any]) -> ProviderConfig:
    from minga.provider.main import ProviderConfig

    key = operator_key(settings, network)
    folder = settings.folder / "provider" / network.name
    return ProviderConfig(home=folder, spec=network.chain, operator=key, agent=key, **wanted)


def operator_key(settings: Settings, network: Network) -> PrivateKey:
    """The provider's key; on the embedded chain it is made when there is none.

    Raises:
        NotFound: there is none, on a real network.
        KeyLocked: no passphrase, or a wrong one.
    """
    names = {info.name for info in settings.open_keys().info()}
    if OPERATOR not in names and is_embedded(network):
        return settings.open_keys().create_embedded(OPERATOR, os.urandom(32))
    return settings.key(network, OPERATOR)


def _run(config: ProviderConfig, ready_file: Path | None, as_json: bool) -> None:
    from minga.cli.world import RealClock, RealDice, run_async, run_until_signal
    from minga.provider.main import run_provider

    announce = _Announcer(config, ready_file, as_json)

    async def main(stop: Any) -> None:
        await run_provider(config, RealClock(), RealDice(), stop, announce)

    run_async(lambda: run_until_signal(main))
    tell("provider: stopped")


class _Announcer:
    """What the provider tells its owner, as lines."""

    def __init__(self, config: ProviderConfig, ready_file: Path | None, as_json: bool) -> None:
        self.config = config
        self.ready_file = ready_file
        self.as_json = as_json

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        if self.as_json:
            import json

            sys.stdout.write(json.dumps({"event": kind, **facts}) + "\n")
            sys.stdout.flush()
        else:
            line = self._line(kind, facts)
            if line:
                tell(line)
        if kind == "ready":
            from minga.cli.processes import announce_ready

            announce_ready(self.ready_file, facts)

    def _line(self, kind: str, facts: dict[str, Any]) -> str | None:
        config = self.config
        decimals = config.spec.deployment.decimals
        if kind == "ready":
            price = f"${format_usd(config.price_per_hour, decimals)}/h"
            quantum = format_duration(config.quantum)
            return f"ready: {facts['provider']} at {facts['url']}, {config.units} × {price}, quantum {quantum}"
        if kind == "lease":
            paid = f"${format_usd(int(facts.get('paid') or 0), decimals)}"
            reason = f" ({facts['reason']})" if facts.get("reason") else ""
            return f"lease {short(str(facts['lease']))} {facts['phase']}{reason}, paid {paid}"
        if kind == "warning":
            return f"warning {facts['code']}: {facts['fact']} → {facts['remedy']}"
        if kind == "machine":
            return f"machine {short(str(facts['machine']))}"
        return f"registered: {facts['tx']}" if kind == "registered" else None


def _unit(make: type[UnitSize], cpus: str | None, memory: str | None, disk: str | None, gpus: int) -> UnitSize | None:
    given = [value is not None for value in (cpus, memory, disk)]
    if not any(given) and not gpus:
        return None
    if not all(given):
        raise InvalidInput("a unit's size is given in part", "give --cpus, --memory and --disk together")
    return make.parse(
        {
            "cpu_milli": cpu_milli(str(cpus)),
            "memory_bytes": parse_size(str(memory)),
            "disk_bytes": parse_size(str(disk)),
            "gpus": gpus,
        }
    )


def cpu_milli(text: str) -> int:
    """Thousandths of a core from `2` or `0.5`.

    Raises:
        InvalidInput: not a positive number with at most three decimals.
    """
    from decimal import Decimal, InvalidOperation

    try:
        value = Decimal(text) * 1000
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or not 0 < value <= 10**7 or value != int(value):
        raise InvalidInput(f"{text!r} is not a number of cores", "write it as 4 or 0.5")
    return int(value)


def _environments(given: list[str] | None) -> dict[str, Path]:
    """Environments by name; without any, the AI environment if it was built, else this Python's own prefix."""
    if not given:
        return {"python": default_environment()}
    found: dict[str, Path] = {}
    for item in given:
        name, _, folder = item.partition("=")
        path = Path(folder).expanduser().absolute()
        if not name or not folder or not path.is_dir():
            raise InvalidInput(f"--environment {item!r} is not NAME=FOLDER", "name a folder that is there")
        found[name] = path
    return found


def default_environment() -> Path:
    """The dedicated Python environment of jobs.

    Raises:
        MissingPrerequisite: it was not built.
    """
    from minga.runtimes.environments import ai_environment, is_complete

    environment = ai_environment()
    if not is_complete(environment):
        raise MissingPrerequisite(
            "the Python environment in which jobs run was not built",
            "build it: python -m minga.runtimes.environments (about 1.2 GB), or give --environment NAME=FOLDER",
        )
    return environment


def become_root() -> None:
    """Go on as root, through `sudo -n` if need be; the process is replaced.

    Raises:
        MissingPrerequisite: not Linux, or neither root nor sudo without a password.
    """
    if not sys.platform.startswith("linux"):
        raise MissingPrerequisite("providers need Linux", "run `minga provide` on a Linux machine")
    if os.geteuid() == 0:
        return
    from minga.runtimes.probe import root_command

    environment = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("MINGA_")]
    home = f"HOME={Path.home()}"
    command = root_command(["env", home, *environment, sys.executable, "-m", "minga", *sys.argv[1:]])
    if command is None:
        raise MissingPrerequisite("sandboxes need root", "run it as root: sudo -E minga provide …")
    os.execvp(command[0], list(command))
