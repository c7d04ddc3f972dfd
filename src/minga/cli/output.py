"""How things look: JSON for programs, tables for people, one form for every error.

Results go to stdout, everything else to stderr, so that a pipe gets results alone. A screen narrower than 80 columns
is treated as 80. Colours follow rich's rules (NO_COLOR, no terminal: none).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from minga.core.errors import DiskFull, InternalError, InvalidInput, MingaError, NotFound

if TYPE_CHECKING:
    from rich.console import Console

DEBUG = "MINGA_DEBUG"

_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", re.DOTALL
)


def print_json(value: Any) -> None:
    """One JSON value on stdout, indented; amounts in it are integers of token units or decimal strings."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """One plain line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """One plain line on stderr: progress and hints, never a result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def plain(text: str) -> str:
    """Text of anybody as one line of text alone: escapes, control and direction characters are taken out."""
    return _CONTROL.sub("", text.replace("\t", "    ").replace("\n", " "))


def console(stderr: bool = False) -> Console:
    """A rich console that is at least 80 columns wide."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if made.width < 80 or not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, width=max(80, made.width))
    return made


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """A table on stdout; with no rows, the line `empty` on stderr.

    A head that starts with `>` is right-aligned, one that starts with `~` gives way when the screen is narrow; all
    others keep their width, since half a number is a wrong number. Cells are shown as text alone.
    """
    listed = [[plain(cell) for cell in row] for row in rows]
    if not listed:
        tell(empty)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for index, name in enumerate(head):
        if name.startswith("~"):
            table.add_column(name[1:], overflow="fold")
        else:
            width = max(len(name.removeprefix(">")), *(len(row[index]) for row in listed))
            justify: Any = "right" if name.startswith(">") else "left"
            table.add_column(name.removeprefix(">"), justify=justify, no_wrap=True, min_width=width)
    for row in listed:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Aligned `name  value` lines on stdout."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        say(f"{name:<{width}}  {value}")


def short(identifier: str) -> str:
    """The first bytes of a hash or an address, enough to name it: `0x12ab34cd…`."""
    return identifier[:10] + "…" if len(identifier) > 12 else identifier


def print_error(error: MingaError, as_json: bool) -> None:
    """`code: fact` and the remedy on stderr, or the error as one JSON line."""
    if as_json:
        tell(json.dumps(error.as_dict(), ensure_ascii=False))
        return
    tell(f"{error.code}: {error.fact}")
    for name, count in _counts(error.details.get("excluded")):
        tell(f"    {name} excludes {count}")
    if error.remedy:
        tell(f"  → {error.remedy}")


def _counts(excluded: Any) -> list[tuple[str, int]]:
    """Which requirement excluded how many offers, the most first; empty for errors that do not say so."""
    if not isinstance(excluded, dict):
        return []
    return sorted(((str(k), int(v)) for k, v in excluded.items()), key=lambda item: (-item[1], item[0]))


def as_minga_error(error: BaseException) -> MingaError:
    """The error that a user is shown for any exception: ours as it is, the system's by kind, the rest as internal."""
    while isinstance(error, BaseExceptionGroup):
        known = [inner for inner in _flatten(error) if isinstance(inner, MingaError)]
        error = known[0] if known else next(_flatten(error))
    if isinstance(error, MingaError):
        return error
    if isinstance(error, OSError):
        return _system_error(error)
    return InternalError(
        f"{type(error).__name__}: {error}"[:300], f"run it again with {DEBUG}=1 and report what it prints"
    )


def _flatten(group: BaseExceptionGroup[BaseException]) -> Iterator[Any]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _flatten(inner)
        else:
            yield inner


def _system_error(error: OSError) -> MingaError:
    import errno

    where = f" ({error.filename})" if error.filename else ""
    fact = f"{error.strerror or error}{where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(fact, "free some disk")
    if error.errno == errno.ENOENT:
        return NotFound(fact, "check the path")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR):
        return InvalidInput(fact, "check the path and its rights")
    return InternalError(fact, f"run it again with {DEBUG}=1 and report what it prints")


def debugging() -> bool:
    """Whether the user asked for tracebacks (`MINGA_DEBUG=1`)."""
    return os.environ.get(DEBUG, "") not in ("", "0")
