"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.core.errors import InvalidInput

if TYPE_CHECKING:
    from minga.cli.config import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings_of(ctx: typer.Context) -> Settings:
    """What the options before the command chose."""
    found: Any = ctx.find_root().obj
    return found  # type: ignore[no-any-return]


def parse_assignments(items: list[str] | None, option: str) -> dict[str, str]:
    """`A=B` pairs; `A` alone takes the value from this shell's environment.

    Raises:
        InvalidInput: no name, a name that is not a variable's, or `A` alone when it is not set here.
    """
    import os
    import re

    found: dict[str, str] = {}
    for item in items or []:
        name, given, value = item.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
            raise InvalidInput(f"{option} {item[:60]!r} is not NAME=VALUE", f"write {option} NAME=VALUE")
        if not given and name not in os.environ:
            raise InvalidInput(f"{option} {name}: there is no {name} in this shell", f"write {option} {name}=VALUE")
        found[name] = value if given else os.environ[name]
    return found


def port_option(port: int) -> int:
    """A port that may be listened on; 0 lets the system choose.

    Raises:
        InvalidInput: outside 0 … 65535.
    """
    if not 0 <= port <= 65535:
        raise InvalidInput(f"{port} is not a port", "use 0 … 65535; 0 lets the system choose")
    return port
