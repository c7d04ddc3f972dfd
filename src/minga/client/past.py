"""What became of quotes: each job's quote and outcome, kept in the home; what the past says of the next job.

A quote is kept when its job is ordered, an outcome by whoever first looks after the job is over: it is read from the
job's own journal, so no process needs to be there at the end, and one that dies loses nothing. Both stand in the stream
`quotes` of the home's journal, one of each a job (the job's id is the effect id). Whole seconds; amounts are text.

| belief                                  | prior           | from                                          |
|-----------------------------------------|-----------------|-----------------------------------------------|
| start (order → running, loss → running) | `START`         | this home's last jobs, then those like it     |
| end (exit → settled)                    | `END`           | likewise                                      |
| work, of a job that was run before      | `AGAIN_SPREAD`  | jobs of its fingerprint that ended `done`     |
| work, `duration` stated                 | `STATED`        | actual / stated of this home's last jobs      |

Does not know: offers and prices. Rule: a job that cannot test a p90 is not counted for it (`Calibration`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from minga.client.order import Order
from minga.client.outcomes import Outcome, outcome_of
from minga.core.codec import canonical_json
from minga.core.crypto import keccak, to_hex
from minga.core.spec import Speed
from minga.protocol.beliefs import Belief
from minga.protocol.matching import PPM
from minga.protocol.quote_model import Habits, Work, pace
from minga.store.journal import Journal, Record

STREAM = "quotes"
LATEST = 1000
"""Records that a quote looks back on; calibration counts all."""

KEPT = 50
"""Values that a belief is made of, the newest."""

START = Belief.of(20, 1.0, weight=1.0, freedom=4.0)
END = Belief.of(4, 0.8, weight=1.0, freedom=4.0)
STATED = Belief.of(1000, 0.42, weight=4.0, freedom=6.0)
"""Of a stated thousand seconds."""

AGAIN_SPREAD, AGAIN_FREEDOM = 0.1, 4.0
"""A job that was run before lasts as long, give or take 10 %."""

CHECKPOINT_S = 600
"""Between checkpoints of a job that makes them and does not say how often."""


def fingerprint(task: dict[str, Any], needs: dict[str, Any], folder: str) -> str:
    """What makes two jobs the same for their duration: command, variables, environment, needs, folder by name.

    Not the folder's content: code and data change from run to run, and the spread shows what that does.
    """
    named = {name: task.get(name) for name in ("environment", "setup", "run", "envs")}
    sized = {name: needs.get(name) for name in ("gpus", "vram_bytes", "cpu_milli", "memory_bytes")}
    return to_hex(keccak(canonical_json({"task": named, "needs": sized, "folder": folder})))


@dataclass(frozen=True)
class Quoted:
    """What a job was told before it was bought; amounts are text, None where the duration was not known."""

    fingerprint: str
    stated_s: int | None
    offer: str
    checkpoint_s: int
    budget: str
    deadline_s: int | None
    cost_p50: str | None
    cost_p90: str | None
    finish_p50_s: int | None
    finish_p90_s: int | None


@dataclass(frozen=True)
class Past:
    """One job of before: its quote, and its outcome once it is over."""

    job: str
    quoted: Quoted
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Calibration:
    """How many jobs could test a p90, and how many of them ended within it."""

    cost_n: int
    cost_within: int
    finish_n: int
    finish_within: int

    def as_dict(self) -> dict[str, int | None]:
        """JSON values: both counts, and the shares in parts per million (None without a job)."""
        cost = PPM * self.cost_within // self.cost_n if self.cost_n else None
        finish = PPM * self.finish_within // self.finish_n if self.finish_n else None
        return {**asdict(self), "cost_within_ppm": cost, "finish_within_ppm": finish}


class History:
    """The jobs of a home that were quoted, oldest first."""

    def __init__(self, past: Iterable[Past] = ()) -> None:
        """Made by `load`; given jobs directly by simulations."""
        self.past = list(past)

    @classmethod
    def load(cls, journal: Journal, now: int, *, everything: bool = False) -> History:
        """Read what is kept, after keeping the outcomes of jobs that ended since.

        Args:
            journal: the home's.
            now: Unix seconds, the date of what is kept now.
            everything: read all records, not the last `LATEST`.

        Raises:
            DiskFull, InternalError: an outcome could not be kept.
        """
        after = 0 if everything else max(0, journal.last(STREAM) - LATEST)
        found: dict[str, Past] = {}
        for record in journal.read(STREAM, after):
            _take(found, record)
        for job, past in found.items():
            if past.outcome is None:
                outcome = _look(journal, job, past.quoted)
                if outcome is not None:
                    body = {"job": job, **asdict(outcome), "starts_s": list(outcome.starts_s)}
                    journal.append(STREAM, "outcome", body, now, effect=f"outcome/{job}")
                    found[job] = Past(job, past.quoted, outcome)
        return cls(found.values())

    # ------------------------------------------------------------------------------------------------------ beliefs

    def habits(self, same: str) -> Habits:
        """Starts and ends: as everywhere in this home, then as those of the fingerprint `same`."""
        ended = [past for past in self.past if past.outcome is not None]
        alike = [past for past in ended if past.quoted.fingerprint == same]
        starts, ends = _starts(ended), _ends(ended)
        start, end = START.seen(starts), END.seen(ends)
        if own := _starts(alike):
            start = _loosened(start).seen(own)
        if own := _ends(alike):
            end = _loosened(end).seen(own)
        return Habits(start, end)

    def work(self, same: str, stated_s: int | None, base: Work) -> Work:
        """`base` with what is believed of its seconds; those of a job that was run before count on its last machine."""
        done = [(past, past.outcome) for past in self.past if past.outcome and past.outcome.phase == "done"]
        alike = [outcome for past, outcome in done if past.quoted.fingerprint == same and outcome.work_s > 0][-KEPT:]
        if alike:
            last = Speed(gemm_mops=alike[-1].gemm_mops, memory_mbps=alike[-1].memory_mbps)
            belief = Belief(0.0, 1e-9, AGAIN_SPREAD, AGAIN_FREEDOM).seen(_on(item, last) for item in alike)
            return replace(base, seconds=belief, source="history", seen=len(alike), reference=last)
        if stated_s is None:
            return base
        told = [
            1000 * _on(outcome, base.reference) / past.quoted.stated_s for past, outcome in done if past.quoted.stated_s
        ][-KEPT:]
        belief = STATED.seen(told).shifted(max(stated_s, 1) / 1000)
        return replace(base, seconds=belief, source="stated", seen=len(told))

    def calibration(self) -> Calibration:
        """How p90 held. A job counts if it could tell: its budget and deadline lay beyond the p90, and it ended
        `done`, or went past the p90 without being done, or ended by no wish or fault of its own.
        """
        costs = [test for past in self.past if (test := _cost_test(past)) is not None]
        ends = [test for past in self.past if (test := _finish_test(past)) is not None]
        return Calibration(len(costs), sum(costs), len(ends), sum(ends))


def remember(journal: Journal, job: str, quoted: Quoted, now: int) -> None:
    """Keep a quote; the first of a job counts. Raises DiskFull, InternalError."""
    journal.append(STREAM, "quote", {"job": job, **asdict(quoted)}, now, effect=f"quote/{job}")


def _take(found: dict[str, Past], record: Record) -> None:
    body = dict(record.body)
    job = str(body.pop("job"))
    if record.kind == "quote":
        found[job] = Past(job, Quoted(**_known(Quoted, body)))
    elif record.kind == "outcome" and job in found:
        values = _known(Outcome, body)
        found[job] = Past(job, found[job].quoted, Outcome(**{**values, "starts_s": tuple(values["starts_s"])}))


def _known(kind: Any, body: dict[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in body.items() if name in names}


def _starts(ended: list[Past]) -> list[int]:
    return [value for past in ended[-KEPT:] if past.outcome for value in past.outcome.starts_s]


def _ends(ended: list[Past]) -> list[int]:
    return [past.outcome.end_s for past in ended[-KEPT:] if past.outcome and past.outcome.phase == "done"]


def _loosened(belief: Belief) -> Belief:
    """What the home says of a job that was seen before: worth one value of its own."""
    return Belief(belief.mean, min(belief.weight, 1.0), belief.spread, min(belief.freedom, 8.0))


def _on(outcome: Outcome, reference: Speed) -> float:
    """Seconds that a job's work would have taken on the reference machine."""
    factor, _ = pace(Speed(gemm_mops=outcome.gemm_mops, memory_mbps=outcome.memory_mbps), 1, reference)
    return outcome.work_s / factor


