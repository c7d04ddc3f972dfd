"""The job wallet on a real chain: each transfer once whatever is cut off, and every end of a lease that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from strangers import TestClock

from fixtures import LocalNetwork, SeededDice, SystemClock
from minga.chain.chain import Receipt
from minga.chain.contracts import Market, Registry, Token
from minga.chain.local import start_local, stop_local
from minga.chain.node import RpcChain
from minga.client.wallet import JobWallet, Opening, Purse, job_wallet, lease_of, session_signer
from minga.core.crypto import Hash32, PrivateKey, keccak, new_key, parse_signature, to_hex
from minga.core.errors import ContractError, InsufficientFunds
from minga.core.spec import Machine, Terms, UnitSize
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_state import Lease
from minga.protocol.lease import Phase, Why
from minga.protocol.messages import Voucher, channel_id, sign
from minga.protocol.wire import OfferBundle
from minga.provider.bidding import Ask, bundle_of, make_offer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

GIB = 1 << 30
WINDOW = 3600
BUDGET, DEPOSIT = 1_000_000, 250_000
SIZE = UnitSize(cpu_milli=1000, memory_bytes=GIB, disk_bytes=GIB)
MACHINE = Machine(node="0x" + "01" * 32, arch="x", cpu="c", cpus=4, memory_bytes=GIB, disk_bytes=GIB, os="linux")
TERMS = Terms(transport_key="09" + "00" * 31, unit=SIZE, sandbox="bubblewrap")
ASK = Ask(3_600_000, 4, 60, 1000, 60, 86400, WINDOW, 86400)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A chain of this module's own, whose time is moved."""
    folder = tmp_path_factory.mktemp("wallet-chain")

    async def start() -> Any:
        chain = await start_local(folder, SystemClock(), SeededDice("wallets"))
        await chain.faucet.aclose()
        return chain.spec

    yield LocalNetwork(folder, anyio.run(start))
    anyio.run(stop_local, folder)


class Calendar(TestClock):
    """Waiting moves the chain's time on; `meanwhile` is done during the first wait."""

    def __init__(self, chain: RpcChain) -> None:
        super().__init__()
        self._chain = chain
        self.meanwhile: Any = None

    async def sleep(self, seconds: float) -> None:
        """Wait, on the chain too."""
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
            return
        await self._chain.rpc.request("evm_increaseTime", max(1, int(seconds)))
        await self._chain.rpc.request("evm_mine")
        await super().sleep(seconds)


@dataclass
class Case:
    """A funded job wallet, a registered provider, and the chain as each of them sees it."""

    network: LocalNetwork
    path: Path
    name: str
    main: PrivateKey
    operator: PrivateKey
    chain: RpcChain
    wallet: JobWallet
    clock: Calendar
    bundle: OfferBundle
    notes: list[tuple[str, Receipt]]

    @property
    def job(self) -> Hash32:
        """The job's id."""
        return job_of(self.name)

    async def tokens(self, address: str) -> int:
        """What an address holds."""
        return await self.chain.read(self.wallet.token.balance_of(address))

    async def open(self, wallet: JobWallet | None = None, deposit: int = DEPOSIT) -> Opening:
        """Open the first lease."""
        offer = self.bundle.offer.offer()
        return await (wallet or self.wallet).open(offer, parse_signature(self.bundle.signature), 0, 2, 600, deposit)

    def held(self, opened: Opening) -> Lease:
        """The lease as the journal has it."""
        offer = self.bundle.offer.offer()
        deal = ev.Deal(
            self.operator.address, offer.machine, self.bundle.offer_hash(), offer.price_per_hour, 2, 60, Amount(1000),
            60, 86400, WINDOW,
        )  # fmt: skip
        return Lease(0, deal, self.bundle.plain(), opened.deposit, opened_at=opened.lease.opened_at)

    @asynccontextmanager
    async def restarted(self) -> AsyncIterator[JobWallet]:
        """The same wallet in another process, with what this one left on disk."""
        async with self.network.open(self.path / "wallet") as chain:
            yield JobWallet(chain, self.wallet.key, self.job, self.clock, lambda receipt, what: None)

    async def provider_closes(self, opened: Opening, amount: int) -> None:
        """The provider's own close with a voucher for `amount`."""
        lease = opened.lease
        message = Voucher(channel_id(lease.id, lease.offer, lease.signer), Amount(amount))
        signature = sign(message, self.network.spec.domain, session_signer(self.wallet.key, 0))
        async with self.network.open(self.path / "provider") as chain:
            call = Market(self.network.spec.deployment.market).close(lease, amount, signature, int(Why.DONE))
            await chain.send("close", call, self.operator)


