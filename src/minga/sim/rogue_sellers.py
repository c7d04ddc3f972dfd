"""Hostile providers that cheat about money and offers: receipts, closes, doors. First lines are their stories.

None of it may cost a tenant more than a quantum on each lease.
"""

from __future__ import annotations

from minga.core.crypto import Hash32
from minga.core.errors import MingaError, Unauthorized
from minga.core.spec import Manifest
from minga.protocol.lease import Why
from minga.protocol.messages import Login
from minga.provider import events as ev
from minga.sim import deeds
from minga.sim.chain import Call
from minga.sim.lease import LeaseRun
from minga.sim.provider import Posted
from minga.sim.rogue import FOREVER_S, Rogue


class Runaway(Rogue):
    """Takes voucher 1 and leaves for ever."""

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        held = super().store_voucher(run, cumulative, signature)
        self.node.kernel.after(0.2, lambda: self.node.crash(FOREVER_S))
        return held


class Sleeper(Rogue):
    """Falls silent in the middle of the work, and comes back after most of the close window to take what it holds."""

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        held = super().store_voucher(run, cumulative, signature)
        if run.state.working_s > 20:
            self.node.kernel.after(0.2, lambda: self.node.crash(3000.0))
        return held


class EarlyCloser(Rogue):
    """Closes on the chain as soon as it holds a voucher."""

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        held = super().store_voucher(run, cumulative, signature)
        run.attempt(ev.CloseAsked("good bye", Why.NOT_SAID))
        return held


class OldVoucher(Rogue):
    """Closes with nothing although it holds a voucher, and says that it was cheated."""

    def close_call(self, lease_id: Hash32, cumulative: int, signature: bytes) -> Call:
        return super().close_call(lease_id, 0, b"")


class VoucherForger(Rogue):
    """Closes with a voucher over the whole deposit that it signed itself."""

    def placed(self, run: LeaseRun) -> tuple[Hash32, int]:
        found = super().placed(run)
        forged = self.key.sign(b"\x07" * 32)
        for amount in (run.state.deposit, run.state.paid + 1):
            call = deeds.close(self.key.address, found[0], amount, forged)
            self.node.spawn(self._try(f"forged/{run.channel}/{amount}", call))
        return found

    async def _try(self, name: str, call: Call) -> None:
        try:
            await self.chain.send(self.node, name, call)
        except MingaError:
            return


class OfferReplayer(Rogue):
    """Withdraws its offers on the chain, and goes on showing them."""

    def offers(self) -> list[Posted]:
        if len(self.book) < 2:
            shown = [self.sign_offer(self.chain.time, 0), self.sign_offer(self.chain.time, 0)]
            self.node.spawn(self._withdraw())
            return shown
        return list(self.book.values())[:2]

    async def _withdraw(self) -> None:
        await self.node.kernel.sleep(self.node.kernel.dice.uniform(5, 60))
        try:
            await self.chain.send(self.node, "cancel", deeds.cancel_offers(self.key.address))
        except MingaError:
            return


class NeverCloses(Rogue):
    """Does not close, whatever it is asked."""

    async def close(self, channel: str, token: str) -> None:
        self.authorised(channel, token)

    def tidy(self) -> None:
        return


class Reclaimer(Rogue):
    """Reclaims its machine in a loop, as soon as somebody works on it."""

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        held = super().store_voucher(run, cumulative, signature)
        self.reclaim("again")
        self.node.kernel.after(3.0, self._back)
        return held

    def _back(self) -> None:
        self.reclaiming = ""


class FalseReceipts(Rogue):
    """Acknowledges vouchers that it does not keep, then stops the job for want of them."""

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        return cumulative if run.state.paid else super().store_voucher(run, cumulative, signature)


class ShortReceipts(Rogue):
    """Says that it holds less than it was sent."""

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        return super().store_voucher(run, cumulative, signature) - 1


class DoubleSeller(Rogue):
    """Sells one machine to several tenants at once; each gets a share of what was promised."""

    def offers(self) -> list[Posted]:
        while len(self.book) < 3:
            self.machine = Hash32("0x" + f"{len(self.book) + 1:064x}")
            self.sign_offer(self.chain.time, 0)
        return list(self.book.values())

    async def probe(self, channel: str, token: str) -> int:
        told = await super().probe(channel, token)
        busy = sum(1 for run in self.leases.values() if run.state.phase not in ("closed", "closing"))
        return told // max(1, busy)


class UnderSpec(Rogue):
    """Promises a fast machine and has a slow one."""

    async def probe(self, channel: str, token: str) -> int:
        return await super().probe(channel, token) // 3


class Doorkeeper(Rogue):
    """Takes leases and lets nobody log in."""

    async def login(self, channel: str, message: Login, signature: bytes, tenant: str, signer: str) -> str:
        raise Unauthorized("we do not know you", "go away")


class BlobAsker(Rogue):
    """Asks for inputs that the job does not have."""

    async def set_manifest(self, channel: str, token: str, manifest: Manifest) -> tuple[str, ...]:
        await super().set_manifest(channel, token, manifest)
        return ("ff" * 32,)


class SlowAnswers(Rogue):
    """Answers everything after almost ten seconds."""

    async def status(self, channel: str, token: str) -> tuple[str, int]:
        await self.node.kernel.sleep(9.0)
        return await super().status(channel, token)

    async def take_voucher(self, channel: str, token: str, cumulative: int, signature: bytes) -> int:
        await self.node.kernel.sleep(9.0)
        return await super().take_voucher(channel, token, cumulative, signature)


__all__ = [
    "BlobAsker",
    "Doorkeeper",
    "DoubleSeller",
    "EarlyCloser",
    "FalseReceipts",
    "NeverCloses",
    "OfferReplayer",
    "OldVoucher",
    "Reclaimer",
    "Runaway",
    "ShortReceipts",
    "Sleeper",
    "SlowAnswers",
    "UnderSpec",
    "VoucherForger",
]
