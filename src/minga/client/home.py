"""Where the tenant's files stand, and what a network is.

`$MINGA_HOME` holds `keys/`, `networks/<name>.json`, `jobs/<id>/`, `blobs/`, `chain/` and `journal.db`. A network is a
chain (with its contracts) and boards; nothing else differs between the embedded one and any other.

Does not know: keys, jobs. Rule: names become paths only after they were checked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from minga.chain.chain import ChainSpec
from minga.core.codec import parse_json
from minga.core.crypto import parse_hash32
from minga.core.errors import InvalidInput, NotFound
from minga.store.blobs import write_atomic

BOARDS_MAX = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Home:
    """A tenant's folder and the places in it. Nothing is made before it is needed."""

    path: Path

    @property
    def keys(self) -> Path:
        """Key store."""
        return self.path / "keys"

    @property
    def networks(self) -> Path:
        """Files of known networks."""
        return self.path / "networks"

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.path / "jobs"

    @property
    def blobs(self) -> Path:
        """Inputs of jobs, by content."""
        return self.path / "blobs"

    @property
    def journal(self) -> Path:
        """The journal of all jobs."""
        return self.path / "journal.db"

    def chain(self, network: str) -> Path:
        """What is remembered of a network's chain for the main key."""
        return self.path / "chain" / checked_name(network)

    def job(self, job: str) -> Path:
        """The folder of one job."""
        return self.jobs / parse_hash32(job)[2:]


def checked_name(name: str) -> str:
    """The name, if it may become a file's.

    Raises:
        InvalidInput: empty, over 64 characters, or with anything but letters, digits, `.`, `_` and `-`.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:80]!r} is not a network's name", "use letters, digits, '.', '_' and '-'")
    return name


@dataclass(frozen=True)
class Network:
    """A chain and the boards on which its offers are posted (none: Registry's events name the providers)."""

    name: str
    chain: ChainSpec
    boards: tuple[str, ...] = ()

    def save(self, home: Home) -> Path:
        """Write the network's file; returns its path."""
        path = home.networks / f"{checked_name(self.name)}.json"
        value = {"chain": self.chain.as_dict(), "boards": list(self.boards)}
        write_atomic(path, json.dumps(value, indent=2).encode() + b"\n")
        return path

    @classmethod
    def load(cls, home: Home, name: str) -> Network:
        """Read `networks/<name>.json`.

        Raises:
            NotFound: there is no such file.
            InvalidInput: it is not a network.
        """
        path = home.networks / f"{checked_name(name)}.json"
        try:
            value = parse_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no network {name!r} in {home.networks}", "start one with `minga up`") from None
        if not isinstance(value, dict) or set(value) != {"chain", "boards"}:
            raise InvalidInput(f"{path.name} does not describe a network", 'it needs exactly "chain" and "boards"')
        boards = value["boards"]
        if not isinstance(boards, list) or len(boards) > BOARDS_MAX or not all(_is_url(board) for board in boards):
            raise InvalidInput(f"{path.name}: boards is not a list of at most {BOARDS_MAX} urls", "write ['https://…']")
        return cls(name, ChainSpec.from_dict(value["chain"]), tuple(board.rstrip("/") for board in boards))


def _is_url(value: object) -> bool:
    return isinstance(value, str) and urlsplit(value).scheme in ("http", "https") and bool(urlsplit(value).hostname)
