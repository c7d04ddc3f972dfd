"""Names of accelerators: one form for what drivers, job files and people write.

`NVIDIA GeForce RTX 4090`, `RTX 4090`, `rtx-4090` and `4090` are `RTX4090`; `NVIDIA H100 80GB HBM3` is `H100` with
80 GB; `A100-80GB` asks for an A100 of 80 GB. A form factor (`SXM`, `PCIE`, `NVL`) counts only when somebody asks for
it. Does not know which cards exist: an unknown name is a name that no machine has.

Rule: normalising is idempotent, and case, spaces, dashes and vendor words never matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from minga.core.errors import InvalidInput

GIB = 1024**3
COUNT_MAX = 64
_VENDORS = ("NVIDIA", "GEFORCE", "TESLA", "AMD", "RADEON", "INSTINCT", "INTEL", "APPLE")
_NOISE = frozenset(
    (*_VENDORS, "GENERATION", "GRAPHICS", "GPU", "TM", "R", "C", "HBM", "HBM2", "HBM2E", "HBM3", "HBM3E")
)
_FORM = re.compile(r"^(SXM\d*|PCIE|NVL|OAM)$")
_MEMORY = re.compile(r"^(\d{1,4})GI?B$")
_JOINED = re.compile(r"(\d{1,4})\s*(GI?B)\b")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A normalised name: `model` (`RTX4090`), `memory_gb` if the name says one, `form` (`SXM`) or empty."""

    model: str
    memory_gb: int | None = None
    form: str = ""

    def meets(self, wanted: Accelerator, memory_bytes: int) -> bool:
        """Whether a card of this name with `memory_bytes` is what `wanted` asks for.

        Drivers report a few per cent less memory than a card's name says, so 7 % are allowed for.
        """
        if wanted.model and wanted.model != self.model:
            return False
        if wanted.form and wanted.form != self.form:
            return False
        return wanted.memory_gb is None or memory_bytes * 100 >= wanted.memory_gb * 10**9 * 93

    def __str__(self) -> str:
        parts = [self.model, self.form, f"{self.memory_gb}GB" if self.memory_gb else ""]
        return "-".join(part for part in parts if part)


def normalise_gpu(text: str) -> Accelerator:
    """The normalised name of an accelerator.

    Raises:
        InvalidInput: empty, over 128 characters, or with other characters than letters, digits and ` -_./()`.
    """
    if not re.fullmatch(r"[A-Za-z0-9 \-_./()]{1,128}", text):
        raise InvalidInput(f"{text[:80]!r} is not an accelerator's name", "write it as H100, RTX4090 or A100-80GB")
    source = _JOINED.sub(r" \1\2 ", text.upper())
    model, memory, form = [], None, ""
    for token in re.split(r"[ \-_./()]+", source):
        found = _MEMORY.match(token)
        if found:
            memory = int(found.group(1))
        elif _FORM.match(token):
            form = token.rstrip("0123456789")
        elif token and token not in _NOISE:
            model.append(token)
    name = "".join(model)
    if not name:
        raise InvalidInput(f"{text[:80]!r} names no accelerator", "write it as H100, RTX4090 or A100-80GB")
    if re.fullmatch(r"[2-5]0[5-9]0(TI|SUPER|TISUPER|D)?", name):
        name = ("GTX" if name[:2] == "10" else "RTX") + name
    return Accelerator(name, memory, form)


@dataclass(frozen=True, slots=True)
class GpuWish:
    """`count` (1 … 64) accelerators named `name`; an empty model means any."""

    name: Accelerator
    count: int

    def __str__(self) -> str:
        return f"{self.name if self.name.model else 'any'}:{self.count}"


def parse_accelerators(value: Any) -> tuple[GpuWish, ...]:
    """Alternatives, any of which will do: `"H100:8"`, `"H100"`, `{"H100": 8}`, `["A100:1", "H100"]`.

    A bare count (`2`, `"any:2"`) means that many of any model. None or an empty value asks for none.

    Raises:
        InvalidInput: another type, a bad name, or a count that is not 1 … 64.
    """
    if value is None or value == "" or value == {} or value == []:
        return ()
    if isinstance(value, int) and not isinstance(value, bool):
        return (_wish(f"any:{value}"),)
    if isinstance(value, str):
        return tuple(_wish(part) for part in value.split(","))
    if isinstance(value, dict):
        return tuple(_wish(f"{name}:{1 if count is None else count}") for name, count in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(wish for part in value for wish in parse_accelerators(part))
    raise InvalidInput(f"{type(value).__name__} does not name accelerators", "write it as H100:8")


def _wish(text: str) -> GpuWish:
    name, _, count = text.strip().partition(":")
    if name.isascii() and name.isdigit() and not count and len(name) <= 2:
        name, count = "any", name
    count = count.strip() or "1"
    if not (re.fullmatch(r"[0-9]{1,4}", count) and 1 <= int(count) <= COUNT_MAX):
        raise InvalidInput(f"{text[:80]!r}: the count must be a whole number, 1 … {COUNT_MAX}", "write it as H100:8")
    wanted = Accelerator("") if name.strip().lower() in ("any", "gpu") else normalise_gpu(name.strip())
    return GpuWish(wanted, int(count))
