"""The record of a provider on the command line: what it shows, and that a complaint reaches it through a real board."""

from __future__ import annotations

import anyio
import pytest
from command_line import one_error
from networks import Net, eventually

from fixtures import SystemClock
from minga.cli.reliability import judged, standing_dict
from minga.client import complaints
from minga.client.home import Home, Network
from minga.client.reader import JobReader
from minga.client.records import Standing
from minga.protocol.lease import Why
from minga.protocol.reliability import Fact, Ledger, Rules
from minga.store.journal import Journal
from minga.transport.http import connect

NOW = 1_800_000_000


def fact(said: int | None, tenant_said: int | None = None) -> Fact:
    return Fact("0x1", "0x2", "0x3", 10**6, 10**18, 10**16, NOW - 60, NOW, said, tenant_said)


@pytest.mark.parametrize(
    ("said", "tenant_said", "complaint", "word"),
    [
        (Why.DONE, None, None, "kept"), (None, Why.STOPPED, None, "kept"), (None, None, None, "–"),
        (Why.SHUTTING_DOWN, None, None, "reclaimed"), (Why.DONE, Why.UNREACHABLE, None, "disputed"),
        (Why.DONE, None, 7, "disputed"), (None, Why.BAD_RESULT, None, "spoilt"), (Why.UNDER_SPEC, None, 6, "spoilt"),
    ],
)  # fmt: skip
def test_every_lease_is_judged_in_one_word(said, tenant_said, complaint, word) -> None:
    assert judged(fact(said, tenant_said), complaint) == word


def test_amounts_leave_as_text_and_the_list_is_bounded() -> None:
    ledger = Ledger(Rules.of(6))
    ledger.end(fact(Why.DONE))
    found = Standing(ledger.record("0x3", NOW), ledger.facts("0x3") * 3, NOW, ("a doubt",))
    value = standing_dict(found, 2)
    assert (value["paid"], value["fee"], value["doubts"]) == (str(10**18), str(10**16), ["a doubt"])
    assert [item["paid"] for item in value["events"]] == [str(10**18)] * 2
    assert value["mtbf_s"] == found.record.mtbf_s


def test_a_lease_and_a_complaint_about_it_change_the_record_that_anyone_computes(net: Net) -> None:
    eventually(lambda: len(net.json("offers")) == 2)
    provider = net.json("offers")[0]["provider"]
    fresh = net.json("reliability", provider)
    assert (fresh["ppm"], fresh["leases"], fresh["events"]) == (800_000, 0, [])
    one_error(net("reliability", "0xffffffffff"), "not-found", 2)
    one_error(net("reliability", "0x"), "not-found", 2)
    job = net.run("--", "sleep 3")["job"]["id"]
    eventually(lambda: net.json("reliability", provider)["leases"] == 1)
    kept = net.json("reliability", provider[:12])
    (event,) = kept["events"]
    assert (event["counts_as"], event["provider_said"], event["complaint"]) == ("kept", Why.DONE, None)
    assert int(event["paid"]) > 0
    assert kept["ppm"] > 800_000
    shown = net("reliability", provider).out
    assert "1 ended: 1 kept" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert [offer["reliability_ppm"] for offer in net.json("offers", "reliability>0.8")] == [kept["ppm"]]

    _complain(net, job)
    eventually(lambda: net.json("reliability", provider)["complaints"] == 1)
    told = net.json("reliability", provider)
    assert [item["counts_as"] for item in told["events"]] == ["disputed"]
    assert (told["left"], told["disputed"]) == (1, 1)
    assert told["ppm"] < 800_000
    assert "bad result" in net("reliability", provider).out
    assert net.json("offers", "reliability>0.8") == []


def _complain(net: Net, job: str) -> None:
    """As the job's runner would, at the board that runs as a process and knows the chain."""
    home = Home(net.home)
    network = Network.load(home, "local")
    journal = Journal(home.journal)
    try:
        reader = JobReader(home, journal, job)
        lease, wallet = reader.state.leases[0], reader.folder.wallet()
    finally:
        journal.close()
    failed: list[str] = []

    async def file() -> None:
        now = SystemClock().now()
        made = await complaints.file(network, connect, job, wallet, lease, Why.BAD_RESULT, now, failed.append)
        assert made is not None

    anyio.run(file)
    assert failed == []
