"""The sandbox driver: bubblewrap under a real unprivileged uid, control groups, a system-call filter, its own disk.

It knows how the parts are put together; each part is a module of its own. What holds the task, from outside in:

| wall               | by                                                                                  |
|--------------------|-------------------------------------------------------------------------------------|
| who it is          | a real uid of its own without groups or privileges (never root in a namespace: root |
|                    | of this machine could open /proc/sys/kernel/core_pattern whatever bwrap dropped)    |
| what it sees       | own mount, pid, network, ipc, uts, cgroup and user namespaces; /proc/sys read-only  |
| what it uses       | CPU, memory and process groups; a disk image; a capped log                          |
| what it may ask    | the filter of `seccomp`                                                             |
| whom it reaches    | nobody, or the agent's allow-list proxy                                             |
| how long           | its supervisor's clock, and the agent's heartbeat                                   |

Rule: what cannot be held refuses the task (`LimitNotEnforceable`) before anything of it runs.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread

from minga.core.errors import InvalidInput, LimitNotEnforceable, MingaError, SandboxFailed
from minga.runtimes import cgroups, gpus, outputs, seccomp, staging, supervised
from minga.runtimes.cgroups import Cgroup
from minga.runtimes.runtime import Environment, Fact, Handle, Limits, Task
from minga.runtimes.scratch import MOUNT_NAME

ENFORCES = frozenset(
    ("cpus_milli", "memory_bytes", "disk_bytes", "pids", "wall_seconds", "log_bytes", "heartbeat_seconds", "gpus")
)
OPEN_FILES_MAX = 65536
SANDBOX_PIDS = 2
"""bwrap's own two processes, added to the task's `pids`."""

_FEATURES = ("--disable-userns",)
_TRIAL = Limits(cpus_milli=1000, memory_bytes=64 << 20, disk_bytes=4 << 20, pids=8, wall_seconds=5)


class BubblewrapRuntime:
    """Tasks in bubblewrap sandboxes, their state under `state` (made when missing; root's alone). See `Runtime`."""

    name = "bubblewrap"
    sandboxed = True

    def __init__(self, state: Path, cdi_folders: tuple[Path, ...] = gpus.CDI_FOLDERS) -> None:
        self._cdi_folders = cdi_folders
        self.state = state.absolute()
        self._program = shutil.which("bwrap") or ""
        self._features: frozenset[str] | None = None

    @property
    def enforces(self) -> frozenset[str]:
        """See `Runtime.enforces`."""
        return ENFORCES

    async def check(self) -> tuple[Fact, ...]:
        """See `Runtime.check`; the last fact is a whole sandbox that was started and ended."""
        facts = await anyio.to_thread.run_sync(prerequisites)
        if all(fact.ok for fact in facts):
            return (*facts, await self._trial())
        return facts

    async def start(self, task: Task) -> Handle:
        """See `Runtime.start`."""
        return await anyio.to_thread.run_sync(self._start, task)

    async def adopt(self, task_id: str) -> Handle | None:
        """See `Runtime.adopt`."""
        return await anyio.to_thread.run_sync(supervised.adopt, self.state, task_id)

    async def known(self) -> tuple[str, ...]:
        """See `Runtime.known`."""
        return await anyio.to_thread.run_sync(supervised.known, self.state)

    def _start(self, task: Task) -> Handle:
        for fact in prerequisites():
            if not fact.ok:
                raise LimitNotEnforceable(f"{fact.name}: {fact.found}", fact.remedy)
        staging.check_environment(task.environment)
        if task.egress is not None and not task.egress.is_dir():
            raise InvalidInput(f"egress {task.egress} is not a folder", "start the proxy first")
        access = gpus.access(task.limits.gpus, self._cdi_folders)
        filter_program = seccomp.program()
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        start = supervised.Start(self.state, task, "image" if task.limits.disk_bytes else "folder")
        start.open()
        try:
            start.launch_supervisor()
            uid = start.claim_uid()
            start.scratch.create(task.limits.disk_bytes, uid)
            for item in task.inputs:
                outputs.copy_in(item.source, start.scratch.work, item.target, uid)
            start.note_cgroup(_limited_group(_group_name(start.state), task.limits))
            stage = staging.build(task, start.state, start.scratch.root, uid, access, self._supported())
            return start.run(self._plan(task, uid, stage, access, filter_program))
        except OSError as error:
            start.undo()
            raise SandboxFailed(f"the sandbox could not be made: {error}", "see `minga doctor`") from error
        except BaseException:
            start.undo()
            raise

    def _plan(
        self, task: Task, uid: int, stage: staging.Stage, access: gpus.GpuAccess, filter_program: bytes
    ) -> dict[str, Any]:
        return {
            "argv": list(task.argv),
            "env": staging.variables(task, access),
            "cwd": task.cwd,
            "uid": uid,
            "groups": access.groups(),
            # A core limit of exactly 1 is the kernel's sign not to run this machine's core handler (as root) on
            # what the task left in memory; 0 would still run it.
            "rlimits": [[resource.RLIMIT_CORE, 1], [resource.RLIMIT_NOFILE, OPEN_FILES_MAX]],
            "stage": [staging.COVER, stage.sources, MOUNT_NAME],
            "sandbox": {"program": self._program, "options": stage.options, "seccomp": filter_program.hex()},
        }

    def _supported(self) -> frozenset[str]:
        if self._features is None:
            text = subprocess.run([self._program, "--help"], capture_output=True, text=True).stdout
            self._features = frozenset(name for name in _FEATURES if name in text)
        return self._features

    async def _trial(self) -> Fact:
        task = Task(f"check-{os.getpid()}", ("/usr/bin/env",), Environment("system"), _TRIAL)
        try:
            handle = await self.start(task)
        except MingaError as error:
            return Fact("sandbox", False, error.fact, error.remedy)
        try:
            end = await handle.wait()
        finally:
            await handle.remove()
        found = "started and ended one" if end.code == 0 else f"{end.reason} with {end.code}: {end.detail}"
        return Fact("sandbox", end.code == 0, found, "" if end.code == 0 else "allow unprivileged user namespaces")


def prerequisites() -> tuple[Fact, ...]:
    """What the driver needs, looked at without starting anything. Blocks for milliseconds."""
    version = shutil.which("bwrap")
    needed = {"mkfs.ext4": "e2fsprogs", "mount": "mount", "umount": "mount"}
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [name for name in needed if shutil.which(name, path=path) is None]
    return (
        Fact("linux", sys.platform == "linux", sys.platform, "" if sys.platform == "linux" else "provide from Linux"),
        Fact("root", _euid() == 0, f"uid {_euid()}", "" if _euid() == 0 else "start it with sudo"),
        Fact("bubblewrap", version is not None, version or "no bwrap on PATH", "" if version else "install bubblewrap"),
        _cgroup_fact(),
        Fact(
            "disk images",
            not missing,
            f"missing: {', '.join(missing)}" if missing else "mkfs.ext4, mount",
            f"install {' '.join(sorted({needed[name] for name in missing}))}" if missing else "",
        ),
    )


def _cgroup_fact() -> Fact:
    name = "control groups"
    hierarchy = cgroups.detect() if sys.platform == "linux" else None
    if hierarchy is None or hierarchy.missing:
        found = f"version {hierarchy.version} without {', '.join(hierarchy.missing)}" if hierarchy else "none"
        return Fact(name, False, found, "mount cgroups with cpu, memory, pids (and freezer in version 1)")
    swaps = len(Path("/proc/swaps").read_text().splitlines()) > 1
    if hierarchy.version == 1 and swaps and not _swap_is_counted(hierarchy):
        return Fact(name, False, "version 1 does not count swap", "boot with swapaccount=1, or turn swap off")
    return Fact(name, True, f"version {hierarchy.version}")


def _group_name(state: Path) -> str:
    """One for each state folder: after a reboot an old record must never name the group of a new task."""
    return hashlib.blake2s(str(state).encode(), digest_size=10).hexdigest()


def _swap_is_counted(hierarchy: cgroups.Hierarchy) -> bool:
    return (Path(hierarchy.parents["memory"]).parent / "memory.memsw.limit_in_bytes").exists()


def _limited_group(name: str, limits: Limits) -> Cgroup:
    hierarchy = cgroups.detect()
    if hierarchy is None:
        raise LimitNotEnforceable("control groups are gone", "mount them")
    try:
        group = hierarchy.create(name)
    except FileExistsError:
        group = _reclaim(hierarchy, name)
    except OSError as error:
        raise LimitNotEnforceable(
            f"no control group can be made: {error.strerror}", "run the agent outside a container, or delegate a group"
        ) from None
    try:
        pids = None if limits.pids is None else limits.pids + SANDBOX_PIDS
        group.limit(limits.cpus_milli, limits.memory_bytes, pids)
    except OSError as error:
        group.remove()
        raise LimitNotEnforceable(f"a limit was refused by the kernel: {error}", "ask for less, or more") from None
    return group


def _reclaim(hierarchy: cgroups.Hierarchy, name: str) -> Cgroup:
    """A group without a task: its state folder was deleted by hand. Kill what it holds, make it anew."""
    left = Cgroup(hierarchy.version, {key: f"{parent}/{name}" for key, parent in hierarchy.parents.items()})
    left.kill()
    left.remove()
    return hierarchy.create(name)


def _euid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1
