"""Machines of the simulated world, their disks, and the wires between them.

A node has a clock that may be wrong, a journal that may be full or torn, and may be killed at every point where its
program says `reach`. The journal holds the bytes of the real record codec, each with a checksum: what stood there when
the node was killed is all that is left of it. The wires lose, delay, repeat and reorder; a cut node hears nothing.

Does not know: what is said. Rule: a task of a node dies with the node; nothing of its memory is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from minga.core.codec import canonical_json, parse_json
from minga.core.errors import DiskFull, InternalError, ProviderUnreachable
from minga.sim.kernel import EPOCH, Crashed, Kernel, Signal, Task
from minga.store.journal import Record


@dataclass(frozen=True)
class Faults:
    """How bad the world is. Shares are of messages or of points reached; times are seconds."""

    delay_s: tuple[float, float] = (0.005, 0.05)
    loss: float = 0.0
    duplicate: float = 0.0
    slow: float = 0.0
    slow_s: float = 8.0
    crash: float = 0.0
    down_s: tuple[float, float] = (1.0, 40.0)
    cuts: int = 0
    cut_s: tuple[float, float] = (2.0, 40.0)
    full: int = 0
    full_s: tuple[float, float] = (2.0, 30.0)
    skews: int = 0
    skew_s: int = 3600
    reorgs: int = 0
    rpc_lies: float = 0.0
    rpc_lag: int = 0
    restarts: int = 0
    reclaims: int = 0
    reprices: int = 0

    @property
    def plain(self) -> bool:
        """Whether nothing ever goes wrong."""
        return self == Faults()


PLAIN = Faults()


class SimJournal:
    """Streams of records as the bytes on a disk; every stream is its own fold."""

    def __init__(self, node: Node) -> None:
        """Empty, of `node`."""
        self._node = node
        self._streams: dict[str, list[bytes]] = {}

    def append(self, stream: str, kind: str, body: dict[str, Any], at: int) -> None:
        """Write a record durably.

        Raises:
            DiskFull: nothing was written.
            Crashed: the node dies in this very moment; the record is there, torn, or not.
        """
        node = self._node
        if node.kernel.now < node.full_until:
            raise DiskFull("no room to write the journal", "free some disk; nothing was acknowledged")
        text = canonical_json([kind, at, body])
        line = b"%08x %b\n" % (crc32(text), text)
        lines = self._streams.setdefault(stream, [])
        if node.kernel.chance(node.crash_rate) and node.may_crash():
            fate = node.kernel.dice.randrange(3)
            if fate:
                lines.append(line if fate == 2 else line[: node.kernel.dice.randrange(1, len(line))])
            raise Crashed
        lines.append(line)

    def count(self, stream: str) -> int:
        """How many records of a stream are on the disk."""
        return len(self._streams.get(stream, ()))

    def lines(self, stream: str) -> list[bytes]:
        """The bytes of a stream, record by record."""
        return self._streams.get(stream, [])

    def streams(self) -> list[str]:
        """Every stream, by its first record."""
        return [name for name in self._streams if self._streams[name]]

    def read(self, stream: str) -> list[Record]:
        """The records of a stream; a torn one at the end is cut off, as it was never acknowledged.

        Raises:
            InternalError: a record before the last one is damaged.
        """
        lines = self._streams.get(stream, [])
        found: list[Record] = []
        for number, line in enumerate(lines, 1):
            text = line[9:-1]
            if not line.endswith(b"\n") or b"%08x" % crc32(text) != line[:8]:
                if number != len(lines):
                    raise InternalError(f"record {number} of {stream[:18]} is damaged")
                lines.pop()
                break
            kind, at, body = parse_json(text, 1 << 30)
            found.append(Record(stream, number, at, kind, body))
        return found


class Node:
    """A machine: `name`, clock, journal, tasks. `start` brings its program up, again after each crash."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        """Up, with a right clock and an empty disk; nothing runs."""
        self.kernel = kernel
        self.name = name
        self.tasks: dict[Task, None] = {}
        self.up = True
        self.skew = 0
        self.crash_rate = 0.0
        self.crashes_left = 0
        self.down_s = (1.0, 40.0)
        self.full_until = 0
        self.cut_until = 0
        self.lag = 0
        self.lies = 0.0
        self.lives = 0
        self.journal = SimJournal(self)
        self.transactions: dict[str, Any] = {}
        self.start: Callable[[], None] = lambda: None
        self.stopped: Callable[[], None] = lambda: None

    def now(self) -> int:
        """Unix seconds by this node's own clock."""
        return EPOCH + int(self.kernel.now // 1_000_000) + self.skew

    def monotonic(self) -> float:
        """Seconds that no skew moves."""
        return self.kernel.seconds

    async def sleep(self, seconds: float) -> None:
        """Wait; with the two above this node is a `core.effects.Clock`."""
        await self.kernel.sleep(seconds)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        """Start a task that dies with this node."""
        return self.kernel.spawn(coroutine, self)

    def do(self, what: Callable[[], None]) -> None:
        """Call `what` as a task of this node, which may die of it."""

        async def go() -> None:
            what()

        self.spawn(go())

    def may_crash(self) -> bool:
        """Whether it has not died often enough; counts the death."""
        if self.crashes_left <= 0:
            return False
        self.crashes_left -= 1
        return True

    def reach(self, point: str) -> None:
        """A line at which a kill would hurt.

        Raises:
            Crashed: it comes now.
        """
        if self.kernel.chance(self.crash_rate) and self.may_crash():
            self.kernel.note(f"{self.name} killed at {point}")
            raise Crashed

    def crash(self, down_s: float | None = None) -> None:
        """Kill it, and start it again after a while."""
        if not self.up:
            return
        self.up = False
        self.lives += 1
        self.kernel.note(f"{self.name} down")
        for task in list(self.tasks):
            task.cancel()
        self.tasks.clear()
        self.stopped()
        self.kernel.after(self.kernel.dice.uniform(*self.down_s) if down_s is None else down_s, self._restart)

    def _restart(self) -> None:
        if not self.up:
            self.up = True
            self.kernel.note(f"{self.name} up")
            self.do(self.start)


class Reply:
    """What a call waits for."""

    __slots__ = ("come", "error", "signal", "value")

    def __init__(self, kernel: Kernel) -> None:
        self.signal = Signal(kernel)
        self.come = False
        self.value: Any = None
        self.error: Exception | None = None


class Wires:
    """Calls between nodes. A call that got no answer may have been done all the same."""

    def __init__(self, kernel: Kernel, faults: Faults) -> None:
        """As bad as `faults` says."""
        self.kernel = kernel
        self.faults = faults
        self.messages = 0

    async def call(
        self, source: Node, target: Node, what: Callable[..., Coroutine[Any, Any, Any]], *args: Any, wait_s: float = 10
    ) -> Any:
        """The result of `what(*args)`, run at `target`.

        Raises:
            ProviderUnreachable: no answer came in `wait_s` seconds, or nobody listens there.
            Exception: what the call itself raised.
        """
        reply = Reply(self.kernel)
        for delay in self._deliveries(source, target):
            self.kernel.after(delay, lambda: self._arrive(source, target, what, args, reply))
        if not reply.come:
            await reply.signal.wait(wait_s)
        if not reply.come:
            raise ProviderUnreachable(f"{target.name} does not answer", "is it up?")
        if reply.error is not None:
            raise reply.error
        return reply.value

    def _deliveries(self, source: Node, target: Node) -> list[float]:
        """After how many seconds a message arrives, once for each time that it does."""
        kernel, faults = self.kernel, self.faults
        self.messages += 1
        if source.cut_until > kernel.now or target.cut_until > kernel.now or kernel.chance(faults.loss):
            return []
        count = 2 if kernel.chance(faults.duplicate) else 1
        delays = []
        for _ in range(count):
            delay = kernel.dice.uniform(*faults.delay_s)
            if kernel.chance(faults.slow):
                delay += kernel.dice.uniform(0, faults.slow_s)
            delays.append(delay)
        return delays

    def _arrive(
        self, source: Node, target: Node, what: Callable[..., Any], args: tuple[Any, ...], reply: Reply
    ) -> None:
        if target.up:
            self.kernel.begin(self._serve(source, target, what, args, reply), target)
        else:
            refused = ProviderUnreachable(f"{target.name} does not listen", "is it up?")
            self._answer(source, target, reply, None, refused)

    async def _serve(
        self, source: Node, target: Node, what: Callable[..., Any], args: tuple[Any, ...], reply: Reply
    ) -> None:
        value, error = None, None
        try:
            value = await what(*args)
        except Exception as raised:  # travels to whoever asked, as an HTTP error body does
            error = raised
        self._answer(source, target, reply, value, error)

    def _answer(self, source: Node, target: Node, reply: Reply, value: Any, error: Exception | None) -> None:
        def arrive() -> None:
            if not reply.come:
                reply.come, reply.value, reply.error = True, value, error
                reply.signal.release()

        for delay in self._deliveries(target, source)[:1]:
            self.kernel.after(delay, arrive)


__all__ = ["PLAIN", "Faults", "Node", "SimJournal", "Wires"]
