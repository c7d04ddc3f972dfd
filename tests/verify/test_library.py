"""What a job takes along is enough for it, and is no more than it needs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minga
from minga.core.spec import FILES_MAX, safe_relative
from minga.verify.library import LIBRARY, trace_library

PACKAGE = Path(minga.__file__).parent
JOB = Path(__file__).with_name("traced_job.py")
ALLOWED = {"blake3", "numpy", "safetensors", "torch"}


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Path:
    """A folder with the library alone."""
    folder = tmp_path_factory.mktemp("taken")
    for name, data in trace_library().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its head or in a function, as a dotted name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name for name in inner if (PACKAGE.parent / (name.replace(".", "/") + ".py")).is_file())
    return found


def test_the_library_is_closed():
    mine = {f"minga/{name}" for name in LIBRARY}
    for name in LIBRARY:
        for module in imported(PACKAGE / name):
            top = module.partition(".")[0]
            if top != "minga":
                assert top in sys.stdlib_module_names | ALLOWED, f"{name} imports {module}"
                continue
            path = module.replace(".", "/")
            assert {f"{path}.py", f"{path}/__init__.py"} & mine, f"{name} imports {module}"


def test_the_library_is_the_same_each_time_and_fits_a_bundle():
    files = trace_library()
    assert files == trace_library()
    assert list(files) == sorted(files)
    assert [safe_relative(name) for name in files] == list(files)
    assert len(files) < FILES_MAX
    assert sum(map(len, files.values())) < 1 << 20
    assert all(data == (PACKAGE.parent / name).read_bytes() for name, data in files.items())


def test_every_module_is_imported_without_anything_that_a_job_lacks(taken):
    """In an interpreter without site packages: heads need the standard library alone; the grid's, PyTorch too."""
    names = [name for name in trace_library() if "/grid" not in name]
    modules = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in names]
    program = (
        f"import sys; sys.path.insert(0, {str(taken)!r})\n"
        + "".join(f"import {module}\n" for module in modules)
        + "assert minga.trace.__module__ == 'minga.verify.trace'\n"
        + "tops = {name.partition('.')[0] for name in sys.modules}\n"
        + "print(sorted(tops - set(sys.stdlib_module_names) - {'__main__'}))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "['minga']\n", done.stderr


GUARD = """
import runpy, sys
sys.path.insert(0, {taken!r})

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r} or (name.startswith("minga.") and name not in {modules!r}):
            raise ImportError("a job has no " + name)

sys.meta_path.insert(0, Guard())
runpy.run_path({job!r}, run_name="__main__")
import minga
assert minga.__file__.startswith({taken!r}), minga.__file__
"""


def test_a_job_runs_with_the_library_alone(taken, tmp_path):
    """PyTorch, numpy and blake3 are there; pydantic and the rest of what Minga itself needs cannot be imported."""
    modules = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in trace_library()}
    forbidden = {"pydantic", "eth_hash", "eth_account", "sha3", "coincurve", "httpx", "starlette", "anyio", "typer"}
    program = GUARD.format(taken=str(taken), forbidden=forbidden, modules=modules, job=str(JOB))
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "MINGA_TRACE_DIR": str(tmp_path / "trace")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "trained 24 steps; tracing\n", done.stderr
    from minga.verify.leaves import read_trace

    assert read_trace(tmp_path / "trace")[0].leaves == 25
