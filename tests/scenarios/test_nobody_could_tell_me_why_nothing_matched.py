"""Nobody could tell me why nothing matched.

Here a quote names the requirement that excludes, how many offers it excludes, and what to type instead.
"""

from __future__ import annotations

import json

import pytest
from command_line import one_error
from networks import Net
from pains import balance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

IMPOSSIBLE = {
    "gpu": ("--gpu", "H100:8"),
    "cpus": ("--cpus", "4096"),
    "memory": ("--memory", "900TB"),
    "region": ("--region", "moon"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_requirement_that_excludes_is_named_and_counted(net: Net, name: str) -> None:
    words = IMPOSSIBLE[name]
    ended = net("quote", *words, "--budget", "1", "--", "true")
    assert ended.code == 3, ended
    assert name in ended.out
    assert "2" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    found = json.loads(net("quote", *words, "--json", "--", "true").out)
    assert found["excluded"][name] == 2
    assert (found["offers"], found["matching"]) == (2, 0)


def test_two_impossible_wishes_are_both_named(net: Net) -> None:
    found = json.loads(net("quote", "--gpu", "H100", "--region", "moon", "--json", "--", "true").out)
    assert found["excluded"] == {"gpu": 2, "region": 2}
    assert found["only"] == {}


def test_no_money_moves_for_a_job_that_nobody_can_run(net: Net) -> None:
    before = balance(net)
    ended = net("run", "--budget", "1", "--gpu", "H100", "--no-workdir", "--", "true")
    one_error(ended, "no-match", 3)
    assert "gpu excludes 2" in ended.err
    assert balance(net) == before
