"""I paid for a machine I could not reach.

Here only seconds in which the job was seen to work are paid, whatever the machine says of itself.
"""

from __future__ import annotations

import signal

import pytest
from networks import Net, eventually
from pains import job_named, lease_of, process_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

QUANTUM_S = 2
PRICE_PER_S = 100
"""Token units: $0.36 an hour and 6 decimals."""


def test_a_machine_that_falls_silent_is_paid_for_what_was_seen_of_it(net: Net) -> None:
    runner = net.popen("run", "--budget", "0.5", "--no-workdir", "--name", "silent", "--", "echo begun; sleep 30")
    assert runner.stdout is not None
    assert runner.stdout.readline() == "begun\n"
    eventually(lambda: job_named(net, "silent")["spent"] > 0)
    host = process_of(net, lease_of(net, "silent"))
    worked = job_named(net, "silent")["working_s"]
    host.send_signal(signal.SIGSTOP)
    try:
        out, err = runner.communicate(timeout=120)
    finally:
        host.send_signal(signal.SIGCONT)
    assert runner.returncode == 0, (out, err)
    bill = net.json("bill", "silent")
    assert bill["conserved"] is True
    first = bill["leases"][0]
    assert len(bill["leases"]) == 2
    most = (worked + QUANTUM_S + 1) * PRICE_PER_S * 11 // 10
    eventually(lambda: net.json("bill", "silent")["locked"] == 0)
    first = net.json("bill", "silent")["leases"][0]
    assert first["paid"] + first["fee"] <= most, (first, worked)


def test_a_machine_that_never_answers_is_paid_nothing(net: Net) -> None:
    """Its offer is on the board, the lease is opened, and then there is nobody."""
    eventually(lambda: len(net.json("offers")) == 2)
    host = process_of(net, "p1")
    host.send_signal(signal.SIGSTOP)
    try:
        ended = net("run", "--budget", "0.2", "--no-workdir", "--name", "deaf", "--", "sleep 2; echo elsewhere")
    finally:
        host.send_signal(signal.SIGCONT)
    assert ended.code == 0, ended
    assert "elsewhere" in ended.out
    eventually(lambda: net.json("bill", "deaf")["locked"] == 0)
    first, second = net.json("bill", "deaf")["leases"]
    assert (first["paid"], first["fee"]) == (0, 0)
    assert second["paid"] > 0
