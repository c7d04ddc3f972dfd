"""The sandbox driver's own promises: survival, environments, devices, ways in and out, and what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from sandboxes import LIMITS, MIB, Run, living, text_of

from minga.core.errors import (
    DiskFull,
    InvalidInput,
    LimitNotEnforceable,
    OutOfCapacity,
    SandboxFailed,
    UnsafePath,
)
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.egress import EgressProxy
from minga.runtimes.runtime import Environment, Input, Mount, Task

pytestmark = [pytest.mark.anyio, pytest.mark.root]

AGENT = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.runtime import Environment, Limits, Task

async def main():
    limits = Limits(1000, 64 << 20, 8 << 20, 16, heartbeat_seconds=int(sys.argv[2]))
    task = Task("t", ("sh", "-c", "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"),
                Environment("system"), limits)
    await BubblewrapRuntime(Path(sys.argv[1])).start(task)
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def dead_agent(state: Path, heartbeat_seconds: int) -> None:
    """Let an agent start a task `t`, and kill it."""
    argv = [sys.executable, "-c", AGENT, str(state), str(heartbeat_seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"started\n"
        agent.kill()


def is_there(path: str) -> bool:
    return os.path.exists(path)


def is_mounted(folder: Path) -> bool:
    """Whether anything beneath `folder` is a mount of this machine."""
    return str(folder) in Path("/proc/self/mountinfo").read_text()


# -------------------------------------------------------------------------------------------------------- survival


async def test_a_task_outlives_its_agent_and_serves_the_next(sandbox: BubblewrapRuntime) -> None:
    dead_agent(sandbox.state, heartbeat_seconds=30)
    handle = await sandbox.adopt("t")
    assert handle is not None
    async for chunk in handle.follow_log():
        assert chunk.data == b"ready\n"
        break
    await handle.stop(20)
    end = await handle.wait()
    assert (end.code, end.reason) == (9, "stopped")
    assert (await text_of(handle)).endswith("bye\n")


async def test_a_task_whose_agent_does_not_come_back_is_ended(sandbox: BubblewrapRuntime) -> None:
    dead_agent(sandbox.state, heartbeat_seconds=1)
    handle = await sandbox.adopt("t")
    assert handle is not None
    assert (await handle.wait()).reason == "abandoned"


async def test_a_task_dies_with_its_supervisor_and_is_lost(run: Run, sandbox: BubblewrapRuntime) -> None:
    handle = await run("trap '' TERM; echo ready; setsid sleep 1000 & sleep 1000")
    async for _ in handle.follow_log():
        break
    os.kill(int((sandbox.state / "t" / "pid").read_text()), signal.SIGKILL)
    assert (await handle.wait()).reason == "lost"
    assert not living(handle.uid)
    again = await sandbox.adopt("t")
    assert again is not None
    end = await again.wait()
    assert (end.code, end.reason) == (137, "lost")
    assert await text_of(again) == "ready\n"


async def test_a_start_that_died_halfway_leaves_nothing_to_adopt(sandbox: BubblewrapRuntime) -> None:
    (sandbox.state / "t").mkdir(parents=True)
    assert await sandbox.known() == ("t",)
    assert await sandbox.adopt("t") is None
    assert await sandbox.known() == ()


async def test_removal_frees_the_disk_the_groups_and_the_uid(run: Run, sandbox: BubblewrapRuntime) -> None:
    handle = await run("echo x > x")
    await handle.wait()
    record = (sandbox.state / "t" / "task.json").read_text()
    await handle.remove()
    assert not list(sandbox.state.iterdir())
    groups = [word for word in record.split('"') if word.startswith("/sys/fs/cgroup")]
    assert groups
    assert not any(map(is_there, (*groups, f"/run/minga/slots/{handle.uid}")))
    assert not is_mounted(sandbox.state)


async def test_an_ended_tasks_disk_is_readable_after_a_reboot_unmounted_it(
    run: Run, sandbox: BubblewrapRuntime
) -> None:
    handle = await run("echo kept > x")
    await handle.wait()
    await anyio.run_process(["umount", str(sandbox.state / "t" / "minga-scratch")])
    with await handle.open_output("x") as file:
        assert file.read() == b"kept\n"


async def test_a_group_left_by_a_deleted_state_is_made_anew(run: Run, sandbox: BubblewrapRuntime) -> None:
    handle = await run("trap '' TERM; echo ready; sleep 1000")
    async for _ in handle.follow_log():
        break
    os.kill(int((sandbox.state / "t" / "pid").read_text()), signal.SIGKILL)
    await anyio.run_process(["umount", "--lazy", str(sandbox.state / "t" / "minga-scratch")])
    await anyio.to_thread.run_sync(shutil.rmtree, sandbox.state / "t")
    again = await run("exit 3")
    assert (await again.wait()).code == 3


async def test_tasks_have_different_uids_across_agents(run: Run, tmp_path: Path) -> None:
    first = await run("sleep 1000")
    other = BubblewrapRuntime(tmp_path / "other")
    second = await other.start(Task("t", ("sleep", "1000"), Environment("system"), LIMITS))
    try:
        assert first.uid != second.uid
    finally:
        await second.remove()


# ----------------------------------------------------------------------------------------------------- environments


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python environment for jobs beneath a folder that only root may enter."""
    folder = tmp_path_factory.mktemp("private")
    folder.chmod(0o700)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    return folder / "env"


