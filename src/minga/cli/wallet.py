"""`minga wallet`: keys and what they hold.

The key `main` pays for jobs: it signs one thing, the funding of a job's own wallet with exactly the budget. Keys are
encrypted (keystore v3); only keys of the embedded chain, where tokens are play money, are plain files, marked so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.config import WALLET, Settings, is_embedded
from minga.cli.options import Json, settings_of
from minga.cli.output import print_facts, print_json, print_table, say, tell
from minga.core.errors import InvalidInput
from minga.core.units import format_usd, parse_usd

if TYPE_CHECKING:
    from collections.abc import Callable

    from minga.client.home import Network
    from minga.core.crypto import PrivateKey

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make, show and fill wallets.")

KeyName = Annotated[str, typer.Argument(help="The key's name.")]


@app.command("create")
def create(
    ctx: typer.Context,
    name: KeyName = WALLET,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="A plain key, for the embedded chain only; no passphrase.")
    ] = False,
    remember: Annotated[bool, typer.Option(help="Keep the passphrase in the system's keyring.")] = False,
    as_json: Json = False,
) -> None:
    """Make a key from the system's random bytes."""
    settings = settings_of(ctx)
    _add(settings, name, os.urandom(32), embedded, remember, as_json)


@app.command("import")
def import_key(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file with the secret: 64 hexadecimal digits. '-' reads stdin.")],
    name: Annotated[str, typer.Option(help="Name for the key here.")] = WALLET,
    as_json: Json = False,
) -> None:
    """Take over a key that was made elsewhere; a secret is never an argument, where others could read it."""
    import re
    import sys

    from minga.core.crypto import PrivateKey

    text = sys.stdin.read(200) if str(file) == "-" else file.read_text(errors="replace")[:200]
    digits = text.strip().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise InvalidInput(f"{file} does not hold a secret", "it must be 64 hexadecimal digits and nothing else")
    store = settings_of(ctx).open_keys()
    key = store.add(name, PrivateKey(bytes.fromhex(digits)))
    _show_new(name, key, as_json)


def _add(settings: Settings, name: str, entropy: bytes, embedded: bool, remember: bool, as_json: bool) -> None:
    from minga.chain.keys import KeyStore, passphrase_from, remember_passphrase

    if not embedded:
        passphrase = passphrase_from(os.environ, prompt=_ask_twice())(name)
        key = KeyStore(settings.folder / "keys", lambda _: passphrase).create(name, entropy)
        if remember:
            remember_passphrase(name, passphrase)
    else:
        key = settings.open_keys().create_embedded(name, entropy)
    _show_new(name, key, as_json)


def _show_new(name: str, key: PrivateKey, as_json: bool) -> None:
    from minga.core.crypto import checksum

    if as_json:
        print_json({"name": name, "address": checksum(key.address)})
    else:
        print_facts([("name", name), ("address", checksum(key.address))])


def _ask_twice() -> Callable[[str], str] | None:
    """A prompt that asks for a new passphrase until it was typed twice the same; None without a terminal."""
    from minga.cli.config import ask_secret

    ask = ask_secret()
    if ask is None:
        return None

    def prompt(name: str) -> str:
        while True:
            first = ask(name)
            if first and first == ask(f"{name}, once more"):
                return first
            tell("they differ or are empty; again")

    return prompt


@app.command("show")
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """List the keys of this home."""
    from minga.core.crypto import checksum

    found = settings_of(ctx).open_keys().info()
    if as_json:
        print_json([{"name": k.name, "address": checksum(k.address), "embedded": k.embedded} for k in found])
        return
    rows = [(k.name, checksum(k.address), "plain, embedded chain only" if k.embedded else "encrypted") for k in found]
    print_table(("~name", "address", "~kept"), rows, "no keys here; make one with `minga wallet create`")


@app.command("export-address")
def export_address(ctx: typer.Context, name: KeyName = WALLET) -> None:
    """Print a key's address alone, to send money to."""
    from minga.core.crypto import checksum

    say(checksum(_address(settings_of(ctx), name)))


def _address(settings: Settings, name: str) -> Any:
    """The address of a key (no passphrase needed), or the text itself when it is an address."""
    from minga.core.crypto import parse_address
    from minga.core.errors import NotFound

    if name.startswith("0x"):
        return parse_address(name)
    for key in settings.open_keys().info():
        if key.name == name:
            return key.address
    raise NotFound(f"there is no key {name!r} here", f"make one with `minga wallet create {name}`")


@app.command("balance")
def balance(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A key's name or an address.")] = WALLET,
    as_json: Json = False,
) -> None:
    """Tokens and gas money of a key on the chosen network."""
    from minga.cli.world import run_async
    from minga.core.crypto import checksum

    settings = settings_of(ctx)
    network = settings.network()
    address = _address(settings, name)
    tokens, wei = run_async(lambda: _balances(settings, network, address))
    decimals = network.chain.deployment.decimals
    if as_json:
        value = {"address": checksum(address), "network": network.name, "decimals": decimals}
        print_json(value | {"tokens": str(tokens), "wei": str(wei)})
        return
    print_facts(
        [
            ("address", checksum(address)),
            ("network", network.name + (" (embedded: play money)" if is_embedded(network) else "")),
            ("tokens", f"${format_usd(tokens, decimals)}"),
            ("gas money", f"{format_usd(wei, 18)} ETH"),
        ]
    )


async def _balances(settings: Settings, network: Network, address: Any) -> tuple[int, int]:
    from minga.chain.contracts import Token
    from minga.chain.node import open_chain
    from minga.cli.world import RealClock

    async with open_chain(network.chain, settings.home.chain(network.name), RealClock()) as chain:
        tokens = await chain.read(Token(network.chain.deployment.token).balance_of(address))
        return tokens, await chain.balance(address)


@app.command("faucet")
def faucet(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A key's name or an address.")] = WALLET,
    amount: Annotated[str, typer.Option(help="Dollars of play money.")] = "100",
    as_json: Json = False,
) -> None:
    """Give play money to a key, on the embedded chain only."""
    from minga.cli.localnet import WALLET_WEI, mint
    from minga.cli.world import run_async
    from minga.core.crypto import checksum

    settings = settings_of(ctx)
    network = settings.network()
    if not is_embedded(network):
        raise InvalidInput(f"{network.name} is not an embedded chain", "money there is real: send some to the address")
    units = parse_usd(amount, network.chain.deployment.decimals)
    address = _address(settings, name)
    run_async(lambda: mint(settings.local / "chain", address, units, WALLET_WEI))
    if as_json:
        print_json({"address": checksum(address), "tokens": str(units)})
    else:
        say(f"{checksum(address)} got ${format_usd(units, network.chain.deployment.decimals)} of play money")
