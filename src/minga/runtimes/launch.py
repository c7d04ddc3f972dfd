"""From a root process to the first instruction of a sandbox: what one forked child does before it becomes the task.

It knows system calls and a plan, no policy: whoever wrote the plan chose the uid, the binds and the command.
Rule: standard library only, the supervisor starts with this. The order below is the security of it: groups are
entered and folders staged while still root; nothing is executed before the uid is dropped.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 4096, 16384, 1 << 18, 2, 4
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_libc = ctypes.CDLL(None, use_errno=True)


def exec_task(
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    join_files: list[str],
    stage: tuple[str, list[str], str] | None,
    uid: int | None,
    groups: list[int],
    rlimits: list[tuple[int, int]],
) -> None:
    """Become `argv`. Call in a forked child; raises OSError when a step before fails, and returns never.

    `stage` is (folder to cover, sources to show in it as 0, 1, …, name of mounts to let go of).
    """
    for path in join_files:
        with open(path, "w") as file:
            file.write("0")
    if stage is not None:
        stage_sources(*stage)
    os.chdir(cwd)
    os.umask(0o022)
    for kind, limit in rlimits:
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    if uid is not None:
        drop_to(uid, groups)
    die_with_parent(signal.SIGKILL)  # after the drop, which clears it
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        # As a shell would: a command that is not there is the tenant's error, and shows in the task's own log.
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def stage_sources(cover: str, sources: list[str], let_go: str) -> None:
    """In a mount namespace of our own, show `sources` as `cover`/0, `cover`/1 … to any uid. Raises OSError.

    A folder that only root may enter cannot be reached by the sandbox's uid; its bind can. Mounts named `let_go` are
    dropped from the namespace after that, since a copy of another task's disk would keep it from being freed.
    """
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Opened before the cover hides what lies beneath it.
    opened = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]
    _mount("tmpfs", cover, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for index, file in enumerate(opened):
        target = f"{cover}/{index}"
        if os.path.isdir(f"/proc/self/fd/{file}"):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        _mount(f"/proc/self/fd/{file}", target, None, _MS_BIND | _MS_REC)
        os.close(file)
    for point in _mounts_named(let_go):
        _libc.umount2(os.fsencode(point), _MNT_DETACH)


def drop_to(uid: int, groups: list[int]) -> None:
    """Become the user `uid` with the group of that number, for good. Raises OSError."""
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel for `signal_number` when the parent dies. Raises OSError."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends: not every machine's first process takes them in."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def enter_network_of(pid: int) -> None:
    """Join the network namespace of process `pid`. Raises OSError."""
    file = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(file, _CLONE_NEWNET), "setns")
    finally:
        os.close(file)


def _mounts_named(name: str) -> list[str]:
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4].encode().decode("unicode_escape") for line in file]
    return [point for point in reversed(points) if os.path.basename(point) == name]


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = (os.fsencode(text) if text is not None else None for text in (source, target, kind))
    result = _libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() if data is not None else None)
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
