"""A validator that dies at every point between two durable steps, and plays one game to its end all the same."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from contextvars import ContextVar
from pathlib import Path

import pytest
from courts import JUDGE, WRONG, Bench, Court, bench, config, court, faked, reached, validating

from fixtures import eventually
from minga.core import faults
from minga.protocol.dispute import SHORT, Outcome
from minga.runtimes.bubblewrap import prerequisites
from minga.store.journal import Journal
from minga.validator import events as ev
from minga.validator.points import POINTS
from minga.validator.world import Options

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(280)]
UNMET = {
    # A beacon's round that is missed, a provider that is silent and work that cannot be done here are other stories.
    "validator.journal.Lapsed", "validator.journal.Unserved", "validator.journal.Unreplayed",
    "validator.journal.Abstained",
    # Our own audit found the leaf: the seat need not do it again.
    "validator.judge.done",
}  # fmt: skip


MORTAL: ContextVar[bool] = ContextVar("mortal", default=False)
"""Whether this task is of the validator that dies; the referees beside it, in the same process, go on."""


class Killed(BaseException):
    """Dead, as after kill -9: nothing more is written, nothing is tidied up."""


@pytest.fixture
async def room() -> AsyncIterator[Court]:
    """A court of its own."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    with tempfile.TemporaryDirectory(prefix="minga-test-restarts-") as name:
        os.chmod(name, 0o755)
        async with court(Path(name)) as made:
            yield made


async def test_dying_everywhere_changes_nothing(room):
    died: list[str] = []

    def die(point: str) -> None:
        if MORTAL.get() and point in alive_at and point not in died:
            died.append(point)
            raise Killed(point)

    alive_at = set(POINTS) - UNMET
    dock = await room.committed(faked)
    await room.fund("validator", 100 * SHORT.bond)
    made = config(room, "validator", Options(audit="all", leaves=25))
    stream = f"case/{dock.commitment.channel}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dock.serving())
        await stack.enter_async_context(bench(room, "referee 1", "referee 2", options=JUDGE))
        faults.install(die)
        try:
            while await dies(made, stream):
                assert len(died) <= len(alive_at)
        finally:
            faults.remove(die)
        await room.read()
        (record,) = room.chain.view.disputes.about(dock.commitment.channel)
        assert record.finished is not None
        assert (record.finished.outcome, record.leaf) == (Outcome.CONVICTED, WRONG)
        assert set(record.votes.values()) == {2}
    assert set(died) == alive_at
    check_journal(made.home / "journal.sqlite", stream)


async def dies(made, stream: str) -> bool:
    """Run the validator until it dies (True), or until its case and its seat are over and paid (False)."""
    MORTAL.set(True)
    try:
        async with validating(made) as running:
            await reached(running, stream, "over", seconds=120)
            await eventually(lambda: paid(running), 60)
    except BaseExceptionGroup as group:
        if group.subgroup(Killed) is None or group.subgroup(lambda error: not _is_death(error)):
            raise
        return True
    except Killed:
        return True
    finally:
        MORTAL.set(False)
    return False


def _is_death(error: BaseException) -> bool:
    return isinstance(error, Killed | BaseExceptionGroup)


def paid(running: Bench) -> bool:
    """Whether everything that is owed was fetched."""
    return all(any(name.startswith("withdraw/") for name in run.state.done) for run in running.validator.runs.values())


def check_journal(path: Path, stream: str) -> None:
    """One challenge, one verdict, one vote for each ballot, however often the process died."""
    journal = Journal(path)
    try:
        streams = journal.streams()
        assert sorted(name.partition("/")[0] for name in streams) == ["case", "seat"]
        seat = next(name for name in streams if name.startswith("seat/"))
        kinds = Counter(record.kind for record in journal.read(seat))
        assert kinds["Judged"] == 1
        done = [record.body["effect"] for record in journal.read(stream) if record.kind == "Done"]
        assert done.count("challenge/0/0") <= 1  # the chain, which showed the game, may have been quicker
        assert len(done) == len(set(done))
        first = ev.decode(journal.read(stream)[0].kind, journal.read(stream)[0].body)
        assert isinstance(first, ev.Noticed)
    finally:
        journal.close()
