"""What a tenant may ask for, judged before anything changes: logins, manifests, starts, vouchers.

Knows: the messages of `protocol.wire` and who must have signed them. Does not know: how they travel; the routes call
this. Rule: check all, then let it happen; a refusal is one error and leaves the lease as it was.
"""

from __future__ import annotations

import shutil

import anyio

from minga.core.crypto import Address, Hash32, parse_signature, to_hex
from minga.core.errors import Conflict, Expired, InvalidInput, OutOfCapacity, Unauthorized
from minga.core.spec import Manifest, UnitSize
from minga.core.units import Amount
from minga.core.work import Work
from minga.protocol.messages import Login, Ordered, Voucher, channel_id, lease_id, verify
from minga.protocol.wire import LeaseStatus, LoginRequest, OfferBundle, VoucherRequest, WorkOrder
from minga.provider import events as ev
from minga.provider.admission import check_manifest, check_room
from minga.provider.agent import ALIVE, WAITING
from minga.provider.audits import Audits
from minga.provider.lease import LeaseRun
from minga.provider.loop import Provider
from minga.provider.points import reach
from minga.provider.probing import Station, best_environment
from minga.provider.tokens import CLOCK_TOLERANCE_S, TOKEN_SECONDS, Bucket, token_hash

LOGINS_PER_MINUTE = 600


