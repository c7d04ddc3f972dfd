"""Hostile tenants that cheat about payment: scripts of strangers with a wallet. First lines are their stories.

What an honest provider loses to one is at most a quantum on each lease.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from minga.core.crypto import keccak, to_hex
from minga.core.errors import MingaError
from minga.sim import deeds
from minga.sim.stranger import MONEY, Rogue


class NeverPays(Rogue):
    """Starts jobs and signs nothing."""

    async def play(self) -> None:
        deal = await self.begin()
        await self.sleep(200)
        await self.ask(deal, "close")


class StopsPaying(Rogue):
    """Pays two quanta, and then no more."""

    async def play(self) -> None:
        deal = await self.begin()
        await self.work(deal, 2)
        await self.sleep(300)


class Replayer(Rogue):
    """Sends old logins and old vouchers again."""

    async def play(self) -> None:
        deal = await self.begin()
        nonce = to_hex(keccak(f"{self.node.name}/{self.count}/n".encode()))
        await self.work(deal, 1)
        for _ in range(10):
            await self.quiet(self.log_in, deal, nonce)
            for amount in (1, self.cost(deal, deal.quantum)):
                await self.quiet(self.pay, deal, amount)
            await self.sleep(1.0)

    async def quiet(self, what: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Try, whatever comes."""
        try:
            await what(*args)
        except MingaError:
            return


class FreeRider(Rogue):
    """Comes with a fresh address for every lease, and leaves after the unpaid quantum."""

    async def play(self) -> None:
        key = self.world.ring.key(f"{self.node.name}/fresh/{self.count}")
        await self.chain.send(
            self.node, f"move/{self.count}", deeds.transfer(self.key.address, key.address, MONEY // 8)
        )
        deal = await self.open(key=key)
        await self.enter(deal)
        await self.ask(deal, "set_manifest", self.manifest(deal))
        await self.ask(deal, "start_job")
        await self.sleep(deal.quantum + 5)


class LowVouchers(Replayer):
    """Signs ever lower totals."""

    async def play(self) -> None:
        deal = await self.begin()
        await self.work(deal, 1)
        for share in range(10, 0, -1):
            await self.sleep(deal.quantum / 4)
            await self.quiet(self.pay, deal, self.cost(deal, deal.quantum) * share // 10)


class OverDeposit(Replayer):
    """Signs totals above its deposit, so that the provider believes to be paid."""

    async def play(self) -> None:
        deal = await self.begin()
        for power in (1, 2, 8, 30, 60):
            await self.quiet(self.pay, deal, min(2**127, MONEY << power))
            await self.sleep(deal.quantum / 2)


class VoucherForger(Replayer):
    """Signs with another key than the lease's."""

    async def play(self) -> None:
        deal = await self.begin()
        other = self.world.ring.key(f"{self.node.name}/other")
        for number in range(1, 6):
            await self.quiet(self.pay, deal, self.cost(deal, number * deal.quantum), other)
            await self.sleep(deal.quantum / 2)


class CrossVouchers(Replayer):
    """Sends vouchers that were signed for another lease."""

    async def play(self) -> None:
        first = await self.open()
        deal = await self.begin()
        for number in range(1, 6):
            amount = self.cost(deal, number * deal.quantum)
            await self.quiet(self.pay, deal, amount, first.signer, first.lease.channel)
            await self.quiet(self.pay, deal, amount, deal.signer, first.lease.channel)
            await self.sleep(deal.quantum / 2)


class LongGrace(Rogue):
    """Asks for a stop with an hour of grace, to work on unpaid."""

    async def play(self) -> None:
        deal = await self.begin()
        await self.sleep(deal.quantum * 0.7)
        await self.ask(deal, "stop", "please", 3600)
        await self.sleep(300)


__all__ = [
    "CrossVouchers",
    "FreeRider",
    "LongGrace",
    "LowVouchers",
    "NeverPays",
    "OverDeposit",
    "Replayer",
    "StopsPaying",
    "VoucherForger",
]
