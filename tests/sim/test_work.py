"""The job as it really runs: time counts while it runs, and only then."""

from __future__ import annotations

import pytest

from minga.sim.kernel import SECOND, Kernel
from minga.sim.work import Process, Work, content_of, done_in, name_of

JOB = "0x" + "0b" * 32


def started(seconds: int = 30, base_s: int = 0, **more: int | None) -> tuple[Kernel, Process]:
    kernel = Kernel(0)
    return kernel, Process(kernel, Work(JOB, seconds, 10, **more), base_s)  # type: ignore[arg-type]


def test_a_job_ends_by_itself_when_its_work_is_done():
    kernel, process = started()
    kernel.run(29 * SECOND)
    assert process.end is None
    kernel.run(40 * SECOND)
    assert process.end == (0, "exited")
    assert process.ran_s == 30.0
    assert process.done_s == 30


def test_a_restored_job_does_what_is_left():
    kernel, process = started(base_s=22)
    kernel.run(100 * SECOND)
    assert process.ran_s == 8.0
    assert process.done_s == 30


def test_frozen_time_does_not_count():
    kernel, process = started()
    kernel.after(5, process.freeze)
    kernel.after(6, process.freeze)
    kernel.after(25, process.thaw)
    kernel.after(26, process.thaw)
    kernel.run(45 * SECOND)
    assert process.end is None
    assert process.ran_s == 25.0
    kernel.run(60 * SECOND)
    assert process.end == (0, "exited")


def test_checkpoints_come_by_running_time():
    kernel, process = started()
    wrote: list[bytes] = []
    process.wrote = wrote.append
    kernel.after(5, process.freeze)
    kernel.after(25, process.thaw)
    kernel.run(42 * SECOND)
    assert [done_in(content, JOB) for content in process.checkpoints] == [10, 20]
    assert wrote == process.checkpoints


@pytest.mark.parametrize(
    ("term_s", "grace_s", "ends", "saved"), [(2, 30, (143, "exited"), [4]), (0, 5, (137, "exited"), []),
                                            (3, 1, (137, "exited"), []), (2, 0, (137, "exited"), [])],
)  # fmt: skip
def test_a_stop_gives_what_grace_it_has(term_s, grace_s, ends, saved):
    kernel, process = started(term_s=term_s)
    kernel.after(2, lambda: process.stop(grace_s))
    kernel.run(2 * SECOND + max(term_s, grace_s) * SECOND)
    assert process.end == ends
    assert [done_in(content, JOB) for content in process.checkpoints] == saved


def test_a_stop_thaws():
    kernel, process = started(term_s=1)
    process.freeze()
    kernel.after(5, lambda: process.stop(10))
    kernel.run(20 * SECOND)
    assert process.end == (143, "exited")
    assert process.ran_s == 1.0


def test_a_failing_job_fails_where_it_fails():
    kernel, process = started(fails_at=7)
    kernel.run(100 * SECOND)
    assert process.end == (3, "exited")
    assert process.ran_s == 7.0


def test_an_idle_job_runs_and_makes_nothing():
    kernel, process = started(idles_at=12)
    kernel.run(100 * SECOND)
    assert process.end is None
    assert process.done_s == 12
    assert process.ran_s == 100.0
    assert len(process.checkpoints) == 1
    process.kill("lost")
    process.kill("again")
    assert process.end == (137, "lost")


def test_a_checkpoint_says_whose_it_is():
    content = content_of(JOB, 9)
    assert done_in(content, JOB) == 9
    assert done_in(content, "0x" + "0c" * 32) == 0
    assert done_in(None, JOB) == 0
    assert done_in(b"junk", JOB) == done_in(b"{}", JOB) == done_in(b'{"job":"x"}', JOB) == 0
    assert name_of(content) != name_of(content_of(JOB, 9, "somebody else"))
