"""`minga provide`: find the hardware, price it, and earn.

The provider's key stands in this home's key store under the name `operator`. Jobs run in sandboxes, which need root:
the command starts itself again through `sudo -n` when it is not root and that is possible, and says what to run when
it is not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from minga.cli.board import ReadyFile
from minga.cli.config import Settings, is_embedded
from minga.cli.options import port_option, settings_of
from minga.cli.output import tell
from minga.core.errors import InvalidInput, MissingPrerequisite
from minga.core.units import parse_duration, parse_percent, parse_size, parse_usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minga.client.home import Network
    from minga.core.crypto import PrivateKey
    from minga.core.spec import UnitSize
    from minga.provider.main import ProviderConfig
    from minga.runtimes.runtime import Runtime

OPERATOR = "operator"
"""Name of the provider's key."""


Price = Annotated[str, typer.Option(help="Dollars per unit-hour, or auto: from the index, then by demand.")]
Floor = Annotated[str | None, typer.Option(help="With --price auto: dollars per unit-hour, never below.")]
Watts = Annotated[
    int | None, typer.Option(min=1, help="With --price auto: what the machine draws at work, for the floor.")
]
Kwh = Annotated[str | None, typer.Option("--kwh", help="With --watts: dollars per kilowatt-hour.")]
Host = Annotated[str, typer.Option(help="Address to listen on; off loopback TLS is used.")]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one.")]
Url = Annotated[str | None, typer.Option(help="Public base url, when it differs from host and port.")]
Units = Annotated[int, typer.Option(min=1, max=10_000, help="Units the machine is sold in.")]
Cpus = Annotated[str | None, typer.Option(help="Cores of a unit (default: an even share).")]
Memory = Annotated[str | None, typer.Option(help="Memory of a unit, such as 16GiB.")]
Disk = Annotated[str | None, typer.Option(help="Disk of a unit, such as 50GiB.")]
DiskShare = Annotated[int, typer.Option(min=1, max=100, help="Per cent of the free disk that may be sold.")]
Gpus = Annotated[int, typer.Option(min=0, max=64, help="GPUs of a unit, when its size is given.")]
Quantum = Annotated[str, typer.Option(help="Unpaid work at most, such as 60s.")]
Notice = Annotated[str, typer.Option(help="What a job gets to save itself when you want the machine back.")]
Interruptible = Annotated[bool, typer.Option("--interruptible", help="No notice at all: jobs are killed.")]
CloseWindow = Annotated[str, typer.Option(help="Wait of a one-sided close, 1h to 24h.")]
Boards = Annotated[list[str] | None, typer.Option(help="Board to post to, besides the network's.")]
Egress = Annotated[list[str] | None, typer.Option(help="Host that jobs may reach; '*' for any public one.")]
Places = Annotated[list[str] | None, typer.Option(help="NAME=FOLDER for jobs (default: python, the AI environment).")]
Region = Annotated[str, typer.Option(help="Where it stands, such as eu-west.")]
Prepaid = Annotated[bool, typer.Option("--prepaid", help="Ask for one quantum before a job starts.")]
Staked = Annotated[str | None, typer.Option(help="Dollars at stake on your work: also offer it to verified jobs.")]
HoldPart = Annotated[str, typer.Option("--hold", help="Of a verified job's pay, held back for the arbiter.")]
HoldTime = Annotated[
    str | None, typer.Option("--hold-time", help="How long (default: twice as long as work can be challenged).")
]
Measure = Annotated[bool, typer.Option("--measure", help="Measure its speed anew (else once a week).")]
Insecure = Annotated[bool, typer.Option("--insecure-process", help="No sandbox: your own jobs only, on loopback only.")]
AsJson = Annotated[bool, typer.Option("--json", help="What happens as JSON lines on stdout.")]


