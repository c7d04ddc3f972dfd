"""What the tests of a whole client share: real providers on a real chain, and a tenant's home.

Providers run in this process, over real HTTP on loopback, with the process driver; nothing is simulated but the
network's size.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import LocalNetwork, SeededDice, SystemClock
from minga.client.home import Home, Network
from minga.client.jobfile import JobSpec
from minga.client.tenant import AsyncClient
from minga.core.crypto import PrivateKey, keccak, new_key
from minga.core.spec import UnitSize
from minga.provider.main import ProviderConfig, process_folder, run_provider

MIB = 1 << 20
PRICE = 3_600_000_000
"""A dollar a second of 6 decimals would be 3.6e9 an hour: a thousandth of a dollar per millisecond, easy to count."""

SIZE = UnitSize(cpu_milli=500, memory_bytes=256 * MIB, disk_bytes=64 * MIB, pids=128)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own is root's alone."""
    path = Path(tempfile.mkdtemp(prefix="minga-"))
    path.chmod(0o755)
    yield path
    for home in path.glob("provider-*"):
        shutil.rmtree(process_folder(home), ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)


@dataclass
class Provider:
    """A provider that runs in this process."""

    config: ProviderConfig
    url: str = ""
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stop: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def vanish(self) -> None:
        """End at once, as a machine whose cable was pulled."""
        self.scope.cancel()


@dataclass
class Stage:
    """A chain with a funded tenant; providers are started on it."""

    network: LocalNetwork
    folder: Path
    name: str
    tenant: PrivateKey
    clients: int = 0

    async def config(self, number: int, **changes: Any) -> ProviderConfig:
        """The number-th provider of this machine's own system; `changes` override."""
        operator = await self.network.funded_key(f"operator {number} {self.name}", tokens=changes.get("stake", 0))
        fields: dict[str, Any] = {
            "home": self.folder / f"provider-{number}",
            "spec": self.network.spec,
            "operator": operator,
            "agent": new_key(keccak(operator.secret())),
            "price_per_hour": PRICE + number,
            "units": 1,
            "unit": SIZE,
            "quantum": 2,
            "environments": {"python": Path("/")},
            "driver": "process",
        }
        return ProviderConfig(**(fields | changes))

    @asynccontextmanager
    async def providers(self, count: int = 1, **changes: Any) -> AsyncIterator[list[Provider]]:
        """So many providers, ready to be leased, the first the cheapest; leaving stops those that still run."""
        made = [Provider(await self.config(number, **changes)) for number in range(count)]
        async with anyio.create_task_group() as tasks:
            for number, provider in enumerate(made):
                await tasks.start(self._run, provider, f"{self.name}/{number}")
            yield made
            for provider in made:
                provider.stop.set()

    async def _run(self, provider: Provider, seed: str, task_status: Any) -> None:
        def announce(kind: str, facts: dict[str, Any]) -> None:
            provider.told.append((kind, facts))
            if kind == "ready":
                provider.url = facts["url"]
                task_status.started()

        with provider.scope:
            await run_provider(provider.config, SystemClock(), SeededDice(seed), provider.stop, announce)

    @asynccontextmanager
    async def client(self, providers: list[Provider], **changes: Any) -> AsyncIterator[AsyncClient]:
        """A client of this stage's tenant; the providers are its boards, since both answer the same question."""
        network = Network("stage", self.network.spec, tuple(provider.url for provider in providers))
        self.clients += 1
        values: dict[str, Any] = {"clock": SystemClock(), "dice": SeededDice(f"client {self.clients} {self.name}")}
        values |= {"key": lambda: self.tenant, "allow_process": True}
        async with AsyncClient(Home(self.folder / "home"), network, **(values | changes)) as client:
            yield client


@pytest.fixture
async def stage(local_network: LocalNetwork, folder: Path, request: pytest.FixtureRequest) -> Stage:
    """A stage whose tenant has a thousand dollars and gas."""
    name = request.node.nodeid
    tenant = await local_network.funded_key(f"tenant {name}", tokens=10**9)
    return Stage(local_network, folder, name, tenant)


def spec_of(run: str, **changes: Any) -> JobSpec:
    """A job of at most a hundred dollars."""
    return JobSpec(**({"run": run, "budget": "100"} | changes))


async def ended(handle: Any, seconds: float = 45) -> Any:
    """The job's status at its end; when it does not come, everything that is known of it is shown."""
    try:
        return await handle.wait(seconds)
    except TimeoutError:
        told = [event async for event in handle.events(follow=False)]
        shown = "\n".join(f"{event.at} {event.kind} {event.data}" for event in told[-40:])
        raise AssertionError(f"{handle.status()}\n{shown}") from None
