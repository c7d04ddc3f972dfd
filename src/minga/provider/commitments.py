"""From the trace that a job left to a commitment on the chain.

Knows: the files of a trace, the tree over its leaves, who may be told. Does not know: what a leaf is the hash of. Rule:
a provider answers for a commitment with its stake, so it commits to nothing that it could not serve; and what is sent
follows from the journal and the lease's blobs alone, so that it is the same transaction after any restart.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from minga.core.crypto import Hash32, from_hex, to_hex
from minga.core.errors import ContractError, InvalidInput, MingaError, NotFound
from minga.core.work import Trace
from minga.protocol.merkle import LEAVES_MAX, Tree
from minga.provider import events as ev
from minga.provider.court import Court
from minga.provider.points import reach
from minga.provider.prepare import Workplace
from minga.store.blobs import BlobStore
from minga.verify.leaves import FACTS_BYTES_MAX, LEAF_BYTES
from minga.verify.ordered import FACTS, LEAVES, check_ordered, mended

if TYPE_CHECKING:
    from minga.provider.lease import LeaseRun

Files = list[dict[str, Any]]


async def commit(run: LeaseRun) -> ev.Committed | ev.CommitFailed:
    """Have the root over a lease's trace stand on the chain; what came of it.

    Raises:
        NetworkError, InsufficientFunds: it was not done, and can be tried again.
    """
    order, world = run.state.order, run.world
    assert order is not None
    try:
        trace, files = Trace.parse(order["trace"]), list(run.state.files)
        found, count = await anyio.to_thread.run_sync(root_of, run.place.blobs, files, trace)
        root = Hash32(to_hex(found))
        reach("provider.commit.computed")
        call = Court(world.chain).commit(run.lease(), Hash32(order["work"]), root, count, from_hex(order["signature"]))
        effect = f"commit/{run.channel}/{run.lease().opened_at}"
        receipt = await world.chain.send(effect, call, world.key)
    except (ContractError, InvalidInput, NotFound) as error:
        return ev.CommitFailed(error.code, error.fact, error.remedy)
    reach("provider.commit.sent")
    return ev.Committed(root, count, str(receipt.transaction))


def root_of(blobs: BlobStore, files: Files, trace: Trace) -> tuple[bytes, int]:
    """The root over the leaves of what a job left, and their number. Blocking.

    Args:
        blobs: they hold the files.
        files: `spec.FileEntry` values.
        trace: how the job was to be traced.

    Raises:
        InvalidInput: the trace is not whole, or not of the kind that was ordered.
        NotFound: a file is not there.
    """
    facts, leaves = (_bytes_of(blobs, files, name, most) for name, most in _LIMITS.items())
    found = check_ordered(trace, facts, leaves, {item["path"] for item in files})
    return Tree(found).root, len(found)


_LIMITS = {FACTS: FACTS_BYTES_MAX, LEAVES: LEAF_BYTES * LEAVES_MAX}


def _bytes_of(blobs: BlobStore, files: Files, name: str, most: int) -> bytes:
    entry = next((item for item in files if item["path"] == name), None)
    if entry is None or entry["bytes"] > most:
        raise InvalidInput(f"{name} is missing or larger than {most} bytes", "use `minga.trace` in the job")
    return b"".join(blobs.read(entry["blake3"]))


def make_whole(place: Workplace, files: Files) -> Files:
    """The files of a job, its trace as far as it came: a job that was killed leaves more leaves than it counted.

    Blocking. What is no trace at all stays as it is.
    """
    entries = {item["path"]: item for item in files}
    if FACTS not in entries or LEAVES not in entries:
        return files
    folder = place.folder / "mended"
    folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(MingaError):
        given = {name: _bytes_of(place.blobs, files, name, most + LEAF_BYTES - 1) for name, most in _LIMITS.items()}
        for name, data in given.items():
            (folder / name.rpartition("/")[2]).write_bytes(data)
        for name, data in zip(_LIMITS, mended(folder), strict=True):
            if data != given[name]:
                (folder / "file").write_bytes(data)
                digest = place.blobs.add_file(folder / "file")
                entries[name] = entries[name] | {"bytes": len(data), "blake3": digest}
    return list(entries.values())
