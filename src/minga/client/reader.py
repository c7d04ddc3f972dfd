"""What any process of this home can say of a job: status, events, logs, artifacts. Reads only.

Folds the journal (money, phases) and the job folder's events (progress, timings). Cheap to ask often: each time only
what is new is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minga.client.folder import JobEvent, JobFolder
from minga.client.home import Home
from minga.client.runner import fold, read_order
from minga.protocol import job_events as ev
from minga.protocol.job import step
from minga.protocol.job_state import State
from minga.protocol.job_times import Times
from minga.store.journal import Journal


@dataclass(frozen=True)
class JobStatus:
    """A job now. Amounts are token units, times Unix seconds; `spent` is promised by vouchers or taken, `held` the part
    of it about which an arbiter may still decide.
    """

    job: str
    name: str
    network: str
    phase: str
    terminal: bool
    settled: bool
    attempts: int
    exit_code: int | None
    reason: str
    budget: int
    spent: int
    available: int
    deposited: int
    locked: int
    working_s: int
    units: int
    price_per_hour: int | None
    provider: str | None
    progress: dict[str, Any] | None
    submitted_at: int
    ended_at: int | None
    checkpoint_step: int | None
    held: int = 0


class JobReader:
    """One job, as its files tell it."""

    def __init__(self, home: Home, journal: Journal, job: str) -> None:
        """Read the job's order.

        Raises:
            NotFound: there is no such job.
        """
        self.job = job
        self.folder = JobFolder(home.job(job))
        self._journal = journal
        self.order, _ = read_order(journal, job)
        self.state: State = fold(self.order, [])
        self.times = Times()
        self.closed_in: list[str] = []
        self.costs: dict[str, dict[str, Any]] = {}
        self.progress: dict[str, Any] | None = None
        self.first_log_ms: int | None = None
        self._number = 1
        self._offset = 0
        self._ended_at: int | None = None
        self.refresh()

    def refresh(self) -> State:
        """Take in what is new; returns the state."""
        for record in self._journal.read(self.job, self._number):
            event = ev.decode(record.kind, record.body)
            before = self.state
            self.times.note(before, event, record.at)
            self.state, _ = step(self.state, event, record.at)
            self._number = record.number
            if isinstance(event, ev.LeaseClosed):
                self.closed_in.append(event.transaction)
            if self.state.terminal and not before.terminal:
                self._ended_at = record.at
        events, self._offset = self.folder.events(self._offset)
        for told in events:
            self._take(told)
        return self.state

    def _take(self, told: JobEvent) -> None:
        if told.kind == "progress":
            self.progress = {name: told.data.get(name) for name in ("step", "total", "text")}
        elif told.kind == "transaction":
            self.costs[f"{told.data['what']}/{told.data['effect']}"] = told.data
        elif told.kind == "first_log" and self.first_log_ms is None:
            self.first_log_ms = int(told.data["after_ms"])

    def status(self) -> JobStatus:
        """The job now."""
        state = self.refresh()
        last = state.lease or (state.past[-1] if state.past else None)
        ending = state.ending
        return JobStatus(
            job=self.job,
            name=self.order.name,
            network=self.order.network,
            phase=state.phase,
            terminal=state.terminal,
            settled=state.settled,
            attempts=len(state.leases),
            exit_code=ending.exit_code if ending else None,
            reason=state.reason,
            budget=state.plan.budget,
            spent=state.spent,
            available=state.available,
            deposited=sum(item.deposit for item in state.leases),
            locked=state.locked,
            working_s=self.working_s,
            units=last.deal.units if last else 0,
            price_per_hour=last.deal.price_per_hour * last.deal.units if last else None,
            provider=last.deal.provider if last else None,
            progress=self.progress,
            submitted_at=self.order.submitted_at,
            ended_at=self._ended_at,
            checkpoint_step=state.checkpoint[2] if state.checkpoint else None,
            held=state.on_hold,
        )

    @property
    def working_s(self) -> int:
        """Seconds paid for, in all leases."""
        return sum(item.payable_s for item in self.state.leases)