class Desk:
    """The requests of all tenants of one provider."""

    def __init__(self, provider: Provider) -> None:
        """For `provider`."""
        self._provider = provider
        self.world = provider.world
        self.station = Station(provider.world, best_environment(provider.world.environments), provider.gpus)
        self.audits = Audits(provider.world)
        self._room = anyio.Lock()
        self._logins = Bucket(LOGINS_PER_MINUTE, LOGINS_PER_MINUTE / 60, at=self.world.clock.monotonic())

    @property
    def offers(self) -> list[OfferBundle]:
        """The offers that can be taken now."""
        return self._provider.offers

    async def login(self, channel: str, request: LoginRequest) -> tuple[str, int]:
        """A fresh token for a lease, and until when it counts (Unix seconds).

        Raises:
            InvalidInput: the names do not belong together, or to this channel.
            Expired: `issued_at` is more than 15 minutes from this machine's clock.
            InvalidSignature: not signed by the lease's session signer for this provider and chain.
            Conflict: the lease is not visible on chain yet, or the login was used before.
            OutOfCapacity: too many logins; try again in a moment.
        """
        if not self._logins.take(self.world.clock.monotonic()):
            raise OutOfCapacity("too many logins at once", "try again in a second")
        now = self.world.clock.now()
        lease = lease_id(Address(request.tenant), Hash32(request.job), request.attempt)
        if lease != request.lease_id or channel != channel_id(
            lease, Hash32(request.offer_hash), Address(request.signer)
        ):
            raise InvalidInput("the login's fields do not name this lease", "compute lease and channel id from them")
        if abs(request.issued_at - now) > CLOCK_TOLERANCE_S:
            raise Expired(
                f"the login is dated {request.issued_at}, it is {now} here", "set your clock, and sign again", now=now
            )
        message = Login(Hash32(channel), self.world.provider, request.issued_at, Hash32(request.nonce))
        verify(message, self.world.chain.spec.domain, parse_signature(request.signature), Address(request.signer))
        run = self.world.leases.get(channel)
        if run is None:
            await self._provider.poll()
            run = self.world.leases.get(channel)
        if run is None:
            raise Conflict("the lease is not visible on chain yet", "try again in a moment", retry=True)
        token = self.world.dice.bytes(32).hex()
        expires_at = now + TOKEN_SECONDS
        await run.apply(ev.LoggedIn(token_hash(token), expires_at, request.nonce))
        return token, expires_at

    def authorised(self, channel: str, token: str) -> LeaseRun:
        """The lease, for the holder of one of its tokens.

        Raises:
            Unauthorized: no such lease, or no such token, or it has expired; nobody learns which.
        """
        run = self.world.leases.get(channel)
        found = token_hash(token)
        now = self.world.clock.now()
        if run is None or not any(name == found and now < until for name, until in run.state.tokens):
            raise Unauthorized("no valid token for this lease", "log in with the lease's session signer")
        return run

    async def set_manifest(self, run: LeaseRun, manifest: Manifest) -> None:
        """Accept a manifest, if it is for this lease and there is room; the same one again changes nothing.

        Raises:
            Conflict: there is another one already, or the lease is past that.
            InvalidInput, LimitNotEnforceable, TooLarge: it asks for what was not sold.
            OutOfCapacity: not enough of the machine is free.
        """
        state = run.state
        if state.manifest_hash == manifest.hash32():
            return
        if run.terms is None:
            raise Conflict("the lease's offer was not signed by this provider's present home", "open another lease")
        check_manifest(manifest, state.facts.job, state.facts.attempt, state.facts.units, run.terms)
        async with self._room:
            await self._check_free(run, manifest)
            await run.borrow_blobs(manifest)
            held = [bundle.blake3 for bundle in manifest.inputs if run.place.blobs.has(bundle.blake3)]
            missing = sorted({bundle.blake3 for bundle in manifest.inputs} - set(held))
            await run.apply(ev.ManifestSet(manifest.plain(), manifest.hash32(), missing))

    async def set_order(self, run: LeaseRun, order: WorkOrder) -> None:
        """Take down which work the lease pays for; the same order again changes nothing.

        Raises:
            Conflict: there is no manifest yet, or another order, or nobody decides about this lease's work.
            InvalidInput: the order is not for the lease's manifest.
            InvalidSignature: not by the session signer, or for another lease, contract or chain.
        """
        state = run.state
        if state.order is not None and state.order["work"] == order.work and state.order["mode"] == order.mode:
            return
        spec = self.world.chain.spec
        if not spec.deployment.has_disputes or state.facts.arbiter != spec.deployment.disputes:
            raise Conflict("nobody decides about the work of this lease", "take an offer that names the arbiter")
        if Work.of(run.manifest, order.trace).hash32() != order.work:
            raise InvalidInput("the order is for other work than the manifest's", "hash the manifest that was sent")
        message = Ordered(Hash32(run.channel), Hash32(order.work))
        verify(message, spec.disputes_domain, parse_signature(order.signature), Address(state.facts.signer))
        await run.apply(ev.OrderSet(order.work, order.trace.plain(), order.mode, order.signature))

    async def _check_free(self, run: LeaseRun, manifest: Manifest) -> None:
        check_room(manifest.size, self._sizes(run), self._provider.machine)
        needed = manifest.size.disk_bytes + 2 * sum(bundle.bytes for bundle in manifest.inputs)
        free = await anyio.to_thread.run_sync(self._free_disk) - self._promised(run)
        if needed > free:
            raise OutOfCapacity(
                f"the job needs {needed} bytes of disk, {max(0, free)} are free", "try another provider"
            )

    def _sizes(self, but: LeaseRun) -> list[UnitSize]:
        """What the other jobs may use that run, or will."""
        runs = [run for run in self.world.leases.values() if run is not but and run.state.phase in ALIVE | WAITING]
        return [run.manifest.size for run in runs if run.state.manifest is not None]

    def _free_disk(self) -> int:
        return shutil.disk_usage(self.world.home).free

    def _promised(self, but: LeaseRun) -> int:
        """Disk of manifests that were accepted and whose sandbox has not set it aside yet."""
        waiting = [run for run in self.world.leases.values() if run is not but and run.state.phase in WAITING]
        return sum(run.manifest.size.disk_bytes for run in waiting if run.state.manifest is not None)

    async def start(self, run: LeaseRun) -> None:
        """Start the job; again changes nothing.

        Raises:
            Conflict: inputs are missing, or voucher 1 is, where the terms ask for it.
            OutOfCapacity: fewer GPUs are free than were sold.
        """
        async with self._room:
            if run.state.phase in ALIVE:
                return
            wanted, leases = run.manifest.size.gpus, self.world.leases.values()
            used = {name for other in leases if not other.state.collected for name in other.state.gpus}
            free = [name for name in self._provider.gpus if name not in used]
            if len(free) < wanted:
                raise OutOfCapacity(f"{wanted} GPUs are needed, {len(free)} are free", "try another provider")
            await run.apply(ev.StartAsked(free[:wanted]))

    async def take_voucher(self, run: LeaseRun, request: VoucherRequest) -> int:
        """Check and store a voucher; the best amount held, after it is on disk. The best one again is no error.

        Raises:
            InvalidSignature: not by the session signer, or for another lease, contract or chain.
            StaleVoucher: not above the best one, or above the deposit.
            DiskFull: it is not stored, and not acknowledged.
        """
        state = run.state
        amount = int(request.cumulative)
        message = Voucher(Hash32(run.channel), Amount(amount))
        signature = parse_signature(request.signature)
        verify(message, self.world.chain.spec.domain, signature, Address(state.facts.signer))
        if amount == state.paid and amount > 0:
            return amount
        if amount > state.deposit:
            await self._provider.poll()  # it may have been topped up a moment ago
        reach("provider.voucher.checked")
        return (await run.apply(ev.VoucherStored(str(amount), to_hex(signature)))).paid

    def status(self, run: LeaseRun) -> LeaseStatus:
        """Where a lease stands."""
        state = run.state
        return LeaseStatus(
            lease=run.channel,
            phase=state.phase,
            reason=state.reason,
            exit_code=state.exit_code,
            working_s=state.working_s,
            paid=str(state.paid),
            missing=run.missing(),
            last_event=state.emitted,
            log_bytes=run.log.size(),
            close_tx=state.close_tx,
        )
