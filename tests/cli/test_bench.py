"""`minga bench`: figures of this machine, their JSON, and what a dollar buys."""

from __future__ import annotations

import json
import os

import pytest
from command_line import Minga

from minga.cli.bench import report
from minga.core.spec import Speed, UnitSize
from minga.runtimes.bubblewrap import prerequisites

pytestmark = pytest.mark.timeout(60)
UNIT = UnitSize(cpu_milli=1000, memory_bytes=1 << 30, disk_bytes=1 << 30)


def test_the_report_holds_the_promise_the_score_and_the_price() -> None:
    found = report(Speed(gemm_mops=50_000, memory_mbps=1000, disk_mbps=100), UNIT, 2, 500_000)
    assert found["promised"] == {"gemm_mops": 35_000, "memory_mbps": 700, "disk_mbps": 70, "link_mbps": 0}
    assert (found["score"], found["units"], found["work_per_dollar"]) == (1000, 2, 360)
    assert report(Speed(), UNIT, 1, None)["work_per_dollar"] is None


def test_it_measures_as_a_plain_process_and_prints_json(minga: Minga) -> None:
    ended = minga("bench", "--process", "--price", "0.25", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["sandbox"] is False
    assert found["measured"]["gemm_mops"] > 0
    assert found["measured"]["memory_mbps"] > 0
    assert found["promised"]["gemm_mops"] == found["measured"]["gemm_mops"] * 7 // 10
    assert found["price_micros_per_hour"] == 250_000
    assert found["score"] >= 0


def test_people_get_a_table(minga: Minga) -> None:
    ended = minga("bench", "--process", "--units", "2")
    assert ended.code == 0, ended.err
    for word in ("compute", "memory", "disk", "score", "promised"):
        assert word in ended.out
    assert "measuring 2 units" in ended.err


def test_a_price_that_is_none_is_one_error(minga: Minga) -> None:
    ended = minga("bench", "--price", "cheap")
    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_the_sandbox_is_used_or_said_to_be_missing(minga: Minga) -> None:
    ended = minga("bench", "--sandbox", "--json")
    if [fact for fact in prerequisites() if not fact.ok] or os.geteuid() != 0:
        assert ended.code != 0
        assert "Traceback" not in ended.err
    else:
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["sandbox"] is True
