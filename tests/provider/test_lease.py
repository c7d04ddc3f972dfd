"""A whole lease over real HTTP, with a real chain and real processes: from an offer to exact money."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from tenants import PRICE, FastClock, Market0, Tenant, needs_sandbox, running, tar

from fixtures import eventually
from minga.chain.contracts import Market
from minga.core.crypto import blake3_hex
from minga.core.errors import Conflict, ContractError, StaleVoucher
from minga.protocol.lease import How, Phase, Why
from minga.transport.http import connect

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(40)]


@pytest.mark.parametrize("driver", ["bubblewrap", "process"])
async def test_a_lease_from_offer_to_exact_money(market: Market0, folder: Path, driver: str):
    if driver == "bubblewrap":
        needs_sandbox()
    async with (
        running(market.config(folder / "home", driver=driver)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.open(deposit=50_000)
        await tenant.login()
        run = "cat hello.txt; sleep 1.2; echo result > $MINGA_OUTPUT_DIR/result.txt; echo other > kept.log; echo no > x"
        await tenant.send(run, {"/job/work": tar({"hello.txt": b"hello from the workdir\n"})}, outputs=["*.log"])
        await tenant.ask("POST", "/start")
        seen = await tenant.until("artifacts")
        kinds = [event["kind"] for event in seen]
        assert [event["number"] for event in seen] == list(range(1, len(seen) + 1))
        assert "meter" in kinds
        end = next(event["data"] for event in seen if event["kind"] == "exit")
        assert (end["exit_code"], end["reason"]) == (0, "done")
        assert await tenant.ask("GET", "/logs") == b"hello from the workdir\n"
        files = (await tenant.ask("GET", "/artifacts"))["files"]
        assert {item["path"]: item["blake3"] for item in files} == {
            "kept.log": blake3_hex(b"other\n"),
            "result.txt": blake3_hex(b"result\n"),
        }
        result = blake3_hex(b"result\n")
        assert await tenant.ask("GET", f"/blobs/{result}") == b"result\n"
        await tenant.ask("POST", "/close")
        record = await tenant.closed()
        assert record.closed is not None
        owed = PRICE * end["working_s"] // 3600
        assert record.phase == Phase.CLOSED
        assert end["working_s"] >= 1
        assert (record.closed.settled, record.closed.why) == (owed, Why.DONE)
        assert record.closed.paid + record.closed.fee == owed
        assert record.closed.refund == 50_000 - owed
        status = await tenant.status()
        assert (status["phase"], status["paid"], status["exit_code"]) == ("closed", str(owed), 0)
        assert status["close_tx"].startswith("0x")


async def test_an_unpaid_job_stands_still_then_goes_on_when_paid(market: Market0, folder: Path):
    async with (
        running(market.config(folder / "home"), clock=FastClock()) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.start("while :; do echo tick; sleep 0.02; done")
        seen = await tenant.until("phase", pay=False, phase="paused")
        assert seen[-2]["data"] == {"working_s": 2}
        assert seen[-1]["data"]["reason"] == "waiting for a voucher above 0"
        still = (await tenant.status())["log_bytes"]
        assert await tenant.pay(2000) == "2000"
        await tenant.until("meter", working_s=4)
        assert (await tenant.status())["log_bytes"] > still
        await tenant.ask("POST", "/stop", json={"reason": "seen enough", "grace_s": 0})
        seen = await tenant.until("artifacts")
        end = next(event["data"] for event in seen if event["kind"] == "exit")
        assert end["reason"] == "seen enough"
        await tenant.ask("POST", "/close")
        record = await tenant.closed()
        assert record.settled == 1000 * end["working_s"]
        assert record.closed is not None
        assert record.closed.why == Why.STOPPED


async def test_a_job_that_nobody_pays_is_ended_with_a_reason_and_closed_with_the_best_voucher(
    market: Market0, folder: Path
):
    async with (
        running(market.config(folder / "home"), clock=FastClock()) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.start("trap 'echo saved > $MINGA_OUTPUT_DIR/state; exit 0' TERM; while :; do sleep 0.02; done")
        await tenant.until("meter", pay=False, working_s=1)
        await tenant.pay(1000)
        seen = await tenant.until("phase", pay=False, phase="stopping")
        assert seen[-1]["data"]["reason"] == "no voucher"
        record = await tenant.closed()
        assert record.closed is not None
        assert (record.settled, record.closed.why) == (1000, Why.UNPAID)
        status = await tenant.status()
        assert (status["reason"], status["working_s"]) == ("no voucher", 3)
        assert [item["path"] for item in (await tenant.ask("GET", "/artifacts"))["files"]] == ["state"]


async def test_terms_may_ask_for_voucher_one_before_the_start(market: Market0, folder: Path):
    async with (
        running(market.config(folder / "home", prepaid_quanta=1)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.open()
        await tenant.login()
        await tenant.send("true")
        with pytest.raises(Conflict, match="ask for 2000"):
            await tenant.ask("POST", "/start")
        await tenant.pay(2000)
        assert (await tenant.ask("POST", "/start"))["phase"] in ("starting", "running", "collecting", "exited")
        await tenant.until("artifacts")


async def test_a_top_up_is_seen_when_a_larger_voucher_comes(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open(deposit=3000)
        await tenant.login()
        with pytest.raises(StaleVoucher, match="deposit is 3000"):
            await tenant.pay(3001)
        lease = (await tenant.record()).lease
        call = Market(market.chain.spec.deployment.market).top_up(lease, 500)
        await market.chain.send("top-up", call, market.tenant)
        assert await tenant.pay(3001) == "3001"
        with pytest.raises(StaleVoucher, match="deposit is 3500"):
            await tenant.pay(3501)


async def test_when_the_tenant_starts_a_close_on_chain_the_best_voucher_is_sent_in_time(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("sleep 60")
        await tenant.until("meter", pay=False, working_s=1)
        await tenant.pay(1000)
        call = Market(market.chain.spec.deployment.market).start_close((await tenant.record()).lease, Why.UNREACHABLE)
        await market.chain.send("start-close", call, market.tenant)
        record = await tenant.closed()
        assert record.closed is not None
        assert (record.settled, record.closed.how, record.closed.why) == (1000, How.CLOSE, Why.STOPPED)
        assert (await tenant.status())["reason"] == "the tenant is closing the lease"


async def test_the_lease_ends_by_chain_time_and_the_tenant_is_told(market: Market0, folder: Path):
    async with (
        running(market.config(folder / "home", seconds_min=1)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.open(seconds=4)
        await tenant.login()
        await tenant.send("sleep 60")
        await tenant.ask("POST", "/start")
        seen = await tenant.until("phase", phase="stopping")
        assert seen[-1]["data"]["reason"] == "the lease ends"
        record = await tenant.closed()
        assert record.closed is not None
        assert record.closed.why == Why.END_OF_LEASE


async def test_two_leases_run_at_once_and_the_chain_sells_no_third(market: Market0, folder: Path):
    async with (
        running(market.config(folder / "home")) as provider,
        Tenant(market, provider.url) as one,
        Tenant(market, provider.url) as two,
        Tenant(market, provider.url) as three,
    ):
        for tenant in (one, two):
            await tenant.start("echo mine > $MINGA_OUTPUT_DIR/x; sleep 1.2")
        with pytest.raises(ContractError, match="fewer free units"):
            await three.open()
        for tenant in (one, two):
            await tenant.until("artifacts")
            assert (await tenant.http.get(one.path if tenant is two else two.path)).status_code == 401


async def test_a_provider_that_is_shut_down_stops_its_jobs_and_closes_with_a_reason(market: Market0, folder: Path):
    async with Tenant(market, "http://127.0.0.1:1") as tenant:
        async with running(market.config(folder / "home")) as provider:
            tenant.http = connect(provider.url)
            await tenant.start("sleep 60")
            await tenant.until("meter", working_s=1)
        assert provider.told[-1][1]["phase"] == "closed"
        assert provider.told[-1][1]["reason"] == "reclaimed: the provider is shutting down"
        record = await tenant.record()
        assert record.closed is not None
        assert (record.settled, record.closed.why) == (1000, Why.SHUTTING_DOWN)


async def test_a_lease_that_is_not_used_is_closed_and_its_unit_is_free_again(market: Market0, folder: Path):
    async with (
        running(market.config(folder / "home"), clock=FastClock(1000)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.open()
        await eventually(lambda: any(facts.get("phase") == "closed" for _, facts in provider.told))
        record = await tenant.record()
        assert record.closed is not None
        assert (record.settled, record.closed.refund) == (0, 100_000)


async def test_a_tenant_who_pays_and_never_asks_for_the_close_is_closed_all_the_same(market: Market0, folder: Path):
    async with (
        running(market.config(folder / "home"), clock=FastClock()) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.start("true")
        record = await tenant.closed()
        assert record.closed is not None
        assert (record.closed.how, record.closed.why) == (How.CLOSE, Why.DONE)


async def test_files_are_kept_for_the_retention_time_and_then_forgotten(market: Market0, folder: Path):
    home = folder / "home"
    async with running(market.config(home, retention_s=0)) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("echo x > $MINGA_OUTPUT_DIR/x")
        await tenant.until("artifacts")
        kept = home / "leases" / tenant.channel[2:]
        assert kept.is_dir()
        await tenant.ask("POST", "/close")
        await eventually(lambda: not kept.exists())
    async with running(market.config(home)) as provider:
        await eventually(lambda: provider.told)
        assert not kept.exists()


async def test_a_job_that_talks_all_the_time_does_not_hide_that_its_provider_lives(
    market: Market0, folder: Path, monkeypatch
):
    """Each line of the log wakes the stream of events, and is no event: the tenant must hear something all the same."""
    monkeypatch.setattr("minga.provider.lease.SILENCE_SECONDS", 0.3)
    config = market.config(folder / "home", quantum=60)
    async with running(config) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("while :; do echo line; sleep 0.02; done")
        comments = 0
        async with tenant.http.stream("GET", f"{tenant.path}/events") as answer:
            with anyio.fail_after(15):
                async for line in answer.aiter_lines():
                    comments += line == ":"
                    if comments == 3:
                        break
        await tenant.ask("POST", "/stop", json={"grace_s": 0})
