"""Job files: SkyPilot's run as they are, ours mean what they say, and nothing is ignored in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.client.jobfile import KNOWN, load_job_file, parse_job
from minga.client.jobspec import Accept
from minga.client.order import needs_of
from minga.core.errors import InvalidJobFile, MingaError, NotFound, TooLarge
from minga.core.units import GIB

SKYPILOT = """
name: train
resources:
  cloud: aws
  accelerators: {A100: 8}
  cpus: 4+
  memory: 32+
  use_spot: true
  disk_size: 100
  disk_tier: best
  ports: [8080, 9000-9002]
num_nodes: 1
workdir: .
file_mounts:
  /data: ./data
  ~/config.txt: ./data/x.txt
envs:
  LR: 3e-4
  DATA: data
  FLAG: true
secrets:
  HF_TOKEN: null
setup: |
  pip install torch
run: |
  python train.py --lr $LR
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.txt").write_text("x")
    return tmp_path


def test_a_skypilot_task_of_one_node_runs_as_it_is(place: Path) -> None:
    loaded = parse_job(SKYPILOT, place, secrets={"HF_TOKEN": "t"})
    spec, needs = loaded.spec, loaded.spec.requirements
    assert spec.name == "train"
    assert str(needs.gpus[0]) == "A100:8"
    assert (needs.cpu_milli, needs.memory_bytes, needs.disk_bytes) == (4000, 32 * GIB, 100 * GIB)
    assert spec.ports == (8080, 9000, 9001, 9002)
    assert needs.ports == 4
    assert spec.workdir == place
    assert spec.file_mounts == {"/data": place / "data", "/job/home/config.txt": place / "data" / "x.txt"}
    assert spec.envs == {"LR": "3e-4", "DATA": "data", "FLAG": "True"}
    assert spec.secrets == {"HF_TOKEN": "t"}
    assert "HF_TOKEN" not in repr(spec)
    assert spec.egress is None
    ignored = " ".join(loaded.warnings)
    for name in ("resources.cloud", "resources.use_spot", "resources.disk_tier"):
        assert name in ignored


def test_our_own_words(place: Path) -> None:
    text = """
run: make
budget: {total: 2.50, per_hour: "0.35"}
deadline: 2h
grace: 10s
checkpoint: true
outputs: [models/*.pt]
retry: {attempts: 3, failures: 1, wait: 1m}
egress: [index.test]
environment: cuda
resources: {accelerators: "RTX 4090:2", vram: 24GB, disk: 10GB, region: eu, cpus: 1.5}
"""
    spec = parse_job(text, place).spec
    assert (spec.budget, spec.per_hour, spec.deadline_s, spec.grace_s) == ("2.50", "0.35", 7200, 10)
    assert (spec.retry.attempts, spec.retry.failures, spec.retry.wait_s) == (3, 1, 60)
    assert spec.checkpoint
    assert spec.requirements.region == "eu"
    assert spec.requirements.egress == ("index.test",)
    assert spec.requirements.environment == "cuda"
    assert spec.requirements.cpu_milli == 1500


def test_an_amount_is_never_a_float(place: Path) -> None:
    for amount in ("0.10000000000000001", "9007199254740993.10"):
        assert parse_job(f"run: x\nbudget: {amount}", place).spec.budget == amount


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a mapping"),
        ("- a", "not a mapping"),
        ("name: x", "run: there is nothing"),
        ("run: x\nnum_nodes: 2", "line 2: num_nodes"),
        ("run: x\nservice: {}", "line 2: service: not supported"),
        ("run: x\nresources:\n  image_id: docker:x", "line 3: resources.image_id"),
        ("run: x\nresources:\n  any_of: [{}]", "resources.any_of"),
        ("run: x\nfrobnicate: 1", "line 2: frobnicate: unknown field"),
        ("run: x\nresources: {gpuz: 1}", "resources.gpuz: unknown field"),
        ("run: x\nresources: 5", "resources: int instead of a mapping"),
        ("run: x\nresources:\n  cpus: many", "line 3: resources.cpus"),
        ("run: x\nresources:\n  cpus: 0", "resources.cpus"),
        ("run: x\nresources: {accelerators: 'H100:0'}", "resources.accelerators"),
        ("run: x\nresources: {memory: 5 apples}", "resources.memory"),
        ("run: x\nresources: {disk: 5, disk_size: 6}", "disk stands there too"),
        ("run: x\nresources: {ports: 70000}", "resources.ports"),
        ("run: x\nresources: {ports: http}", "resources.ports"),
        ("run: x\nbudget: lots", "budget"),
        ("run: x\nbudget: -1", "budget"),
        ("run: x\nbudget: {totl: 1}", "budget.totl"),
        ("run: x\ndeadline: soon", "deadline"),
        ("run: x\nretry: {attempts: 0}", "retry.attempts"),
        ("run: x\nretry: {tries: 1}", "retry.tries"),
        ("run: x\ncheckpoint: 5", "checkpoint"),
        ("run: x\noutputs: [../../x]", "outputs.0"),
        ("run: x\noutputs: [/etc/passwd]", "outputs.0"),
        ("run: x\nworkdir: nowhere", "is not there"),
        ("run: x\nworkdir: {url: 'https://example.org/x.git'}", "workdir"),
        ("run: x\nfile_mounts: {/data: 's3://bucket/x'}", "not a local path"),
        ("run: x\nfile_mounts: {/data: {source: x}}", "not a local path"),
        ("run: x\nfile_mounts: {/data/../etc: .}", "plain path"),
        ("run: x\nenvs: {'A-B': 1}", "envs.A-B"),
        ("run: x\nenvs: {A: }", "give it with --env A="),
        ("run: x\nsecrets: {A: }", "give it with --secret A="),
        ("run: x\nenvs: {A: [1]}", "not a plain value"),
        ("run: [x]", "run: list instead of text"),
        ("run: x\nrun: y", "line 2: 'run' stands twice"),
        ("run: !!python/object/apply:os.system ['true']", "tag"),
        ("run: x\n? [a]\n: b", "a key is not text"),
        ("run: x\n\tname: y", "line 2"),
        ("run: 'x", "line 1"),
        ("run: x\nname: " + "y" * 200, "name: over 128"),
    ],
)
def test_bad_files_name_the_field_and_its_line(text: str, says: str, place: Path) -> None:
    with pytest.raises(InvalidJobFile) as caught:
        parse_job(text, place)
    assert says in caught.value.fact + caught.value.remedy


