"""How busy GPUs are, asked of NVIDIA's library (NVML), which is loaded at the first question about such a device.

Knows CDI names (`nvidia.com/gpu=0`, or a uuid for the index). Does not know leases. Rule: a device that does not
answer is not known, never idle.
"""

from __future__ import annotations

from collections.abc import Sequence

_KIND = "nvidia.com/gpu="


def busy_percent(devices: Sequence[str]) -> int | None:
    """The mean use of these devices over their last sampling period (≤ 1 s), 0 … 100; None when one cannot tell.

    Blocks for some milliseconds, the first time for some hundred.
    """
    if not devices or not all(name.startswith(_KIND) for name in devices):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()  # counted by the library: only the first one costs
        readings = [int(pynvml.nvmlDeviceGetUtilizationRates(_handle(pynvml, name)).gpu) for name in devices]
    except pynvml.NVMLError:
        return None
    return sum(readings) // len(readings)


def _handle(nvml: object, name: str) -> object:
    device = name.removeprefix(_KIND)
    if device.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(device))  # type: ignore[attr-defined]
    return nvml.nvmlDeviceGetHandleByUUID(device)  # type: ignore[attr-defined]
