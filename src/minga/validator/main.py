"""A validator from its configuration to its end: journal, runtime, chain, seat, loop.

Knows: how the parts are put together, and in which order. Does not know: the command line, real clocks or dice. Rule:
no stake is put down before the sandbox was tried: a referee that cannot judge is fined.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx

from minga.chain.chain import Chain, ChainSpec
from minga.chain.disputes import Disputes
from minga.chain.node import open_chain
from minga.core.crypto import Address, PrivateKey
from minga.core.effects import Clock, Dice
from minga.core.errors import LimitNotEnforceable, MingaError, NotFound
from minga.protocol.wire import OfferBundle
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.process import ProcessRuntime
from minga.runtimes.runtime import Limits, Runtime
from minga.store.journal import Journal
from minga.transport.errors import raise_for
from minga.transport.http import connect
from minga.validator.loop import Validator
from minga.validator.replays import Replayer
from minga.validator.world import Announce, Options, World

MIB = 1 << 20
ANSWER_BYTES_MAX = 8 << 20
ONCE_SECONDS = 0.1
LIMITS = Limits(cpus_milli=1000, memory_bytes=8192 * MIB, disk_bytes=32768 * MIB, pids=512, wall_seconds=3600)


@dataclass(frozen=True)
class ValidatorConfig:
    """What an operator decides. `home` is this validator's alone; `key` has the stake, the bonds and a little gas.

    `stake` token units are to be at stake in all (0: as they are); `environments` maps names to folders; `limits` are
    for one replay, of which one runs at a time; `boards` know providers' certificates.
    """

    home: Path
    spec: ChainSpec
    key: PrivateKey
    stake: int = 0
    boards: tuple[str, ...] = ()
    driver: Literal["bubblewrap", "process"] = "bubblewrap"
    environments: Mapping[str, Path] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    limits: Limits = LIMITS


async def run_validator(
    config: ValidatorConfig, clock: Clock, dice: Dice, stop: anyio.Event, announce: Announce, once: bool = False
) -> dict[str, Any]:
    """Validate until `stop` is set; with `once` until nothing is to be done. Returns what it earned.

    Args:
        config: see `ValidatorConfig`.
        clock, dice: the caller's.
        stop: set it to end.
        announce: called with a word and facts.
        once: end as soon as every case and seat is over.

    Raises:
        Conflict: another process works in this home.
        NotFound: the network has no arbiter over work.
        LimitNotEnforceable: something that the sandbox needs is missing.
        RpcUnavailable, InsufficientFunds, ContractError: before anything is watched.
    """
    config.spec.disputes_domain  # noqa: B018  raises NotFound
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = Journal(config.home / "journal.sqlite")
    try:
        with journal.exclusive("validator"):
            earned: dict[str, Any] = {}
            async with _opened(config, clock, dice, announce, journal) as validator:
                earned |= await _work(validator, stop, once)
                validator.world.tasks.cancel_scope.cancel()
            return earned
    except BaseExceptionGroup as group:
        known = group.subgroup(MingaError)
        if known is None or group.subgroup(lambda error: not isinstance(error, MingaError | BaseExceptionGroup)):
            raise
        while isinstance(known, BaseExceptionGroup):
            known = known.exceptions[0]  # type: ignore[assignment]
        raise known from None
    finally:
        journal.close()


async def _work(validator: Validator, stop: anyio.Event, once: bool) -> dict[str, Any]:
    world = validator.world
    world.announce("ready", {"validator": validator.me} | {"earnings": await validator.earnings()})
    if not once:
        world.tasks.start_soon(validator.follow)
        await stop.wait()
    else:
        await validator.turn()
        while validator.is_busy and not stop.is_set():
            await world.clock.sleep(ONCE_SECONDS)
            await validator.turn()
    return await validator.earnings()


@asynccontextmanager
async def _opened(
    config: ValidatorConfig, clock: Clock, dice: Dice, announce: Announce, journal: Journal
) -> AsyncIterator[Validator]:
    runtime = await open_runtime(config)
    async with open_chain(config.spec, config.home / "chain", clock) as chain:
        await chain.check_clock(clock.now())
        preset = await chain.read(Disputes(config.spec.deployment.disputes).preset())
        replayer = Replayer(runtime, config.environments, config.home / "stage", config.limits, clock)
        async with anyio.create_task_group() as tasks:
            world = World(
                chain=chain,
                key=config.key,
                journal=journal,
                replayer=replayer,
                clock=clock,
                dice=dice,
                reach=Addresses(chain, config.boards).client,
                announce=announce,
                home=config.home,
                preset=preset,
                options=config.options,
                tasks=tasks,
                replaying=anyio.CapacityLimiter(1),
            )
            validator = Validator(world)
            await validator.restore()
            if config.stake:
                await validator.join(config.stake)
            yield validator


async def open_runtime(config: ValidatorConfig) -> Runtime:
    """The configured driver, tried.

    Raises:
        LimitNotEnforceable: something that it needs is missing; the fact names it.
    """
    folder = config.home / "t"
    runtime: Runtime = BubblewrapRuntime(folder) if config.driver == "bubblewrap" else ProcessRuntime(folder)
    missing = [fact for fact in await runtime.check() if not fact.ok]
    if missing:
        raise LimitNotEnforceable(f"{missing[0].name}: {missing[0].found}", missing[0].remedy)
    return runtime


class Addresses:
    """Where providers are: the url that they registered, and the certificate of the terms that they signed."""

    def __init__(self, chain: Chain, boards: tuple[str, ...]) -> None:
        """Urls are `chain`'s, certificates the boards'."""
        self._chain, self._boards = chain, boards

    async def client(self, provider: Address) -> httpx.AsyncClient:
        """A client of a provider's API.

        Raises:
            NotFound: it is not registered.
            InvalidInput: it registered something that is no url, or plain http off loopback.
        """
        record = self._chain.view.providers.get(provider)
        if record is None:
            raise NotFound(f"{provider} is not registered", "wait until its registration is mined")
        certificate = await self._certificate(provider, record.agent_key) if record.uri.startswith("https") else None
        return connect(record.uri, certificate)

    async def _certificate(self, provider: Address, agent: Address) -> str | None:
        """The fingerprint in the newest terms that the provider's agent signed; None when no board has any."""
        for board in self._boards:
            try:
                async with connect(board) as http:
                    answer = await http.get("/v1/offers")
                    await raise_for(answer)
                    listed = answer.json()["offers"] if len(answer.content) < ANSWER_BYTES_MAX else []
            except (MingaError, httpx.HTTPError, ValueError, KeyError, TypeError):
                continue
            for item in listed:
                found = _signed_certificate(item, provider, agent, self._chain.spec)
                if found is not None:
                    return found
        return None


def _signed_certificate(item: object, provider: Address, agent: Address, spec: ChainSpec) -> str | None:
    try:
        bundle = OfferBundle.parse(item)
        offer = bundle.check(spec.domain, 0)
    except MingaError:
        return None
    return bundle.terms.tls_sha256 if (offer.provider, bundle.agent) == (provider, agent) else None
