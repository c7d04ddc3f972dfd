"""What a provider's event of a lease means for the job, and for screens. Texts and numbers of a stranger are bounded.

Does not know: how events travel, nor what comes of them. Rule: an event that is not as it must be is a `BadAnswer`;
our own clock stands beside every claim.
"""

from __future__ import annotations

from typing import Any

from minga.client.work_clock import WorkClock
from minga.core.errors import BadAnswer
from minga.protocol import job_events as ev
from minga.protocol.wire import Event

REASON_CHARS = 500
NOTICE_MAX_S = 1 << 20

Told = tuple[str, dict[str, Any]]


def hear(attempt: int, event: Event, clock: WorkClock) -> tuple[ev.Event | None, list[Told]]:
    """The job's event, if it is one, and what screens are told.

    Raises:
        BadAnswer: a field is missing or of another type.
    """
    try:
        return _hear(attempt, event.number, event.kind, event.data, clock)
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer(f"a {event.kind} event of the provider is malformed: {error}"[:200]) from None


def _hear(
    attempt: int, number: int, kind: str, data: dict[str, Any], clock: WorkClock
) -> tuple[ev.Event | None, list[Told]]:
    match kind:
        case "phase":
            phase = str(data["phase"])
            clock.phase(phase)
            return ev.PhaseSeen(attempt, number, phase, _reason(data), clock.elapsed_s), []
        case "meter":
            return _meter(attempt, number, data, clock)
        case "progress":
            progress = _progress(data)
            clock.step(progress["step"])
            return None, [("progress", {"attempt": attempt, **progress})]
        case "checkpoint":
            clock.moved()
            return ev.CheckpointSeen(attempt, number, clock.elapsed_s), []
        case "exit":
            code = data.get("exit_code")
            code = None if code is None else _count(code) & 0xFFFF
            worked = _count(data["working_s"])
            return ev.Exited(attempt, number, code, _reason(data), worked, clock.elapsed_s), []
        case "warning":
            return None, [warning(attempt, data.get("code"), data.get("fact"), data.get("remedy"))]
        case "notice":
            seconds, reason = min(_count(data["seconds"]), NOTICE_MAX_S), _reason(data)
            told = warning(attempt, "notice", f"{reason}; the job gets {seconds} s to checkpoint")
            return ev.Notified(attempt, number, seconds, reason), [told]
    return None, []


def _meter(attempt: int, number: int, data: dict[str, Any], clock: WorkClock) -> tuple[ev.Event, list[Told]]:
    claimed, told = _count(data["working_s"]), []
    if claimed > clock.elapsed_s + 1:
        fact = f"it says {claimed} s of work, our clock allows {clock.elapsed_s + 1} s"
        told.append(warning(attempt, "overclaim", fact))
    load = {name: _count(data[name]) for name in ("cpu_ms", "gpu_busy") if data.get(name) is not None}
    if "gpu_busy" in load:
        clock.gpu_busy(load["gpu_busy"])
    if load:
        told.append(("load", {"attempt": attempt, **load}))
    return ev.Metered(attempt, number, claimed, clock.elapsed_s, clock.idle_s), told


def warning(attempt: int, code: Any, fact: Any, remedy: Any = "") -> Told:
    """A warning for screens."""
    texts = {"code": str(code)[:100], "fact": str(fact)[:REASON_CHARS], "remedy": str(remedy)[:REASON_CHARS]}
    return "warning", {**texts, "attempt": attempt}


def _reason(data: dict[str, Any]) -> str:
    return str(data.get("reason") or "")[:REASON_CHARS]


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise ValueError(f"{value!r} is not a count")
    return value


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    """Step, total and text of a job's own progress line, bounded and typed."""
    found: dict[str, Any] = {}
    for name in ("step", "total"):
        value = data.get(name)
        counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53
        found[name] = value if counts else None
    found["text"] = str(data.get("text") or "")[:REASON_CHARS]
    return found
