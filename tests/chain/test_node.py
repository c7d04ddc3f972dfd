"""A `Chain` over JSON-RPC against a real anvil: leases from opening to close, time, clock, depth."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fixtures import LocalNetwork, SystemClock
from minga.chain.chain import Call, Receipt
from minga.chain.contract_events import Appointed, Closed, ClosingStarted, Opened, Registered, Transfer
from minga.chain.contracts import Market, Registry, Token, transfer_wei
from minga.chain.errors import (
    BadVoucher,
    LeaseClosed,
    MachineFullyLeased,
    NotTheProvider,
    TooEarly,
    TransferFailed,
    UnregisteredProvider,
)
from minga.chain.events import NEAR
from minga.chain.local import LocalChain
from minga.chain.node import RpcChain, open_chain
from minga.core.crypto import ZERO_ADDRESS, Hash32, PrivateKey, new_key, to_hex
from minga.core.errors import ClockSkew, Conflict, InsufficientFunds
from minga.core.units import Amount
from minga.protocol.dispute import SHORT
from minga.protocol.lease import Lease, Phase, Why, lease_of
from minga.protocol.messages import Offer, Voucher, lease_id, sign

pytestmark = pytest.mark.anyio


def name32(text: str) -> Hash32:
    return Hash32(to_hex(hashlib.sha256(text.encode()).digest()))


def offer_of(provider: PrivateKey, now: int, machine: str) -> Offer:
    return Offer(
        provider=provider.address,
        machine=name32(machine),
        terms=name32("terms"),
        price_per_hour=Amount(3_600_000),
        units=1,
        deposit_min=Amount(1),
        seconds_min=60,
        seconds_max=86_400,
        quantum=60,
        close_window=3600,
        arbiter=ZERO_ADDRESS,
        hold_bps=0,
        hold_seconds=0,
        valid_until=now + 3600,
        epoch=0,
        salt=name32("salt"),
    )


@dataclass(frozen=True)
class Parties:
    """A registered provider and a tenant with an allowance, and one offer between them."""

    chain: RpcChain
    provider: PrivateKey
    tenant: PrivateKey
    session: PrivateKey
    market: Market
    offer: Offer
    signature: bytes
    job: Hash32

    def opening(self, attempt: int) -> Call[None]:
        """The call that opens a lease of ten minutes."""
        terms = (self.offer, self.signature, self.job, attempt, 1, 600, 5_000_000, self.session.address)
        return self.market.open(*terms)

    def voucher(self, lease: Lease, cumulative: int) -> bytes:
        """The session signer's voucher."""
        return sign(Voucher(lease.channel, Amount(cumulative)), self.chain.spec.domain, self.session)


@asynccontextmanager
async def parties(
    network: LocalNetwork, folder: Path, name: str, *, registered: bool = True, allowed: bool = True
) -> AsyncIterator[Parties]:
    """Both parties on one chain, ready to deal."""
    provider = await network.funded_key(f"{name}/provider")
    tenant = await network.funded_key(f"{name}/tenant", tokens=20_000_000)
    session = new_key(hashlib.sha256(f"{name}/session".encode()).digest())
    places = network.spec.deployment
    async with network.open(folder) as chain:
        offer = offer_of(provider, await chain.time(), name)
        signature = sign(offer, network.spec.domain, provider)
        if registered:
            await chain.send("register", Registry(places.registry).register("uri", provider.address), provider)
        if allowed:
            await chain.send("approve", Token(places.token).approve(places.market, 20_000_000), tenant)
        yield Parties(chain, provider, tenant, session, Market(places.market), offer, signature, name32(f"{name}/job"))


def opened_lease(receipt: Receipt) -> Lease:
    (lease,) = [seen.event.lease for seen in receipt.events if isinstance(seen.event, Opened)]
    return lease


