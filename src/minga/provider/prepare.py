"""From a manifest to a task: unpacks inputs, opens secrets, writes the launcher.

| inside the job    | what                                                          |
|-------------------|---------------------------------------------------------------|
| work              | where it starts; workdir and mounts under it                  |
| out               | $MINGA_OUTPUT_DIR: everything here comes back                 |
| checkpoint        | $MINGA_CHECKPOINT_DIR                                         |
| home, venv        | $HOME; packages that `setup` installs                         |
| progress.jsonl    | $MINGA_PROGRESS                                               |
| .minga            | launcher, the texts of `setup` and `run`, the started marker  |

Knows: files and variables. Does not know: when to start or who pays. Rule: secrets exist opened only in the task's
environment, which the runtime keeps off disks; on disk and in journals they stay sealed. Blocking.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from minga.core.codec import parse_json
from minga.core.crypto import from_hex
from minga.core.errors import InvalidInput
from minga.core.seal import open_sealed
from minga.core.spec import ENVS_MAX, Manifest, UnitSize
from minga.provider.admission import place_of
from minga.provider.checkpoints import assemble
from minga.provider.inputs import unpack
from minga.provider.points import reach
from minga.runtimes.runtime import Environment, Input, Limits, Mount, Task
from minga.store.blobs import BlobStore

SECRETS_INFO = b"minga secrets"
STARTED = ".minga/started"
SETUP_SECONDS = 1800
HEARTBEAT_SECONDS = 60

LAUNCHER = """\
cd "$(dirname "$0")/.." || exit 125
root=$(pwd)
umask 022
mkdir -p work out checkpoint home
export HOME="$root/home" MINGA_OUTPUT_DIR="$root/out" MINGA_CHECKPOINT_DIR="$root/checkpoint"
export MINGA_PROGRESS="$root/progress.jsonl"
case ${PYTHONPATH:-} in /job/*) export PYTHONPATH="$root${PYTHONPATH#/job}" ;; esac
case ${MINGA_TRACE_DIR:-} in /job/*) export MINGA_TRACE_DIR="$root${MINGA_TRACE_DIR#/job}" ;; esac
shell=$(command -v bash || echo /bin/sh)
cd work || exit 125
if [ -s ../.minga/setup.sh ]; then
  if [ -n "$VIRTUAL_ENV" ] && [ -n "$MINGA_EGRESS" ]; then
    python -m venv --without-pip "$root/venv" || exit 125
    site=$(echo "$root"/venv/lib/python3*/site-packages)
    echo "$VIRTUAL_ENV"/lib/python3*/site-packages > "$site/provider.pth"
    printf '#!/bin/sh\\nexec "%s/venv/bin/python" -m pip "$@"\\n' "$root" > "$root/venv/bin/pip"
    chmod 755 "$root/venv/bin/pip"
    export VIRTUAL_ENV="$root/venv" PATH="$root/venv/bin:$PATH"
  fi
  "$shell" ../.minga/setup.sh || exit
fi
: > ../.minga/started
exec "$shell" ../.minga/run.sh
"""
"""Runs before anything of the tenant's. `exit` after a failed set-up keeps its code.

