"""What the tests of a whole provider share: a provider on a real chain, and a tenant who drives it by hand.

The tenant here does by explicit requests what the client does by itself, so that a test can do each of them wrong.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import LocalNetwork, SeededDice, SystemClock
from minga.chain.contracts import Market, Token
from minga.chain.node import RpcChain
from minga.chain.view import LeaseRecord
from minga.core.crypto import Address, Hash32, PrivateKey, blake3_hex, keccak, new_key, parse_signature, to_hex
from minga.core.spec import Bundle, Manifest, UnitSize
from minga.core.units import Amount
from minga.protocol.messages import Login, Voucher, channel_id, lease_id, sign
from minga.protocol.wire import OfferBundle
from minga.provider.main import ProviderConfig, process_folder, run_provider
from minga.runtimes.bubblewrap import prerequisites
from minga.transport.errors import error_of
from minga.transport.http import connect

MIB = 1 << 20
PRICE = 3_600_000
"""A thousand token units a second, for one unit."""

SIZE = UnitSize(cpu_milli=500, memory_bytes=128 * MIB, disk_bytes=32 * MIB, pids=64)


@dataclass
class Market0:
    """A funded tenant and operator on the test process's chain."""

    network: LocalNetwork
    tenant: PrivateKey
    operator: PrivateKey
    chain: RpcChain
    name: str
    jobs: int = 0

    def config(self, home: Path, **changes: Any) -> ProviderConfig:
        """A provider of this machine's own system; `changes` override."""
        fields: dict[str, Any] = {
            "home": home,
            "spec": self.network.spec,
            "operator": self.operator,
            "agent": new_key(keccak(self.operator.secret())),
            "price_per_hour": PRICE,
            "units": 2,
            "unit": SIZE,
            "quantum": 2,
            "environments": {"python": Path("/")},
            "driver": "process",
        }
        return ProviderConfig(**(fields | changes))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own is root's alone."""
    path = Path(tempfile.mkdtemp(prefix="minga-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(process_folder(path / "home"), ignore_errors=True)


@pytest.fixture
async def market(local_network: LocalNetwork, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Market0]:
    """A tenant with money and an allowance, and an operator with gas."""
    name = request.node.nodeid
    tenant = await local_network.funded_key(f"tenant {name}", tokens=10**12)
    operator = await local_network.funded_key(f"operator {name}")
    async with local_network.open(folder / "tenant") as chain:
        token = Token(chain.spec.deployment.token)
        await chain.send("approve", token.approve(chain.spec.deployment.market, 10**12), tenant)
        yield Market0(local_network, tenant, operator, chain, name)


@dataclass
class Running:
    """A provider that was started, and what it announced."""

    url: str
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stop: anyio.Event = field(default_factory=anyio.Event)
    at_once: anyio.Event = field(default_factory=anyio.Event)


@asynccontextmanager
async def running(config: ProviderConfig, seed: str = "provider", clock: Any = None) -> AsyncIterator[Running]:
    """A provider in this process; leaving the block stops it, waiting for its leases to close."""
    provider = Running("")
    ready = anyio.Event()

    def announce(kind: str, facts: dict[str, Any]) -> None:
        provider.told.append((kind, facts))
        if kind == "ready":
            provider.url = facts["url"]
            ready.set()

    async with anyio.create_task_group() as tasks:
        dice, real = SeededDice(seed), clock or SystemClock()
        tasks.start_soon(run_provider, config, real, dice, provider.stop, announce, None, provider.at_once)
        with anyio.fail_after(30):
            await ready.wait()
        yield provider
        provider.stop.set()


class FastClock(SystemClock):
    """The machine's clock with seconds that pass `factor` times as fast, but for what day it is."""

    def __init__(self, factor: float = 20.0) -> None:
        self._factor = factor

    def monotonic(self) -> float:
        """Fast seconds."""
        return super().monotonic() * self._factor

    async def sleep(self, seconds: float) -> None:
        """Wait for fast seconds."""
        await anyio.sleep(seconds / self._factor)


def needs_sandbox() -> None:
    """Leave a test where there is no sandbox."""
    if missing := [fact for fact in prerequisites() if not fact.ok]:
        pytest.skip(f"no sandbox here: {missing[0].name}: {missing[0].found}")


def tar(files: dict[str, bytes]) -> bytes:
    """A plain archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Tenant:
    """One lease from its tenant's side."""

    def __init__(self, market: Market0, url: str) -> None:
        self.market = market
        self.chain = market.chain
        self.http = connect(url, timeout_s=30)
        market.jobs += 1
        self.job = Hash32(to_hex(keccak(f"{market.name}/{market.jobs}".encode())))
        self.signer = new_key(keccak(self.job.encode()))
        self.bundle: OfferBundle
        self.channel = Hash32("")
        self.deposit = 0

    async def __aenter__(self) -> Tenant:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def offers(self) -> list[dict[str, Any]]:
        """What the provider offers now."""
        return list((await self.http.get("/v1/offers")).json()["offers"])

    async def open(
        self,
        deposit: int = 100_000,
        seconds: int = 600,
        units: int = 1,
        held: list[dict[str, Any]] | None = None,
        which: int = 0,
    ) -> None:
        """Take one of the provider's offers, or of those that are `held` from before, and open a lease on chain."""
        found = held or await self.offers()
        self.bundle = OfferBundle.parse(found[which])
        offer = self.bundle.check(self.chain.spec.domain, await self.chain.time())
        call = Market(self.chain.spec.deployment.market).open(
            offer,
            parse_signature(self.bundle.signature),
            self.job,
            0,
            units,
            seconds,
            deposit,
            self.signer.address,
        )
        await self.chain.send(f"open/{self.job}", call, self.market.tenant)
        self.deposit = deposit
        self.channel = channel_id(self.lease_id, self.bundle.offer_hash(), self.signer.address)

    @property
    def lease_id(self) -> Hash32:
        return lease_id(self.market.tenant.address, self.job, 0)

    @property
    def path(self) -> str:
        return f"/v1/leases/{self.channel}"

    def login_body(self, **changes: Any) -> dict[str, Any]:
        """A signed login; `changes` override fields before it is signed, `sign_with` the key."""
        key = changes.pop("sign_with", self.signer)
        provider = Address(changes.pop("provider", self.bundle.offer.provider))
        domain = changes.pop("domain", self.chain.spec.domain)
        body: dict[str, Any] = {
            "lease_id": self.lease_id,
            "offer_hash": self.bundle.offer_hash(),
            "tenant": self.market.tenant.address,
            "job": self.job,
            "attempt": 0,
            "signer": self.signer.address,
            "issued_at": SystemClock().now(),
            "nonce": to_hex(keccak(f"{self.job}/{changes.pop('turn', 0)}".encode())),
        } | changes
        login = Login(self.channel, provider, body["issued_at"], Hash32(body["nonce"]))
        return {"signature": to_hex(sign(login, domain, key))} | body

    async def login(self, **changes: Any) -> None:
        """Log in, and use the token from now on."""
        answer = await self.ask("POST", "/login", json=self.login_body(**changes))
        self.http.headers["authorization"] = f"Bearer {answer['token']}"

    async def ask(self, method: str, route: str, **options: Any) -> Any:
        """One request under the lease; raises the error that a refusal carries."""
        answer = await self.http.request(method, self.path + route, **options)
        if answer.status_code >= 400:
            raise error_of(answer.status_code, answer.content)
        return answer.json() if answer.headers.get("content-type") == "application/json" else answer.content

    def manifest(self, run: str, **changes: Any) -> Manifest:
        """A manifest of this lease's job."""
        fields: dict[str, Any] = {"job": self.job, "attempt": 0, "name": "test", "run": run, "size": SIZE, "grace_s": 5}
        return Manifest(**(fields | changes))

    async def send(self, run: str, inputs: dict[str, bytes] | None = None, **changes: Any) -> Manifest:
        """Send a manifest and all inputs (target → archive)."""
        blobs = {blake3_hex(data): data for data in (inputs or {}).values()}
        bundles = [
            Bundle(
                kind="workdir" if target == "/job/work" else "mount",
                target=target,
                blake3=blake3_hex(data),
                bytes=len(data),
            )
            for target, data in (inputs or {}).items()
        ]
        manifest = self.manifest(run, **({"inputs": bundles} | changes))
        status = await self.ask("PUT", "/manifest", json=manifest.plain())
        for name in status["missing"]:
            held = (await self.http.head(f"{self.path}/blobs/{name}")).headers.get("upload-offset", "0")
            await self.ask("PUT", f"/blobs/{name}", content=blobs[name][int(held) :], headers={"upload-offset": held})
        return manifest

    async def start(self, run: str, **changes: Any) -> None:
        """Open, log in, send, start."""
        await self.open()
        await self.login()
        await self.send(run, **changes)
        await self.ask("POST", "/start")

    async def pay(self, cumulative: int, **changes: Any) -> str:
        """Send a voucher; the amount that the provider holds now."""
        return str((await self.ask("POST", "/vouchers", json=self.voucher(cumulative, **changes)))["accepted"])

    def voucher(self, cumulative: int, **changes: Any) -> dict[str, Any]:
        """A signed voucher; `key`, `domain` and `channel` override."""
        message = Voucher(Hash32(changes.get("channel", self.channel)), Amount(cumulative))
        domain = changes.get("domain", self.chain.spec.domain)
        return {
            "cumulative": str(cumulative),
            "signature": to_hex(sign(message, domain, changes.get("key", self.signer))),
        }

    async def events(self, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Events as they come."""
        async with self.http.stream("GET", f"{self.path}/events?after={after}") as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    async def until(self, kind: str, pay: bool = True, **data: Any) -> list[dict[str, Any]]:
        """All events up to the first of `kind` with these data; pays each meter reading on the way if asked."""
        seen = []
        with anyio.fail_after(60):
            async for event in self.events():
                seen.append(event)
                if pay and event["kind"] in ("meter", "exit"):
                    await self.pay_for(event["data"]["working_s"])
                if event["kind"] == kind and all(event["data"].get(name) == value for name, value in data.items()):
                    return seen
        raise AssertionError(f"no {kind} {data} in {seen}")

    async def pay_for(self, seconds: int) -> None:
        """Pay working seconds, if that is more than was paid."""
        owed = PRICE * seconds // 3600
        if owed > int((await self.status())["paid"]):
            await self.pay(owed)

    async def status(self) -> dict[str, Any]:
        """The lease's status."""
        return dict(await self.ask("GET", ""))

    async def record(self) -> LeaseRecord:
        """The lease as the chain tells it."""
        self.chain.acknowledge(await self.chain.poll())
        return self.chain.view.leases[self.lease_id]

    async def closed(self) -> LeaseRecord:
        """The lease's end on chain, once it is there."""
        await self.until("closed", pay=False)
        record = await self.record()
        assert record.closed is not None
        return record
