"""A network of this machine with its real parts: anvil, board, providers as processes; jobs bought on it.

The providers use the plain process driver, so that no root is needed. One network serves the whole module; what a test
kills, `up` repairs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command_line import one_error
from networks import Net, eventually


def test_up_starts_everything_and_again_changes_nothing(net: Net) -> None:
    before = net.processes()
    assert set(before) == {"chain", "board", "p1", "p2"}
    assert all(item["alive"] for item in before.values())
    again = net.up()
    assert again.code == 0
    assert again.out.count("(was up)") == 4
    assert net.processes() == before


def test_offers_of_both_providers_are_found_cheapest_first(net: Net) -> None:
    eventually(lambda: len(net.json("offers")) == 2)
    found = net.json("offers")
    assert [int(offer["price_per_hour"]) for offer in found] == [360_000, 370_000]
    assert len(net.json("offers", "price<0.365")) == 1
    table = net("offers").out
    assert "$0.36" in table
    assert max(map(len, table.splitlines())) <= 80
    one_error(net("offers", "nonsense"), "invalid-input", 2)
    one_error(net("offers", "price<cheap"), "invalid-input", 2)


def test_a_quote_ranks_or_says_what_excludes(net: Net) -> None:
    eventually(lambda: len(net.json("offers")) == 2)
    quote = net.json("quote", "--budget", "1", "--duration", "30m", "--", "true")
    assert (quote["matching"], quote["offers"]) == (2, 2)
    assert 180_000 <= int(quote["best"]["cost_p50"]) < 190_000
    assert "0.36" in net("quote", "--budget", "1", "--duration", "30m", "--", "true").out
    none = net("quote", "--gpu", "H100:8", "--budget", "1", "--", "true")
    assert none.code == 3
    assert "gpu" in none.out
    assert json.loads(net("quote", "--gpu", "H100:8", "--json", "--", "true").out)["excluded"] == {"gpu": 2}


def test_a_command_runs_and_its_bill_is_exact(net: Net, tmp_path: Path) -> None:
    (net.cwd / "data").mkdir(exist_ok=True)
    (net.cwd / "data" / "greeting.txt").write_text("hello from the folder\n")
    out = tmp_path / "out"
    words = ("run", "--budget", "0.05", "--name", "greet", "--workdir", str(net.cwd / "data"), "--env", "WHO=tenant")
    script = 'cat greeting.txt; echo "dear $WHO"; mkdir -p "$MINGA_OUTPUT_DIR"; cp greeting.txt "$MINGA_OUTPUT_DIR/"'
    ended = net(*words, "--out", str(out), "--", script)
    assert ended.code == 0, ended
    assert "hello from the folder\ndear tenant\n" in ended.out
    assert (out / "greeting.txt").read_text() == "hello from the folder\n"
    bill = net.json("bill", "greet")
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["refunded"] + bill["locked"]
    assert bill["conserved"] is True
    assert bill["locked"] == 0
    assert "deposited" in net("bill", "greet").out
    assert "hello from the folder" in net("logs", "greet").out
    assert [job["phase"] for job in net.json("jobs") if job["name"] == "greet"] == ["done"]
    pulled = net.json("pull", "greet", str(tmp_path / "again"))
    assert [file["path"] for file in pulled] == [str(Path("greeting.txt"))]


def test_a_failing_job_gives_its_own_exit_code(net: Net) -> None:
    ended = net("run", "--budget", "0.05", "--no-workdir", "--", "echo no; exit 7")
    assert ended.code == 7, ended
    assert "exit code 7" in ended.out


def test_the_same_key_is_the_same_job(net: Net) -> None:
    first = net.run("--key", "once", "--", "true")
    second = net.run("--key", "once", "--", "true")
    assert first["job"]["id"] == second["job"]["id"]


def test_a_budget_that_buys_nothing_is_refused_before_any_money_moves(net: Net) -> None:
    before = net.json("wallet", "balance")["tokens"]
    one_error(net("run", "--budget", "0.000001", "--no-workdir", "--", "true"), "budget-too-small", 2)
    one_error(net("run", "--budget", "1000000", "--no-workdir", "--", "true"), "insufficient-funds", 2)
    one_error(net("run", "--budget", "-1", "--no-workdir", "--", "true"), "invalid-input", 2)
    assert net.json("wallet", "balance")["tokens"] == before


def test_nobody_matches(net: Net) -> None:
    eventually(lambda: len(net.json("offers")) == 2)
    ended = net("run", "--budget", "0.05", "--gpu", "H100", "--no-workdir", "--", "true")
    one_error(ended, "no-match", 3)
    assert "gpu excludes 2" in ended.err


@pytest.mark.parametrize("command", ["logs", "attach", "stop", "bill"])
def test_an_unknown_job_is_one_error(net: Net, command: str) -> None:
    one_error(net(command, "0xdeadbeef"), "not-found", 2)


def test_ctrl_c_stops_settles_and_says_so(net: Net) -> None:
    process = net.popen("run", "--budget", "0.05", "--no-workdir", "--name", "long", "--", "echo started; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "stopping" in err
    bill = net.json("bill", "long")
    assert bill["conserved"] is True
    assert bill["locked"] == 0


def test_a_job_can_be_stopped_and_followed_from_another_terminal(net: Net) -> None:
    runner = net.popen("run", "--budget", "0.05", "--no-workdir", "--name", "far", "--", "echo started; sleep 600")
    assert runner.stdout is not None
    assert runner.stdout.readline() == "started\n"
    watcher = net.popen("attach", "far")
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "started\n"
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate(timeout=30)
    assert watcher.returncode == 130
    assert "the job goes on" in err
    assert net.json("stop", "far")["phase"] == "stopped"
    runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert net("attach", "far").code == 130


def test_on_a_terminal_it_is_one_screen(net: Net) -> None:
    import pty

    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MINGA_", "NO_COLOR"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "minga", "run", "--budget", "0.05", "--no-workdir", "--", "echo the log; sleep 1"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=net.cwd,
        env={**env, "MINGA_HOME": str(net.home), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the other end was closed: the process ended
            break
    os.close(ours)
    assert process.wait(timeout=30) == 0
    assert b"\x1b[" in seen
    assert b"the log" in seen
    assert b"done: " in seen


def test_a_detached_job_is_run_by_the_runner(net: Net) -> None:
    ended = net("run", "--budget", "0.05", "--no-workdir", "--name", "later", "--detach", "--", "echo detached")
    assert ended.code == 0, ended
    assert "minga runner" in ended.out
    runner = net.popen("runner")
    try:
        phases = lambda: [job["phase"] for job in net.json("jobs") if job["name"] == "later"]  # noqa: E731
        eventually(lambda: phases() == ["done"], 60)
    finally:
        runner.send_signal(signal.SIGTERM)
        _, err = runner.communicate(timeout=30)
    assert runner.returncode == 0, err
    assert "detached" in net("logs", "later").out


def test_the_faucet_fills_a_wallet(net: Net) -> None:
    before = int(net.json("wallet", "balance")["tokens"])
    assert net("wallet", "faucet", "--amount", "2.50").code == 0
    assert int(net.json("wallet", "balance")["tokens"]) == before + 2_500_000


@pytest.mark.parametrize("victim", ["p1", "board", "chain"])
def test_up_repairs_whatever_was_killed(net: Net, victim: str) -> None:
    pid = net.processes()[victim]["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    status = net("status")
    assert "DEAD" in status.out
    assert net.up().code == 0
    assert all(item["alive"] for item in net.processes().values())
    eventually(lambda: len(net.json("offers")) == 2)
    assert net.run("--", "echo repaired")["job"]["status"] == "done"


def test_down_and_up_keep_the_money(net: Net) -> None:
    before = net.json("wallet", "balance")
    assert net("down").code == 0
    assert net("down").code == 0
    assert net.processes() == {}
    ended = net("wallet", "balance")
    one_error(ended, "rpc-unavailable", 5)
    assert net.up().code == 0
    assert net.json("wallet", "balance") == before


def test_another_plan_replaces_the_providers(net: Net) -> None:
    changed = net.up("--providers", "1", "--price", "0.50")
    assert changed.code == 0
    assert set(net.processes()) == {"chain", "board", "p1"}
    assert net.up().code == 0
    assert set(net.processes()) == {"chain", "board", "p1", "p2"}
