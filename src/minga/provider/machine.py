"""What this machine is, so that it stays the same machine: its description, and the secrets that are made once.

Knows: the probe's facts and the provider's home. Does not know: prices or units. Rule: a file that is not what it
should be is an error, never silently replaced, because a new identity would orphan leases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from minga.core.crypto import Hash32, to_hex
from minga.core.effects import Dice
from minga.core.errors import InvalidInput
from minga.core.spec import Gpu, Machine
from minga.runtimes.probe import MachineFacts
from minga.store.blobs import write_atomic


def describe_machine(facts: MachineFacts, home: Path, dice: Dice) -> Machine:
    """The canonical description of this machine. Blocking.

    Free disk changes with every byte written, the machine does not: the description that is kept in `home` counts for
    as long as the hardware is the same and the disk is not half or twice what it was, so that its hash, under which
    units are counted on chain, stays.

    Raises:
        InvalidInput: the kept node id is damaged.
    """
    new = describe(facts, kept_secret(home / "node", dice))
    path = home / "machine.json"
    try:
        old = Machine.parse(path.read_bytes())
    except (FileNotFoundError, InvalidInput):
        old = new
    same = old.model_copy(update={"disk_bytes": new.disk_bytes}) == new
    if same and old.disk_bytes <= 2 * new.disk_bytes and new.disk_bytes <= 2 * old.disk_bytes:
        new = old
    write_atomic(path, new.canonical())
    return new


def describe(facts: MachineFacts, node: bytes) -> Machine:
    """The description of what was found; `node` is the machine's 32 random bytes."""
    return Machine(
        node=Hash32(to_hex(node)),
        arch=facts.architecture,
        cpu=facts.cpu_model[:128] or "unknown",
        cpus=facts.cpus,
        memory_bytes=facts.memory_bytes,
        disk_bytes=max(1, facts.disk_free_bytes >> 30) << 30,
        gpus=[
            Gpu(vendor=_vendor(gpu.vendor), model=gpu.model[:128], memory_bytes=gpu.memory_bytes) for gpu in facts.gpus
        ],
        os=f"{facts.system} {facts.kernel}"[:128],
    )


def _vendor(name: str) -> Literal["nvidia", "amd", "intel", "apple"]:
    return "amd" if name == "amd" else "nvidia"


def kept_secret(path: Path, dice: Dice) -> bytes:
    """32 random bytes that are made once and stay (mode 0600).

    Raises:
        InvalidInput: the file holds something else.
    """
    try:
        found = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        found = dice.bytes(32)
        write_atomic(path, found.hex().encode() + b"\n")
    except ValueError:
        found = b""
    if len(found) != 32:
        raise InvalidInput(f"{path} is not a key of ours", "restore it, or remove it and get a new identity")
    return found
