"""The jobs' environment: built for real once, refused clearly when it cannot be built, and never half there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from minga.core.errors import DiskFull, MissingPrerequisite
from minga.runtimes import environments
from minga.runtimes.environments import (
    TORCH,
    ai_environment,
    ai_lock,
    build_ai_environment,
    environments_dir,
    is_complete,
)

ROOT = Path(__file__).resolve().parents[2]
SHOW = """
import importlib.metadata as m, json, sys, torch
names = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in m.distributions()}
print(json.dumps({"packages": names, "prefix": sys.prefix, "product": (torch.ones(2, 3) @ torch.ones(3, 2)).tolist()}))
"""


@pytest.fixture(scope="module")
def environment():
    """The real environment of this machine; the set-up has built it, so this is instant there."""
    return build_ai_environment()


def failing_python(folder: Path, words: str) -> Path:
    """An interpreter that says `words` and fails."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\necho first line\necho "{words}"\nexit 3\n')
    program.chmod(0o755)
    return program


def test_the_environment_holds_the_locked_versions_and_works(environment):
    shown = json.loads(subprocess.check_output([environment / "bin" / "python", "-c", SHOW], text=True))
    assert shown["product"] == [[3.0, 3.0], [3.0, 3.0]]
    assert Path(shown["prefix"]) == environment
    packages = shown["packages"]
    assert packages.pop("torch").split("+")[0] == TORCH.split("==")[1]
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", ai_lock(), re.MULTILINE))
    assert {name: packages.get(name) for name in locked} == locked


def test_nothing_of_minga_is_in_the_jobs_environment(environment):
    shown = json.loads(subprocess.check_output([environment / "bin" / "python", "-c", SHOW], text=True))
    assert not {"minga", "web3", "eth-account"} & set(shown["packages"])


def test_pip_finds_the_environment_consistent(environment):
    check = [environment / "bin" / "python", "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_other_users_can_read_all_of_it(environment):
    closed = [
        path
        for folder, _, names in os.walk(environment)
        for path in (Path(folder), *(Path(folder) / name for name in names))
        if not path.is_symlink() and path.stat().st_mode & 0o004 == 0
    ]
    assert not closed


def test_a_second_build_does_nothing(environment, monkeypatch):
    monkeypatch.setattr(environments, "_build", lambda *_: pytest.fail("built again"))
    assert build_ai_environment() == environment


def test_the_name_follows_the_lock_and_pytorch(tmp_path, monkeypatch):
    first = ai_environment(tmp_path)
    assert first.parent == tmp_path
    assert ai_environment(tmp_path) == first
    monkeypatch.setattr(environments, "TORCH", "torch==9.9.9")
    second = ai_environment(tmp_path)
    monkeypatch.setattr(environments, "ai_lock", lambda: "other==1\n")
    assert len({first, second, ai_environment(tmp_path)}) == 3


def test_the_place_follows_the_cache_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGA_CACHE", str(tmp_path))
    assert environments_dir() == tmp_path / "envs"
    monkeypatch.delenv("MINGA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environments_dir() == tmp_path / ".cache" / "minga" / "envs"


def test_a_failed_build_says_why_and_leaves_nothing_complete(tmp_path, monkeypatch):
    unfinished = ai_environment(tmp_path)
    (unfinished / "lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(failing_python(tmp_path, "No module named ensurepip")))
    lines: list[str] = []
    with pytest.raises(MissingPrerequisite, match="No module named ensurepip") as caught:
        build_ai_environment(tmp_path, lines.append)
    assert "python3-venv" in caught.value.remedy
    assert lines[-2:] == ["first line", "No module named ensurepip"]
    assert not is_complete(unfinished)
    assert not (unfinished / "lib").exists(), "an unfinished environment must be removed before a build"


def test_a_package_with_another_hash_is_refused(tmp_path, monkeypatch):
    """pip itself refuses: one digit of one hash in the lock is changed, and nothing is marked complete."""
    wrong = "typing-extensions==4.16.0 --hash=sha256:" + "0" * 64 + "\n"
    assert "typing-extensions==4.16.0" in ai_lock()
    monkeypatch.setattr(environments, "ai_lock", lambda: wrong)
    # The step before the locked ones would fetch PyTorch; any small package of the lock stands in for its 190 MB.
    monkeypatch.setattr(environments, "TORCH", "mpmath==1.3.0")
    lines: list[str] = []
    with pytest.raises(MissingPrerequisite):
        build_ai_environment(tmp_path, lines.append)
    assert any("DO NOT MATCH THE HASHES" in line for line in lines), lines[-5:]
    assert not is_complete(ai_environment(tmp_path))


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "DISK_BYTES", 1 << 60)
    with pytest.raises(DiskFull, match="GB free"):
        build_ai_environment(tmp_path)
    assert not ai_environment(tmp_path).exists()


def test_a_second_builder_waits_and_takes_what_the_first_built(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "_build", lambda *_: pytest.fail("built twice"))
    target = ai_environment(tmp_path)
    target.mkdir()
    built: list[Path] = []
    second = threading.Thread(target=lambda: built.append(build_ai_environment(tmp_path)))
    with environments._exclusive(target.with_suffix(".lock")):
        second.start()
        second.join(timeout=0.2)
        assert second.is_alive(), "the second builder did not wait"
        (target / ".complete").touch()
    second.join(timeout=10)
    assert built == [target]


def test_the_command_prints_the_folder(environment):
    command = [sys.executable, "-m", "minga.runtimes.environments"]
    assert subprocess.check_output(command, text=True).strip() == str(environment)


def test_the_command_prints_an_error_without_a_traceback(tmp_path):
    (tmp_path / "envs").write_text("a file where a folder should be")
    env = os.environ | {"MINGA_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "minga.runtimes.environments"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == MissingPrerequisite.exit_code
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("missing-prerequisite:")


def test_pytorch_is_pinned_once_for_all():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert TORCH in project["project"]["optional-dependencies"]["ai"]
    assert not re.search(r"^(torch|nvidia-)", ai_lock(), re.MULTILINE)
