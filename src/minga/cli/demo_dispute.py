"""`minga demo-dispute`: a provider cheats, is found, challenged, and loses the game live on the screen.

Starts a network of its own, has a small model trained for pay by the cheapest provider, which leaves the first layer as
it is from one step on; a validator does pieces of the work again, challenges the first leaf that comes out otherwise,
and plays it down to that leaf; referees do that one leaf again and vote; the provider appeals, loses that too, and is
slashed; the tenant is refunded. Then all money is counted. Its folder is $MINGA_HOME/demo-dispute.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.board import ReadyFile
from minga.cli.config import LOCAL, Settings
from minga.cli.options import settings_of
from minga.cli.output import say, short
from minga.core.errors import InternalError, NotFound
from minga.core.units import parse_duration, parse_usd

if TYPE_CHECKING:
    from minga.chain.chain import Chain
    from minga.cli.demo_court import CourtNetwork
    from minga.cli.game_view import GameView
    from minga.cli.localnet import Plan
    from minga.client.jobfile import JobSpec
    from minga.client.session import Client, JobHandle
    from minga.core.crypto import Address

PHASE_S = 400.0
"""How long any one stage may take."""

POLL_S = 0.25


def demo_dispute(
    ctx: typer.Context,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report to this file.")] = None,
    driver: Annotated[str, typer.Option(help="bubblewrap, or process (no sandbox).")] = "bubblewrap",
    environment: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER for jobs.")] = None,
) -> None:
    """Let a provider cheat at a verified job, and watch it lose the dispute; ends within four minutes."""
    from minga.cli.demo import cleaned_up
    from minga.cli.demo_court import STAKE_USD, CourtNetwork
    from minga.cli.localnet import Plan
    from minga.client.jobfile import load_job_file

    spec = load_job_file(_example()).spec
    settings = Settings(settings_of(ctx).folder / "demo-dispute", LOCAL)
    plan = Plan(2, driver, quantum="5s", environments=tuple(environment or ()), save_s=1, stake=STAKE_USD)
    network = CourtNetwork(settings)
    with cleaned_up(network):
        _Trial(settings, network, plan, spec).run(report)


def _example() -> Path:
    import minga

    path = Path(minga.__file__).parents[2] / "examples" / "verified" / "job.yaml"
    if not path.is_file():
        raise NotFound("the example is not installed with the package", "run it in a clone")
    return path


class _Trial:
    """One run of the demo, stage by stage."""

    def __init__(self, settings: Settings, network: CourtNetwork, plan: Plan, spec: JobSpec) -> None:
        self.settings, self.network, self.plan, self.spec = settings, network, plan, spec
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def run(self, report: Path | None) -> None:
        """All of it; raises InternalError when the cheat gets away or money is missing."""
        from minga.cli.demo import write

        say(f"a network of its own in {self.settings.folder}")
        self.network.up(self.plan, say)
        people = self.network.people(self.plan)
        before = self._money(people)
        self._stage("network")
        with self.settings.connect() as client:
            handle = self._train(client)
            self._stage("training")
            with _serving(client):
                self._audit()
                self._stage("audit")
                view = self._game()
                self._stage("dispute")
                self._await_money(handle)
            people["tenant's job wallet"] = view.commitment.tenant
            value = self._value(view, before, self._money(people), handle)
        self._stage("settling")
        value["seconds"] = {name: round(taken, 1) for name, taken in self.seconds.items()}
        self._tell(value)
        if report is not None:
            write(report, json.dumps(value, indent=2) + "\n")
            say(f"report: {report}")
        self._judge(value)

    def _stage(self, name: str) -> None:
        self.seconds[name] = time.monotonic() - self._began - sum(self.seconds.values())

    # ---------------------------------------------------------------------------------------------------------- stages

    def _train(self, client: Client) -> JobHandle:
        from minga.cli.follow import Follower

        handle = client.submit(self.spec)
        follower = Follower(handle, client.network.chain.deployment.decimals, sys.stdout.isatty())
        status = follower.run(lambda: False)
        if status.phase != "done":
            raise InternalError(f"the job ended {status.phase}: {status.reason}", f"see {self.network.folder / 'log'}")
        say("the tenant has its results, and they look fine: the loss fell")
        return handle

    def _audit(self) -> None:
        """Tell what the validator does until it challenges."""
        told, last = self.network.told(), ""
        for _ in _until("the validator did not challenge"):
            for event in told.news():
                line = _audit_line(event)
                if line and line != last:
                    say(f"validator: {line}")
                    last = line
                if event["event"] == "case" and event.get("phase") == "playing":
                    return

    def _game(self) -> GameView:
        """Show the game until it is over and the verdict is carried out."""
        from minga.cli.court import open_court
        from minga.cli.dispute import Screen
        from minga.cli.world import run_async

        async def main() -> GameView:
            import anyio

            async with open_court(self.settings) as court:
                with Screen("live" if sys.stdout.isatty() else "lines") as screen:
                    for _ in _until("the game did not end", sleeps=False):
                        await court.read()
                        view = await court.view(1)
                        screen.take(view)
                        if view.record.finished is not None and view.applied:
                            return view
                        await anyio.sleep(POLL_S)
            raise InternalError("the game did not end")

        return run_async(main)

    def _await_money(self, handle: JobHandle) -> None:
        """Until everybody took what it is owed: nothing of this game is left in Disputes but stakes and the fund's."""
        people = self.network.people(self.plan)
        owing = [people[role] for role in people if role.startswith(("validator", "referee"))]
        for _ in _until("somebody did not take what it is owed"):
            if handle.status().held == 0 and not any(self._chain(lambda chain: _owed(chain, owing))):
                return

    # ----------------------------------------------------------------------------------------------------------- money

    def _chain(self, ask: Callable[[Chain], Any]) -> Any:
        from minga.chain.node import open_chain
        from minga.cli.world import RealClock, run_async

        spec = self.settings.network().chain

        async def main() -> Any:
            async with open_chain(spec, self.settings.folder / "money", RealClock()) as chain:
                return await ask(chain)

        return run_async(main)

    def _money(self, people: dict[str, Address]) -> dict[str, int]:
        from minga.cli.demo_money import money

        found: dict[str, int] = self._chain(lambda chain: money(chain, people))
        return found

    def _value(
        self, view: GameView, before: dict[str, int], after: dict[str, int], handle: JobHandle
    ) -> dict[str, Any]:
        from minga.cli.demo_cheat import FROZEN_FROM
        from minga.cli.demo_money import changes

        bill = handle.report()["bill"]
        moved = changes(before, after)
        decimals = self.settings.network().chain.deployment.decimals
        return {
            "cheat": {"what": "the first layer is not trained", "first_false_leaf": FROZEN_FROM + 1},
            "game": view.facts(),
            "moves": len([move for move in view.lines() if move[1].startswith(("provider shows", "challenger picks"))]),
            "bill": bill,
            "before": before,
            "after": after,
            "changes": moved,
            "decimals": decimals,
            "conserved": sum(before.values()) == sum(after.values()),
            "staked_usd": parse_usd(self.plan.stake or "0", decimals),
        }

    def _tell(self, value: dict[str, Any]) -> None:
        from minga.core.units import format_usd

        say("")
        say("who has how much more or less than before the job:")
        for name, amount in value["changes"].items():
            if amount:
                sign = "-" if amount < 0 else "+"
                say(f"    {sign}${format_usd(abs(amount), value['decimals']):<12} {name}")
        say(f"all of it together: {sum(value['changes'].values())} units more or less")
        taken = ", ".join(f"{name} {seconds} s" for name, seconds in value["seconds"].items())
        say(f"{sum(value['seconds'].values()):.0f} s: {taken}")

    def _judge(self, value: dict[str, Any]) -> None:
        """Fail unless the demo showed what it is there to show."""
        game, bill = value["game"], value["bill"]
        tenant = value["changes"]["tenant"] + value["changes"]["tenant's job wallet"]
        shown = {
            "the provider is convicted": game["outcome"] == "convicted",
            "the disputed leaf is false": game["leaf"] >= value["cheat"]["first_false_leaf"],
            "no money is lost": value["conserved"] and bill["conserved"],
            "the tenant has back all that it paid": tenant >= 0,
            "the stake is less": value["changes"]["registry"] < 0,
        }
        if missing := [name for name, holds in shown.items() if not holds]:
            raise InternalError(f"not so: {', '.join(missing)}", "see the report")


