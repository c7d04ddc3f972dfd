"""Reads events so that a reorg, a restart or a node that lags can neither lose one nor count one twice.

    poll:  rewind   the stored tip is not on the node's chain? forget blocks until it is (deeper ones first)
           advance  far behind: ranges of logs; the last `NEAR` blocks: every header, checked to chain by parent hash,
                    and its logs by *block hash* (a node that does not know the block says so; asked by number, a
                    lagging one would answer "none")
           offer    events at depth `confirmations`, until acknowledged; and those to take back

Knows blocks, logs and the store; does not know what events mean (`view`) or who consumes them. Rule: what was offered
and then dropped by a reorg is offered as `undone`, before anything new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from minga.chain.blocks import Header, Log
from minga.chain.chain import Changes, Deployment, Position, Seen
from minga.chain.contract_events import decode_event, judged_topics
from minga.chain.eventstore import EventStore, Stored, stored
from minga.chain.view import View
from minga.core.crypto import ZERO_HASH
from minga.core.errors import BadAnswer, RpcUnavailable
from minga.core.faults import declare, reach
from minga.protocol.reliability import Rules

declare(
    {
        "chain.events.rewound": "dropped blocks are forgotten on disk",
        "chain.events.stored": "new blocks and logs are on disk",
        "chain.events.offered": "it is on disk that events go to the consumer; it has not got them",
        "chain.events.acknowledged": "it is on disk that the consumer has them",
        "chain.events.folded": "the fold of the first blocks on disk has come further",
    }
)

NEAR = 64
"""Blocks below the head that are kept one by one; those below them are folded on disk, until a reorg comes there."""
FOLD_BLOCKS = 32
"""So many new blocks at least are folded at once."""
RANGE = (1, 10_000)
"""Fewest and most blocks that one range of logs covers; adapted to what the node bears."""


class Source(Protocol):
    """What the reader needs of a node. May raise `RpcUnavailable` or `BadAnswer`; then `poll` can be repeated."""

    async def head(self) -> Header:
        """The newest block."""
        ...

    async def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """Blocks by number; None where the node has none."""
        ...

    async def logs_between(self, first: int, last: int) -> list[Log]:
        """Logs of our contracts in a range of blocks, both ends included."""
        ...

    async def logs_of(self, hashes: Sequence[str]) -> list[list[Log]]:
        """Logs of our contracts in each block; raises when the node does not know one."""
        ...

    async def agrees(self, number: int, block_hash: str) -> bool:
        """Whether most nodes have this block at this number."""
        ...


class EventReader:
    """Follows one deployment's events through `source`, remembering in `store`."""

    def __init__(self, source: Source, store: EventStore, deployment: Deployment, confirmations: int) -> None:
        self._source = source
        self._store = store
        self._deployment = deployment
        self._confirmations = confirmations
        self._rules = Rules.of(deployment.decimals)
        self._range = RANGE[1]
        self._viewed = -1
        self._last: Header | None = None
        self._undos = store.undos()
        self.view = View()

    async def poll(self) -> Changes:
        """What is new at depth since the last acknowledged; see `Changes`.

        Raises:
            RpcUnavailable, BadAnswer: the node failed; what was read before it is kept, and polling again goes on.
        """
        head = await self._source.head()
        await self._rewind(head)
        await self._advance(head)
        upto = await self._agreed(head.number - self._confirmations)
        self._update_view(upto)
        return self._offer(upto)

    def acknowledge(self, changes: Changes) -> None:
        """Durably mark `changes` as consumed; as far as their blocks still stand."""
        self._store.acknowledge(changes.upto, changes.upto_hash, changes.mark)
        reach("chain.events.acknowledged")

    async def _rewind(self, head: Header) -> None:
        tip = self._store.tip()
        while tip:
            if tip.number <= head.number:
                (found,) = (head,) if tip.number == head.number else await self._source.headers([tip.number])
                if found and found.hash == tip.hash:
                    return
            self._store.undo(tip)
            reach("chain.events.rewound")
            tip = self._store.tip()

    async def _advance(self, head: Header) -> None:
        tip, first = self._next()
        while first <= head.number - NEAR:
            await self._read_range(tip, first, min(first + self._range - 1, head.number - NEAR))
            tip, first = self._next()
        await self._read_near(tip, first, head)

    def _next(self) -> tuple[Header | None, int]:
        """The highest block that is stored, and the number of the first to read."""
        tip = self._store.tip()
        return tip, tip.number + 1 if tip else self._deployment.start_block

    async def _read_range(self, tip: Header | None, first: int, last: int) -> None:
        """Store logs of blocks `first` … `last`, which follow `tip`, or halve the range for the next try."""
        try:
            logs = await self._source.logs_between(first, last)
        except (RpcUnavailable, BadAnswer):
            if self._range <= RANGE[0]:
                raise
            self._range = max(RANGE[0], self._range // 4)
            return
        numbers = sorted({log.block for log in logs} | {last})
        headers = _all_there(await self._source.headers(numbers))
        by_number = {header.number: header for header in headers}
        for log in logs:
            if not first <= log.block <= last or log.block_hash != by_number[log.block].hash:
                raise BadAnswer("logs and blocks of a range do not fit together", "poll again")
        self._store.add(tip, headers, logs)
        reach("chain.events.stored")
        self._range = min(RANGE[1], self._range * 2)

    async def _read_near(self, tip: Header | None, first: int, head: Header) -> None:
        if first > head.number:
            return
        headers = _all_there([*await self._source.headers(range(first, head.number)), head])
        parent = tip.hash if tip else headers[0].parent
        for header in headers:
            if header.parent != parent:
                return  # the chain moved while it was read: the next poll rewinds
            parent = header.hash
        logs = await self._source.logs_of([header.hash for header in headers])
        for header, found in zip(headers, logs, strict=True):
            if any(log.block_hash != header.hash or log.block != header.number for log in found):
                raise BadAnswer("a node returned logs of another block", "poll again")
        self._store.add(tip, headers, [log for found in logs for log in found])
        reach("chain.events.stored")

    async def _agreed(self, upto: int) -> int:
        """The highest stored block at depth, or what was agreed on before when most nodes deny it.

        Between stored blocks there are no logs, so nothing at depth is left out. What was offered and still stands
        stays so, though the chain be shorter now.
        """
        stored = self._store.block_upto(max(upto, self._store.offered()))
        if stored is None:
            return -1
        if not self._confirmations or await self._source.agrees(stored.number, stored.hash):
            return stored.number
        return min(stored.number, max(self._viewed, self._store.offered()))

    def _update_view(self, upto: int) -> None:
        undos = self._store.undos()
        moved = undos != self._undos and not (self._last and self._store.holds(self._last))
        if moved or upto < self._viewed:
            self._begin(upto)
        self._last, self._undos = self._store.block_upto(upto), undos
        if self._viewed < 0:  # else the fold follows the view, so that the view stays
            self._fold(upto)
        while True:
            if self._viewed < self._store.fold.block() <= upto:
                self._begin(upto)
            first = self._viewed + 1
            self.view.apply(self._seen(self._store.logs(first, upto)))
            self._viewed = upto
            if self.view.kept is None or self._store.fold.block() < first:
                break
            self._begin(upto)  # another process folded on meanwhile: what was read may be counted twice
        self._fold(upto)

    def _begin(self, upto: int) -> None:
        """A new view: of what is folded, if that is not more than may be seen."""
        folded = self._store.fold.block()
        if 0 <= folded <= upto:
            judged = self._seen(self._store.logs_of(judged_topics(), folded))
            self.view, self._viewed = View.over(self._store.fold, judged), folded
        else:
            self.view, self._viewed = View(), -1

    def _fold(self, upto: int) -> None:
        """Fold on disk what lies `NEAR` blocks deep, if that is worth a transaction."""
        tip, fold = self._store.tip(), self._store.fold
        upto = min(upto, tip.number - NEAR if tip else -1)
        if upto - fold.block() < FOLD_BLOCKS:
            return
        while fold.advance(upto, lambda rows: self._seen([stored(row) for row in rows]), self._rules):
            reach("chain.events.folded")
        reach("chain.events.folded")

    def _offer(self, upto: int) -> Changes:
        undone, mark = self._store.undone()
        confirmed = self._store.logs(self._store.acknowledged() + 1, upto)
        if confirmed and upto > self._store.offered():
            self._store.offer(upto)
            reach("chain.events.offered")
        block = self._store.block_upto(upto)
        place, time = (block.hash, block.time) if block else (ZERO_HASH, 0)
        return Changes(
            self._seen(undone), self._seen(confirmed), upto if block is None else block.number, place, time, mark
        )

    def _seen(self, stored: Sequence[Stored]) -> tuple[Seen, ...]:
        found = []
        for log, time in stored:
            event = decode_event(log, self._deployment)
            if event is not None:
                place = Position(log.block, log.block_hash, log.transaction, log.index, time)
                found.append(Seen(event, place))
        return tuple(found)


def _all_there(headers: Sequence[Header | None]) -> list[Header]:
    found = [header for header in headers if header is not None]
    if len(found) != len(headers):
        raise BadAnswer("a node does not have a block below its own head", "poll again")
    return found
