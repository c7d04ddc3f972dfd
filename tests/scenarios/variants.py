"""`minga`, but for one thing that its command line cannot ask for. A program: `variants.py WHICH minga's words…`.

| WHICH       | what is different                                                      |
|-------------|------------------------------------------------------------------------|
| forgets     | a provider keeps files for no time after the close                      |
| lies        | a provider's list of artifacts names a path outside of any folder      |
| reprices    | an automatic price moves each second, not every ten minutes            |
| hour-ahead  | this machine's clock shows an hour more than it is                     |
"""

from __future__ import annotations

import sys
from typing import Any

from minga.cli import provide, world
from minga.cli.main import entry
from minga.core.spec import FileEntry
from minga.protocol.wire import ArtifactList
from minga.provider import pricer, serving_leases

OUTSIDE = "../../x"


def forget() -> None:
    """Retention of nothing: an owner's setting that is not on the command line."""
    config = provide.configured
    provide.configured = lambda settings, network, wanted: config(settings, network, {**wanted, "retention_s": 0})


def lie() -> None:
    """The list is made without the checks that an honest provider's own types make."""

    def entry_of(**item: Any) -> FileEntry:
        return FileEntry.model_construct(**{**item, "path": OUTSIDE})

    serving_leases.FileEntry = entry_of  # type: ignore[assignment, misc]
    serving_leases.ArtifactList = ArtifactList.model_construct  # type: ignore[assignment, misc]


def move_prices() -> None:
    """Ten minutes are long for a test."""
    pricer.STEP_S, pricer.SAMPLE_SECONDS = 1, 0.5  # type: ignore[misc]


def be_an_hour_ahead() -> None:
    """A calendar that is wrong; seconds pass as they do."""
    now = world.RealClock.now
    world.RealClock.now = lambda clock: now(clock) + 3600  # type: ignore[method-assign]


VARIANTS = {"forgets": forget, "lies": lie, "hour-ahead": be_an_hour_ahead, "reprices": move_prices}

if __name__ == "__main__":
    VARIANTS[sys.argv.pop(1)]()
    entry()
