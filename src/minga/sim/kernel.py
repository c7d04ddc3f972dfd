"""Time, tasks and dice of a simulated world.

What it is: a heap of moments. Tasks are ordinary coroutines that wait only for `sleep` and `Signal.wait`; whoever is
woken goes on in the order in which it was woken. What it does not know: what the tasks do.

Rule: nothing here depends on the real clock, on addresses or on hash seeds, so that one seed is one history. Every
note is hashed; two histories are the same if their hashes are.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from hashlib import blake2b
from random import Random
from typing import Any

EPOCH = 1_800_000_000
"""Unix seconds at which every world begins."""

SECOND = 1_000_000
NOTES_KEPT = 60


class Crashed(BaseException):
    """The node that this task runs on was killed at this line."""


class Wait:
    """What a task hands to the kernel when it waits: up to `micros` of time, or for a signal."""

    __slots__ = ("micros", "signal")

    def __init__(self, micros: int | None, signal: Signal | None) -> None:
        self.micros = micros
        self.signal = signal

    def __await__(self) -> Generator[Wait, bool, bool]:
        """True when the signal came, False when the time was over."""
        return (yield self)


class Signal:
    """Wakes everybody who waits for it, each time it is notified."""

    __slots__ = ("_kernel", "waiting")

    def __init__(self, kernel: Kernel) -> None:
        """Of `kernel`."""
        self._kernel = kernel
        self.waiting: list[tuple[Task, int]] = []

    def notify(self) -> None:
        """Wake those who wait now."""
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for task, turn in waiting:
                if task.turn == turn and not task.over:
                    self._kernel.wake(task, True)

    def release(self) -> None:
        """As `notify`, and they go on at once; for what the kernel itself calls, never for a task."""
        waiting, self.waiting = self.waiting, []
        for task, turn in waiting:
            if task.turn == turn and not task.over:
                self._kernel.go_on(task, True)

    def wait(self, seconds: float | None = None) -> Wait:
        """Awaitable: True once notified, False after `seconds`."""
        return Wait(None if seconds is None else max(0, int(seconds * SECOND)), self)


class Task:
    """A coroutine at work for `node` (anything with a `tasks` dict), until it returns or is cancelled."""

    __slots__ = ("coroutine", "node", "over", "running", "turn")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], node: Any) -> None:
        self.coroutine = coroutine
        self.node = node
        self.turn = 0
        self.over = False
        self.running = False

    def cancel(self) -> None:
        """End it where it waits; one that runs now ends at its next wait. Idempotent."""
        if not self.over:
            self.over = True
            if not self.running:
                self._close()

    def _close(self) -> None:
        self.node.tasks.pop(self, None)
        self.coroutine.close()


class Kernel:
    """The world's time and dice. `now` is microseconds since its beginning."""

    def __init__(self, seed: int) -> None:
        """Everything random comes from `seed`."""
        self.dice = Random(seed)
        self.now = 0
        self.events = 0
        self.last: deque[str] = deque(maxlen=NOTES_KEPT)
        self.sink: Callable[[str], None] | None = None
        self.halted = False
        self._hash = blake2b(digest_size=16)
        self._heap: list[tuple[int, int, Task | Callable[[], None], int, bool]] = []
        self._count = 0

    # ------------------------------------------------------------------------------------------------------- history

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self.now / SECOND

    def note(self, text: str) -> None:
        """Add a line to the history."""
        line = f"{self.now} {text}"
        self._hash.update(line.encode())
        self.last.append(line)
        if self.sink is not None:
            self.sink(line)

    @property
    def trace(self) -> str:
        """The hash of the history so far."""
        return self._hash.hexdigest()

    def chance(self, share: float) -> bool:
        """Whether something of probability `share` happens; the dice are left alone when it cannot."""
        return share > 0 and self.dice.random() < share

    # --------------------------------------------------------------------------------------------------------- tasks

    def spawn(self, coroutine: Coroutine[Any, Any, Any], node: Any) -> Task:
        """Start a task of `node`, at once but after whoever runs now."""
        task = Task(coroutine, node)
        node.tasks[task] = None
        self.wake(task, False)
        return task

    def begin(self, coroutine: Coroutine[Any, Any, Any], node: Any) -> None:
        """Start a task of `node` at once; for what the kernel itself calls, never for a task."""
        task = Task(coroutine, node)
        node.tasks[task] = None
        self.go_on(task, False)

    def go_on(self, task: Task, value: bool) -> None:
        """Let a waiting task go on in this very call."""
        task.turn += 1
        self._resume(task, value)

    def at(self, micros: int, what: Callable[[], None]) -> None:
        """Call `what` at a moment."""
        self._count += 1
        heapq.heappush(self._heap, (max(micros, self.now), self._count, what, 0, False))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in a while."""
        self.at(self.now + int(seconds * SECOND), what)

    def wake(self, task: Task, value: bool) -> None:
        """Let a waiting task go on now."""
        task.turn += 1
        self._push(self.now, task, value)

    def _push(self, when: int, task: Task, value: bool) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, task, task.turn, value))

    def sleep(self, seconds: float) -> Wait:
        """Awaitable: a while."""
        return Wait(max(0, int(seconds * SECOND)), None)

    def run(self, until: int, done: Callable[[], bool] | None = None) -> None:
        """Go on to the moment `until` (microseconds), or until `done` says so or nothing is left to happen."""
        heap = self._heap
        while heap and heap[0][0] <= until and not self.halted:
            when, _, what, turn, value = heapq.heappop(heap)
            if isinstance(what, Task):
                if what.over or what.turn != turn:
                    continue
                self.now = when
                self.events += 1
                self._resume(what, value)
            else:
                self.now = when
                self.events += 1
                what()
            if done is not None and done():
                return
        if not heap or heap[0][0] > until:
            self.now = max(self.now, until if done is None else self.now)

    def _resume(self, task: Task, value: bool) -> None:
        task.running = True
        try:
            wait = task.coroutine.send(value if task.turn > 1 else None)
        except StopIteration:
            task.over = True
            task.node.tasks.pop(task, None)
            return
        except Crashed:
            task.over = True
            task.node.tasks.pop(task, None)
            task.node.crash()
            return
        finally:
            task.running = False
        if task.over:  # cancelled while it ran
            task._close()
            return
        task.turn += 1
        if wait.signal is not None:
            wait.signal.waiting.append((task, task.turn))
        if wait.micros is not None:
            self._push(self.now + wait.micros, task, False)


__all__ = ["EPOCH", "SECOND", "Crashed", "Kernel", "Signal", "Task", "Wait"]
