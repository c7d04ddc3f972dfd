"""A provider that dies where a lease goes wrong comes back and ends it right; tests/scenarios walks every point.

The death is an exception that nothing may catch, and after it the journal takes no more writes: as after a kill -9,
only what was on disk is there. Jobs live on in their own processes. The same provider starts again in the same home.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from tenants import FastClock, Market0, Tenant, running

from fixtures import SeededDice, eventually
from minga.chain.contracts import Market
from minga.core import faults
from minga.core.errors import MingaError
from minga.protocol.lease import Why
from minga.provider.events import EVENTS
from minga.provider.main import ProviderConfig, run_provider
from minga.provider.points import POINTS
from minga.store.journal import Journal
from minga.transport.http import bind

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Killed(BaseException):
    """The provider is dead."""


class Mortal:
    """A provider that dies once at each of `points`, and is started again each time."""

    def __init__(self, config: ProviderConfig, points: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = config
        self.left = set(points)
        self.deaths: list[str] = []
        self.dead = False
        self.stop = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._scope = anyio.CancelScope()
        append = Journal.append_all

        def mortal_append(journal: Journal, *args: Any) -> int:
            if self.dead:
                raise Killed
            return append(journal, *args)

        monkeypatch.setattr(Journal, "append_all", mortal_append)

    def handler(self, point: str) -> None:
        """Die here, if it is time. (The tenant's own chain reaches points, too.)"""
        if not point.startswith("provider."):
            return
        if self.dead:
            raise Killed(point)
        if point in self.left:
            self.left.discard(point)
            self.deaths.append(point)
            self.dead = True
            self._loop.call_soon_threadsafe(self._scope.cancel)
            raise Killed(point)

    async def live(self) -> None:
        """Start again and again, until stopped."""
        while not self.stop.is_set():
            self.dead = False
            dice = SeededDice(f"life {len(self.deaths)}")
            with anyio.CancelScope() as self._scope:
                try:
                    await run_provider(self.config, FastClock(4), dice, self.stop, lambda kind, facts: None)
                except Killed:
                    pass
                except BaseExceptionGroup as group:
                    if group.split(Killed)[1] is not None:
                        raise


@asynccontextmanager
async def mortal(
    market: Market0, folder: Path, monkeypatch: pytest.MonkeyPatch, points: set[str], **changes: Any
) -> AsyncIterator[Mortal]:
    """A mortal provider on a port that stays."""
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
    provider = Mortal(market.config(folder / "home", port=port, **changes), points, monkeypatch)
    faults.install(provider.handler)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(provider.live)
            yield provider
            provider.left.clear()
            provider.stop.set()
    finally:
        faults.remove(provider.handler)


class Stubborn(Tenant):
    """A tenant who tries again whenever the provider is gone, and forgets nothing it was told."""

    def __init__(self, market: Market0, url: str) -> None:
        super().__init__(market, url)
        # A dead process hangs up; a dead provider in a process that lives on may leave a connection open.
        self.http.timeout = httpx.Timeout(2)
        self.turns = 0
        self.acknowledged = 0
        self.told: dict[int, dict[str, Any]] = {}

    async def insist(self, act: Callable[[], Any]) -> Any:
        """Do `act` until the provider answers it; refusals that a crash explains are tried again too."""
        with anyio.fail_after(30):
            while True:
                try:
                    return await act()
                except (httpx.HTTPError, MingaError, IndexError) as error:
                    if isinstance(error, MingaError) and error.code == "unauthorized":
                        await self.try_login()
                    await anyio.sleep(0.02)

    async def try_login(self) -> None:
        """Log in with a fresh nonce, if the provider is there."""
        self.turns += 1
        try:
            await self.login(turn=self.turns)
        except (httpx.HTTPError, MingaError):
            pass

    async def settle(self, amount: int) -> None:
        """Pay until it is acknowledged."""
        held = int(await self.insist(lambda: self.pay(amount)))
        self.acknowledged = max(self.acknowledged, held)

    async def listen(self) -> None:
        """Read the events that are there; what was told once must be told the same for ever."""
        with anyio.move_on_after(0.05):
            async for event in self.events():
                assert self.told.setdefault(event["number"], event) == event

    async def drive(self, inputs: dict[str, bytes], run: str, pays: bool = True) -> dict[str, Any]:
        """Bring the lease to its end, whatever happens on the way."""
        hungry = pays
        while True:
            status = await self.insist(self.status)
            try:
                await self.listen()
            except (httpx.HTTPError, AssertionError) as error:
                if isinstance(error, AssertionError) and "401" not in str(error) and self.told:
                    raise
            phase, owed = status["phase"], 1000 * status["working_s"]
            if phase == "opened":
                await self.insist(lambda: self.send(run, inputs, checkpoint=True))
            elif phase == "ready":
                await self.insist(lambda: self.ask("POST", "/start"))
            elif phase in ("running", "paused", "exited") and owed > int(status["paid"]) and pays:
                if phase == "paused" or not hungry or "exit_code" in status:
                    hungry = False  # from the first pause on, everything is paid at once
                    await self.settle(owed)
            elif phase in ("exited", "failed"):
                await self.insist(lambda: self.ask("POST", "/close"))
            elif phase == "closed":
                return dict(status)


journaled = {f"provider.journal.{name}" for name in EVENTS}
AT_THE_END = {"provider.forget.removed", "provider.journal.Forgotten"}
UNPAID = {"provider.journal.Overdue", "provider.stop.sent"}
FAILING = {"provider.journal.StartFailed"}
BY_CHAIN = {"provider.journal.ChainClosing", "provider.journal.DepositSeen"}


async def test_an_unpaid_job_is_ended_whenever_the_provider_dies(market: Market0, folder: Path, monkeypatch):
    points = UNPAID | {"provider.exit.seen", "provider.collect.copied", "provider.close.sent"}
    async with (
        mortal(market, folder, monkeypatch, points) as provider,
        Stubborn(market, f"http://127.0.0.1:{provider.config.port}") as tenant,
    ):
        await tenant.insist(tenant.open)
        status = await tenant.drive({}, "trap 'exit 0' TERM; while :; do sleep 0.05; done", pays=False)
        assert provider.left == set()
        assert (status["reason"], status["paid"]) == ("no voucher", "0")
        record = await tenant.record()
        assert record.closed is not None
        assert record.closed.why == Why.UNPAID


async def test_a_job_that_was_paid_and_not_yet_woken_is_woken_by_the_next_life(
    market: Market0, folder: Path, monkeypatch
):
    """The voucher is on disk, the sandbox is frozen, the provider dies: nobody pays for a job that stands."""
    async with (
        mortal(market, folder, monkeypatch, {"provider.journal.VoucherStored"}, quantum=1) as provider,
        Stubborn(market, f"http://127.0.0.1:{provider.config.port}") as tenant,
    ):
        await tenant.insist(tenant.open)
        status = await tenant.drive({}, "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.25; done; echo woken")
        assert provider.left == set()
        assert status["reason"] == "done"
        assert "paused" in [event["data"].get("phase") for event in tenant.told.values()]


async def test_a_start_that_fails_and_files_that_are_forgotten(market: Market0, folder: Path, monkeypatch):
    points = FAILING | AT_THE_END
    async with (
        mortal(market, folder, monkeypatch, points, retention_s=0) as provider,
        Stubborn(market, f"http://127.0.0.1:{provider.config.port}") as tenant,
    ):
        await tenant.insist(tenant.open)
        with anyio.move_on_after(20):
            await tenant.drive({"/job/work": b"no tar" * 999}, "echo never")
        await eventually(lambda: not provider.left)
        assert (await tenant.record()).closed is not None
    assert not (folder / "home" / "leases" / tenant.channel[2:]).exists()


async def test_what_the_chain_and_the_tenant_say_survives_too(market: Market0, folder: Path, monkeypatch):
    points = BY_CHAIN | {"provider.journal.StopAsked"}
    async with mortal(market, folder, monkeypatch, points) as provider:
        url = f"http://127.0.0.1:{provider.config.port}"
        async with Stubborn(market, url) as one, Stubborn(market, url) as two:
            book = Market(market.chain.spec.deployment.market)
            for tenant in (one, two):
                await tenant.insist(tenant.open)
                await tenant.insist(tenant.status)
                await tenant.insist(lambda tenant=tenant: tenant.send("sleep 60"))
                await tenant.insist(lambda tenant=tenant: tenant.ask("POST", "/start"))
            await market.chain.send("top-up", book.top_up((await one.record()).lease, 5), market.tenant)
            await two.insist(lambda: two.ask("POST", "/stop", json={"reason": "enough", "grace_s": 0}))
            await market.chain.send("start", book.start_close((await one.record()).lease, 0), market.tenant)
            reasons = [(await tenant.drive({}, "", pays=False))["reason"] for tenant in (one, two)]
            assert reasons == ["the tenant is closing the lease", "enough"]
            assert provider.left == set()


async def test_registration_follows_url_and_agent_key(market: Market0, folder: Path):
    registrations = []
    for changes in ({}, {}, {"url": "http://127.0.0.1:9"}, {"agent": market.operator}):
        config = market.config(folder / "home", **({"url": "http://127.0.0.1:8"} | changes))
        async with running(config) as provider:
            registrations.append([kind for kind, _ in provider.told].count("registered"))
    assert registrations == [1, 0, 1, 1]


def test_every_fault_point_is_declared_and_there_are_enough():
    assert set(POINTS) <= set(faults.POINTS)
    assert journaled <= set(POINTS)
    assert len(POINTS) >= 25
