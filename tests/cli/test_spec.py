"""From flags to a job: flags mean what the job file's fields mean, and win over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minga.cli.options import parse_assignments, port_option
from minga.cli.spec import Wishes, build_spec
from minga.core.errors import InvalidInput, InvalidJobFile, NotFound, UnsafePath
from minga.core.units import GIB

FILE = """
name: from-file
resources: {cpus: 2, memory: 4, accelerators: A100}
envs: {A: one, B: two}
run: python train.py
outputs: ["*.csv"]
budget: {total: 1, per_hour: 0.5}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(FILE)
    return path


def test_a_command_needs_no_file(tmp_path: Path) -> None:
    spec = build_spec(["python", "train.py", "--lr", "1e-3", "two words"], Wishes(gpu="RTX4090", budget="2"), tmp_path)
    assert spec.run == "python train.py --lr 1e-3 'two words'"
    assert spec.workdir == tmp_path
    assert spec.budget == "2"
    assert [str(wish.name) for wish in spec.requirements.gpus] == ["RTX4090"]


def test_one_word_is_shell_text(tmp_path: Path) -> None:
    assert build_spec(["make && ./run"], Wishes(), tmp_path).run == "make && ./run"


def test_sizes_and_the_rest_mean_what_the_file_means(tmp_path: Path) -> None:
    wishes = Wishes(
        name="n", cpus="1.5", memory="512MB", disk="10", region="eu", budget="0.10", max_price="3", deadline="90m",
        envs={"A": "1"}, secrets={"TOKEN": "hidden"}, outputs=("*.bin",), checkpoint=True, send_folder=False,
    )  # fmt: skip
    spec = build_spec(["true"], wishes, tmp_path)
    needs = spec.requirements
    assert (needs.cpu_milli, needs.memory_bytes, needs.disk_bytes) == (1500, 512_000_000, 10 * GIB)
    assert (needs.region, spec.per_hour, spec.deadline_s, spec.name) == ("eu", "3", 5400, "n")
    assert (dict(spec.envs), dict(spec.secrets)) == ({"A": "1"}, {"TOKEN": "hidden"})
    assert (spec.outputs, spec.checkpoint, spec.workdir) == (("*.bin",), True, None)
    assert "hidden" not in repr(spec)


def test_flags_win_over_the_file_and_the_rest_of_it_stays(file: Path, tmp_path: Path) -> None:
    plain = build_spec([str(file)], Wishes(), tmp_path)
    assert plain.name == "from-file"
    assert dict(plain.envs) == {"A": "one", "B": "two"}
    changed = build_spec([str(file)], Wishes(cpus="8", budget="2", envs={"A": "three"}), tmp_path)
    assert changed.requirements == replace(plain.requirements, cpu_milli=8000)
    assert (changed.budget, changed.per_hour, changed.run) == ("2", "0.5", "python train.py")
    assert dict(changed.envs) == {"A": "three", "B": "two"}
    assert replace(changed, requirements=plain.requirements, budget=plain.budget, envs=plain.envs) == plain


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(budget="x"), Wishes(budget="-1"), Wishes(budget="nan"), Wishes(cpus="many"), Wishes(cpus="0"),
        Wishes(memory="big"), Wishes(disk="-1"), Wishes(gpu=":"), Wishes(deadline="soon"), Wishes(max_price="1e"),
        Wishes(outputs=("../../x",)), Wishes(name="x" * 200), Wishes(workdir="not-there"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_wrong_flag_is_one_clear_error(wishes: Wishes, file: Path, tmp_path: Path) -> None:
    for target in (["true"], [str(file)]):
        with pytest.raises((InvalidInput, NotFound)) as refused:
            build_spec(target, wishes, tmp_path)
        assert not refused.value.fact.startswith("line ")
        assert refused.value.remedy


def test_targets_that_make_no_job(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nothing to run"):
        build_spec([], Wishes(), tmp_path)
    with pytest.raises(InvalidInput, match="job file"):
        build_spec([str(file), "more"], Wishes(), tmp_path)
    with pytest.raises(NotFound):
        build_spec(["none.yaml"], Wishes(), tmp_path)
    file.write_text("run: [1]")
    with pytest.raises(InvalidJobFile):
        build_spec([str(file)], Wishes(), tmp_path)


@pytest.mark.parametrize("folder", [Path("/"), Path.home()], ids=["root", "home"])
def test_a_home_is_not_sent_unasked(folder: Path) -> None:
    with pytest.raises(UnsafePath):
        build_spec(["true"], Wishes(), folder)
    assert build_spec(["true"], Wishes(send_folder=False), folder).workdir is None


def test_a_skypilot_task_warns_about_what_has_no_meaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.yml").write_text("resources: {cloud: aws, use_spot: true}\nrun: echo hi\n")
    build_spec([str(tmp_path / "task.yml")], Wishes(), tmp_path)
    err = capsys.readouterr().err
    assert err.count("warning: ") == 2
    assert "resources.cloud" in err


def test_assignments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_SHELL", "here")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert parse_assignments(["A=1", "B=x=y", "C=", "FROM_SHELL"], "--env") == {
        "A": "1", "B": "x=y", "C": "", "FROM_SHELL": "here",
    }  # fmt: skip
    for bad in ("=1", "1A=2", "a b=c", "NOT_SET", ""):
        with pytest.raises(InvalidInput):
            parse_assignments([bad], "--env")


def test_ports() -> None:
    assert port_option(0) == 0
    for bad in (-1, 65536):
        with pytest.raises(InvalidInput):
            port_option(bad)


def test_flags_for_idleness_duration_and_probes_are_the_job_files_fields(tmp_path: Path) -> None:
    wishes = Wishes(budget="5", max_idle="20m", duration="2h", probe=False, send_folder=False)
    spec = build_spec(["true"], wishes, tmp_path)
    assert (spec.max_idle_s, spec.duration_s, spec.probe) == (1200, 7200, False)
    path = tmp_path / "job.yaml"
    path.write_text("{run: x, max_idle: 1h, checkpoint: true, accept: check, close_window: 2h}")
    merged = build_spec([str(path)], Wishes(max_idle="30m", send_folder=False), tmp_path)
    assert (merged.max_idle_s, merged.probe, merged.close_window_s) == (1800, True, 7200)
    assert merged.accept is not None
    assert merged.accept.folder == tmp_path.resolve()
