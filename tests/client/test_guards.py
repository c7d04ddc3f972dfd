"""Jobs that guard themselves, at real providers on a real chain: checks, probes, idleness, reclaims, one bill."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from markets import Stage, ended, spec_of

from minga.client.jobfile import parse_job
from minga.client.jobspec import Accept
from minga.core.spec import Speed
from minga.protocol.job_times import STATES

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

STEPS = """
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
echo "from $step"
while [ $step -lt 6 ]; do
  sleep 0.6; step=$((step + 1))
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
  echo "{\\"step\\": $step, \\"total\\": 6}" >> $MINGA_PROGRESS
done
sleep 0.5
"""


def told(events: list) -> str:
    return "\n".join(f"{event.at} {event.kind} {event.data}" for event in events[-30:])


async def story(handle) -> list:
    return [event async for event in handle.events(follow=False)]


def whole(bill) -> None:
    """Every second of every lease has a state, and was paid or has a reason why not."""
    for lease in bill.leases:
        assert set(lease.seconds) <= set(STATES.values()) | {"unreachable", "away"}
        total, unpaid = sum(lease.seconds.values()), sum(lease.unpaid.values())
        assert total == unpaid + min(lease.working_s, total - unpaid)
        assert lease.acknowledged <= lease.best
        assert lease.paid + lease.fee <= lease.best or not lease.vouchers


async def test_a_check_that_accepts_is_paid_by_its_checkpoints(stage: Stage, tmp_path: Path) -> None:
    check = Accept("echo seen $(cat $MINGA_CHECKPOINT_DIR/step) >> seen.txt", tmp_path)
    async with stage.providers(quantum=4) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(STEPS.replace("-lt 6", "-lt 16"), checkpoint=True, accept=check))
        status = await ended(handle)
        assert status.phase == "done", await story(handle)
        assert (tmp_path / "seen.txt").read_text().startswith("seen ")
        (lease,) = (bill := await handle.bill()).leases
        assert lease.accepted_s is not None
        assert 0 < lease.best <= 1_000_000 * lease.accepted_s <= 1_000_000 * (sum(lease.seconds.values()) + 1)
        assert all(event.data["accepted"] for event in await story(handle) if event.kind == "check")
        whole(bill)


async def test_a_provider_whose_checkpoint_is_refused_is_left_and_the_last_good_one_restored(
    stage: Stage, tmp_path: Path
) -> None:
    """The first provider's machine writes rubbish from its third step on."""
    run = STEPS.replace("echo $step >", "if [ $MINGA_ATTEMPT = 0 ] && [ $step -ge 3 ]; then step=99; fi; echo $step >")
    check = Accept("test $(cat $MINGA_CHECKPOINT_DIR/step) -lt 10", tmp_path)
    async with stage.providers(2, quantum=4) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(run, checkpoint=True, accept=check))
        status = await ended(handle)
        assert (status.phase, status.attempts) == ("done", 2), told(await story(handle))
        log = b"".join([chunk async for chunk in handle.logs()])
        assert log.rsplit(b"from ", 1)[1][:1] in (b"1", b"2"), log
        bill = await handle.bill()
        assert bill.leases[0].left.startswith("bad-result")
        assert bill.leases[0].provider != bill.leases[1].provider
        whole(bill)


async def test_a_machine_that_is_not_what_was_sold_is_refused_at_no_cost(stage: Stage, monkeypatch) -> None:
    """The cheapest offer promises ten terabytes a second of memory bandwidth."""

    async def speed(config, world, machine, unit, gpus):
        return Speed(memory_mbps=10**7) if config.home.name == "provider-0" else None

    monkeypatch.setattr("minga.provider.main._speed", speed)
    async with stage.providers(2, prepaid_quanta=1) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of("echo here"))
        status = await ended(handle)
        assert (status.phase, status.attempts) == ("done", 2), told(await story(handle))
        bill = await handle.bill()
        assert bill.leases[0].left.startswith("under-spec")
        assert (bill.leases[0].vouchers, bill.leases[0].paid, bill.leases[0].fee) == (0, 0, 0)
        assert bill.leases[1].vouchers > 0
        whole(bill)
        gullible = await client.submit(spec_of("echo here", probe=False))
        assert (await ended(gullible)).attempts == 1


