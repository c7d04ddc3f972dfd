"""The base of hostile tenants: a stranger with a wallet, and the calls that any client can make.

Each has one address of its own (the free riders many), signs with its own keys, and may call any route of any provider
in any order. What an honest provider loses to one is at most a quantum on each lease. Rule: a script may fail at any
line; what it was refused is nothing that the world minds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minga.core.crypto import Hash32, keccak, to_hex
from minga.core.errors import MingaError
from minga.core.spec import Manifest, UnitSize
from minga.core.units import Amount
from minga.protocol.lease import Lease
from minga.protocol.market import Order
from minga.protocol.messages import Login, Voucher, sign
from minga.protocol.pricing import cost_down
from minga.sim import deeds
from minga.sim.cast import Crowd
from minga.sim.keys import Key
from minga.sim.nodes import Node
from minga.sim.provider import Posted, Provider
from minga.sim.work import Work

if TYPE_CHECKING:
    from minga.sim.world import World

MONEY = 1 << 40
ROUNDS = 3


@dataclass
class Deal:
    """A lease that a rogue holds."""

    lease: Lease
    provider: Provider
    signer: Key
    price: int
    quantum: int
    token: str = ""
    seconds: int = 0


class Rogue:
    """The base: a node, a wallet, and the calls that any client can make."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        """With money, and not begun."""
        self.crowd = crowd
        self.world: World = crowd.world
        self.node: Node = self.world.node(name)
        self.chain, self.wires, self.dice = self.world.chain, self.world.wires, self.world.dice
        self.count = 0
        self.seen: list[Posted] = []
        self.key = self.wallet("main")
        self.node.start = lambda: None
        self.world.kernel.after(self.dice.uniform(1, 60), self._begin)

    def _begin(self) -> None:
        self.node.spawn(self._run())

    def wallet(self, name: str) -> Key:
        """A key of its own, with money."""
        key = self.world.ring.key(f"{self.node.name}/{name}")
        self.chain.mint(key.address, MONEY)
        self.chain.market.ledger.allowances[key.address, self.chain.market.address] = MONEY
        self.chain.blocks[-1].state = self.chain.snapshot()
        return key

    async def _run(self) -> None:
        for _ in range(ROUNDS):
            try:
                await self.play()
            except MingaError:
                pass
            await self.sleep(5.0)

    async def play(self) -> None:
        """The script."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self.world.kernel.sleep(seconds)

    # ---------------------------------------------------------------------------------------------- what anybody can do

    async def offers(self) -> list[Posted]:
        """What a board shows."""
        board = self.dice.choice(self.world.boards)
        shown: list[Posted] = await self.wires.call(self.node, board.node, board.offers)
        found = [posted for posted in shown if posted.provider.honest]
        self.seen.extend(posted for posted in found if posted not in self.seen)
        # One that was withdrawn meanwhile may still be worth a try.
        return found if self.dice.random() < 0.7 else list(self.seen)

    async def open(self, posted: Posted | None = None, deposit: int = 0, key: Key | None = None) -> Deal:
        """A lease on an offer of an honest provider."""
        if posted is None:
            posted = self.dice.choice(await self.offers() or [None])
        if posted is None or self.world.healed:
            raise MingaError("there is no offer")
        self.count += 1
        offer, payer = posted.offer, key or self.key
        job = Hash32(to_hex(keccak(f"{self.node.name}/{self.count}".encode())))
        self.world.works[job] = Work(job, 400, 20)
        signer = self.world.ring.key(f"{self.node.name}/signer/{self.count}")
        paid = max(deposit, offer.deposit_min, cost_down(offer.price_per_hour, 1, 20 * offer.quantum), 1)
        order = Order(job, 0, 1, max(600, offer.seconds_min), min(paid, MONEY), signer.address)
        call = deeds.open_lease(payer.address, offer, posted.signature, order)
        sent = await self.chain.send(self.node, f"open/{self.count}", call)
        return Deal(sent.result[0], posted.provider, signer, offer.price_per_hour, offer.quantum)

    async def ask(self, deal: Deal, what: str, *args: Any) -> Any:
        """One request of a lease."""
        method = getattr(deal.provider, what)
        return await self.wires.call(self.node, deal.provider.node, method, deal.lease.channel, deal.token, *args)

    async def log_in(self, deal: Deal, nonce: str = "") -> str:
        """A token."""
        made = nonce or to_hex(keccak(f"{self.node.name}/{self.dice.getrandbits(64)}".encode()))
        message = Login(deal.lease.channel, deal.provider.key.address, self.node.now(), Hash32(made))
        signature = sign(message, self.chain.domain, deal.signer)  # type: ignore[arg-type]
        token: str = await self.wires.call(
            self.node, deal.provider.node, deal.provider.login, deal.lease.channel, message, signature,
            deal.lease.tenant, deal.signer.address,
        )  # fmt: skip
        return token

    async def enter(self, deal: Deal) -> None:
        """Logged in, with tries while the lease is not visible yet."""
        for _ in range(8):
            try:
                deal.token = await self.log_in(deal)
                return
            except MingaError:
                await self.sleep(3.0)

    def manifest(self, deal: Deal, **changes: Any) -> Manifest:
        """What to run."""
        size = UnitSize(cpu_milli=1000, memory_bytes=1 << 28, disk_bytes=1 << 28)
        fields = {"job": deal.lease.job, "attempt": 0, "name": "job", "run": "work", "size": size, "grace_s": 30}
        return Manifest(**{**fields, **changes})

    async def pay(self, deal: Deal, cumulative: int, signer: Key | None = None, channel: str = "") -> int:
        """A voucher."""
        message = Voucher(Hash32(channel or deal.lease.channel), Amount(cumulative))
        signature = sign(message, self.chain.domain, signer or deal.signer)  # type: ignore[arg-type]
        held: int = await self.ask(deal, "take_voucher", cumulative, signature)
        return held

    def cost(self, deal: Deal, seconds: int) -> int:
        """Token units."""
        return cost_down(deal.price, 1, seconds)

    async def begin(self, prepay: bool = True) -> Deal:
        """A lease whose job was started; voucher 1 is given where the terms ask for it."""
        deal = await self.open()
        await self.enter(deal)
        await self.ask(deal, "set_manifest", self.manifest(deal))
        if prepay and deal.provider.ask.prepaid_quanta:
            await self.pay(deal, self.cost(deal, deal.quantum))
        await self.ask(deal, "start_job")
        return deal

    async def work(self, deal: Deal, quanta: int) -> None:
        """Pay for some quanta as they are worked."""
        for number in range(1, quanta + 1):
            await self.sleep(deal.quantum * 0.9)
            await self.pay(deal, self.cost(deal, deal.quantum * number))


__all__ = ["MONEY", "Deal", "Rogue"]
