"""CDI specifications: what is taken from them, what is not, and what refuses."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from minga.core.errors import LimitNotEnforceable
from minga.runtimes import gpus

SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "containerEdits": {
        "env": ["COMMON=1"],
        "deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": "/dev/zero"}],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/anything"}],
    },
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}},
        {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/full"}]}},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the specification of two devices that are none."""
    path = tmp_path / "cdi"
    path.mkdir()
    mounts = [{"hostPath": str(tmp_path / "lib"), "containerPath": "/usr/lib/libcuda.so.1"}]
    mounts.append({"hostPath": str(tmp_path), "containerPath": "/run/daemon"})
    (tmp_path / "lib").touch()
    (path / "nvidia.json").write_text(
        json.dumps(SPEC | {"containerEdits": SPEC["containerEdits"] | {"mounts": mounts}})
    )
    return path


def test_one_device_brings_what_it_needs_and_no_more(folder: Path) -> None:
    found = gpus.access(("nvidia.com/gpu=1",), (folder,))
    assert found.devices == (("/dev/zero", "/dev/nvidiactl"), ("/dev/full", "/dev/nvidia1"))
    assert found.files == ((str(folder.parent / "lib"), "/usr/lib/libcuda.so.1"),), "files only: no daemon's folder"
    assert found.env == (("COMMON", "1"),)


def test_two_devices_share_what_is_common(folder: Path) -> None:
    found = gpus.access(("nvidia.com/gpu=0", "nvidia.com/gpu=1"), (folder,))
    assert [inside for _, inside in found.devices] == ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"]


def test_yaml_is_read_too(folder: Path) -> None:
    (folder / "nvidia.json").unlink()
    (folder / "amd.yaml").write_text(
        "kind: amd.com/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: /dev/null\n"
    )
    assert gpus.access(("amd.com/gpu=0",), (folder,)).devices == (("/dev/null", "/dev/null"),)


def test_no_device_is_nothing(tmp_path: Path) -> None:
    assert gpus.access((), (tmp_path / "none",)) == gpus.GpuAccess()


@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu=7", "other.com/gpu=0", "nvidia.com/gpu", "", "nvidia.com/gpu=../null"]
)
def test_a_device_that_is_not_described_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(LimitNotEnforceable):
        gpus.access((name,), (folder,))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "nvidia.com/gpu"}'])
def test_a_broken_specification_describes_nothing(folder: Path, text: str) -> None:
    (folder / "nvidia.json").write_text(text)
    (folder / "also.yaml").write_text("a: [")
    with pytest.raises(LimitNotEnforceable):
        gpus.access(("nvidia.com/gpu=0",), (folder,), dev=folder)


def test_a_node_that_is_no_device_is_refused(folder: Path) -> None:
    text = (folder / "nvidia.json").read_text().replace("/dev/null", "/etc/passwd")
    (folder / "nvidia.json").write_text(text)
    with pytest.raises(LimitNotEnforceable):
        gpus.access(("nvidia.com/gpu=0",), (folder,))


def test_without_a_specification_the_well_known_nodes_are_used(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).symlink_to("/dev/null")
    found = gpus.access(("nvidia.com/gpu=0",), (), dev=tmp_path)
    assert [Path(inside).name for _, inside in found.devices] == ["nvidia0", "nvidiactl", "nvidia-uvm"]
    with pytest.raises(LimitNotEnforceable):
        gpus.access(("nvidia.com/gpu=1",), (), dev=tmp_path)


def test_groups_are_those_that_the_devices_need(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {"/a": (0o660, 44), "/b": (0o666, 45), "/c": (0o660, 0), "/d": (0o600, 46)}

    def fake_stat(path: Path) -> object:
        mode, group = modes[str(path)]
        return type("Stat", (), {"st_mode": stat.S_IFCHR | mode, "st_gid": group})()

    monkeypatch.setattr(Path, "stat", fake_stat)
    assert gpus.GpuAccess(tuple((name, name) for name in modes)).groups() == [44]
