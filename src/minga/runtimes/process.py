"""The plain driver: a process of this machine. No sandbox: it sees the machine's files and its network.

For tests, and for an owner who runs their own jobs on loopback and says so (`--insecure-process`). It knows the same
supervisor as the sandbox driver, so that a task is found again after a crash. As root it gives each task a real uid
of its own; otherwise the task runs as the agent. Rule: what it cannot hold, it does not claim: `enforces` is short,
and asking for more refuses the task. `Limits.only(runtime.enforces)` drops the rest in the open.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import anyio.to_thread

from minga.core.errors import InvalidInput, LimitNotEnforceable, SandboxFailed
from minga.runtimes import outputs, staging, supervised
from minga.runtimes.gpus import GpuAccess
from minga.runtimes.runtime import WORK, Fact, Handle, Task

_HELD = frozenset(("wall_seconds", "log_bytes", "heartbeat_seconds"))


class ProcessRuntime:
    """Tasks as plain processes, their state under `state`. See `Runtime`.

    As root, `state` and the environment must lie where every user may enter. The task's `cwd` is its work folder
    unless it is another path of this machine; the variable WORK names the work folder.
    """

    name = "process"
    sandboxed = False

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()

    @property
    def enforces(self) -> frozenset[str]:
        """See `Runtime.enforces`; `pids` only with a uid of the task's own."""
        return _HELD | {"pids"} if os.geteuid() == 0 else _HELD

    async def check(self) -> tuple[Fact, ...]:
        """See `Runtime.check`."""
        found = "a uid for each task" if os.geteuid() == 0 else "tasks run as the agent's own user"
        return (Fact("process", True, found),)

    async def start(self, task: Task) -> Handle:
        """See `Runtime.start`; refuses a root file system, mounts and `egress`, which it cannot give."""
        return await anyio.to_thread.run_sync(self._start, task)

    async def adopt(self, task_id: str) -> Handle | None:
        """See `Runtime.adopt`."""
        return await anyio.to_thread.run_sync(supervised.adopt, self.state, task_id)

    async def known(self) -> tuple[str, ...]:
        """See `Runtime.known`."""
        return await anyio.to_thread.run_sync(supervised.known, self.state)

    def _start(self, task: Task) -> Handle:
        if over := sorted(task.limits.asked() - self.enforces):
            raise LimitNotEnforceable(f"a plain process cannot hold {', '.join(over)}", "use the sandbox driver")
        if task.environment.kind == "rootfs" or task.mounts or task.egress is not None:
            raise LimitNotEnforceable("a plain process has no root, mounts or network of its own", "use the sandbox")
        staging.check_environment(task.environment)
        self.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            for path in (self.state, task.environment.path):
                _check_everyone_enters(path)
        start = supervised.Start(self.state, task, "folder")
        start.open(0o711)
        try:
            start.launch_supervisor()
            uid = start.claim_uid() if os.geteuid() == 0 else None
            start.scratch.create(None, uid)
            start.scratch.root.chmod(0o711)
            for item in task.inputs:
                outputs.copy_in(item.source, start.scratch.work, item.target, uid)
            return start.run(_plan(task, start.scratch.root, uid))
        except OSError as error:
            start.undo()
            raise SandboxFailed(f"the process could not be started: {error}", "see the fact") from error
        except BaseException:
            start.undo()
            raise


def _plan(task: Task, scratch: Path, uid: int | None) -> dict[str, Any]:
    work = str(scratch / "work")
    env = staging.variables(task, GpuAccess())
    env |= {name: work for name in ("HOME", "WORK") if name not in task.env}
    env |= {"TMPDIR": str(scratch / "tmp")} if "TMPDIR" not in task.env else {}
    rlimits = [[resource.RLIMIT_CORE, 1], [resource.RLIMIT_NOFILE, 65536]]
    if task.limits.pids is not None:
        rlimits.append([resource.RLIMIT_NPROC, task.limits.pids])
    inside = task.cwd == WORK or task.cwd.startswith(WORK + "/")
    return {
        "argv": list(task.argv),
        "env": env,
        "cwd": work + task.cwd[len(WORK) :] if inside else task.cwd,
        "uid": uid,
        "groups": [],
        "rlimits": rlimits,
        "stage": None,
        "sandbox": None,
    }


def _check_everyone_enters(path: Path) -> None:
    for folder in (path.resolve(), *path.resolve().parents):
        if not folder.stat().st_mode & 0o001:
            raise InvalidInput(f"the task's user may not enter {folder}", "use a folder that everyone may enter")
