"""`minga board`: run a board, a small cache of offers and complaints that anyone may run and nobody needs to believe.

What it holds is written to files now and then, so that a restart does not begin empty; every line of them is checked
like a post when it is read again. The chain is asked only for the lease of a complaint that comes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import port_option, settings_of
from minga.cli.output import tell

if TYPE_CHECKING:
    from minga.chain.chain import Chain
    from minga.client.home import Network
    from minga.core.crypto import Hash32
    from minga.explorer.board import Limits, OfferBook
    from minga.explorer.complaints import ComplaintBook
    from minga.protocol.lease import Lease

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
    """Hold and serve signed offers and complaints until stopped; off loopback put a TLS proxy before it."""
    from minga.cli.world import run_async, run_until_signal
    from minga.explorer.board import Limits

    port_option(port)
    settings = settings_of(ctx)
    network = settings.network()
    limits = Limits(offers_max=offers_max, posts_per_minute=posts_per_minute)
    folder = settings.folder / "board"

    async def main(stop: Any) -> None:
        await _serve(network, host, port, limits, folder, ready_file, stop)

    run_async(lambda: run_until_signal(main))


async def _serve(
    network: Network, host: str, port: int, limits: Limits, folder: Path, ready_file: Path | None, stop: Any
) -> None:
    import anyio

    from minga.chain.node import open_chain
    from minga.cli.processes import announce_ready
    from minga.cli.world import RealClock
    from minga.explorer.app import board_app
    from minga.explorer.board import OfferBook
    from minga.explorer.complaints import ComplaintBook
    from minga.transport.http import serve

    spec, clock = network.chain, RealClock()
    book, complaints = OfferBook(spec.domain, limits), ComplaintBook(spec.domain)
    kept: dict[Path, OfferBook | ComplaintBook] = {
        folder / f"{network.name}.jsonl": book,
        folder / f"{network.name}.complaints.jsonl": complaints,
    }
    for file, held in kept.items():
        held.load(_lines(file), clock.now())
    async with open_chain(spec, folder / "chain" / network.name, clock) as chain:
        app = board_app(book, clock, spec.deployment.decimals, complaints, partial(_find_lease, chain, anyio.Lock()))
        async with serve(app, host, port) as server, anyio.create_task_group() as group:
            tell(f"board of {network.name} (chain {spec.chain_id}) at {server.url}; Ctrl-C stops it")
            for file, held in kept.items():
                group.start_soon(_keep, held, file)
            announce_ready(ready_file, {"url": server.url})
            await stop.wait()
            group.cancel_scope.cancel()
    for file, held in kept.items():
        await _save(held, file)
    tell("board: stopped")


async def _find_lease(chain: Chain, reading: Any, lease_id: Hash32) -> Lease | None:
    """What the chain knows of a lease; its events are read on only where the lease is not known yet."""
    if lease_id not in chain.view.leases:
        async with reading:
            chain.acknowledge(await chain.poll())
    found = chain.view.leases.get(lease_id)
    return found.lease if found else None


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines() if file.is_file() else []


async def _keep(book: OfferBook | ComplaintBook, file: Path) -> None:
    import anyio

    written = -1
    while True:
        if book.changes != written:
            written = book.changes
            await _save(book, file)
        await anyio.sleep(SAVE_S)


async def _save(book: OfferBook | ComplaintBook, file: Path) -> None:
    import anyio

    from minga.store.blobs import write_atomic

    await anyio.to_thread.run_sync(write_atomic, file, book.lines())
