"""What a sandbox is shown: options and sources, from a task alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minga.core.errors import InvalidInput
from minga.runtimes import staging
from minga.runtimes.gpus import GpuAccess
from minga.runtimes.runtime import Environment, Limits, Mount, Task

TASK = Task("t", ("true",), Environment("system"), Limits())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def build(state: Path, task: Task = TASK, access: GpuAccess | None = None, features: tuple[str, ...] = ()) -> list[str]:
    stage = staging.build(task, state, state / "scratch", 64001, access or GpuAccess(), frozenset(features))
    assert [word for word in stage.options if word.startswith(f"{staging.COVER}/")] == [
        f"{staging.COVER}/{index}" for index in range(len(stage.sources))
    ]
    return stage.options


def test_every_namespace_is_new_and_the_parent_is_watched(state: Path) -> None:
    options = build(state, features=("--disable-userns",))
    for option in ("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--disable-userns"):
        assert option in options
    assert "--disable-userns" not in build_again(state)


def build_again(state: Path) -> list[str]:
    for path in (state / "etc").iterdir():
        path.unlink()
    (state / "etc").rmdir()
    return build(state)


def test_settings_of_the_kernel_are_read_only_after_proc_is_mounted(state: Path) -> None:
    options = build(state)
    proc = options.index("--proc")
    guard = options.index("/proc/sys")
    assert options[guard - 1 : guard + 2] == ["--ro-bind", "/proc/sys", "/proc/sys"]
    assert guard > proc


def test_the_root_is_closed_last(state: Path) -> None:
    assert build(state)[-4:] == ["--remount-ro", "/dev", "--remount-ro", "/"]


def test_writable_are_work_and_tmp_and_what_says_so(state: Path, tmp_path: Path) -> None:
    task = replace(TASK, mounts=(Mount(tmp_path, "/data"), Mount(tmp_path, "/cache", writable=True)))
    options = build(state, task)
    targets = [options[index + 2] for index, word in enumerate(options) if word == "--bind"]
    assert targets == ["/job", "/tmp", "/cache"]
    assert "--dev-bind" not in options


def test_variables_are_clean_and_the_tasks_own_win(state: Path) -> None:
    task = replace(TASK, env={"A": "b", "HOME": "/elsewhere"})
    env = staging.variables(task, GpuAccess(env=(("A", "x"), ("G", "1"))))
    assert set(env) == {"PATH", "HOME", "WORK", "TMPDIR", "LANG", "USER", "LOGNAME", "A", "G"}
    assert (env["A"], env["G"], env["HOME"], env["WORK"]) == ("b", "1", "/elsewhere", "/job")


def test_a_proxy_is_told_only_where_there_is_one(tmp_path: Path) -> None:
    assert not [name for name in staging.variables(TASK, GpuAccess()) if "proxy" in name.lower()]
    env = staging.variables(replace(TASK, egress=tmp_path), GpuAccess())
    assert env["https_proxy"] == env["HTTP_PROXY"] == "http://127.0.0.1:3128"


def environment(path: Path, home: Path) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "pyvenv.cfg").write_text(f"home = {home}\nversion = 3\n")
    (path / "bin" / "python").symlink_to(sys.executable)
    return path


def test_an_environment_brings_its_interpreter(tmp_path: Path) -> None:
    base = Path(sys.base_prefix)
    found = staging.python_prefixes(environment(tmp_path / "env", base / "bin"))
    assert found[0] == tmp_path / "env"
    assert set(found[1:]) <= {base, base.resolve()}


def test_a_base_in_bin_is_the_one_in_usr(tmp_path: Path) -> None:
    path = environment(tmp_path / "env", Path("/bin"))
    assert Path("/") not in staging.python_prefixes(path)


@pytest.mark.parametrize("home", ["/root", "/etc"])
def test_a_base_that_is_no_interpreters_is_not_shown(tmp_path: Path, home: str) -> None:
    """A forged pyvenv.cfg must not make us show a home folder."""
    with pytest.raises(InvalidInput):
        staging.python_prefixes(environment(tmp_path / "env", Path(home, "bin")))


def test_a_home_folder_is_no_base_even_with_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "lib" / "python3.11").mkdir(parents=True)
    (home / "bin").mkdir()
    path = environment(tmp_path / "env", home / "bin")
    assert home in staging.python_prefixes(path)
    monkeypatch.setattr("pwd.getpwall", lambda: [type("Entry", (), {"pw_dir": str(home)})()])
    with pytest.raises(InvalidInput):
        staging.python_prefixes(path)


def test_half_an_environment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("version = 3\n")
    with pytest.raises(InvalidInput):
        staging.python_prefixes(tmp_path)
    with pytest.raises(InvalidInput):
        staging.check_environment(Environment("python", Path(sys.prefix)))


def test_a_missing_mount_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        build(state, replace(TASK, mounts=(Mount(tmp_path / "none", "/data"),)))