Where the job's folder is not `/job` (a plain process), the trace's folders are beneath it all the same.
"""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where one lease's files stand on this machine."""

    folder: Path

    @property
    def stage(self) -> Path:
        """Unpacked inputs; gone once the task has its own copy, but for read-only mounts."""
        return self.folder / "stage"

    @property
    def log(self) -> Path:
        """The job's output as the tenant reads it."""
        return self.folder / "log"

    @property
    def blobs(self) -> BlobStore:
        """This lease's own blobs: no tenant can see or poison another's."""
        return BlobStore(self.folder / "blobs")

    def clear_stage(self) -> None:
        """Delete the unpacked inputs; idempotent."""
        shutil.rmtree(self.stage, ignore_errors=True)

    def remove(self) -> None:
        """Delete everything; idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)


def prepare(
    place: Workplace,
    manifest: Manifest,
    channel: str,
    secret: bytes,
    environment: Path,
    gpus: tuple[str, ...],
    egress: Path | None,
    enforced: frozenset[str],
) -> Task:
    """The task of a lease, its inputs unpacked. May be called again after a crash: what it made before is made anew.

    Args:
        place: the lease's folder; its blobs hold all inputs.
        manifest: what to run, checked.
        channel: channel id; names the task and binds the secrets.
        secret: the transport key's secret half.
        environment: folder of the environment that the manifest names.
        gpus: CDI names of the devices set aside.
        egress: socket of the allow-list proxy, if the job may reach anybody.
        enforced: limits that the runtime holds; only a driver that is openly no sandbox lacks some.

    Raises:
        InvalidInput: secrets that cannot be opened or are no map of names to text; a broken archive.
        UnsafePath, TooLarge: an archive that escapes, or is larger than was ordered.
        DiskFull: no room.
    """
    place.clear_stage()
    left = manifest.size.disk_bytes
    inputs: list[Input] = []
    mounts: list[Mount] = []
    for index, bundle in enumerate(manifest.inputs):
        folder = place.stage / str(index)
        if bundle.kind == "checkpoint":
            assemble(place.blobs, bundle.blake3, folder, left)
        else:
            unpack(place.blobs.path(bundle.blake3), folder, left)
        left -= sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        target = place_of(bundle)
        if target.is_absolute():
            mounts.append(Mount(folder, str(target)))
        else:
            inputs.append(Input(folder, str(target)))
        reach("provider.prepare.unpacked")
    inputs.append(Input(_launcher(place.stage / "minga", manifest), ".minga"))
    return Task(
        task_id=task_id(channel),
        argv=("/bin/sh", ".minga/launch.sh"),
        environment=environment_at(environment),
        limits=limits_of(manifest.size, gpus).only(enforced),
        env=variables(manifest) | open_secrets(manifest, channel, secret),
        mounts=tuple(mounts),
        inputs=tuple(inputs),
        egress=egress,
        ports=tuple(manifest.ports),
    )


def environment_at(path: Path) -> Environment:
    """What a folder is to a job: `/` this machine's system, else a Python environment or a root file system."""
    if path == Path("/"):
        return Environment("system")
    return Environment("python" if (path / "pyvenv.cfg").is_file() else "rootfs", path)


def task_id(channel: str) -> str:
    """The runtime's name of a lease's task; short, because sockets stand below it."""
    return channel[2:34]


def limits_of(size: UnitSize, gpus: tuple[str, ...]) -> Limits:
    """The runtime's limits for what the manifest ordered."""
    return Limits(
        cpus_milli=size.cpu_milli,
        memory_bytes=size.memory_bytes,
        disk_bytes=size.disk_bytes,
        pids=size.pids,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        gpus=gpus,
    )


def variables(manifest: Manifest) -> dict[str, str]:
    """The job's environment without its secrets: its own, then ours, then the basics that SkyPilot's tasks read."""
    cpus = max(1, manifest.size.cpu_milli // 1000)
    ours = {
        "MINGA_JOB": manifest.job,
        "MINGA_ATTEMPT": str(manifest.attempt),
        "MINGA_CPUS": str(cpus),
        "SKYPILOT_NODE_RANK": "0",
        "SKYPILOT_NUM_NODES": "1",
        "SKYPILOT_NODE_IPS": "127.0.0.1",
        "SKYPILOT_NUM_GPUS_PER_NODE": str(manifest.size.gpus),
        "SKYPILOT_TASK_ID": f"minga-{manifest.job[2:18]}-{manifest.attempt}",
    }
    if manifest.egress:
        ours["MINGA_EGRESS"] = " ".join(manifest.egress)
    return {"OMP_NUM_THREADS": str(cpus)} | manifest.envs | ours


def open_secrets(manifest: Manifest, channel: str, secret: bytes) -> dict[str, str]:
    """The secrets of a manifest; empty when it has none.

    Raises:
        InvalidInput: they cannot be opened, or are no map of names to text.
    """
    if not manifest.secrets:
        return {}
    plain = open_sealed(bytes.fromhex(manifest.secrets), secret, secrets_info(channel))
    try:
        found = parse_json(plain)
    except InvalidInput:
        found = None  # what is in there must not reach a message
    names_fit = isinstance(found, dict) and len(found) <= ENVS_MAX
    if not names_fit or not all(isinstance(value, str) and "\0" not in value for value in found.values()):
        raise InvalidInput("the secrets are not a map of names to text", "seal a JSON object of strings")
    if not all(name.isidentifier() and name.isascii() for name in found):
        raise InvalidInput("a secret's name is not that of a variable", "use letters, digits and underscores")
    return dict(found)


def secrets_info(channel: str) -> bytes:
    """What binds sealed secrets to one lease."""
    return SECRETS_INFO + from_hex(channel)


def _launcher(folder: Path, manifest: Manifest) -> Path:
    # Not synced: whatever a crash leaves here is made anew.
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("launch.sh", LAUNCHER), ("setup.sh", manifest.setup), ("run.sh", manifest.run)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder
