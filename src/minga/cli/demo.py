"""`minga demo`: the whole of Minga on one machine, in a few minutes.

Starts a network of its own (chain, board, three providers, each its own process, key and sandbox), submits a job as a
tenant would, shows it, kills the first provider with -9 in the middle of the work, prints what the trained model wrote
and the bill, writes a report, and stops everything. Its folder is $MINGA_HOME/demo: a network that `minga up` runs is
never touched. The folder is emptied at the start and kept afterwards, so that what the job left can be looked at.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.config import LOCAL, Settings
from minga.cli.options import settings_of
from minga.cli.output import print_error, say, short
from minga.core.errors import MingaError, MissingPrerequisite, NotFound
from minga.core.units import format_usd

if TYPE_CHECKING:
    from minga.cli.live import JobView
    from minga.cli.localnet import LocalNetwork, Plan
    from minga.client.jobfile import JobSpec
    from minga.client.session import Client, JobHandle

QUANTUM = "5s"
SHOT_AT = 0.7
"""The share of progress at which the picture is taken."""

SHOT_COLUMNS = 92
SAMPLE_LINES = 12
DOWN_S = 8.0
"""How long a provider may take to stop: nothing is left to save when the demo ends."""

SETTLE_S = 60.0
SETTLE_POLL_S = 0.1

AT_WORK = ("sending", "starting", "running", "paused", "collecting")


def demo(
    ctx: typer.Context,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report to this file.")] = None,
    screenshot: Annotated[Path | None, typer.Option(help="Write a picture of the screen to this SVG file.")] = None,
    job: Annotated[Path | None, typer.Option(help="Another job file (default: examples/pretrain/job.yaml).")] = None,
    driver: Annotated[str, typer.Option(help="bubblewrap, or process (no sandbox).")] = "bubblewrap",
    environment: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER for jobs.")] = None,
    providers: Annotated[int, typer.Option(min=1, max=16, help="Provider processes.")] = 3,
    kill: Annotated[bool, typer.Option(help="Kill the first provider with -9 in the middle of the work.")] = True,
) -> None:
    """Train a language model for pay on a network of this machine, and show the bill; ends within five minutes.

    The first provider is killed in the middle of the work: the job goes on at another one from its last checkpoint.
    """
    from minga.cli.localnet import LocalNetwork, Plan
    from minga.client.jobfile import load_job_file

    job_file = job or _example()
    if job is None:
        _fetch_text(job_file.parent)
    spec = load_job_file(job_file).spec
    plan = Plan(providers, driver, quantum=QUANTUM, environments=tuple(environment or ()), save_s=1)
    settings = Settings(settings_of(ctx).folder / "demo", LOCAL)
    network = LocalNetwork(settings)
    with cleaned_up(network):
        _show(settings, network, plan, spec, _Wishes(report, screenshot, kill and spec.checkpoint and providers > 1))


def _example() -> Path:
    import minga

    path = Path(minga.__file__).parents[2] / "examples" / "pretrain" / "job.yaml"
    if not path.is_file():
        raise NotFound(
            "the example is not installed with the package", "run it in a clone, or name one with --job FILE"
        )
    return path


def _fetch_text(folder: Path) -> None:
    """Fetch the training text unless it is here; the script checks its hash."""
    done = subprocess.run([sys.executable, str(folder / "fetch.py")], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingPrerequisite(f"the training text could not be fetched: {last[:200]}", "see that pip can download")


@contextmanager
def cleaned_up(network: LocalNetwork) -> Iterator[None]:
    """Begin with nothing left of an earlier demo; end with nothing running, whatever happened.

    Raises:
        Conflict: another demo of this home runs.
    """
    from minga.cli.processes import Processes

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def quiet(line: str) -> None:
        del line

    with Processes(network.settings.folder).exclusive():
        network.down(quiet)
        _empty(network.settings.folder)
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number in before:  # what was started must be stopped, however impatient somebody is
                signal.signal(number, signal.SIG_IGN)
            try:
                network.down(quiet, DOWN_S)
            except MingaError as error:
                print_error(error, as_json=False)
            for number, handler in before.items():
                signal.signal(number, handler)


def _empty(folder: Path) -> None:
    """Delete what an earlier demo left, but for the lock that is held."""
    from minga.cli.localnet import remove_tree

    for path in folder.iterdir():
        if path.name != "lock":
            remove_tree(path)


@dataclass(frozen=True)
class _Wishes:
    """What the demo shall leave behind, and whether a provider dies in it."""

    report: Path | None
    screenshot: Path | None
    kill: bool


def _show(settings: Settings, network: LocalNetwork, plan: Plan, spec: JobSpec, wishes: _Wishes) -> None:
    from minga.cli.follow import Follower
    from minga.cli.jobs import exit_code
    from minga.cli.mishap import Mishap

    say(f"a network of its own in {settings.folder}")
    known = network.up(plan, say)
    decimals = known.chain.deployment.decimals
    crew = _Crew(network, decimals)
    mishap = Mishap(network, {address: name for name, address, _ in crew.members})
    crew.state = mishap.state
    shot = _Shot(crew) if wishes.screenshot else None

    def look(view: JobView) -> None:
        if shot is not None:
            shot.look(view)
        if wishes.kill:
            mishap.look(view)

    with settings.connect() as client:
        handle = client.submit(spec)
        follower = Follower(handle, decimals, sys.stdout.isatty(), look)
        status = follower.run(lambda: False, lambda: crew.render(follower.view))
        mishap.finish()
        settle(client, handle)
        value = handle.report() | {"result": _result(handle)}
        _tell_result(client, handle, value)
    if wishes.report is not None:
        write(wishes.report, json.dumps(value, indent=2) + "\n")
        say(f"report: {wishes.report}")
    if shot is not None and wishes.screenshot is not None:
        write(wishes.screenshot, shot.svg(follower.view, value))
    if exit_code(status):
        raise typer.Exit(exit_code(status))


def settle(client: Client, handle: JobHandle) -> None:
    """Run the job on until nothing of its money is locked any more; what is locked after `SETTLE_S` is on the bill."""
    if handle.status().settled:
        return
    stopping = threading.Event()
    server = threading.Thread(target=client.serve, args=(stopping,), name="settle", daemon=True)
    server.start()
    deadline = time.monotonic() + SETTLE_S
    while not handle.status().settled and time.monotonic() < deadline:
        time.sleep(SETTLE_POLL_S)
    stopping.set()
    server.join(SETTLE_S)


def write(path: Path, text: str) -> None:
    """Write a file, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _result(handle: JobHandle) -> dict[str, Any]:
    """What the job's `result.json` says: validation loss and a text that the model wrote; empty without one."""
    for artifact in handle.artifacts():
        if Path(artifact.path).name == "result.json" and artifact.bytes < 1 << 20:
            value = json.loads(artifact.file.read_bytes())
            return {key: value[key] for key in ("val_loss", "sample") if key in value}
    return {}


