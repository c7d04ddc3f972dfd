"""`minga doctor`: every prerequisite, found or missing, and how to get it.

| role     | what it is needed for                                                                       |
|----------|---------------------------------------------------------------------------------------------|
| client   | buying: `run`, `quote`, `offers`, `wallet` (any system)                                     |
| provider | selling: `provide` (Linux, root or sudo, sandboxes, the jobs' Python environment)           |
| demo     | `demo` and `up`: both, and the embedded chain's program                                     |

Nothing is installed or changed here.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import print_json, print_table, tell
from minga.core.errors import InvalidInput, MingaError, MissingPrerequisite

if TYPE_CHECKING:
    from minga.cli.config import Settings

ROLES = ("client", "provider", "demo")
PYTHON_MIN = (3, 11)
OPTIONAL: frozenset[str] = frozenset()
CLIENT, PROVIDER, DEMO = frozenset(ROLES), frozenset(ROLES[1:]), frozenset(ROLES[2:])


@dataclass(frozen=True)
class Check:
    """One prerequisite: its name, whether it is there, what was seen, how to get it, and the roles that need it."""

    name: str
    ok: bool
    found: str
    remedy: str
    needed_by: frozenset[str]

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self) | {"needed_by": sorted(self.needed_by)}


def doctor(
    ctx: typer.Context,
    role: Annotated[str, typer.Option(help="client, provider or demo.")] = "client",
    as_json: Json = False,
) -> None:
    """Report what is installed and what is missing; exit code 6 if the role needs something that is missing."""
    if role not in ROLES:
        raise InvalidInput(f"{role!r} is not a role", f"use {', '.join(ROLES)}")
    checks = list(examine(settings_of(ctx)))
    missing = [check for check in checks if not check.ok and role in check.needed_by]
    if as_json:
        print_json({"role": role, "ok": not missing, "checks": [check.as_dict() for check in checks]})
    else:
        _print(checks, role)
        tell(f"{role}: " + ("ready" if not missing else f"missing {', '.join(check.name for check in missing)}"))
    if missing:
        raise typer.Exit(MissingPrerequisite.exit_code)


def _print(checks: list[Check], role: str) -> None:
    rows = [
        (
            "ok" if check.ok else "MISSING" if role in check.needed_by else "–",
            check.name,
            check.found if check.ok else check.remedy,
        )
        for check in checks
    ]
    print_table(("", "what", "~found, or how to get it"), rows, "")


def examine(settings: Settings) -> Iterator[Check]:
    """Look at this machine; cheap, and nothing is changed."""
    version = ".".join(map(str, sys.version_info[:3]))
    how = "install Python 3.11 or newer"
    yield Check("python", sys.version_info[:2] >= PYTHON_MIN, f"{version} ({sys.executable})", how, CLIENT)
    yield _module("venv", "ensurepip", "apt install python3-venv", PROVIDER)
    yield _home(settings.folder)
    yield _module("fast signatures", "coincurve", "pip install 'minga[fast]' (ten times faster)", OPTIONAL)
    yield _module("fast hashing", "sha3", "pip install 'minga[fast]'", OPTIONAL)
    yield _module("keyring", "keyring", "pip install 'minga[keyring]', or set MINGA_PASSPHRASE_FILE", OPTIONAL)
    npm = shutil.which("npm")
    yield Check("npm", npm is not None, str(npm), "apt install npm (it fetches anvil once)", OPTIONAL)
    yield _guarded("anvil", _anvil, DEMO)
    if sys.platform.startswith("linux"):
        yield from _sandbox()
    else:
        yield Check("linux", False, sys.platform, "providers need Linux; clients run anywhere", PROVIDER)
    yield _guarded("AI environment", _ai_environment, PROVIDER)


def _module(name: str, module: str, remedy: str, needed_by: frozenset[str]) -> Check:
    from importlib.util import find_spec

    found = find_spec(module) is not None
    return Check(name, found, f"module {module}", remedy, needed_by)


def _home(folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK)
    return Check("home folder", ok, str(folder), f"make {existing} writable, or set MINGA_HOME", CLIENT)


def _guarded(name: str, look: Callable[[], str], needed_by: frozenset[str]) -> Check:
    try:
        return Check(name, True, look(), "", needed_by)
    except MingaError as error:
        return Check(name, False, "", f"{error.fact}: {error.remedy}", needed_by)


def _anvil() -> str:
    from minga.chain.anvil import find_anvil

    try:
        return str(find_anvil(os.environ, fetch=False))
    except MissingPrerequisite:
        if shutil.which("npm"):
            return "not yet; `minga up` fetches it"
        raise


def _ai_environment() -> str:
    from minga.cli.provide import default_environment

    return str(default_environment())


def _sandbox() -> Iterator[Check]:
    from minga.runtimes import probe

    for fact in probe.prerequisites():
        needed = OPTIONAL if fact.name == "gpus" else PROVIDER
        yield Check(fact.name, fact.ok, fact.found, fact.remedy, needed)