async def _owed(chain: Chain, people: list[Address]) -> list[int]:
    from minga.chain.disputes import Disputes

    contract = Disputes(chain.spec.deployment.disputes)
    found: list[int] = []
    for who in people:
        units = await chain.read(contract.owed(who))
        found.append(units)
    return found


def _until(otherwise: str, sleeps: bool = True) -> Iterator[None]:
    """Again and again, until the caller leaves; InternalError after `PHASE_S`."""
    deadline = time.monotonic() + PHASE_S
    while time.monotonic() < deadline:
        yield
        if sleeps:
            time.sleep(POLL_S)
    raise InternalError(f"{otherwise} within {PHASE_S:.0f} s", "see the logs in its folder")


@contextmanager
def _serving(client: Client) -> Iterator[None]:
    """Run the tenant's jobs on meanwhile: its runner waits for the verdict, and fetches what it gives."""
    stopping = threading.Event()
    server = threading.Thread(target=client.serve, args=(stopping,), name="serve", daemon=True)
    server.start()
    try:
        yield
    finally:
        stopping.set()
        server.join(PHASE_S)


def _audit_line(event: dict[str, Any]) -> str:
    """What the validator does, in words."""
    if event["event"] != "case":
        return f"warning: {event.get('fact')}" if event["event"] == "warning" else ""
    return {
        "waiting": f"commitment {short(event['channel'])} is on the chain",
        "fetching": "the beacon chose; the provider is asked for order, inputs and leaves",
        "replaying": "every hash fits; pieces of the work are done again",
        "proven": f"leaf {event.get('differs')} came out otherwise",
        "playing": "challenged, with a bond",
    }.get(str(event["phase"]), str(event["phase"]))


def demo_cheat(
    ctx: typer.Context,
    price: Annotated[str, typer.Option()],
    stake: Annotated[str, typer.Option()],
    quantum: Annotated[str, typer.Option()] = "5s",
    disk_share: Annotated[int, typer.Option()] = 50,
    units: Annotated[int, typer.Option()] = 1,
    port: Annotated[int, typer.Option()] = 0,
    environment: Annotated[list[str] | None, typer.Option()] = None,
    ready_file: ReadyFile = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Sell work and do less of it: the test double of `demo-dispute`."""
    from minga.cli.demo_cheat import FreezingRuntime
    from minga.cli.provide import become_root, configured, environments, sell, stake_fields

    settings = settings_of(ctx)
    network = settings.network()
    become_root()
    decimals = network.chain.deployment.decimals
    wanted = {
        "price_per_hour": parse_usd(price, decimals), "port": port, "quantum": parse_duration(quantum), "units": units,
        "disk_share": disk_share, "environments": environments(environment), "boards": network.boards,
        **stake_fields(stake, "10%", None, decimals),
    }  # fmt: skip
    config = configured(settings, network, wanted)
    sell(config, ready_file, as_json, FreezingRuntime(config.home / "t"))
