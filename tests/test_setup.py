"""The set-up is code: lock files, Makefile, the scripts under setup/, and CI's own scripts.

The scripts are run for real, with a PATH that holds only what the case says the machine has.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
CHECKOUT_LOCKS = [ROOT / "requirements" / f"{name}.txt" for name in ("base", "contracts", "dev", "ai")]
JOBS_LOCK = ROOT / "src" / "minga" / "runtimes" / "ai.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def pins(lock: Path) -> dict[str, Version]:
    """Name and version of every requirement of a lock that has hashes."""
    return {match[1]: Version(match[2]) for match in PIN.finditer(lock.read_text())}


def run(command: list[str], path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(path), "HOME": str(path)} | more
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def a_machine(folder: Path, has: tuple[str, ...] = (), fakes: dict[str, str] | None = None) -> Path:
    """A PATH with the programs `has` of this machine, and with shell scripts of the bodies `fakes`."""
    folder.mkdir()
    for name in has:
        found = shutil.which(name)
        assert found, f"{name} is not on this machine"
        (folder / name).symlink_to(found)
    for name, body in (fakes or {}).items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


PLAIN = ("bash", "sh", "dirname", "uname", "env")
PYTHON = {"python3": f'exec "{sys.executable}" "$@"'}
SELF = 'case "$*" in *executable*) echo "$0";; esac'


# ------------------------------------------------------------------------------------------------------ lock files


@pytest.mark.parametrize("lock", [*CHECKOUT_LOCKS, JOBS_LOCK], ids=lambda path: path.stem)
def test_every_requirement_of_a_lock_has_a_version_and_hashes(lock):
    named = re.findall(r"^[^\s#].*", lock.read_text(), re.MULTILINE)
    assert len(named) == len(pins(lock)) > 5


@pytest.mark.parametrize("lock", [*CHECKOUT_LOCKS, JOBS_LOCK], ids=lambda path: path.stem)
def test_a_lock_names_no_address_and_no_place(lock):
    text = lock.read_text()
    assert not re.search(r"https?:|file://|--(extra-)?index|--find-links|--trusted|(^|\s)/", text)
    assert "torch" not in pins(lock)


def test_locks_that_are_installed_together_agree():
    versions: dict[str, set[Version]] = {}
    for lock in CHECKOUT_LOCKS:
        for name, version in pins(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        (CHECKOUT_LOCKS[0], PROJECT["project"]["dependencies"]),
        (CHECKOUT_LOCKS[0], PROJECT["project"]["optional-dependencies"]["fast"]),
        (CHECKOUT_LOCKS[0], PROJECT["project"]["optional-dependencies"]["keyring"]),
        (CHECKOUT_LOCKS[1], PROJECT["dependency-groups"]["contracts"]),
        (CHECKOUT_LOCKS[2], PROJECT["dependency-groups"]["dev"]),
        (JOBS_LOCK, PROJECT["dependency-groups"]["jobs"]),
        (JOBS_LOCK, PROJECT["project"]["optional-dependencies"]["ai"]),
    ],
)
def test_locks_satisfy_what_the_project_asks_for(lock, wanted):
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        if requirement.name != "torch":
            assert locked[canonicalize_name(requirement.name)] in requirement.specifier, f"run make lock: {requirement}"


def test_what_is_installed_here_is_what_is_locked():
    from importlib.metadata import version

    locked = {name: found for lock in CHECKOUT_LOCKS for name, found in pins(lock).items()}
    other = {}
    for requirement in map(Requirement, PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]):
        name = canonicalize_name(requirement.name)
        if Version(version(name)) != locked[name]:
            other[name] = version(name)
    assert not other, "run make setup"


def test_the_wheel_ships_the_jobs_lock():
    shipped = PROJECT["tool"]["setuptools"]["package-data"]["minga"]
    assert any(JOBS_LOCK in (ROOT / "src" / "minga").glob(pattern) for pattern in shipped)


# ------------------------------------------------------------------------------------- setup/python.sh, system.sh


def test_the_interpreter_that_the_locks_are_for_is_preferred(tmp_path):
    machine = a_machine(tmp_path / "bin", ("sh",), {"python3": SELF, "python3.11": SELF})
    assert run([str(ROOT / "setup/python.sh")], machine).stdout == f"{machine}/python3.11\n"


def test_an_old_interpreter_is_passed_over(tmp_path):
    machine = a_machine(tmp_path / "bin", ("sh",), {"python3.11": "exit 1", **PYTHON})
    done = run([str(ROOT / "setup/python.sh")], machine)
    assert (done.returncode, Path(done.stdout.strip())) == (0, Path(sys.executable))


def test_no_interpreter_is_one_clear_line(tmp_path):
    done = run([str(ROOT / "setup/python.sh")], a_machine(tmp_path / "bin", ("sh",), {"python3": "exit 1"}))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "3.11" in done.stderr


def test_nothing_missing_is_silent_and_asks_for_no_rights(tmp_path):
    fakes = {"bwrap": "", "npm": "", "apt-get": "echo called >&2", "sudo": "echo called >&2", **PYTHON}
    done = run([str(ROOT / "setup/system.sh")], a_machine(tmp_path / "bin", PLAIN, fakes))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_who_has_anvil_needs_no_npm(tmp_path):
    machine = a_machine(tmp_path / "bin", PLAIN, {"bwrap": "", "anvil": "", **PYTHON})
    assert run([str(ROOT / "setup/system.sh")], machine).returncode == 0


def test_root_installs_what_is_missing(tmp_path):
    fakes = {"id": "echo 0", "true": "", "apt-get": f'echo "$@" >>{tmp_path}/asked', **PYTHON}
    done = run([str(ROOT / "setup/system.sh")], a_machine(tmp_path / "bin", PLAIN, fakes))
    assert done.returncode == 0, done.stderr
    update, install = (tmp_path / "asked").read_text().splitlines()
    assert update.split()[0] == "update"
    assert install.split()[0] == "install"
    assert install.split()[-2:] == ["bubblewrap", "npm"]


def test_a_user_installs_through_sudo_that_asks_for_no_password(tmp_path):
    fakes = {
        "id": "echo 1000",
        "sudo": f'printf "%s\\n" "$*" >>{tmp_path}/asked; shift; exec "$@"',
        "true": "",
        "apt-get": "",
        "npm": "",
        **PYTHON,
    }
    done = run([str(ROOT / "setup/system.sh")], a_machine(tmp_path / "bin", PLAIN, fakes))
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert all(line.startswith("-n ") for line in asked)
    assert asked[-1].endswith("bubblewrap")


@pytest.mark.parametrize(
    "fakes",
    [
        {"id": "echo 1000", "apt-get": "", "sudo": "echo a password is required >&2; exit 1"},
        {"id": "echo 1000", "apt-get": ""},
        {"id": "echo 0", "true": ""},
    ],
    ids=["sudo wants a password", "no sudo", "no apt"],
)
def test_what_may_not_be_installed_is_one_line_that_says_what_to_run(tmp_path, fakes):
    done = run([str(ROOT / "setup/system.sh")], a_machine(tmp_path / "bin", PLAIN, fakes | PYTHON))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "sudo apt-get install -y bubblewrap npm" in done.stderr


def test_a_python_without_venv_is_found_out(tmp_path):
    without = 'case "$*" in *ensurepip*) exit 1;; esac; ' + SELF
    fakes = {"id": "echo 1000", "bwrap": "", "npm": "", "python3.11": without}
    done = run([str(ROOT / "setup/system.sh")], a_machine(tmp_path / "bin", PLAIN, fakes))
    assert done.returncode == 1
    assert "missing: python3-venv." in done.stderr


# -------------------------------------------------------------------------------------------------- Makefile, CI


def test_help_lists_the_targets_that_people_use():
    listed = subprocess.check_output(["make", "help"], cwd=ROOT, text=True)
    names = {line.split()[0] for line in listed.splitlines() if line[:1].isalpha()}
    assert {"setup", "test", "check", "demo", "campaign", "bench", "lock", "clean"} <= names


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("test", ["system.sh", "--require-hashes", "minga.runtimes.environments", "pytest -n 2"]),
        ("demo", ["system.sh", "--require-hashes", "minga.runtimes.environments", "fetch.py", "minga demo --report"]),
    ],
)
def test_a_fresh_checkout_needs_one_command(tmp_path, target, steps):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    plan = subprocess.check_output(["make", "-n", target], cwd=tmp_path, text=True)
    places = [plan.find(step) for step in steps]
    assert -1 not in places, plan
    assert places == sorted(places)


GATES = [
    "test", "check", "demo", "demo-undisturbed", "campaign-sample", "simulate-sample", "demo-dispute",
    "verification-sample", "bench-smoke",
]  # fmt: skip


@pytest.fixture
def pipeline(tmp_path):
    """A checkout whose gates only say their names; the file `fail` names the one that fails."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    targets = " ".join(GATES)
    (tmp_path / "Makefile").write_text(f"{targets}:\n\t@echo ran $@; ! grep -qx $@ fail\n.PHONY: {targets}\n")
    (tmp_path / "fail").write_text("none\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "demo-report.json").write_text(json.dumps(GOOD))
    (tmp_path / "demo-undisturbed.json").write_text(json.dumps(UNDISTURBED))
    return tmp_path


def test_ci_runs_every_gate_and_ends_with_the_minutes(pipeline):
    done = subprocess.run([pipeline / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"^ran (\S+)", done.stdout, re.MULTILINE)
    assert ran == GATES
    assert re.search(r"all 10 gates passed in \d+\.\d minutes\n$", done.stdout)


@pytest.mark.parametrize("gate", ["test", "check", "demo", "bench-smoke"])
def test_ci_stops_at_the_first_gate_that_fails_and_names_it(pipeline, gate):
    (pipeline / "fail").write_text(gate + "\n")
    done = subprocess.run([pipeline / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.findall(r"^ran (\S+)", done.stdout, re.MULTILINE)[-1] == gate
    assert done.stdout.splitlines()[-1].startswith("FAILED: ")
    assert "gates passed" not in done.stdout


def test_ci_fails_on_a_report_that_does_not_add_up(pipeline):
    report = copy.deepcopy(GOOD)
    report["bill"]["paid"] += 1
    (pipeline / "demo-report.json").write_text(json.dumps(report))
    done = subprocess.run([pipeline / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "FAILED: reports"


# ------------------------------------------------------------------------------------------------ .ci/check_report

GOOD = {
    "job": {"id": "0x" + "1" * 64, "status": "done", "attempts": 2, "exit_code": 0},
    "timing": {"order_to_first_log_s": 1.2, "working_s": 44.0, "unpaid_s": 3.5},
    "bill": {
        "decimals": 6,
        "deposited": 500_000,
        "paid": 7_260,
        "fee": 74,
        "refunded": 492_666,
        "held": 0,
        "locked": 0,
        "conserved": True,
    },
    "chain": {"chain_id": 31_337, "transactions": 4, "gas": {"open": 149_000, "close": 78_000}},
    "artifacts": [
        {"path": f"out/{name}", "bytes": 10, "blake3": "a" * 64}
        for name in ("model.safetensors", "result.json", "loss.csv")
    ],
    "result": {"val_loss": 4.18, "sample": "Enter HAMLET\n"},
}


UNDISTURBED = GOOD | {"job": GOOD["job"] | {"attempts": 1}}


def check_report(folder: Path, text: str, other: object = UNDISTURBED) -> subprocess.CompletedProcess[str]:
    path, undisturbed = folder / "report.json", folder / "undisturbed.json"
    path.write_text(text)
    undisturbed.write_text(json.dumps(other))
    command = [sys.executable, str(ROOT / ".ci" / "check_report.py"), str(path), str(undisturbed)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_good_report_passes(tmp_path):
    done = check_report(tmp_path, json.dumps(GOOD))
    assert (done.returncode, done.stderr) == (0, "")


BROKEN = {
    "job.status": ("failed", "not done with 0"),
    "job.exit_code": (1, "not done with 0"),
    "job.attempts": (1, "1 attempts, not 2"),
    "bill.paid": (7_261, "is not paid + fee"),
    "bill.fee": (74.0, "not integers"),
    "bill.refunded": (True, "not integers"),
    "bill.deposited": (-1, "not integers"),
    "bill.conserved": (False, "not settled"),
    "bill.locked": ("0", "not integers"),
    "timing.working_s": (299.0, "above 300 s"),
    "timing.unpaid_s": (-1.0, "below 0"),
    "timing": (GOOD["timing"] | {"unpaid_s": 0}, "no unpaid seconds"),
    "chain.transactions": (2, "fewer transactions"),
    "chain.gas": ({"open": 149_000, "close": 0}, "less gas"),
    "artifacts": ([], "artifacts missing"),
    "result.val_loss": (4.3, "not below 4.3"),
    "result.sample": (" \n", "wrote nothing"),
    "job": (None, "cannot be read"),
    "chain": ({}, "cannot be read"),
}


@pytest.mark.parametrize("place", BROKEN)
def test_a_broken_report_is_named(tmp_path, place):
    value, words = BROKEN[place]
    report = copy.deepcopy(GOOD)
    *parents, last = place.split(".")
    inner = report
    for name in parents:
        inner = inner[name]
    inner[last] = value
    done = check_report(tmp_path, json.dumps(report))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_loss_that_a_death_changed_is_named(tmp_path):
    for val_loss, words in ((4.14, "more than 1 % apart"), (4.15, "")):
        other = UNDISTURBED | {"result": UNDISTURBED["result"] | {"val_loss": 4.19}}
        done = check_report(tmp_path, json.dumps(GOOD | {"result": GOOD["result"] | {"val_loss": val_loss}}), other)
        assert (done.returncode, words in done.stderr) == (1 if words else 0, True)


def test_an_undisturbed_run_has_one_attempt(tmp_path):
    assert "2 attempts, not 1" in check_report(tmp_path, json.dumps(GOOD), GOOD).stderr


def test_money_that_is_paid_by_nobody_and_locked_money_are_named(tmp_path):
    report = copy.deepcopy(GOOD)
    report["bill"] |= {"paid": 0, "fee": 0, "refunded": 499_999, "locked": 1}
    said = check_report(tmp_path, json.dumps(report)).stderr
    assert "earned nothing" in said
    assert "not settled" in said


def test_an_artifact_without_a_hash_is_named(tmp_path):
    report = copy.deepcopy(GOOD)
    report["artifacts"][0]["blake3"] = "A" * 64
    assert "without a proper hash" in check_report(tmp_path, json.dumps(report)).stderr


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_report_that_is_none_is_refused(tmp_path, text):
    assert "cannot be read" in check_report(tmp_path, text).stderr


def test_the_set_up_runs_where_this_test_runs():
    """`make setup` again changes nothing: no package is installed twice."""
    before = (ROOT / ".venv" / ".installed").stat().st_mtime_ns if (ROOT / ".venv" / ".installed").exists() else None
    if before is None:
        pytest.skip("this checkout's environment was not made by make setup")
    subprocess.run(["make", "setup"], cwd=ROOT, check=True, env=os.environ, stdout=subprocess.DEVNULL)
    assert (ROOT / ".venv" / ".installed").stat().st_mtime_ns == before
