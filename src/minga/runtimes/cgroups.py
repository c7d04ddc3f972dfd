"""Control groups, version 1 and 2: bound what a task uses, measure it, freeze it, and kill it to the last process.

It knows files under /sys/fs/cgroup, nothing of sandboxes. Version 1 has one tree per controller; version 2 one tree.

| limit or measure | version 1                        | version 2                |
|------------------|----------------------------------|--------------------------|
| CPUs             | cpu.cfs_quota_us                 | cpu.max                  |
| memory, swap     | memory[.memsw].limit_in_bytes    | memory.max, .swap.max    |
| processes        | pids.max                         | pids.max                 |
| CPU used         | cpuacct.usage (ns)               | cpu.stat usage_usec      |
| peak memory      | memory.max_usage_in_bytes        | memory.peak              |
| freeze           | freezer.state                    | cgroup.freeze            |

Rule: light imports only, the supervisor starts with this. Errors are OSError; the driver names them.
"""

from __future__ import annotations

import os
import signal
import time

V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "freezer")
V2_CONTROLLERS = ("cpu", "memory", "pids")
PERIOD_USEC = 100_000
QUOTA_USEC_MIN = 1000
BRANCH = "minga"


class Cgroup:
    """One task's group: `paths` maps a controller (version 1) or "" (version 2) to its folder."""

    def __init__(self, version: int, paths: dict[str, str]) -> None:
        self.version = version
        self.paths = paths

    @property
    def join_files(self) -> list[str]:
        """Write "0" to each of these to enter the group."""
        return [f"{path}/cgroup.procs" for path in dict.fromkeys(self.paths.values())]

    def limit(self, cpus_milli: int | None, memory_bytes: int | None, pids: int | None) -> None:
        """Set the bounds that are not None. Raises OSError when the kernel refuses one."""
        if cpus_milli is not None:
            quota = max(QUOTA_USEC_MIN, cpus_milli * PERIOD_USEC // 1000)
            if self.version == 1:
                self._write("cpu", "cpu.cfs_period_us", str(PERIOD_USEC))
                self._write("cpu", "cpu.cfs_quota_us", str(quota))
            else:
                self._write("cpu", "cpu.max", f"{quota} {PERIOD_USEC}")
        if memory_bytes is not None:
            self._limit_memory(memory_bytes)
        if pids is not None:
            self._write("pids", "pids.max", str(pids))

    def pids(self) -> list[int]:
        """Processes in the group now."""
        return [int(word) for word in self._read("freezer", "cgroup.procs").split()]

    def oom_kills(self) -> int:
        """Processes that the kernel killed for want of memory."""
        text = self._read("memory", "memory.oom_control" if self.version == 1 else "memory.events")
        return _field(text, "oom_kill")

    def cpu_usec(self) -> int:
        """CPU time used, in microseconds."""
        if self.version == 1:
            return int(self._read("cpuacct", "cpuacct.usage")) // 1000
        return _field(self._read("cpu", "cpu.stat"), "usage_usec")

    def memory_peak_bytes(self) -> int:
        """The most memory used at once; 0 where the kernel does not tell (version 2 before Linux 5.19)."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        try:
            return int(self._read("memory", name))
        except FileNotFoundError:
            return 0

    def freeze(self, on: bool) -> None:
        """Ask that the group stands still, or goes on; see `frozen`."""
        if self.version == 1:
            self._write("freezer", "freezer.state", "FROZEN" if on else "THAWED")
        else:
            self._write("", "cgroup.freeze", "1" if on else "0")

    def frozen(self) -> bool:
        """Whether every process of the group stands still."""
        if self.version == 1:
            # Reading the state also makes the kernel finish a freeze that is under way.
            return self._read("freezer", "freezer.state").strip() == "FROZEN"
        return _field(self._read("", "cgroup.events"), "frozen") == 1

    def kill(self, seconds_max: float = 5.0) -> bool:
        """Kill every process and wait until none is left; whether that was so within `seconds_max`."""
        deadline = time.monotonic() + seconds_max
        while self._exists() and self.pids():
            if time.monotonic() > deadline:
                return False
            self._kill_once()
            time.sleep(0.002)
        return True

    def remove(self, seconds_max: float = 5.0) -> bool:
        """Remove the group's folders; whether all are gone. Killed processes leave late, so it tries for a while."""
        deadline = time.monotonic() + seconds_max
        for path in self.paths.values():
            while True:
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    pass
                except OSError:
                    if time.monotonic() < deadline:
                        time.sleep(0.002)
                        continue
                    return False
                break
        return True

    def _limit_memory(self, memory_bytes: int) -> None:
        if self.version == 2:
            self._write("memory", "memory.max", str(memory_bytes))
            self._write_if_there("memory", "memory.swap.max", "0")
            self._write_if_there("memory", "memory.oom.group", "1")
            return
        self._write("memory", "memory.limit_in_bytes", str(memory_bytes))
        # Without swap accounting the file is missing; the caller then refuses if the machine swaps.
        self._write_if_there("memory", "memory.memsw.limit_in_bytes", str(memory_bytes))

    def _kill_once(self) -> None:
        if self.version == 2 and os.path.exists(self._file("", "cgroup.kill")):
            self._write("", "cgroup.kill", "1")
            return
        # Frozen first: a group that forks faster than we read would outrun us, and no id is used again meanwhile.
        self.freeze(True)
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.freeze(False)

    def _exists(self) -> bool:
        return os.path.isdir(self._folder("freezer"))

    def _folder(self, controller: str) -> str:
        return self.paths["" if self.version == 2 else controller]

    def _file(self, controller: str, name: str) -> str:
        return f"{self._folder(controller)}/{name}"

    def _read(self, controller: str, name: str) -> str:
        with open(self._file(controller, name)) as file:
            return file.read()

    def _write(self, controller: str, name: str, value: str) -> None:
        with open(self._file(controller, name), "w") as file:
            file.write(value)

    def _write_if_there(self, controller: str, name: str, value: str) -> None:
        if os.path.exists(self._file(controller, name)):
            self._write(controller, name, value)


class Hierarchy:
    """Where groups can be made here: `version` 1 or 2, and a parent folder for each controller that is usable."""

    def __init__(self, version: int, parents: dict[str, str]) -> None:
        self.version = version
        self.parents = parents

    @property
    def missing(self) -> list[str]:
        """Controllers that we need and that are not there."""
        return (
            [name for name in V1_CONTROLLERS if name not in self.parents] if self.version == 1 else self._missing_v2()
        )

    def create(self, name: str) -> Cgroup:
        """Make the group `name` (it must be new) under our branch. Raises OSError."""
        made: dict[str, str] = {}
        try:
            for controller, parent in self.parents.items():
                os.makedirs(parent, exist_ok=True)
                if self.version == 2:
                    _enable(os.path.dirname(parent))
                    _enable(parent)
                folder = f"{parent}/{name}"
                if folder not in made.values():  # controllers may share a tree
                    os.mkdir(folder)
                made[controller] = folder
        except OSError:
            Cgroup(self.version, made).remove(0)
            raise
        return Cgroup(self.version, made)

    def _missing_v2(self) -> list[str]:
        try:
            with open(f"{os.path.dirname(self.parents[''])}/cgroup.controllers") as file:
                there = file.read().split()
        except OSError:
            there = []
        return [name for name in V2_CONTROLLERS if name not in there]


def detect(mountinfo: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> Hierarchy | None:
    """The hierarchy of this machine, or `None` without one.

    Version 1 wins where its memory controller is mounted: on hybrid machines version 2 then has no controllers.
    Groups are made under our own group (version 1), or under the root (version 2, where only leaves hold processes).
    """
    unified, parents = "", {}
    groups = _own_groups(own)
    with open(mountinfo) as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            kind, _, options = tail.split()[:3]
            root, point = head.split()[3:5]
            if kind == "cgroup2":
                unified = unified or point
            elif kind == "cgroup":
                for controller in set(options.split(",")) & set(V1_CONTROLLERS):
                    below = os.path.relpath(groups.get(controller, "/"), root)
                    folder = os.path.normpath(f"{point}/{below}")
                    inside = not below.startswith("..") and os.path.isdir(folder)
                    parents[controller] = f"{folder if inside else point}/{BRANCH}"
    if "memory" in parents:
        return Hierarchy(1, parents)
    return Hierarchy(2, {"": f"{unified}/{BRANCH}"}) if unified else None


def _own_groups(own: str) -> dict[str, str]:
    groups = {}
    with open(own) as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _enable(folder: str) -> None:
    with open(f"{folder}/cgroup.subtree_control") as file:
        there = file.read().split()
    for name in V2_CONTROLLERS:
        if name not in there:
            with open(f"{folder}/cgroup.subtree_control", "w") as file:
                file.write(f"+{name}")


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
