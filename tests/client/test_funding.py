"""Who pays a job's wallet, and what stops a job that this machine, and no provider, stands in the way of."""

from __future__ import annotations

import anyio
import pytest
from markets import Stage, ended, spec_of

from minga.chain.contracts import Token
from minga.client.folder import NoRoomHere
from minga.core import faults
from minga.core.crypto import blake3_hex, keccak, new_key
from minga.core.errors import Conflict, InvalidInput

pytestmark = [pytest.mark.anyio, pytest.mark.root]


class Died(Exception):
    """The process ended here."""


@pytest.fixture
def dies_once_ordered():
    """The next order dies after it was journaled and before any money moved."""

    def die(point: str) -> None:
        if point == "client.submit.journaled":
            faults.remove(die)
            raise Died

    faults.install(die)
    yield
    faults.remove(die)


async def test_a_service_without_the_key_waits_for_whoever_has_it(stage: Stage, dies_once_ordered: None) -> None:
    spec = spec_of("echo done")
    async with stage.providers() as providers:
        async with stage.client(providers) as client:
            with pytest.raises(Died):
                await client.submit(spec, key="one")
        async with stage.client(providers, key=None) as service, stage.client(providers) as client:
            done = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.serve, done.is_set)
                (job,) = service.jobs()
                assert job.phase == "submitted"
                with pytest.raises(InvalidInput, match="no key"):
                    await service.submit(spec)
                while job.job not in service._runners:  # the service holds the job now
                    await anyio.lowlevel.checkpoint()
                await client._fund_here(job.job)
                assert (await ended(service.attach(job.job))).phase == "done"
                done.set()
            assert len(client.jobs()) == 1
            bill = await client.attach(job.job).bill()
            assert (bill.conserved, bill.locked) == (True, 0)


async def test_money_that_left_between_order_and_funding_ends_the_job_and_keeps_the_gas(
    stage: Stage, dies_once_ordered: None
) -> None:
    spec, token = spec_of("echo done"), Token(stage.network.spec.deployment.token)
    async with stage.providers() as providers:
        async with stage.client(providers) as client:
            with pytest.raises(Died):
                await client.submit(spec, key="one")
        async with stage.client(providers) as client:
            elsewhere = new_key(keccak(b"elsewhere")).address
            await client._chain.send("spend", token.transfer(elsewhere, 10**9 - 1), stage.tenant)
            gas = await client._chain.balance(stage.tenant.address)
            handle = await client.submit(spec, key="one")
            status = await ended(handle)
            assert status.phase == "failed"
            assert (status.spent, status.deposited, status.locked) == (0, 0, 0)
            assert "balance" in status.reason
            back = await client._chain.balance(stage.tenant.address)
            assert gas - back < await client._chain.gas_cost(100_000), "only the two transfers' own gas is gone"
            assert (await handle.bill()).deposited == 0


async def test_a_full_disk_here_keeps_the_job_at_its_provider(stage: Stage) -> None:
    """It ends this process's run with one error, and is gone on with from where it stood, not run and paid again."""
    async with stage.providers() as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of("sleep 1; echo result > $MINGA_OUTPUT_DIR/x"))
        parts = handle._reader.folder.scratch("parts")
        (parts / blake3_hex(b"result\n")).symlink_to("/dev/full")
        with pytest.raises(NoRoomHere, match="No space left"):
            await ended(handle)
        assert handle.status().phase == "collecting"
        (parts / blake3_hex(b"result\n")).unlink()
        handle.resume()
        status = await ended(handle)
        assert (status.phase, status.attempts) == ("done", 1)
        assert [artifact.file.read_bytes() for artifact in handle.artifacts()] == [b"result\n"]
        assert (await handle.bill()).locked == 0


async def test_one_job_is_run_by_one_process(stage: Stage) -> None:
    async with stage.providers() as providers, stage.client(providers) as client, stage.client(providers) as other:
        handle = await client.submit(spec_of("sleep 600"))
        with anyio.fail_after(30):
            async for event in handle.events():
                if event.kind == "meter":
                    break
        seen = other.attach(handle.id)
        with pytest.raises(Conflict, match="another process"):
            seen.resume()
        seen.stop("seen from elsewhere")
        status = await ended(seen)
        assert (status.phase, status.reason) == ("stopped", "seen from elsewhere")
        with pytest.raises(TimeoutError):
            await other.attach((await other.submit(spec_of("sleep 600"))).id).wait(0.05)
