"""Whether a provider committed on the chain to the trace that it gave us; asked before the last voucher is signed.

| what came back                    | and the chain                          | then                                    |
|-----------------------------------|----------------------------------------|-----------------------------------------|
| a trace, as it was ordered        | a commitment to it                     | the results count                       |
| a trace, as it was ordered        | none in time, or to other leaves       | `bad-result`: the provider is left      |
| none, or another, and the job ended well |                                 | `no-trace`: the provider is left        |
| none, or another, of a job that failed or was stopped |                    | the results count: there may be none    |

Does not know: whether the work was done right; that is for whoever does a part of it again. Rule: the file that is
hashed is the one that came back. (That a commitment is for the work ordered, the contract checks: by our signature.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from minga.chain.chain import Chain
from minga.client import points
from minga.client.order import Order
from minga.core.crypto import Hash32, to_hex
from minga.core.effects import Clock
from minga.core.errors import InvalidInput, NetworkError, ProviderError
from minga.core.spec import FileEntry
from minga.core.work import Trace
from minga.protocol.dispute import Commitment
from minga.protocol.job_moves import NO_TRACE
from minga.protocol.job_state import Lease
from minga.protocol.merkle import LEAVES_MAX, Tree
from minga.verify.leaves import FACTS_BYTES_MAX, LEAF_BYTES
from minga.verify.ordered import FACTS, LEAVES, check_ordered

COMMIT_S = 120.0
"""Seconds that a provider has for its commitment once its results are here; an unreachable chain's do not count."""

ELSEWHERE = "the job goes on elsewhere"


Tell = Callable[[str, dict[str, Any]], None]


class BadResult(ProviderError):
    """Results that are not paid."""

    code = "bad-result"


class NoTrace(ProviderError):
    """A verified job that ended well and did not leave the trace that was ordered."""

    code = NO_TRACE


class Commitments:
    """The commitments of one job's leases."""

    def __init__(self, order: Order, chain: Chain, clock: Clock, tell: Tell) -> None:
        """Ask `chain`; wait by `clock`; `tell` screens of what was found good."""
        self._tell = tell
        self._order = order
        self._chain = chain
        self._clock = clock
        # An embedded chain confirms at once, so that waiting longer than a frame would be felt.
        self._pause_s = 0.03 if chain.spec.confirmations == 0 else 1.0

    async def judge(self, lease: Lease, files: list[FileEntry], folder: Path) -> None:
        """Return if the results of `lease`, which lie in `folder`, may count.

        Raises:
            BadResult: no commitment in time, or one to something else.
            NoTrace: the job ended well without the trace that was ordered.
        """
        if self._order.verify is None:
            return
        trace = Trace.parse(self._order.verify["trace"])
        try:
            root, count = await anyio.to_thread.run_sync(root_of, trace, files, folder)
        except InvalidInput as error:
            if lease.exit_code == 0 and not lease.stopping:
                raise NoTrace(error.fact, error.remedy) from None
            return
        made = await self._committed(lease)
        if (made.root, made.leaves) != (root, count):
            raise BadResult(
                f"it committed to {made.leaves} leaves under {made.root[:18]}, its trace is {count} under {root[:18]}",
                ELSEWHERE,
            )
        points.reach("client.commitment.checked")
        self._tell("commitment", {"attempt": lease.attempt, "root": root, "leaves": count})

    async def _committed(self, lease: Lease) -> Commitment:
        left = COMMIT_S
        while True:
            began = self._clock.monotonic()
            try:
                found = await self._look(Hash32(lease.channel))
            except NetworkError:
                began = self._clock.monotonic()  # the provider is not to blame for these seconds
                found = None
            if found is not None:
                return found
            await self._clock.sleep(self._pause_s)
            left -= self._clock.monotonic() - began
            if left < 0:
                raise BadResult(f"it committed to no trace within {COMMIT_S:.0f} s", ELSEWHERE)

    async def _look(self, channel: Hash32) -> Commitment | None:
        changes = await self._chain.poll()
        self._chain.acknowledge(changes)
        return self._chain.view.commitments.get(channel)


def root_of(trace: Trace, files: list[FileEntry], folder: Path) -> tuple[str, int]:
    """The root over the leaves of the trace among `files`, which lie in `folder`, and their number. Blocking.

    Raises:
        InvalidInput: there is none, it is not whole, or it is not as it was ordered.
    """
    sizes = {entry.path: entry.bytes for entry in files}
    for name, most in ((FACTS, FACTS_BYTES_MAX), (LEAVES, LEAF_BYTES * LEAVES_MAX)):
        if sizes.get(name, most + 1) > most:
            raise InvalidInput("the job left no trace", "use `minga.trace` in the job")
    leaves = check_ordered(trace, (folder / FACTS).read_bytes(), (folder / LEAVES).read_bytes(), sizes.keys())
    return to_hex(Tree(leaves).root), len(leaves)
