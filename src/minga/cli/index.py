"""`minga index`: what a GPU-hour costs, by vendors' quotes, by clouds, and by what this network's leases paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import as_minga_error, print_json, tell
from minga.core.errors import InvalidInput, MingaError, NotFound

if TYPE_CHECKING:
    from minga.cli.config import Settings
    from minga.client.executed import Paid
    from minga.protocol.accelerators import Accelerator
    from minga.protocol.price_history import Series
    from minga.protocol.price_quotes import Kind, Quote


def index(
    ctx: typer.Context,
    gpu: Annotated[str | None, typer.Argument(help="A card, such as H100, A100-80GB or RTX4090.")] = None,
    kind: Annotated[str | None, typer.Option(help="on-demand, spot, market or interruptible.")] = None,
    region: Annotated[str, typer.Option(help="Only quotes whose region contains this.")] = "",
    catalog: Annotated[
        list[Path] | None, typer.Option(help="More quotes: a CSV file or a folder (ours, SkyPilot's, gpuhunt's).")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Monthly series, drawn here.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the series into FILE.png or FILE.svg.")] = None,
    claims: Annotated[bool, typer.Option("--claims", help="What is said of prices, measured.")] = False,
    sources: Annotated[bool, typer.Option("--sources", help="Every quote used, every quote refused.")] = False,
    as_of: Annotated[str | None, typer.Option(help="A day such as 2026-09-30, instead of today.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the network for its leases.")] = False,
    as_json: Json = False,
) -> None:
    """What a GPU-hour costs: an index value with its dates, or the reason why there is none."""
    known = gather(settings_of(ctx), gpu, catalog or [], as_of, offline)
    kinds = _kinds(kind)
    from minga.cli import index_plot
    from minga.cli import index_view as view

    if plot is not None:
        index_plot.check_plot(plot)
    if claims:
        value = view.claims_dict(known)
        print_json(value) if as_json else view.print_claims(value)
    elif history or plot is not None:
        _history(known, plot, as_json)
    else:
        value = view.index_dict(known, kinds, region, sources)
        print_json(value) if as_json else view.print_index(value, known.gpu is not None)


@dataclass(frozen=True)
class Known:
    """What one call knows: the day, the card asked for, quotes, series, and what the network's leases paid."""

    today: int
    gpu: Accelerator | None
    quotes: tuple[Quote, ...]
    series: dict[tuple[str, str], Series]
    left_out: dict[str, int]
    network: str | None
    paid: Paid | None
    trouble: str | None

    def cards(self) -> list[Accelerator]:
        """The cards to show, by name: the one asked for, or every card that is priced, variants after the whole."""
        if self.gpu is not None:
            return [self.gpu]
        named = {quote.gpu for quote in self.quotes}
        return sorted(named | {_whole(gpu) for gpu in named}, key=str)


def _whole(gpu: Accelerator) -> Accelerator:
    from dataclasses import replace

    return replace(gpu, form="")


def gather(settings: Settings, gpu: str | None, catalogs: list[Path], as_of: str | None, offline: bool) -> Known:
    """Read the shipped data, the user's catalogs and, unless `offline`, the network's leases.

    Raises:
        NotFound: no price of `gpu` is known, or a catalog is not there.
        InvalidInput: not a card's name, not a day, or a catalog that cannot be read.
    """
    from minga.cli.world import RealClock
    from minga.client.catalogs import read_catalog, shipped_history, shipped_quotes
    from minga.core.units import DAY
    from minga.protocol.price_history import series_of
    from minga.protocol.price_quotes import card_class

    today = RealClock().now() // DAY if as_of is None else _day(as_of)
    read = [read_catalog(path.expanduser()) for path in catalogs]
    quotes = (*shipped_quotes(), *(quote for item in read for quote in item.quotes))
    left_out = {reason: count for item in read for reason, count in item.left_out.items()}
    card = None if gpu is None else card_class(gpu)
    _check_known(card, quotes)
    quotes = tuple(quote for quote in quotes if quote.day <= today)
    month = _month(today)
    series = series_of(point for point in shipped_history() if point.month <= month)
    network, paid, trouble = (None, None, None) if offline or as_of else _ask_network(settings)
    return Known(today, card, quotes, series, left_out, network, paid, trouble)


def _check_known(card: Accelerator | None, quotes: tuple[Quote, ...]) -> None:
    if card is not None and all(quote.gpu.model != card.model for quote in quotes):
        names = ", ".join(sorted({quote.gpu.model for quote in quotes})) or "none"
        raise NotFound(f"no price of {card} is known; known: {names}", "add prices with --catalog FILE")


def _day(text: str) -> int:
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a day", "write it as 2026-09-30") from None


def _month(day: int) -> int:
    found = date.fromordinal(date(1970, 1, 1).toordinal() + day)
    return found.year * 12 + found.month - 1


def _kinds(text: str | None) -> tuple[Kind, ...]:
    from minga.protocol.price_quotes import KINDS

    if text is None:
        return KINDS
    found = tuple(kind for kind in KINDS if kind == text.replace("-", "_"))
    if not found:
        known = ", ".join(kind.replace("_", "-") for kind in KINDS)
        raise InvalidInput(f"{text[:40]!r} is not a kind of price", f"use one of {known}")
    return found


def _ask_network(settings: Settings) -> tuple[str | None, Paid | None, str | None]:
    """The chosen network's leases; without a network nothing, when it does not answer the reason."""
    names = settings.network_names()
    if settings.network_name is None and len(names) != 1:
        return None, None, None
    network = settings.network()
    import httpx

    from minga.cli.world import RealClock, run_async
    from minga.client.executed import read_executed
    from minga.transport.http import connect

    folder = settings.home.chain(network.name) / "index"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        paid = run_async(lambda: read_executed(network, folder, RealClock(), connect))
    except TimeoutError:
        return network.name, None, "no answer in time"
    except (MingaError, httpx.HTTPError, ExceptionGroup) as error:
        return network.name, None, as_minga_error(error).fact
    return network.name, paid, None


def _history(known: Known, plot: Path | None, as_json: bool) -> None:
    from minga.cli import index_plot as drawing

    chosen = {
        key: months
        for key, months in known.series.items()
        if key[1].startswith("neocloud") and (known.gpu is None or key[0] == str(known.gpu))
    }
    if known.gpu is None:
        chosen = {key: months for key, months in chosen.items() if key[1] == "neocloud_index"}
    if not chosen:
        cards = ", ".join(sorted({card for card, name in known.series if name.startswith("neocloud")})) or "none"
        raise NotFound(f"no monthly series of {known.gpu} is known; known: {cards}", "ask for one of these")
    if plot is not None:
        drawing.save_plot(chosen, plot)
        tell(f"wrote {plot}")
    value: dict[str, Any] = drawing.history_dict(chosen)
    if as_json:
        print_json(value)
    elif plot is None:
        drawing.print_history(chosen)