async def test_a_python_environment_is_seen_read_only_at_its_path(run: Run, python: Path) -> None:
    code = "import sys, ssl, ctypes; print(sys.prefix, sys.base_prefix)"
    script = f'python -c "{code}"; touch {python}/x {sys.base_prefix}/x'
    handle = await run(script, environment=Environment("python", python))
    log = await text_of(handle)
    assert log.splitlines()[0] == f"{python} {sys.base_prefix}"
    assert log.count("Read-only file system") == 2


async def test_the_agents_own_environment_is_refused(run: Run, tmp_path: Path) -> None:
    for path in (Path(sys.prefix), tmp_path / "none", tmp_path):
        with pytest.raises(InvalidInput):
            await run("true", environment=Environment("python", path))
    assert not list((tmp_path / "tasks").glob("*"))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root file system with a shell and nothing else, as a foreign distribution would be."""
    root = tmp_path / "rootfs"
    files = ["/bin/sh", "/bin/cat", "/bin/ls"]
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=True).stdout
    files += [word for word in listed.split() if word.startswith("/") and not word.endswith(":")]
    for name in files:
        (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, root / name[1:])
    (root / "etc").mkdir()
    (root / "etc" / "os-release").write_text("NAME=Elsewhere\n")
    (root / "etc" / "passwd").write_text("intruder:x:0:0::/:/bin/sh\n")
    (root / "proc").mkdir()
    return root


async def test_a_root_file_system_is_all_that_is_seen(run: Run, rootfs: Path) -> None:
    script = "cat /etc/os-release /etc/passwd; ls /usr; echo x > /job/x; echo x > /bin/x"
    handle = await run(script, environment=Environment("rootfs", rootfs))
    end = await handle.wait()
    log = await text_of(handle)
    assert "NAME=Elsewhere" in log
    assert "intruder" not in log
    assert "share" not in log, "this machine's /usr is not there"
    assert "Read-only file system" in log
    assert [file.path for file in await handle.list_outputs()] == ["x"]
    assert end.code == 2


async def test_this_machines_root_is_no_root_file_system(run: Run) -> None:
    for environment in (Environment("rootfs", Path("/")), Environment("rootfs", Path("rel")), Environment("python")):
        with pytest.raises(InvalidInput):
            await run("true", environment=environment)


async def test_a_command_that_is_not_there_is_the_tasks_own_end(sandbox: BubblewrapRuntime) -> None:
    handle = await sandbox.start(Task("t", ("no-such-program",), Environment("system"), LIMITS))
    end = await handle.wait()
    assert (end.code, end.reason) == (127, "exited")
    assert "no-such-program" in await text_of(handle)


async def test_a_sandbox_that_cannot_be_entered_says_why(sandbox: BubblewrapRuntime) -> None:
    task = Task("t", ("true",), Environment("system"), LIMITS, cwd="/nowhere")
    handle = await sandbox.start(task)
    end = await handle.wait()
    assert end.reason == "failed"
    assert "/nowhere" in end.detail


# ---------------------------------------------------------------------------------------- mounts, inputs, devices


async def test_mounts_are_read_only_unless_they_say_so(run: Run, tmp_path: Path) -> None:
    for name in ("data", "cache"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "x").write_text(name)
    mounts = (Mount(tmp_path / "data", "/data"), Mount(tmp_path / "cache", "/job/cache", writable=True))
    handle = await run("cat /data/x cache/x; echo n > /data/n; echo n > cache/n", mounts=mounts)
    await handle.wait()
    assert "datacache" in await text_of(handle)
    assert not (tmp_path / "data" / "n").exists()
    assert (tmp_path / "cache" / "n").read_text() == "n\n"


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/sys", "/dev/x", "/sys", "/etc/passwd", "/usr/bin"])
async def test_a_mount_over_the_system_is_refused(run: Run, tmp_path: Path, target: str) -> None:
    with pytest.raises(InvalidInput):
        await run("true", mounts=(Mount(tmp_path, target),))


async def test_inputs_belong_to_the_task(run: Run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "empty").mkdir(parents=True)
    (tree / "deep" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "deep" / "run.sh").chmod(0o755)
    (tree / "out").symlink_to("/etc/shadow")
    handle = await run("./deep/run.sh; ls -d deep/empty; rm -r deep && echo mine", inputs=(Input(tree, "."),))
    await handle.wait()
    assert await text_of(handle) == "ran\ndeep/empty\nmine\n"


@pytest.mark.parametrize("target", ["../x", "/etc/x", "a/../../x", "link/x"])
async def test_an_input_cannot_be_put_elsewhere(
    run: Run, tmp_path: Path, sandbox: BubblewrapRuntime, target: str
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("/etc")
    (tmp_path / "x").write_text("x")
    with pytest.raises(UnsafePath):
        await run("true", inputs=(Input(tmp_path / "tree", "."), Input(tmp_path / "x", target)))
    assert await sandbox.known() == ()
    assert not is_there("/etc/x")


async def test_inputs_over_the_disk_limit_are_refused(run: Run, tmp_path: Path, sandbox: BubblewrapRuntime) -> None:
    (tmp_path / "big").write_bytes(bytes(4 * MIB))
    with pytest.raises(DiskFull):
        await run("true", limits={"disk_bytes": 2 * MIB}, inputs=(Input(tmp_path / "big", "big"),))
    assert await sandbox.known() == ()


async def test_a_device_is_handed_over_by_its_specification(sandbox: BubblewrapRuntime, tmp_path: Path) -> None:
    (tmp_path / "lib.so.1").write_text("library")
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "spec.json").write_text(
        '{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "containerEdits": {"env": ["GPU_COMMON=1"]}, "devices": ['
        '{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}],'
        f' "mounts": [{{"hostPath": "{tmp_path}/lib.so.1", "containerPath": "/usr/lib/lib.so.1"}}],'
        ' "hooks": [{"hookName": "createContainer", "path": "/bin/false"}]}}]}'
    )
    runtime = BubblewrapRuntime(sandbox.state, cdi_folders=(tmp_path / "cdi",))
    script = (
        "test -c /dev/nvidia0 && echo x > /dev/nvidia0 && cat /run/gpu/lib.so.1 && echo /$GPU_COMMON$LD_LIBRARY_PATH"
    )
    limits = LIMITS.__class__(1000, 64 * MIB, 8 * MIB, 16, gpus=("nvidia.com/gpu=0",))
    handle = await runtime.start(Task("t", ("sh", "-c", script), Environment("system"), limits))
    await handle.wait()
    assert await text_of(handle) == "library/1/run/gpu\n"


# ------------------------------------------------------------------------------------------------------ in and out


async def test_a_port_of_the_task_is_reached_through_its_socket(run: Run, python: Path) -> None:
    script = "echo hello > index.html; exec python -u -m http.server 8000 --bind 127.0.0.1"
    handle = await run(script, environment=Environment("python", python), ports=(8000,))
    async for _ in handle.follow_log():
        break
    wire = httpx.AsyncHTTPTransport(uds=str(handle.port_socket(8000)))
    async with httpx.AsyncClient(transport=wire, base_url="http://task") as client:
        assert (await client.get("/")).text == "hello\n"
        assert (await client.get("/none")).status_code == 404


@asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """An HTTP server on this machine that says `outside`."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\noutside")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


