"""A provider's process is killed by SIGKILL at each of its fault points, and started again, as a supervisor would.

Each time a real client has a real job run there, on a real chain. Whatever the point: the job ends `done` with its
result, every token unit is where the bill says, and no voucher that the client saw acknowledged is forgotten.
Same attempt or another does not matter, but for where the test says so.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import anyio
import pytest
from machines import NAME, VERIFIED, Machine, Purses, check_books, machines, purses, variant
from markets import Stage, ended, spec_of

import minga.provider.main  # noqa: F401 - declares the points
from fixtures import eventually
from minga.cli.processes import minga_argv
from minga.client.handle import AsyncHandle
from minga.client.jobfile import JobSpec
from minga.client.reader import JobReader
from minga.client.tenant import AsyncClient
from minga.core import faults
from minga.core.errors import MingaError
from minga.provider import owner
from minga.runtimes.bubblewrap import prerequisites
from minga.store.journal import Journal

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]

RUN = """
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
while [ $step -lt 4 ]; do
  sleep 0.5; step=$((step + 1)); echo "step $step"
  echo "{\\"step\\": $step, \\"total\\": 4}" >> $MINGA_PROGRESS
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
done
cat input > $MINGA_OUTPUT_DIR/result; echo $step >> $MINGA_OUTPUT_DIR/result
"""
"""Two seconds of work, a checkpoint at each half, an output; paid by the second, it stands still in between."""

STARTING = {"provider.register.sent", "provider.offer.kept", "provider.offer.posted"}
BY_ANOTHER_WAY = {
    "provider.launch.adopted": "a second death, while the first is being repaired",
    "provider.journal.StopAsked": "a stop by the tenant",
    "provider.stop.sent": "a stop by the tenant",
    "provider.journal.Overdue": "a client that went away",
    "provider.journal.StartFailed": "a start that fails",
    "provider.journal.ChainClosing": "a provider that stood still for too long",
    "provider.journal.DepositSeen": "a top-up",
    "provider.journal.Warned": "a checkpoint that is too large",
    "provider.journal.Reclaimed": "an owner who wants the machine back",
    "provider.offer.withdrawn": "an owner who wants the machine back",
    "provider.revoke.sent": "an owner who wants it back, and the offers dead",
    "provider.price.kept": "a price that moves",
    "provider.journal.Forgotten": "the end of the retention time",
    "provider.forget.removed": "the end of the retention time",
}
"""Points that the ordinary life of a job does not come by, and what does."""

IN_A_GAME = {"provider.dispute.answered"}
"""A move of a game is mined: the next is read from the chain. Played, not killed, by tests/validator/test_games.py."""

ALL = {point for point in faults.POINTS if point.startswith("provider.")} - VERIFIED - IN_A_GAME
ORDINARY = ALL - STARTING - BY_ANOTHER_WAY.keys()


def job(stage: Stage, run: str = RUN, **changes: object) -> JobSpec:
    """A job with an input, checkpoints and a result."""
    source = stage.folder / "src"
    source.mkdir(exist_ok=True)
    (source / "input").write_text("an input\n")
    return spec_of(run, **({"checkpoint": True, "workdir": source} | changes))


async def story(handle: AsyncHandle, providers: list[Machine]) -> str:
    """What happened, for an assertion that failed."""
    told = [f"{event.at} {event.kind} {event.data}" async for event in handle.events(follow=False)]
    return "\n".join([str(handle.status()), *told, *(machine.log() for machine in providers)])


async def check_end(
    stage: Stage,
    client: AsyncClient,
    handle: AsyncHandle,
    providers: list[Machine],
    before: Purses,
    phase: str = "done",
) -> None:
    """The job is done, its result is here and right, and the books are."""
    status = await ended(handle)
    assert status.phase == phase, await story(handle, providers)
    assert [artifact.path for artifact in handle.artifacts()] == ["result"], await story(handle, providers)
    (artifact,) = handle.artifacts()
    assert artifact.file.read_text() == "an input\n4\n"
    for machine in providers:
        await machine.stop()
    bill = await check_books(stage, client, handle, providers, before)

    assert bill.locked == 0


@pytest.mark.parametrize("point", sorted(ORDINARY))
async def test_a_job_survives_the_death_of_its_provider_at(stage: Stage, point: str) -> None:
    async with machines(stage) as (machine,):
        await machine.start(point)
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(job(stage))
            await machine.killed()
            await machine.restart()
            await check_end(stage, client, handle, [machine], before)


async def the_board(stage: Stage, provider: Machine) -> str:
    """A board for the provider to post to, in its folder of processes; its url."""
    argv = minga_argv(
        "--home", str(provider.folder), "--network", NAME, "board", "--port", "0", "--ready-file", "{ready}"
    )
    record, _ = await anyio.to_thread.run_sync(lambda: provider.processes.ensure("board", argv, {}, 30.0))
    return str(record.ready["url"])


@pytest.mark.parametrize("point", sorted(STARTING))
async def test_a_provider_that_dies_while_it_starts_can_be_started(stage: Stage, point: str) -> None:
    async with machines(stage) as (machine,):
        machine.words = (*machine.words, "--board", await the_board(stage, machine))
        with contextlib.suppress(MingaError):  # it may be ready before it posts its offer
            await machine.start(point)
        await machine.killed()
        await machine.restart()
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            await check_end(stage, client, await client.submit(job(stage)), [machine], before)


async def test_a_provider_dies_again_while_it_is_repaired(stage: Stage) -> None:
    async with machines(stage) as (machine,):
        await machine.start()
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(job(stage))
            await eventually(lambda: handle.status().phase == "running")
            await machine.kill()
            with pytest.raises(MingaError, match="-9"):
                await machine.start("provider.launch.adopted")
            await machine.killed()
            await machine.restart()
            await check_end(stage, client, handle, [machine], before)


LONG = """
trap 'cat input > $MINGA_OUTPUT_DIR/result; echo 4 >> $MINGA_OUTPUT_DIR/result; exit 0' TERM
echo ready
while :; do sleep 0.1; done
"""


@pytest.mark.parametrize("point", ["provider.journal.StopAsked", "provider.stop.sent"])
async def test_a_provider_dies_while_it_stops_a_job(stage: Stage, point: str) -> None:
    async with machines(stage) as (machine,):
        await machine.start(point)
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(job(stage, LONG))
            async for _ in handle.logs(follow=True):
                break
            handle.stop("enough")
            await machine.killed()
            await machine.restart()
            await check_end(stage, client, handle, [machine], before, phase="stopped")


SAVES = """
trap 'save; exit 0' TERM
save() { echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step; }
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
echo ready
while [ $step -lt 4 ]; do sleep 1 & wait $!; step=$((step + 1)); done
cat input > $MINGA_OUTPUT_DIR/result; echo $step >> $MINGA_OUTPUT_DIR/result
"""
"""Saves itself when it is told to go, and not before."""


async def take_back(machine: Machine, revoke: bool) -> None:
    """What `minga reclaim` writes into the provider's journal."""

    def write() -> None:
        journal = Journal(machine.home / "journal.sqlite")
        try:
            owner.take_back(journal, "the owner plays a game", revoke, int(time.time()))
        finally:
            journal.close()

    await anyio.to_thread.run_sync(write)


