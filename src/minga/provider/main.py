"""A provider from its configuration to its end: secrets, runtime, chain, offers, API.

Knows: how the parts are put together, and in which order. Does not know: the command line, real clocks or dice. Rule:
nothing is offered before everything that can fail has succeeded: port bound, sandbox tried, clock compared, key
registered.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio

from minga.chain.chain import ChainSpec
from minga.chain.node import open_chain
from minga.core.crypto import PrivateKey, keccak
from minga.core.effects import Clock, Dice
from minga.core.errors import InvalidInput, LimitNotEnforceable, MingaError
from minga.core.seal import transport_public
from minga.core.spec import Terms, UnitSize
from minga.provider.bidder import Bidder
from minga.provider.bidding import Ask, OfferBook, check_fits, split
from minga.provider.desk import Desk
from minga.provider.lease import Announce, World
from minga.provider.loop import Provider
from minga.provider.machine import describe_machine, kept_secret
from minga.provider.metering import deposit_least
from minga.provider.serving import build_app
from minga.runtimes import probe
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.process import ProcessRuntime
from minga.runtimes.runtime import Runtime
from minga.store.journal import Journal
from minga.transport.http import is_loopback, serve
from minga.transport.tls import TlsIdentity, create_identity

DRAIN_SECONDS = 40.0


@dataclass(frozen=True)
class ProviderConfig:
    """What an owner decides. Prices are token units per unit-hour; times are seconds; `home` is this provider's alone.

    `operator` is the provider's address: it registers and needs a little gas; `agent` signs offers and may be the same
    key. `environments` maps names to folders. `egress` are hosts that jobs may reach (`("*",)`: any public one).
    """

    home: Path
    spec: ChainSpec
    operator: PrivateKey
    agent: PrivateKey
    price_per_hour: int
    host: str = "127.0.0.1"
    port: int = 0
    url: str | None = None
    units: int = 1
    unit: UnitSize | None = None
    quantum: int = 60
    boards: tuple[str, ...] = ()
    driver: Literal["bubblewrap", "process"] = "bubblewrap"
    environments: Mapping[str, Path] = field(default_factory=dict)
    egress: tuple[str, ...] = ()
    ports: int = 4
    prepaid_quanta: Literal[0, 1] = 0
    deposit_min: int | None = None
    seconds_min: int = 60
    seconds_max: int = 7 * 86400
    close_window: int = 3600
    offer_seconds: int = 600
    region: str = ""
    retention_s: int = 86400

    def check(self) -> None:
        """Raise InvalidInput for what cannot be, before anything is touched."""
        ranges = {
            "units": (self.units, 1, 10_000),
            "quantum": (self.quantum, 1, 86400),
            "seconds_min": (self.seconds_min, 1, self.seconds_max),
            "seconds_max": (self.seconds_max, 1, 2**32 - 1),
            "close_window": (self.close_window, 3600, 86400),
            "offer_seconds": (self.offer_seconds, 10, 30 * 86400),
            "price_per_hour": (self.price_per_hour, 0, 2**96 - 1),
            "ports": (self.ports, 0, 64),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise InvalidInput(f"{name} is {value}", f"use {low} … {high}")
        if not self.environments:
            raise InvalidInput("there is no environment for jobs", "name one, such as python=FOLDER")
        near = is_loopback(self.host) and (self.url is None or is_loopback(urlsplit(self.url).hostname or ""))
        if self.driver == "process" and not near:
            raise InvalidInput(
                "jobs that are plain processes are not offered to strangers", "listen on loopback, or use the sandbox"
            )


async def run_provider(
    config: ProviderConfig,
    clock: Clock,
    dice: Dice,
    stop: anyio.Event,
    announce: Announce,
    runtime: Runtime | None = None,
) -> None:
    """Sell this machine until `stop` is set; then stop jobs at a checkpoint, close their leases, and return.

    Args:
        config: see `ProviderConfig`.
        clock: time.
        dice: randomness, fit for keys.
        stop: set it to end.
        announce: called with a word and facts (see the reference).
        runtime: a driver to use instead of the configured one (the simulator's).

    Raises:
        InvalidInput: the configuration cannot be.
        Conflict: another process works in this home.
        PortInUse, LimitNotEnforceable, ClockSkew, RpcUnavailable, InsufficientFunds: before anything is offered.
    """
    config.check()
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = Journal(config.home / "journal.sqlite")
    try:
        with journal.exclusive("provider"):
            async with _opened(config, clock, dice, announce, journal, runtime) as (provider, bidder):
                await _work(provider, bidder, stop)
    except BaseExceptionGroup as group:
        # Task groups wrap whatever ends them; an owner is to see the one error that did.
        known = group.subgroup(MingaError)
        if known is None or group.subgroup(lambda error: not isinstance(error, MingaError | BaseExceptionGroup)):
            raise
        while isinstance(known, BaseExceptionGroup):
            known = known.exceptions[0]  # type: ignore[assignment]
        raise known from None
    finally:
        journal.close()


async def _work(provider: Provider, bidder: Bidder, stop: anyio.Event) -> None:
    tasks = provider.world.tasks
    await provider.poll()
    await bidder.register()
    await bidder.renew()
    tasks.start_soon(provider.follow_chain)
    tasks.start_soon(bidder.keep_offers)
    provider.world.announce("ready", {"url": bidder.url, "provider": provider.world.provider})
    await stop.wait()
    provider.offers = []
    await provider.drain(DRAIN_SECONDS)
    tasks.cancel_scope.cancel()


@asynccontextmanager
async def _opened(
    config: ProviderConfig, clock: Clock, dice: Dice, announce: Announce, journal: Journal, runtime: Runtime | None
) -> AsyncIterator[tuple[Provider, Bidder]]:
    driver = runtime or await open_runtime(config)
    facts = await anyio.to_thread.run_sync(probe.machine, config.home)
    machine = await anyio.to_thread.run_sync(describe_machine, facts, config.home, dice)
    unit = config.unit or split(machine, config.units)
    check_fits(machine, unit, config.units)
    announce("machine", {"machine": machine.hash32(), "facts": machine.plain()})
    secret = kept_secret(config.home / "transport.key", dice)
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(open_chain(config.spec, config.home / "chain", clock))
        await chain.check_clock(clock.now())
        tls = None if is_loopback(config.host) else create_identity(config.home, clock.now())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        world = World(
            chain=chain,
            key=config.operator,
            provider=config.operator.address,
            journal=journal,
            runtime=driver,
            clock=clock,
            dice=dice,
            home=config.home,
            environments=dict(config.environments),
            secret=secret,
            announce=announce,
            tasks=tasks,
        )
        provider = Provider(world, OfferBook(config.home / "offers"), tuple(gpu.device for gpu in facts.gpus))
        # First of all: a request that comes before would not find its lease, and begin it a second time.
        await provider.restore()
        app = build_app(Desk(provider))
        server = await stack.enter_async_context(serve(app, config.host, config.port, tls))
        url = (config.url or server.url).rstrip("/")
        announce("listening", {"url": url, "tls_sha256": tls.sha256 if tls else None})
        terms = terms_of(config, unit, transport_public(secret), tls, driver)
        bidder = Bidder(ask_of(config), config.agent, config.boards, provider, machine, terms, url)
        yield provider, bidder
        tasks.cancel_scope.cancel()


def ask_of(config: ProviderConfig) -> Ask:
    """The offer's numbers."""
    least = deposit_least(config.price_per_hour, config.quantum)
    return Ask(
        price_per_hour=config.price_per_hour,
        units=config.units,
        quantum=config.quantum,
        deposit_min=config.deposit_min if config.deposit_min is not None else least,
        seconds_min=config.seconds_min,
        seconds_max=config.seconds_max,
        close_window=config.close_window,
        offer_seconds=config.offer_seconds,
    )


def terms_of(
    config: ProviderConfig, unit: UnitSize, transport_key: str, tls: TlsIdentity | None, runtime: Runtime
) -> Terms:
    """The terms of this configuration. A driver that is no sandbox is never called one."""
    return Terms(
        transport_key=transport_key,
        tls_sha256=tls.sha256 if tls else None,
        unit=unit,
        sandbox="bubblewrap" if runtime.sandboxed else "process",
        environments=sorted(config.environments),
        egress=list(config.egress) if runtime.sandboxed else [],
        ports=config.ports,
        prepaid_quanta=config.prepaid_quanta,
        retention_s=config.retention_s,
        region=config.region,
    )


async def open_runtime(config: ProviderConfig) -> Runtime:
    """The configured driver, tried.

    Raises:
        LimitNotEnforceable: something that it needs is missing; the fact names it.
    """
    runtime: Runtime
    if config.driver == "bubblewrap":
        runtime = BubblewrapRuntime(config.home / "t")
    else:
        runtime = ProcessRuntime(process_folder(config.home))
    missing: list[Any] = [fact for fact in await runtime.check() if not fact.ok]
    if missing:
        raise LimitNotEnforceable(f"{missing[0].name}: {missing[0].found}", missing[0].remedy)
    return runtime


def process_folder(home: Path) -> Path:
    """Where plain processes work: as root they get users of their own, who may not enter a private home."""
    if os.geteuid() != 0:
        return home / "t"
    return Path("/var/tmp") / f"minga-{keccak(str(home.absolute()).encode()).hex()[:16]}"
