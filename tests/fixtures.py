"""What many tests share: a real clock, seeded dice, and one embedded chain for each test process.

Import the plain functions and classes (`from fixtures import eventually`); the fixtures are there by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from minga.chain.chain import ChainSpec
from minga.chain.local import open_faucet, start_local, stop_local
from minga.chain.node import RpcChain, open_chain
from minga.core.crypto import PrivateKey, new_key


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """Unix seconds."""
        return int(time.time())

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


async def eventually(happened: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `happened()` is true; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await anyio.sleep(0.005)


class SeededDice:
    """Dice whose every throw follows from a seed."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._thrown = 0

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._thrown += 1
        return hashlib.shake_256(f"{self._seed}/{self._thrown}".encode()).digest(count)


@dataclass(frozen=True)
class LocalNetwork:
    """A running embedded chain with the contracts deployed, shared by all tests of one process.

    Tests share its money and its blocks: use fresh keys, and start a chain of your own to stop, kill or reorganise it.
    """

    folder: Path
    spec: ChainSpec

    async def funded_key(self, name: str, wei: int = 10**18, tokens: int = 0) -> PrivateKey:
        """A key that follows from `name`, holding at least this much once."""
        key = new_key(hashlib.sha256(name.encode()).digest())
        async with open_faucet(self.folder, SystemClock()) as faucet:
            await faucet.fund(self.spec.deployment.token, key.address, f"fund/{name}", wei, tokens)
        return key

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[RpcChain]:
        """A `Chain` on this network whose files are in `folder`."""
        async with open_chain(self.spec, folder, SystemClock()) as chain:
            yield chain


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run under asyncio."""
    return "asyncio"


@pytest.fixture
def clock() -> SystemClock:
    """The machine's clock."""
    return SystemClock()


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> SeededDice:
    """Dice seeded with the test's name."""
    return SeededDice(request.node.nodeid)


@pytest.fixture(scope="session")
def local_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """One embedded chain for each test process."""
    folder = tmp_path_factory.mktemp("chain")

    async def start() -> ChainSpec:
        chain = await start_local(folder, SystemClock(), SeededDice("local network"))
        await chain.faucet.aclose()
        return chain.spec

    spec = anyio.run(start)
    yield LocalNetwork(folder, spec)
    anyio.run(stop_local, folder)
