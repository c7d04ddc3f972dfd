"""`minga dispute`: follow a game move by move, look at one, or play a side of it by hand.

Everything shown is read from the chain, so that anybody sees it; playing needs a key and the leaves. A provider's own
process plays by itself, and so does a validator's; `play` is for whoever lost theirs, or never had one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import print_json, print_table, say, short, tell
from minga.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minga.cli.court import Court
    from minga.cli.game_view import GameView
    from minga.core.crypto import PrivateKey

POLL_S = 0.5
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Follow disputes over work, and play them.")

GameNumber = Annotated[int | None, typer.Argument(min=1, metavar="GAME", help="Its number (default: the newest).")]


@app.command("watch", short_help="Follow a game until it is over.")
def watch(ctx: typer.Context, game: GameNumber = None, as_json: Json = False) -> None:
    """Follow a game move by move until it is over; without a number, the newest one, or the next one to begin."""
    from minga.cli.court import open_court
    from minga.cli.world import run_async

    async def main() -> None:
        async with open_court(settings_of(ctx)) as court:
            await follow(court, game, "json" if as_json else "live" if sys.stdout.isatty() else "lines")

    run_async(main)


async def follow(court: Court, game: int | None, how: str) -> None:
    """Show a game until it is over; `how`: live (a screen), lines, json (one object a move)."""
    import anyio

    shown = Screen(how)
    with shown:
        while True:
            await court.read()
            number = game or next(iter(court.numbers()), None)
            if number is not None:
                view = await court.view(number)
                shown.take(view)
                if view.record.finished is not None:
                    return
            await anyio.sleep(POLL_S)


class Screen:
    """Where a game is shown: drawn anew each time, or one line for each move."""

    def __init__(self, how: str) -> None:
        """`how`: live (a screen), lines, json (one object a move)."""
        self.how = how
        self.told = self.paid = 0
        self._live: Any = None

    def __enter__(self) -> Screen:
        if self.how == "live":
            from rich.live import Live

            from minga.cli.output import console

            self._live = Live(console=console(), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, view: GameView) -> None:
        """Show what is new."""
        from minga.cli.game_view import new_lines

        if self._live is not None:
            self._live.update(view.render())
            return
        if self.how == "json":
            if len(view.record.moves) != self.told:
                self.told = len(view.record.moves)
                sys.stdout.write(_line(view.facts()))
                sys.stdout.flush()
            return
        self.told, lines = new_lines(self.told, view)
        for line in lines:
            say(line)
        for name, amount in view.money()[self.paid :]:
            say(f"{view.usd(amount):>14}  {name}")
        self.paid = len(view.money())


def _line(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False) + "\n"


@app.command("show", short_help="A game as it stands, or all of them.")
def show(ctx: typer.Context, game: GameNumber = None, as_json: Json = False) -> None:
    """A game with every move, votes and money; without a number, a list of all games, the newest first."""
    from minga.cli.court import open_court
    from minga.cli.world import run_async

    async def main() -> list[GameView]:
        async with open_court(settings_of(ctx)) as court:
            return [await court.view(number) for number in ([game] if game else court.numbers())]

    views = run_async(main)
    if as_json:
        print_json(views[0].facts() if game else [view.facts() for view in views])
    elif game:
        from minga.cli.output import console

        console().print(views[0].render())
    else:
        rows = [
            (str(view.record.game), view.outcome() or view.waits_for(), str(view.record.leaf or "–"),
             str(view.commitment.leaves), short(view.commitment.provider), short(view.record.challenger))
            for view in views
        ]  # fmt: skip
        head = (">game", "state", ">leaf", ">leaves", "provider", "challenger")
        print_table(head, rows, "no dispute was ever begun on this network")


@app.command("play", short_help="Play a side of a game by hand.")
def play(
    ctx: typer.Context,
    game: Annotated[int, typer.Argument(min=1, metavar="GAME", help="Its number.")],
    leaves: Annotated[Path, typer.Option(help="Your leaves.bin: committed (provider), or done again (challenger).")],
    key: Annotated[str, typer.Option(help="Name of the key that plays; it decides the side.")] = "operator",
    appeal: Annotated[bool, typer.Option(help="Appeal when the jury is against you.")] = True,
) -> None:
    """Answer for one side until the game is over, from a file of leaves."""
    from minga.cli.court import open_court
    from minga.cli.world import run_async

    settings = settings_of(ctx)
    own = _read_leaves(leaves)
    held = settings.key(settings.network(), key)

    async def main() -> None:
        async with open_court(settings, settings.folder / "disputes" / f"{settings.network().name}-{key}") as court:
            await _play(court, game, held, own, appeal)

    run_async(main)


def _read_leaves(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", "name a trace's leaves.bin") from None
    if not data or len(data) % 32:
        raise InvalidInput(f"{path} has {len(data)} bytes, not 32 for each leaf", "name a trace's leaves.bin")
    return [data[at : at + 32] for at in range(0, len(data), 32)]


async def _play(court: Court, number: int, key: PrivateKey, own: Sequence[bytes], appeals: bool) -> None:
    import anyio

    from minga.cli.sides import as_challenger
    from minga.provider.defending import play as defend
    from minga.provider.defending import tree_of

    view = await court.view(number)
    record, made = view.record, view.commitment
    agents = {made.provider, court.chain.view.providers[made.provider].agent_key}
    if key.address not in agents and key.address != record.challenger:
        raise InvalidInput(
            f"{key.address} plays neither side of game {number}", "use the provider's or the challenger's key"
        )
    tree = tree_of(made, own) if key.address in agents else None
    while True:
        await court.read()
        record = court.chain.view.disputes.games[number]
        if tree is not None:
            did = await defend(court.chain, key, record, made, tree, court.preset, appeals)
        else:
            did = await as_challenger(court, key, record, made, own, appeals)
        if did is not None:
            tell(f"game {number}: {did}")
        if record.finished is not None:
            say(f"game {number}: {(await court.view(number)).outcome()}")
            return
        await anyio.sleep(POLL_S)
