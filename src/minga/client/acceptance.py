"""The tenant's own check of checkpoints: a command on this machine, for each new one, before it counts and is paid for.

Does not know: where checkpoints come from, nor what follows. Rule: exit code 0 accepts and 1 … 125 rejects; a command
that cannot run, is killed or runs over its time judges nothing, since that is not the provider's doing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import anyio
from anyio.abc import Process

from minga.core.errors import InvalidInput

REJECTIONS = range(1, 126)
OUTPUT_CHARS = 500
OUTPUT_BYTES_MAX = 1 << 20

Tell = Callable[[str, dict[str, Any]], None]


def acceptance(check: dict[str, Any] | None, tell: Tell) -> Callable[[Path], Awaitable[bool]] | None:
    """The check that an order names, or None.

    Args:
        check: `{run, folder, timeout_s}` of the order.
        tell: is told `check {accepted, exit_code, output}` of each run.
    """
    if check is None:
        return None

    async def accept(checkpoint: Path) -> bool:
        code, output = await _run(str(check["run"]), Path(check["folder"]), checkpoint, int(check["timeout_s"]))
        tell("check", {"accepted": code == 0, "exit_code": code, "output": output})
        if code and code not in REJECTIONS:
            said = f": {output}" if output else ""
            raise InvalidInput(f"the accept command judged nothing, exit code {code}{said}", "run it by hand")
        return code == 0

    return accept


async def _run(command: str, folder: Path, checkpoint: Path, timeout_s: int) -> tuple[int, str]:
    """Exit code (negative: a signal's) and the end of what it said.

    Raises:
        InvalidInput: it cannot be started, or is not over in time.
    """
    env = os.environ | {"MINGA_CHECKPOINT_DIR": str(checkpoint)}
    try:
        process = await anyio.open_process(
            ["bash", "-c", command], stdin=None, stdout=PIPE, stderr=STDOUT, cwd=folder, env=env, start_new_session=True
        )
    except OSError as error:
        raise InvalidInput(f"the accept command cannot be started: {error.strerror}", "run it by hand") from None
    said = bytearray()
    try:
        with anyio.fail_after(timeout_s):
            await _read(process, said)
            code = await process.wait()
    except TimeoutError:
        raise InvalidInput(
            f"the accept command was not over in {timeout_s} s", "make it faster, or raise accept.timeout"
        ) from None
    finally:
        _end(process)
        with anyio.CancelScope(shield=True):
            await process.aclose()
    return code, said.decode(errors="replace").strip()[-OUTPUT_CHARS:]


async def _read(process: Process, said: bytearray) -> None:
    assert process.stdout is not None
    async for data in process.stdout:
        said += data
        del said[:-OUTPUT_BYTES_MAX]


def _end(process: Process) -> None:
    """Kill what is left of it: it leads a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
