"""Remote functions: pickled there, data back; nothing is unpickled here unless asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.client.calls import RemoteError, decode, read_results, write_call
from minga.client.folder import Artifact
from minga.client.functions import function
from minga.client.remote_call import encode
from minga.core.crypto import blake3_hex
from minga.core.errors import BadArtifact, InvalidInput, MingaError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(plain)
def test_plain_data_comes_back_the_same(value) -> None:
    sent = json.loads(json.dumps(encode(value, Path("/nowhere"))))
    back = decode(sent, {})
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, Path("x")])
def test_what_has_no_safe_form_is_refused_there(value) -> None:
    with pytest.raises(TypeError, match="no safe form"):
        encode(value, Path("/nowhere"))


@pytest.mark.parametrize(
    "value", [{}, {"$what": 1}, {"$int": "x"}, {"$bytes": "%"}, {"a": 1, "b": 2}, {"$float": 1}, {"$dict": 3}]
)
def test_a_malformed_result_is_the_providers_fault(value, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact):
        list(read_results(artifacts_of(tmp_path, [{"value": value}]), 1, "data"))


def artifacts_of(folder: Path, results: object) -> list[Artifact]:
    data = json.dumps(results).encode()
    (folder / "results.json").write_bytes(data)
    return [Artifact(path.name, path.stat().st_size, blake3_hex(path.read_bytes()), path) for path in folder.iterdir()]


def test_a_pickle_that_nobody_asked_for_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "value-0.pickle").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    artifacts = artifacts_of(tmp_path, [{"pickle": "value-0.pickle"}])
    with pytest.raises(BadArtifact, match="nobody asked"):
        list(read_results(artifacts, 1, "data"))


@pytest.mark.parametrize("results", [{}, "x", [1], [{"value": 1}, {"value": 2}], [{"pickle": "../x"}]])
def test_results_of_another_shape_are_refused(results, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact):
        list(read_results(artifacts_of(tmp_path, results), 1, "pickle"))


KINDS = ["dict", "tuple", "int", "float", "bytes", "array", "what"]
FACTOR = 7


def scaled(number: int, *, add: int = 0) -> dict:
    return {"number": number * FACTOR + add, "bytes": bytes([number]), "pair": (1, 2.5)}


def failing(number: int) -> int:
    return 1 // number


def call(tmp_path: Path, called, items: list, result: str = "data") -> list[Artifact]:
    """Do what a job does with a call, in a process of its own that has nothing of Minga."""
    folder, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    write_call(folder, called, items, result)
    env = {"MINGA_OUTPUT_DIR": str(out), "MINGA_PROGRESS": str(tmp_path / "progress"), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-I", "-S", "remote_call.py"], cwd=folder, env=env, check=True, timeout=60)
    return [Artifact(path.name, path.stat().st_size, "", path) for path in out.iterdir()]


def test_a_function_runs_elsewhere_with_what_it_refers_to(tmp_path: Path) -> None:
    items = [((2,), {}), ((3,), {"add": 1})]
    results = list(read_results(call(tmp_path, scaled, items), 2, "data"))
    assert results == [scaled(2), scaled(3, add=1)]
    assert (tmp_path / "progress").read_text().count("\n") == 2


def test_its_error_comes_back_with_the_remote_traceback(tmp_path: Path) -> None:
    found = read_results(call(tmp_path, failing, [((1,), {}), ((0,), {})]), 2, "data")
    assert next(found) == 1
    with pytest.raises(RemoteError, match="ZeroDivisionError") as caught:
        next(found)
    assert "in failing" in str(caught.value)


def test_pickles_come_back_when_the_tenant_asks(tmp_path: Path) -> None:
    (result,) = read_results(call(tmp_path, set, [(([1, 2],), {})], "pickle"), 1, "pickle")
    assert result == {1, 2}


def test_another_python_is_a_clear_error(tmp_path: Path) -> None:
    folder, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    write_call(folder, failing, [], "data")
    (folder / "call.json").write_text(json.dumps({"python": [2, 7], "result": "data"}))
    env = {"MINGA_OUTPUT_DIR": str(out), "MINGA_PROGRESS": str(tmp_path / "progress")}
    subprocess.run([sys.executable, "remote_call.py"], cwd=folder, env=env, check=True, timeout=60)
    with pytest.raises(RemoteError, match=r"made by Python 2\.7"):
        list(read_results([Artifact("results.json", 1, "", out / "results.json")], 1, "data"))


def test_a_decorated_function_still_runs_here() -> None:
    decorated = function(gpu="H100", budget="2", memory="4GB")(scaled)
    assert decorated(1) == decorated.local(1) == scaled(1)
    assert decorated.__name__ == "scaled"
    with pytest.raises(InvalidInput):
        decorated.map([1], jobs=0)
    with pytest.raises(InvalidInput):
        function(result="exec")(scaled)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        function(gpu="H100:0")(scaled)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["results.json", "0x1p-3", "QQ=="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([f"${kind}" for kind in KINDS] + ["value", "error", "a"]), inner, max_size=2)
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["value", "error", "pickle", "traceback"]), json_values, max_size=2)))
def test_whatever_a_provider_answers_is_data_or_one_of_our_errors(results: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifacts = artifacts_of(Path(folder), results)
        try:
            assert len(list(read_results(artifacts, len(results), "data"))) == len(results)
        except MingaError:
            assert results, "no calls, no error"


def test_results_that_are_missing_huge_or_no_json_are_the_providers_fault(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(BadArtifact, match="no results"):
        list(read_results([], 1, "data"))
    for text in ("", "{", "[" * 100_000, "\ud800"):
        (tmp_path / "results.json").write_text(text, errors="replace")
        artifact = Artifact("results.json", 1, "", tmp_path / "results.json")
        with pytest.raises(BadArtifact):
            list(read_results([artifact], 1, "data"))
    monkeypatch.setattr("minga.client.calls.RESULT_BYTES_MAX", 10)
    with pytest.raises(BadArtifact, match="no results"):
        list(read_results(artifacts_of(tmp_path, [{"value": "x" * 100}]), 1, "data"))


def test_an_array_whose_file_is_another_thing_is_the_providers_fault(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="not there"):
        list(read_results(artifacts_of(tmp_path, [{"value": {"$array": "../../etc/passwd"}}]), 1, "data"))


@pytest.mark.parametrize("depth", [50, 101])
def test_deep_results_have_a_limit_where_they_are_made(depth: int, tmp_path: Path) -> None:
    value: list = []
    for _ in range(depth):
        value = [value]
    if depth > 100:
        with pytest.raises(TypeError, match="100 levels"):
            encode(value, tmp_path)
    else:
        assert decode(encode(value, tmp_path), {}) == value
