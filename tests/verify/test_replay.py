"""Part of a job is done again: the same leaves from every kept state, and an error when it could not be done."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from trained import Odds, traced

from minga.core.errors import InvalidInput, JobFailed
from minga.verify.leaves import TraceFacts, read_trace, state_name
from minga.verify.replay import (
    collect,
    first_difference,
    prepare,
    replay_command,
    replay_here,
    run_replay,
    start_for,
)
from minga.verify.state import file_hash

JOB = Path(__file__).with_name("traced_job.py")
RUN = f"{shlex.quote(sys.executable)} {shlex.quote(str(JOB))}"
VARIABLES = os.environ | {"OMP_NUM_THREADS": "1"}
FACTS = TraceFacts(1, "D0", 2, 5, 0, 23, 13)


@pytest.fixture(scope="module", params=[1, 5], ids=["each", "every-five"])
def odds(request, tmp_path_factory) -> Path:
    """A trace of the training with everything in it; with 5 steps a leaf the last leaf is short."""
    folder = tmp_path_factory.mktemp("odds") / "trace"
    traced(folder, Odds().train, every=request.param, keep=2)
    return folder


def test_every_segment_from_every_kept_state_is_the_same(odds, tmp_path):
    facts, leaves = read_trace(odds)
    done = 0
    for after in range(0, facts.leaves - 1, facts.keep):
        for until in {after + 1, facts.leaves - 1}:
            command = replay_command("", facts, after, until, "")
            found = replay_here(Odds(seed=9).train, command, tmp_path / "replay", odds / state_name(after))
            assert found.after == after
            assert list(found.leaves) == leaves[after + 1 : until + 1]
            assert first_difference(found.leaves, leaves, after) is None
            assert file_hash(found.state) == leaves[until]
            done += 1
    assert done >= 3


def test_leaf_0_is_made_by_the_job_itself(odds, tmp_path):
    facts, leaves = read_trace(odds)
    command = replay_command("", facts, 0, 0, "")
    assert replay_here(Odds().train, command, tmp_path / "replay", None).leaves == (leaves[0],)
    other = replay_here(Odds(seed=1).train, command, tmp_path / "replay", None)
    assert first_difference(other.leaves, leaves, -1) == 0


def test_a_replay_from_the_jobs_own_beginning_needs_no_state(odds, tmp_path):
    facts, leaves = read_trace(odds)
    command = replay_command("", facts, 0, 2, "", source="own")
    assert replay_here(Odds().train, command, tmp_path / "replay", None).leaves == tuple(leaves[1:3])


def test_a_replay_of_a_loop_that_was_left_ends_where_it_did(tmp_path):
    traced(tmp_path / "trace", lambda settings: Odds().train(settings, stop=7), every=5, keep=1)
    facts, leaves = read_trace(tmp_path / "trace")
    assert (facts.steps, facts.leaves) == (8, 3)
    command = replay_command("", facts, 1, 2, "")
    assert command.environment["MINGA_REPLAY"] == "1:2:8"
    found = replay_here(Odds(1).train, command, tmp_path / "replay", tmp_path / "trace" / state_name(1))
    assert found.leaves == (leaves[2],)
    again = replay_here(
        lambda settings: Odds(1).train(settings, stop=7),
        command,
        tmp_path / "replay",
        tmp_path / "trace" / state_name(1),
    )
    assert again == found, "the job leaves the loop by itself"


def test_a_replay_of_a_resumed_run_counts_its_own_leaves(tmp_path):
    def late(settings):
        one = Odds()
        for step in range(5):
            one.step(step)
        from minga.verify.trace import TracedRun

        with TracedRun(one.subject(), settings) as run:
            for step in run.steps(12, first=5):
                one.step(step)

    traced(tmp_path / "trace", late, every=2, keep=2)
    facts, leaves = read_trace(tmp_path / "trace")
    assert (facts.first_step, facts.steps, facts.leaves) == (5, 7, 5)
    command = replay_command("", facts, 2, 4, "")
    found = replay_here(late, command, tmp_path / "replay", tmp_path / "trace" / state_name(2))
    assert found.leaves == tuple(leaves[3:])


def test_a_job_is_replayed_by_its_own_command(tmp_path):
    trace, folder = tmp_path / "trace", tmp_path / "replay"
    environment = VARIABLES | {"MINGA_TRACE_DIR": str(trace), "MINGA_TRACE_EVERY": "3", "MINGA_TRACE_KEEP": "4"}
    subprocess.run(["bash", "-c", RUN], env=environment, check=True, capture_output=True)
    facts, leaves = read_trace(trace)
    command = replay_command(RUN, facts, 4, 7, str(folder))
    found = run_replay(command, tmp_path, folder, trace / state_name(4), environment)
    assert found.leaves == tuple(leaves[5:8])
    assert read_trace(trace) == (facts, leaves), "the trace itself is as it was"
    cheated = run_replay(command, tmp_path, folder, trace / state_name(4), environment | {"JOB_FREEZE": "15"})
    assert first_difference(cheated.leaves, leaves, 4) == 6


def test_a_replay_that_fails_is_an_error(tmp_path):
    folder = tmp_path / "replay"
    zero = replay_command("exit 3", FACTS, 0, 0, str(folder))
    with pytest.raises(JobFailed, match="exit code 3"):
        run_replay(zero, tmp_path, folder, None, VARIABLES)
    silent = replay_command("true", FACTS, 0, 3, str(folder), source="own")
    with pytest.raises(JobFailed, match="0 leaves of 3"):
        run_replay(silent, tmp_path, folder, None, VARIABLES)
    with pytest.raises(JobFailed, match="took over"):
        run_replay(replay_command("cat <(yes)", FACTS, 0, 0, str(folder)), tmp_path, folder, None, VARIABLES, 0.2)
    with pytest.raises(InvalidInput, match="to start from"):
        run_replay(replay_command("true", FACTS, 5, 6, str(folder)), tmp_path, folder, None, VARIABLES)


def test_a_job_that_ends_before_the_last_leaf_is_an_error(odds, tmp_path):
    facts, _ = read_trace(odds)
    command = replay_command("", facts, 0, facts.leaves - 1, "", source="own")
    with pytest.raises(JobFailed, match="leaves of"):
        replay_here(lambda settings: Odds().train(settings, steps=3), command, tmp_path / "replay", None)


def test_a_command_is_data():
    command = replay_command("python train.py", FACTS, 5, 7, "/job/out/replay")
    assert command.run == "python train.py"
    assert command.environment == {
        "MINGA_TRACE_DIR": "", "MINGA_TRACE_EVERY": "2", "MINGA_TRACE_KEEP": "5", "MINGA_TRACE_DETERMINISM": "D0",
        "MINGA_REPLAY": "5:7", "MINGA_REPLAY_DIR": "/job/out/replay",
    }  # fmt: skip
    assert (command.start, command.last, command.expected) == ("states/00000005.state", "states/00000007.state", 2)
    assert replay_command("x", FACTS, 10, 12, "/r").environment["MINGA_REPLAY"] == "10:12:23"
    assert replay_command("x", FACTS, 0, 12, "/r", source="own").start is None


@pytest.mark.parametrize(
    ("after", "until", "source"),
    [
        (1, 2, "kept"),
        (5, 5, "kept"),
        (5, 4, "kept"),
        (5, 13, "kept"),
        (-5, 1, "kept"),
        (5, 6, "own"),
        (12, 13, "given"),
    ],
)
def test_a_command_for_leaves_that_are_not_there_is_refused(after, until, source):
    with pytest.raises(InvalidInput):
        replay_command("x", FACTS, after, until, "/r", source)


def test_a_referee_does_one_leaf_from_a_state_that_it_is_given(odds, tmp_path):
    facts, leaves = read_trace(odds)
    last = facts.leaves - 1
    start = odds / state_name(0)
    if last > 1:
        made = replay_here(Odds(5).train, replay_command("", facts, 0, last - 1, ""), tmp_path / "first", start)
        assert file_hash(made.state) == leaves[last - 1]
        start = made.state
    command = replay_command("", facts, last - 1, last, "", "given")
    assert replay_here(Odds(6).train, command, tmp_path / "second", start).leaves == (leaves[last],)


def test_the_state_to_start_from_is_the_last_kept_before_the_leaf():
    assert [start_for(leaf, 4) for leaf in range(10)] == [0, 0, 0, 0, 0, 4, 4, 4, 4, 8]
    assert [start_for(leaf, 1) for leaf in range(4)] == [0, 0, 1, 2]
    for bad in ((-1, 1), (1, 0)):
        with pytest.raises(InvalidInput):
            start_for(*bad)


def test_the_first_difference():
    theirs = [bytes([at]) * 32 for at in range(6)]
    assert first_difference(theirs[3:5], theirs, 2) is None
    assert first_difference([theirs[3], bytes(32)], theirs, 2) == 4
    assert first_difference([*theirs[3:], bytes(32)], theirs, 2) == 6, "a trace that ends too soon"
    assert first_difference(theirs, theirs, -1) is None
    assert first_difference([], theirs) is None


def test_a_folder_is_emptied_before_a_replay(tmp_path):
    folder = tmp_path / "replay"
    (folder / "states").mkdir(parents=True)
    (folder / "leaves.bin").write_bytes(bytes(64))
    command = replay_command("x", FACTS, 5, 7, str(folder))
    start = tmp_path / "some.state"
    start.write_bytes(b"state")
    prepare(command, folder, start)
    assert (folder / "states" / "00000005.state").read_bytes() == b"state"
    with pytest.raises(JobFailed, match="0 leaves of 2"):
        collect(command, folder)
