"""What became of one job, as its own journal tells it: cost, times, work.

Read by folding the journal, at any time after the end and by any process of the home. Whole seconds; amounts are text.
Does not know: quotes. Rule: work that was done twice counts once, and time in which nobody ran the job not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from minga.client.order import Order
from minga.protocol import job_events as ev
from minga.protocol.job import step
from minga.protocol.job_state import AT_WORK, Lease, State, begin
from minga.store.journal import Record

GAP_S = 30
"""Longer times without a runner are the tenant's own, and no outcome of the quote."""


@dataclass(frozen=True)
class Outcome:
    """What became of it. `work_s` counts once what was worked twice; `starts_s` of each attempt that came to run;
    `gemm_mops`, `memory_mbps` what the machine of most of the work promised (0: nothing).
    """

    phase: str
    exit_code: int | None
    cost: str
    elapsed_s: int
    worked_s: int
    work_s: int
    starts_s: tuple[int, ...]
    end_s: int
    leases: int
    gemm_mops: int = 0
    memory_mbps: int = 0


def outcome_of(order: Order, records: list[Record], checkpoint_s: int) -> Outcome | None:
    """What a job's journal says of its outcome; None while it is not over."""
    watch = _Watch(order)
    for record in records:
        watch.take(ev.decode(record.kind, record.body), record.at)
    state = watch.state
    if not state.terminal:
        return None
    leases = state.leases
    worked = sum(item.payable_s for item in leases)
    main = max(leases, key=lambda item: item.payable_s, default=None)
    speed = (0, 0) if main is None else _speed(main)
    return Outcome(
        state.phase, state.ending.exit_code if state.ending else None, str(state.spent), watch.elapsed_s, worked,
        max(0, worked - _twice(leases, checkpoint_s)), tuple(watch.starts), watch.end_s, len(leases), *speed,
    )  # fmt: skip


def _speed(lease: Lease) -> tuple[int, int]:
    speed = lease.bundle.get("terms", {}).get("speed") or {}
    return tuple(int(speed.get(name, 0)) * lease.deal.units for name in ("gemm_mops", "memory_mbps"))  # type: ignore[return-value]


def _twice(leases: tuple[Lease, ...], checkpoint_s: int) -> int:
    """Seconds that were worked again: half a checkpoint's time of each lease that broke, all of it without any."""
    broken = [item.payable_s for item in leases[:-1]]
    return sum(min(worked, checkpoint_s // 2) if checkpoint_s else worked for worked in broken)


class _Watch:
    """Folds a job's events and takes the times: of starts, of the end, of all, less gaps in which nobody ran it."""

    def __init__(self, order: Order) -> None:
        self.state: State = begin(order.plan)
        self.starts: list[int] = []
        self._began = order.submitted_at
        self._sought: int | None = order.submitted_at
        self._worked_at = self._over_at = order.submitted_at
        self._gaps = 0

    def take(self, event: ev.Event, at: int) -> None:
        before = self.state
        self.state, _ = step(before, event, at)
        if isinstance(event, ev.Resumed) and event.gap_s > GAP_S and not before.terminal:
            self._gaps += event.gap_s
        phase = self.state.phase
        if phase == "running" and self._sought is not None:
            self.starts.append(max(0, at - self._sought))
            self._sought = None
        elif before.phase in AT_WORK and phase not in AT_WORK:
            self._sought = self._worked_at = at
        if self.state.terminal and not before.terminal:
            self._over_at = at

    @property
    def elapsed_s(self) -> int:
        """Seconds from the order to the end."""
        return max(0, self._over_at - self._began - self._gaps)

    @property
    def end_s(self) -> int:
        """Seconds from the last work to the end."""
        return max(0, self._over_at - self._worked_at)
