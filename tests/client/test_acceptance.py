"""The tenant's own check: what it sees, what its exit codes mean, and that it blames nobody for its own failure."""

from __future__ import annotations

import os
import select
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from minga.client import acceptance as module
from minga.client.acceptance import acceptance
from minga.core.errors import InvalidInput

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


def check_of(run: str, folder: Path, told: list, timeout_s: int = 20):
    return acceptance({"run": run, "folder": str(folder), "timeout_s": timeout_s}, lambda *said: told.append(said))


def test_no_check_is_none() -> None:
    assert acceptance(None, lambda *said: None) is None


@pytest.mark.parametrize(("code", "accepted"), [(0, True), (1, False), (3, False), (125, False)])
async def test_its_exit_code_is_the_judgement(code: int, accepted: bool, tmp_path: Path) -> None:
    told: list = []
    check = check_of(f'echo "loss 0.5"; echo "on held-out" >&2; exit {code}', tmp_path, told)
    assert await check(tmp_path) is accepted
    ((kind, data),) = told
    assert kind == "check"
    assert data == {"accepted": accepted, "exit_code": code, "output": "loss 0.5\non held-out"}


async def test_it_runs_in_the_job_files_folder_with_the_checkpoint_beside(tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    (checkpoint := tmp_path / "checkpoint").mkdir()
    (home / "check.sh").write_text('test "$(cat $MINGA_CHECKPOINT_DIR/step)" = 7')
    (checkpoint / "step").write_text("7")
    assert await check_of("bash check.sh", home, [])(checkpoint)
    (checkpoint / "step").write_text("8")
    assert not await check_of("bash check.sh", home, [])(checkpoint)


@pytest.mark.parametrize("run", ["no-such-command-here", "exit 126", "kill -9 $$"])
async def test_a_command_that_cannot_run_judges_nothing(run: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="judged nothing"):
        await check_of(run, tmp_path, [])(tmp_path)


def began(fifo: Path) -> int:
    """Wait until a process has written its id."""
    return int(fifo.read_text())


def ended(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pid")
    return tmp_path / "pid"


async def test_a_command_that_is_too_slow_is_killed_with_its_children_and_judges_nothing(
    tmp_path: Path, fifo: Path
) -> None:
    check, pids = check_of(f"(echo $BASHPID > {fifo}; exec sleep 60) & sleep 60", tmp_path, [], 1), []

    async def look() -> None:
        pids.append(await anyio.to_thread.run_sync(began, fifo))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        with pytest.raises(InvalidInput, match="not over in 1 s"):
            await check(tmp_path)
    assert await anyio.to_thread.run_sync(ended, pids[0])


async def test_a_folder_that_is_gone_judges_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be started"):
        await check_of("true", tmp_path / "gone", [])(tmp_path)


async def test_what_it_says_is_bounded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_BYTES_MAX", 1000)
    told: list = []
    assert await check_of("yes nonsense | head -c 300000; echo; echo the end", tmp_path, told)(tmp_path)
    assert told[0][1]["output"].endswith("the end")
    assert len(told[0][1]["output"]) <= module.OUTPUT_CHARS


async def test_a_check_that_is_cancelled_is_killed(tmp_path: Path, fifo: Path) -> None:
    check = check_of(f"echo $$ > {fifo}; exec sleep 60", tmp_path, [], 100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(check, tmp_path)
        pid = await anyio.to_thread.run_sync(began, fifo)
        tasks.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(ended, pid)
