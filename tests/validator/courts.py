"""A courtroom for the tests: an embedded chain of its own, a provider that committed to small work, and validators.

The chain, the contracts, the HTTP and the sandboxes are real; the provider here is a short program that serves what
`works.Done` holds, so that a test can let it lie in every way.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from works import Done, Step, done, honest

from fixtures import SeededDice, SystemClock, eventually
from minga.chain.chain import ChainSpec
from minga.chain.contracts import Market, Registry, Token
from minga.chain.disputes import Disputes
from minga.chain.local import LocalChain, local_chain
from minga.chain.node import RpcChain, open_chain
from minga.chain.view import LeaseRecord
from minga.core.codec import canonical_json
from minga.core.crypto import Address, Hash32, PrivateKey, new_key, to_hex
from minga.core.units import Amount
from minga.core.work import Work
from minga.protocol.dispute import SHORT, Commitment
from minga.protocol.merkle import Tree
from minga.protocol.messages import Auditor, Offer, Ordered, Voucher, sign, verify
from minga.protocol.wire import AuditedLease, AuditLogin
from minga.provider.defending import play, tree_of
from minga.runtimes.runtime import Limits
from minga.store.blobs import BlobStore
from minga.transport.http import serve
from minga.validator.loop import Validator
from minga.validator.main import ValidatorConfig, _opened
from minga.validator.world import Options

MIB = 1 << 20
WRONG = 13
"""The first wrong leaf of `faked` work."""

JUDGE = Options(audit="none")
DEPOSIT = 1_000_000
STAKE = SHORT.factor * DEPOSIT
PAID = 900_000
HOLD_SECONDS = 6 * 86400
LIMITS = Limits(cpus_milli=1000, memory_bytes=256 * MIB, disk_bytes=32 * MIB, pids=64, wall_seconds=60)


def key_of(name: str) -> PrivateKey:
    """A key that follows from a name."""
    return new_key(hashlib.sha256(name.encode()).digest())


def faked(state: bytes, number: int) -> bytes:
    """A provider that does something else from leaf `WRONG` on."""
    return honest(state, number) if number < WRONG - 1 else honest(state, number + 1)


@dataclass
class Court:
    """An embedded chain with Disputes, the keys of a tenant and a provider, both with money, and the environment and
    limits of everybody's replays.
    """

    local: LocalChain
    chain: RpcChain
    folder: Path
    tenant: PrivateKey
    provider: PrivateKey
    jobs: int = 0
    environment: Path = Path("/")
    limits: Limits = LIMITS

    @property
    def spec(self) -> ChainSpec:
        """The network."""
        return self.local.spec

    @property
    def disputes(self) -> Disputes:
        """The arbiter."""
        return Disputes(self.spec.deployment.disputes)

    async def fund(self, name: str, tokens: int) -> PrivateKey:
        """A key with gas and tokens."""
        key = key_of(name)
        await self.local.fund(key.address, f"fund/{name}", tokens=tokens)
        return key

    async def send(self, effect: str, call: Any, key: PrivateKey) -> None:
        """One transaction, and its events read."""
        await self.chain.send(effect, call, key)
        await self.read()

    async def read(self) -> None:
        """Take the chain's events in."""
        self.chain.acknowledge(await self.chain.poll())

    async def pass_time(self, seconds: int) -> None:
        """Move the chain's clock on."""
        await self.local.faucet._rpc.request("evm_increaseTime", hex(seconds))
        await self.local.faucet._rpc.request("evm_mine")

    async def lease(self) -> tuple[LeaseRecord, PrivateKey]:
        """A lease of the tenant's at the provider, whose arbiter is Disputes, and its session signer."""
        self.jobs += 1
        places, signer = self.spec.deployment, key_of(f"signer {self.jobs}")
        now = await self.chain.time()
        offer = Offer(
            provider=self.provider.address, machine=Hash32("0x" + "33" * 32), terms=Hash32("0x" + "44" * 32),
            price_per_hour=Amount(3_600_000), units=64, deposit_min=Amount(1), seconds_min=60, seconds_max=86400,
            quantum=60, close_window=3600, arbiter=places.disputes, hold_bps=2000, hold_seconds=HOLD_SECONDS,
            valid_until=now + 3600, epoch=0, salt=Hash32(to_hex(self.jobs.to_bytes(32, "big"))),
        )  # fmt: skip
        job = Hash32(to_hex(hashlib.sha256(b"job %d" % self.jobs).digest()))
        signature = sign(offer, self.spec.domain, self.provider)
        call = Market(places.market).open(offer, signature, job, 0, 1, 3600, DEPOSIT, signer.address)
        await self.send(f"open/{self.jobs}", call, self.tenant)
        (record,) = [found for found in self.chain.view.leases.values() if found.lease.job == job]
        return record, signer

    async def committed(self, step: Step = honest, change: Callable[[Done], Done] | None = None) -> Dock:
        """A provider that did the small work with `step`, committed to it and closed its lease."""
        record, signer = await self.lease()
        made = done(self.folder / f"work-{self.jobs}", signer, step)
        return await self.commit(record, signer, change(made) if change else made)

    async def commit(self, record: LeaseRecord, signer: PrivateKey, made: Done) -> Dock:
        """A provider that committed to what it made of a lease, and closed it."""
        made = bind(made, record.lease.channel, signer, self.spec)
        root, lease = Hash32(to_hex(Tree(made.leaves).root)), record.lease
        call = self.disputes.commit(lease, made.claim.work, root, len(made.leaves), made.signature)
        await self.send(f"commit/{self.jobs}", call, self.provider)
        voucher = sign(Voucher(lease.channel, Amount(PAID)), self.spec.domain, signer)
        close = Market(self.spec.deployment.market).close(lease, PAID, voucher, 1)
        await self.send(f"close/{self.jobs}", close, self.provider)
        return Dock(self, made, self.chain.view.commitments[lease.channel], self.chain.view.leases[lease.id])


