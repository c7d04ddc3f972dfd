"""How `minga sim economics` shows what it found: a table for each kind of actor, then what it rests on.

Knows: rows and columns. Does not know: how they came about. Rule: nothing wider than a hundred characters, and what
breaks the design is printed as plainly as what holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from minga.cli.output import say
from minga.sim.economics import Report, Row
from minga.sim.economics_breaks import lines
from minga.sim.economics_world import RULES

KEPT = ("floor",)
"""Rules that something in this release keeps; the others are what the claims need."""


def show(found: Report, breaks: bool = False) -> None:
    """Print a report, and the lines at which the design breaks if so asked."""
    terms = found.terms
    say(
        f"audit rate {terms.rate / 100:g} %, stake {terms.factor} x deposit, {terms.collusion / 100:g} % of validators "
        f"and referees corrupt"
    )
    say(f"{found.jobs} jobs for each way, seed {found.seed}; intervals are 99.9 %")
    say("")
    say(f"{'cheating, against honest play':30} {'$ a job':>18} {'of its price':>18} {'convicted':>9}  verdict")
    for row in found.cheats:
        share = f"{row.share:+.3f} ±{row.share_half:.3f}"
        say(f"{row.name:30} {_usd(row):>18} {share:>18} {row.convicted:>9}  {row.verdict}")
    row = found.challenger
    say(f"{row.name:30} {_usd(row):>18} {'':18} {row.convicted:>9}  {row.verdict}")
    _pay("auditing, for each audit", found.validators)
    _pay("judging, for each seat", found.referees)
    say("")
    for name, what in RULES.items():
        say(f"{'with' if name in terms.rules else 'WITHOUT'} {name}: {what}")
    say(f"kept by programs that exist: {', '.join(KEPT)}; see docs/audits.md")
    if breaks:
        say("")
        for line in lines(terms):
            say(f"{line.what}: {line.quantity} {line.at:.4g} {line.unit}")
    say("")
    say(f"digest   {found.digest}")
    if found.paying:
        say(f"verdict  PAYS, but should not: {', '.join(found.paying)}")
    else:
        say(f"verdict  {_words(found)}")


def _words(found: Report) -> str:
    unclear = [row.name for row in (*found.cheats, found.challenger) if row.verdict == "open"]
    if unclear:
        return f"nothing pays; too few jobs to say of {len(unclear)} that they lose, {unclear[0]} for one"
    return "every way of cheating loses, and honest checking earns most"


def _pay(title: str, rows: Iterable[Row]) -> None:
    say("")
    say(f"{title:30} {'$':>18}")
    for row in rows:
        say(f"{row.name:30} {_usd(row, 4):>18}")


def _usd(row: Row, places: int = 2) -> str:
    return f"{row.usd:+.{places}f} ±{row.usd_half:.{places}f}"