async def test_a_lease_is_opened_once_and_only_when_allowed(local_network: LocalNetwork, tmp_path: Path) -> None:
    places = local_network.spec.deployment
    async with parties(local_network, tmp_path, "open", registered=False, allowed=False) as deal:
        chain, provider, tenant = deal.chain, deal.provider, deal.tenant
        with pytest.raises(UnregisteredProvider):
            await chain.send("open/1", deal.opening(1), tenant)
        registration = Registry(places.registry).register("https://a.test", provider.address)
        registered = await chain.send("register", registration, provider)
        expected = Registered(provider.address, provider.address, "https://a.test")
        assert [seen.event for seen in registered.events] == [expected]
        with pytest.raises(TransferFailed):
            await chain.send("open/1", deal.opening(1), tenant)
        await chain.send("approve", Token(places.token).approve(places.market, 20_000_000), tenant)
        opened = await chain.send("open/1", deal.opening(1), tenant)
        assert await chain.send("open/1", deal.opening(1), tenant) == opened
        with pytest.raises(MachineFullyLeased):
            await chain.send("open/2", deal.opening(2), tenant)

        lease = opened_lease(opened)
        assert lease == lease_of(deal.offer, tenant.address, deal.job, 1, 1, deal.session.address, lease.opened_at)
        assert lease.id == lease_id(tenant.address, deal.job, 1)
        assert await chain.read(deal.market.lease_hash(lease.id)) == lease.hash
        account = await chain.read(deal.market.account_of(lease.id), deep=True)
        assert (account.deposit, account.settled, account.phase) == (5_000_000, 0, Phase.OPEN)
        assert await chain.read(deal.market.leased(provider.address, deal.offer.machine)) == 1


async def test_a_lease_is_closed_with_its_last_voucher(local_network: LocalNetwork, tmp_path: Path) -> None:
    async with parties(local_network, tmp_path, "close") as deal:
        chain, market = deal.chain, deal.market
        opened = await chain.send("open/1", deal.opening(1), deal.tenant)
        lease = opened_lease(opened)
        closing = market.close(lease, 2_000_000, deal.voucher(lease, 2_000_000), Why.DONE)
        with pytest.raises(NotTheProvider):
            await chain.send("close", closing, deal.tenant)
        forged = market.close(lease, 3_000_000, deal.voucher(lease, 2_000_000), Why.DONE)
        with pytest.raises(BadVoucher):
            await chain.send("close", forged, deal.provider)
        closed = await chain.send("close", closing, deal.provider)
        (end,) = [seen.event for seen in closed.events if isinstance(seen.event, Closed)]
        assert (end.paid, end.fee, end.refund, end.held) == (1_980_000, 20_000, 3_000_000, 0)
        assert sum(seen.event.amount for seen in closed.events if isinstance(seen.event, Transfer)) == 4_980_000
        with pytest.raises(LeaseClosed):
            await chain.send("close again", closing, deal.provider)

        changes = await chain.poll()
        mine = [seen for seen in changes.confirmed if getattr(seen.event, "lease_id", None) == lease.id]
        assert [type(seen.event) for seen in mine] == [Opened, Closed]
        assert {seen.id for seen in opened.events if isinstance(seen.event, Opened)} <= {seen.id for seen in mine}
        record = chain.view.leases[lease.id]
        assert (record.phase, record.paid, record.fee, record.deposit) == (Phase.CLOSED, 1_980_000, 20_000, 5_000_000)
        assert chain.view.providers[deal.provider.address].agent_key == deal.provider.address
        chain.acknowledge(changes)
        assert not (await chain.poll()).confirmed


async def test_a_tenant_alone_gets_the_rest_back_by_chain_time(own_chain: LocalChain, tmp_path: Path) -> None:
    network = LocalNetwork(own_chain.folder, own_chain.spec)
    async with parties(network, tmp_path, "alone") as deal:
        chain, market = deal.chain, deal.market
        lease = opened_lease(await chain.send("open/1", deal.opening(1), deal.tenant))
        await chain.send("top up", market.top_up(lease, 1_000_000), deal.tenant)
        await chain.send("redeem", market.redeem(lease, 100, deal.voucher(lease, 100)), deal.provider)
        started = await chain.send("start", market.start_close(lease, Why.UNREACHABLE), deal.tenant)
        (finish_at,) = [seen.event.finish_at for seen in started.events if isinstance(seen.event, ClosingStarted)]
        with pytest.raises(TooEarly):
            await chain.send("finish", market.finish_close(lease), deal.tenant)
        before = await chain.time()
        await chain.rpc.request("evm_increaseTime", 3600)
        assert await chain.time() >= max(before + 3600, finish_at)  # no block was mined: it is the next one's time
        await chain.send("finish", market.finish_close(lease), deal.tenant)
        assert await chain.read(Token(chain.spec.deployment.token).balance_of(deal.tenant.address)) == 20_000_000 - 100
        await chain.poll()
        assert chain.view.leases[lease.id].phase is Phase.CLOSED
        assert await chain.read(market.fees()) == 1


