"""Twenty jobs at once on five providers, one of which is killed every ten seconds: all are done, none pays twice.

The providers are processes, killed by SIGKILL in turns and started again by their owners three seconds later. A job
whose provider is back within the heartbeat window goes on there; where it is not, the job goes on elsewhere.
"""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from machines import Machine, leases_on_chain, machines, purses
from markets import Stage, ended, spec_of

from minga.client.folder import JobFolder
from minga.client.jobfile import JobSpec
from minga.protocol.pricing import cost_up

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(280)]

JOBS, PROVIDERS, STEPS = 20, 5, 45
EVERY_S, DOWN_S = 10.0, 3.0
DEAREST = 36_000_000
"""Token units an hour."""

CENT_A_SECOND = ("--price", "36", "--quantum", "5s", "--units", "5", "--cpus", "0.25")

RUN = f"""
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
while [ $step -lt {STEPS} ]; do
  sleep 1; step=$((step + 1)); echo "step $step"
  echo "{{\\"step\\": $step, \\"total\\": {STEPS}}}" >> $MINGA_PROGRESS
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
done
echo $step > $MINGA_OUTPUT_DIR/result
"""


def job(number: int) -> JobSpec:
    """One of the twenty."""
    return spec_of(RUN, name=f"storm-{number}", budget="8", checkpoint=True)


async def kill_in_turns(crowd: list[Machine], killed: Counter[int]) -> None:
    """One dies every ten seconds, and is started again before the next one does."""
    turn = 0
    while True:
        await anyio.sleep(EVERY_S - DOWN_S)  # the storm's own beat, not a wait for something to happen
        victim = crowd[turn % len(crowd)]
        await victim.kill()
        killed[victim.number] += 1
        await anyio.sleep(DOWN_S)
        await victim.start()
        turn += 1


async def test_twenty_jobs_outlive_a_provider_killed_every_ten_seconds(stage: Stage) -> None:
    async with machines(stage, PROVIDERS) as crowd:
        async with anyio.create_task_group() as starting:
            for machine in crowd:
                machine.words = (*machine.words, *CENT_A_SECOND)
                starting.start_soon(machine.start)
        before = await purses(stage, crowd)
        killed: Counter[int] = Counter()
        async with stage.client(crowd) as client:
            handles = [await client.submit(job(number)) for number in range(JOBS)]
            async with anyio.create_task_group() as storm:
                storm.start_soon(kill_in_turns, crowd, killed)
                statuses = [await ended(handle, 200) for handle in handles]
                storm.cancel_scope.cancel()
            assert {(status.phase, status.reason) for status in statuses} == {("done", "done")}, statuses
            for handle in handles:
                assert [artifact.file.read_text() for artifact in handle.artifacts()] == [f"{STEPS}\n"]
            assert sum(killed.values()) >= 3, killed
            for machine in crowd:
                if machine.is_dead():
                    await machine.start()
                await machine.stop()
            await check_money(stage, client, handles, statuses, crowd, before)


async def check_money(stage, client, handles, statuses, crowd, before) -> None:
    """Each lease ended once, each provider got what the bills say, and no job paid for more seconds than it lived."""
    bills = [await handle.bill() for handle in handles]
    assert all(bill.conserved and bill.locked == 0 for bill in bills), bills
    wallets = [JobFolder(client.home.job(handle.id)).wallet().address for handle in handles]
    after = await purses(stage, crowd)
    left = 0
    for wallet in wallets:
        left += (await purses(stage, [], wallet)).tenant - after.tenant
    assert left == 0, "money stayed in job wallets"
    paid, fees = sum(bill.paid for bill in bills), sum(bill.fee for bill in bills)
    assert after.total == before.total
    assert after.tenant == before.tenant - paid - fees
    income: Counter[str] = Counter()
    for bill in bills:
        for lease in bill.leases:
            income[lease.provider] += lease.paid
    assert {address: held - before.providers[address] for address, held in after.providers.items()} == {
        address: income[address] for address in after.providers
    }
    on_chain = await leases_on_chain(stage)
    ours = [lease.lease for bill in bills for lease in bill.leases]
    assert len(set(ours)) == len(ours)
    assert all(on_chain[name].closed is not None for name in ours)
    for bill, status in zip(bills, statuses, strict=True):
        lived = status.ended_at - status.submitted_at
        assert bill.paid + bill.fee <= cost_up(DEAREST, 1, lived), (bill, lived)