@pytest.mark.parametrize(
    "point", ["provider.journal.Reclaimed", "provider.stop.sent", "provider.offer.withdrawn", "provider.revoke.sent"]
)
async def test_a_provider_dies_as_its_owner_takes_it_back(stage: Stage, point: str) -> None:
    """The job saves itself in its notice and goes on elsewhere; the machine stays with its owner."""
    async with machines(stage, 2) as (wanted, other):
        wanted.words = (*wanted.words, "--board", await the_board(stage, wanted))
        await wanted.start(point)
        await other.start()
        before = await purses(stage, [wanted, other])
        async with stage.client([wanted, other]) as client:
            handle = await client.submit(job(stage, SAVES))
            async for _ in handle.logs(follow=True):
                break
            await take_back(wanted, point == "provider.revoke.sent")
            await wanted.killed()
            await wanted.restart()
            assert '"event": "reclaimed"' in wanted.log()
            await check_end(stage, client, handle, [wanted, other], before)
            assert handle.status().attempts == 2


async def test_a_provider_dies_as_it_moves_its_price(stage: Stage) -> None:
    """The journal has the new price and nobody was asked for it: it is asked for after the restart."""
    async with machines(stage) as (machine,):
        machine.program, machine.price = variant("reprices"), "auto"
        await machine.start("provider.price.kept")
        await machine.killed()
        await machine.restart()
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            await check_end(stage, client, await client.submit(job(stage)), [machine], before)


async def test_a_provider_dies_as_the_dead_mans_time_ends(stage: Stage) -> None:
    """The client is gone; the provider dies as it gives the job up. Both come back, and the job goes on elsewhere."""
    async with machines(stage, 2) as (machine, other):
        await machine.start("provider.journal.Overdue")
        before = await purses(stage, [machine, other])
        async with stage.client([machine]) as client:
            handle = await client.submit(job(stage), key="one")
            await eventually(lambda: handle.status().checkpoint_step is not None or handle.status().spent > 0)
        await machine.killed()
        await machine.restart()
        await other.start()
        async with stage.client([machine, other]) as client:
            await check_end(stage, client, await client.submit(job(stage), key="one"), [machine, other], before)


