"""Disks that tear and fill, clocks that are wrong, wires that lose, delay and repeat."""

from __future__ import annotations

from typing import Any

import pytest

from minga.core.errors import Conflict, DiskFull, InternalError, ProviderUnreachable
from minga.sim.kernel import SECOND, Crashed, Kernel
from minga.sim.nodes import Faults, Node, Wires

SOON = Faults(delay_s=(0.01, 0.01))


def machine(seed: int = 0) -> Node:
    return Node(Kernel(seed), "n")


def test_a_journal_gives_back_what_was_written():
    node = machine()
    node.journal.append("s", "A", {"x": "1"}, 7)
    node.journal.append("s", "B", {"list": [1, 2], "none": None}, 8)
    node.journal.append("other", "A", {}, 9)
    found = node.journal.read("s")
    assert [(record.number, record.kind, record.at, record.body) for record in found] == [
        (1, "A", 7, {"x": "1"}), (2, "B", 8, {"list": [1, 2], "none": None}),
    ]  # fmt: skip
    assert node.journal.streams() == ["s", "other"]
    assert node.journal.count("s") == 2
    assert node.journal.read("nothing") == []


def test_a_full_disk_takes_nothing_and_is_over_some_time():
    node = machine()
    node.full_until = 5 * SECOND
    with pytest.raises(DiskFull):
        node.journal.append("s", "A", {}, 1)
    assert node.journal.count("s") == 0
    node.kernel.run(5 * SECOND)
    node.journal.append("s", "A", {}, 1)
    assert node.journal.count("s") == 1


def test_a_kill_in_the_middle_of_a_write_leaves_all_part_or_none_of_the_record():
    fates = set()
    for seed in range(60):
        node = machine(seed)
        node.journal.append("s", "A", {"n": 1}, 1)
        node.crash_rate, node.crashes_left = 1.0, 1
        with pytest.raises(Crashed):
            node.journal.append("s", "B", {"n": 2}, 2)
        torn = any(not line.endswith(b"\n") for line in node.journal.lines("s"))
        kinds = [record.kind for record in node.journal.read("s")]
        assert kinds in (["A"], ["A", "B"])
        assert not (torn and kinds == ["A", "B"])
        fates.add((torn, len(kinds)))
        node.journal.append(
            "s", "C", {"n": 3}, 3
        )  # what is torn is cut off, and the next record follows the last whole one
        assert [record.kind for record in node.journal.read("s")] == [*kinds, "C"]
    assert fates == {(False, 1), (True, 1), (False, 2)}


def test_damage_before_the_last_record_is_no_torn_tail():
    node = machine()
    for number in range(3):
        node.journal.append("s", "A", {"n": number}, 1)
    lines = node.journal.lines("s")
    lines[1] = lines[1].replace(b'"n":1', b'"n":7')
    with pytest.raises(InternalError, match="record 2"):
        node.journal.read("s")


def test_a_node_is_killed_only_as_often_as_it_may():
    node = machine()
    node.crash_rate, node.crashes_left = 1.0, 2
    for _ in range(2):
        with pytest.raises(Crashed):
            node.reach("here")
    node.reach("here")


def test_a_skewed_clock_moves_the_calendar_alone():
    node = machine()
    before, at = node.now(), node.monotonic()
    node.skew = 3600
    assert node.now() == before + 3600
    assert node.monotonic() == at


class Pair:
    """Two nodes and the wires between them."""

    def __init__(self, faults: Faults, seed: int = 0) -> None:
        self.kernel = Kernel(seed)
        self.here, self.there = Node(self.kernel, "here"), Node(self.kernel, "there")
        self.wires = Wires(self.kernel, faults)
        self.served = 0
        self.results: list[Any] = []

    async def serve(self, value: int) -> int:
        self.served += 1
        if value < 0:
            raise Conflict("negative")
        return value * 2

    async def ask(self, value: int, wait_s: float = 10.0) -> None:
        try:
            self.results.append(await self.wires.call(self.here, self.there, self.serve, value, wait_s=wait_s))
        except (Conflict, ProviderUnreachable) as error:
            self.results.append((type(error), self.kernel.seconds))

    def go(self, *values: int, wait_s: float = 10.0) -> list[Any]:
        for value in values:
            self.here.spawn(self.ask(value, wait_s))
        self.kernel.run(self.kernel.now + 60 * SECOND)
        return self.results


def test_a_call_brings_the_result_or_the_error_back():
    assert Pair(SOON).go(4, -1) == [8, (Conflict, 0.02)]


def test_a_node_that_is_down_refuses_at_once():
    pair = Pair(SOON)
    pair.there.up = False
    assert pair.go(4) == [(ProviderUnreachable, 0.02)]
    assert pair.served == 0


def test_a_lost_message_is_known_by_its_silence():
    pair = Pair(Faults(loss=1.0))
    assert pair.go(4, wait_s=3.0) == [(ProviderUnreachable, 3.0)]


@pytest.mark.parametrize("cut", ["here", "there"])
def test_a_cut_node_neither_speaks_nor_hears(cut):
    pair = Pair(SOON)
    getattr(pair, cut).cut_until = 5 * SECOND
    assert pair.go(4, wait_s=3.0) == [(ProviderUnreachable, 3.0)]
    assert pair.served == 0
    assert pair.go(5)[-1] == 10


def test_an_answer_that_is_lost_was_served_all_the_same():
    found = set()
    for seed in range(40):
        pair = Pair(Faults(loss=0.5), seed)
        found.add((pair.go(4, wait_s=3.0)[0] == 8, pair.served))
    assert found == {(False, 0), (False, 1), (True, 1)}


def test_a_repeated_message_is_served_twice_and_answered_once():
    pair = Pair(Faults(duplicate=1.0))
    assert pair.go(4) == [8]
    assert pair.served == 2


def test_messages_overtake_each_other():
    pair = Pair(Faults(slow=0.5, slow_s=8.0), 3)
    found = pair.go(*range(1, 20))
    assert sorted(found) == [2 * value for value in range(1, 20)]
    assert found != sorted(found)


def test_plain_faults_are_the_default():
    assert Faults().plain
    assert not Faults(loss=0.1).plain