def bind(made: Done, channel: Hash32, signer: PrivateKey, spec: ChainSpec) -> Done:
    """The same work, ordered for a real channel."""
    signature = sign(Ordered(channel, made.claim.work), spec.disputes_domain, signer)
    return replace(made, signature=signature, claim=replace(made.claim, channel=channel, signer=signer.address))


@dataclass
class Dock:
    """A provider that is accused or may be: what it holds, and how it serves. `lies` changes an answer by its path."""

    court: Court
    made: Done
    commitment: Commitment
    lease: LeaseRecord
    lies: dict[str, Callable[[Response], Response | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    appeals: bool = True

    def app(self) -> Starlette:
        """The audit routes, as a provider has them."""

        async def login(request: Request) -> Response:
            asked = AuditLogin.parse(await request.body())
            message = Auditor(self.commitment.channel, Address(asked.validator), asked.issued_at, Hash32(asked.nonce))
            signature = bytes.fromhex(asked.signature[2:])
            verify(message, self.court.spec.disputes_domain, signature, Address(asked.validator))
            return self._answer("login", Response(canonical_json({"token": "t", "expires_at": asked.issued_at + 3600})))

        async def audit(request: Request) -> Response:
            told = AuditedLease(
                lease=self.commitment.channel, work=Work.parse(self.made.work.plain()),
                signature=to_hex(self.made.signature), root=self.commitment.root, leaves=self.commitment.leaves,
                files=list(self.made.files.values()),
            )  # fmt: skip
            return self._answer("audit", Response(told.canonical()))

        async def blob(request: Request) -> Response:
            name, blobs = request.path_params["name"], self.made.blobs
            data = b"".join(blobs.read(name)) if blobs.has(name) else b""
            start = int(request.headers.get("range", "bytes=0-")[6:-1])
            return self._answer(f"blob/{name}", Response(data[start:], 200 if data else 404))

        prefix = f"/v1/audits/{self.commitment.channel}"
        return Starlette(routes=[
            Route(f"{prefix}/login", login, methods=["POST"]), Route(prefix, audit),
            Route(f"{prefix}/blobs/{{name}}", blob),
        ])  # fmt: skip

    def _answer(self, what: str, response: Response) -> Response:
        self.asked.append(what)
        lie = self.lies.get(what) or self.lies.get(what.partition("/")[0])
        return (lie(response) if lie else None) or response

    @asynccontextmanager
    async def serving(self, defends: bool = True) -> AsyncIterator[None]:
        """Serve, register the url, and (if it can) answer every game that asks for a move."""
        court = self.court
        async with serve(self.app(), "127.0.0.1", 0) as server, anyio.create_task_group() as tasks:
            registry = Registry(court.spec.deployment.registry)
            await court.send(
                f"update/{server.url}", registry.update(server.url, court.provider.address), court.provider
            )
            if defends:
                tasks.start_soon(self._defend)
            yield
            tasks.cancel_scope.cancel()

    async def _defend(self) -> None:
        tree = tree_of(self.commitment, self.made.leaves)
        async with open_chain(self.court.spec, self.court.folder / "defence", SystemClock()) as chain:
            while True:
                chain.acknowledge(await chain.poll())
                for record in list(chain.view.disputes.about(self.commitment.channel)):
                    if record.finished is None:
                        await play(chain, self.court.provider, record, self.commitment, tree, SHORT, self.appeals)
                await anyio.sleep(0.05)  # between two looks at the chain

    def state_path(self, leaf: int) -> str:
        """Where the file of a kept state is asked for."""
        return f"blob/{self.made.files[f'trace/states/{leaf:08d}.state'].blake3}"


@asynccontextmanager
async def court(folder: Path) -> AsyncIterator[Court]:
    """A court in session: the provider is registered and has its stake under Disputes, the tenant an allowance."""
    clock = SystemClock()
    async with (
        local_chain(folder / "chain", clock, SeededDice("court")) as local,
        open_chain(local.spec, folder / "court", clock) as chain,
    ):
        made = Court(local, chain, folder, key_of("tenant"), key_of("provider"))
        await made.fund("tenant", 100 * DEPOSIT)
        await made.fund("provider", 10 * STAKE)
        places, registry = local.spec.deployment, Registry(local.spec.deployment.registry)
        token = Token(places.token)
        await made.send("approve", token.approve(places.market, 100 * DEPOSIT), made.tenant)
        await made.send("register", registry.register("http://127.0.0.1:1", made.provider.address), made.provider)
        await made.send("allow", token.approve(places.registry, 10 * STAKE), made.provider)
        await made.send("stake", registry.stake(places.disputes, 10 * STAKE), made.provider)
        yield made


@dataclass
class Bench:
    """A validator at work in this process, and what it announced."""

    validator: Validator
    told: list[tuple[str, dict[str, Any]]]

    def phase(self, stream: str) -> str:
        """The phase of a case or seat; empty before it began."""
        run = self.validator.runs.get(stream)
        return run.state.phase if run else ""


def config(court: Court, name: str, options: Options, stake: int = SHORT.referee_stake) -> ValidatorConfig:
    """A validator with the court's environment."""
    return ValidatorConfig(
        court.folder / name, court.spec, key_of(name), stake, environments={"python": court.environment},
        options=options, limits=court.limits,
    )  # fmt: skip


@asynccontextmanager
async def validating(made: ValidatorConfig) -> AsyncIterator[Bench]:
    """A validator; leaving the block kills it at whatever it does."""
    from minga.store.journal import Journal

    told: list[tuple[str, dict[str, Any]]] = []
    made.home.mkdir(exist_ok=True)
    journal = Journal(made.home / "journal.sqlite")
    announce = lambda kind, facts: told.append((kind, facts))  # noqa: E731
    try:
        async with _opened(made, SystemClock(), SeededDice(made.home.name), announce, journal) as validator:
            bench = Bench(validator, told)
            validator.world.tasks.start_soon(_turns, validator)
            yield bench
            validator.world.tasks.cancel_scope.cancel()
    finally:
        journal.close()


@asynccontextmanager
async def bench(room: Court, *names: str, options: Options = JUDGE) -> AsyncIterator[dict[str, Bench]]:
    """Validators with money and a seat each."""
    async with AsyncExitStack() as stack:
        found = {}
        for name in names:
            await room.fund(name, 10 * SHORT.referee_stake)
            made = config(room, name, options)
            found[name] = await stack.enter_async_context(validating(made))
        yield found


async def _turns(validator: Validator) -> None:
    while True:
        await validator.turn()
        await anyio.sleep(0.05)  # between two looks at the chain


async def reached(bench: Bench, stream: str, *phases: str, seconds: float = 60) -> None:
    """Wait until a case or seat is in one of the phases."""
    try:
        await eventually(lambda: bench.phase(stream) in phases, seconds)
    except AssertionError:
        raise AssertionError(f"{stream} is {bench.phase(stream)!r}: {bench.told[-12:]}") from None


async def balance(court: Court, address: Address) -> int:
    """Token units of an address."""
    return await court.chain.read(Token(court.spec.deployment.token).balance_of(address))


__all__ = ["BlobStore", "Court", "Dock", "court"]
