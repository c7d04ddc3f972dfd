"""Old job environments go when nothing needs them, and never otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minga.runtimes.disused import DISUSED_SECONDS, REMOVED_MAX, hold, remove_disused
from minga.runtimes.environments import MARKER, TORCH, ai_environment, ai_lock

NOW = 2_000_000_000
LONG_AGO = NOW - DISUSED_SECONDS - 1


def environment(root: Path, name: str, torch: str = "torch==1.0", lock: str = "old", used: int = LONG_AGO) -> Path:
    """One that looks built; by default of another lock, and not used of late."""
    path = root / name
    (path / "bin").mkdir(parents=True)
    (path / "ai.txt").write_text(lock)
    (path / MARKER).write_text(torch + "\n")
    os.utime(path / MARKER, (used, used))
    return path


def named(number: int) -> str:
    return f"ai-{number:012x}"


def test_one_of_another_lock_that_nobody_used_for_a_day_is_removed(tmp_path: Path):
    old, told = environment(tmp_path, named(1)), []
    assert remove_disused(tmp_path, NOW, told.append) == [old]
    assert not old.exists()
    assert str(old) in told[0]
    assert remove_disused(tmp_path, NOW) == []
    assert remove_disused(tmp_path / "none", NOW) == []


@pytest.mark.parametrize(
    "what",
    ["the present one", "another interpreter's", "used today", "not ours", "a link", "no lock file"],
)
def test_what_may_be_needed_stays(tmp_path: Path, what: str):
    if what == "the present one":
        path = environment(tmp_path, ai_environment(tmp_path).name, TORCH, ai_lock())
    elif what == "another interpreter's":
        path = environment(tmp_path, named(2), TORCH, ai_lock())
    elif what == "used today":
        path = environment(tmp_path, named(2), used=NOW - 60)
    elif what == "not ours":
        path = environment(tmp_path, "my-models")
    elif what == "a link":
        path = tmp_path / named(2)
        path.symlink_to(environment(tmp_path / "elsewhere", named(3)))
    else:
        path = environment(tmp_path, named(2))
        (path / "ai.txt").unlink()
    assert remove_disused(tmp_path, NOW) == []
    assert path.exists()


def test_one_that_a_provider_holds_stays_until_a_day_after(tmp_path: Path):
    path = environment(tmp_path, named(1))
    with hold([path, tmp_path / "no such"], NOW):
        assert remove_disused(tmp_path, NOW + 10 * DISUSED_SECONDS) == []
    assert remove_disused(tmp_path, NOW + DISUSED_SECONDS - 1) == []
    assert remove_disused(tmp_path, NOW + DISUSED_SECONDS) == [path]


def test_one_that_a_process_was_started_with_stays(tmp_path: Path):
    path = environment(tmp_path, named(1))
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, str(path / "bin" / "python")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert remove_disused(tmp_path, NOW) == []
        process.communicate(b"")
    assert remove_disused(tmp_path, NOW) == [path]


def test_one_that_was_never_finished_or_half_removed_goes_too(tmp_path: Path):
    """But not while somebody builds it."""
    path = environment(tmp_path, named(1))
    (path / MARKER).unlink()
    os.utime(path, (LONG_AGO, LONG_AGO))
    lock = path.with_suffix(".lock")
    with lock.open("w") as handle:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        assert remove_disused(tmp_path, NOW) == []
    assert remove_disused(tmp_path, NOW) == [path]
    assert lock.exists()


def test_few_go_at_a_time_the_oldest_first(tmp_path: Path):
    paths = [environment(tmp_path, named(number), used=LONG_AGO - number) for number in range(REMOVED_MAX + 2)]
    assert remove_disused(tmp_path, NOW) == list(reversed(paths[2:]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in paths[:2]]