def _undecided(outcome: Outcome) -> bool:
    """Whether the job ended by its tenant's wish or its own fault: then it tells nothing but how far it came."""
    return outcome.phase == "stopped" or (outcome.phase == "failed" and outcome.exit_code is not None)


def _cost_test(past: Past) -> bool | None:
    quoted, outcome = past.quoted, past.outcome
    if outcome is None or quoted.cost_p90 is None or int(quoted.budget) < int(quoted.cost_p90):
        return None
    within = int(outcome.cost) <= int(quoted.cost_p90)
    return _verdict(outcome, within)


def _finish_test(past: Past) -> bool | None:
    quoted, outcome = past.quoted, past.outcome
    if outcome is None or quoted.finish_p90_s is None or quoted.cost_p90 is None:
        return None
    late = quoted.deadline_s is not None and quoted.deadline_s < quoted.finish_p90_s
    if late or int(quoted.budget) < int(quoted.cost_p90):
        return None
    return _verdict(outcome, outcome.elapsed_s <= quoted.finish_p90_s)


def _verdict(outcome: Outcome, within: bool) -> bool | None:
    if outcome.phase == "done":
        return within
    if _undecided(outcome):
        return None if within else False
    return False


def _look(journal: Journal, job: str, quoted: Quoted) -> Outcome | None:
    """The outcome of a job that is over; None while it is not, or if it never came to be ordered."""
    records = journal.read(job)
    return outcome_of(Order.from_json(records[0].body), records[1:], quoted.checkpoint_s) if records else None
