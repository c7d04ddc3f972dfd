"""What one unit was measured to do, kept so that a restart promises the same at once.

Knows: when a measurement counts. Does not know: how it is made (`probing`). Rule: it counts for a week, on the same
machine cut into the same units; a measurement that fails promises nothing and stops nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from minga.core.codec import canonical_json, parse_json
from minga.core.crypto import keccak, to_hex
from minga.core.errors import InvalidInput
from minga.core.spec import Machine, Speed, UnitSize
from minga.core.units import DAY
from minga.store.blobs import write_atomic

KEPT_SECONDS = 7 * DAY


def key_of(machine: Machine, unit: UnitSize, units: int, environment: str) -> str:
    """What a measurement is of: the machine, how it is cut, and the environment that it was made with."""
    parts = [machine.hash32(), unit.plain(), units, environment]
    return to_hex(keccak(canonical_json(parts)))


async def kept_speed(
    path: Path, key: str, now: int, again: bool, measure: Callable[[], Awaitable[Speed]]
) -> tuple[Speed, int]:
    """The speed that is promised, and when it was measured (Unix seconds).

    Args:
        path: the file that keeps it.
        key: what it is of; see `key_of`.
        now: Unix seconds.
        again: measure whatever is kept.
        measure: measures, for seconds.

    Raises:
        MingaError: what `measure` raises, if nothing that still counts is kept.
        DiskFull: it could not be kept.
    """
    kept = await anyio.to_thread.run_sync(_read, path, key)
    if kept is not None and not again and 0 <= now - kept[1] < KEPT_SECONDS:
        return kept
    speed = await measure()
    body = canonical_json({"key": key, "at": now, "speed": speed.plain()})
    await anyio.to_thread.run_sync(write_atomic, path, body)
    return speed, now


def _read(path: Path, key: str) -> tuple[Speed, int] | None:
    try:
        body = parse_json(path.read_bytes())
        return (Speed.parse(body["speed"]), int(body["at"])) if body["key"] == key else None
    except (OSError, InvalidInput, KeyError, TypeError, ValueError):
        return None
