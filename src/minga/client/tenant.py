"""The client, asynchronous: quote, submit, run, follow. `minga.client.session` is the same for ordinary programs.

A client has a home folder and a network. Jobs that it submits run in its own task group, unless detached; any client
of the same home can follow, stop or take over a job, because everything stands in the journal and the job's folder.

Order of a submission: look for offers and pack files (nothing is moved), journal the order, fund, run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import anyio.abc
import httpx

from minga.chain.chain import ChainSpec
from minga.chain.disputes import Disputes
from minga.chain.node import open_chain
from minga.client import points
from minga.client.bill import Bill, make_bill
from minga.client.bundle import Packed, pack, pack_files
from minga.client.folder import JobFolder
from minga.client.groups import first_of
from minga.client.handle import AsyncHandle
from minga.client.home import Home, Network
from minga.client.jobfile import JobSpec
from minga.client.offers import OfferSource, deal_of
from minga.client.order import WORKDIR, Court, Order, needs_of, order_of, plan_of
from minga.client.past import History, remember
from minga.client.provider_api import Connect
from minga.client.quotes import SHOWN, Quote, known_of, make_quote
from minga.client.reader import JobReader, JobStatus
from minga.client.records import Standing
from minga.client.runner import ORDER, Runner, World
from minga.client.verified import LIBRARY, is_verified, library, verified_of
from minga.client.wallet import Purse, job_wallet
from minga.core.crypto import Hash32, PrivateKey, keccak, parse_hash32, to_hex
from minga.core.effects import Clock, Dice
from minga.core.errors import BudgetTooSmall, Conflict, InvalidInput, MingaError, NoMatch, NotFound
from minga.protocol.job_events import Funded
from minga.protocol.job_state import slice_for
from minga.protocol.matching import Exclusion, Ranked, Requirements
from minga.protocol.wire import OfferBundle
from minga.store.blobs import BlobStore
from minga.store.journal import Journal

KEYS = "idempotency"
REORG_BLOCKS = 64
ALONE_S = 0.05
AFTER_FAILURE_S = 30.0


def _connect(url: str, tls_sha256: str | None) -> httpx.AsyncClient:
    from minga.transport.http import connect

    return connect(url, tls_sha256)


class AsyncClient:
    """A tenant on one network. Use it as `async with AsyncClient(...) as client`."""

    def __init__(
        self,
        home: Home,
        network: Network,
        *,
        clock: Clock,
        dice: Dice,
        key: Callable[[], PrivateKey] | None = None,
        allow_process: bool = False,
        connect: Connect = _connect,
    ) -> None:
        """Nothing is opened yet.

        Args:
            home: the folder of keys, jobs and journal.
            network: where to buy.
            clock, dice: time and randomness.
            key: gives the main key when it is needed (it may ask for a passphrase); without it no job is funded.
            allow_process: take offers that run jobs without a sandbox (tests on one machine).
            connect: how a provider or board is reached.
        """
        self.home = home
        self.network = network
        self.clock = clock
        self.dice = dice
        self._key = key
        self._allow_process = allow_process
        self.connect = connect
        self._runners: dict[str, Runner] = {}
        self._failures: dict[str, MingaError] = {}
        self._failed_at: dict[str, float] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AsyncClient:
        self.home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.journal = Journal(self.home.journal)
        self._stack.callback(self.journal.close)
        self.blobs = BlobStore(self.home.blobs)
        chain = await self._stack.enter_async_context(self._open_chain(self.network.chain, self._chain_folder()))
        self._chain = chain
        self._source = OfferSource(self.network, chain, self.connect, self.clock)
        self._stack.push_async_callback(self._source.aclose)
        purse = _SharedPurse(chain, self.journal, self.clock)
        self._world = World(
            self.home, self.network, self.clock, self.dice, self.journal, self.blobs, self.connect,
            self._open_chain, self._source, purse, self._key,
        )  # fmt: skip
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._stack.aclose()

    def _chain_folder(self) -> Path:
        return self.home.chain(self.network.name)

    def _open_chain(self, spec: ChainSpec, folder: Path) -> Any:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open_chain(spec, folder, self.clock)

    # ------------------------------------------------------------------------------------------------ before buying

    async def _needs(self, spec: JobSpec) -> Requirements:
        place = self.network.chain.deployment
        court = None
        if is_verified(spec) and place.has_disputes:
            court = Court(place.disputes, (await self._chain.read(Disputes(place.disputes).preset())).window)
        return needs_of(spec, place.decimals, self._allow_process, court)

    async def quote(self, spec: JobSpec) -> Quote:
        """Who would run this job now, without buying anything.

        Raises:
            InvalidInput: it is to be verified, and cannot be.
            BoardUnavailable, RpcUnavailable: nobody could be asked.
        """
        gathered = await self._source.gather()
        past = await anyio.to_thread.run_sync(History.load, self.journal, self.clock.now())
        return self._make_quote(spec, await self._needs(spec), gathered.bundles, past)

    def _make_quote(
        self, spec: JobSpec, needs: Requirements, bundles: tuple[OfferBundle, ...], past: History, shown: int = SHOWN
    ) -> Quote:
        source, decimals = self._source, self.network.chain.deployment.decimals
        return make_quote(spec, needs, bundles, past, source.reliability(), source.records(), decimals, shown)

    async def offers(self, query: str = "", limit: int = 20) -> list[Ranked]:
        """Offers that meet a query, cheapest first."""
        return await self._source.find(query, limit)

    async def reliability(self, provider: str) -> Standing:
        """A provider's record and the leases behind it; `provider` is its address or the beginning of it."""
        return await self._source.standing(provider)

    # ---------------------------------------------------------------------------------------------------- submission

    async def submit(
        self,
        spec: JobSpec,
        key: str | None = None,
        detach: bool = False,
        quoted: Callable[[Quote], None] | None = None,
    ) -> AsyncHandle:
        """Order a job and, unless `detach`, run it here.

        Args:
            spec: what to run, and for how much.
            key: submitting twice with the same key is one job, whatever the second spec says.
            detach: only journal and fund; `serve` runs it.
            quoted: told the quote of a new job before anything is journaled or paid.

        Raises:
            NoMatch: no offer matches; details say which requirement excluded how many.
            BudgetTooSmall: the budget is missing, or pays no quantum of any match.
            InvalidInput: it is to be verified, and cannot be.
            InsufficientFunds: the wallet holds less than the budget, or no gas money.
            ClockSkew: this machine's clock is not the chain's.
            KeyLocked, NotFound: the main key cannot be had.
        """
        ordered_at = self.clock.monotonic()
        job = Hash32(to_hex(keccak(self.dice.bytes(32))))
        if key is not None:
            job = self._reserve(key, job)
        while not self.journal.has_effect(job, ORDER):
            try:
                with self.journal.exclusive(f"submit {job}"):
                    if not self.journal.has_effect(job, ORDER):
                        await self._order(spec, job, quoted)
            except Conflict as error:
                if "another process" not in error.fact:
                    raise
                await self.clock.sleep(ALONE_S)  # another terminal orders it at this moment; if it fails, we do
        handle = self._handle(job)
        if not handle.status().terminal:
            await self._begin(job, detach, ordered_at)
        return handle

    async def _order(self, spec: JobSpec, job: Hash32, quoted: Callable[[Quote], None] | None) -> None:
        if self._key is None:
            raise InvalidInput("this client has no key to pay with", "connect with a key")
        main = self._key()
        points.reach("client.submit.named")
        order, quote = await self._prepare(spec, job, main)
        if quoted is not None:
            quoted(quote)
        remember(self.journal, job, quote.kept(), order.submitted_at)
        self._write(order, spec, main)

    def _reserve(self, key: str, job: Hash32) -> Hash32:
        """The id of the job that has this key: `job`, unless another was first."""
        digest = to_hex(keccak(key.encode()))
        number = self.journal.append(KEYS, "key", {"job": job}, self.clock.now(), effect=digest)
        return Hash32(self.journal.read(KEYS, number - 1, 1)[0].body["job"])

    async def _begin(self, job: Hash32, detach: bool, ordered_at: float) -> None:
        try:
            if detach:
                with self.journal.exclusive(job):
                    await self._fund_here(job)
            elif job not in self._runners:
                with self.journal.exclusive(job):
                    pass
                self._launch(job, ordered_at)
        except Conflict:
            return  # another process runs it already

    async def _prepare(self, spec: JobSpec, job: Hash32, main: PrivateKey) -> tuple[Order, Quote]:
        """Look, pack and check, all at once; no money moves."""
        decimals = self.network.chain.deployment.decimals
        now = self.clock.now()
        plan = plan_of(spec, job, decimals, now)
        needs = await self._needs(spec)
        found: dict[str, Any] = {}

        async def look() -> None:
            found["offers"] = (await self._source.gather()).bundles

        async def head() -> None:
            await self._chain.check_clock(now)
            found["head"] = await self._chain.head()

        async def files() -> None:
            found["inputs"] = await anyio.to_thread.run_sync(self._pack, spec)

        async def funds() -> None:
            await Purse(self._chain).check(main.address, plan.budget)

        async def past() -> None:
            found["past"] = await anyio.to_thread.run_sync(History.load, self.journal, now)

        await _together(look, head, files, funds, past)
        points.reach("client.submit.packed")
        quote = self._make_quote(spec, needs, found["offers"], found["past"], 1)
        if not quote.matches:
            raise _no_match(quote.exclusion)
        if not any(slice_for(plan.budget, plan.budget, deal_of(item)) for item in quote.matches):
            raise BudgetTooSmall(
                "the budget pays no quantum of any matching offer", "raise --budget, or see `minga quote`"
            )
        start = max(0, found["head"] - REORG_BLOCKS)
        order = order_of(spec, self.network.name, main.address, plan, needs, found["inputs"], now, start)
        return replace(order, estimate=known_of(quote)), quote

    def _pack(self, spec: JobSpec) -> tuple[dict[str, Any], ...]:
        inputs: list[dict[str, Any]] = []
        files: dict[str, dict[str, Path]] = {}
        if spec.workdir is not None:
            inputs.append(_input("workdir", WORKDIR, pack(spec.workdir, self.blobs)))
        for target, path in sorted(spec.file_mounts.items()):
            if path.is_file():
                folder, name = target.rsplit("/", 1)
                files.setdefault(folder or "/", {})[name] = path
            else:
                inputs.append(_input("mount", target, pack(path, self.blobs)))
        inputs += [_input("mount", folder, pack_files(named, self.blobs)) for folder, named in files.items()]
        if is_verified(spec):
            inputs.append(_input("mount", LIBRARY, pack_files(library(), self.blobs)))
        return tuple(inputs)

    def _write(self, order: Order, spec: JobSpec, main: PrivateKey) -> None:
        """Make the job's folder, then journal its order: from here on it exists."""
        job, network = Hash32(order.plan.job), self.network.chain
        wallet = job_wallet(main, network.chain_id, network.deployment.market, job)
        folder = JobFolder(self.home.job(job))
        folder.create()
        folder.save_private("wallet.key", {"address": wallet.address, "secret": wallet.secret().hex()})
        if spec.secrets:
            folder.save_private("secrets.json", dict(spec.secrets))
        self.journal.append(job, ORDER, order.to_json(), order.submitted_at, effect=ORDER)
        folder.tell(order.submitted_at, "phase", {"phase": "submitted", "attempt": 0, "reason": ""})
        points.reach("client.submit.journaled")

    async def _fund_here(self, job: Hash32) -> None:
        reader = JobReader(self.home, self.journal, job)
        if reader.state.funded or reader.state.terminal:
            return
        wallet, purse = reader.folder.wallet().address, self._world.purse
        assert purse is not None
        assert self._key is not None

        def note(receipt: Any, what: str) -> None:
            facts = {"what": what, "transaction": str(receipt.transaction), "gas": receipt.gas_used}
            more = {"fee_wei": str(receipt.fee_wei), "effect": receipt.effect}
            reader.folder.tell(self.clock.now(), "transaction", facts | more)

        transaction = await purse.fund(self._key(), job, wallet, reader.order.plan.budget, note)
        body = {"transaction": str(transaction)}
        self.journal.append(job, Funded.__name__, body, self.clock.now(), effect="funded")

    # ------------------------------------------------------------------------------------------------------- running

    def _launch(self, job: str, ordered_at: float | None = None, until_settled: bool = False) -> Runner:
        if job in self._runners:
            return self._runners[job]
        runner = Runner(self._world, job, ordered_at)
        self._runners[job] = runner
        self._failures.pop(job, None)
        self._tasks.start_soon(self._run, job, runner, until_settled)
        return runner

    async def _run(self, job: str, runner: Runner, until_settled: bool) -> None:
        try:
            await runner.run(until_settled)
        except MingaError as error:
            if isinstance(error, Conflict) and "another process" in error.fact:
                return  # it took the job up a moment before us, and runs it
            self._failures[job] = error
            self._failed_at[job] = self.clock.monotonic()
        finally:
            del self._runners[job]

    def resume(self, job: str) -> None:
        """Run a job here.

        Raises:
            Conflict: another process runs it.
        """
        if job not in self._runners:
            with self.journal.exclusive(job):
                pass
            self._launch(job)

    async def serve(self, stopped: Callable[[], bool]) -> None:
        """Run every job that is not over, new ones too, until `stopped()` is true. What `minga runner` does."""
        while not stopped():
            for job in self._streams():
                if job not in self._runners and not self._failed_lately(job):
                    reader = JobReader(self.home, self.journal, job)
                    if reader.order.network == self.network.name and not reader.state.over:
                        await self._serve_one(job)
            await self.clock.sleep(0.2)

    def _failed_lately(self, job: str) -> bool:
        return self.clock.monotonic() - self._failed_at.get(job, -1e9) < AFTER_FAILURE_S

    async def _serve_one(self, job: str) -> None:
        try:
            with self.journal.exclusive(job):
                pass
        except Conflict:
            return
        self._launch(job, until_settled=True)

    def _streams(self) -> list[str]:
        return [name for name in self.journal.streams() if name.startswith("0x") and len(name) == 66]

    # ------------------------------------------------------------------------------------------------------- looking

    def jobs(self) -> list[JobStatus]:
        """Every job of this home on this network, oldest first."""
        readers = (JobReader(self.home, self.journal, job) for job in self._streams())
        return [reader.status() for reader in readers if reader.order.network == self.network.name]

    def attach(self, job: str) -> AsyncHandle:
        """A job by its id, the beginning of its id, or its name.

        Raises:
            NotFound: none, or more than one.
        """
        if len(job) == 66 and job.startswith("0x"):
            return self._handle(parse_hash32(job))
        prefix = job if job.startswith("0x") else "0x" + job
        streams = self._streams()
        found = [name for name in streams if name.startswith(prefix.lower())] if len(job) >= 4 else []
        if not found:
            found = [name for name in streams if JobReader(self.home, self.journal, name).order.name == job]
        if len(found) != 1:
            what = "there is no job" if not found else f"{len(found)} jobs are called"
            raise NotFound(f"{what} {job[:80]!r}", "see `minga jobs`; name one by its id")
        return self._handle(found[0])

    def _handle(self, job: str) -> AsyncHandle:
        return AsyncHandle(self, JobReader(self.home, self.journal, job))

    def failure(self, job: str) -> MingaError | None:
        """Why this process stopped running a job, if it did."""
        return self._failures.get(job)

    async def bill(self, reader: JobReader) -> Bill:
        """The bill of a job, from the chain's events as of now."""
        state = reader.refresh()
        spec = self.network.chain
        place = replace(spec.deployment, start_block=max(spec.deployment.start_block, reader.order.start_block))
        async with self._open_chain(replace(spec, deployment=place), reader.folder.path / "bill") as chain:
            while True:
                changes = await chain.poll()
                chain.acknowledge(changes)
                if not changes.confirmed and not changes.undone:
                    break
            decimals, cost = spec.deployment.decimals, verified_of(reader.order, reader.folder.artifacts())
            return make_bill(state, chain.view, decimals, reader.times.seconds, reader.costs, cost)

    async def close_gas(self, reader: JobReader) -> int | None:
        """Gas of the newest close of this job's leases, whoever sent it."""
        closed = [item for item in reader.closed_in if item]
        if not closed:
            return None
        async with self._open_chain(self.network.chain, reader.folder.path / "bill") as chain:
            receipt = await chain.rpc.request("eth_getTransactionReceipt", closed[-1])
        return int(receipt["gasUsed"], 16) if isinstance(receipt, dict) else None


