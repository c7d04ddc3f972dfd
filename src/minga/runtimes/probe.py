"""What this machine is and what it can run: facts for the offer and for `minga doctor`.

It asks the kernel, NVML (loaded only here and only when asked) and AMD's tool as a process of its own, because its
library breaks others in the same process. It changes nothing. Rule: a part that does not answer is missing, never an
error and never a guess.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.runtimes import bubblewrap
from minga.runtimes.runtime import Fact

_TOOL_SECONDS_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its CDI name, model as its maker writes it, memory in bytes, uuid, driver version."""

    device: str
    vendor: str
    model: str
    memory_bytes: int
    uuid: str
    driver: str


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a machine has. `cpus` are those this process may use; `disk_free_bytes` is of the folder asked about."""

    architecture: str
    system: str
    kernel: str
    cpu_model: str
    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...]


def machine(folder: Path = Path("/")) -> MachineFacts:
    """Look at this machine; `folder` is where tasks' disks will lie. Blocks, with an AMD tool for seconds."""
    affinity = getattr(os, "sched_getaffinity", None)
    return MachineFacts(
        architecture=platform.machine(),
        system=platform.system().lower(),
        kernel=platform.release(),
        cpu_model=_cpu_model(),
        cpus=len(affinity(0)) if affinity else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_free_bytes=shutil.disk_usage(folder).free,
        gpus=gpus(),
    )


def gpus() -> tuple[Gpu, ...]:
    """All GPUs that their makers' tools report, NVIDIA's first."""
    return (*_nvidia(), *_amd())


def prerequisites() -> tuple[Fact, ...]:
    """What running other people's jobs needs here, found or missing, with how to get it. Starts nothing."""
    found = gpus()
    described = ", ".join(gpu.model for gpu in found) or "none"
    return (*bubblewrap.prerequisites(), Fact("gpus", True, described))


def root_command(argv: list[str]) -> list[str] | None:
    """`argv` as root may run it: as it is for root, with `sudo -n` where that asks for no password, else None."""
    if os.geteuid() == 0:
        return argv
    sudo = shutil.which("sudo")
    if sudo is None or _output([sudo, "-n", "true"]) is None:
        return None
    return [sudo, "-n", "--preserve-env=PATH,HOME", "--", *argv]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _nvidia() -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                f"nvidia.com/gpu={index}",
                "nvidia",
                str(pynvml.nvmlDeviceGetName(handle)),
                int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                str(pynvml.nvmlDeviceGetUUID(handle)),
                driver,
            )
            for index, handle in enumerate(handles)
        )
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _amd() -> tuple[Gpu, ...]:
    tool = shutil.which("rocm-smi")
    text = _output([tool, "--showproductname", "--showmeminfo", "vram", "--showuniqueid", "--json"]) if tool else None
    return parse_rocm_smi(text) if text else ()


def parse_rocm_smi(text: str) -> tuple[Gpu, ...]:
    """GPUs from the JSON of `rocm-smi --showproductname --showmeminfo vram --showuniqueid --showdriverversion`."""
    try:
        cards: dict[str, dict[str, Any]] = json.loads(text)
        driver = str(cards.get("system", {}).get("Driver version", ""))
        return tuple(
            Gpu(
                f"amd.com/gpu={name.removeprefix('card')}",
                "amd",
                str(card.get("Card Series") or card.get("Card series") or "AMD GPU"),
                int(card["VRAM Total Memory (B)"]),
                str(card.get("Unique ID", "")),
                driver,
            )
            for name, card in sorted(cards.items())
            if name.startswith("card")
        )
    except (ValueError, KeyError, AttributeError):
        return ()


def _output(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TOOL_SECONDS_MAX, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
