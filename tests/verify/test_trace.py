"""`minga.trace`: what a traced loop writes, what it costs when it is off, and what a death leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trained import Odds, traced

import minga
from minga.core.errors import BadArtifact, Conflict, InvalidInput, TooLarge
from minga.verify import leaves as leaves_module
from minga.verify.leaves import TraceFacts, TraceWriter, read_leaves, read_trace, state_name
from minga.verify.state import file_hash, read_state, state_hash, write_state
from minga.verify.trace import ReplayDone, Settings, TracedRun

JOB = Path(__file__).with_name("traced_job.py")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The trace of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "trace"
    Odds().train(Settings(folder, keep=5), steps=24)
    return folder


def test_a_trace_is_what_its_page_says(whole):
    facts, leaves = read_trace(whole)
    assert facts == TraceFacts(1, "D0", 1, 5, 0, 24, 25)
    assert json.loads((whole / "trace.json").read_text()) == {
        "version": 1, "determinism": "D0", "every": 1, "keep": 5, "first_step": 0, "steps": 24, "leaves": 25,
    }  # fmt: skip
    assert len(set(leaves)) == 25
    kept = sorted(path.name for path in (whole / "states").iterdir())
    assert kept == [f"{leaf:08d}.state" for leaf in (0, 5, 10, 15, 20)]
    for leaf in (0, 5, 10, 15, 20):
        path = whole / state_name(leaf)
        assert file_hash(path) == leaves[leaf]
        assert read_state(path)["step"] == leaf
    assert json.loads((whole / "class.json").read_text())["torch"] == torch.__version__


def test_the_same_job_leaves_the_same_trace_and_another_does_not(whole, tmp_path):
    Odds().train(Settings(tmp_path / "again", keep=5), steps=24)
    assert read_trace(tmp_path / "again") == read_trace(whole)
    Odds(seed=1).train(Settings(tmp_path / "other", keep=5), steps=24)
    theirs = read_trace(tmp_path / "other")[1]
    assert all(mine != other for mine, other in zip(read_trace(whole)[1], theirs, strict=True))


def test_a_cheat_shows_from_its_first_step_on(whole, tmp_path):
    one = Odds()
    with TracedRun(one.subject(), Settings(tmp_path / "lazy")) as run:
        for step in run.steps(24):
            if step != 7:
                one.step(step)
    mine, theirs = read_trace(whole)[1], read_trace(tmp_path / "lazy")[1]
    assert [left == right for left, right in zip(mine, theirs, strict=True)] == [True] * 8 + [False] * 17


def test_off_nothing_is_written_and_steps_are_a_range(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("MINGA_TRACE", "MINGA_REPLAY"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    one = Odds()
    with minga.trace(one.model, one.optimizer, scheduler=one.scheduler, extra=one.extra) as run:
        assert run.steps(5, first=2) == range(2, 5)
        endless = iter(run.steps(None, first=3))
        assert [next(endless), next(endless)] == [3, 4]
        run.leaf({"x": object()})
        assert not torch.are_deterministic_algorithms_enabled()
    assert not run.active
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("every", "steps", "leaves"), [(5, 24, 6), (6, 24, 5), (24, 24, 2), (100, 24, 2), (5, 20, 5)])
def test_leaves_stand_for_several_steps_the_last_for_the_rest(whole, tmp_path, every, steps, leaves):
    Odds().train(Settings(tmp_path / "some", every=every), steps)
    facts, found = read_trace(tmp_path / "some")
    assert (facts.every, facts.steps, facts.leaves) == (every, steps, leaves)
    assert found == [read_trace(whole)[1][min(at * every, steps)] for at in range(leaves)]


@pytest.mark.parametrize(("every", "ends"), [(1, range(9)), (5, (0, 5, 8)), (4, (0, 4, 8))])
def test_a_loop_left_by_break_ends_with_a_leaf(whole, tmp_path, every, ends):
    Odds().train(Settings(tmp_path / "left", every=every, keep=2), steps=24, stop=7)
    facts, leaves = read_trace(tmp_path / "left")
    assert (facts.steps, facts.leaves) == (8, len(ends))
    assert leaves == [read_trace(whole)[1][end] for end in ends]
    for leaf in range(0, len(ends), 2):
        assert file_hash(tmp_path / "left" / state_name(leaf)) == leaves[leaf]


def test_what_comes_after_the_loop_is_not_in_the_trace(whole, tmp_path):
    one = Odds()
    with TracedRun(one.subject(), Settings(tmp_path / "left")) as run:
        for step in run.steps(24):
            one.step(step)
            if step == 7:
                break
        torch.rand(1)
        one.model.last.weight.data.zero_()
    assert read_trace(tmp_path / "left")[1] == read_trace(whole)[1][:9]


@pytest.mark.parametrize("error", [RuntimeError("the job's own mistake"), SystemExit(3), KeyboardInterrupt()])
def test_a_failed_step_is_not_in_the_trace(whole, tmp_path, error):
    one = Odds()

    def fail():
        with TracedRun(one.subject(), Settings(tmp_path / "failed")) as run:
            for step in run.steps(24):
                one.step(step)
                if step == 7:
                    raise error

    with pytest.raises(type(error)):
        fail()
    facts, leaves = read_trace(tmp_path / "failed")
    assert (facts.steps, facts.leaves) == (7, 8)
    assert leaves == read_trace(whole)[1][:8]


def job_variables(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MINGA_TRACE_KEEP": "5", "MINGA_TRACE_DIR": str(folder)} | more


@pytest.fixture(scope="module")
def terminated(tmp_path_factory) -> Path:
    """The trace of a job that got SIGTERM and left its loop after step 15."""
    folder = tmp_path_factory.mktemp("terminated") / "trace"
    done = subprocess.run(
        [sys.executable, str(JOB)], env=job_variables(folder, JOB_TERM="15"), capture_output=True, text=True, check=True
    )
    assert done.stdout == "trained 16 steps; tracing\n"
    assert (read_trace(folder)[0].steps, read_trace(folder)[0].leaves) == (16, 17)
    return folder


def test_a_killed_job_leaves_a_shorter_trace(terminated, tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, str(JOB)], env=job_variables(folder, JOB_HANG="13"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "hanging\n"
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    facts, leaves = read_trace(folder)
    assert (facts.steps, facts.leaves) == (13, 14)
    assert leaves == read_trace(terminated)[1][:14]
    assert file_hash(folder / state_name(10)) == leaves[10]


@pytest.mark.parametrize("torn", [1, 31])
def test_a_torn_leaf_is_cut(whole, tmp_path, torn):
    Odds().train(Settings(tmp_path / "torn"), steps=3)
    with (tmp_path / "torn" / "leaves.bin").open("ab") as file:
        file.write(bytes(torn))
    assert read_trace(tmp_path / "torn")[1] == read_trace(whole)[1][:4]


def test_a_death_between_the_numbers_and_the_last_leaf_is_seen(tmp_path):
    """The last leaf is a short one, and its numbers are written first: without it they are those of a shorter trace."""
    Odds().train(Settings(tmp_path / "short", every=5), steps=12)
    facts, leaves = read_trace(tmp_path / "short")
    assert (facts.steps, facts.leaves) == (12, 4)
    with (tmp_path / "short" / "leaves.bin").open("r+b") as file:
        file.truncate(32 * 3)
    facts, fewer = read_trace(tmp_path / "short")
    assert (facts.steps, facts.leaves, fewer) == (10, 3, leaves[:3])


def test_a_resumed_attempt_begins_a_new_trace(tmp_path):
    """Its leaf 0 is the last leaf of the attempt before, and its steps keep their numbers."""
    settings = Settings(tmp_path / "all", keep=4)
    Odds().train(settings)
    one = Odds()
    one.train(Settings(tmp_path / "first", keep=4), stop=4)
    with TracedRun(one.subject(), Settings(tmp_path / "second", keep=4)) as run:
        for step in run.steps(12, first=5):
            one.step(step)
    every, first, second = (read_trace(tmp_path / name) for name in ("all", "first", "second"))
    assert (second[0].first_step, second[0].steps) == (5, 7)
    assert first[1][-1] == second[1][0]
    assert first[1] + second[1][1:] == every[1]


def test_what_an_earlier_run_left_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "trace"
    Odds().train(Settings(folder, keep=1), steps=4)
    monkeypatch.setattr("minga.verify.trace._in_use", set())
    Odds().train(Settings(folder), steps=2)
    facts, leaves = read_trace(folder)
    assert (facts.leaves, len(leaves)) == (3, 3)
    assert [path.name for path in (folder / "states").iterdir()] == ["00000000.state"]


def test_one_folder_has_one_trace(tmp_path):
    one = Odds()
    settings = Settings(tmp_path / "trace")
    with TracedRun(one.subject(), settings) as run:
        list(run.steps(1))
        with pytest.raises(Conflict):
            list(run.steps(1))
    with TracedRun(one.subject(), settings) as run, pytest.raises(Conflict, match="second trace"):
        list(run.steps(1))


def test_an_operator_without_a_deterministic_form_is_refused_under_d0(tmp_path):
    def scatter(settings):
        with TracedRun(Odds().subject(), settings) as run:
            for _ in run.steps(1):
                torch.empty(4, 4).put_(torch.tensor([1]), torch.ones(1))

    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        scatter(Settings(tmp_path / "d0"))
    assert not torch.are_deterministic_algorithms_enabled()
    scatter(Settings(tmp_path / "d2", determinism="D2"))
    assert read_trace(tmp_path / "d2")[0].determinism == "D2"


def test_a_tenants_own_choice_of_deterministic_operators_stays(tmp_path):
    torch.use_deterministic_algorithms(True)
    try:
        Odds().train(Settings(tmp_path / "one"), steps=1)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def denoise(settings: Settings, chunks: int = 6) -> list[torch.Tensor]:
    """A loop that is no training."""
    torch.manual_seed(3)
    model, latents, seen = torch.nn.Linear(4, 4), torch.randn(2, 4), []
    with TracedRun(Odds().subject(), settings) as run, torch.no_grad():
        for _ in range(chunks):
            latents = latents - 0.1 * model(latents) + 0.01 * torch.randn(2, 4)
            run.leaf({"latents": latents})
            seen.append(latents)
    return seen


def test_denoising_steps_are_leaves_and_can_be_done_again(tmp_path):
    seen = denoise(Settings(tmp_path / "trace", every=7, keep=2))
    facts, leaves = read_trace(tmp_path / "trace")
    assert (facts.every, facts.steps, facts.leaves) == (1, 6, 7)
    expected = {"format": "minga leaf 1", "leaf": 4, "tensors": {"latents": seen[3]}}
    assert leaves[4] == state_hash(expected) == file_hash(tmp_path / "trace" / state_name(4))
    with pytest.raises(ReplayDone):
        denoise(Settings(every=7, replay=(2, 5, None), replay_folder=tmp_path / "replay"))
    assert read_leaves(tmp_path / "replay" / "leaves.bin") == leaves[3:6]
    assert torch.equal(read_state(tmp_path / "replay" / state_name(5))["tensors"]["latents"], seen[4])


# ------------------------------------------------------------------------------------------------------- what is asked


def test_variables_are_read():
    assert Settings.of({}) == Settings()
    assert Settings.of({"MINGA_TRACE_EVERY": "nonsense"}) == Settings(), "off is off"
    given = {
        "MINGA_TRACE_DIR": "/t",
        "MINGA_TRACE_EVERY": "3",
        "MINGA_TRACE_KEEP": "9",
        "MINGA_TRACE_DETERMINISM": "D1",
    }
    assert Settings.of(given) == Settings(Path("/t"), 3, 9, "D1")
    replay = given | {"MINGA_REPLAY": "9:12", "MINGA_REPLAY_DIR": "/r"}
    assert Settings.of(replay) == Settings(None, 3, 9, "D1", (9, 12, None), Path("/r"))
    assert Settings.of(replay | {"MINGA_REPLAY": "9:12:31"}).replay == (9, 12, 31)
    assert Settings.of(replay | {"MINGA_REPLAY": "0:0"}).replay == (0, 0, None)


@pytest.mark.parametrize(
    "given",
    [
        {"MINGA_TRACE_EVERY": "0"}, {"MINGA_TRACE_EVERY": "-1"}, {"MINGA_TRACE_EVERY": "1.5"},
        {"MINGA_TRACE_EVERY": "²"},
        {"MINGA_TRACE_KEEP": ""}, {"MINGA_TRACE_KEEP": "9" * 30}, {"MINGA_TRACE_DETERMINISM": "D3"},
        {"MINGA_REPLAY": "1:2"}, {"MINGA_REPLAY": "2:2", "MINGA_REPLAY_DIR": "r"},
        {"MINGA_REPLAY": "5:2", "MINGA_REPLAY_DIR": "r"}, {"MINGA_REPLAY": "5", "MINGA_REPLAY_DIR": "r"},
        {"MINGA_REPLAY": "a:b", "MINGA_REPLAY_DIR": "r"}, {"MINGA_REPLAY": "1:2:3:4", "MINGA_REPLAY_DIR": "r"},
        {"MINGA_REPLAY": "0:9999999", "MINGA_REPLAY_DIR": "r"}, {"MINGA_REPLAY": "0:1:", "MINGA_REPLAY_DIR": "r"},
    ],
)  # fmt: skip
def test_variables_that_make_no_sense_are_refused(given):
    with pytest.raises(InvalidInput):
        Settings.of({"MINGA_TRACE_DIR": "/t"} | given)


# ------------------------------------------------------------------------------------------------- what strangers send


GOOD = {"version": 1, "determinism": "D0", "every": 2, "keep": 5, "first_step": 0, "steps": 5, "leaves": 4}


def stranger(folder: Path, facts, leaves: bytes = bytes(128)) -> Path:
    folder.mkdir()
    (folder / "trace.json").write_bytes(facts if isinstance(facts, bytes) else json.dumps(facts).encode())
    (folder / "leaves.bin").write_bytes(leaves)
    return folder


def test_a_good_strangers_trace_is_read(tmp_path):
    facts, leaves = read_trace(stranger(tmp_path / "good", GOOD))
    assert (facts.steps, leaves) == (5, [bytes(32)] * 4)
    stale = read_trace(stranger(tmp_path / "stale", GOOD | {"leaves": 2, "steps": 2}))[0]
    assert (stale.leaves, stale.steps) == (4, 6)
    early = read_trace(stranger(tmp_path / "early", GOOD, bytes(96)))[0]
    assert (early.leaves, early.steps) == (3, 4)


@pytest.mark.parametrize(
    "facts",
    [
        b"", b"[]", b"{", b'{"version":1,"version":1}', b" " * 5000, GOOD | {"more": 1}, GOOD | {"version": 2},
        GOOD | {"determinism": "D9"}, GOOD | {"determinism": 0}, GOOD | {"every": 0}, GOOD | {"every": 1.5},
        GOOD | {"every": True}, GOOD | {"keep": 0}, GOOD | {"steps": 7}, GOOD | {"steps": 4}, GOOD | {"steps": -1},
        GOOD | {"first_step": -1}, {name: GOOD[name] for name in GOOD if name != "keep"},
    ],
)  # fmt: skip
def test_a_bad_strangers_trace_is_refused(tmp_path, facts):
    with pytest.raises((InvalidInput, TooLarge)):
        read_trace(stranger(tmp_path / "bad", facts))


def test_a_trace_without_leaves_or_with_too_many_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no leaf"):
        read_trace(stranger(tmp_path / "empty", GOOD, bytes(31)))
    with pytest.raises(InvalidInput, match="no trace"):
        read_trace(tmp_path / "none")
    folder = stranger(tmp_path / "many", GOOD)
    with (folder / "leaves.bin").open("r+b") as file:
        file.truncate(32 * (2**20 + 1))
    with pytest.raises(TooLarge):
        read_trace(folder)


def test_a_trace_ends_where_the_tree_does(tmp_path, monkeypatch):
    monkeypatch.setattr("minga.verify.leaves.LEAVES_MAX", 3)
    writer = TraceWriter(tmp_path, "D0", 1, 50, 0)
    for step in range(3):
        assert (writer.place() is not None) == (step == 0)
        writer.append(step, bytes(32))
    with pytest.raises(TooLarge, match="at most 3"):
        writer.place()
    writer.close()


def test_the_tree_takes_as_many_leaves_as_a_trace():
    from minga.protocol.merkle import LEAVES_MAX

    assert leaves_module.LEAVES_MAX == LEAVES_MAX


# -------------------------------------------------------------------------------------------------- replays, in a job


def test_a_replay_that_cannot_begin_says_why(tmp_path):
    settings = traced(tmp_path / "trace", Odds().train)
    folder = tmp_path / "replay"
    replay = Settings(every=1, keep=4, replay=(4, 6, None), replay_folder=folder)
    with pytest.raises(InvalidInput, match="kept state"):
        Odds().train(replay)
    write_state(folder / state_name(4), {"format": "other"})
    with pytest.raises(InvalidInput, match="not a state of a training"):
        Odds().train(replay)
    assert settings.folder is not None


def test_a_state_that_does_not_come_back_is_no_difference(tmp_path):
    """A job whose registered object forgets is told so; nobody is blamed for it."""

    class Forgetful:
        def __init__(self):
            self.count = 0

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            pass

    def job(settings):
        one = Odds()
        one.extra["counter"] = Forgetful()
        with TracedRun(one.subject(), settings) as run:
            for _ in run.steps(6):
                one.extra["counter"].count += 1

    job(Settings(tmp_path / "trace", keep=4))
    folder = tmp_path / "replay"
    (folder / "states").mkdir(parents=True)
    (folder / state_name(4)).write_bytes((tmp_path / "trace" / state_name(4)).read_bytes())
    with pytest.raises(BadArtifact, match="does not come back"):
        job(Settings(keep=4, replay=(4, 6, None), replay_folder=folder))
