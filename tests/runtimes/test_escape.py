"""No way out: every probe of `escape_probes` reaches its aim outside, where that is harmless, and is refused inside.

Outside it runs as root, inside as a task of the sandbox driver, with another task and bystanders of the machine
beside it. One run each; each probe is a test of its own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from minga.runtimes import cgroups, seccomp
from minga.runtimes.bubblewrap import BubblewrapRuntime, prerequisites
from minga.runtimes.runtime import Environment, Handle, Input, Limits, Task

PROGRAM = Path(__file__).with_name("escape_probes.py")
LIMITS = Limits(cpus_milli=2000, memory_bytes=256 << 20, disk_bytes=32 << 20, pids=32, wall_seconds=60)
MISSING = [fact for fact in prerequisites() if not fact.ok]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(MISSING), reason=f"no sandbox here: {MISSING and MISSING[0].found}"),
]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("escape_probes", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


probes = _load()
Results = dict[str, list[str]]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment for jobs, on the interpreter of this run, wherever only root can enter it."""
    path = tmp_path_factory.mktemp("env") / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[tuple[Results, Results]]:
    """(outside, inside): what became of each probe."""
    folder = tmp_path_factory.mktemp("escape")
    with _machine(folder) as context:
        yield anyio.run(_both, context, folder, python)


