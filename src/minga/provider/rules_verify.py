"""Rules of the agent for verified work: the order that the tenant signed, the commitment to the trace.

```
order ─▶ … job ends ─▶ collected ─▶ commit ─▶ committed, or failed for good ─▶ the close, once it is asked for
```

Rule: a lease with an order is not closed by us before its trace stands committed on the chain, or cannot be.
"""

from __future__ import annotations

from minga.core.errors import Conflict
from minga.provider import events as ev
from minga.provider.turn import Turn
from minga.verify.ordered import LEAVES


def order_set(turn: Turn, event: ev.OrderSet) -> None:
    """One order a lease, for its manifest."""
    if turn.state.manifest is None:
        raise Conflict("the lease has no manifest yet", "send the manifest first")
    if turn.state.order is not None:
        raise Conflict("the lease has another order already", "open another lease for other work")
    order = {"work": event.work, "trace": event.trace, "mode": event.mode, "signature": event.signature}
    turn.set(order=order)


def begin_commit(turn: Turn) -> None:
    """Commit to what the job left, if that was ordered; without a trace there is nothing to commit to."""
    if turn.state.order is None or turn.state.closed_at:
        return
    if any(item["path"] == LEAVES for item in turn.state.files):
        turn.set(committing=True)
        turn.do(ev.Commit())
    else:
        fact, remedy = "the job left no trace", "use `minga.trace` in the job"
        turn.tell("warning", code="no-trace", fact=fact, remedy=remedy)


def committed(turn: Turn, event: ev.Committed) -> None:
    """It stands on the chain: tell, and close if that was asked for."""
    _check_due(turn)
    assert turn.state.order is not None
    facts = {"work": turn.state.order["work"], "root": event.root, "leaves": event.leaves, "tx": event.tx}
    turn.set(committing=False, commitment=facts)
    turn.tell("commitment", **facts)
    if turn.state.close_asked:
        turn.close()


def commit_failed(turn: Turn, event: ev.CommitFailed) -> None:
    """It cannot be: say why, and close if that was asked for."""
    _check_due(turn)
    turn.set(committing=False)
    turn.tell("warning", code=event.code, fact=event.fact, remedy=event.remedy)
    if turn.state.close_asked:
        turn.close()


def _check_due(turn: Turn) -> None:
    if not turn.state.committing:
        raise Conflict("no commitment is due", "look at the lease's status")


__all__ = ["LEAVES", "begin_commit", "commit_failed", "committed", "order_set"]
