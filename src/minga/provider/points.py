"""The provider's fault points: every line after which a kill -9 must lose nothing. See `minga.core.faults`."""

from __future__ import annotations

from minga.core.faults import declare, reach
from minga.provider.events import EVENTS

JOURNALED = {
    f"provider.journal.{name}": f"{name} is on disk, nothing was done about it and nobody was told" for name in EVENTS
}

POINTS = JOURNALED | {
    "provider.register.sent": "the registration is mined",
    "provider.offer.kept": "an offer is signed and on disk, nobody has seen it",
    "provider.price.kept": "a new price is on disk, nothing is offered at it",
    "provider.revoke.sent": "a new epoch is mined",
    "provider.offer.posted": "a board has an offer",
    "provider.offer.withdrawn": "a board was told that nothing is for sale",
    "provider.blob.written": "a piece of an input is on disk, the tenant was not told",
    "provider.blob.finished": "an input is complete, the journal does not say so",
    "provider.prepare.unpacked": "an input is unpacked, more may follow",
    "provider.launch.prepared": "all inputs are unpacked, nothing was started",
    "provider.launch.started": "the sandbox runs, the journal does not say so",
    "provider.launch.adopted": "a sandbox of before a restart was found again",
    "provider.freeze.frozen": "the job stands still",
    "provider.thaw.thawed": "the job goes on",
    "provider.stop.sent": "the job was told to end",
    "provider.exit.seen": "the job is gone, the journal does not say so",
    "provider.checkpoint.chunk": "a chunk of a checkpoint is in the blob store, more may follow",
    "provider.checkpoint.swept": "what only older checkpoints held is gone",
    "provider.checkpoint.copied": "a checkpoint is in the blob store, the journal does not say so",
    "provider.collect.copied": "all artifacts are in the blob store, the journal does not say so",
    "provider.collect.removed": "the sandbox is removed",
    "provider.stake.approved": "Registry may take the stake, and has not",
    "provider.stake.sent": "the stake is mined",
    "provider.commit.computed": "the root over the trace is known, nothing was sent",
    "provider.dispute.answered": "a move of a game is mined, nobody here was told",
    "provider.commit.sent": "the commitment is mined, the journal does not say so",
    "provider.hold.sent": "what was held back is collected",
    "provider.voucher.checked": "a voucher is good, and not stored",
    "provider.close.sent": "the close is mined, the journal does not say so",
    "provider.forget.removed": "the files of a closed lease are gone, the journal does not say so",
}

declare(POINTS)

__all__ = ["JOURNALED", "POINTS", "reach"]
