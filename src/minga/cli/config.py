"""What the options before a command chose: the home folder, the network, and how keys are unlocked.

The folders themselves are described by `minga.client.home`. A network is chosen by `--network`, else $MINGA_NETWORK,
else it is the only one there is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minga.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from minga.chain.keys import KeyStore
    from minga.client.home import Home, Network
    from minga.client.session import Client
    from minga.client.tenant import AsyncClient
    from minga.core.crypto import PrivateKey

LOCAL = "local"
"""The name of the network that `minga up` runs."""

WALLET = "main"
"""The name of the key that pays."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Settings:
    """The chosen home folder and, if one was named, network."""

    folder: Path
    network_name: str | None = None

    @property
    def home(self) -> Home:
        """The folders of this user."""
        from minga.client.home import Home

        return Home(self.folder)

    @property
    def local(self) -> Path:
        """Folder of the embedded network that `minga up` runs."""
        return self.folder / "local"

    def network_names(self) -> list[str]:
        """Names of the networks that have a file, sorted."""
        return sorted(path.stem for path in (self.folder / "networks").glob("*.json"))

    def network(self) -> Network:
        """The chosen network.

        Raises:
            NotFound: none chosen and not exactly one there, or the chosen one has no file.
            InvalidInput: its file is not a network's.
        """
        from minga.client.home import Network

        names, where = self.network_names(), self.folder / "networks"
        chosen = self.network_name
        if chosen is not None:
            check_name(chosen, "network")
            if chosen not in names:
                known = ", ".join(names) or "none"
                raise NotFound(f"there is no network {chosen!r}; known: {known}", f"put its file into {where}")
        elif not names:
            raise NotFound("no network is known", f"start one here with `minga up`, or put a file into {where}")
        elif len(names) > 1:
            raise NotFound(f"several networks are known: {', '.join(names)}", "choose one: minga --network NAME …")
        else:
            chosen = names[0]
        return Network.load(self.home, chosen)

    def open_keys(self) -> KeyStore:
        """The key store of this home; asks for passphrases on the terminal when there is one."""
        from minga.chain.keys import KeyStore, passphrase_from

        return KeyStore(self.folder / "keys", passphrase_from(os.environ, prompt=ask_secret()))

    def key(self, network: Network, name: str = WALLET) -> PrivateKey:
        """The key `name`; a plain one only on the embedded chain.

        Raises:
            NotFound: there is no such key.
            KeyLocked: no passphrase, or a wrong one.
        """
        try:
            return self.open_keys().load(name, embedded_ok=is_embedded(network))
        except NotFound as error:
            raise NotFound(error.fact, f"make one with `minga wallet create {name}`") from None

    def connect(self) -> Client:
        """A client on the chosen network, with the real clock and dice; close it after use (`with`)."""
        network = self.network()
        from minga.cli.world import RealClock, RealDice
        from minga.client.session import Client

        return Client(
            self.home,
            network,
            clock=RealClock(),
            dice=RealDice(),
            key=lambda: self.key(network),
            allow_process=is_embedded(network),
        )

    def connect_async(self) -> AsyncClient:
        """As `connect`, for programs that are asynchronous themselves."""
        network = self.network()
        from minga.cli.world import RealClock, RealDice
        from minga.client.tenant import AsyncClient

        return AsyncClient(
            self.home,
            network,
            clock=RealClock(),
            dice=RealDice(),
            key=lambda: self.key(network),
            allow_process=is_embedded(network),
        )


def is_embedded(network: Network) -> bool:
    """Whether a network is the embedded chain, where tokens are play money."""
    from minga.chain.local import EMBEDDED_CHAIN_ID

    return network.chain.chain_id == EMBEDDED_CHAIN_ID


def check_name(name: str, what: str) -> str:
    """A name that may become a file's name.

    Raises:
        InvalidInput: empty, over 64 characters, or with anything but letters, digits, `.`, `_` and `-`.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:80]!r} is not a name for a {what}", "use letters, digits, '.', '_' and '-'")
    return name


def default_home() -> Path:
    """`$MINGA_HOME`, or `~/.minga`."""
    return Path(os.environ.get("MINGA_HOME") or Path.home() / ".minga")


def ask_secret() -> Callable[[str], str] | None:
    """A function that asks for a key's passphrase on the terminal, unseen; None when there is no terminal."""
    import sys

    if not sys.stdin.isatty():
        return None
    from getpass import getpass

    return lambda name: getpass(f"passphrase of key {name}: ")
