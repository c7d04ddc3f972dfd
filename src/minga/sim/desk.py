"""What a tenant may ask of a simulated provider, judged before anything changes, as `minga.provider.desk` does.

Logins, manifests, inputs, starts, vouchers, events, results, stops, closes. Rule: check all, then let it happen; a
refusal is one error and leaves the lease as it was. A voucher is acknowledged after it is on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import Conflict, Expired, InvalidInput, OutOfCapacity, Unauthorized
from minga.core.spec import Manifest
from minga.core.units import Amount
from minga.protocol.lease import Why
from minga.protocol.messages import Login, Voucher, verify
from minga.provider import events as ev
from minga.provider.admission import check_manifest
from minga.provider.agent import ALIVE, WAITING
from minga.provider.events import Emit
from minga.sim.lease import LeaseRun
from minga.sim.work import name_of

if TYPE_CHECKING:
    from minga.core.spec import Terms
    from minga.sim.chain import SimChain
    from minga.sim.keys import Key
    from minga.sim.nodes import Node
    from minga.sim.provider import Ask

CLOCK_TOLERANCE_S = 15 * 60
TOKEN_S = 3600
LOGINS_PER_MINUTE = 600
EVENTS_S = 5.0


class Desk:
    """The requests of all tenants of one provider."""

    node: Node
    chain: SimChain
    key: Key
    ask: Ask
    terms: Terms
    leases: dict[str, LeaseRun]
    _logins = (0, 0)

    def poll(self) -> None:
        """Take in what the chain shows now. Raises RpcUnavailable."""
        raise NotImplementedError

    async def login(self, channel: str, message: Login, signature: bytes, tenant: str, signer: str) -> str:
        """A fresh token. Raises InvalidInput, Expired, InvalidSignature, Conflict (not visible yet), OutOfCapacity."""
        minute = int(self.node.monotonic() // 60)
        self._logins = (minute, self._logins[1] + 1 if self._logins[0] == minute else 1)
        if self._logins[1] > LOGINS_PER_MINUTE:
            raise OutOfCapacity("too many logins at once", "try again in a second")
        now = self.node.now()
        if message.lease != channel or message.provider != self.key.address:
            raise InvalidInput("the login's fields do not name this lease", "compute lease and channel id from them")
        if abs(message.issued_at - now) > CLOCK_TOLERANCE_S:
            raise Expired(f"the login is dated {message.issued_at}, it is {now} here", "set your clock, and sign again")
        verify(message, self.chain.domain, signature, Address(signer))
        run = self.leases.get(channel)
        if run is None:
            self.poll()
            run = self.leases.get(channel)
        if run is None:
            raise Conflict("the lease is not visible on chain yet", "try again in a moment", retry=True)
        if run.state.facts.signer != signer:
            raise InvalidInput("the login's fields do not name this lease", "compute lease and channel id from them")
        token = f"{self.node.kernel.dice.getrandbits(128):032x}"
        run.apply(ev.LoggedIn(token_hash(token), now + TOKEN_S, message.nonce))
        return token

    def authorised(self, channel: str, token: str) -> LeaseRun:
        """The lease, for the holder of one of its tokens. Raises Unauthorized."""
        run, found, now = self.leases.get(channel), token_hash(token), self.node.now()
        if run is None or not any(name == found and now < until for name, until in run.state.tokens):
            raise Unauthorized("no valid token for this lease", "log in with the lease's session signer")
        run.active_at = self.node.monotonic()
        return run

    async def set_manifest(self, channel: str, token: str, manifest: Manifest) -> tuple[str, ...]:
        """Accept a manifest; the same one again changes nothing. The blobs that are missing."""
        run = self.authorised(channel, token)
        if run.state.manifest_hash != manifest.hash32():
            facts = run.state.facts
            check_manifest(manifest, facts.job, facts.attempt, facts.units, self.terms)
            missing = sorted({item.blake3 for item in manifest.inputs} - run.blobs.keys())
            run.apply(ev.ManifestSet(manifest.plain(), manifest.hash32(), missing))
        return run.state.missing

    async def put_blob(self, channel: str, token: str, name: str, content: bytes) -> None:
        """Store an input, if it is the one that was named."""
        run = self.authorised(channel, token)
        if name_of(content) != name:
            raise InvalidInput("the blob has another hash", "send it again")
        run.blobs[name] = content
        if name in run.state.missing:
            run.apply(ev.BlobStored(name))

    async def start_job(self, channel: str, token: str) -> None:
        """Start; again changes nothing."""
        run = self.authorised(channel, token)
        if run.state.phase not in ALIVE:
            run.apply(ev.StartAsked([]))

    async def take_voucher(self, channel: str, token: str, cumulative: int, signature: bytes) -> int:
        """Check and store a voucher; the best amount held, after it is on disk."""
        run = self.authorised(channel, token)
        message = Voucher(Hash32(channel), Amount(cumulative))
        verify(message, self.chain.domain, signature, Address(run.state.facts.signer))
        if cumulative == run.state.paid and cumulative > 0:
            return cumulative
        if cumulative > run.state.deposit:
            self.poll()
        return self.store_voucher(run, cumulative, signature)

    def store_voucher(self, run: LeaseRun, cumulative: int, signature: bytes) -> int:
        """Make it durable; the best amount held then."""
        return run.apply(ev.VoucherStored(str(cumulative), to_hex(signature))).paid

    async def status(self, channel: str, token: str) -> tuple[str, int]:
        """The phase, and the best voucher held."""
        state = self.authorised(channel, token).state
        return state.phase, state.paid

    async def events(self, channel: str, token: str, after: int) -> tuple[list[Emit], bool]:
        """Events with a number over `after`, when there are some or after 5 s; and whether none will follow."""
        run = self.authorised(channel, token)
        if len(run.told) <= after and run.state.phase != "closed":
            await run.changed.wait(EVENTS_S)
        return run.told[after:], run.state.phase == "closed"

    async def blob(self, channel: str, token: str, name: str) -> bytes:
        """A file of a checkpoint or of the results. Raises InvalidInput."""
        run = self.authorised(channel, token)
        if name not in run.blobs:
            raise InvalidInput("there is no such blob", "ask for what was announced")
        return run.blobs[name]

    async def artifacts(self, channel: str, token: str) -> list[dict[str, Any]]:
        """What the job left, once it is collected. Raises Conflict."""
        run = self.authorised(channel, token)
        if not run.state.collected:
            raise Conflict("the results are not collected yet", "wait", retry=True)
        return list(run.state.files)

    async def probe(self, channel: str, token: str) -> int:
        """How fast a unit really is."""
        self.authorised(channel, token)
        await self.node.kernel.sleep(0.3)
        return self.ask.speed

    async def stop(self, channel: str, token: str, reason: str, grace_s: int) -> None:
        """Stop the job."""
        run = self.authorised(channel, token)
        if run.state.phase in ALIVE | WAITING:
            run.apply(ev.StopAsked("tenant", reason, grace_s))

    async def close(self, channel: str, token: str) -> None:
        """Close on chain."""
        run = self.authorised(channel, token)
        if run.state.phase not in ("closing", "closed"):
            run.apply(ev.CloseAsked("the tenant asked", Why.NOT_SAID))


def token_hash(token: str) -> str:
    """What the journal keeps of a token."""
    return to_hex(keccak(token.encode()))


__all__ = ["Desk", "token_hash"]
