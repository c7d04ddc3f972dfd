"""What the scenarios share: providers that are processes, started as `minga up` starts them, and killed by SIGKILL.

The client runs in the test's process. The money of a scenario is counted over every address that can hold some.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psutil
import pytest
from markets import Stage

from fixtures import eventually
from minga.chain.contracts import Token
from minga.chain.view import LeaseRecord
from minga.cli.config import Settings
from minga.cli.processes import Processes, Record, minga_argv
from minga.cli.provide import OPERATOR
from minga.cli.world import FAULT, FAULT_MARK
from minga.client.bill import Bill
from minga.client.folder import JobFolder
from minga.client.handle import AsyncHandle
from minga.client.home import Network
from minga.client.reader import JobReader
from minga.client.tenant import AsyncClient
from minga.core.crypto import Address, Hash32, PrivateKey
from minga.core.errors import MingaError
from minga.core.units import format_usd
from minga.protocol.lease import How
from minga.provider.agent import State, replay
from minga.provider.events import decode
from minga.provider.main import process_folder
from minga.store.journal import Journal
from minga.transport.http import bind

PRICE = 3_600_000_000
"""Token units per unit-hour: a million a second."""

RESTART_S = 10.0
"""A provider that was killed serves its leases again so soon."""

PLAIN = ("--insecure-process", "--environment", "python=/")
"""Jobs as plain processes on this machine's own system: what needs no root and starts fastest."""

NAME = "stage"

VERIFIED = {
    "provider.stake.approved", "provider.stake.sent", "provider.journal.OrderSet", "provider.commit.computed",
    "provider.commit.sent", "provider.journal.Committed", "provider.journal.CommitFailed", "provider.hold.sent",
}  # fmt: skip
"""A provider's points that only verified work comes by; `test_verified_kills` walks them."""


@dataclass
class Machine:
    """A provider: its home folder, its key, and the process that serves it now."""

    stage: Stage
    number: int
    words: tuple[str, ...] = ()
    program: tuple[str, ...] = tuple(minga_argv())
    price: str = ""
    stake: int = 0
    operator: PrivateKey = field(init=False)
    url: str = ""

    def __post_init__(self) -> None:
        self.folder = self.stage.folder / f"machine-{self.number}"
        self.mark = self.folder / "killed"
        self.processes = Processes(self.folder)
        self.port = free_port()

    async def prepare(self) -> None:
        """Give it a network file, a key, and gas."""
        spec = self.stage.network.spec
        settings = Settings(self.folder)
        Network(NAME, spec, ()).save(settings.home)
        name = f"operator {self.number} {self.stage.name}"
        self.operator = settings.open_keys().create_embedded(OPERATOR, hashlib.sha256(name.encode()).digest())
        funded = await self.stage.network.funded_key(name, tokens=self.stake)
        assert self.operator.address == funded.address

    @property
    def argv(self) -> list[str]:
        """Its command line; the first machine is the cheapest."""
        cheap = format_usd(PRICE + 1000 * self.number, self.stage.network.spec.deployment.decimals)
        price = self.price or cheap
        head = [*self.program, "--home", str(self.folder), "--network", NAME, "provide", "--price", price]
        size = ["--quantum", "1s", "--cpus", "0.5", "--memory", "256MiB", "--disk", "64MiB"]
        stake = ["--stake", format_usd(self.stake, self.stage.network.spec.deployment.decimals)] if self.stake else []
        return [*head, *size, *stake, "--port", str(self.port), *self.words, "--ready-file", "{ready}", "--json"]

    async def start(self, fault: str = "") -> None:
        """Start it, to die by SIGKILL where it first comes to `fault`; returns when it is ready."""
        env = {FAULT: fault, FAULT_MARK: str(self.mark)}
        record, _ = await anyio.to_thread.run_sync(
            lambda: self.processes.ensure("provider", self.argv, env, 30.0, always=True)
        )
        self.url = str(record.ready["url"])

    @property
    def record(self) -> Record:
        record = self.processes.get("provider")
        assert record is not None
        return record

    def is_dead(self) -> bool:
        """Whether its process is gone."""
        return self.record.find() is None

    async def killed(self, seconds: float = 40) -> None:
        """Wait until it died at its fault point."""
        try:
            await eventually(self.is_dead, seconds)
        except AssertionError as error:
            raise AssertionError(f"it lives on: {self.log()}") from error
        assert self.mark.exists(), f"it ended by itself: {self.log()}"

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        os.kill(self.record.pid, number)

    async def restart(self, fault: str = "") -> None:
        """Start it again, as a supervisor would; it must serve soon."""
        began = time.monotonic()
        await self.start(fault)
        took = time.monotonic() - began
        assert took < RESTART_S, f"{took:.1f} s from the restart until it serves"

    async def kill(self) -> None:
        """SIGKILL, now."""
        self.signal(signal.SIGKILL)
        await eventually(self.is_dead)

    def log(self) -> str:
        """The end of what it said."""
        return Path(self.record.log).read_text(errors="replace")[-3000:]

    async def stop(self) -> None:
        """End it as its owner would; leases are closed first."""
        await anyio.to_thread.run_sync(self.processes.stop, "provider")

    def leases(self) -> dict[str, State]:
        """Every lease as its journal tells it; the process must have ended."""
        journal = Journal(self.home / "journal.sqlite")
        try:
            found = {}
            for stream in journal.streams():
                if stream.startswith("0x"):
                    records = journal.read(stream)
                    found[stream] = replay([(decode(item.kind, item.body), item.at) for item in records])[0]
            return found
        finally:
            journal.close()

    @property
    def home(self) -> Path:
        """The folder that its agent works in."""
        return self.folder / "provider" / NAME

    def remove(self) -> None:
        """End what still runs, and delete what lies outside its own folder."""
        for record in self.processes.records():
            process = record.find()
            if process is not None:
                process.kill()
                process.wait(10)
        tasks = process_folder(self.home)
        for other in psutil.process_iter(["cmdline"]):
            if any(str(tasks) in word for word in other.info["cmdline"] or ()):
                other.kill()
        shutil.rmtree(tasks, ignore_errors=True)


