"""Time, tasks and dice: order, cancellation, crashes, and one seed giving one history."""

from __future__ import annotations

from typing import Any

import pytest

from minga.sim.kernel import SECOND, Crashed, Kernel, Signal
from minga.sim.nodes import Node


class Place:
    """What a task runs on, where no node is needed."""

    def __init__(self) -> None:
        self.tasks: dict[Any, None] = {}


def test_moments_come_in_order_and_ties_in_the_order_in_which_they_were_asked_for():
    kernel, seen = Kernel(0), []
    kernel.after(2, lambda: seen.append("late"))
    kernel.after(1, lambda: seen.append("first"))
    kernel.after(1, lambda: seen.append("second"))
    kernel.run(10 * SECOND)
    assert seen == ["first", "second", "late"]
    assert kernel.now == 10 * SECOND


def test_nothing_happens_after_the_end_of_a_run():
    kernel, seen = Kernel(0), []
    kernel.after(5, lambda: seen.append("later"))
    kernel.run(4 * SECOND)
    assert seen == []
    assert kernel.now == 4 * SECOND
    kernel.run(5 * SECOND)
    assert seen == ["later"]


def test_a_moment_in_the_past_comes_now():
    kernel, seen = Kernel(0), []
    kernel.run(3 * SECOND)
    kernel.at(1, lambda: seen.append(kernel.now))
    kernel.run(4 * SECOND)
    assert seen == [3 * SECOND]


def test_a_task_sleeps_as_long_as_it_says():
    kernel, seen = Kernel(0), []

    async def go() -> None:
        await kernel.sleep(1.5)
        seen.append(kernel.seconds)
        await kernel.sleep(0)
        seen.append(kernel.seconds)

    kernel.spawn(go(), Place())
    kernel.run(10 * SECOND)
    assert seen == [1.5, 1.5]


@pytest.mark.parametrize(("notified_at", "expected"), [(1.0, (True, 1.0)), (3.0, (False, 2.0))])
def test_a_wait_ends_with_the_signal_or_with_its_time(notified_at, expected):
    kernel, seen = Kernel(0), []
    signal = Signal(kernel)

    async def go() -> None:
        seen.append((await signal.wait(2.0), kernel.seconds))

    kernel.spawn(go(), Place())
    kernel.after(notified_at, signal.notify)
    kernel.run(10 * SECOND)
    assert seen == [expected]


def test_a_signal_wakes_everybody_once():
    kernel, seen = Kernel(0), []
    signal = Signal(kernel)

    async def go(name: str) -> None:
        await signal.wait()
        seen.append(name)
        await signal.wait()
        seen.append(name + " again")

    for name in ("a", "b"):
        kernel.spawn(go(name), Place())
    kernel.after(1, signal.notify)
    kernel.run(10 * SECOND)
    assert seen == ["a", "b"]


def test_a_cancelled_task_goes_no_further_and_cleans_up():
    kernel, seen = Kernel(0), []
    place = Place()

    async def go() -> None:
        try:
            await kernel.sleep(5)
            seen.append("woke")
        finally:
            seen.append("cleaned")

    task = kernel.spawn(go(), place)
    kernel.after(1, task.cancel)
    kernel.run(10 * SECOND)
    assert seen == ["cleaned"]
    assert not place.tasks
    task.cancel()


def test_a_task_that_cancels_itself_ends_at_its_next_wait():
    kernel, seen = Kernel(0), []
    held: list[Any] = []

    async def go() -> None:
        held[0].cancel()
        seen.append("still here")
        await kernel.sleep(1)
        seen.append("never")

    held.append(kernel.spawn(go(), Place()))
    kernel.run(10 * SECOND)
    assert seen == ["still here"]


def test_a_crash_takes_every_task_of_its_node_and_no_other():
    kernel, seen = Kernel(0), []
    doomed, other = Node(kernel, "doomed"), Node(kernel, "other")

    async def count(node: Node) -> None:
        while True:
            await kernel.sleep(1)
            seen.append(node.name)

    async def die() -> None:
        await kernel.sleep(2.5)
        raise Crashed

    for node in (doomed, other):
        node.spawn(count(node))
    doomed.spawn(die())
    kernel.run(4 * SECOND + 1)
    assert seen.count("doomed") == 2
    assert seen.count("other") == 4
    assert not doomed.up
    assert not doomed.tasks


def test_a_crashed_node_starts_again():
    kernel, starts = Kernel(0), []
    node = Node(kernel, "n")
    node.start = lambda: starts.append(kernel.seconds)
    node.crash(7.0)
    node.crash(1.0)  # it is down already
    kernel.run(20 * SECOND)
    assert starts == [7.0]
    assert node.up
    assert node.lives == 1


def test_an_error_of_a_task_reaches_whoever_runs_the_world():
    kernel = Kernel(0)

    async def go() -> None:
        raise ZeroDivisionError

    kernel.spawn(go(), Place())
    with pytest.raises(ZeroDivisionError):
        kernel.run(SECOND)


def test_a_halted_world_stands_still():
    kernel, seen = Kernel(0), []

    def halt() -> None:
        kernel.halted = True

    kernel.after(1, halt)
    kernel.after(2, lambda: seen.append("no"))
    kernel.run(10 * SECOND)
    assert seen == []


def test_the_trace_is_of_every_note_with_its_time():
    def history(*notes: tuple[float, str]) -> str:
        kernel = Kernel(0)
        for seconds, text in notes:
            kernel.after(seconds, lambda text=text: kernel.note(text))
        kernel.run(10 * SECOND)
        return kernel.trace

    one = history((1, "a"), (2, "b"))
    assert one == history((1, "a"), (2, "b"))
    assert one != history((1, "a"), (2, "c"))
    assert one != history((1, "a"), (2.000001, "b"))
    assert one != history((1, "b"), (2, "a"))
    assert len(one) == 32


def test_dice_are_of_the_seed_and_untouched_by_what_cannot_happen():
    one, two = Kernel(5), Kernel(5)
    assert [one.dice.random() for _ in range(5)] == [two.dice.random() for _ in range(5)]
    assert not any(one.chance(0.0) for _ in range(9))
    assert one.dice.random() == two.dice.random()
    assert Kernel(6).dice.random() != Kernel(5).dice.random()
