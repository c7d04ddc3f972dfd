"""How well this home's quotes held: the line of `minga status`.

Read from the home's journal, after keeping what became of jobs that ended since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minga.client.home import Home


def calibration_of(home: Home) -> dict[str, Any]:
    """Jobs that could test a p90 and those that ended within it, of cost and of finish time.

    Raises:
        DiskFull, InternalError: the journal cannot be read or written.
    """
    from minga.client.past import Calibration, History
    from minga.store.journal import Journal

    if not home.journal.is_file():
        return Calibration(0, 0, 0, 0).as_dict()
    from minga.cli.world import RealClock

    journal = Journal(home.journal)
    try:
        return History.load(journal, RealClock().now(), everything=True).calibration().as_dict()
    finally:
        journal.close()


def calibration_line(value: dict[str, Any]) -> str:
    """The same in words."""
    if not value["cost_n"] and not value["finish_n"]:
        return "no job has tested one yet"
    parts = []
    for name, what in (("cost", "cost"), ("finish", "finish time")):
        share = value[f"{name}_within_ppm"]
        if share is not None:
            parts.append(f"{what} within p90 in {share // 10_000} % of {value[f'{name}_n']} jobs")
    return ", ".join(parts)