def _input(kind: str, target: str, packed: Packed) -> dict[str, Any]:
    return {"kind": kind, "target": target, "blake3": packed.blake3, "bytes": packed.bytes}


class _SharedPurse(Purse):
    """A purse whose key other processes of this home use too: one of them funds at a time."""

    def __init__(self, chain: Any, journal: Journal, clock: Clock) -> None:
        super().__init__(chain)
        self._journal = journal
        self.clock = clock

    async def fund(self, main: PrivateKey, job: str, wallet: Any, amount: int, note: Any) -> Hash32:
        while True:
            try:
                with self._journal.exclusive(f"purse {main.address}"):
                    return await super().fund(main, job, wallet, amount, note)
            except Conflict as error:
                if "another process" not in error.fact:
                    raise
            await self.clock.sleep(ALONE_S)


async def _together(*parts: Callable[[], Any]) -> None:
    """Run several at once; the first of our errors is raised bare."""
    try:
        async with anyio.create_task_group() as tasks:
            for part in parts:
                tasks.start_soon(part)
    except BaseExceptionGroup as group:
        raise first_of(group) from None


def _no_match(exclusion: Exclusion) -> NoMatch:
    if not exclusion.total:
        return NoMatch("nobody offers anything now", "is a provider running? `minga status`", **exclusion.as_dict())
    name, count = next(iter(exclusion.excluded.items()))
    fact = f"none of {exclusion.total} offers matches; {name} excludes {count}"
    return NoMatch(fact, "see `minga quote` for every reason", **exclusion.as_dict())
