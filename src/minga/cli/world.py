"""The real world: clock, dice, signals, and the kill points of tests.

Everything below the command line gets these as arguments. Only here may a program ask what time it is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FAULT = "MINGA_FAULT"
FAULT_MARK = "MINGA_FAULT_MARK"


class RealClock:
    """This machine's clocks (`minga.core.effects.Clock`)."""

    def now(self) -> int:
        """Unix time in whole seconds."""
        return int(time.time())

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never decreases."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; returns early only by cancellation."""
        import anyio

        await anyio.sleep(seconds)


class RealDice:
    """The system's random bytes (`minga.core.effects.Dice`)."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes, fit for keys."""
        return os.urandom(count)


def install_faults(environ: Mapping[str, str] = os.environ) -> None:
    """Kill this process, as kill -9 would, when the point that `MINGA_FAULT` names is reached.

    With `MINGA_FAULT_MARK`, a file, only the first process that comes there dies: the file is made at that moment.
    Nothing is installed when `MINGA_FAULT` is not set.
    """
    wanted, mark = environ.get(FAULT), environ.get(FAULT_MARK)
    if not wanted:
        return
    from minga.core import faults

    def kill(point: str) -> None:
        if point == wanted and _first(mark):
            os.kill(os.getpid(), signal.SIGKILL)

    faults.install(kill)


def _first(mark: str | None) -> bool:
    if mark is None:
        return True
    try:
        os.close(os.open(Path(mark), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run an async main function to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""
    import anyio

    return anyio.run(main)


async def run_until_signal(main: Callable[[Any], Coroutine[Any, Any, None]], at_once: Any = None) -> None:
    """Run `main(stop)`; SIGTERM and SIGINT set `stop` (an `anyio.Event`), a second one cancels.

    With `at_once`, another event, the second one sets that, and a third one cancels.
    """
    import anyio

    stop = anyio.Event()
    events = [stop] if at_once is None else [stop, at_once]
    async with anyio.create_task_group() as group:

        async def listen(task_status: Any) -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    if not events:
                        group.cancel_scope.cancel()
                        return
                    events.pop(0).set()

        await group.start(lambda *, task_status: listen(task_status))
        await main(stop)
        group.cancel_scope.cancel()
