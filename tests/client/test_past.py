"""Quotes and outcomes are kept once, read from journals alone, and teach the next quote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minga.client.order import Order
from minga.client.outcomes import Outcome, outcome_of
from minga.client.past import END, START, STREAM, Calibration, History, Past, Quoted, fingerprint, remember
from minga.core.spec import Speed
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_events import Deal, Plan
from minga.protocol.matching import Requirements
from minga.protocol.quote_model import Work
from minga.store.journal import Journal

JOB = "0x" + "11" * 32
OTHER = "0x" + "22" * 32
SAME = "0x" + "aa" * 32
QUOTED = Quoted(SAME, 100, "0x" + "33" * 32, 0, "1000000", None, "50", "90", 100, 200)
DONE = Outcome("done", 0, "60", 150, 100, 100, (20,), 4, 1)
BASE = Work()


def deal(number: int = 1) -> Deal:
    """A thousand token units a second."""
    return Deal(
        f"0x{number:040x}", f"0x{number:064x}", "0x" + "33" * 32, Amount(3_600_000), 2, 5, Amount(1), 60, 86400, 3600
    )


def order(submitted_at: int = 1000) -> Order:
    """An order of a hundred thousand token units."""
    plan = Plan(JOB, Amount(1_000_000))
    return Order("n", "net", "0x" + "01" * 20, submitted_at, 5, plan, Requirements(), {"run": "x"}, ())


def opened(attempt: int) -> ev.Opened:
    return ev.Opened(attempt, f"0x{attempt:064x}", f"0x{attempt + 9:064x}", 3600, 1000, "0xaa")


def lease(attempt: int, at: int, works_s: int) -> list[tuple[int, ev.Event]]:
    """From the offer found to so much work, beginning at `at`; it runs five seconds later."""
    bundle = {"terms": {"speed": {"gemm_mops": 500, "memory_mbps": 70}}}
    found: list[tuple[int, ev.Event]] = [
        (at, ev.Found(deal(attempt + 1), bundle)), (at + 1, opened(attempt)), (at + 2, ev.Sent(attempt)),
        (at + 3, ev.Started(attempt)), (at + 5, ev.PhaseSeen(attempt, 1, "running")),
    ]  # fmt: skip
    return [*found, (at + 5 + works_s, ev.Metered(attempt, 2, works_s, works_s + 1))]


def ends(attempt: int, at: int, works_s: int) -> list[tuple[int, ev.Event]]:
    """Exit, collection and close of the last attempt, over six seconds."""
    paid = Amount(2000 * works_s)
    return [
        (at, ev.Exited(attempt, 3, 0, "", works_s, works_s + 1)), (at + 2, ev.Gathered(attempt)),
        (at + 3, ev.Paid(attempt, paid)),
        (at + 5, ev.LeaseClosed(attempt, Amount(paid - paid // 100), Amount(paid // 100), Amount(0), Amount(10_000))),
        (at + 6, ev.Returned(Amount(10_000))),
    ]  # fmt: skip


UNDISTURBED = [(1002, ev.Funded()), *lease(0, 1003, 40), *ends(0, 1048, 40)]
BROKEN = [
    (1002, ev.Funded()), *lease(0, 1003, 40), (1060, ev.Lost(0, "provider-unreachable", "silent")),
    (1061, ev.ClosingStarted(0, 5000)), *lease(1, 1065, 70), *ends(1, 1140, 70),
]  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    made = Journal(tmp_path / "journal.db")
    yield made
    made.close()


def write(journal: Journal, events: list[tuple[int, ev.Event]], job: str = JOB) -> None:
    """Journal an order and events, as a runner does."""
    journal.append(job, "order", order().to_json(), 1000, effect="order")
    for at, event in events:
        kind, body = ev.encode(event)
        journal.append(job, kind, body, at)


# ------------------------------------------------------------------------------------------------------------ outcomes


def test_an_outcome_is_read_from_the_journal(journal: Journal) -> None:
    write(journal, UNDISTURBED)
    found = outcome_of(order(), journal.read(JOB)[1:], 0)
    assert found is not None
    assert (found.phase, found.leases, found.worked_s, found.work_s) == ("done", 1, 40, 40)
    assert found.starts_s == (8,), "from the order to running"
    assert (found.elapsed_s, found.end_s) == (54, 6)
    assert int(found.cost) == 80_000
    assert (found.gemm_mops, found.memory_mbps) == (1000, 140), "of both units"


@pytest.mark.parametrize(("checkpoint_s", "twice"), [(0, 40), (20, 10), (600, 40)])
def test_what_was_worked_twice_counts_once(journal: Journal, checkpoint_s: int, twice: int) -> None:
    write(journal, BROKEN)
    found = outcome_of(order(), journal.read(JOB)[1:], checkpoint_s)
    assert found is not None
    assert (found.leases, found.worked_s) == (2, 110)
    assert found.work_s == 110 - twice
    assert found.starts_s == (8, 10), "the second from the loss to running"


def test_time_without_a_runner_is_not_counted(journal: Journal) -> None:
    late = [(at + 5000 * (at > 1040), event) for at, event in UNDISTURBED]
    write(journal, [*late[:6], (6030, ev.Resumed(5000)), *late[6:]])
    found = outcome_of(order(), journal.read(JOB)[1:], 0)
    assert found is not None
    assert found.elapsed_s == 54


@pytest.mark.parametrize("count", range(len(UNDISTURBED)))
def test_a_job_that_is_not_over_has_no_outcome(journal: Journal, count: int) -> None:
    write(journal, UNDISTURBED[:count])
    assert outcome_of(order(), journal.read(JOB)[1:], 0) is None


# ------------------------------------------------------------------------------------------------------------- keeping


def test_quote_and_outcome_are_kept_once_whoever_looks(journal: Journal, tmp_path: Path) -> None:
    for _ in range(2):
        remember(journal, JOB, QUOTED, 1000)
    remember(journal, JOB, replace(QUOTED, cost_p90="1"), 1001)
    write(journal, UNDISTURBED)
    other = Journal(tmp_path / "journal.db")
    first, second = History.load(journal, 2000), History.load(other, 2001)
    other.close()
    assert [record.kind for record in journal.read(STREAM)] == ["quote", "outcome"]
    assert first.past == second.past
    assert first.past[0].quoted == QUOTED
    assert first.past[0].outcome == outcome_of(order(), journal.read(JOB)[1:], 0)


def test_a_job_under_way_is_looked_at_again_later(journal: Journal) -> None:
    remember(journal, JOB, QUOTED, 1000)
    assert History.load(journal, 1001).past == [Past(JOB, QUOTED)], "killed before the order was written"
    write(journal, UNDISTURBED[:5])
    assert History.load(journal, 1020).past[0].outcome is None
    for at, event in UNDISTURBED[5:]:
        kind, body = ev.encode(event)
        journal.append(JOB, kind, body, at)
    assert History.load(journal, 1100).past[0].outcome is not None


def test_fields_of_a_later_version_are_passed_over(journal: Journal) -> None:
    remember(journal, JOB, QUOTED, 1000)
    body = journal.read(STREAM)[0].body
    journal.append(STREAM, "quote", {**body, "job": OTHER, "more": 1}, 1000)
    journal.append(STREAM, "another", {"job": OTHER}, 1000)
    assert [past.quoted for past in History.load(journal, 1001).past] == [QUOTED, QUOTED]


def test_only_the_latest_are_read_for_a_quote_and_all_for_the_calibration(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minga.client.past.LATEST", 3)
    for number in range(8):
        remember(journal, f"0x{number:064x}", QUOTED, 1000)
    assert len(History.load(journal, 1001).past) == 3
    assert len(History.load(journal, 1001, everything=True).past) == 8


# ------------------------------------------------------------------------------------------------------------- beliefs


def past(outcome: Outcome | None, quoted: Quoted = QUOTED) -> Past:
    return Past(JOB, quoted, outcome)


def test_nothing_is_known_at_first() -> None:
    history = History()
    assert history.habits(SAME).start == START
    assert history.habits(SAME).end == END
    assert history.work(SAME, None, BASE) is BASE
    stated = history.work(SAME, 3600, BASE)
    assert (stated.source, stated.seen) == ("stated", 0)
    assert stated.seconds is not None
    assert stated.seconds.median == pytest.approx(3600)
    assert 1.5 < stated.seconds.at(1.2816) / 3600 < 2.5


def test_a_job_that_was_run_before_lasts_as_long_again() -> None:
    history = History([past(replace(DONE, work_s=seconds)) for seconds in (1000, 1100, 1050)])
    found = history.work(SAME, 7200, BASE)
    assert (found.source, found.seen) == ("history", 3)
    assert found.seconds is not None
    assert found.seconds.median == pytest.approx(1050, rel=0.01)
    assert found.seconds.at(1.2816) < 1300
    assert history.work("0x" + "bb" * 32, None, BASE).source == "unknown"


def test_one_run_is_enough_to_guess_and_not_enough_to_be_sure() -> None:
    once = History([past(replace(DONE, work_s=1000))]).work(SAME, None, BASE).seconds
    often = History([past(replace(DONE, work_s=1000))] * 30).work(SAME, None, BASE).seconds
    assert once is not None
    assert often is not None
    assert once.median == pytest.approx(often.median)
    assert once.at(1.2816) > often.at(1.2816)


@pytest.mark.parametrize("phase", ["failed", "stopped", "exhausted"])
def test_only_jobs_that_were_done_tell_how_long_they_last(phase: str) -> None:
    assert History([past(replace(DONE, phase=phase))]).work(SAME, None, BASE) is BASE


def test_runs_on_other_machines_count_in_time_on_the_last() -> None:
    slow = replace(DONE, work_s=2000, gemm_mops=100, memory_mbps=10)
    fast = replace(DONE, work_s=1000, gemm_mops=200, memory_mbps=20)
    found = History([past(slow), past(fast)]).work(SAME, None, BASE)
    assert found.reference == Speed(gemm_mops=200, memory_mbps=20)
    assert found.seconds is not None
    assert found.seconds.median == pytest.approx(1000, rel=0.01)


def test_a_tenant_who_always_says_half_is_believed_less() -> None:
    history = History([past(replace(DONE, work_s=7200), replace(QUOTED, stated_s=3600))] * 20)
    found = history.work("0x" + "bb" * 32, 1000, BASE)
    assert (found.source, found.seen) == ("stated", 20)
    assert found.seconds is not None
    assert 1700 < found.seconds.median < 2000
    assert found.seconds.at(1.2816) < 2 * 2000


def test_starts_are_learnt_here_first_and_from_jobs_alike_above_all() -> None:
    other = replace(QUOTED, fingerprint="0x" + "bb" * 32)
    mixed = History([*[past(replace(DONE, starts_s=(3,)), other)] * 10, *[past(replace(DONE, starts_s=(300,)))] * 5])
    fresh = mixed.habits("0x" + "cc" * 32).start
    assert mixed.habits(SAME).start.median > 150
    assert mixed.habits(other.fingerprint).start.median < 5
    assert 3 < fresh.median < 300
    assert fresh.at(1.2816) > 150
    assert History([past(replace(DONE, end_s=90))] * 30).habits(SAME).end.median == pytest.approx(90, rel=0.1)


def test_fingerprints_tell_jobs_apart_by_what_they_run_and_not_by_what_they_cost() -> None:
    task = {"run": "python train.py", "envs": {"EPOCHS": "3"}, "setup": "", "environment": "python", "grace_s": 30}
    needs = {"gpus": [], "cpu_milli": 4000, "price_per_hour_max": 5}
    same = fingerprint(task, needs, "/folder")
    assert same == fingerprint({**task, "grace_s": 5}, {**needs, "price_per_hour_max": None}, "/folder")
    others = [
        fingerprint({**task, "run": "python train.py --more"}, needs, "/folder"),
        fingerprint({**task, "envs": {"EPOCHS": "4"}}, needs, "/folder"),
        fingerprint(task, {**needs, "cpu_milli": 8000}, "/folder"),
        fingerprint(task, needs, "/elsewhere"),
    ]
    assert len({same, *others}) == 5


# --------------------------------------------------------------------------------------------------------- calibration

LATE, DEAR = replace(DONE, elapsed_s=201), replace(DONE, cost="91")


@pytest.mark.parametrize(
    ("outcome", "quoted", "cost", "finish"),
    [
        (DONE, QUOTED, (1, 1), (1, 1)),
        (LATE, QUOTED, (1, 1), (1, 0)),
        (DEAR, QUOTED, (1, 0), (1, 1)),
        (None, QUOTED, (0, 0), (0, 0)),
        (DONE, replace(QUOTED, cost_p90=None, finish_p90_s=None), (0, 0), (0, 0)),
        (DONE, replace(QUOTED, budget="89"), (0, 0), (0, 0)),
        (DONE, replace(QUOTED, deadline_s=199), (1, 1), (0, 0)),
        (replace(DONE, phase="exhausted"), QUOTED, (1, 0), (1, 0)),
        (replace(DONE, phase="failed", exit_code=None), QUOTED, (1, 0), (1, 0)),
        (replace(DONE, phase="failed", exit_code=3), QUOTED, (0, 0), (0, 0)),
        (replace(DONE, phase="stopped"), QUOTED, (0, 0), (0, 0)),
        (replace(LATE, phase="stopped"), QUOTED, (0, 0), (1, 0)),
        (replace(DEAR, phase="failed", exit_code=1), QUOTED, (1, 0), (0, 0)),
    ],
)
def test_a_job_counts_if_it_could_tell(
    outcome: Outcome | None, quoted: Quoted, cost: tuple[int, int], finish: tuple[int, int]
) -> None:
    found = History([past(outcome, quoted)]).calibration()
    assert found == Calibration(*cost, *finish)


def test_shares_are_of_the_jobs_that_count() -> None:
    found = History([past(DONE)] * 9 + [past(LATE), past(None)]).calibration().as_dict()
    assert found == {
        "cost_n": 10, "cost_within": 10, "finish_n": 10, "finish_within": 9,
        "cost_within_ppm": 1_000_000, "finish_within_ppm": 900_000,
    }  # fmt: skip
    assert History().calibration().as_dict()["cost_within_ppm"] is None