async def test_a_job_that_makes_no_progress_is_stopped(stage: Stage) -> None:
    run = 'echo working; trap "exit 3" TERM; while true; do sleep 0.1; done'
    async with stage.providers() as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(run, max_idle_s=3))
        status = await ended(handle)
        assert status.phase == "stopped", await story(handle)
        assert status.reason.startswith("idle: the job made no progress for")
        bill = await handle.bill()
        assert bill.locked == 0
        assert bill.paid + bill.fee <= 8 * 1_000_000
        whole(bill)


async def test_a_job_that_logs_is_not_idle(stage: Stage) -> None:
    async with stage.providers() as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of("for i in 1 2 3 4 5 6; do echo $i; sleep 1; done", max_idle_s=3))
        assert (await ended(handle)).phase == "done", await story(handle)


async def test_a_reclaimed_machine_moves_the_job_and_the_bill_says_so(stage: Stage) -> None:
    async with stage.providers(2, notice_s=20) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(STEPS, checkpoint=True))
        async for event in handle.events():
            if event.kind == "checkpoint" and event.data["attempt"] == 0:
                providers[0].stop.set()
                break
        status = await ended(handle)
        assert (status.phase, status.attempts) == ("done", 2), told(await story(handle))
        bill = await handle.bill()
        assert bill.leases[0].left.startswith("reclaimed"), bill.leases[0]
        assert bill.leases[0].vouchers > 0
        assert bill.locked == 0, "it closed, so nothing is locked"
        warnings = [event.data for event in await story(handle) if event.kind == "warning"]
        assert any(item["code"] == "notice" and "reclaimed" in item["fact"] for item in warnings)
        whole(bill)


async def test_two_terminals_that_submit_one_key_at_once_order_one_job(stage: Stage) -> None:
    async with stage.providers() as providers, stage.client(providers) as one, stage.client(providers) as two:
        before = await one._chain.read(_balance(one, stage))
        handles = []

        async def submit(client, number: int) -> None:
            spec = spec_of(f'echo "$WHO {number}"', secrets={"WHO": f"terminal-{number}"})
            handles.append(await client.submit(spec, key="nightly"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit, one, 1)
            tasks.start_soon(submit, two, 2)
        assert handles[0].id == handles[1].id
        status = await ended(handles[0])
        await ended(handles[1])
        assert (status.phase, status.attempts) == ("done", 1)
        assert len(one.jobs()) == 1
        log = b"".join([chunk async for chunk in handles[0].logs()]).split()
        assert log in ([b"terminal-1", b"1"], [b"terminal-2", b"2"]), "the secrets are those of the order"
        bill = await handles[0].bill()
        assert await one._chain.read(_balance(one, stage)) == before - bill.paid - bill.fee
        again = await two.submit(spec_of("echo once more"), key="nightly")
        assert again.id == handles[0].id


def _balance(client, stage: Stage):
    from minga.chain.contracts import Token

    return Token(client.network.chain.deployment.token).balance_of(stage.tenant.address)


async def test_a_job_never_costs_a_unit_more_than_its_maximum(stage: Stage) -> None:
    """Its wallet holds nothing else: `--max 5` cannot cost 5.000001."""
    async with stage.providers() as providers, stage.client(providers) as client:
        before = await client._chain.read(_balance(client, stage))
        handle = await client.submit(spec_of("trap '' TERM; while true; do sleep 0.1; done", budget="5", grace_s=1))
        status = await ended(handle)
        assert status.phase == "exhausted"
        bill = await handle.bill()
        assert bill.funded == 5_000_000
        assert bill.paid + bill.fee <= 5_000_000
        assert await client._chain.read(_balance(client, stage)) >= before - 5_000_000
        whole(bill)


async def test_a_job_file_says_all_of_it(stage: Stage, tmp_path: Path) -> None:
    text = """
run: |
  echo 1 > $MINGA_CHECKPOINT_DIR/.s; mv $MINGA_CHECKPOINT_DIR/.s $MINGA_CHECKPOINT_DIR/s; sleep 1
checkpoint: {every: 1s}
accept: {run: "test -s $MINGA_CHECKPOINT_DIR/s && touch judged", every: 2s, timeout: 30s}
budget: 100
max_idle: 5m
duration: 10s
setup_wait: 5m
close_window: 2h
"""
    spec = parse_job(text, tmp_path).spec
    async with stage.providers(quantum=2) as providers, stage.client(providers) as client:
        handle = await client.submit(spec)
        assert (await ended(handle)).phase == "done", await story(handle)
        assert (tmp_path / "judged").exists()
