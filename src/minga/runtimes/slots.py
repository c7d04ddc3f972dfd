"""Real user ids for tasks: no two tasks on this machine share one, whoever's agent started them.

A slot is a file that names the state folder of the task that holds it; a slot whose folder is gone is free. Rule: one
lock around every change, on the machine and not in an agent, since several agents may run here.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minga.core.errors import OutOfCapacity

UID_FIRST = 64001
SLOTS = 900
"""Up to 64900: below 65534 (nobody), outside what Debian gives to users (1000 … 59999) and to systemd (61184 …)."""

FOLDER = Path("/run/minga/slots")


def claim(owner: Path, folder: Path = FOLDER) -> int:
    """A uid that is held for the state folder `owner` (it must exist) until `release`. Blocks for the lock only.

    Raises:
        OutOfCapacity: all are taken.
    """
    with _locked(folder):
        for uid in range(UID_FIRST, UID_FIRST + SLOTS):
            slot = folder / str(uid)
            try:
                holder = slot.read_text()
            except FileNotFoundError:
                holder = ""
            if not holder or not Path(holder).is_dir():
                slot.write_text(str(owner))
                return uid
    raise OutOfCapacity(f"all {SLOTS} user ids for tasks are taken", "remove ended tasks")


def release(uid: int, owner: Path, folder: Path = FOLDER) -> None:
    """Give `uid` back, if `owner` holds it."""
    with _locked(folder):
        slot = folder / str(uid)
        if slot.exists() and slot.read_text() == str(owner):
            slot.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
