"""Whether a provider committed on the chain to the trace that it gave us; asked before the last voucher is signed.

| what came back                    | and the chain                          | then                                    |
|-----------------------------------|----------------------------------------|-----------------------------------------|
| a trace                           | a commitment to it                     | the results count                       |
| a trace                           | none in time, or to other leaves       | `bad-result`: the provider is left      |
| none, and the job ended well      |                                        | `no-trace`: the provider is left        |
| none, of a job that failed or was stopped |                                | the results count: there may be none    |

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
from minga.client.verified import LEAVES
from minga.core.crypto import Hash32, to_hex
from minga.core.effects import Clock
from minga.core.errors import NetworkError, ProviderError
from minga.core.spec import FileEntry
from minga.protocol.dispute import Commitment
from minga.protocol.job_moves import NO_TRACE
from minga.protocol.job_state import Lease
from minga.protocol.merkle import LEAVES_MAX, Tree

COMMIT_S = 120.0
"""Seconds that a provider has for its commitment once its results are here; an unreachable chain's do not count."""

LEAF_BYTES = 32
ELSEWHERE = "the job goes on elsewhere"


Tell = Callable[[str, dict[str, Any]], None]


class BadResult(ProviderError):
    """Results that are not paid."""

    code = "bad-result"


class NoTrace(ProviderError):
    """A verified job that ended well and left no trace."""

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
            NoTrace: the job ended well without a trace.
        """
        if self._order.verify is None:
            return
        if not any(entry.path == LEAVES for entry in files):
            if lease.exit_code == 0 and not lease.stopping:
                raise NoTrace("the job left no trace", "use `minga.trace` in the job")
            return
        root, count = await anyio.to_thread.run_sync(root_of, folder / LEAVES)
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


def root_of(path: Path) -> tuple[str, int]:
    """The root over a file of leaves, and their number. Blocking.

    A last leaf that a kill cut off is none.

    Raises:
        BadResult: it is not 1 … 2**20 hashes of 32 bytes.
    """
    count = path.stat().st_size // LEAF_BYTES
    if not 1 <= count <= LEAVES_MAX:
        raise BadResult(f"its trace has {count} leaves", ELSEWHERE)
    data = path.read_bytes()
    leaves = [data[at * LEAF_BYTES : (at + 1) * LEAF_BYTES] for at in range(count)]
    return to_hex(Tree(leaves).root), count
