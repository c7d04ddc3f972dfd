"""Control groups on trees that are made up: every file of both versions, without a kernel that has them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minga.runtimes.cgroups import V1_CONTROLLERS, Cgroup, Hierarchy, detect

V1_LINE = "30 20 0:20 / {point} rw,relatime - cgroup cgroup rw,{controller}\n"
V2_LINE = "31 20 0:21 / {point} rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """An empty machine: `mountinfo`, `cgroup` and a folder `fs`."""
    (tmp_path / "mountinfo").write_text("25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "fs").mkdir()
    return tmp_path


def add(machine: Path, line: str, **words: object) -> None:
    with open(machine / "mountinfo", "a") as file:
        file.write(line.format(**words))


def look(machine: Path) -> Hierarchy | None:
    return detect(str(machine / "mountinfo"), str(machine / "cgroup"))


def version_1(machine: Path, shared: bool = False) -> Hierarchy:
    names = ("cpu,cpuacct", "memory", "pids", "freezer") if shared else V1_CONTROLLERS
    for name in names:
        (machine / "fs" / name).mkdir()
        add(machine, V1_LINE, point=machine / "fs" / name, controller=name)
    found = look(machine)
    assert found is not None
    return found


def version_2(machine: Path, controllers: str = "cpuset cpu io memory pids") -> Hierarchy:
    root = machine / "fs"
    (root / "cgroup.controllers").write_text(controllers)
    (root / "cgroup.subtree_control").write_text("cpu memory pids")
    (root / "minga").mkdir()
    (root / "minga" / "cgroup.subtree_control").write_text("cpu memory pids")
    add(machine, V2_LINE, point=root)
    found = look(machine)
    assert found is not None
    return found


def test_no_groups_are_none(machine: Path) -> None:
    assert look(machine) is None


def test_version_1_has_a_folder_for_each_controller(machine: Path) -> None:
    hierarchy = version_1(machine)
    assert (hierarchy.version, hierarchy.missing) == (1, [])
    group = hierarchy.create("t")
    assert {name: Path(path).relative_to(machine / "fs") for name, path in group.paths.items()} == {
        name: Path(name, "minga", "t") for name in V1_CONTROLLERS
    }
    assert all(Path(path).is_dir() for path in group.paths.values())
    assert len(group.join_files) == 5


def test_controllers_that_share_a_tree_share_a_folder(machine: Path) -> None:
    group = version_1(machine, shared=True).create("t")
    assert group.paths["cpu"] == group.paths["cpuacct"]
    assert len(group.join_files) == 4
    assert group.remove()
    assert not Path(group.paths["cpu"]).exists()


def test_groups_are_made_under_our_own(machine: Path) -> None:
    (machine / "cgroup").write_text("4:memory:/service/agent\n3:pids:/gone\n")
    (machine / "fs" / "memory" / "service" / "agent").mkdir(parents=True)
    (machine / "fs" / "pids").mkdir()
    for name in ("memory", "pids"):
        add(machine, V1_LINE, point=machine / "fs" / name, controller=name)
    found = look(machine)
    assert found is not None
    assert found.parents["memory"] == str(machine / "fs" / "memory" / "service" / "agent" / "minga")
    assert found.parents["pids"] == str(machine / "fs" / "pids" / "minga"), "a group that is not in sight is the root"
    assert set(found.missing) == {"cpu", "cpuacct", "freezer"}


def test_a_hybrid_machine_is_version_1(machine: Path) -> None:
    add(machine, V2_LINE, point=machine / "fs")
    assert version_1(machine).version == 1


def test_version_2_without_a_controller_says_so(machine: Path) -> None:
    hierarchy = version_2(machine, "cpu hugetlb")
    assert hierarchy.missing == ["memory", "pids"]


def test_a_group_is_made_once(machine: Path) -> None:
    hierarchy = version_1(machine)
    hierarchy.create("t")
    with pytest.raises(FileExistsError):
        hierarchy.create("t")
    assert (machine / "fs" / "cpu" / "minga" / "t").is_dir(), "the group that was there stays"


def test_limits_of_version_1(machine: Path) -> None:
    group = version_1(machine).create("t")
    Path(group.paths["memory"], "memory.memsw.limit_in_bytes").touch()
    group.limit(1500, 1 << 30, 64)
    assert text(group, "cpu", "cpu.cfs_period_us") == "100000"
    assert text(group, "cpu", "cpu.cfs_quota_us") == "150000"
    assert text(group, "memory", "memory.limit_in_bytes") == str(1 << 30)
    assert text(group, "memory", "memory.memsw.limit_in_bytes") == str(1 << 30)
    assert text(group, "pids", "pids.max") == "64"


def test_limits_of_version_2(machine: Path) -> None:
    group = version_2(machine).create("t")
    for name in ("memory.swap.max", "memory.oom.group"):
        Path(group.paths[""], name).touch()
    group.limit(1, 1 << 30, 64)
    assert text(group, "", "cpu.max") == "1000 100000", "the kernel takes no less than a millisecond"
    assert text(group, "", "memory.max") == str(1 << 30)
    assert text(group, "", "memory.swap.max") == "0"
    assert text(group, "", "memory.oom.group") == "1"
    assert text(group, "", "pids.max") == "64"


def test_no_limit_writes_nothing(machine: Path) -> None:
    group = version_2(machine).create("t")
    group.limit(None, None, None)
    assert not list(Path(group.paths[""]).iterdir())


def test_measures_of_version_1(machine: Path) -> None:
    group = version_1(machine).create("t")
    put(group, "cpuacct", "cpuacct.usage", "1234567890")
    put(group, "memory", "memory.max_usage_in_bytes", "4096\n")
    put(group, "memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    put(group, "freezer", "freezer.state", "FREEZING\n")
    put(group, "freezer", "cgroup.procs", "12\n13\n")
    assert (group.cpu_usec(), group.memory_peak_bytes(), group.oom_kills()) == (1234567, 4096, 2)
    assert group.pids() == [12, 13]
    assert not group.frozen()
    group.freeze(True)
    assert group.frozen()
    group.freeze(False)
    assert text(group, "freezer", "freezer.state") == "THAWED"


def test_measures_of_version_2(machine: Path) -> None:
    group = version_2(machine).create("t")
    put(group, "", "cpu.stat", "usage_usec 77\nuser_usec 70\n")
    put(group, "", "memory.events", "low 0\noom 3\noom_kill 1\n")
    put(group, "", "cgroup.events", "populated 1\nfrozen 1\n")
    assert (group.cpu_usec(), group.oom_kills(), group.frozen()) == (77, 1, True)
    assert group.memory_peak_bytes() == 0, "kernels before 5.19 do not tell"
    put(group, "", "memory.peak", "4096\n")
    assert group.memory_peak_bytes() == 4096
    group.freeze(True)
    assert text(group, "", "cgroup.freeze") == "1"


def test_version_2_switches_controllers_on(machine: Path) -> None:
    hierarchy = version_2(machine)
    for folder in (machine / "fs", machine / "fs" / "minga"):
        (folder / "cgroup.subtree_control").write_text("cpu memory")
    hierarchy.create("t")
    for folder in (machine / "fs", machine / "fs" / "minga"):
        assert (folder / "cgroup.subtree_control").read_text() == "+pids"


def test_version_2_kills_in_one_write(machine: Path) -> None:
    group = version_2(machine).create("t")
    put(group, "", "cgroup.procs", "999999999\n")
    put(group, "", "cgroup.kill", "")
    assert not group.kill(0.01), "this tree's process never leaves"
    assert text(group, "", "cgroup.kill") == "1"


def test_an_empty_group_is_killed_and_removed(machine: Path) -> None:
    group = version_1(machine).create("t")
    put(group, "freezer", "cgroup.procs", "")
    assert group.kill()
    Path(group.paths["freezer"], "cgroup.procs").unlink()
    assert group.remove()
    assert group.remove(), "again, with nothing there"
    assert group.kill()


def text(group: Cgroup, controller: str, name: str) -> str:
    return Path(group.paths[controller], name).read_text()


def put(group: Cgroup, controller: str, name: str, value: str) -> None:
    Path(group.paths[controller], name).write_text(value)


@pytest.fixture
def real_version_2() -> Iterator[Cgroup]:
    """A real version-2 group without controllers: what freezing and killing need, on hybrid machines too."""
    points = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not points or os.geteuid() != 0:
        pytest.skip("needs root and a mounted cgroup2")
    folder = f"{points[0][4]}/minga-test-{os.getpid()}"
    os.mkdir(folder)
    yield Cgroup(2, {"": folder})
    if os.path.isdir(folder):
        os.rmdir(folder)


@pytest.mark.root
def test_a_real_version_2_group_freezes_and_is_killed(real_version_2: Cgroup) -> None:
    group = real_version_2
    process = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000"], preexec_fn=lambda: enter(group))
    deadline = time.monotonic() + 10
    while len(group.pids()) < 3:
        assert time.monotonic() < deadline
    group.freeze(True)
    while not group.frozen():
        assert time.monotonic() < deadline
    assert group.kill(), "frozen or not"
    assert process.wait() == -signal.SIGKILL
    assert group.remove()


def enter(group: Cgroup) -> None:
    for path in group.join_files:
        Path(path).write_text("0")
