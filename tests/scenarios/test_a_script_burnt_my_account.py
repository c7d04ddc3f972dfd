"""A script burnt my account.

Here a job can cost its budget and not a token unit more, twice the same order is one job, and a job that does nothing,
or whose owner is gone, stops costing money by itself.
"""

from __future__ import annotations

import signal

import pytest
from networks import Net, eventually
from pains import balance, job_named, settled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_ten_terminals_with_one_order_open_one_job(net: Net) -> None:
    before = balance(net)
    words = ("run", "--budget", "0.05", "--no-workdir", "--name", "once", "--key", "nightly", "--json", "--", "true")
    crowd = [net.popen(*words) for _ in range(10)]
    ended = [(process.communicate(timeout=120), process.returncode) for process in crowd]
    assert [code for _, code in ended] == [0] * 10, ended
    assert len([job for job in net.json("jobs") if job["name"] == "once"]) == 1
    bill = net.json("bill", "once")
    settled(bill)
    assert balance(net) == before - bill["paid"] - bill["fee"]


def test_a_job_that_never_ends_costs_its_budget_and_no_unit_more(net: Net) -> None:
    before = balance(net)
    ended = net("run", "--max", "0.0015", "--no-workdir", "--name", "endless", "--", "while :; do sleep 0.1; done")
    assert ended.code != 0, ended
    assert job_named(net, "endless")["phase"] == "exhausted"
    eventually(lambda: net.json("bill", "endless")["locked"] == 0)
    cost = before - balance(net)
    assert 0 < cost <= 1500, cost
    assert cost == net.json("bill", "endless")["paid"] + net.json("bill", "endless")["fee"]


def test_a_job_that_does_nothing_is_stopped(net: Net) -> None:
    (net.cwd / "idle.yaml").write_text(
        'name: idle\nrun: "echo begun; sleep 600"\nmax_idle: 10s\nbudget: {total: 0.5}\n'
    )
    ended = net("run", str(net.cwd / "idle.yaml"))
    assert ended.code == 130, ended
    status = job_named(net, "idle")
    assert status["phase"] == "stopped"
    assert "idle" in status["reason"]
    bill = net.json("bill", "idle")
    settled(bill)
    assert bill["paid"] < 3000, "half a minute at most"


def test_a_runner_that_died_stops_paying_within_a_quantum(net: Net) -> None:
    runner = net.popen("run", "--budget", "0.5", "--no-workdir", "--name", "orphan", "--", "echo begun; sleep 300")
    assert runner.stdout is not None
    assert runner.stdout.readline() == "begun\n"
    eventually(lambda: job_named(net, "orphan")["spent"] > 0)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    signed = job_named(net, "orphan")["spent"]
    eventually(lambda: sum(lease["paid"] + lease["fee"] for lease in net.json("bill", "orphan")["leases"]) > 0, 90)
    bill = net.json("bill", "orphan")
    assert bill["paid"] + bill["fee"] <= signed, "it was paid more than its tenant ever signed"
    assert net("stop", "orphan").code == 0
