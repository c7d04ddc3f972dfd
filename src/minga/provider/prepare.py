"""From a manifest to a task: unpacks inputs, opens secrets, writes the launcher (`runtimes.launcher` says where).

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
from minga.core.spec import ENVS_MAX, Bundle, Manifest, UnitSize
from minga.provider.points import reach
from minga.runtimes.launcher import LAUNCH, environment_at, lay_out, write_launcher
from minga.runtimes.runtime import Limits, Task
from minga.runtimes.unpacking import unpack
from minga.store.blobs import BlobStore
from minga.store.checkpoints import assemble

SECRETS_INFO = b"minga secrets"
SETUP_SECONDS = 1800
HEARTBEAT_SECONDS = 60


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

    def unpacked(bundle: Bundle, folder: Path, left: int) -> None:
        if bundle.kind == "checkpoint":
            assemble(place.blobs, bundle.blake3, folder, left)
        else:
            unpack(place.blobs.path(bundle.blake3), folder, left)
        reach("provider.prepare.unpacked")

    inputs, mounts = lay_out(manifest.inputs, place.stage, manifest.size.disk_bytes, unpacked)
    inputs.append(write_launcher(place.stage / "minga", manifest.setup, manifest.run))
    return Task(
        task_id=task_id(channel),
        argv=LAUNCH,
        environment=environment_at(environment),
        limits=limits_of(manifest.size, gpus).only(enforced),
        env=variables(manifest) | open_secrets(manifest, channel, secret),
        mounts=tuple(mounts),
        inputs=tuple(inputs),
        egress=egress,
        ports=tuple(manifest.ports),
    )


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