async def test_a_provider_dies_as_it_says_that_a_start_failed(stage: Stage) -> None:
    """Its environment is empty. The job goes to another provider; the first one comes back and gives the deposit up."""
    async with machines(stage, 2) as (broken, good):
        folder = stage.folder / "environment"
        folder.mkdir(mode=0o755)
        broken.words = ("--insecure-process", "--environment", f"python={folder}")
        await broken.start("provider.journal.StartFailed")
        await good.start()
        before = await purses(stage, [broken, good])
        async with stage.client([broken, good]) as client:
            handle = await client.submit(job(stage))
            await broken.killed()
            await broken.restart()
            await check_end(stage, client, handle, [broken, good], before)
            assert handle.status().attempts == 2


async def test_a_provider_dies_as_it_learns_that_the_tenant_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood still; the tenant started a close on chain and went elsewhere. It comes back in time for its money."""
    monkeypatch.setattr("minga.client.attempt.HEARTBEAT_S", 2.0)
    async with machines(stage, 2) as (slow, good):
        # A long quantum: standing still for less than it must not look like a tenant who pays nothing any more.
        slow.words = (*slow.words, "--quantum", "60s", "--price", "36")
        await slow.start("provider.journal.ChainClosing")
        await good.start()
        before = await purses(stage, [slow, good])
        async with stage.client([slow, good]) as client:
            handle = await client.submit(job(stage))
            await eventually(lambda: handle.status().phase == "running")
            slow.signal(signal.SIGSTOP)
            await eventually(lambda: handle.status().attempts == 2)
            told = JobReader(client.home, client.journal, handle.id)

            def is_closing() -> bool:
                told.refresh()
                return any(lease.status == "closing" for lease in told.state.leases)

            await eventually(is_closing)
            slow.signal(signal.SIGCONT)
            await slow.killed()
            await slow.restart()
            await check_end(stage, client, handle, [slow, good], before)


async def test_a_provider_dies_as_it_sees_a_top_up(stage: Stage) -> None:
    async with machines(stage) as (machine,):
        await machine.start("provider.journal.DepositSeen")
        before = await purses(stage, [machine])
        async with stage.client([machine]) as client:
            handle = await client.submit(job(stage, budget="40"))
            await machine.killed()
            await machine.restart()
            await check_end(stage, client, handle, [machine], before)
            assert handle.status().deposited > 10_000_000


async def test_a_provider_dies_as_it_warns(stage: Stage) -> None:
    """Of a checkpoint larger than all the disk that was sold."""
    large = "truncate -s 100M $MINGA_CHECKPOINT_DIR/large; sleep 2; rm $MINGA_CHECKPOINT_DIR/large\n"
    async with machines(stage) as (machine,):
        await machine.start("provider.journal.Warned")
        before = await purses(stage, [machine])
        async with stage.client([machine]) as client:
            handle = await client.submit(job(stage, large + RUN))
            await machine.killed()
            await machine.restart()
            await check_end(stage, client, handle, [machine], before)
            assert [event async for event in handle.events() if event.kind == "warning"]


@pytest.mark.parametrize("point", ["provider.forget.removed", "provider.journal.Forgotten"])
async def test_a_provider_dies_as_it_forgets_what_was_fetched(stage: Stage, point: str) -> None:
    async with machines(stage) as (machine,):
        machine.program = variant("forgets")
        await machine.start(point)
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(job(stage))
            await ended(handle)
            await machine.killed()
            await machine.restart()
            leases = machine.home / "leases"
            await eventually(lambda: not list(leases.iterdir()))
            await check_end(stage, client, handle, [machine], before)


SANDBOXED = ("prepare.unpacked", "launch.started", "freeze.frozen", "exit.seen", "collect.copied")


@pytest.mark.root
@pytest.mark.parametrize(
    "point", ["prepare.unpacked", "launch.started", "freeze.frozen", "exit.seen", "collect.copied"]
)
async def test_a_sandboxed_job_survives_the_death_of_its_provider_at(stage: Stage, point: str) -> None:
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")
    async with machines(stage, words=("--environment", "python=/")) as (machine,):
        await machine.start(f"provider.{point}")
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(job(stage))
            await machine.killed()
            await machine.restart()
            await check_end(stage, client, handle, [machine], before)


def test_every_point_of_a_provider_is_walked() -> None:
    assert STARTING | BY_ANOTHER_WAY.keys() <= ALL
    source = Path(__file__).read_text()
    for point in BY_ANOTHER_WAY:
        assert source.count(f'"{point}"') >= 2, f"{point} is on the list and nobody walks it"
    assert len(ALL) >= 39
