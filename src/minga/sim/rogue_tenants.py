"""Hostile tenants: scripts of strangers with a wallet. The first line of a class is its story.

What an honest provider loses to one is at most a quantum on each lease. Rule: a script may fail at any line; what it
was refused is nothing that the world minds.
"""

from __future__ import annotations

from typing import Any

from minga.core.errors import MingaError
from minga.core.spec import UnitSize
from minga.core.units import Amount
from minga.protocol.messages import Voucher, sign
from minga.sim import deeds
from minga.sim.cast import Actor, Crowd
from minga.sim.rogue_payers import (
    CrossVouchers,
    FreeRider,
    LongGrace,
    LowVouchers,
    NeverPays,
    OverDeposit,
    Replayer,
    StopsPaying,
    VoucherForger,
)
from minga.sim.stranger import Rogue


class EarlyLeaver(Rogue):
    """Starts its close on the chain while the job runs, and takes the work until then."""

    async def play(self) -> None:
        deal = await self.begin()
        await self.sleep(deal.quantum * 0.8)
        await self.chain.send(self.node, f"sc/{self.count}", deeds.start_close(deal.lease.tenant, deal.lease.id))
        await self.sleep(60)


class Flooder(Replayer):
    """Sends hundreds of requests a second."""

    async def play(self) -> None:
        deal = await self.begin()
        for _ in range(60):
            for _ in range(5):
                self.node.spawn(self.quiet(self.log_in, deal))
                self.node.spawn(self.quiet(self.ask, deal, "status"))
            await self.sleep(0.05)


class UnitLocker(Rogue):
    """Leases every unit that there is, and starts nothing."""

    async def play(self) -> None:
        for posted in await self.offers():
            for _ in range(posted.offer.units):
                try:
                    await self.open(posted)
                except MingaError:
                    break
        await self.sleep(120)


class NeverStarts(Rogue):
    """Sends its manifest and never the start."""

    async def play(self) -> None:
        deal = await self.open()
        await self.enter(deal)
        await self.ask(deal, "set_manifest", self.manifest(deal))
        await self.sleep(400)


class CloseRacer(Replayer):
    """Redeems its first voucher itself and starts its close in the same moment, to race the provider's last one."""

    async def play(self) -> None:
        deal = await self.begin()
        await self.sleep(deal.quantum * 0.8)
        small = max(1, self.cost(deal, 1))
        await self.pay(deal, self.cost(deal, deal.quantum))
        message = Voucher(deal.lease.channel, Amount(small))
        signature = sign(message, self.chain.domain, deal.signer)  # type: ignore[arg-type]
        for name, call in (
            ("rd", deeds.redeem(deal.lease.id, small, signature)),
            ("sc", deeds.start_close(deal.lease.tenant, deal.lease.id)),
            ("fc", deeds.finish_close(deal.lease.id)),
        ):
            self.node.spawn(self.quiet(self.chain.send, self.node, f"{name}/{self.count}", call))
        await self.sleep(60)


class Griefer(Replayer):
    """Tops up other people's leases by one token unit, again and again."""

    async def play(self) -> None:
        for number in range(20):
            leases = [name for name, a in self.chain.market.accounts.items() if a.phase == 1]
            if leases:
                call = deeds.top_up(self.key.address, self.dice.choice(leases), 1)
                self.node.spawn(self.quiet(self.chain.send, self.node, f"grief/{self.count}/{number}", call))
            await self.sleep(3.0)
        self.count += 1


class BadManifests(Replayer):
    """Sends manifests of other jobs, too large ones, and other ones after the first."""

    async def play(self) -> None:
        deal = await self.open()
        await self.enter(deal)
        huge = UnitSize(cpu_milli=10**9, memory_bytes=1 << 40, disk_bytes=1 << 50)
        for changes in ({"job": "0x" + "11" * 32}, {"size": huge}, {"attempt": 7}, {}, {"name": "other"}):
            await self.quiet(self.ask, deal, "set_manifest", self.manifest(deal, **changes))
        await self.quiet(self.ask, deal, "start_job")
        await self.sleep(100)


class DoubleSpender(Replayer):
    """Takes its money away from under an open lease when the chain forgets the newest blocks."""

    async def play(self) -> None:
        deal = await self.open()
        await self.enter(deal)
        await self.ask(deal, "set_manifest", self.manifest(deal))
        self.node.spawn(self._flee())
        if deal.provider.ask.prepaid_quanta:
            await self.pay(deal, self.cost(deal, deal.quantum))
        await self.ask(deal, "start_job")
        await self.work(deal, 6)

    async def _flee(self) -> None:
        for number in range(200):
            await self.sleep(1.0)
            waiting = [t for t in self.node.transactions.values() if t.block is None]
            if waiting:
                for transaction in waiting:  # what the reorg took back is outrun by this
                    if transaction in self.chain.mempool:
                        self.chain.mempool.remove(transaction)
                        transaction.waiting = False
                call = deeds.transfer(self.key.address, self.world.ring.key("elsewhere").address, None)
                await self.quiet(self.chain.send, self.node, f"flee/{self.count}/{number}", call)
                return


class Babbler(Replayer):
    """Calls every route with nonsense."""

    async def play(self) -> None:
        deal = await self.begin()
        for _ in range(30):
            args: dict[str, tuple[Any, ...]] = {
                "status": (), "close": (), "artifacts": (), "events": (2**60,), "blob": ("zz",),
                "put_blob": ("aa" * 32, b"x"), "stop": ("x" * 9, 2**31),
                "take_voucher": (self.dice.choice((0, 1, 2**90)), bytes(self.dice.choice((0, 64, 65)))),
            }  # fmt: skip
            what = self.dice.choice(tuple(args))
            token, deal.token = deal.token, self.dice.choice((deal.token, "", "00"))
            await self.quiet(self.ask, deal, what, *args[what])
            deal.token = token
            await self.sleep(0.5)


class Chaser(Rogue):
    """Opens on offers that were withdrawn or are about to end."""

    async def play(self) -> None:
        held = await self.offers()
        for _ in range(6):
            await self.sleep(40)
            for posted in held:
                try:
                    await self.enter(await self.open(posted))
                except MingaError:
                    continue


def _play(kind: type[Rogue]) -> Actor:
    words = "".join(f"-{char.lower()}" if char.isupper() else char for char in kind.__name__).strip("-")
    story = (kind.__doc__ or "").split("\n")[0]

    def enter(crowd: Crowd, name: str) -> None:
        kind(crowd, name)

    name = f"tenant-{words}" if words == "voucher-forger" else words
    return Actor(name, "tenant", "quantum", story, enter)


TENANTS: tuple[Actor, ...] = tuple(
    _play(kind)
    for kind in (
        NeverPays, StopsPaying, Replayer, EarlyLeaver, Flooder, FreeRider, UnitLocker, NeverStarts, LowVouchers,
        OverDeposit, VoucherForger, CrossVouchers, CloseRacer, Griefer, BadManifests, LongGrace, DoubleSpender, Babbler,
        Chaser,
    )
)  # fmt: skip

__all__ = ["TENANTS"]
