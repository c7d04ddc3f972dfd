"""Rules of the agent for a job at work: start, meter, pause, progress, checkpoints.

Rule: at one unpaid quantum the job stands still; a voucher wakes it, the dead man's time ends it.
"""

from __future__ import annotations

from dataclasses import asdict

from minga.core.errors import Conflict
from minga.protocol.lease import Why
from minga.provider import events as ev
from minga.provider.lease_state import GRACE_FORCED_S, prepaid_due
from minga.provider.metering import crosses
from minga.provider.rules_end import own_grace
from minga.provider.turn import Turn

CHECKPOINTS_KEPT = 2


def start_asked(turn: Turn, event: ev.StartAsked) -> None:
    """Launch, once voucher 1 is there where the terms ask for it."""
    due = prepaid_due(turn.state)
    if turn.state.paid < due:
        raise Conflict(
            f"the terms ask for {due} token units before the start, {turn.state.paid} are paid", "send voucher 1 first"
        )
    turn.set(gpus=tuple(event.gpus))
    turn.enter("starting")
    turn.do(ev.Launch())


def started(turn: Turn, event: ev.Started) -> None:
    """From here on seconds count."""
    turn.enter("running")


def start_failed(turn: Turn, event: ev.StartFailed) -> None:
    """Nothing ran: say whose fault it was, and why."""
    turn.tell("warning", code=event.code, fact=event.fact, remedy=event.remedy)
    why = Why.JOB_FAILED if event.blame == "tenant" else Why.UNDER_SPEC
    if turn.state.phase == "stopping":
        turn.set(collected=True)
        turn.enter("exited")
    else:
        turn.set(failed=True, why=why, collected=True)
        turn.enter("failed", f"{event.code}: {event.fact}")
    if turn.state.close_asked:
        turn.close()


def metered(turn: Turn, event: ev.Metered) -> None:
    """Count, tell at each half quantum, and let it stand still at one unpaid quantum."""
    before = turn.state
    turn.set(working_s=max(event.working_s, before.working_s))
    state = turn.state
    if state.is_exhausted or crosses(before.working_s, state.working_s, state.facts.quantum):
        known = {"cpu_ms": event.cpu_ms, "gpu_busy": event.gpu_busy}
        turn.tell("meter", working_s=state.working_s, **{k: v for k, v in known.items() if v is not None})
    if state.is_exhausted and state.phase == "running":
        turn.do(ev.Freeze())
        turn.enter("paused", f"waiting for a voucher above {state.paid}")
    elif state.is_exhausted:
        turn.cut_short()


def progressed(turn: Turn, event: ev.Progressed) -> None:
    """Tell it."""
    turn.tell("progress", **event.data)


def checkpoint_taken(turn: Turn, event: ev.CheckpointTaken) -> None:
    """Number it, keep the last two, tell it."""
    number = turn.state.checkpoint_count + 1
    checkpoint = {"number": number} | {name: value for name, value in asdict(event).items() if value is not None}
    kept = (*turn.state.checkpoints, checkpoint)[-CHECKPOINTS_KEPT:]
    turn.set(checkpoint_count=number, checkpoints=kept)
    turn.tell("checkpoint", **checkpoint)


def overdue(turn: Turn, event: ev.Overdue) -> None:
    """No voucher came: end it."""
    turn.set(close_asked=True)
    turn.stop("no voucher", own_grace(turn.state, GRACE_FORCED_S), Why.UNPAID)