def provide(
    ctx: typer.Context,
    price: Price,
    floor: Floor = None,
    watts: Watts = None,
    kwh: Kwh = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    url: Url = None,
    units: Units = 1,
    cpus: Cpus = None,
    memory: Memory = None,
    disk: Disk = None,
    disk_share: DiskShare = 100,
    gpus: Gpus = 0,
    quantum: Quantum = "60s",
    notice: Notice = "60s",
    interruptible: Interruptible = False,
    close_window: CloseWindow = "1h",
    board: Boards = None,
    egress: Egress = None,
    environment: Places = None,
    region: Region = "",
    prepaid: Prepaid = False,
    stake: Staked = None,
    hold: HoldPart = "10%",
    hold_time: HoldTime = None,
    measure: Measure = False,
    insecure_process: Insecure = False,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Sell this machine's idle time: measure it, register, sign offers, run jobs, collect."""
    from minga.core.spec import UnitSize

    settings = settings_of(ctx)
    port_option(port)
    wanted: dict[str, Any] = {
        "host": host, "port": port, "url": url, "units": units, "unit": _unit(UnitSize, cpus, memory, disk, gpus),
        "disk_share": disk_share, "quantum": parse_duration(quantum), "close_window": parse_duration(close_window),
        "notice_s": 0 if interruptible else parse_duration(notice), "egress": tuple(egress or ()), "region": region,
        "prepaid_quanta": int(prepaid), "environments": environments(environment),
        "driver": "process" if insecure_process else "bubblewrap",
        # Plain processes are for one's own jobs: nobody has to be promised anything.
        "measure": "never" if insecure_process else "again" if measure else "kept",
    }  # fmt: skip
    network = settings.network()
    if not insecure_process:
        become_root()
    wanted |= _price(price, Floors(floor, watts, kwh), units, network.chain.deployment.decimals)
    wanted |= stake_fields(stake, hold, hold_time, network.chain.deployment.decimals)
    sell(configured(settings, network, wanted | {"boards": (*network.boards, *(board or ()))}), ready_file, as_json)


class Floors(NamedTuple):
    """What the owner says of the least price: dollars per unit-hour, watts of the machine, dollars per kWh."""

    dollars: str | None
    watts: int | None
    kwh: str | None

    def usd_micro(self, units: int) -> int:
        """The larger of both, in micro-dollars per unit-hour.

        Raises:
            InvalidInput: watts without a price of energy, or the other way round.
        """
        from minga.protocol.suggested_price import energy_cost

        if (self.watts is None) != (self.kwh is None):
            raise InvalidInput("the energy is known in part", "give --watts and --kwh together")
        energy = energy_cost(self.watts, parse_usd(self.kwh, 6)) if self.watts and self.kwh else 0
        return max(parse_usd(self.dollars, 6) if self.dollars else 0, -(-energy // units))


def _price(price: str, floors: Floors, units: int, decimals: int) -> dict[str, Any]:
    """The fields of the configuration that price the machine."""
    if price != "auto":
        if any(given is not None for given in floors):
            raise InvalidInput(
                "a floor is for a price that moves", "use --price auto, or leave --floor and --watts out"
            )
        return {"price_per_hour": parse_usd(price, decimals)}
    from minga.client.catalogs import shipped_quotes
    from minga.provider.autoprice import AutoPrice

    return {"price_per_hour": 0, "auto": AutoPrice(shipped_quotes(), floors.usd_micro(units))}


def stake_fields(stake: str | None, hold: str, hold_time: str | None, decimals: int) -> dict[str, Any]:
    """The fields of the configuration that offer the machine to verified jobs."""
    if stake is None:
        if hold != "10%" or hold_time is not None:
            raise InvalidInput("nothing is held back without a stake", "use --stake, or leave --hold out")
        return {}
    held_s = 0 if hold_time is None else parse_duration(hold_time)
    return {"stake": parse_usd(stake, decimals), "hold_bps": parse_percent(hold), "hold_s": held_s}


def configured(settings: Settings, network: Network, wanted: Mapping[str, Any]) -> ProviderConfig:
    """The configuration of this home's provider on a network; `wanted` are fields of it. Errors as `operator_key`."""
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


def sell(config: ProviderConfig, ready_file: Path | None, as_json: bool, runtime: Runtime | None = None) -> None:
    """Provide until a signal; `runtime` stands in for the configured driver."""
    import anyio

    from minga.cli.announce import Announcer
    from minga.cli.world import RealClock, RealDice, run_async, run_until_signal
    from minga.provider.main import run_provider
    from minga.runtimes.disused import hold, remove_disused
    from minga.runtimes.environments import environments_dir

    clock, announce = RealClock(), Announcer(config, ready_file, as_json)

    async def main() -> None:
        at_once = anyio.Event()

        async def work(stop: Any) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, remove_disused, environments_dir(), clock.now(), tell)
                await run_provider(config, clock, RealDice(), stop, announce, runtime, at_once)

        with hold(config.environments.values(), clock.now()):
            await run_until_signal(work, at_once)

    run_async(main)
    tell("provider: stopped")


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


def environments(given: list[str] | None) -> dict[str, Path]:
    """Environments by name; without any, the AI environment.

    Raises:
        InvalidInput: an item is not NAME=FOLDER, or there is no such folder.
        MissingPrerequisite: the AI environment was not built.
    """
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
        raise MissingPrerequisite("sandboxes need root", "run it as root: sudo -E minga …")
    os.execvp(command[0], list(command))