async def test_events_of_a_long_chain_are_all_found(own_chain: LocalChain, tmp_path: Path) -> None:
    network = LocalNetwork(own_chain.folder, own_chain.spec)
    registry = Registry(own_chain.spec.deployment.registry)
    key = await network.funded_key("long")
    async with network.open(tmp_path) as chain:
        await chain.send("register", registry.register("0", key.address), key)
        for turn in range(1, 4):
            await chain.rpc.request("anvil_mine", hex(2 * NEAR))
            await chain.send(f"update/{turn}", registry.update(str(turn), key.address), key)
        changes = await chain.poll()
        contracts = own_chain.spec.deployment
        assert [seen.event for seen in changes.confirmed] == [
            Appointed(contracts.disputes, contracts.market, SHORT.factor),  # by the deployment
            *(Registered(key.address, key.address, str(turn)) for turn in range(4)),
        ]
        times = [seen.at.time for seen in changes.confirmed]
        assert times == sorted(times)
        assert changes.upto == await chain.head()


async def test_deep_reads_and_events_wait_for_depth(own_chain: LocalChain, tmp_path: Path) -> None:
    spec = replace(own_chain.spec, confirmations=2)
    key = await LocalNetwork(own_chain.folder, spec).funded_key("deep")
    registry = Registry(spec.deployment.registry)
    async with LocalNetwork(own_chain.folder, own_chain.spec).open(tmp_path / "now") as chain:
        await chain.send("register", registry.register("uri", key.address), key)
    async with open_chain(spec, tmp_path / "later", SystemClock()) as chain:
        assert await chain.read(registry.agent_of(key.address)) == key.address
        assert await chain.read(registry.agent_of(key.address), deep=True) == ZERO_ADDRESS
        changes = await chain.poll()
        assert [type(seen.event) for seen in changes.confirmed] == [Appointed]  # by the deployment
        chain.acknowledge(changes)
        await chain.rpc.request("anvil_mine", "0x2")
        assert await chain.read(registry.agent_of(key.address), deep=True) == key.address
        assert [type(seen.event) for seen in (await chain.poll()).confirmed] == [Registered]


async def test_nothing_is_sent_that_cannot_be_paid(local_network: LocalNetwork, tmp_path: Path) -> None:
    poor = new_key(hashlib.sha256(b"node/poor").digest())
    receiver = new_key(hashlib.sha256(b"node/receiver").digest()).address
    async with local_network.open(tmp_path) as chain:
        with pytest.raises(InsufficientFunds):
            await chain.send("gift", transfer_wei(receiver, 1), poor)
        rich = await local_network.funded_key("node/rich", wei=10**16)
        with pytest.raises(InsufficientFunds):
            await chain.send("gift", transfer_wei(receiver, 10**16), rich)
        await chain.send("gift", transfer_wei(receiver, 10**15), rich)
        assert await chain.balance(receiver) == 10**15


async def test_an_effect_id_means_one_thing(local_network: LocalNetwork, tmp_path: Path) -> None:
    key = await local_network.funded_key("node/conflict")
    token = Token(local_network.spec.deployment.token)
    async with local_network.open(tmp_path) as chain:
        await chain.send("effect", token.mint(key.address, 5), key)
        with pytest.raises(Conflict):
            await chain.send("effect", transfer_wei(key.address, 1), key)
        await chain.send("effect", token.mint(key.address, 7), key)
        assert await chain.read(token.balance_of(key.address)) == 5


async def test_time_is_the_chains_and_a_wrong_clock_is_told(local_network: LocalNetwork, tmp_path: Path) -> None:
    async with local_network.open(tmp_path) as chain:
        now = SystemClock().now()
        assert abs(await chain.time() - now) <= 2
        await chain.check_clock(now)
        for wrong in (now + 3600, now - 3600):
            with pytest.raises(ClockSkew, match=r"3[56][0-9][0-9] s from chain time"):
                await chain.check_clock(wrong)


async def test_gas_cost_covers_what_a_transaction_costs(local_network: LocalNetwork, tmp_path: Path) -> None:
    key = await local_network.funded_key("node/gas")
    async with local_network.open(tmp_path) as chain:
        most = await chain.gas_cost(21_000)
        receipt = await chain.send("gift", transfer_wei(key.address, 1), key)
        assert 0 < receipt.fee_wei <= most
        assert receipt.gas_used == 21_000
