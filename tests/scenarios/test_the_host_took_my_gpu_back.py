"""The host took my GPU back.

Here it says so first: the job gets SIGTERM and the notice that the offer stated, and moves with its state.
"""

from __future__ import annotations

import pytest
from networks import Net, eventually
from pains import balance, counting, job_named, lease_of, settled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_a_reclaimed_machine_costs_the_job_no_step(net: Net) -> None:
    before = balance(net)
    runner = net.popen("run", counting(net.cwd, 60))
    eventually(lambda: steps(net) >= 5)
    host = lease_of(net, "counting")
    reclaimed = net("reclaim", "--provider", host, "--reason", "the owner plays a game")
    assert reclaimed.code == 0, reclaimed
    out, err = runner.communicate(timeout=150)
    assert runner.returncode == 0, (out, err)
    begins = [int(line.split()[-1]) for line in out.splitlines() if line.startswith("begins after step")]
    told = [int(line.split()[-1]) for line in out.splitlines() if line.startswith("told to end")]
    assert len(begins) == 2, out
    assert told, out
    assert told[0] - begins[1] <= 1, "more than the step under way was lost"
    assert "the owner plays a game" in err
    bill = net.json("bill", "counting")
    settled(bill)
    assert len(bill["leases"]) == 2
    assert balance(net) == before - bill["paid"] - bill["fee"]
    assert "reclaimed" in net("bill", "counting").out
    assert net("reclaim", "--provider", host, "--end").code == 0
    eventually(lambda: len(net.json("offers")) == 2)


def steps(net: Net) -> int:
    """Steps that the job says it has done."""
    return int((job_named(net, "counting").get("progress") or {}).get("step") or 0)


def test_a_machine_that_is_taken_back_offers_nothing_until_it_is_given_again(net: Net) -> None:
    assert net("reclaim", "--provider", "p1").code == 0
    ended = net("run", "--budget", "0.05", "--no-workdir", "--name", "other", "--", "echo here")
    assert ended.code == 0, ended
    assert lease_of_ended(net, "other") == "p2"
    assert net("reclaim", "--provider", "p1", "--end").code == 0
    eventually(lambda: len(net.json("offers")) == 2)


def lease_of_ended(net: Net, job: str) -> str:
    """The process whose provider ran the job last."""
    return lease_of(net, job)
