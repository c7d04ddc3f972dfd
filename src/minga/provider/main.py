"""A provider from its configuration to its end: secrets, runtime, chain, offers, API.

Knows: how the parts are put together, and in which order. Does not know: the command line, real clocks or dice. Rule:
nothing is offered before everything that can fail has succeeded: port bound, sandbox tried, clock compared, key
registered.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from minga.chain.node import open_chain
from minga.core.crypto import keccak
from minga.core.effects import Clock, Dice
from minga.core.errors import LimitNotEnforceable, MingaError
from minga.core.seal import transport_public
from minga.core.spec import Machine, Speed, UnitSize
from minga.core.units import DAY
from minga.provider.attendant import Attendant
from minga.provider.autoprice import PriceBook, first_price
from minga.provider.bidder import Bidder, Hold
from minga.provider.bidding import OfferBook, check_fits, split
from minga.provider.config import ProviderConfig, ask_of, terms_of
from minga.provider.court import Court
from minga.provider.defending import Defender
from minga.provider.desk import Desk
from minga.provider.lease import Announce, World
from minga.provider.loop import Provider
from minga.provider.machine import describe_machine, kept_secret
from minga.provider.measuring import measure as measure_units
from minga.provider.pricer import Pricer
from minga.provider.probing import best_environment
from minga.provider.serving import build_app
from minga.provider.speed import kept_speed, key_of
from minga.runtimes import probe
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.process import ProcessRuntime
from minga.runtimes.runtime import Runtime
from minga.store.journal import Journal
from minga.transport.http import is_loopback, serve
from minga.transport.tls import create_identity


async def run_provider(
    config: ProviderConfig,
    clock: Clock,
    dice: Dice,
    stop: anyio.Event,
    announce: Announce,
    runtime: Runtime | None = None,
    at_once: anyio.Event | None = None,
) -> None:
    """Sell this machine until `stop` is set; then give jobs their notice, close their leases, and return.

    Args:
        config: see `ProviderConfig`.
        clock: time.
        dice: randomness, fit for keys.
        stop: set it to end.
        announce: called with a word and facts (see the reference).
        runtime: a driver to use instead of the configured one (the simulator's).
        at_once: set it besides `stop` to leave within seconds: jobs are killed, and collected if that is quick.

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
            async with _opened(config, clock, dice, announce, journal, runtime) as (provider, bidder, pricer):
                await _work(provider, bidder, pricer, stop, at_once or anyio.Event())
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


async def _work(
    provider: Provider, bidder: Bidder, pricer: Pricer | None, stop: anyio.Event, at_once: anyio.Event
) -> None:
    world, attendant = provider.world, Attendant(provider, bidder)
    await provider.poll()
    await bidder.register()
    if await attendant.obey():
        await bidder.renew()
    also = [pricer.follow] if pricer else []
    if world.chain.spec.deployment.has_disputes:
        also.append(Defender(world).follow)
    for work in (provider.follow_chain, bidder.keep_offers, attendant.follow, *also):
        world.tasks.start_soon(work)
    price = str(bidder.ask.price_per_hour)
    world.announce("ready", {"url": bidder.url, "provider": world.provider, "price_per_hour": price})
    await stop.wait()
    await attendant.leave(at_once)


@asynccontextmanager
async def _opened(
    config: ProviderConfig, clock: Clock, dice: Dice, announce: Announce, journal: Journal, runtime: Runtime | None
) -> AsyncIterator[tuple[Provider, Bidder, Pricer | None]]:
    driver = runtime or await open_runtime(config)
    facts = await anyio.to_thread.run_sync(probe.machine, config.home)
    facts = replace(facts, disk_free_bytes=facts.disk_free_bytes * config.disk_share // 100)
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
        provider = Provider(world, OfferBook(config.home / "offers"), machine, tuple(gpu.device for gpu in facts.gpus))
        # First of all: a request that comes before would not find its lease, and begin it a second time.
        await provider.restore()
        desk = Desk(provider)
        server = await stack.enter_async_context(serve(build_app(desk), config.host, config.port, tls))
        url = (config.url or server.url).rstrip("/")
        announce("listening", {"url": url, "tls_sha256": tls.sha256 if tls else None})
        speed = await _speed(config, world, machine, unit, provider.gpus)
        terms = terms_of(config, unit, transport_public(secret), tls, driver, speed)
        hold = await _hold(config, world)
        bidder = Bidder(ask_of(config), config.agent, config.boards, provider, machine, terms, url, hold)
        yield provider, bidder, await anyio.to_thread.run_sync(_pricer, config, provider, bidder, unit)
        await desk.station.close()
        tasks.cancel_scope.cancel()


async def _hold(config: ProviderConfig, world: World) -> Hold | None:
    """What verified work may have held back, once the stake that answers for it stands; None without a stake."""
    if not config.stake:
        return None
    court = Court(world.chain)
    staked = await court.put(config.operator, config.stake)
    world.announce("staked", {"arbiter": court.address, "amount": str(staked)})
    return Hold(court.address, config.hold_bps, config.hold_s or await court.hold_seconds())


async def _speed(
    config: ProviderConfig, world: World, machine: Machine, unit: UnitSize, gpus: tuple[str, ...]
) -> Speed | None:
    """What a unit is promised to do, measured or kept; None when nothing is promised."""
    if config.measure == "never":
        return None
    environment = best_environment(config.environments)

    async def measure() -> Speed:
        world.announce("measuring", {"units": config.units})
        return await measure_units(
            world.runtime,
            unit,
            environment,
            units=config.units,
            folder=config.home / "probe",
            clock=world.clock,
            dice=world.dice,
            gpus=gpus,
        )

    key = key_of(machine, unit, config.units, environment.name)
    try:
        speed, at = await kept_speed(
            config.home / "speed.json", key, world.clock.now(), config.measure == "again", measure
        )
    except MingaError as error:
        world.announce("warning", error.as_dict()["error"])
        return None
    world.announce("speed", {"at": at} | speed.plain())
    return speed


def _pricer(config: ProviderConfig, provider: Provider, bidder: Bidder, unit: UnitSize) -> Pricer | None:
    """What moves the price, if it is to move. Raises InvalidInput when no price can be suggested."""
    if config.auto is None:
        return None
    now, machine = provider.world.clock.now(), provider.machine
    of = f"{unit.gpus} × {machine.gpus[0].model}" if unit.gpus and machine.gpus else f"{unit.cpu_milli} cpu_milli"
    begin = first_price(machine, unit, config.auto, now // DAY)
    book = PriceBook(provider.world.journal, of, begin, now)
    return Pricer(provider, bidder, book, config.spec.deployment.decimals)


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


__all__ = ["ProviderConfig", "open_runtime", "process_folder", "run_provider"]
