"""The simulated chain: blocks, depth, reorgs, views, and the specification of Market inside."""

from __future__ import annotations

from typing import Any

import pytest

from minga.core.crypto import ZERO_ADDRESS, Hash32
from minga.core.errors import ContractError, RpcUnavailable
from minga.core.units import Amount
from minga.protocol.lease import Phase
from minga.protocol.market import Order
from minga.protocol.messages import Offer, Voucher, sign
from minga.sim import deeds
from minga.sim.chain import BLOCK_S, FEES, MARKET, SimChain, Transaction
from minga.sim.kernel import EPOCH, SECOND, Kernel
from minga.sim.keys import Ring
from minga.sim.nodes import Node

JOB = Hash32("0x" + "0b" * 32)
MACHINE = Hash32("0x" + "0a" * 32)
DEPOSIT = 10_000


class Stage:
    """One provider, one tenant, one chain."""

    def __init__(self, confirmations: int = 2, real: bool = False) -> None:
        self.kernel = Kernel(1)
        self.ring = Ring(1, real)
        self.chain = SimChain(self.kernel, confirmations)
        self.node = Node(self.kernel, "n")
        self.provider, self.tenant, self.signer = (self.ring.key(name) for name in ("provider", "tenant", "signer"))
        self.chain.register(self.provider.address, self.provider.address)
        self.chain.mint(self.tenant.address, 1_000_000)
        self.chain.market.ledger.allowances[self.tenant.address, MARKET] = 1_000_000
        self.chain.blocks[-1].state = self.chain.snapshot()
        self.outcomes: list[Any] = []

    def offer(self, epoch: int = 0) -> tuple[Offer, bytes]:
        offer = Offer(
            self.provider.address, MACHINE, MACHINE, Amount(3_600_000), 1, Amount(1), 60, 86_400, 10, 3600,
            ZERO_ADDRESS, 0, 0, EPOCH + 10_000, epoch, MACHINE,
        )  # fmt: skip
        return offer, sign(offer, self.chain.domain, self.provider)

    def open(self, epoch: int = 0, attempt: int = 0) -> Any:
        order = Order(JOB, attempt, 1, 600, DEPOSIT, self.signer.address)
        return deeds.open_lease(self.tenant.address, *self.offer(epoch), order)

    def do(self, effect: str, call: Any, seconds: float = 30.0) -> Any:
        async def go() -> None:
            try:
                self.outcomes.append(await self.chain.send(self.node, effect, call))
            except ContractError as error:
                self.outcomes.append(error.fact)

        self.node.spawn(go())
        self.run(seconds)
        return self.outcomes[-1] if self.outcomes else None

    def run(self, seconds: float) -> None:
        with self.ring.installed():
            self.kernel.run(self.kernel.now + int(seconds * SECOND))

    @property
    def lease(self) -> Any:
        return next(iter(self.chain.market.leases.values()))

    def voucher(self, cumulative: int) -> bytes:
        return sign(Voucher(self.lease.channel, Amount(cumulative)), self.chain.domain, self.signer)

    def conserved(self) -> bool:
        ledger = self.chain.market.ledger
        held = ledger.balance(MARKET) == self.chain.market.liabilities()
        return held and sum(ledger.balances.values()) == self.chain.minted


@pytest.mark.parametrize("real", [False, True])
def test_a_lease_is_opened_paid_and_closed_to_the_unit(real):
    stage = Stage(real=real)
    assert isinstance(stage.do("open", stage.open()), Transaction)
    sent = stage.do("close", deeds.close(stage.provider.address, stage.lease.id, 4_321, stage.voucher(4_321)))
    closing = sent.result
    assert (closing.paid, closing.fee, closing.held, closing.refunded) == (4_278, 43, 0, DEPOSIT - 4_321)
    assert stage.chain.market.ledger.balance(stage.provider.address) == 4_278
    assert stage.chain.market.fees == 43
    assert FEES not in stage.chain.market.ledger.balances
    assert stage.conserved()


def test_a_refused_transaction_says_why_and_changes_nothing():
    stage = Stage()
    before = stage.chain.snapshot()
    assert stage.do("open", stage.open(epoch=5)) == "market: offer cancelled"
    assert vars(stage.chain.snapshot()) == vars(before)


def test_a_withdrawn_offer_opens_no_lease():
    stage = Stage()
    stage.do("cancel", deeds.cancel_offers(stage.provider.address))
    assert stage.do("open", stage.open()) == "market: offer cancelled"
    assert isinstance(stage.do("again", stage.open(epoch=1)), Transaction)


def test_a_stranger_forges_no_voucher():
    stage = Stage()
    stage.do("open", stage.open())
    forged = sign(Voucher(stage.lease.channel, Amount(9_999)), stage.chain.domain, stage.provider)
    close = deeds.close(stage.provider.address, stage.lease.id, 9_999, forged)
    assert stage.do("close", close) == "market: bad voucher"
    assert (
        stage.do("made up", deeds.close(stage.provider.address, stage.lease.id, 9, b"\1" * 65)) == "market: bad voucher"
    )


def test_a_sender_knows_at_depth_and_a_view_shows_what_is_deep():
    stage = Stage(confirmations=8)
    stage.do("open", stage.open(), seconds=3 * BLOCK_S)
    assert stage.outcomes == []
    assert stage.chain.market.leases
    assert not stage.chain.view(stage.node).leases
    assert stage.chain.latest(stage.node).leases
    stage.run(8 * BLOCK_S)
    assert len(stage.outcomes) == 1
    assert stage.chain.view(stage.node).leases