class _machine:
    """Things of this machine that a sandbox must not reach; `with` gives the probes' context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> dict[str, Any]:
        folder = self._folder
        self._public = Path(tempfile.mkstemp(prefix="minga-public-")[1])
        self._public.chmod(0o644)
        (folder / "secret").write_text("secret")
        self._shm = Path(tempfile.mkstemp(prefix="minga-", dir="/dev/shm")[1])
        self._shm.chmod(0o666)
        libc = ctypes.CDLL(None)
        key = os.getpid()
        self._segment = libc.shmget(key, 4096, 0o1666)
        self._tcp = socket.create_server(("0.0.0.0", 0), backlog=16)
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(str(folder / "s"))
        self._abstract = socket.socket(socket.AF_UNIX)
        self._abstract.bind(f"\0minga-{key}")
        for listener in (self._unix, self._abstract):
            listener.listen(16)
        marker = f"minga-bystander-{key}"
        self._bystander = subprocess.Popen(["sh", "-c", "read line", marker], stdin=subprocess.PIPE)
        hierarchy = cgroups.detect()
        assert hierarchy is not None
        self._group = hierarchy.create(f"test-{key}")
        column = seccomp.ARCHITECTURES[platform.machine()][1]
        calls = {name: numbers[column] for name, numbers in seccomp.DENIED.items()}
        device = os.stat("/").st_dev
        return {
            "secret": str(folder / "secret"),
            "public": str(self._public),
            "tmp_name": self._public.name,
            "state": str(folder / "tasks"),
            "unix": str(folder / "s"),
            "abstract": f"minga-{key}",
            "port": self._tcp.getsockname()[1],
            "address": _own_address(),
            "bystander": self._bystander.pid,
            "marker": marker,
            "group_limit": f"{self._group.paths.get('pids', self._group.paths.get(''))}/pids.max",
            "shm_key": key,
            "shm_name": self._shm.name,
            "hostname": socket.gethostname(),
            "disk": [os.major(device), os.minor(device)],
            "calls": calls | {"clone": seccomp.CLONE[column], "clone3": seccomp.CLONE3[column]},
        }

    def __exit__(self, *_: object) -> None:
        assert self._bystander.stdin is not None
        self._bystander.stdin.close()
        self._bystander.wait()
        self._group.remove()
        ctypes.CDLL(None).shmctl(self._segment, 0, None)
        for listener in (self._tcp, self._unix, self._abstract):
            listener.close()
        self._shm.unlink()
        self._public.unlink()


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        try:
            wire.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the address
        except OSError:
            return "127.0.0.2"
        return str(wire.getsockname()[0])


async def _both(context: dict[str, Any], folder: Path, python: Path) -> tuple[Results, Results]:
    os.environ["MINGA_TEST_SECRET"] = "x"
    runtime = BubblewrapRuntime(folder / "tasks")
    environment = Environment("python", python)
    other_marker = f"other-job-{os.getpid()}"
    other = Task(
        "other", ("sh", "-c", "echo ready; read line < /dev/zero; sleep 1000", other_marker), environment, LIMITS
    )
    handles: list[Handle] = []
    try:
        handles.append(await runtime.start(other))
        async for _ in handles[0].follow_log():
            break
        context |= {
            "other_marker": other_marker,
            "other_pid": _pid_of(other_marker),
            "other_work": str(folder / "tasks" / "other" / "minga-scratch" / "work"),
        }
        outside = _outside(context | {"inside": False, "own": str(folder), "shown_in_root": []}, python)
        shown = [str(Path(sys.base_prefix).relative_to("/root").parts[0])] if _under_root(sys.base_prefix) else []
        inside = context | {"inside": True, "own": "/job", "shown_in_root": shown}
        task = Task("probes", ("python", "/job/probes.py", json.dumps(inside)), environment, LIMITS)
        handles.append(await runtime.start(replace(task, inputs=(Input(PROGRAM, "probes.py"),))))
        await handles[1].wait()
        text = b"".join([chunk.data async for chunk in handles[1].follow_log()]).decode()
        return outside, json.loads(text.splitlines()[-1])
    finally:
        del os.environ["MINGA_TEST_SECRET"]
        for handle in handles:
            await handle.remove()


def _under_root(path: str) -> bool:
    return Path(path).is_relative_to("/root")


def _outside(context: dict[str, Any], python: Path) -> Results:
    # With an open file to inherit, as a careless parent would leave one.
    argv = [str(python / "bin" / "python"), str(PROGRAM), json.dumps(context)]
    with tempfile.TemporaryFile() as left_open:
        done = subprocess.run(argv, capture_output=True, text=True, pass_fds=(left_open.fileno(),))
    assert done.returncode == 0, done.stderr
    results: Results = json.loads(done.stdout.splitlines()[-1])
    return results


def _pid_of(marker: str) -> int:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words and words[0] == b"sh":
            return int(pid)
    raise AssertionError(f"no process {marker}")


def test_there_are_enough_of_them() -> None:
    assert len(probes.PROBES) >= 60
    assert len(probes.PROBES) - len(probes.HARMFUL) >= 60


@pytest.mark.parametrize("name", list(probes.PROBES))
def test_inside_it_is_refused(name: str, outcomes: tuple[Results, Results]) -> None:
    assert outcomes[1][name][0] == "refused", outcomes[1][name]


@pytest.mark.parametrize("name", [name for name in probes.PROBES if name not in probes.HARMFUL])
def test_outside_it_is_reached(name: str, outcomes: tuple[Results, Results]) -> None:
    assert outcomes[0][name][0] == "reached", outcomes[0][name]


# ------------------------------------------------------------------- the hole: /proc/sys/kernel/core_pattern as root

_OPEN = ("sh", "-c", ": >> /proc/sys/kernel/core_pattern")
_BOX = ("bwrap", "--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL")
_VIEW = ("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib")
_DROP = ("setpriv", "--reuid", "64999", "--regid", "64999", "--clear-groups", "--no-new-privs")


@pytest.mark.parametrize(
    ("drops_uid", "read_only", "opens"),
    [(False, False, True), (True, False, False), (False, True, False), (True, True, False)],
)
def test_each_defence_of_core_pattern_holds_alone(drops_uid: bool, read_only: bool, opens: bool) -> None:
    """Opened for appending, never written. With neither defence it opens: the test sees the hole."""
    lib64 = ("--symlink", "usr/lib64", "/lib64") if Path("/usr/lib64").exists() else ()
    guard = ("--ro-bind", "/proc/sys", "/proc/sys") if read_only else ()
    argv = (*(_DROP if drops_uid else ()), *_BOX, *_VIEW, *lib64, "--proc", "/proc", *guard, "--", *_OPEN)
    if drops_uid:
        argv = tuple(word for word in argv if word not in ("--uid", "--gid", "65534"))
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode == 0) == opens, done.stderr
    assert opens or "core_pattern" in done.stderr, "refused at the file, not before"


def test_the_driver_has_both_defences(tmp_path: Path) -> None:
    async def look() -> tuple[str, str]:
        runtime = BubblewrapRuntime(tmp_path / "tasks")
        script = "id -u; grep ' /proc/sys ' /proc/self/mountinfo; cat /proc/self/uid_map"
        handle = await runtime.start(Task("t", ("sh", "-c", script), Environment("system"), LIMITS))
        try:
            await handle.wait()
            lines = (await handle.read_log(0)).data.decode().splitlines()
        finally:
            await handle.remove()
        return lines[0], lines[1]

    uid, mount = anyio.run(look)
    assert int(uid) >= 64001, "a real uid: the map of the namespace is the identity"
    assert mount.split()[5].startswith("ro,")
