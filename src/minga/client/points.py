"""The client's fault points: where a test may kill the process to prove that no money and no result is lost.

Each is named after what was just done. The list is whole: reaching another name is an error.
"""

from __future__ import annotations

from minga.core import faults

POINTS = {
    "client.submit.named": "the job has an id, nothing is journaled",
    "client.submit.packed": "the job's files are blobs",
    "client.submit.journaled": "the job is in the journal, no money moved",
    "client.fund.sending": "the main key is about to fund the job wallet",
    "client.fund.tokens": "the job wallet holds the budget",
    "client.fund.gas": "the job wallet holds gas",
    "client.event.received": "something happened, it is not journaled",
    "client.event.journaled": "it is journaled, nothing was done about it",
    "client.find.gathered": "offers were gathered",
    "client.find.chosen": "an offer is chosen",
    "client.open.sending": "the lease is about to be opened",
    "client.open.mined": "the lease is on the chain, the journal does not know",
    "client.send.logged-in": "the provider gave a token",
    "client.send.manifest": "the provider has the manifest",
    "client.send.piece": "a piece of an input was sent",
    "client.send.inputs": "the provider has all inputs",
    "client.probe.judged": "the machine was measured, the journal does not know",
    "client.start.asked": "the provider was asked to start",
    "client.watch.event": "an event of the provider arrived",
    "client.log.written": "a piece of the log is on disk",
    "client.pay.signed": "a voucher is signed, not sent",
    "client.pay.acknowledged": "the provider holds a voucher, the journal does not know",
    "client.topup.mined": "the deposit grew, the journal does not know",
    "client.checkpoint.chunk": "a chunk of a checkpoint is where it is kept, more may follow",
    "client.checkpoint.fetched": "all chunks of a checkpoint are where it is kept, it does not count yet",
    "client.checkpoint.kept": "a checkpoint counts, the journal does not know",
    "client.checkpoint.collected": "what only older checkpoints held is gone",
    "client.stop.asked": "the provider was asked to stop the job",
    "client.gather.file": "a file of the results is verified",
    "client.gather.done": "all results are here, the journal does not know",
    "client.close.asked": "the provider was asked to close",
    "client.close.seen": "the close is on the chain, the journal does not know",
    "client.reclaim.started": "our own close is on the chain, the journal does not know",
    "client.reclaim.finished": "our own close is finished, the journal does not know",
    "client.send.order": "the provider has the order for verified work",
    "client.commitment.checked": "the commitment on the chain is that of the trace that came back",
    "client.verdict.carried-out": "a conviction gave what it gives us",
    "client.hold.seen": "the chain says what became of the pay that was held back; the journal does not",
    "client.return.tokens": "the rest of the tokens went back",
    "client.return.gas": "the rest of the gas money went back, the journal does not know",
}

faults.declare(POINTS)
reach = faults.reach