def test_the_same_effect_is_sent_once():
    stage = Stage()
    first = stage.do("open", stage.open())
    assert stage.do("open", stage.open(attempt=1)) is first
    assert len(stage.chain.market.leases) == 1


def test_a_reorg_takes_blocks_back_and_transactions_come_again():
    stage = Stage(confirmations=8)
    stage.do("open", stage.open(), seconds=3 * BLOCK_S)
    old = stage.lease.opened_at
    stage.chain.reorg(4, forget=0.0)
    assert not stage.chain.market.leases
    assert stage.conserved()
    stage.run(20 * BLOCK_S)
    assert stage.lease.opened_at > old
    assert isinstance(stage.outcomes[0], Transaction)
    assert stage.conserved()


def test_a_forgotten_transaction_is_sent_again_by_who_waits_for_it():
    stage = Stage(confirmations=8)
    stage.do("open", stage.open(), seconds=3 * BLOCK_S)
    stage.chain.reorg(4, forget=1.0)
    assert not stage.chain.mempool
    stage.run(40 * BLOCK_S)
    assert len(stage.chain.market.leases) == 1
    assert isinstance(stage.outcomes[0], Transaction)


def test_settle_sends_again_what_nobody_waits_for():
    stage = Stage(confirmations=8)
    stage.do("open", stage.open(), seconds=3 * BLOCK_S)
    stage.chain.reorg(4, forget=1.0)
    for task in list(stage.node.tasks):
        task.cancel()
    stage.chain.settle(stage.node)
    stage.run(20 * BLOCK_S)
    assert len(stage.chain.market.leases) == 1


def test_a_reorg_deeper_than_the_chain_takes_all_back():
    stage = Stage(confirmations=0)
    stage.do("open", stage.open())
    stage.chain.reorg(1000, forget=1.0)
    assert not stage.chain.market.leases
    assert stage.chain.market.ledger.balance(stage.tenant.address) == 1_000_000


def test_a_tenants_close_ends_after_its_window():
    stage = Stage()
    stage.do("open", stage.open())
    sent = stage.do("start", deeds.start_close(stage.tenant.address, stage.lease.id))
    assert sent.result >= stage.chain.time + 3500
    assert stage.do("early", deeds.finish_close(stage.lease.id)) == "market: too early"
    stage.run(3700)
    closing = stage.do("finish", deeds.finish_close(stage.lease.id)).result
    assert (closing.refunded, closing.paid, closing.by) == (DEPOSIT, 0, "window")
    assert stage.chain.market.accounts[stage.lease.id].phase is Phase.CLOSED


def test_a_voucher_redeemed_before_the_end_counts_once():
    stage = Stage()
    stage.do("open", stage.open())
    stage.do("redeem", deeds.redeem(stage.lease.id, 1_000, stage.voucher(1_000)))
    closing = stage.do("close", deeds.close(stage.provider.address, stage.lease.id, 1_500, stage.voucher(1_500))).result
    assert (closing.paid, closing.fee, closing.refunded) == (1_485, 15, DEPOSIT - 1_500)
    assert stage.conserved()


def test_a_gift_to_a_deposit_is_known_as_one():
    stage = Stage()
    stage.do("open", stage.open())
    stage.chain.market.ledger.allowances[stage.provider.address, MARKET] = 10
    stage.chain.mint(stage.provider.address, 10)
    stage.do("gift", deeds.top_up(stage.provider.address, stage.lease.id, 3))
    stage.do("own", deeds.top_up(stage.tenant.address, stage.lease.id, 4))
    assert stage.chain.gifts == {stage.lease.id: 3}
    assert stage.chain.deposits[stage.lease.id] == DEPOSIT + 7


@pytest.mark.parametrize("trouble", ["cut", "lies"])
def test_an_rpc_that_says_nothing_is_an_error_and_no_answer(trouble):
    stage = Stage()
    if trouble == "cut":
        stage.node.cut_until = 100 * SECOND
    else:
        stage.node.lies = 2.0
    with pytest.raises(RpcUnavailable):
        stage.chain.view(stage.node)


def test_an_rpc_that_lags_shows_the_past():
    stage = Stage(confirmations=0)
    stage.do("open", stage.open(), seconds=2 * BLOCK_S)
    stage.node.lag = 10
    assert not stage.chain.latest(stage.node).leases
    stage.run(12 * BLOCK_S)
    assert stage.chain.latest(stage.node).leases


def test_a_transfer_without_money_is_refused():
    stage = Stage()
    call = deeds.transfer(stage.provider.address, stage.tenant.address, 5)
    assert stage.do("transfer", call) == "token: balance too small"
    assert stage.do("all", deeds.transfer(stage.provider.address, stage.tenant.address, None)).result == 0


def test_stand_in_keys_are_gone_when_the_world_is_over():
    from minga.protocol import market, messages

    before = market.recover
    ring = Ring(3, real=False)
    with ring.installed():
        assert market.recover == messages.recover == ring.recover
    assert market.recover is messages.recover is before
    assert ring.key("a") is ring.key("a")
    assert ring.key("a").address != ring.key("b").address != Ring(4, real=False).key("b").address
