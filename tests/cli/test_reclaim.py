"""`minga reclaim` on a network of this machine: the owner's side, by hand and for programs."""

from __future__ import annotations

import json
import signal

import psutil
import pytest
from command_line import one_error
from networks import Net, eventually

pytestmark = pytest.mark.timeout(180)


def told(net: Net, kind: str, provider: str = "p1") -> list[dict[str, object]]:
    """What a provider said of one kind."""
    lines = (net.home / "local" / "log" / f"{provider}.log").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in events if event.get("event") == kind]


def test_two_providers_of_one_machine_describe_half_of_its_disk_each(net: Net) -> None:
    disks = [told(net, "machine", name)[-1]["facts"]["disk_bytes"] for name in ("p1", "p2")]  # type: ignore[index]
    free = psutil.disk_usage(str(net.home)).free
    assert all(disk <= free // 2 + (2 << 30) for disk in disks), (disks, free)


def test_an_idle_machine_is_had_at_once_and_given_again(net: Net) -> None:
    eventually(lambda: len(net.json("offers")) == 2)
    found = net.json("reclaim", "--provider", "p1", "--reason", "a guest comes")
    assert found == {"reclaimed": True, "leases": []}
    eventually(lambda: len(net.json("offers")) == 1)
    assert told(net, "reclaimed")[-1]["reason"] == "a guest comes"
    ended = net.json("run", "--budget", "0.05", "--no-workdir", "--name", "elsewhere", "--", "true")
    assert ended
    assert len(net.json("bill", "elsewhere")["leases"]) == 1
    assert net.json("reclaim", "--provider", "p1", "--end") == {"reclaimed": False, "changed": True}
    assert net.json("reclaim", "--provider", "p1", "--end") == {"reclaimed": False, "changed": False}
    eventually(lambda: len(net.json("offers")) == 2)


def test_up_leaves_a_machine_with_its_owner_and_a_restart_offers_it(net: Net) -> None:
    assert "the machine is yours" in net("reclaim", "--provider", "p1").out
    again = net.up()
    assert again.out.count("(was up)") == 4
    eventually(lambda: len(net.json("offers")) == 1)
    process = psutil.Process(net.processes()["p1"]["pid"])
    process.send_signal(signal.SIGKILL)
    eventually(lambda: not net.processes()["p1"]["alive"])
    one_error(net("reclaim", "--provider", "p1"), "conflict", 2)
    assert net.up().code == 0
    assert len(told(net, "reclaimed")) >= 2, "killed, it forgot that it was taken back"
    # What it tells boards in the place of its offer lives two seconds.
    eventually(lambda: len(net.json("offers")) == 1)
    process = psutil.Process(net.processes()["p1"]["pid"])
    process.send_signal(signal.SIGTERM)
    eventually(lambda: not net.processes()["p1"]["alive"])
    assert net.up().code == 0
    eventually(lambda: len(net.json("offers")) == 2)


def test_what_is_not_there_cannot_be_had(net: Net) -> None:
    ended = net("reclaim", "--provider", "p9")
    one_error(ended, "not-found", 2)
    assert "p1, p2" in ended.err
    one_error(net("reclaim"), "not-found", 2)
    one_error(net("reclaim", "--provider", "p1", "--reason", ""), "invalid-input", 2)
