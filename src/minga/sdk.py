"""The SDK's composition root: a client with this machine's clock, dice and key store.

`minga.Client.connect()` in a program is what `minga` is on a command line. Above every layer, like the command line;
nothing imports it but `minga/__init__.py`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from minga.cli.world import RealClock, RealDice
from minga.client import functions, session
from minga.client.home import Home, Network
from minga.core.errors import NotFound

MAIN_KEY = "main"


class Client(session.Client):
    """A tenant on one network; make it with `Client.connect()`."""

    @classmethod
    def connect(cls, home: str | Path | None = None, network: str | None = None, **more: Any) -> Client:
        """A client of a home folder.

        Args:
            home: by default `$MINGA_HOME`, or `~/.minga`.
            network: its name; by default `$MINGA_NETWORK`, or the only one that the home knows.
            more: other arguments of `minga.client.session.Client`.

        Raises:
            NotFound: no such network, or several and none named.
        """
        place = Home(Path(home or os.environ.get("MINGA_HOME") or Path.home() / ".minga"))
        name = network or os.environ.get("MINGA_NETWORK") or _only_network(place)
        chosen = Network.load(place, name)
        from minga.chain.keys import KeyStore, passphrase_from
        from minga.chain.local import EMBEDDED_CHAIN_ID

        embedded = chosen.chain.chain_id == EMBEDDED_CHAIN_ID
        store = KeyStore(place.keys, passphrase_from(os.environ))
        values: dict[str, Any] = {
            "clock": RealClock(),
            "dice": RealDice(),
            "key": lambda: store.load(MAIN_KEY, embedded_ok=embedded),
            "allow_process": embedded,
        }
        return cls(place, chosen, **(values | more))


def connect(home: str | Path | None = None, network: str | None = None, **more: Any) -> Client:
    """See `Client.connect`."""
    return Client.connect(home, network, **more)


def _only_network(home: Home) -> str:
    names = sorted(path.stem for path in home.networks.glob("*.json"))
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise NotFound(f"no network was named; known: {known}", "start one with `minga up`, or set MINGA_NETWORK")
    return names[0]


@lru_cache(maxsize=1)
def _shared() -> Client:
    return connect()


functions.set_default_client(_shared)
function = functions.function
"""See `minga.client.functions.function`."""
