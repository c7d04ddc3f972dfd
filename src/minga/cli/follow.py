"""Follow a job until it ends: its events and its log, on one screen or as lines.

Two streams, two threads: the log is pumped by a thread of its own, events are read here, so that Ctrl-C lands where
it can be answered.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minga.cli.live import JobView, line_of
from minga.cli.output import as_minga_error, tell

if TYPE_CHECKING:
    from minga.client.session import JobHandle, JobStatus

REFRESH_PER_SECOND = 8
LOG_END_S = 5.0


class Follower:
    """Shows one job."""

    def __init__(
        self, handle: JobHandle, decimals: int, live: bool, on_event: Callable[[JobView], None] | None = None
    ) -> None:
        """Follow `handle`.

        Args:
            handle: the job.
            decimals: of the token.
            live: draw a screen; otherwise events are lines on stderr and the log goes to stdout as it is.
            on_event: is called with the view after each event.
        """
        status = handle.status()
        self.handle = handle
        self.decimals = decimals
        self.live = live
        self.on_event = on_event
        self.view = JobView(status.job, status.name, status.budget, decimals)
        self.last = 0
        self._left = threading.Event()

    def run(self, on_interrupt: Callable[[], bool], extra: Callable[[], Any] | None = None) -> JobStatus:
        """Show the job until it ends and return how it ended.

        Args:
            on_interrupt: called on Ctrl-C; true goes on following, false leaves (KeyboardInterrupt is raised).
            extra: something more to draw below the job's screen.

        Raises:
            KeyboardInterrupt: `on_interrupt` said so.
        """
        log = threading.Thread(target=self._pump, name="log", daemon=True)
        with self._screen(extra):
            while True:
                try:
                    # Started here, where Ctrl-C is answered: who sees the first line of the log may press it at once.
                    if log.ident is None:
                        log.start()
                    self._events()
                    break
                except KeyboardInterrupt:
                    if not on_interrupt():
                        self._left.set()
                        raise
            # The log ends with the job; whatever is left of it is shown before the verdict.
            log.join(timeout=LOG_END_S)
            self._left.set()
        return self.handle.status()

    def _events(self) -> None:
        for event in self.handle.events(follow=True, after=self.last):
            self.last = event.number
            self.view.apply(event.kind, event.data)
            if self.on_event is not None:
                self.on_event(self.view)
            if not self.live:
                line = line_of(event.kind, event.data, self.decimals)
                if line:
                    tell(f"[minga] {line}")

    @contextmanager
    def _screen(self, extra: Callable[[], Any] | None) -> Iterator[None]:
        if not self.live:
            yield
            return
        from rich.console import Group
        from rich.live import Live

        from minga.cli.output import console

        def draw() -> Any:
            return Group(self.view.render(), extra()) if extra else self.view.render()

        with Live(get_renderable=draw, console=console(), refresh_per_second=REFRESH_PER_SECOND):
            yield

    def _pump(self) -> None:
        try:
            for chunk in self.handle.logs(follow=True):
                self.view.log(chunk)
                if not self.live:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
        except Exception as error:  # whatever it is: the job goes on, and so does its screen
            # Leaving closes the client, and with it what this thread reads from.
            if not self._left.is_set():
                shown = as_minga_error(error)
                tell(f"[minga] the log is not shown any more: {shown.fact}")
