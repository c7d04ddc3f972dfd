"""The embedded chain's anvil is killed by SIGKILL while a job lives; its supervisor starts it again.

Such a chain forgets up to a second of blocks: for everybody else that is a reorg. Whatever was forgotten is sent again
by who had sent it, from their journals; the job ends `done` and no token unit is lost.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machines import Machine, Purses, check_books, machines, purses
from markets import Stage, ended, spec_of

from fixtures import LocalNetwork, SystemClock, eventually
from minga.chain import process
from minga.chain.chain import ChainSpec
from minga.cli.processes import Processes, minga_argv
from minga.client.bill import Bill
from minga.client.handle import AsyncHandle
from minga.client.tenant import AsyncClient
from minga.core import faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]

SETTLED_S = 30.0

RUN = "for step in 1 2 3; do sleep 0.5; echo $step; done; echo done > $MINGA_OUTPUT_DIR/result"

MOMENTS = {
    "client.fund.gas": "the job wallet is half funded",
    "client.fund.tokens": "the job wallet is funded",
    "client.open.sending": "before the lease is opened",
    "client.open.mined": "the lease was opened a moment ago",
    "client.watch.event": "the job runs",
    "client.pay.acknowledged": "the job was paid for",
    "client.close.asked": "before the lease is closed",
    "client.close.seen": "the lease was closed a moment ago",
}
"""When anvil dies: as the client comes to this point for the first time."""


class Supervised:
    """A chain of its own, run by `minga chain` as `minga up` runs it."""

    save_s = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "local" / "chain"
        self.processes = Processes(folder)
        argv = minga_argv("--home", str(folder), "chain", "--save", str(self.save_s), "--ready-file", "{ready}")
        self.record, _ = self.processes.ensure("chain", argv, {}, 60.0)
        self.network = LocalNetwork(self.folder, ChainSpec.load(self.folder / "chain.json"))
        self.killed: list[int] = []

    @property
    def anvil(self) -> int:
        """Its process id now."""
        running = process.read_record(self.folder)
        assert running is not None
        return running.anvil.pid

    def kill(self) -> None:
        """SIGKILL to anvil."""
        self.killed.append(self.anvil)
        os.kill(self.anvil, signal.SIGKILL)

    async def saved(self) -> None:
        """Wait until everything up to now is in the state that a killed anvil starts from."""
        kept, now = self.folder / "state.good.json", time.time()
        await eventually(lambda: kept.exists() and kept.stat().st_mtime > now + self.save_s)

    def lives(self) -> bool:
        """Whether an anvil runs that was not killed."""
        running = process.read_running(self.folder)
        return running is not None and running.anvil.pid not in self.killed


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """One supervised chain for the module."""
    supervised = Supervised(tmp_path_factory.mktemp("home"))
    yield supervised
    supervised.processes.stop("chain")


@pytest.fixture
async def stage(chain: Supervised, folder: Path, request: pytest.FixtureRequest) -> Stage:
    """A stage on the supervised chain."""
    name = request.node.nodeid
    tenant = await chain.network.funded_key(f"tenant {name}", tokens=10**9)
    return Stage(chain.network, folder, name, tenant)


@contextmanager
def at(point: str, act: Callable[[], None]) -> Iterator[list[str]]:
    """Do `act` the first time that this process comes to `point`; what was reached is in the list."""
    reached: list[str] = []

    def handler(name: str) -> None:
        if name == point and not reached:
            reached.append(name)
            act()

    faults.install(handler)
    try:
        yield reached
    finally:
        faults.remove(handler)


async def check_end(
    stage: Stage, client: AsyncClient, handle: AsyncHandle, machine: Machine, before: Purses, phase: str = "done"
) -> Bill:
    """The job is over; soon everybody has, on the chain as it is now, what the bill says. The provider stays up."""
    status = await ended(handle)
    assert status.phase == phase, status
    assert [artifact.path for artifact in handle.artifacts()] == ["result"]
    clock = SystemClock()
    deadline = clock.monotonic() + SETTLED_S
    while True:
        try:
            bill = await check_books(stage, client, handle, [machine], before)
            assert bill.locked == 0, bill
            return bill
        except AssertionError:
            if clock.monotonic() > deadline:
                raise
        await clock.sleep(0.1)


@pytest.mark.parametrize("point", MOMENTS)
async def test_a_job_survives_the_death_of_its_chain(stage: Stage, chain: Supervised, point: str) -> None:
    async with machines(stage) as (machine,):
        await machine.start()
        await chain.saved()
        before = await purses(stage, [machine])
        async with stage.client([machine]) as client:
            with at(point, chain.kill) as reached:
                handle = await client.submit(spec_of(RUN))
                await check_end(stage, client, handle, machine, before)
            assert reached == [point]
            assert chain.lives()


async def test_a_chain_that_is_down_for_a_while_costs_a_job_nothing(stage: Stage, chain: Supervised) -> None:
    """Vouchers need no chain: the job works on and is paid while nothing answers, and is settled afterwards."""
    run = "while [ ! -e stop ]; do sleep 0.1; done; echo done > $MINGA_OUTPUT_DIR/result"
    run = f"trap 'echo done > $MINGA_OUTPUT_DIR/result; exit 0' TERM; {run}"
    async with machines(stage) as (machine,):
        await machine.start()
        await chain.saved()
        before = await purses(stage, [machine])
        async with stage.client([machine]) as client:
            handle = await client.submit(spec_of(run))
            await eventually(lambda: handle.status().spent > 0)
            os.kill(chain.record.pid, signal.SIGSTOP)
            try:
                chain.kill()
                spent = handle.status().spent
                await eventually(lambda: handle.status().spent >= spent + 3_000_000)
                handle.stop("enough")
                await eventually(lambda: handle.status().phase in ("collecting", "closing"))
            finally:
                os.kill(chain.record.pid, signal.SIGCONT)
            bill = await check_end(stage, client, handle, machine, before, "stopped")
            assert bill.paid + bill.fee >= spent + 3_000_000
