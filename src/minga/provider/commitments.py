"""From the trace that a job left to a commitment on the chain.

Knows: the file of leaves, the tree over them, who may be told. Does not know: what a leaf is the hash of. Rule: what is
sent follows from the journal and the lease's blobs alone, so that it is the same transaction after any restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from minga.core.crypto import Hash32, from_hex, to_hex
from minga.core.errors import ContractError, InvalidInput, NotFound
from minga.protocol.merkle import LEAVES_MAX, Tree
from minga.provider import events as ev
from minga.provider.court import Court
from minga.provider.points import reach
from minga.provider.rules_verify import LEAVES
from minga.store.blobs import BlobStore

if TYPE_CHECKING:
    from minga.provider.lease import LeaseRun

LEAF_BYTES = 32


async def commit(run: LeaseRun) -> ev.Committed | ev.CommitFailed:
    """Have the root over a lease's trace stand on the chain; what came of it.

    Raises:
        NetworkError, InsufficientFunds: it was not done, and can be tried again.
    """
    order, world = run.state.order, run.world
    assert order is not None
    name = next(item["blake3"] for item in run.state.files if item["path"] == LEAVES)
    try:
        found, count = await anyio.to_thread.run_sync(root_of, run.place.blobs, name)
        root = Hash32(to_hex(found))
        reach("provider.commit.computed")
        call = Court(world.chain).commit(
            run.lease(), Hash32(order["work"]), root, count, from_hex(order["signature"])
        )  # fmt: skip
        effect = f"commit/{run.channel}/{run.lease().opened_at}"
        receipt = await world.chain.send(effect, call, world.key)
    except (ContractError, InvalidInput, NotFound) as error:
        return ev.CommitFailed(error.code, error.fact, error.remedy)
    reach("provider.commit.sent")
    return ev.Committed(root, count, str(receipt.transaction))


def root_of(blobs: BlobStore, name: str) -> tuple[bytes, int]:
    """The root over a file of leaves, and their number. Blocking.

    A last leaf that a kill cut off is none.

    Raises:
        InvalidInput: it is not 1 … 2**20 hashes of 32 bytes.
        NotFound: the file is not there.
    """
    count = blobs.size(name) // LEAF_BYTES
    if not 1 <= count <= LEAVES_MAX:
        raise InvalidInput(f"the trace has {count} leaves", "see `minga.trace`")
    data = b"".join(blobs.read(name, 0, count * LEAF_BYTES))
    return Tree([data[at * LEAF_BYTES : (at + 1) * LEAF_BYTES] for at in range(count)]).root, count
