"""User ids are held by one task at a time, across agents, and come back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minga.core.errors import OutOfCapacity
from minga.runtimes import slots


def owner(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "tasks" / name
    path.mkdir(parents=True)
    return path


def test_each_owner_has_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "slots"
    owners = [owner(tmp_path, str(index)) for index in range(20)]
    with ThreadPoolExecutor(8) as pool:
        uids = list(pool.map(lambda path: slots.claim(path, folder), owners))
    assert sorted(uids) == list(range(slots.UID_FIRST, slots.UID_FIRST + 20))


def test_a_released_one_is_given_again(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "slots", owner(tmp_path, "a"), owner(tmp_path, "b")
    uid = slots.claim(first, folder)
    slots.release(uid, second, folder)
    assert slots.claim(second, folder) != uid, "only its owner gives it back"
    slots.release(uid, first, folder)
    slots.release(uid, first, folder)
    assert slots.claim(owner(tmp_path, "c"), folder) == uid


def test_an_owner_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    folder, first = tmp_path / "slots", owner(tmp_path, "a")
    uid = slots.claim(first, folder)
    first.rmdir()
    assert slots.claim(owner(tmp_path, "b"), folder) == uid


def test_they_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOTS", 2)
    for name in "ab":
        slots.claim(owner(tmp_path, name), tmp_path / "slots")
    with pytest.raises(OutOfCapacity):
        slots.claim(owner(tmp_path, "c"), tmp_path / "slots")
