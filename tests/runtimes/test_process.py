"""The plain driver's own ways: what it refuses, whose user a task is, and how it ends what slipped away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from sandboxes import living, text_of

from minga.core.errors import InvalidInput, LimitNotEnforceable
from minga.runtimes.process import ProcessRuntime
from minga.runtimes.runtime import Environment, Limits, Mount, Task

pytestmark = pytest.mark.anyio

TASK = Task("t", ("sh", "-c", "true"), Environment("system"), Limits(wall_seconds=30))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="minga-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def runtime(folder: Path) -> AsyncIterator[ProcessRuntime]:
    """The plain driver; whatever a test left is removed."""
    runtime = ProcessRuntime(folder / "tasks")
    yield runtime
    for task_id in await runtime.known():
        if (handle := await runtime.adopt(task_id)) is not None:
            await handle.remove()


def does(script: str, **fields: object) -> Task:
    return replace(TASK, argv=("sh", "-c", script), **fields)


async def test_it_never_says_that_it_is_a_sandbox(runtime: ProcessRuntime) -> None:
    assert not runtime.sandboxed
    assert not {"memory_bytes", "disk_bytes", "cpus_milli", "gpus"} & runtime.enforces


@pytest.mark.parametrize("limit", ["cpus_milli", "memory_bytes", "disk_bytes"])
async def test_a_limit_that_it_cannot_hold_is_refused(runtime: ProcessRuntime, limit: str) -> None:
    with pytest.raises(LimitNotEnforceable, match=limit):
        await runtime.start(replace(TASK, limits=Limits(**{limit: 1 << 20})))
    assert await runtime.known() == ()


async def test_what_only_a_sandbox_has_is_refused(runtime: ProcessRuntime, folder: Path) -> None:
    for task in (
        replace(TASK, environment=Environment("rootfs", folder)),
        replace(TASK, mounts=(Mount(folder, "/data"),)),
        replace(TASK, egress=folder / "proxy"),
    ):
        with pytest.raises(LimitNotEnforceable):
            await runtime.start(task)


async def test_the_work_folder_is_home_and_is_the_tasks_own(runtime: ProcessRuntime) -> None:
    handle = await runtime.start(does("pwd; echo $HOME $WORK; echo x > $TMPDIR/x; echo y > y; umask"))
    assert (await handle.wait()).code == 0
    work = str(runtime.state / "t" / "minga-scratch" / "work")
    assert (await text_of(handle)).splitlines() == [work, f"{work} {work}", "0022"]
    assert [file.path for file in await handle.list_outputs()] == ["y"]


async def test_the_agents_variables_stay_with_the_agent(
    runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINGA_TEST_SECRET", "x")
    handle = await runtime.start(does("env"))
    assert "MINGA_TEST_SECRET" not in await text_of(handle)


async def test_a_command_that_is_not_there_ends_as_a_shell_says(runtime: ProcessRuntime) -> None:
    handle = await runtime.start(replace(TASK, argv=("no-such-program",)))
    end = await handle.wait()
    assert (end.code, end.reason) == (127, "exited")
    assert await text_of(handle) == "no-such-program: No such file or directory\n"


async def test_a_port_is_reached_through_its_socket(runtime: ProcessRuntime, folder: Path) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as free:
        port = free.extra(anyio.abc.SocketAttribute.local_port)
    script = f"echo hello > index.html; exec /usr/bin/env python3 -u -m http.server {port} --bind 127.0.0.1"
    path = "/usr/local/bin:/usr/bin:/bin"
    if shutil.which("python3", path=path) is None:
        pytest.skip("no python3 that every user may run")
    handle = await runtime.start(does(script, ports=(port,)))
    async for _ in handle.follow_log():
        break
    wire = httpx.AsyncHTTPTransport(uds=str(handle.port_socket(port)))
    async with httpx.AsyncClient(transport=wire, base_url="http://task") as client:
        assert (await client.get("/")).text == "hello\n"
    await handle.kill()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: uids of their own")
class TestAsRoot:
    async def test_a_task_is_a_user_of_its_own(self, runtime: ProcessRuntime) -> None:
        handle = await runtime.start(does("id -u; id -g; id -G; grep NoNewPrivs /proc/self/status"))
        await handle.wait()
        uid = str(handle.uid)
        assert (await text_of(handle)).split() == [uid, uid, uid, "NoNewPrivs:", "1"]
        assert int(uid) >= 64001

    async def test_what_leaves_the_group_is_killed_too(self, runtime: ProcessRuntime) -> None:
        handle = await runtime.start(does("setsid sleep 1000 & (setsid sleep 1000 &); echo over"))
        end = await handle.wait()
        assert (end.code, end.reason) == (0, "exited")
        assert not living(handle.uid)

    async def test_processes_are_bounded(self, runtime: ProcessRuntime) -> None:
        script = "i=0; while [ $i -lt 50 ]; do sleep 100 & i=$((i+1)); done; echo all"
        handle = await runtime.start(does(script, limits=Limits(pids=10, wall_seconds=30)))
        await handle.wait()
        assert "all" not in await text_of(handle)

    async def test_a_folder_that_the_user_may_not_enter_is_refused(self, folder: Path) -> None:
        (folder / "private").mkdir(mode=0o700)
        with pytest.raises(InvalidInput, match="private"):
            await ProcessRuntime(folder / "private" / "tasks").start(TASK)


async def test_without_root_a_task_runs_as_the_agent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1000)
    runtime = ProcessRuntime(folder / "tasks")
    assert "pids" not in runtime.enforces
    handle = await runtime.start(does("id -u; (sleep 1000 &); exit 4"))
    end = await handle.wait()
    assert end.code == 4
    assert (await text_of(handle)).strip() == str(os.getuid())
    assert handle.uid is None
    await handle.remove()
