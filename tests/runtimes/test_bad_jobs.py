"""Jobs that fork, fill, flood, exhaust or will not die: each is held, and the machine does not notice."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from sandboxes import MIB, Run, living, text_of

from minga.core.errors import UnsafePath
from minga.runtimes.bubblewrap import BubblewrapRuntime

pytestmark = [pytest.mark.anyio, pytest.mark.root]
GIB = 1 << 30


async def test_forks_end_at_the_limit(run: Run) -> None:
    handle = await run("i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done; echo all", limits={"pids": 20})
    end = await handle.wait()
    log = await text_of(handle)
    assert "fork" in log
    assert "all" not in log
    assert end.code == 2


async def test_a_fork_bomb_is_killed_whole(run: Run, sandbox: BubblewrapRuntime) -> None:
    handle = await run("bomb() { bomb | bomb & }; echo lit; bomb; sleep 1000", limits={"pids": 40})
    async for _ in handle.follow_log():
        break
    await handle.kill()
    assert (await handle.wait()).reason == "killed"
    assert not living(handle.uid)


async def test_a_memory_bomb_is_killed_and_named(run: Run) -> None:
    handle = await run("exec tail /dev/zero", limits={"memory_bytes": 64 * MIB})
    end = await handle.wait()
    assert (end.code, end.reason) == (137, "oom")
    assert 32 * MIB < end.usage.memory_peak_bytes <= 64 * MIB


async def test_shared_memory_counts_as_memory(run: Run) -> None:
    handle = await run("exec head -c 1G /dev/zero > /dev/shm/x", limits={"memory_bytes": 64 * MIB})
    end = await handle.wait()
    assert end.reason == "oom"
    assert end.usage.memory_peak_bytes <= 64 * MIB


@pytest.mark.parametrize("folder", ["/job", "/tmp"])
async def test_the_disk_ends_at_the_limit(run: Run, folder: str) -> None:
    handle = await run(f"head -c 1G /dev/zero > {folder}/x; wc -c < {folder}/x", limits={"disk_bytes": 8 * MIB})
    end = await handle.wait()
    log = await text_of(handle)
    assert "No space left" in log
    assert 6 * MIB < int(log.splitlines()[-1]) <= 8 * MIB
    assert end.usage.disk_bytes <= 8 * MIB


async def test_files_without_number_end_too(run: Run) -> None:
    handle = await run("i=0; while : > f$i; do i=$((i+1)); done; echo made $i", limits={"disk_bytes": MIB})
    assert "No space left" in await text_of(handle)
    assert len(await handle.list_outputs()) < 1000


async def test_cpu_is_held(run: Run) -> None:
    handle = await run("while :; do :; done", limits={"cpus_milli": 250, "wall_seconds": 2})
    usage = (await handle.wait()).usage
    assert usage.cpu_usec <= usage.wall_usec * 0.25 + 200_000, "a quarter of a CPU, and one period's slack"


async def test_a_flood_of_two_gigabytes_in_one_line_is_capped(run: Run, sandbox: BubblewrapRuntime) -> None:
    script = "head -c 2G /dev/zero; echo; echo the end"
    limits = {"log_bytes": 4 * MIB, "wall_seconds": 50, "heartbeat_seconds": None}
    handle = await run(script, limits=limits)
    pid = int(_state(sandbox, "pid"))
    most = 0
    async with anyio.create_task_group() as both:

        async def watch() -> None:
            nonlocal most
            async for _ in handle.follow_log():
                try:
                    most = max(most, _resident_bytes(pid))
                except FileNotFoundError:
                    return

        both.start_soon(watch)
        end = await handle.wait()
        both.cancel_scope.cancel()
    assert (end.code, end.reason) == (0, "exited")
    assert end.usage.log_bytes == 2 * GIB + 9
    kept = end.usage.log_bytes - end.usage.log_dropped_bytes
    assert 3 * MIB < kept <= 4 * MIB
    assert sum(path.stat().st_size for path in _folder(sandbox).glob("log.*")) == kept
    last = await handle.read_log(end.usage.log_bytes - 9)
    assert last.data == b"\nthe end\n"
    assert 0 < most < 64 * MIB, "the supervisor's memory does not grow with the flood"


async def test_zombies_and_orphans_end_with_the_task(run: Run) -> None:
    handle = await run("(sleep 1000 &) ; (setsid sleep 1000 &); sh -c 'sleep 0 & exec sleep 1000' & echo over")
    end = await handle.wait()
    assert (end.code, end.reason) == (0, "exited")
    assert not living(handle.uid)


async def test_ignoring_sigterm_only_lasts_for_the_grace(run: Run) -> None:
    handle = await run("trap '' TERM INT HUP; echo ready; while :; do sleep 0.1; done")
    async for _ in handle.follow_log():
        break
    await handle.stop(grace_seconds=1)
    end = await handle.wait()
    assert (end.code, end.reason) == (137, "stopped")
    assert end.usage.wall_usec < 10_000_000


async def test_every_process_is_asked_to_stop_and_may_save(run: Run) -> None:
    # The shell outside dies of the signal at once; the one inside takes its time.
    script = (
        "sh -c 'trap \"sleep 0.3; echo saved > saved; exit 0\" TERM; echo ready; while :; do sleep 0.05; done'; exit 7"
    )
    handle = await run(script)
    async for _ in handle.follow_log():
        break
    await handle.stop(grace_seconds=20)
    end = await handle.wait()
    assert (end.code, end.reason) == (143, "stopped")
    assert end.usage.wall_usec < 10_000_000, "nobody waited for the rest of the grace"
    assert [file.path for file in await handle.list_outputs()] == ["saved"]


async def test_outputs_that_point_out_are_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    out = tmp_path / "secret"
    script = f"ln -s {out} a; ln -s {tmp_path} b; ln -s /etc c; mkfifo d; mkdir e; ln -s .. e/f; echo ok > g"
    handle = await run(script)
    assert (await handle.wait()).code == 0
    assert [file.path for file in await handle.list_outputs()] == ["g"]
    for path in ("a", "b/secret", "c/passwd", "d", "e/f/g", "e"):
        with pytest.raises(UnsafePath):
            await handle.open_output(path)


async def test_a_job_that_swaps_files_for_links_gains_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret")
    script = (
        f"mkdir real; echo mine > real/x; echo go; while :; do ln -sfn {tmp_path} d; rm d; cp -r real d; rm -r d; done"
    )
    handle = await run(script)
    async for _ in handle.follow_log():
        break
    seen = set()
    for _ in range(300):
        try:
            with await handle.open_output("d/x") as file:
                seen.add(file.read())
        except Exception as error:
            seen.add(type(error).__name__.encode())
    assert b"secret" not in seen
    assert seen - {b"NotFound", b"UnsafePath", b""} <= {b"mine\n"}, seen


async def test_strange_names_do_no_harm(run: Run) -> None:
    handle = await run(
        r"printf x > $(printf '\377'); printf x > 'a b'; printf x > \"$(printf 'n\\nl')\"; printf y > -rf"
    )
    await handle.wait()
    assert {file.path for file in await handle.list_outputs()} >= {"-rf", "a b"}


async def test_preloading_reaches_the_task_and_nothing_before_it(run: Run) -> None:
    env = {
        "LD_PRELOAD": "/tmp/none.so",
        "LD_LIBRARY_PATH": "/job",
        "BASH_ENV": "/job/x",
        "PATH": "/job:/usr/bin:/bin",
    }
    handle = await run("tr '\\0' '\\n' < /proc/1/environ | grep -c LD_; echo $LD_PRELOAD", env=env)
    await handle.wait()
    log = await text_of(handle)
    # The loader complains once for each program it starts with the variable: the task's, and never bwrap.
    assert "/tmp/none.so" in log
    assert "bwrap" not in log
    assert "\n0\n" in f"\n{log}", "the first process inside was started with no variable of the tenant's"


def _folder(sandbox: BubblewrapRuntime) -> Path:
    return sandbox.state / "t"


def _state(sandbox: BubblewrapRuntime, name: str) -> str:
    return (_folder(sandbox) / name).read_text()


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise FileNotFoundError(pid)


async def test_what_outlives_the_command_in_the_grace_does_not_change_its_code(run: Run) -> None:
    handle = await run("(trap '' TERM; echo ready; while :; do sleep 0.05; done) & trap 'exit 5' TERM; wait; wait")
    async for _ in handle.follow_log():
        break
    await handle.stop(grace_seconds=1)
    end = await handle.wait()
    assert (end.code, end.reason) == (5, "stopped")
    assert not living(handle.uid)