def job_of(name: str) -> Hash32:
    return Hash32(to_hex(keccak(name.encode())))


@pytest.fixture
async def case(network: LocalNetwork, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    """A case whose wallet holds its budget."""
    name, place = request.node.nodeid, network.spec.deployment
    main = await network.funded_key(f"tenant {name}", tokens=BUDGET)
    operator = await network.funded_key(f"operator {name}")
    agent, notes = new_key(keccak(operator.secret())), []
    async with network.open(tmp_path / "wallet") as chain, network.open(tmp_path / "provider") as theirs:
        await theirs.send("register", Registry(place.registry).register("http://127.0.0.1:1", agent.address), operator)
        now = await chain.time()
        offer = make_offer(ASK, operator.address, MACHINE.hash32(), TERMS.hash32(), 0, now, bytes(32))
        bundle = bundle_of(offer, MACHINE, TERMS, "http://127.0.0.1:1", now, network.spec.domain, agent)
        key = job_wallet(main, network.spec.chain_id, place.market, job_of(name))
        clock = Calendar(chain)
        wallet = JobWallet(chain, key, job_of(name), clock, lambda receipt, what: notes.append((what, receipt)))
        await Purse(chain).fund(main, job_of(name), key.address, BUDGET, wallet._note)
        yield Case(network, tmp_path, name, main, operator, chain, wallet, clock, bundle, notes)


async def test_a_budget_is_moved_exactly_once(case: Case) -> None:
    address = case.wallet.key.address
    assert (await case.tokens(address), await case.tokens(case.main.address)) == (BUDGET, 0)
    gas = await case.chain.balance(address)
    async with case.network.open(case.path / "wallet") as again:
        await Purse(again).fund(case.main, case.job, address, BUDGET, lambda receipt, what: None)
    assert await case.tokens(address) == BUDGET
    assert await case.chain.balance(address) == gas
    assert [what for what, _ in case.notes] == ["fund", "fund"]


async def test_a_purse_that_cannot_pay_says_what_it_lacks(case: Case) -> None:
    purse = Purse(case.chain)
    with pytest.raises(InsufficientFunds, match=r"holds \$0"):
        await purse.check(case.main.address, 1)
    with pytest.raises(InsufficientFunds, match="holds 0 wei"):
        await purse.check(new_key(keccak(b"nobody")).address, 0)
    await purse.check(case.main.address, 0)
    with pytest.raises(ContractError):
        await purse.fund(case.main, job_of("another"), case.wallet.key.address, 5, lambda receipt, what: None)
    assert await case.tokens(case.wallet.key.address) == BUDGET


async def test_a_lease_is_opened_once_also_when_its_answer_was_lost(case: Case) -> None:
    opened = await case.open()
    async with case.restarted() as wallet:
        again = await case.open(wallet)
    assert again == opened
    assert await case.tokens(case.wallet.key.address) == BUDGET - DEPOSIT
    assert opened.deposit == DEPOSIT
    assert opened.ends_at - opened.lease.opened_at == 600


async def test_the_journal_gives_the_same_lease_as_the_chain(case: Case) -> None:
    opened = await case.open()
    lease = lease_of(case.job, case.wallet.key, case.held(opened))
    assert lease == opened.lease
    assert (await case.chain.read(case.wallet.market.account_of(lease.id))).deposit == DEPOSIT


async def test_a_lease_that_is_refused_costs_nothing(case: Case) -> None:
    for deposit in (ASK.deposit_min - 1, BUDGET + 1):
        with pytest.raises(ContractError):
            await case.open(deposit=deposit)
    assert await case.tokens(case.wallet.key.address) == BUDGET
    assert (await case.open()).deposit == DEPOSIT, "the attempt can still be made"


async def test_a_deposit_grows_once_for_each_total(case: Case) -> None:
    opened = await case.open()
    for _ in range(2):
        assert await case.wallet.top_up(opened.lease, 1000, DEPOSIT + 1000) == DEPOSIT + 1000
    async with case.restarted() as wallet:
        assert await wallet.top_up(opened.lease, 1000, DEPOSIT + 1000) == DEPOSIT + 1000
    assert await case.wallet.top_up(opened.lease, 500, DEPOSIT + 1500) == DEPOSIT + 1500
    assert await case.tokens(case.wallet.key.address) == BUDGET - DEPOSIT - 1500


async def test_our_own_close_returns_everything_after_the_window(case: Case) -> None:
    opened = await case.open()
    started = await case.wallet.start_close(opened.lease, int(Why.UNREACHABLE))
    assert isinstance(started, ev.ClosingStarted)
    async with case.restarted() as wallet:
        assert await wallet.start_close(opened.lease, int(Why.UNREACHABLE)) == started
    with pytest.raises(ContractError):
        await case.wallet.top_up(opened.lease, 1, DEPOSIT + 1)
    closed = await case.wallet.finish_close(opened.lease, started.finish_at)
    assert (closed.paid, closed.fee, closed.held, closed.refunded) == (0, 0, 0, DEPOSIT)
    assert await case.chain.time() >= started.finish_at
    async with case.restarted() as wallet:
        again = await wallet.finish_close(opened.lease, started.finish_at)
    assert (again.refunded, again.attempt) == (DEPOSIT, 0)
    assert await case.tokens(case.wallet.key.address) == BUDGET


async def test_a_close_of_the_providers_before_ours_is_seen_and_not_an_error(case: Case) -> None:
    opened = await case.open()
    await case.provider_closes(opened, 10_000)
    closed = await case.wallet.start_close(opened.lease, int(Why.UNREACHABLE))
    assert isinstance(closed, ev.LeaseClosed)
    assert (closed.paid + closed.fee, closed.refunded) == (10_000, DEPOSIT - 10_000)
    assert closed.fee == 100
    assert replace(await case.wallet.closed(opened.lease), transaction=closed.transaction) == closed
    assert (await case.chain.read(case.wallet.market.account_of(opened.lease.id))).phase is Phase.CLOSED


async def test_a_close_that_an_earlier_run_started_is_taken_up(case: Case) -> None:
    """Its receipt was lost with its folder: the contract itself says until when."""
    opened = await case.open()
    started = await case.wallet.start_close(opened.lease, int(Why.UNREACHABLE))
    async with case.network.open(case.path / "copy") as chain:
        wallet = JobWallet(chain, case.wallet.key, case.job, case.clock, lambda receipt, what: None)
        assert await wallet.start_close(opened.lease, int(Why.UNREACHABLE)) == started


async def test_a_voucher_that_comes_within_the_window_ends_the_wait(case: Case) -> None:
    opened = await case.open()
    started = await case.wallet.start_close(opened.lease, int(Why.UNREACHABLE))
    assert isinstance(started, ev.ClosingStarted)
    case.clock.meanwhile = lambda: case.provider_closes(opened, 77)
    closed = await case.wallet.finish_close(opened.lease, started.finish_at)
    assert (closed.paid + closed.fee, closed.refunded) == (77, DEPOSIT - 77)
    assert await case.chain.time() < started.finish_at
    assert "finish_close" not in [what for what, _ in case.notes]


async def test_a_close_that_somebody_else_finished_is_ours_too(case: Case) -> None:
    opened = await case.open()
    started = await case.wallet.start_close(opened.lease, int(Why.UNREACHABLE))
    assert isinstance(started, ev.ClosingStarted)
    await case.clock.sleep(WINDOW + 1)
    async with case.network.open(case.path / "provider") as chain:
        await chain.send("finish", case.wallet.market.finish_close(opened.lease), case.operator)
    closed = await case.wallet.finish_close(opened.lease, started.finish_at)
    assert closed.refunded == DEPOSIT


async def test_the_rest_goes_back_once_with_the_gas_when_nothing_is_left_to_do(case: Case) -> None:
    address, main = case.wallet.key.address, case.main.address
    gas = await case.chain.balance(address)
    assert (await case.wallet.give_back(main, 0, keep_gas=True))[0] == BUDGET
    assert await case.tokens(main) == BUDGET
    assert await case.chain.balance(address) > gas * 9 // 10, "a close is still to be finished with it"
    tokens, transaction = await case.wallet.give_back(main, 1, keep_gas=False)
    assert (tokens, transaction) == (0, "")
    left = await case.chain.balance(address)
    assert left < await case.chain.gas_cost(60_000)
    await case.wallet.return_gas(main, 2)
    assert await case.chain.balance(address) == left, "what is left does not pay its own way"


async def test_tokens_that_come_after_a_return_are_returned_too(case: Case) -> None:
    await case.wallet.give_back(case.main.address, 0, keep_gas=True)
    token = Token(case.network.spec.deployment.token)
    async with case.network.open(case.path / "provider") as chain:
        await chain.send("late", token.mint(case.wallet.key.address, 5), case.operator)
    assert (await case.wallet.give_back(case.main.address, 1, keep_gas=False))[0] == 5
    assert await case.tokens(case.main.address) == BUDGET + 5
