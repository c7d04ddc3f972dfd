"""What becomes of pay that is held back: waits for the end, carries a verdict out, and fetches what it gives.

| on the chain                                   | then                                                             |
|------------------------------------------------|------------------------------------------------------------------|
| the commitment is condemned, the pay still held | `apply`: it comes back to the job wallet                         |
| Disputes owes the job wallet                   | `withdraw`: our share of the slashed stake                       |
| the hold is over for an hour, its provider away | `finish_hold`: it has its pay, and we the gas that was kept      |
| the hold is ended, and no game is open         | done                                                             |

Does not know: how a game is played, nor whether the work was right. Rule: every step may be done by somebody else, or
have been done before; what is counted is what the chain says in the end.
"""

from __future__ import annotations

from minga.chain.chain import Chain
from minga.chain.contracts import Market
from minga.chain.disputes import Disputes
from minga.client import points
from minga.client.wallet import Note
from minga.core.crypto import Hash32, PrivateKey
from minga.core.effects import Clock
from minga.core.errors import ContractError
from minga.core.units import Amount
from minga.protocol.job_events import HoldEnded
from minga.protocol.lease import Lease

AWAY_S = 3600
"""Seconds after the end of a hold for which its provider may take to collect it."""

POLL_MAX_S = 30.0
"""A hold lasts for days: nobody waits at the screen for its end."""


class Verdicts:
    """The held pay of one job's leases; the job wallet's key acts."""

    def __init__(self, chain: Chain, key: PrivateKey, clock: Clock, note: Note) -> None:
        """Through `chain`, whose folder is the job's; `note` is told of every receipt."""
        self._chain = chain
        self._key = key
        self._clock = clock
        self._note = note
        self._contract = Disputes(chain.spec.deployment.disputes)
        self._pause_s = 0.03 if chain.spec.confirmations == 0 else 1.0

    async def wait(self, lease: Lease) -> HoldEnded:
        """Until nothing can change any more about the held pay of `lease`; what came of it."""
        pause_s = self._pause_s
        while True:
            await self._carry_out(lease)
            changes = await self._chain.poll()
            self._chain.acknowledge(changes)
            record = self._chain.view.leases.get(lease.id)
            is_open = Hash32(lease.channel) in self._chain.view.games.values()
            if record is not None and record.hold_ended is not None and not is_open:
                points.reach("client.hold.seen")
                ended, awarded = record.hold_ended, self._chain.view.awards.get(lease.channel, Amount(0))
                return HoldEnded(lease.attempt, ended.to_tenant, ended.to_provider, awarded)
            await self._clock.sleep(pause_s)
            if record is not None and record.closed_at is not None and record.hold_ended is None and not is_open:
                await self._finish(lease, record.closed_at + lease.hold_seconds)
            pause_s = min(2 * pause_s, POLL_MAX_S)

    async def _finish(self, lease: Lease, over_at: int) -> None:
        """End a hold whose provider does not: money that nobody fetches would keep the job for ever."""
        if await self._chain.time() < over_at + AWAY_S:
            return
        try:
            call = Market(self._chain.spec.deployment.market).finish_hold(lease)
            self._note(await self._chain.send(f"finish-hold/{lease.attempt}", call, self._key), "finish_hold")
        except ContractError:
            return  # the provider came back

    async def _carry_out(self, lease: Lease) -> None:
        """Do what a conviction lets us do."""
        read, own = self._chain.read, self._key.address
        if not await read(self._contract.condemned(lease.channel)):
            return
        try:
            name = f"apply/{lease.attempt}/{lease.opened_at}"
            self._note(await self._chain.send(name, self._contract.apply(lease), self._key), "apply")
        except ContractError:
            pass  # it was applied before, by us or by anybody
        owed = await read(self._contract.owed(own))
        if owed:
            call = self._contract.withdraw(own)
            self._note(await self._chain.send(f"award/{lease.attempt}/{owed}", call, self._key), "award")
        points.reach("client.verdict.carried-out")
