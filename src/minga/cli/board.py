"""`minga board`: run a board, a small cache of signed offers that anyone may run and nobody needs to believe.

What it holds is written to a file now and then, so that a restart does not begin empty; every line of that file is
checked like a post when it is read again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import port_option, settings_of
from minga.cli.output import tell

if TYPE_CHECKING:
    from minga.client.home import Network
    from minga.explorer.board import Limits, OfferBook

ReadyFile = Annotated[Path | None, typer.Option("--ready-file", hidden=True)]

SAVE_S = 1.0
"""Seconds between looks at whether there is something new to write."""


def board(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 7470,
    offers_max: Annotated[int, typer.Option(min=1, max=1_000_000, help="Offers held at most.")] = 20_000,
    posts_per_minute: Annotated[int, typer.Option(min=1, help="Posts from one address.")] = 600,
    ready_file: ReadyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="An error as JSON.")] = False,
) -> None:
    """Hold and serve signed offers of the chosen network until stopped; off loopback put a TLS proxy before it."""
    from minga.cli.world import run_async, run_until_signal
    from minga.explorer.board import Limits

    port_option(port)
    settings = settings_of(ctx)
    network = settings.network()
    limits = Limits(offers_max=offers_max, posts_per_minute=posts_per_minute)
    file = settings.folder / "board" / f"{network.name}.jsonl"

    async def main(stop: Any) -> None:
        await _serve(network, host, port, limits, file, ready_file, stop)

    run_async(lambda: run_until_signal(main))


async def _serve(
    network: Network, host: str, port: int, limits: Limits, file: Path, ready_file: Path | None, stop: Any
) -> None:
    import anyio

    from minga.cli.processes import announce_ready
    from minga.cli.world import RealClock
    from minga.explorer.app import board_app
    from minga.explorer.board import OfferBook
    from minga.transport.http import serve

    book, clock = OfferBook(network.chain.domain, limits), RealClock()
    book.load(_lines(file), clock.now())
    app = board_app(book, clock, network.chain.deployment.decimals)
    async with serve(app, host, port) as server, anyio.create_task_group() as group:
        tell(f"board of {network.name} (chain {network.chain.chain_id}) at {server.url}; Ctrl-C stops it")
        group.start_soon(_keep, book, file)
        announce_ready(ready_file, {"url": server.url})
        await stop.wait()
        group.cancel_scope.cancel()
    await _save(book, file)
    tell("board: stopped")


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines() if file.is_file() else []


async def _keep(book: OfferBook, file: Path) -> None:
    import anyio

    written = -1
    while True:
        if book.changes != written:
            written = book.changes
            await _save(book, file)
        await anyio.sleep(SAVE_S)


async def _save(book: OfferBook, file: Path) -> None:
    import anyio

    from minga.store.blobs import write_atomic

    await anyio.to_thread.run_sync(write_atomic, file, book.lines())