def _tell_result(client: Client, handle: JobHandle, value: dict[str, Any]) -> None:
    from minga.cli.bill import print_bill
    from minga.cli.jobs import finish
    from minga.cli.live import clean

    result = value["result"]
    say("")
    try:
        finish(client, handle, False, None)
    except typer.Exit:  # how the demo ends is decided after the report is written
        pass
    if "val_loss" in result:
        say(f"validation loss {float(result['val_loss']):.3f}; the model writes:")
        say("")
        for line in str(result.get("sample", "")).splitlines()[:SAMPLE_LINES]:
            say("    " + clean(line))
    say("")
    print_bill(handle.bill())


class _Crew:
    """The providers as a table below the job."""

    def __init__(self, network: LocalNetwork, decimals: int) -> None:
        from minga.cli.provide import OPERATOR

        self.state: Mapping[str, str] = {}
        self.members: list[tuple[str, str, str]] = []
        for record in network.provider_records():
            keys = {info.name: info for info in Settings(network.folder / record.name).open_keys().info()}
            price = record.argv[record.argv.index("--price") + 1]
            self.members.append((record.name, keys[OPERATOR].address, price))

    def render(self, view: JobView) -> Any:
        """Each provider: process, address, price, and whether the job is there."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for name in ("provider", "address", "price", "state"):
            table.add_column(name, no_wrap=True)
        for name, address, price in self.members:
            here = view.offer.get("provider") == address and view.phase in AT_WORK
            told = self.state.get(address)
            state = "[cyan]working on the job[/]" if here else f"[red]{told}[/]" if told else "[dim]idle[/]"
            table.add_row(name, short(address), f"${price}/h", state)
        return table


class _Shot:
    """A picture of the screen for the README: the job at work, then what it left and cost."""

    def __init__(self, crew: _Crew) -> None:
        from io import StringIO

        from rich.console import Console

        self.crew = crew
        self.taken = False
        self.console = Console(
            record=True, file=StringIO(), width=SHOT_COLUMNS, force_terminal=True, color_system="truecolor"
        )

    def look(self, view: JobView) -> None:
        """Take the picture once enough progress was made."""
        step, total = int(view.progress.get("step") or 0), int(view.progress.get("total") or 0)
        if not self.taken and total and step >= SHOT_AT * total:
            self._take(view)

    def _take(self, view: JobView) -> None:
        self.taken = True
        self.console.print(view.render())
        self.console.print(self.crew.render(view))

    def svg(self, view: JobView, value: dict[str, Any]) -> str:
        """The picture as SVG, without links to fonts elsewhere."""
        import re

        from rich.text import Text

        from minga.cli.live import clean

        if not self.taken:
            self._take(view)
        bill, result = value["bill"], value["result"]

        def usd(name: str) -> str:
            return f"${format_usd(bill[name], bill['decimals'])}"

        self.console.print()
        for line in str(result.get("sample", "")).splitlines()[:6]:
            self.console.print(Text("    " + clean(line), style="italic"))
        total = f"deposited {usd('deposited')} = paid {usd('paid')} + fee {usd('fee')} + held {usd('held')}"
        rest = f" + refunded {usd('refunded')} + locked {usd('locked')}"
        self.console.print(Text(f"\n{total}{rest}", style="bold green"))
        picture = self.console.export_svg(title="minga demo")
        return re.sub(r"@font-face\s*\{[^}]*\}\s*", "", picture)