async def ended_at(machine: Machine, fault: str = "") -> MingaError:
    """The error with which a provider ends instead of becoming ready."""
    with pytest.raises(MingaError) as caught:
        await machine.start(fault)
    return caught.value


def variant(which: str) -> tuple[str, ...]:
    """A `minga` that differs in one thing: see `variants`."""
    return (sys.executable, str(Path(__file__).parent / "variants.py"), which)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with bind("127.0.0.1", 0) as held:
        return int(held.getsockname()[1])


@asynccontextmanager
async def machines(
    stage: Stage, count: int = 1, words: Sequence[str] = PLAIN, stake: int = 0
) -> AsyncIterator[list[Machine]]:
    """So many providers, not started; the end of the block ends them, whatever became of them."""
    made = [Machine(stage, number, tuple(words), stake=stake) for number in range(count)]
    try:
        for machine in made:
            await machine.prepare()
        yield made
    finally:
        for machine in made:
            machine.remove()


@dataclass(frozen=True)
class Purses:
    """Who holds how many token units: the tenant, each provider, and the market."""

    tenant: int
    providers: dict[Address, int]
    market: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.tenant + sum(self.providers.values()) + self.market


async def purses(stage: Stage, providers: Sequence[Machine], wallet: Address | None = None) -> Purses:
    """What the chain says now; a job's wallet is counted with its tenant."""
    spec = stage.network.spec.deployment
    token = Token(spec.token)
    async with stage.network.open(stage.folder / "counter") as chain:
        own = [stage.tenant.address] + ([wallet] if wallet else [])
        tenant = sum([await chain.read(token.balance_of(address)) for address in own])
        held = {item.operator.address: await chain.read(token.balance_of(item.operator.address)) for item in providers}
        return Purses(tenant, held, await chain.read(token.balance_of(spec.market)))


async def leases_on_chain(stage: Stage) -> dict[Hash32, LeaseRecord]:
    """Every lease of the stage's chain as its events tell it."""
    async with stage.network.open(stage.folder / "counter") as chain:
        while True:
            changes = await chain.poll()
            chain.acknowledge(changes)
            if not changes.confirmed and not changes.undone:
                return dict(chain.view.leases)


async def check_books(
    stage: Stage, client: AsyncClient, handle: AsyncHandle, providers: Sequence[Machine], before: Purses
) -> Bill:
    """No unit is lost or made, everybody has what the bill says, and no acknowledged voucher was forgotten.

    The providers must have ended: what they journaled is compared with what the chain settled.
    """
    bill = await handle.bill()
    assert bill.conserved, bill
    assert bill.deposited == bill.paid + bill.fee + bill.held + bill.refunded + bill.locked
    wallet = JobFolder(client.home.job(handle.id)).wallet().address
    after = await purses(stage, providers, wallet)
    assert after.total == before.total
    assert after.tenant == before.tenant - bill.paid - bill.fee - bill.held - bill.locked
    assert after.market == before.market + bill.fee + bill.held + bill.locked
    for address, held in after.providers.items():
        paid = sum(item.paid for item in bill.leases if item.provider == address)
        assert held == before.providers[address] + paid
    on_chain = await leases_on_chain(stage)
    acknowledged = {item.lease: item.acked for item in JobReader(client.home, client.journal, handle.id).state.leases}
    for machine in providers:
        for held in machine.leases().values():
            record = on_chain[Hash32(held.facts.lease_id)]
            assert held.paid >= acknowledged[held.facts.lease_id], "an acknowledged voucher was forgotten"
            assert record.closed is not None
            if record.closed.how == How.CLOSE:
                assert record.settled == held.paid
    return bill
