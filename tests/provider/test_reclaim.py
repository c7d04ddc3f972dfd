"""The owner takes the machine back from a real job: notice, SIGTERM, SIGKILL, last checkpoint, honest close.

By every way in which it can happen, and with a provider that dies in the middle of it.
"""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest
from tenants import Market0, Running, Tenant, needs_sandbox, running
from test_restart import Stubborn, mortal

from fixtures import SystemClock, eventually
from minga.chain.contracts import Market
from minga.core.errors import Conflict
from minga.explorer.app import board_app
from minga.explorer.board import OfferBook
from minga.protocol.lease import Why
from minga.provider import owner
from minga.store.journal import Journal
from minga.transport.http import connect, serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SAVES = """
save() { echo told > $MINGA_CHECKPOINT_DIR/.last; mv $MINGA_CHECKPOINT_DIR/.last $MINGA_CHECKPOINT_DIR/last; exit 0; }
trap save TERM
echo ready; while :; do sleep 0.05; done
"""
STAYS = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
REASON = "reclaimed: a guest comes"


@pytest.fixture(params=["bubblewrap", "process"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver that can run here."""
    if request.param == "bubblewrap":
        needs_sandbox()
    return str(request.param)


async def wish(home: Path, reason: str = "a guest comes", revoke: bool = False) -> None:
    """What `minga reclaim` writes, from another connection to the provider's journal."""

    def write() -> None:
        journal = Journal(home / "journal.sqlite")
        try:
            assert owner.is_working(journal)
            owner.take_back(journal, reason, revoke, int(time.time()))
        finally:
            journal.close()

    await anyio.to_thread.run_sync(write)


async def end_wish(home: Path) -> None:
    """What `minga reclaim --end` writes."""

    def write() -> None:
        journal = Journal(home / "journal.sqlite")
        try:
            assert owner.offer_again(journal, int(time.time()))
        finally:
            journal.close()

    await anyio.to_thread.run_sync(write)


async def offers_of(provider: Running) -> list[dict[str, object]]:
    """What it offers now."""
    async with connect(provider.url) as http:
        return list((await http.get("/v1/offers")).json()["offers"])


async def test_a_job_saves_itself_in_its_notice_and_is_paid_to_the_sigterm(market: Market0, folder: Path, driver: str):
    home = folder / "home"
    config = market.config(home, driver=driver, notice_s=30)
    async with running(config) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start(SAVES, checkpoint=True)
        assert tenant.bundle.terms.notice_s == 30
        await tenant.until("meter", working_s=1)
        await wish(home)
        seen = await tenant.until("phase", phase="exited")
        kinds = [event["kind"] for event in seen]
        (notice,) = [event["data"] for event in seen if event["kind"] == "notice"]
        assert notice == {"seconds": 30, "reason": REASON}
        assert kinds.index("notice") < kinds.index("checkpoint") < kinds.index("artifacts")
        assert seen[-1]["data"]["reason"] == REASON
        worked = (await tenant.status())["working_s"]
        await tenant.pay_for(worked)
        await tenant.ask("POST", "/close")
        record = await tenant.closed()
        assert record.closed is not None
        assert (record.settled, record.closed.why) == (1000 * worked, Why.SHUTTING_DOWN)
        assert await offers_of(provider) == []
        assert ("reclaimed", "a guest comes") in [(kind, facts.get("reason")) for kind, facts in provider.told]


async def test_a_job_that_does_not_go_is_killed_after_its_notice_and_pays_for_none_of_it(
    market: Market0, folder: Path, driver: str
):
    home = folder / "home"
    config = market.config(home, driver=driver, notice_s=2, quantum=1)
    async with running(config) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start(STAYS)
        await tenant.until("meter", working_s=1)
        before = time.monotonic()
        await wish(home)
        seen = await tenant.until("exit")
        assert time.monotonic() - before >= 2
        told = {event["kind"]: event for event in seen}
        assert told["exit"]["at"] - told["notice"]["at"] >= 1
        assert told["exit"]["data"]["exit_code"] == 137
        # At most the second that was under way when the wish was read is added to what was metered.
        assert told["exit"]["data"]["working_s"] <= told["meter"]["data"]["working_s"] + 1


async def test_interruptible_jobs_are_killed_at_once(market: Market0, folder: Path):
    home = folder / "home"
    async with running(market.config(home, notice_s=0)) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start(STAYS)
        await tenant.until("meter", working_s=1)
        await wish(home)
        seen = await tenant.until("exit")
        assert seen[-1]["data"]["exit_code"] == 137
        assert [event["data"]["seconds"] for event in seen if event["kind"] == "notice"] == [0]


async def test_a_lease_on_an_offer_of_before_is_closed_at_once_with_the_reason(market: Market0, folder: Path):
    """Nobody can take a signed offer out of the world: who opens on it is told, and gets all of the deposit back."""
    home = folder / "home"
    async with running(market.config(home)) as provider, Tenant(market, provider.url) as early:
        await early.open()
        async with Tenant(market, provider.url) as late:
            held = await late.offers()
            await wish(home)
            await eventually(lambda: any(kind == "reclaimed" for kind, _ in provider.told))
            assert await offers_of(provider) == []
            await late.open(held=held)
            await late.login()
            with pytest.raises(Conflict, match="reclaimed: a guest comes"):
                await late.send("echo never")
            for tenant in (early, late):
                record = await until_closed(tenant)
                assert record.closed is not None
                assert (record.closed.paid, record.closed.refund) == (0, tenant.deposit)
                assert record.closed.why == Why.SHUTTING_DOWN


async def until_closed(tenant: Tenant):
    """The lease's record once it is closed on chain."""
    for _ in range(200):
        record = await tenant.record()
        if record.closed is not None:
            return record
        await anyio.sleep(0.1)
    raise AssertionError("it was not closed within 20 s")


async def test_when_the_tenant_is_gone_the_lease_is_closed_with_its_best_voucher(market: Market0, folder: Path):
    home = folder / "home"
    async with running(market.config(home)) as provider:
        async with Tenant(market, provider.url) as tenant:
            await tenant.start(SAVES)
            await tenant.until("meter", working_s=1)
        await wish(home)
        record = await until_closed(tenant)
        assert record.closed is not None
        assert (record.settled, record.closed.why) == (1000, Why.SHUTTING_DOWN)


async def test_the_machine_is_offered_again_when_the_owner_says_so(market: Market0, folder: Path):
    home = folder / "home"
    async with running(market.config(home)) as provider:
        await wish(home)
        await eventually(lambda: any(kind == "reclaimed" for kind, _ in provider.told))
        await end_wish(home)
        await eventually(lambda: any(kind == "offering" for kind, _ in provider.told))
        await eventually(lambda: [kind for kind, _ in provider.told].count("offer") == 2)
        async with Tenant(market, provider.url) as tenant:
            await tenant.start("echo back")
            await tenant.until("artifacts")


async def test_a_reclaim_outlives_a_crash_and_ends_with_an_orderly_end(market: Market0, folder: Path):
    home = folder / "home"
    journal = Journal(home / "journal.sqlite")
    owner.take_back(journal, "a guest comes", False, 1_000)
    async with running(market.config(home)) as provider:
        assert [kind for kind, _ in provider.told if kind in ("reclaimed", "offer", "ready")] == ["reclaimed", "ready"]
        assert await offers_of(provider) == []
    assert not owner.read_wish(journal).taken_back
    journal.close()
    async with running(market.config(home)) as provider:
        assert len(await offers_of(provider)) == 1


async def test_revoked_offers_cannot_be_opened_any_more(market: Market0, folder: Path):
    home = folder / "home"
    async with running(market.config(home)) as provider, Tenant(market, provider.url) as tenant:
        held = await tenant.offers()
        await wish(home, revoke=True)
        await eventually(lambda: any(kind == "revoked" for kind, _ in provider.told))
        with pytest.raises(Exception, match="cancelled"):
            await tenant.open(held=held)
        epoch = Market(market.chain.spec.deployment.market).epoch_of(market.operator.address)
        assert await market.chain.read(epoch) == 1
    async with running(market.config(home)):  # a restart does not revoke again
        assert await market.chain.read(epoch) == 1


async def test_boards_are_told_that_nothing_is_for_sale(market: Market0, folder: Path):
    """By a newer offer that expires in a moment: boards need no word of withdrawal."""
    home, book = folder / "home", OfferBook(market.network.spec.domain)
    async with serve(board_app(book, SystemClock()), "127.0.0.1", 0) as board:
        async with running(market.config(home, boards=(board.url,))) as provider:
            await eventually(lambda: len(book))

            def shown() -> int:
                book.expire(SystemClock().now())
                return len(book)

            await wish(home)
            await eventually(lambda: not shown(), 10)
            await end_wish(home)
            await eventually(lambda: [kind for kind, _ in provider.told].count("posted") == 2)
            assert shown() == 1
        await eventually(lambda: not shown(), 10)


async def test_two_ctrl_c_leave_at_once_and_the_next_start_settles_what_was_left(market: Market0, folder: Path):
    home = folder / "home"
    config = market.config(home, notice_s=600)
    async with Tenant(market, "http://127.0.0.1:1") as tenant:
        async with running(config) as provider:
            tenant.http = connect(provider.url)
            await tenant.start(STAYS)
            await tenant.until("meter", working_s=1)
            provider.stop.set()
            await eventually(lambda: any(facts.get("phase") == "stopping" for _, facts in provider.told))
            began = time.monotonic()
            provider.at_once.set()
        assert time.monotonic() - began < 10
        async with running(config):
            record = await until_closed(tenant)
            assert record.closed is not None
            assert (record.settled, record.closed.why) == (1000, Why.SHUTTING_DOWN)


@pytest.mark.parametrize("point", ["provider.journal.Reclaimed", "provider.stop.sent", "provider.exit.seen"])
async def test_a_provider_that_dies_in_the_notice_goes_on_with_it(market: Market0, folder: Path, monkeypatch, point):
    home = folder / "home"
    async with (
        mortal(market, folder, monkeypatch, {point}, notice_s=20) as provider,
        Stubborn(market, f"http://127.0.0.1:{provider.config.port}") as tenant,
    ):
        await tenant.insist(tenant.open)
        await tenant.insist(lambda: tenant.send(SAVES, checkpoint=True))
        await tenant.insist(lambda: tenant.ask("POST", "/start"))
        await eventually(lambda: (home / "leases" / tenant.channel[2:] / "log").exists(), 20)
        await wish(home)
        status = await tenant.drive({}, "")
        assert provider.deaths == [point]
        assert status["reason"] == REASON
        record = await tenant.record()
        assert record.closed is not None
        assert record.closed.why == Why.SHUTTING_DOWN
        assert [event["kind"] for event in tenant.told.values()].count("notice") == 1
        assert (await tenant.insist(lambda: tenant.http.get("/v1/offers"))).json()["offers"] == []
