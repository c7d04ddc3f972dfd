"""Rules of the agent for every way in which a lease ends: stop, reclaim, exit, collection, close.

| who ends it         | grace                       | seconds after SIGTERM | close                                 |
|---------------------|-----------------------------|-----------------------|---------------------------------------|
| the tenant's stop   | what it asks for            | count                 | when it asks, or falls silent         |
| the owner's reclaim | the notice of the terms     | free                  | when the tenant asks, or falls silent |
| the lease's end     | what is left of it          | free                  | at once after the collection          |
| no voucher          | the job's own, at most 30 s | free                  | at once after the collection          |

Rule: what a job left is collected first, whoever ended it; the close carries the best voucher.
"""

from __future__ import annotations

from typing import Any

from minga.protocol.lease import Why
from minga.provider import events as ev
from minga.provider.lease_state import ALIVE, GRACE_FORCED_S, WAITING, State
from minga.provider.rules_verify import begin_commit
from minga.provider.turn import Turn

PROVIDERS_FAULT = frozenset({"lost", "failed", "abandoned"})
"""Causes of an exit for which the job is not to blame."""

RECLAIMED = "reclaimed: "
"""How the reason of a reclaim begins."""


def own_grace(state: State, at_most: int) -> int:
    """The grace that the manifest asks for, within bounds."""
    own = int((state.manifest or {}).get("grace_s", 30))
    return min(own, at_most)


def stop_asked(turn: Turn, event: ev.StopAsked) -> None:
    """End the job; what has not begun ends at once."""
    whys = {"tenant": Why.STOPPED, "provider": Why.SHUTTING_DOWN, "end": Why.END_OF_LEASE}
    if event.by != "tenant":
        turn.set(close_asked=True)
    if turn.state.phase in ALIVE:
        turn.stop(event.reason, event.grace_s, whys[event.by])
    elif turn.state.phase in WAITING:
        turn.set(why=whys[event.by], collected=True)
        turn.enter("exited", event.reason)
        if turn.state.close_asked:
            turn.close()


def reclaimed(turn: Turn, event: ev.Reclaimed) -> None:
    """The owner wants the machine back: notice, SIGTERM, SIGKILL after the notice; nothing more is counted.

    A job that is being stopped keeps its reason, and only loses what is longer than the notice; so does one that is
    told again with less. What has not begun is closed at once, unpaid.
    """
    before, reason = turn.state, RECLAIMED + event.reason
    turn.set(reclaimed=True)
    if before.phase in WAITING:
        turn.set(why=Why.SHUTTING_DOWN, reason=reason, close_asked=True)
        turn.tell("notice", seconds=0, reason=reason)
        turn.close()
    elif before.phase in ALIVE:
        if not before.reclaimed:
            seconds = min(before.grace_s, event.seconds) if before.phase == "stopping" else event.seconds
            turn.tell("notice", seconds=seconds, reason=reason)
        turn.stop(reason, event.seconds, Why.SHUTTING_DOWN)


def exited(turn: Turn, event: ev.Exited) -> None:
    """The process is gone: say how, and collect what it left."""
    before = turn.state
    reason = before.reason if before.phase == "stopping" else _exit_reason(before, event)
    failed = before.phase != "stopping" and event.cause in PROVIDERS_FAULT
    why = before.why or (Why.UNDER_SPEC if failed else Why.JOB_FAILED if event.code else Why.DONE)
    working_s = max(before.working_s, event.working_s)
    turn.set(working_s=working_s, failed=failed, why=why, exit_code=None if failed else event.code)
    data: dict[str, Any] = {"reason": reason, "working_s": working_s}
    turn.tell("exit", exit_code=turn.state.exit_code, **data)
    turn.set(reason=reason)
    turn.enter("collecting", reason)
    turn.do(ev.Collect())


def _exit_reason(state: State, event: ev.Exited) -> str:
    what = "the set-up" if state.phase == "starting" else "the job"
    known = {
        "oom": f"{what} needed more memory than it ordered",
        "timeout": f"{what} ran over its time limit",
        "lost": "the machine or the sandbox's supervisor died",
        "failed": f"the sandbox could not be set up: {event.detail}",
        "abandoned": "the provider was away for too long",
    }
    default = f"{what} ended with code {event.code}" if event.code or state.phase == "starting" else "done"
    return known.get(event.cause, default)[:500]


def collected(turn: Turn, event: ev.Collected) -> None:
    """What it left is safe: tell, and close if that was asked for."""
    turn.set(files=tuple(event.files), collected=True)
    for fact in event.warnings:
        turn.tell("warning", code="not-collected", fact=fact, remedy="see the job's outputs")
    turn.tell("artifacts", count=len(event.files), bytes=sum(item["bytes"] for item in event.files))
    turn.enter("failed" if turn.state.failed else "exited")
    begin_commit(turn)
    if turn.state.close_asked:
        turn.close()


def close_asked(turn: Turn, event: ev.CloseAsked) -> None:
    """Close; a job that runs is stopped and collected first."""
    phase = turn.state.phase
    why = Why(event.why)
    turn.set(close_asked=True, why=turn.state.why or why)
    if phase in ALIVE and phase != "stopping":
        turn.stop(event.reason, own_grace(turn.state, GRACE_FORCED_S), why)
    elif phase in WAITING:
        turn.set(reason=event.reason)
        turn.close()
    elif phase in ("exited", "failed"):
        turn.close()


def chain_closing(turn: Turn, event: ev.ChainClosing) -> None:
    """The tenant began a close on chain: answer it with the best voucher before the window ends."""
    turn.tell("notice", seconds=max(0, event.finish_at - turn.now), reason="the tenant is closing the lease")
    close_asked(turn, ev.CloseAsked("the tenant is closing the lease", Why.STOPPED))


def closed(turn: Turn, event: ev.Closed) -> None:
    """It is over on chain. What still runs is ended, and what it leaves collected for its tenant."""
    phase = turn.state.phase
    turn.set(close_tx=event.tx, closed_at=turn.now, close_asked=True)
    if phase == "stopping":
        turn.cut_short()
    elif phase in ALIVE:
        turn.stop(event.reason or "the lease was closed", 0, Why.END_OF_LEASE)
    elif phase != "collecting":
        turn.finish(event.reason)


def forgotten(turn: Turn, event: ev.Forgotten) -> None:
    """Its files are gone."""
    turn.set(forgotten=True, files=(), checkpoints=())
