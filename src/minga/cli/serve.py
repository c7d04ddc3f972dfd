"""`minga serve`: a model on the network behind OpenAI's API, in one command.

What other programs need (the url and a key) goes to stdout as shell lines; everything else to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import port_option, settings_of
from minga.cli.output import say, tell

if TYPE_CHECKING:
    from minga.cli.config import Settings
    from minga.workloads.serve import Plan, Replicas


def serve(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a Hugging Face checkpoint.")],
    budget: Annotated[str, typer.Option("--budget", "--max", help="Dollars for each replica; it can never cost more.")],
    name: Annotated[str | None, typer.Option(help="What requests call it (default: the folder's name).")] = None,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="How many, on as many leases.")] = 1,
    per_hour: Annotated[str | None, typer.Option(help="Most dollars an hour for each replica.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Accelerators, such as RTX4090.")] = None,
    cpus: Annotated[str | None, typer.Option(help="Cores for each, such as 4.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory for each, such as 16GiB.")] = None,
    disk: Annotated[str | None, typer.Option(help="Disk for each, such as 50GiB.")] = None,
    price_in: Annotated[str, typer.Option(help="Dollars per million tokens of prompts, charged to keys.")] = "0",
    price_out: Annotated[str, typer.Option(help="Dollars per million tokens of replies, charged to keys.")] = "0",
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Take machines at their word.")] = False,
    port: Annotated[int, typer.Option(help="Port here, on loopback; 0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="An error as JSON.")] = False,
) -> None:
    """Serve a model until stopped: its replicas are jobs, and requests are answered here by OpenAI's API."""
    from minga.cli.spec import Wishes, build_spec
    from minga.cli.world import run_async, run_until_signal
    from minga.core.units import parse_usd
    from minga.workloads.serve import Plan

    port_option(port)
    settings = settings_of(ctx)
    wishes = Wishes(gpu=gpu, cpus=cpus, memory=memory, disk=disk, budget=budget, send_folder=False)
    needs = build_spec(["true"], wishes, Path.cwd()).requirements
    plan = Plan(
        model.resolve(), name or model.resolve().name, replicas, budget, needs, per_hour, parse_usd(price_in, 9),
        parse_usd(price_out, 9), not no_probe,
    )  # fmt: skip

    async def main(stop: Any) -> None:
        await _serve(settings, plan, port, stop)

    run_async(lambda: run_until_signal(main))


async def _serve(settings: Settings, plan: Plan, port: int, stop: Any) -> None:
    import tempfile

    import anyio

    from minga.workloads.serve import Replicas

    with tempfile.TemporaryDirectory(prefix="minga-serve-") as scratch:
        async with settings.connect_async() as client:
            replicas = await Replicas.start(client, plan, Path(scratch), tell)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_until, stop, tasks.cancel_scope)
                    await _answer(settings, replicas, port)
                    tell("every replica has ended")
                    tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    tell("stopping the replicas and settling")
                    await replicas.stop()
                    decimals = client.network.chain.deployment.decimals
                    tell(f"spent ${replicas.spent() / 10**decimals:.6f}")


async def _until(stop: Any, scope: Any) -> None:
    await stop.wait()
    scope.cancel()


async def _answer(settings: Settings, replicas: Replicas, port: int) -> None:
    """Serve requests until the last replica has ended."""
    from minga.cli.world import RealClock, RealDice
    from minga.gateway.app import Gateway
    from minga.gateway.books import Books
    from minga.transport.http import serve

    clock, dice, plan = RealClock(), RealDice(), replicas.plan
    model = await replicas.ready()
    books = Books(settings.folder / "gateway" / "serve.db", clock, dice)
    try:
        name = f"serve {next(iter(replicas.handles))[2:14]}"
        secret = books.add(name, plan.replicas * _nanodollars(plan.budget))
        gateway = Gateway({plan.name: model}, {plan.name: replicas.pool}, books, clock, dice)
        async with serve(gateway.app(), "127.0.0.1", port) as server:
            tell(f"{plan.name}: {model.parameters} parameters, context {model.context}; Ctrl-C stops it")
            say(f"export OPENAI_BASE_URL={server.url}/v1\nexport OPENAI_API_KEY={secret}")
            try:
                await replicas.watch()
            finally:
                books.revoke(name)
    finally:
        books.close()


def _nanodollars(dollars: str) -> int:
    from minga.core.units import parse_usd

    return parse_usd(dollars, 9)
