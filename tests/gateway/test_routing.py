"""Who is asked next."""

from __future__ import annotations

from minga.gateway.routing import REST_MAX_S, Standing, choose


def test_the_shortest_expected_wait_is_chosen():
    fast, slow = Standing("fast", seconds=1), Standing("slow", seconds=3)
    assert choose([slow, fast], 0) is fast
    busy = Standing("fast", seconds=1, under_way=3)
    assert choose([slow, busy], 0) is slow


def test_equals_take_turns():
    standings = {name: Standing(name) for name in "ab"}
    order = []
    for now in (1.0, 2.0, 3.0, 4.0):
        chosen = choose(standings.values(), now)
        order.append(chosen.name)
        standings[chosen.name] = chosen.asked(now).answered(1.0)
    assert order == ["a", "b", "a", "b"]


def test_one_that_failed_rests_twice_as_long_each_time_and_one_answer_ends_it():
    item = Standing("a")
    rests = []
    for _ in range(9):
        item = item.asked(0).failed(0)
        rests.append(item.rests_until)
    assert rests[:4] == [1, 2, 4, 8]
    assert rests[-1] == REST_MAX_S
    assert item.under_way == 0
    assert item.asked(0).answered(1).rests_until == 0


def test_the_tried_are_left_out_and_of_the_resting_the_first_to_wake_is_taken():
    early, late = Standing("a", rests_until=5, failures=1), Standing("b", rests_until=9, failures=1)
    assert choose([late, early], 1) is early
    assert choose([late, early], 1, frozenset({"a"})) is late
    assert choose([late, early], 1, frozenset({"a", "b"})) is None
    assert choose([], 1) is None


def test_the_mean_follows_the_newest_slowly():
    assert Standing("a", seconds=1).asked(0).answered(6).seconds == 2.0
    assert Standing("a", seconds=1).asked(0).left() == Standing("a", seconds=1)