FETCH = """
import sys, urllib.request, urllib.error, socket
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=10).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode().strip())
try:
    socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2].strip("/"))), 3)
    print("reached")
except OSError as error:
    print("no way")
"""


async def test_the_only_way_out_is_the_proxy(run: Run, python: Path, tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    (tmp_path / "fetch.py").write_text(FETCH)
    async with web_server() as port:
        ports, path = frozenset((port,)), tmp_path / "proxy"
        async with EgressProxy(path, ("good.test",), ports, resolve, permitted=lambda address: True) as proxy:
            urls = f"http://bad.test:{port}/ http://good.test:{port}/"
            fields = {"environment": Environment("python", python), "inputs": (Input(tmp_path / "fetch.py", "f.py"),)}
            handle = await run(f"python f.py {urls}", egress=path, **fields)
            await handle.wait()
    assert await text_of(handle) == "403 bad.test is not on the list of allowed hosts\noutside\nno way\n"
    assert (proxy.counts.opened, proxy.counts.refused) == (1, 1)


async def test_a_proxy_that_is_started_again_serves_the_same_task(run: Run, python: Path, tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    (tmp_path / "fetch.py").write_text(FETCH)
    async with web_server() as port:
        limits = {"limits": {"heartbeat_seconds": None}, "environment": Environment("python", python)}
        inputs = (Input(tmp_path / "fetch.py", "f.py"),)
        script = f"trap go=1 TERM; echo ready; while [ -z $go ]; do sleep 0.05; done; python f.py http://a.test:{port}/"
        proxies = [
            EgressProxy(tmp_path / "proxy", ("a.test",), frozenset((port,)), resolve, permitted=lambda _: True)
            for _ in range(2)
        ]
        async with proxies[0]:
            handle = await run(script, egress=tmp_path / "proxy", inputs=inputs, **limits)
            async for _ in handle.follow_log():
                break
        async with proxies[1]:
            await handle.stop(30)
            await handle.wait()
    assert "outside" in await text_of(handle)
    assert [proxy.counts.opened for proxy in proxies] == [0, 1]


async def test_no_proxy_is_a_refusal(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        await run("true", egress=tmp_path / "none")


async def test_what_the_names_list_allows_still_cannot_be_this_machine(run: Run, python: Path, tmp_path: Path) -> None:
    (tmp_path / "fetch.py").write_text(FETCH)
    async with web_server() as port, EgressProxy(tmp_path / "proxy", ("localhost",), frozenset((port,))):
        # `localhost` would not go through the proxy unless told to; a name that resolves to it does.
        fields = {"environment": Environment("python", python), "inputs": (Input(tmp_path / "fetch.py", "f.py"),)}
        script = f"no_proxy= NO_PROXY= python f.py http://localhost:{port}/"
        handle = await run(script, egress=tmp_path / "proxy", **fields)
        await handle.wait()
    assert await text_of(handle) == "403 localhost has an address that jobs may not reach\nno way\n"


async def test_secrets_are_on_no_disk_and_in_no_process_listing(run: Run, sandbox: BubblewrapRuntime) -> None:
    handle = await run("echo ${#TOKEN}; sleep 1000", env={"TOKEN": "s3cr3t-s3cr3t"})
    async for chunk in handle.follow_log():
        assert chunk.data == b"13\n"
        break
    listing = (await anyio.run_process(["ps", "axww", "-o", "args"])).stdout.decode()
    assert "s3cr3t" not in listing
    assert str(sandbox.state) not in "".join(line for line in listing.splitlines(True) if line.startswith("bwrap"))
    files = [path for path in (sandbox.state / "t").iterdir() if path.is_file() and path.suffix != ".img"]
    assert files
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]


# --------------------------------------------------------------------------------------------------------- refusals


async def test_more_disk_than_there_is_is_refused(run: Run, sandbox: BubblewrapRuntime) -> None:
    with pytest.raises(OutOfCapacity):
        await run("true", limits={"disk_bytes": shutil.disk_usage("/").free + (1 << 40)})
    assert await sandbox.known() == ()


async def test_a_disk_too_small_to_make_is_refused(run: Run) -> None:
    with pytest.raises(LimitNotEnforceable):
        await run("true", limits={"disk_bytes": 1000})


async def test_memory_too_small_to_start_in_ends_at_once(run: Run) -> None:
    try:
        handle = await run("true", limits={"memory_bytes": 4096})
    except (SandboxFailed, LimitNotEnforceable):
        return
    assert (await handle.wait()).reason in ("oom", "failed")


async def test_without_root_it_refuses(run: Run, monkeypatch: pytest.MonkeyPatch, sandbox: BubblewrapRuntime) -> None:
    monkeypatch.setattr("minga.runtimes.bubblewrap._euid", lambda: 1000)
    with pytest.raises(LimitNotEnforceable, match="root"):
        await run("true")
    facts = {fact.name: fact for fact in await sandbox.check()}
    assert not facts["root"].ok
    assert facts["root"].remedy
    assert "sandbox" not in facts, "nothing is tried that cannot work"


async def test_without_bubblewrap_it_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LimitNotEnforceable, match="bubblewrap"):
        await run("true")


async def test_without_control_groups_it_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minga.runtimes.cgroups.detect", lambda: None)
    with pytest.raises(LimitNotEnforceable, match="control groups"):
        await run("true")