def test_documents_that_grow_are_refused(place: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for new, old in zip("bcdefgh", "abcdefg", strict=True):
        bomb += f"{new}: &{new} [" + ", ".join([f"*{old}"] * 10) + "]\n"
    with pytest.raises(TooLarge):
        parse_job(bomb + "run: x", place)
    with pytest.raises(InvalidJobFile):
        parse_job("run: &r [*r]", place)
    with pytest.raises(InvalidJobFile):
        parse_job("run: " + "[" * 100 + "]" * 100, place)
    with pytest.raises(MingaError):
        parse_job("run: " + "[" * 100_000, place)
    with pytest.raises(TooLarge):
        parse_job("#" * (2 << 20), place)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_job_file(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00run")
    with pytest.raises(InvalidJobFile):
        load_job_file(tmp_path / "b.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(TooLarge):
        load_job_file(tmp_path / "big.yaml")
    (tmp_path / "job.yaml").write_text("run: echo\nworkdir: .")
    assert load_job_file(tmp_path / "job.yaml").spec.workdir == tmp_path.resolve()


@given(st.text(max_size=200))
def test_no_text_ends_in_anything_but_our_errors(text: str) -> None:
    try:
        parse_job(text, Path("/"))
    except MingaError:
        return


@given(
    st.sampled_from(KNOWN), st.recursive(st.none() | st.integers() | st.text() | st.booleans(), st.lists, max_leaves=4)
)
def test_no_value_of_any_field_ends_in_anything_but_our_errors(name: str, value) -> None:
    import json

    try:
        parse_job(json.dumps({"run": "x", name: value}), Path("/"))
    except MingaError:
        return


def test_a_job_that_guards_itself(place: Path) -> None:
    text = """
run: train
checkpoint: {to: s3://bucket/prefix, endpoint: https://s3.example.org, every: 5m}
accept: {run: python check.py, timeout: 2m}
max_idle: 20m
duration: 2h
probe: false
close_window: 4h
setup_wait: 1h
"""
    spec = parse_job(text, place).spec
    assert (spec.checkpoint, spec.checkpoint_to, spec.checkpoint_every_s) == (True, "s3://bucket/prefix", 300)
    assert spec.checkpoint_endpoint == "https://s3.example.org"
    assert spec.accept == Accept("python check.py", place, 300, 120), "checkpoints are as far apart as they say"
    assert (spec.max_idle_s, spec.duration_s, spec.setup_wait_s, spec.probe) == (1200, 7200, 3600, False)
    assert spec.close_window_s == spec.requirements.close_window_max == 4 * 3600
    needs = needs_of(spec, 6, False)
    assert (needs.quantum_min, needs.close_window_max) == (300, 4 * 3600)
    plain = parse_job("{run: x, checkpoint: true, accept: make check}", place).spec
    assert plain.accept == Accept("make check", place)
    assert (plain.probe, plain.close_window_s, plain.max_idle_s, plain.checkpoint_to) == (True, 3600, None, "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{run: x, accept: check}", "accept"),
        ("{run: x, checkpoint: true, accept: ''}", "accept"),
        ("{run: x, checkpoint: true, accept: {every: 5m}}", "accept"),
        ("{run: x, checkpoint: [1]}", "checkpoint"),
        ("{run: x, checkpoint: true, accept: {run: x, when: 5m}}", "accept.when"),
        ("{run: x, checkpoint: true, accept: {run: x, timeout: 0}}", "accept.timeout"),
        ("{run: x, checkpoint: {every: soon}}", "checkpoint.every"),
        ("{run: x, checkpoint: {two: 1}}", "checkpoint.two"),
        ("{run: x, checkpoint: {endpoint: https://a.example}}", "checkpoint.endpoint"),
        ("{run: x, max_idle: 1s}", "max_idle"),
        ("{run: x, probe: maybe}", "probe"),
        ("{run: x, close_window: 10m}", "close_window"),
        ("{run: x, duration: 0}", "duration"),
        ("{run: x, setup_wait: 0}", "setup_wait"),
        ("{run: x, accept: [1], checkpoint: true}", "accept"),
        ("{run: x, checkpoint: {to: ftp://x/y}}", "checkpoint.to"),
    ],
)
def test_guards_that_are_wrong_name_their_field(text: str, named: str, place: Path) -> None:
    with pytest.raises(InvalidJobFile) as caught:
        parse_job(text, place)
    assert f"{named}:" in caught.value.fact
    assert caught.value.remedy
