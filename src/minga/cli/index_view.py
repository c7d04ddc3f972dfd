"""Index values, references and claims: as JSON values, and as tables that fit 80 columns.

Rule: amounts in JSON are integers of micro-dollars per GPU-hour; a value that is withheld says why, in both forms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minga.cli.output import print_table, say, tell
from minga.protocol.executed_index import Executed, ExecutedIndex, executed_index
from minga.protocol.price_claims import claims, dollars, percent, savings
from minga.protocol.price_index import Index, Value, Withheld, index_of
from minga.protocol.price_quotes import Kind, Quote, Refused, screen
from minga.protocol.references import Reference, references_of

if TYPE_CHECKING:
    from minga.cli.index import Known

SERIES_CARDS = ("H100", "A100-80GB")
NAMES = {"on_demand": "on demand", "spot": "spot", "market": "market", "interruptible": "interruptible"}


def dates_of(quotes: tuple[Quote, ...]) -> str:
    """The oldest and the newest date, without remarks: `2026 … 2026-11-09`."""
    ordered = sorted(quotes, key=lambda quote: (quote.day, quote.dated))
    first, last = (quote.dated.split(" ")[0] for quote in (ordered[0], ordered[-1]))
    return first if first == last else f"{first} … {last}"


# ------------------------------------------------------------------------------------------------------------ values


def index_dict(known: Known, kinds: tuple[Kind, ...], region: str, sources: bool) -> dict[str, Any]:
    """Every card that is asked for, with each kind's value or reason, references and the network's price."""
    cards = []
    screened: dict[str, tuple[list[Quote], list[Refused]]] = {card.model: ([], []) for card in known.cards()}
    for model, quotes in _by_model(known.quotes).items():
        if model in screened:
            screened[model] = screen(quotes)
    for card in known.cards():
        good, refused = screened[card.model]
        found = {kind: index_of(good, refused, card, kind, known.today, region) for kind in kinds}
        value: dict[str, Any] = {"gpu": str(card), "kinds": {kind: _index(item) for kind, item in found.items()}}
        named = references_of(good, card, known.today).named()
        value["references"] = {name: _reference(item) for name, item in named}
        if sources:
            value["quotes"] = [_quote(quote) for item in found.values() for quote in _used(item)]
            value["refused"] = [
                {**_quote(bad.quote), "trap": bad.trap, "why": bad.fact}
                for item in found.values()
                for bad in item.refused
            ]
        cards.append(value)
    return {"unit": "micro-dollars per GPU-hour", "day": known.today, "region": region, "cards": cards,
            "network": _network(known), "left_out": known.left_out}  # fmt: skip


def _by_model(quotes: Iterable[Quote]) -> dict[str, list[Quote]]:
    found: dict[str, list[Quote]] = defaultdict(list)
    for quote in quotes:
        found[quote.gpu.model].append(quote)
    return found


def _used(item: Index) -> tuple[Quote, ...]:
    return item.value.quotes if isinstance(item.value, Value) else ()


def _index(item: Index) -> dict[str, Any]:
    value = item.value
    if isinstance(value, Withheld):
        return {"withheld": value.why, "fact": value.fact}
    return {
        "usd_micro": value.usd_micro,
        "low": value.low,
        "high": value.high,
        "vendors": len(value.voices),
        "quotes": len(value.quotes),
        "dates": dates_of(value.quotes),
        "shares_ppm": {voice.name: share for voice, share in zip(value.voices, value.shares, strict=True)},
        "set_aside": list(value.aside),
    }


def _reference(item: Reference | Withheld) -> dict[str, Any]:
    if isinstance(item, Withheld):
        return {"withheld": item.why, "fact": item.fact}
    return {name: getattr(item, name) for name in Reference.__slots__}


def _quote(quote: Quote) -> dict[str, Any]:
    names = ("vendor", "kind", "usd_micro", "dated", "region", "source", "note")
    return {"gpu": str(quote.gpu), **{name: getattr(quote, name) for name in names}}


def _network(known: Known) -> dict[str, Any] | None:
    if known.network is None:
        return None
    if known.paid is None:
        return {"name": known.network, "trouble": known.trouble}
    leases: tuple[Executed, ...] = known.paid.leases
    classes = [known.gpu] if known.gpu is not None else sorted({item.gpu for item in leases}, key=str)
    found = [executed_index(leases, gpu, known.today) for gpu in classes]
    return {
        "name": known.network,
        "unknown_machines": known.paid.unknown,
        "classes": [_executed(item) for item in found],
    }


def _executed(item: ExecutedIndex) -> dict[str, Any]:
    value: dict[str, Any] = {"gpu": str(item.gpu), "leases": item.leases, "tenants": item.tenants}
    value["providers"] = item.providers
    if isinstance(item.value, Withheld):
        return {**value, "withheld": item.value.why, "fact": item.value.fact}
    return {**value, "usd_micro": item.value.usd_micro, "low": item.value.low, "high": item.value.high}


def claims_dict(known: Known) -> dict[str, Any]:
    """Every claim, measured on what is known, and the savings behind them."""
    cards = [card for card in known.cards() if not card.form or known.gpu is not None]
    found = savings(known.quotes, cards, known.today)
    take = known.paid.take if known.paid is not None else None
    series_cards = [str(known.gpu)] if known.gpu is not None else list(SERIES_CARDS)
    said = claims(found, known.series, series_cards, take)
    names = ("market", "clouds", "saving_ppm", "cheapest_ppm", "spot_ppm", "vendors", "dates")
    return {
        "day": known.today,
        "claims": [{name: getattr(item, name) for name in ("text", "measured", "verdict", "dates")} for item in said],
        "savings": [{"gpu": str(item.gpu), **{name: getattr(item, name) for name in names}} for item in found],
    }


# ------------------------------------------------------------------------------------------------------------ screens


def say_wrapped(text: str) -> None:
    """A sentence on stdout in lines of at most 80 characters."""
    import textwrap

    for line in textwrap.wrap(text, 80, subsequent_indent="  ", break_on_hyphens=False):
        say(line)


def print_index(value: dict[str, Any], one: bool) -> None:
    """One card in full, or all cards in one table."""
    if one:
        _print_card(value["cards"][0])
    else:
        _print_cards(value["cards"])
    _print_network(value["network"])
    for reason, count in value["left_out"].items():
        tell(f"left out of the catalogs: {count} × {reason}")


def _print_cards(cards: list[dict[str, Any]]) -> None:
    rows, empty = [], []
    for card in cards:
        cells = [_cell(item) for item in card["kinds"].values()]
        if any(cell != "–" for cell in cells):
            rows.append((card["gpu"], *cells))
        else:
            empty.append(card["gpu"])
    kinds = list(cards[0]["kinds"]) if cards else []
    print_table(("card", *(f">{NAMES[kind]}" for kind in kinds)), rows, "no card has an index value of this kind")
    if empty:
        say_wrapped(f"withheld altogether: {', '.join(empty)}")
    say_wrapped("Dollars per GPU-hour (vendors). –: withheld; `minga index CARD` says why, with dates and references.")


def _cell(item: dict[str, Any]) -> str:
    return "–" if "withheld" in item else f"{dollars(item['usd_micro'])} ({item['vendors']})"


def _print_card(card: dict[str, Any]) -> None:
    say(f"{card['gpu']}, dollars per GPU-hour")
    rows = [
        (NAMES[kind], dollars(item["usd_micro"]), f"{dollars(item['low'])} … {dollars(item['high'])}",
         f"{item['vendors']}/{item['quotes']}", item["dates"])
        for kind, item in card["kinds"].items()
        if "withheld" not in item
    ]  # fmt: skip
    if rows:
        print_table(("index", ">value", ">middle half", ">vendors/quotes", "dates"), rows, "")
    for kind, item in card["kinds"].items():
        if "withheld" in item:
            say_wrapped(f"{NAMES[kind]}: withheld ({item['withheld']}): {item['fact']}")
        elif item["set_aside"]:
            say_wrapped(f"{NAMES[kind]}: set aside as outliers: {', '.join(item['set_aside'])}")
    say("")
    rows = [
        (name, dollars(item["usd_micro"]), item["vendor"], _short(item["dated"]), f"{item['age_days']} d")
        for name, item in card["references"].items()
        if "withheld" not in item
    ]
    if rows:
        print_table(("cloud reference", ">value", "~vendor", "date", ">oldest"), rows, "")
    for name, item in card["references"].items():
        if "withheld" in item:
            say_wrapped(f"{name}: withheld ({item['withheld']}): {item['fact']}")
    if "quotes" in card:
        _print_sources(card)


def _short(dated: str) -> str:
    return " … ".join(part.split(" ")[0] for part in dated.split(" … "))


def _print_sources(card: dict[str, Any]) -> None:
    """Every quote with the number of its source, the sources by number, and what was refused."""
    numbers: dict[str, int] = {}
    for item in (*card["quotes"], *card["refused"]):
        numbers.setdefault(item["source"] or "none given", len(numbers) + 1)

    def cells(item: dict[str, Any]) -> tuple[str, ...]:
        number = str(numbers[item["source"] or "none given"])
        return item["gpu"], item["vendor"], dollars(item["usd_micro"]), item["dated"].split(" ")[0], number

    head = ("card", "vendor", ">value", "date", ">source")
    say("")
    rows = [(NAMES[item["kind"]], *cells(item)) for item in card["quotes"]]
    print_table(("quote", *head), rows, "no quote is used")
    say("")
    rows = [(item["trap"], *cells(item)) for item in card["refused"]]
    print_table(("refused as", *head), rows, "no quote is refused")
    for trap, why in sorted({(item["trap"], item["why"]) for item in card["refused"]}):
        say_wrapped(f"{trap}: {why}")
    say("")
    for source, number in numbers.items():
        say_wrapped(f"{number:>3}  {source}")


def _print_network(network: dict[str, Any] | None) -> None:
    if network is None:
        return
    say("")
    if "trouble" in network:
        tell(f"network {network['name']}: its leases are not known: {network['trouble']}")
        return
    if not network["classes"]:
        say(f"network {network['name']}: no lease was paid yet")
    for item in network["classes"]:
        over = f"{item['leases']} leases, {item['tenants']} tenants, {item['providers']} providers"
        if "withheld" in item:
            say_wrapped(f"network {network['name']}, {item['gpu']}: withheld ({item['withheld']}): {item['fact']}")
        else:
            say_wrapped(
                f"network {network['name']}, {item['gpu']}: {dollars(item['usd_micro'])} paid per hour ({over})"
            )
    if network["unknown_machines"]:
        say_wrapped(f"{network['unknown_machines']} paid leases are of machines that no board describes any more")


def print_claims(value: dict[str, Any]) -> None:
    """The claims with their verdicts, and the savings behind the first two."""
    rows = [(item["text"], item["measured"], item["verdict"]) for item in value["claims"]]
    print_table(("~claim", "~measured", "verdict"), rows, "no claim can be measured")
    rows = [
        (item["gpu"], dollars(item["market"]), dollars(item["clouds"]), *(_share(item[name]) for name in _SHARES),
         str(len(item["vendors"])))
        for item in value["savings"]
    ]  # fmt: skip
    head = ("card", ">market", ">large clouds", ">saves", ">of cheapest", ">of spot", ">vendors")
    print_table(head, rows, "no card has two markets and two large clouds")
    for item in value["savings"]:
        say_wrapped(f"{item['gpu']}: {_short(' … '.join(item['dates']))}; {', '.join(item['vendors'])}")
    say_wrapped("A negative saving is dearer. Method, thresholds and limits of the data: docs/prices.md")


_SHARES = ("saving_ppm", "cheapest_ppm", "spot_ppm")


def _share(ppm: int | None) -> str:
    return "–" if ppm is None else percent(ppm)
