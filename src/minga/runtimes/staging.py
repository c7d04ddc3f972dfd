"""What a sandbox sees: from a task to a list of sources to stage and a list of bwrap options.

It makes the files that the sandbox's /etc needs and nothing else; who enters it is the supervisor's affair. Sources
are named by their place in the stage (`/tmp/0`, `/tmp/1` …, see `launch.stage_sources`), because the sandbox is
built by a uid that cannot enter most folders of this machine. Rule: everything is read-only but /job, /tmp,
/dev/shm and the mounts that say so.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from minga.core.errors import InvalidInput
from minga.runtimes.gpus import GpuAccess
from minga.runtimes.relay import EGRESS_PORT
from minga.runtimes.runtime import WORK, Environment, Task

COVER = "/tmp"
HOSTNAME = "minga"
_OWN = ("proc", "dev", "sys", "tmp", "run", "job", "etc")
_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_HOST_ETC = (
    "ld.so.cache",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "ca-certificates/extracted",
)
_PROC_READ_ONLY = ("sys", "bus", "fs", "irq", "sysrq-trigger", "acpi", "scsi")
_PROC_HIDDEN = ("keys", "key-users", "kcore", "timer_list", "sched_debug", "latency_stats", "config.gz")
_SYS_SHOWN = ("/sys/devices/system/cpu", "/sys/devices/system/node")
_SYS_SHOWN_WITH_GPU = ("/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/sys/class/drm", "/sys/class/kfd")
_GPU_FILES = "/run/gpu"


class Stage:
    """Collects sources and options in order."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.options: list[str] = []

    def show(self, source: Path, target: str, writable: bool = False, device: bool = False) -> None:
        """Bind `source`, which only root may reach, to `target`."""
        self.sources.append(str(source))
        kind = "--dev-bind" if device else "--bind" if writable else "--ro-bind"
        self.options += [kind, f"{COVER}/{len(self.sources) - 1}", target]

    def add(self, *options: str) -> None:
        """Append bwrap options."""
        self.options += options


def build(task: Task, state: Path, scratch: Path, uid: int, gpus: GpuAccess, features: frozenset[str]) -> Stage:
    """The stage of `task`; writes a minimal /etc under `state`. `scratch` holds `work` and `tmp`.

    Raises:
        InvalidInput: the environment or a mount is not usable.
    """
    stage = Stage()
    stage.add("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--hostname", HOSTNAME)
    if "--disable-userns" in features:
        stage.add("--disable-userns")
    stage.show(scratch / "work", WORK, writable=True)
    stage.show(scratch / "tmp", "/tmp", writable=True)
    if task.environment.kind == "rootfs":
        _show_rootfs(stage, task.environment.path)
    else:
        _show_system(stage)
        if task.environment.kind == "python":
            _show_python(stage, task.environment.path)
    _show_etc(stage, state, uid)
    _show_kernel(stage, bool(gpus.devices))
    _show_gpus(stage, gpus)
    for mount in sorted(task.mounts, key=lambda mount: mount.target):
        if mount.target == "/" or mount.target.split("/")[1] in ("proc", "dev", "sys", "etc", "usr"):
            raise InvalidInput(f"a mount on {mount.target}", "mount it beneath /job or another folder")
        if not mount.source.exists():
            raise InvalidInput(f"{mount.source} is not there to be mounted", "name a file or folder that is")
        stage.show(mount.source, mount.target, mount.writable)
    stage.add("--remount-ro", "/dev", "--remount-ro", "/")
    return stage


