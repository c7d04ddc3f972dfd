"""`minga up, down, status`: the network on this machine; and the hidden `chain`, the embedded chain's own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.board import ReadyFile
from minga.cli.calibration import calibration_line, calibration_of
from minga.cli.config import is_embedded
from minga.cli.options import Json, port_option, settings_of
from minga.cli.output import print_facts, print_json, print_table, say, tell
from minga.core.errors import MingaError
from minga.core.units import parse_duration

if TYPE_CHECKING:
    from pathlib import Path

    from minga.cli.config import Settings
    from minga.client.home import Network

ANSWER_S = 3.0
"""How long `status` waits for a board or a chain."""


def up(
    ctx: typer.Context,
    providers: Annotated[int, typer.Option(help="Provider processes, 1 … 16.")] = 3,
    driver: Annotated[str, typer.Option(help="bubblewrap, or process (no sandbox, loopback only).")] = "bubblewrap",
    price: Annotated[str, typer.Option(help="Dollars an hour of the first; each next one asks a cent more.")] = "0.36",
    quantum: Annotated[str, typer.Option(help="Unpaid work at most.")] = "60s",
    units: Annotated[int, typer.Option(min=1, max=100, help="Units of each provider.")] = 1,
    environment: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER for jobs.")] = None,
    stake: Annotated[
        str | None, typer.Option(help="Dollars of play money that each provider stakes on its work.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start the embedded chain, a board and providers here, each its own process; again: repair what died."""
    from minga.cli.localnet import LocalNetwork, Plan, state_of

    parse_duration(quantum)
    plan = Plan(providers, driver, price, quantum, tuple(environment or ()), units, stake=stake)
    net = LocalNetwork(settings_of(ctx))
    network = net.up(plan, (lambda line: None) if as_json else say)
    if as_json:
        described = {"name": network.name, "chain": network.chain.as_dict(), "boards": list(network.boards)}
        print_json({"network": described, "processes": [state_of(record) for record in net.processes.records()]})
    else:
        tell("up; try: minga run --budget 0.05 -- echo hello")


def down(ctx: typer.Context, as_json: Json = False) -> None:
    """Stop what `up` started and wait for it; the chain's state is kept."""
    from minga.cli.localnet import LocalNetwork

    lines: list[str] = []
    LocalNetwork(settings_of(ctx)).down(lines.append if as_json else say)
    if as_json:
        print_json({"stopped": [line.split()[0] for line in lines if line.endswith(("stopped", "killed"))]})


def status(ctx: typer.Context, as_json: Json = False) -> None:
    """What is known and what runs: networks, chain, boards, local processes."""
    from minga.cli.world import run_async

    settings = settings_of(ctx)
    value: dict[str, Any] = {"home": str(settings.folder), "networks": [], "processes": _processes(settings)}
    value["quotes"] = calibration_of(settings.home)
    for name in settings.network_names():
        value["networks"].append(run_async(lambda name=name: _network_state(settings, name)))  # type: ignore[misc]
    if as_json:
        print_json(value)
    else:
        _print_status(value)


def _processes(settings: Settings) -> list[dict[str, Any]]:
    from minga.cli.localnet import LocalNetwork, state_of

    if not settings.local.is_dir():
        return []
    return [state_of(record) for record in LocalNetwork(settings).processes.records()]


async def _network_state(settings: Settings, name: str) -> dict[str, Any]:
    from minga.cli.config import Settings

    try:
        network = Settings(settings.folder, name).network()
    except MingaError as error:
        return {"name": name, "error": error.as_dict()["error"]}
    head = await _chain_head(network, settings.home.chain(name))
    boards = [await _board_health(url) for url in network.boards]
    embedded = is_embedded(network)
    return {"name": name, "chain_id": network.chain.chain_id, "embedded": embedded, "chain": head, "boards": boards}


async def _chain_head(network: Network, folder: Path) -> dict[str, Any]:
    import anyio

    from minga.chain.node import open_chain
    from minga.cli.world import RealClock

    try:
        with anyio.fail_after(ANSWER_S):
            async with open_chain(network.chain, folder, RealClock()) as chain:
                return {"url": network.chain.rpc_urls[0], "head": await chain.head()}
    except (MingaError, TimeoutError) as error:
        return {"url": network.chain.rpc_urls[0], "error": str(error) or "no answer"}


async def _board_health(url: str) -> dict[str, Any]:
    import httpx

    from minga.transport.errors import raise_for
    from minga.transport.http import connect

    try:
        async with connect(url, timeout_s=ANSWER_S) as client:
            answer = await client.get("/v1/health")
            await raise_for(answer)
            return {"url": url, "offers": int(answer.json()["offers"])}
    except (MingaError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return {"url": url, "error": str(error) or type(error).__name__}


def _print_status(value: dict[str, Any]) -> None:
    print_facts([("home", value["home"]), ("quotes", calibration_line(value["quotes"]))])
    if not value["networks"]:
        tell("no network is known; start one here with `minga up`")
    for network in value["networks"]:
        if "error" in network:
            say(f"network {network['name']}: {network['error']['fact']}")
            continue
        kind = "embedded, play money" if network["embedded"] else f"chain {network['chain_id']}"
        head = network["chain"]
        state = f"block {head['head']}" if "head" in head else f"no answer: {head['error']}"
        say(f"network {network['name']} ({kind}): {state}")
        for board in network["boards"]:
            held = f"{board['offers']} offers" if "offers" in board else f"no answer: {board['error']}"
            say(f"  board {board['url']}: {held}")
    rows = [
        (item["name"], "up" if item["alive"] else "DEAD", str(item["pid"]), item["url"] or "–")
        for item in value["processes"]
    ]
    if rows:
        print_table(("process", "state", ">pid", "~url"), rows, "")
    if any(not item["alive"] for item in value["processes"]):
        tell("something died; `minga up` starts it again")


def chain(
    ctx: typer.Context,
    port: Annotated[int, typer.Option()] = 0,
    save: Annotated[int, typer.Option(min=1, max=3600)] = 5,
    ready_file: ReadyFile = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run the embedded chain of this home until stopped."""
    from minga.chain.local import local_chain
    from minga.cli.processes import announce_ready
    from minga.cli.world import RealClock, RealDice, run_async, run_until_signal

    folder = settings_of(ctx).local / "chain"
    port_option(port)

    async def main(stop: Any) -> None:
        async with local_chain(folder, RealClock(), RealDice(), port or None, save) as node:
            tell(f"chain {node.spec.chain_id} at {node.rpc_url}")
            announce_ready(ready_file, {"url": node.rpc_url, "anvil": node.pid})
            await stop.wait()
        tell("chain: stopped, state saved")

    run_async(lambda: run_until_signal(main))
