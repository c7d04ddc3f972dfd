"""A whole job: real chain, real providers over HTTP, a real process; money exact to the unit."""

from __future__ import annotations

import pytest
from markets import Stage, ended, spec_of

from minga.chain.contracts import Token
from minga.client.jobfile import Retry

pytestmark = [pytest.mark.anyio, pytest.mark.root]


async def balance(client, address) -> int:
    return await client._chain.read(Token(client.network.chain.deployment.token).balance_of(address))


async def test_a_job_runs_is_paid_and_leaves_nothing_behind(stage: Stage) -> None:
    async with stage.providers() as providers, stage.client(providers) as client:
        before = await balance(client, stage.tenant.address)
        handle = await client.submit(spec_of("echo hello; echo result > $MINGA_OUTPUT_DIR/x.txt; sleep 1.2"))
        status = await ended(handle)
        events = [event async for event in handle.events()]
        assert status.phase == "done", (status, events)
        log = b"".join([chunk async for chunk in handle.logs()])
        assert b"hello" in log
        (artifact,) = handle.artifacts()
        assert artifact.file.read_bytes() == b"result\n"
        bill = await handle.bill()
        assert bill.conserved
        assert bill.locked == 0
        assert bill.deposited == 25_000_000
        assert bill.paid + bill.fee == status.spent == status.working_s * 1_000_000
        assert await balance(client, stage.tenant.address) == before - bill.paid - bill.fee
        report = await handle.report()
        assert report["chain"]["gas"]["open"] > 0
        assert report["chain"]["gas"]["close"] > 0
        assert report["chain"]["transactions"] == 6, "two to fund, open, close, and two to return the rest"
        (wallet,) = [handle._reader.folder.wallet().address]
        assert await balance(client, wallet) == 0
        assert await client._chain.balance(wallet) < await client._chain.gas_cost(60_000), "gas money went back too"


async def test_a_failed_command_ends_the_job_with_its_code_and_its_log(stage: Stage) -> None:
    async with stage.providers() as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of("echo reason >&2; exit 7"))
        status = await ended(handle)
        assert (status.phase, status.exit_code) == ("failed", 7)
        assert b"reason" in b"".join([chunk async for chunk in handle.logs()])
        assert (await handle.bill()).locked == 0


async def test_files_secrets_and_variables_reach_the_job_and_no_journal(stage: Stage) -> None:
    (stage.folder / "src").mkdir()
    (stage.folder / "src" / "main.sh").write_text('cat data/x; echo "$PLAIN"; test ${#TOKEN} = 14 && echo ok')
    (stage.folder / "one.txt").write_text("mounted\n")
    spec = spec_of(
        "bash main.sh", workdir=stage.folder / "src", envs={"PLAIN": "seen"}, secrets={"TOKEN": "hunter2-secret"},
        file_mounts={"/job/work/data/x": stage.folder / "one.txt"},
    )  # fmt: skip
    async with stage.providers() as providers, stage.client(providers) as client:
        handle = await client.submit(spec)
        status = await ended(handle)
        log = b"".join([chunk async for chunk in handle.logs()])
        assert status.phase == "done", log
        assert log.split() == [b"mounted", b"seen", b"ok"]
    for path in stage.folder.rglob("*"):
        if path.is_file() and "provider" not in str(path):
            assert b"hunter2-secret" not in path.read_bytes(), path


CHECKPOINTED = """
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
echo "from $step"
while [ $step -lt 8 ]; do
  sleep 0.5; step=$((step + 1))
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
  echo "{\\"step\\": $step, \\"total\\": 8}" >> $MINGA_PROGRESS
done
echo $step > $MINGA_OUTPUT_DIR/result
"""


async def test_a_job_survives_the_death_of_its_provider_with_its_state(stage: Stage, monkeypatch) -> None:
    monkeypatch.setattr("minga.client.attempt.HEARTBEAT_S", 1.5)
    async with stage.providers(2) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(CHECKPOINTED, checkpoint=True))
        async for event in handle.events():
            if event.kind == "checkpoint" and event.data["attempt"] == 0:
                providers[0].vanish()
                break
        status = await ended(handle)
        log = b"".join([chunk async for chunk in handle.logs()])
        assert status.phase == "done", log
        assert status.attempts == 2
        assert b"from 0" in log
        assert log.count(b"from") == 2
        assert log.rsplit(b"from ", 1)[1][:1] != b"0"
        (artifact,) = handle.artifacts()
        assert artifact.file.read_bytes() == b"8\n"
        bill = await handle.bill()
        assert bill.conserved
        assert bill.locked == bill.leases[0].locked == 25_000_000, "the vanished provider's close window is still open"
        assert status.locked == 25_000_000


