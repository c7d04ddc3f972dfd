"""My deployment died with its data.

Here the data is not on the machine that dies: checkpoints leave it as they appear.
"""

from __future__ import annotations

import shutil

import pytest
from networks import Net, eventually
from pains import counting, job_named, lease_of, process_of, settled

from minga.cli.mishap import kill_with_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_a_machine_that_burns_down_takes_no_result_with_it(net: Net) -> None:
    runner = net.popen("run", counting(net.cwd, 40))
    eventually(lambda: int((job_named(net, "counting").get("progress") or {}).get("step") or 0) >= 8)
    host = lease_of(net, "counting")
    kill_with_all(process_of(net, host))
    shutil.rmtree(net.home / "local" / host)
    out, err = runner.communicate(timeout=150)
    assert runner.returncode == 0, (out, err)
    begins = [int(line.split()[-1]) for line in out.splitlines() if line.startswith("begins after step")]
    assert begins[0] == 0
    assert begins[1] >= 4, "the checkpoint did not leave the machine in time"
    steps = [int(line.split()[1]) for line in out.splitlines() if line.startswith("step ")]
    assert sorted(set(steps)) == list(range(1, 41)), "a step is missing"
    pulled = net.json("pull", "counting", str(net.cwd / "out"))
    assert [file["path"] for file in pulled] == ["result"]
    assert (net.cwd / "out" / "result").read_text() == "40\n"
    its_money_is_not_lost_either(net)
    assert net.up().code == 0


def its_money_is_not_lost_either(net: Net) -> None:
    """The machine never comes back: its deposit returns after the close window, and until then is on the bill."""
    bill = net.json("bill", "counting")
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["refunded"] + bill["locked"]
    assert bill["conserved"] is True
    first, second = bill["leases"]
    assert first["locked"] > 0
    assert second["locked"] == 0
    assert first["locked"] <= 125_000, "more than a quarter of the budget was in the hands of one machine"
    assert "locked" in net("bill", "counting").out


def test_a_whole_network_that_stops_and_starts_again_loses_nothing(net: Net) -> None:
    eventually(lambda: len(net.json("offers")) >= 2)
    ended = net("run", "--budget", "0.05", "--no-workdir", "--name", "kept", "--", 'echo it > "$MINGA_OUTPUT_DIR/it"')
    assert ended.code == 0, ended
    before = net.json("bill", "kept")
    settled(before)
    assert net("down").code == 0
    assert net.up().code == 0
    assert net.json("bill", "kept") == before
    assert [file["path"] for file in net.json("pull", "kept", str(net.cwd / "kept"))] == ["it"]
