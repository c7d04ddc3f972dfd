"""The demo with a small job and no sandbox: its report adds up, its picture is whole, and nothing stays running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
from command_line import Minga

from minga.cli.processes import Processes

JOB = """
name: small
run: |
  mkdir -p "$MINGA_OUTPUT_DIR"
  for step in 1 2 3 4; do
    echo "step $step/4 loss 4.$((9 - step))000"
    echo "{\\"step\\": $step, \\"total\\": 4}" >> "$MINGA_PROGRESS"
    sleep 0.4
  done
  printf '%s' '{"val_loss": 4.5, "sample": "to be\\nor not"}' > "$MINGA_OUTPUT_DIR/result.json"
budget: {total: 0.05}
"""
DEMO = ("demo", "--driver", "process", "--providers", "2")


def left_behind(home: Path) -> list[str]:
    """Living processes that name the demo's folder on their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(home) in words and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(words)
    return found


def test_the_report_adds_up_and_nothing_stays(minga: Minga, home: Path, tmp_path: Path, jobs_python: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    report, picture = tmp_path / "report.json", tmp_path / "demo.svg"
    ended = minga(
        *DEMO,
        "--environment",
        f"python={jobs_python}",
        "--job",
        "job.yaml",
        "--report",
        str(report),
        "--screenshot",
        str(picture),
    )
    assert ended.code == 0, ended
    value = json.loads(report.read_text())
    assert value["job"] == {"id": value["job"]["id"], "status": "done", "attempts": 1, "exit_code": 0}
    assert set(value["timing"]) == {"order_to_first_log_s", "working_s", "unpaid_s"}
    bill = value["bill"]
    assert set(bill) == {"decimals", "deposited", "paid", "fee", "held", "refunded", "locked", "conserved"}
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["refunded"] + bill["locked"]
    assert bill["conserved"] is True
    assert bill["locked"] == 0
    assert bill["paid"] > 0
    assert value["chain"]["transactions"] >= 2
    assert all(value["chain"]["gas"][name] > 0 for name in ("open", "close"))
    assert [file["path"] for file in value["artifacts"]] == ["result.json"]
    assert value["result"] == {"val_loss": 4.5, "sample": "to be\nor not"}
    assert "step 4/4" in ended.out
    assert "to be" in ended.out
    text = picture.read_text()
    ElementTree.fromstring(text)
    assert "@font-face" not in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://127.0.0.1", "")
    assert left_behind(home) == []


SURVIVOR = """
name: survivor
run: |
  mkdir -p "$MINGA_OUTPUT_DIR"
  step=$(cat "$MINGA_CHECKPOINT_DIR/step" 2>/dev/null || echo 0)
  echo "begins after step $step"
  while [ "$step" -lt 24 ]; do
    step=$((step + 1))
    sleep 0.5
    echo "$step" > "$MINGA_CHECKPOINT_DIR/.step" && mv "$MINGA_CHECKPOINT_DIR/.step" "$MINGA_CHECKPOINT_DIR/step"
    echo "{\\"step\\": $step, \\"total\\": 24}" >> "$MINGA_PROGRESS"
  done
  printf '%s' '{"val_loss": 4.5, "sample": "it lived on"}' > "$MINGA_OUTPUT_DIR/result.json"
checkpoint: true
budget: {total: 0.5}
"""


def test_a_killed_provider_costs_the_job_nothing_but_time(
    minga: Minga, home: Path, tmp_path: Path, jobs_python: Path
) -> None:
    (tmp_path / "job.yaml").write_text(SURVIVOR)
    report = tmp_path / "report.json"
    ended = minga(*DEMO, "--environment", f"python={jobs_python}", "--job", "job.yaml", "--report", str(report))
    assert ended.code == 0, ended
    value = json.loads(report.read_text())
    assert (value["job"]["status"], value["job"]["attempts"]) == ("done", 2)
    bill = value["bill"]
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["refunded"] + bill["locked"]
    assert (bill["conserved"], bill["locked"]) == (True, 0)
    assert value["timing"]["unpaid_s"] > 0
    assert "the demo kills p1 with -9 at step" in ended.err
    assert "p1 was started again by its owner" in ended.err
    restored = [int(line.split()[-1]) for line in ended.out.splitlines() if line.startswith("begins after step")]
    assert len(restored) == 2, ended.out
    assert restored[0] == 0 < restored[1] < 24
    assert left_behind(home) == []


def test_no_provider_dies_where_that_is_not_wanted(minga: Minga, home: Path, tmp_path: Path, jobs_python: Path) -> None:
    (tmp_path / "job.yaml").write_text(SURVIVOR.replace("-lt 24", "-lt 4").replace("24}", "4}"))
    report = tmp_path / "report.json"
    words = ("--environment", f"python={jobs_python}", "--job", "job.yaml", "--report", str(report), "--no-kill")
    ended = minga(*DEMO, *words)
    assert ended.code == 0, ended
    assert json.loads(report.read_text())["job"]["attempts"] == 1
    assert "kills" not in ended.err


def test_a_job_that_fails_ends_the_demo_with_its_code(
    minga: Minga, home: Path, tmp_path: Path, jobs_python: Path
) -> None:
    (tmp_path / "job.yaml").write_text("run: exit 9\nbudget: {total: 0.05}\n")
    report = tmp_path / "report.json"
    ended = minga(*DEMO, "--environment", f"python={jobs_python}", "--job", "job.yaml", "--report", str(report))
    assert ended.code == 9, ended
    assert json.loads(report.read_text())["job"]["exit_code"] == 9
    assert left_behind(home) == []


def test_a_job_file_that_is_not_there_starts_nothing(minga: Minga, home: Path, jobs_python: Path) -> None:
    ended = minga(*DEMO, "--environment", f"python={jobs_python}", "--job", "none.yaml")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert left_behind(home) == []


def test_two_demos_of_one_home_do_not_meet(minga: Minga, home: Path, tmp_path: Path, jobs_python: Path) -> None:
    (tmp_path / "job.yaml").write_text('run: "true"\nbudget: {total: 0.05}\n')
    with Processes(home / "demo").exclusive():
        ended = minga(*DEMO, "--environment", f"python={jobs_python}", "--job", "job.yaml")
    assert ended.code == 2
    assert "conflict: " in ended.err
    assert not (home / "demo" / "networks").exists()


def test_sigterm_in_the_middle_cleans_up(home: Path, tmp_path: Path, jobs_python: Path) -> None:
    (tmp_path / "job.yaml").write_text("run: echo begun; sleep 600\nbudget: {total: 0.05}\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "minga", *DEMO, "--environment", f"python={jobs_python}", "--job", "job.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**clean, "MINGA_HOME": str(home)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "begun\n":
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert left_behind(home) == []