def variables(task: Task, gpus: GpuAccess) -> dict[str, str]:
    """The environment of the task: ours, the GPUs', then its own."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"HOME": WORK, "WORK": WORK, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "job", "LOGNAME": "job"}
    if task.environment.kind == "python":
        path = f"{task.environment.path}/bin:{path}"
        env["VIRTUAL_ENV"] = str(task.environment.path)
    if gpus.files:
        env["LD_LIBRARY_PATH"] = _GPU_FILES
        path = f"{path}:{_GPU_FILES}"
    if task.egress is not None:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            env[name] = f"http://127.0.0.1:{EGRESS_PORT}"
        env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1,localhost"
    return {"PATH": path, **env, **dict(gpus.env), **task.env}


def python_prefixes(path: Path) -> list[Path]:
    """A virtual environment and the base interpreters that it stands on, outside /usr.

    Raises:
        InvalidInput: not a virtual environment, the agent's own, or one whose base is not an interpreter's folder.
    """
    try:
        lines = [line.partition("=") for line in (path / "pyvenv.cfg").read_text().splitlines()]
        home = Path({name.strip(): value.strip() for name, _, value in lines}["home"])
        interpreter = (path / "bin" / "python").resolve(strict=True)
    except (OSError, KeyError, ValueError):
        raise InvalidInput(f"{path} is not a Python environment", "make one with python3 -m venv") from None
    if path.resolve() == Path(sys.prefix).resolve():
        raise InvalidInput(f"{path} is this program's own environment", "make another for jobs")
    bases = dict.fromkeys([home.parent, home.resolve().parent, interpreter.parent.parent])
    if home.resolve().is_relative_to("/usr"):
        bases.pop(Path("/"), None)  # /bin is a link to /usr/bin, which every task sees
    homes = {Path(entry.pw_dir) for entry in pwd.getpwall()} | {Path("/")}
    for base in bases:
        if base in homes:
            raise InvalidInput(f"the base of {path} is the home folder {base}", "install the interpreter elsewhere")
        if not any((base / "lib").glob("python3*")) and not any((base / "lib64").glob("python3*")):
            raise InvalidInput(f"the base of {path} is {base}, which is no interpreter's", "make the environment anew")
    return [path, *(base for base in bases if not base.is_relative_to("/usr"))]


def check_environment(environment: Environment) -> None:
    """Raises InvalidInput when the environment cannot be shown to a task."""
    if not environment.path.is_absolute() or not environment.path.is_dir():
        raise InvalidInput(f"environment {environment.path} is not a folder", "give its absolute path")
    if environment.kind == "python":
        python_prefixes(environment.path)
    elif (environment.kind == "system") != (environment.path == Path("/")):
        fact = f"environment {environment.kind} at {environment.path}"
        raise InvalidInput(fact, "`system` is at /, a `rootfs` in a folder of its own")


def _show_rootfs(stage: Stage, root: Path) -> None:
    for entry in sorted(root.iterdir()):
        if entry.name in _OWN and entry.name != "etc":
            continue
        if entry.is_symlink():
            stage.add("--symlink", os.readlink(entry), f"/{entry.name}")
        elif entry.name == "etc":
            for inner in sorted(entry.iterdir()):
                if inner.is_symlink():
                    stage.add("--symlink", os.readlink(inner), f"/etc/{inner.name}")
                elif inner.name not in _etc_files(0) and (inner.is_dir() or inner.is_file()):
                    stage.show(inner, f"/etc/{inner.name}")
        elif entry.is_dir() or entry.is_file():
            stage.show(entry, f"/{entry.name}")


def _show_system(stage: Stage) -> None:
    stage.add("--ro-bind", "/usr", "/usr")
    for name in _SYSTEM_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            stage.add("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            stage.add("--ro-bind", str(path), str(path))
    for name in _HOST_ETC:
        stage.add("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _show_python(stage: Stage, path: Path) -> None:
    for prefix in python_prefixes(path):
        stage.show(prefix, str(prefix))


def _show_etc(stage: Stage, state: Path, uid: int) -> None:
    folder = state / "etc"
    folder.mkdir(mode=0o755)
    for name, text in _etc_files(uid).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
        stage.show(folder / name, f"/etc/{name}")


def _etc_files(uid: int) -> dict[str, str]:
    return {
        "passwd": f"root:x:0:0::/:/bin/false\njob:x:{uid}:{uid}::{WORK}:/bin/sh\n",
        "group": f"root:x:0:\njob:x:{uid}:\n",
        "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
        "hostname": f"{HOSTNAME}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "",
    }


def _show_kernel(stage: Stage, with_gpus: bool) -> None:
    stage.add("--proc", "/proc")
    for name in _PROC_READ_ONLY:
        if Path("/proc", name).exists():
            stage.add("--ro-bind", f"/proc/{name}", f"/proc/{name}")
    stage.add("--dev", "/dev", "--tmpfs", "/dev/shm")
    for name in _PROC_HIDDEN:
        if Path("/proc", name).exists():
            stage.add("--ro-bind", "/dev/null", f"/proc/{name}")
    for path in (*_SYS_SHOWN, *(_SYS_SHOWN_WITH_GPU if with_gpus else ())):
        if Path(path).exists():
            stage.add("--ro-bind", path, path)


def _show_gpus(stage: Stage, gpus: GpuAccess) -> None:
    for here, inside in gpus.devices:
        stage.show(Path(here), inside, device=True)
    for here, inside in gpus.files:
        # One folder for all: a root file system that is read-only has no place for them elsewhere.
        stage.show(Path(here), f"{_GPU_FILES}/{Path(inside).name}")
