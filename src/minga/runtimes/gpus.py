"""Which device nodes, libraries and variables a GPU needs, from the machine's CDI specifications.

It knows names and files, starts nothing and runs no hook: NVIDIA's container hooks have had a hole every few months,
and a static list has none. Without a specification, NVIDIA's well-known nodes are used. Rule: only what is named.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.core.errors import LimitNotEnforceable

CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
_SPEC_BYTES_MAX = 4 << 20
_NVIDIA_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")


@dataclass(frozen=True, slots=True)
class GpuAccess:
    """Device nodes as (path here, path inside), files as (path here, path inside), variables; all by exact name."""

    devices: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def groups(self) -> list[int]:
        """Groups that a user must be in to open the devices; root's never."""
        infos = [Path(here).stat() for here, _ in self.devices]
        needed = {info.st_gid for info in infos if not info.st_mode & stat.S_IWOTH and info.st_mode & stat.S_IWGRP}
        return sorted(needed - {0})


def access(names: tuple[str, ...], folders: tuple[Path, ...] = CDI_FOLDERS, dev: Path = Path("/dev")) -> GpuAccess:
    """What the devices `names` (`vendor/class=name`) need.

    Raises:
        LimitNotEnforceable: a device is not described here, or a node it needs is missing.
    """
    if not names:
        return GpuAccess()
    try:
        return _access(names, list(_specs(folders)), dev)
    except (AttributeError, KeyError, TypeError, OSError) as error:
        raise LimitNotEnforceable(f"a CDI specification is malformed: {error}"[:200], "write it anew") from error


def _access(names: tuple[str, ...], specs: list[dict[str, Any]], dev: Path) -> GpuAccess:
    edits: list[dict[str, Any]] = []
    for name in names:
        kind, _, device = name.partition("=")
        found = [spec for spec in specs if spec.get("kind") == kind]
        matching = [
            (spec, entry) for spec in found for entry in spec.get("devices") or [] if str(entry.get("name")) == device
        ]
        if matching:
            spec, entry = matching[0]
            edits += [spec.get("containerEdits") or {}, entry.get("containerEdits") or {}]
        elif kind == "nvidia.com/gpu" and not found and device.isdigit():
            edits.append(_well_known(device, dev))
        else:
            raise LimitNotEnforceable(f"no device {name!r} is described here", "write a CDI specification of it")
    return _merge(edits)


def _merge(edits: list[dict[str, Any]]) -> GpuAccess:
    devices: dict[str, str] = {}
    files: dict[str, str] = {}
    env: dict[str, str] = {}
    for edit in edits:
        for node in edit.get("deviceNodes") or []:
            devices[str(node["path"])] = str(node.get("hostPath") or node["path"])
        for mount in edit.get("mounts") or []:
            if Path(str(mount["hostPath"])).is_file():  # sockets and folders are daemons' doors: not handed over
                files[str(mount["containerPath"])] = str(mount["hostPath"])
        for pair in edit.get("env") or []:
            name, _, value = str(pair).partition("=")
            env[name] = value
    for here in devices.values():
        if not Path(here).is_char_device():
            raise LimitNotEnforceable(f"{here} is not a device here", "load the GPU's driver")
    return GpuAccess(
        tuple((here, inside) for inside, here in devices.items()),
        tuple((here, inside) for inside, here in files.items()),
        tuple(env.items()),
    )


def _well_known(index: str, dev: Path) -> dict[str, Any]:
    shared = [dev / name for name in _NVIDIA_SHARED if (dev / name).exists()]
    return {"deviceNodes": [{"path": str(path)} for path in (dev / f"nvidia{index}", *shared)]}


def _specs(folders: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            if path.suffix not in (".json", ".yaml", ".yml") or path.stat().st_size > _SPEC_BYTES_MAX:
                continue
            spec = _parse(path)
            if isinstance(spec, dict):
                yield spec


def _parse(path: Path) -> Any:
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return None
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError:
            return None
    import yaml  # slow to import, and only a machine with such a file needs it

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