async def test_a_stop_lets_the_job_checkpoint_and_settles(stage: Stage) -> None:
    run = 'trap "echo saved > $MINGA_OUTPUT_DIR/x; exit 0" TERM; echo ready; while true; do sleep 0.1; done'
    async with stage.providers() as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(run))
        async for chunk in handle.logs(follow=True):
            if b"ready" in chunk:
                break
        handle.stop("enough")
        status = await ended(handle)
        assert (status.phase, status.reason) == ("stopped", "enough")
        assert [artifact.path for artifact in handle.artifacts()] == ["x"]
        bill = await handle.bill()
        assert bill.conserved
        assert bill.locked == 0


async def test_a_budget_is_never_exceeded(stage: Stage) -> None:
    async with stage.providers() as providers, stage.client(providers) as client:
        before = await balance(client, stage.tenant.address)
        handle = await client.submit(spec_of("trap 'exit 3' TERM; while true; do sleep 0.1; done", budget="6"))
        status = await ended(handle)
        assert status.phase == "exhausted", status
        bill = await handle.bill()
        assert bill.conserved
        assert bill.locked == 0
        assert 3_000_000 <= bill.paid + bill.fee <= 6_000_000
        assert await balance(client, stage.tenant.address) == before - bill.paid - bill.fee


async def test_a_detached_job_is_run_by_a_service_and_seen_from_anywhere(stage: Stage) -> None:
    import anyio

    async with stage.providers() as providers:
        async with stage.client(providers) as client:
            handle = await client.submit(spec_of("echo detached"), key="once", detach=True)
            again = await client.submit(spec_of("echo other"), key="once", detach=True)
            assert again.id == handle.id
            assert not handle.status().terminal
        done = anyio.Event()
        async with stage.client(providers) as service, stage.client(providers, key=None) as other:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.serve, done.is_set)
                seen = other.attach(handle.id[:10])
                status = await ended(seen)
                done.set()
            assert status.phase == "done"
            assert b"detached" in b"".join([chunk async for chunk in seen.logs()])
            assert [job.job for job in other.jobs()] == [handle.id]


async def test_a_vanished_providers_deposit_comes_back_after_its_window(stage: Stage, monkeypatch, tmp_path) -> None:
    """On a chain of its own, whose clock is moved past the close window."""
    import anyio

    from fixtures import LocalNetwork, SeededDice, SystemClock
    from minga.chain.local import start_local, stop_local

    monkeypatch.setattr("minga.client.attempt.HEARTBEAT_S", 1.0)
    folder = tmp_path / "chain"
    chain = await start_local(folder, SystemClock(), SeededDice(stage.name))
    await chain.faucet.aclose()
    try:
        alone = Stage(LocalNetwork(folder, chain.spec), stage.folder, stage.name, stage.tenant)
        alone.tenant = await alone.network.funded_key("tenant", tokens=10**9)
        async with alone.providers() as providers, alone.client(providers) as client:
            handle = await client.submit(spec_of("echo on; sleep 600", retry=Retry(wait_s=1)))
            async for _ in handle.logs(follow=True):
                break
            providers[0].vanish()
            status = await ended(handle)
            assert (status.phase, status.locked) == ("failed", 25_000_000), status
            assert status.reason.startswith(("board-unavailable", "no-match")), status
            assert not status.settled
            await client._chain.rpc.request("evm_increaseTime", 3700)
            await client._chain.rpc.request("evm_mine")
            with anyio.fail_after(30):
                await client.serve(lambda: handle.status().settled)
            bill = await handle.bill()
            assert bill.conserved
            assert (bill.locked, bill.paid) == (0, 0)
            assert await balance(client, alone.tenant.address) == 10**9
    finally:
        await stop_local(folder)
