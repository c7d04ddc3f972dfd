"""Where a job's time went: each lease's seconds by state, and those that nobody was paid for, with the reason.

A fold over the job's events beside its states: `note` for each, `account` for the sums. Seconds are calendar seconds
between journal records; what the calendar took back counts as nothing. Pure.

| state         | seconds                                                                     |
|---------------|-----------------------------------------------------------------------------|
| opening       | the transaction was on its way                                              |
| sending       | inputs were sent, the machine measured                                      |
| starting      | the provider prepared and ran `setup`                                       |
| working       | it said that the job runs                                                   |
| paused        | it held the job, waiting for a voucher                                      |
| collecting    | results were fetched                                                        |
| closing       | the lease was closed                                                        |
| unreachable   | nothing was heard of it, and then it was given up                           |
| away          | our own runner was not there                                                |
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minga.protocol import job_events as ev
from minga.protocol.job_lease import Lease
from minga.protocol.job_state import Phase, State

STATES: dict[Phase, str] = {
    "opening": "opening", "sending": "sending", "starting": "starting", "running": "working", "paused": "paused",
    "collecting": "collecting", "closing": "closing",
}  # fmt: skip


@dataclass
class Times:
    """Seconds by attempt and state."""

    seconds: dict[int, dict[str, int]] = field(default_factory=dict)
    _at: int | None = None

    def note(self, before: State, event: ev.Event, at: int) -> None:
        """Take in an event that happened in the state `before`, at Unix seconds `at`."""
        passed = 0 if self._at is None else max(0, at - self._at)
        self._at = at
        lease, state = before.lease, STATES.get(before.phase)
        if lease is None or state is None:
            return
        spent = self.seconds.setdefault(lease.attempt, {})
        if isinstance(event, ev.Resumed):
            away = max(0, min(passed, event.gap_s))
            _add(spent, "away", away)
            passed -= away
        _add(spent, state, passed)
        if isinstance(event, ev.Lost) and event.attempt == lease.attempt:
            silent = max(0, min(spent.get(state, 0), event.silent_s))
            _add(spent, "unreachable", silent)
            _add(spent, state, -silent)


def _add(spent: dict[str, int], state: str, seconds: int) -> None:
    total = spent.get(state, 0) + seconds
    if total:
        spent[state] = total
    else:
        spent.pop(state, None)


@dataclass(frozen=True)
class Account:
    """One lease: seconds by state, those of them that were paid, and the others by reason.

    `paid_s` + the sum of `unpaid` is the sum of `seconds`, unless more was paid than was seen (our runner was away).
    """

    seconds: dict[str, int]
    paid_s: int
    unpaid: dict[str, int]


def account(lease: Lease, seconds: dict[str, int]) -> Account:
    """The seconds of a lease, each with what became of it."""
    unpaid = {state: count for state, count in seconds.items() if state not in ("working", "away")}
    left = seconds.get("working", 0) + seconds.get("away", 0) - lease.paid_s
    for reason, most in _reasons(lease):
        taken = max(0, min(left, most))
        left -= taken
        if taken:
            unpaid[reason] = unpaid.get(reason, 0) + taken
    return Account(dict(seconds), lease.paid_s, unpaid)


def _reasons(lease: Lease) -> list[tuple[str, int]]:
    """Why working seconds were not paid, and how many at most for each reason; the last takes the rest."""
    limited = lease.worked_s if lease.limit_s is None else min(lease.worked_s, lease.limit_s)
    reasons = [(lease.limit_why or "limit", lease.worked_s - limited)]
    if lease.checked:
        reasons.append(("not accepted", limited - lease.payable_s))
    reasons.append(("no voucher before it ended", lease.payable_s - lease.paid_s))
    rest = {"away": "our runner was away"}.get("away" if lease.away else "", "not claimed as work")
    return [*reasons, (rest, 1 << 62)]
