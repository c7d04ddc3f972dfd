"""What the machine is: facts that hold on any, and makers' tools that answer, fail or are not there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from minga.runtimes import probe
from minga.runtimes.probe import Gpu


def test_the_machine_has_what_it_must(tmp_path: Path) -> None:
    facts = probe.machine(tmp_path)
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.memory_bytes > 1 << 28
    assert facts.disk_free_bytes > 0
    assert facts.architecture
    assert facts.cpu_model
    assert facts.system == "linux"


def test_every_prerequisite_that_is_missing_says_what_to_do() -> None:
    facts = probe.prerequisites()
    assert {"root", "bubblewrap", "control groups", "disk images", "gpus"} <= {fact.name for fact in facts}
    assert all(fact.ok or fact.remedy for fact in facts)


class Nvml:
    """NVML with one GPU; `broken` raises in the middle, `absent` has no driver."""

    class NVMLError(Exception):
        pass

    def __init__(self, broken: bool = False, absent: bool = False) -> None:
        self._broken, self._absent = broken, absent
        self.open = False

    def nvmlInit(self) -> None:
        if self._absent:
            raise self.NVMLError
        self.open = True

    def nvmlShutdown(self) -> None:
        self.open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        if self._broken:
            raise self.NVMLError
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return type("Memory", (), {"total": 150 << 30})()

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return "GPU-1"


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (Nvml(), (Gpu("nvidia.com/gpu=0", "nvidia", "NVIDIA H200", 150 << 30, "GPU-1", "580.1"),)),
        (Nvml(broken=True), ()),
        (Nvml(absent=True), ()),
    ],
    ids=["one", "broken", "absent"],
)
def test_nvidia_gpus_are_named_or_missing(
    library: Nvml, expected: tuple[Gpu, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", library)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert probe.gpus() == expected
    assert not library.open


AMD = {
    "card0": {"Card Series": "Instinct MI300X", "VRAM Total Memory (B)": "206158430208", "Unique ID": "0x1"},
    "card1": {"Card Series": "Instinct MI300X", "VRAM Total Memory (B)": "206158430208", "Unique ID": "0x2"},
    "system": {"Driver version": "6.8"},
}


def test_amd_gpus_are_read_from_their_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "rocm-smi"
    tool.write_text(f"#!/bin/sh\necho '{json.dumps(AMD)}'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml(absent=True))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = probe.gpus()
    assert [gpu.device for gpu in found] == ["amd.com/gpu=0", "amd.com/gpu=1"]
    assert found[0] == Gpu("amd.com/gpu=0", "amd", "Instinct MI300X", 206158430208, "0x1", "6.8")
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert probe.gpus() == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "WARNING: none", '{"card0": {}}', '{"card0": {"VRAM Total Memory (B)": "x"}}']
)
def test_a_tool_that_talks_nonsense_found_nothing(text: str) -> None:
    assert probe.parse_rocm_smi(text) == ()


def test_root_is_reached_by_sudo_only_where_it_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.root_command(["minga"]) == (["minga"] if os.geteuid() == 0 else probe.root_command(["minga"]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe.root_command(["minga"]) is None
    sudo = tmp_path / "sudo"
    for code in (1, 0):
        sudo.write_text(f"#!/bin/sh\nexit {code}\n")
        sudo.chmod(0o755)
        found = probe.root_command(["minga", "provide"])
        assert found == (None if code else [str(sudo), "-n", "--preserve-env=PATH,HOME", "--", "minga", "provide"])
