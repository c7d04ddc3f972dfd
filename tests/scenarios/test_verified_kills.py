"""A provider is killed by SIGKILL at each point that only verified work comes by, and started again.

Whatever the point: what it wished for is at stake once, the trace that came back is the one that stands committed
before the close, once, and every token unit is where the bill says.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import VERIFIED, Machine, check_books, leases_on_chain, machines, purses, variant
from markets import Stage, ended, spec_of

import minga.provider.main  # noqa: F401 - declares the points
from fixtures import LocalNetwork, SeededDice, SystemClock, eventually
from minga.chain.contracts import Registry
from minga.chain.local import start_local, stop_local
from minga.client.jobfile import Retry
from minga.client.jobspec import JobSpec, Verify
from minga.client.reader import JobReader
from minga.core import faults
from minga.core.crypto import to_hex
from minga.core.errors import MingaError
from minga.protocol.dispute import Commitment
from minga.protocol.lease import Phase
from minga.protocol.merkle import Tree
from traces import tracing

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]

STAKE = 10**9
LEAVES = [b"%032d" % step for step in (1, 2, 3)]
RUN = tracing(LEAVES) + "sleep 1.5; echo done > $MINGA_OUTPUT_DIR/result"
ROOT = to_hex(Tree(LEAVES).root)
AT_WORK = {
    "provider.journal.OrderSet", "provider.commit.computed", "provider.commit.sent", "provider.journal.Committed",
}  # fmt: skip


def audited(run: str = RUN, **changes: object) -> JobSpec:
    return spec_of(run, **({"verify": Verify(mode="audit")} | changes))


async def commitments(stage: Stage) -> dict[str, Commitment]:
    """Every commitment of the stage's chain, by channel."""
    async with stage.network.open(stage.folder / "reader") as chain:
        while True:
            changes = await chain.poll()
            chain.acknowledge(changes)
            if not changes.confirmed and not changes.undone:
                return dict(chain.view.commitments)


async def staked(stage: Stage, machine: Machine) -> int:
    """What the provider has under the arbiter."""
    place = stage.network.spec.deployment
    async with stage.network.open(stage.folder / "reader") as chain:
        found = await chain.read(Registry(place.registry).stake_of(machine.operator.address, place.disputes))
    return int(found.staked)


@pytest.mark.parametrize("point", sorted(AT_WORK))
async def test_verified_work_survives_the_death_of_its_provider_at(stage: Stage, point: str) -> None:
    async with machines(stage, stake=STAKE) as (machine,):
        await machine.start(point)
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(audited())
            await machine.killed()
            await machine.restart()
            status = await ended(handle)
            assert (status.phase, status.attempts) == ("done", 1), machine.log()
            await machine.stop()
            (lease,) = JobReader(client.home, client.journal, handle.id).state.leases
            made = (await commitments(stage))[lease.channel]
            assert (made.root, made.leaves) == (ROOT, 3)
            (held,) = machine.leases().values()
            assert held.commitment is not None
            assert held.commitment["root"] == ROOT
            bill = await check_books(stage, client, handle, [machine], before)
            assert bill.held > 0
            assert await staked(stage, machine) == STAKE


@pytest.mark.parametrize("point", ["provider.stake.approved", "provider.stake.sent"])
async def test_a_provider_that_dies_as_it_stakes_stakes_once(stage: Stage, point: str) -> None:
    async with machines(stage, stake=STAKE) as (machine,):
        with pytest.raises(MingaError):
            await machine.start(point)
        await machine.killed()
        await machine.restart()
        assert await staked(stage, machine) == STAKE
        assert f'"amount": "{STAKE}"' in machine.log()


async def test_a_provider_dies_as_it_gives_a_commitment_up(stage: Stage) -> None:
    """Its job's trace is another than was ordered; the tenant leaves, and the lease is closed all the same."""
    broken = tracing(LEAVES, determinism="D1")
    async with machines(stage, stake=STAKE) as (machine,):
        await machine.start("provider.journal.CommitFailed")
        async with stage.client([machine]) as client:
            before = await purses(stage, [machine])
            handle = await client.submit(audited(broken, retry=Retry(wait_s=1)))
            await machine.killed()
            await machine.restart()
            status = await ended(handle)
            assert status.phase == "failed", status
            (lease,) = JobReader(client.home, client.journal, handle.id).state.leases
            assert lease.left == "no-trace: the trace has determinism D1, ordered was D0"
            await machine.stop()
            await check_books(stage, client, handle, [machine], before)


async def test_a_provider_dies_as_it_collects_what_was_held(stage: Stage, tmp_path: Path) -> None:
    """On a chain of its own, an hour ahead; so is the provider that is started again."""
    chain = await start_local(tmp_path / "chain", SystemClock(), SeededDice(stage.name))
    await chain.faucet.aclose()
    try:
        alone = Stage(LocalNetwork(tmp_path / "chain", chain.spec), stage.folder, stage.name, stage.tenant)
        alone.tenant = await alone.network.funded_key("tenant", tokens=10**9)
        async with machines(alone, stake=STAKE) as (machine,):
            await machine.start("provider.hold.sent")
            async with alone.client([machine]) as client:
                handle = await client.submit(audited())
                assert (await ended(handle)).phase == "done", machine.log()
                held = (await handle.bill()).held
                before = await purses(alone, [machine])
                await client._chain.rpc.request("evm_increaseTime", 3600)
                await client._chain.rpc.request("evm_mine")
                await machine.killed()
                machine.program = variant("hour-ahead")
                await machine.restart()
                (record,) = (await leases_on_chain(alone)).values()
                assert record.phase is Phase.CLOSED
                assert record.hold_ended is not None
                assert record.hold_ended.to_provider == held > 0
                after = await purses(alone, [machine])
                assert after.providers[machine.operator.address] == before.providers[machine.operator.address] + held
                assert (await handle.bill()).conserved
                await eventually(lambda: '"event": "ready"' in machine.log())
    finally:
        await stop_local(tmp_path / "chain")


def test_every_point_of_verified_work_is_walked() -> None:
    source = Path(__file__).read_text()
    assert faults.POINTS.keys() >= VERIFIED
    for point in VERIFIED:
        assert f'"{point}"' in source, f"{point} is on the list and nobody walks it"
