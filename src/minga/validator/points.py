"""The validator's fault points: every line after which a kill -9 must lose nothing. See `minga.core.faults`."""

from __future__ import annotations

from minga.core.faults import declare, reach
from minga.validator.events import EVENTS

POINTS = {
    f"validator.journal.{name}": f"{name} is on disk, nothing was done about it and nobody was told" for name in EVENTS
} | {
    "validator.join.allowed": "the arbiter may take the stake, and has not",
    "validator.join.sent": "the seat is taken",
    "validator.evidence.kept": "what the provider told is on disk, its files are not checked yet",
    "validator.replay.done": "a piece was done again, the journal does not say so",
    "validator.judge.done": "a verdict is reached, the journal does not say so",
    "validator.effect.sent": "a transaction is mined, the journal does not say so",
}

declare(POINTS)

__all__ = ["POINTS", "reach"]
